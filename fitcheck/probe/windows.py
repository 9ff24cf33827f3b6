"""Windows: processor, memory and GPUs from the registry, DXGI and the firmware's table, without PowerShell or rights.

The registry holds a card's memory in 64 bits (what other interfaces cap at 4 GiB), but also keys of cards that were
taken out: only what DXGI lists is present. NVIDIA's cards are told in more detail by their own driver's library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from fitcheck.probe.display import parse_json
from fitcheck.probe.hardware import (
    TOO_SLOW,
    GpuRow,
    Processor,
    backends_of,
    find_cpu,
    find_gpu,
    load_cpus,
    load_gpus,
)
from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.probe.memory_speed import speed_of_modules
from fitcheck.types import Accelerator, Backend, Cpu, Evidence, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes, format_rate

_PROCESSOR_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_DISPLAY_KEY = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_VERSION_KEY = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_VENDORS = {0x10DE: Vendor.NVIDIA, 0x1002: Vendor.AMD, 0x8086: Vendor.INTEL, 0x5143: Vendor.QUALCOMM}
_VENDOR_WORDS = {"nvidia": 0x10DE, "amd": 0x1002, "radeon": 0x1002, "intel": 0x8086, "adreno": 0x5143}
_KEPT_BYTES = 700 * 1024**2  # what the desktop and the driver take of a card's memory
_FIRST_WINDOWS_11 = 22000


class Adapter(Struct, frozen=True):
    """A display adapter: memory of its own, and the system memory that Windows lets it share, in bytes."""

    name: str
    vendor_id: int = 0
    device_id: int = 0
    revision: int | None = None
    own_bytes: int = 0
    shared_bytes: int = 0
    driver: str | None = None


def probe_windows(host: Host) -> Found:
    """The whole machine."""
    cpus = load_cpus()
    name, source = _processor_name(host)
    processor = find_cpu(name, cpus) if name else None
    ram = _ram(host)
    adapters = _adapters(host)
    cards: tuple[Accelerator, ...] = ()
    if adapters:
        rows = load_gpus()
        cards = tuple(_accelerator(index, adapter, rows, ram) for index, adapter in enumerate(adapters))
    return Found(
        accelerators=cards,
        problems=tuple(_problems(cards)),
        evidence=tuple(_evidence(name, source, ram, cards)),
        cpu=_cpu(host, name, processor),
        ram=ram,
        os_version=_version(host),
    )


# --------------------------------------------------------------------------------------------------------------------
# Processor and memory


def _processor_name(host: Host) -> tuple[str, str]:
    """The brand string and where it stands: the registry, or what a capture holds of it."""
    values = host.query("registry", _PROCESSOR_KEY)
    if isinstance(values, dict) and values.get("ProcessorNameString"):
        return clean(str(values["ProcessorNameString"])), "registry"
    recorded = parse_json(host.attached("winreg.json"))
    if isinstance(recorded, dict) and recorded.get("processor_brand"):
        return clean(str(recorded["processor_brand"])), "winreg.json"
    line = re.search(r"^Name=(.{1,200})$", host.attached("wmic-cpu.txt") or "", re.MULTILINE)
    return (clean(line[1]), "wmic") if line else (_brand_of_cpuid(host.attached("cpuid.txt") or ""), "cpuid")


def _brand_of_cpuid(text: str) -> str:
    """The brand string in leaves 0x80000002 to 0x80000004: lines of "leaf, subleaf, eax, ebx, ecx, edx"."""
    leaves = {}
    for line in text.splitlines()[:256]:
        numbers = [to_int(word) for word in line.split(",")]
        if len(numbers) == 6 and None not in numbers:
            leaves[numbers[0]] = [number or 0 for number in numbers[2:]]
    words = [word for leaf in (0x80000002, 0x80000003, 0x80000004) for word in leaves.get(leaf, [])]
    raw = b"".join(word.to_bytes(8, "little")[:4] for word in words)
    return clean(raw.split(b"\0")[0].decode("ascii", "replace"))


def _cpu(host: Host, name: str, processor: Processor | None) -> Cpu | None:
    answer = host.query("processors")
    told = answer if isinstance(answer, dict) else {}
    physical = to_int(told.get("physical")) or (processor.physical_cores if processor else None)
    if physical is None:
        return Cpu(name=name, physical_cores=1, logical_cpus=1) if name else None
    fastest = to_int(told.get("performance"))
    if fastest is None and processor is not None:
        fastest = processor.performance_cores
    hybrid = fastest is not None and 0 < fastest < physical
    features = told.get("features")
    return Cpu(
        name=name or "unknown processor",
        physical_cores=physical,
        logical_cpus=to_int(told.get("logical")) or (processor.logical_cpus if processor else physical),
        performance_cores=fastest if hybrid else None,
        features=_features(processor, features if isinstance(features, list) else []),
        threads=fastest if hybrid and fastest else physical,
    )


def _features(processor: Processor | None, told: list[object]) -> tuple[str, ...]:
    """Windows answers for few instruction sets; the processor's row knows the others."""
    known = processor.row.features if processor else ()
    return tuple(dict.fromkeys([*known, *(str(feature) for feature in told)]))


def _ram(host: Host) -> Pool | None:
    memory = host.query("memory")
    total = to_int(memory.get("total")) if isinstance(memory, dict) else None
    if not total:
        return None
    free = to_int(memory.get("available")) if isinstance(memory, dict) else None
    modules = host.query("smbios")
    speed = speed_of_modules(modules, "SMBIOS") if isinstance(modules, dict) else None
    return Pool(total, free, total if free is None else min(free, total), speed)


def _version(host: Host) -> str | None:
    """``Windows 11, build 26100``: the product name in the registry still says 10."""
    values = host.query("registry", _VERSION_KEY)
    build = to_int(values.get("CurrentBuildNumber")) if isinstance(values, dict) else None
    if build is None:
        return None
    return f"Windows {11 if build >= _FIRST_WINDOWS_11 else 10}, build {build}"


# --------------------------------------------------------------------------------------------------------------------
# Adapters


def _adapters(host: Host) -> list[Adapter]:
    """What is present, with the registry's memory sizes; another tool's list where a capture holds one."""
    in_registry = list(_registered(host.query("registry", _DISPLAY_KEY, "*")))
    present = host.query("dxgi")
    listed = [entry for entry in present if isinstance(entry, dict)] if isinstance(present, list) else []
    if not listed:
        return in_registry or list(_listed_by_fastfetch(host))
    adapters = []
    for entry in listed:
        ids = to_int(entry.get("vendor_id")) or 0, to_int(entry.get("device_id")) or 0
        if entry.get("software") or ids[0] == 0x1414:  # Microsoft's own renderers
            continue
        twin = next((other for other in in_registry if (other.vendor_id, other.device_id) == ids), None)
        adapters.append(
            Adapter(
                name=clean(str(entry.get("name"))),
                vendor_id=ids[0],
                device_id=ids[1],
                revision=to_int(entry.get("revision")),
                own_bytes=max(to_int(entry.get("dedicated_bytes")) or 0, twin.own_bytes if twin else 0),
                shared_bytes=to_int(entry.get("shared_bytes")) or 0,
                driver=twin.driver if twin else None,
            )
        )
    return adapters


def _registered(keys: object) -> Iterator[Adapter]:
    for values in keys if isinstance(keys, list) else []:
        if not isinstance(values, dict):
            continue
        ids = re.search(r"VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", str(values.get("MatchingDeviceId", "")), re.IGNORECASE)
        if ids is not None:
            yield Adapter(
                name=clean(str(values.get("DriverDesc", ""))),
                vendor_id=int(ids[1], 16),
                device_id=int(ids[2], 16),
                own_bytes=to_int(values.get("HardwareInformation.qwMemorySize")) or 0,
                driver=clean(str(values.get("DriverVersion", ""))) or None,
            )


def _listed_by_fastfetch(host: Host) -> Iterator[Adapter]:
    document = parse_json(host.attached("fastfetch-gpu.json"))
    for block in document if isinstance(document, list) else []:
        results = block.get("result") if isinstance(block, dict) else None
        for entry in results if isinstance(results, list) else []:
            if isinstance(entry, dict):
                name = clean(str(entry.get("name")))
                yield Adapter(
                    name=name,
                    vendor_id=next((number for word, number in _VENDOR_WORDS.items() if word in name.lower()), 0),
                    own_bytes=_memory_total(entry, "dedicated"),
                    shared_bytes=_memory_total(entry, "shared"),
                    driver=clean(str(entry.get("driver", ""))) or None,
                )


def _memory_total(entry: dict[str, object], kind: str) -> int:
    memory = entry.get("memory")
    part = memory.get(kind) if isinstance(memory, dict) else None
    return (to_int(part.get("total")) if isinstance(part, dict) else None) or 0


def _accelerator(index: int, adapter: Adapter, rows: tuple[GpuRow, ...], ram: Pool | None) -> Accelerator:
    vendor = _VENDORS.get(adapter.vendor_id, Vendor.OTHER)
    pci_id = f"{adapter.vendor_id:04x}:{adapter.device_id:04x}" if adapter.device_id else None
    revision = None if adapter.revision is None else f"{adapter.revision:02x}"
    row = find_gpu(rows, pci_id=pci_id, revision=revision, name=adapter.name, memory_bytes=adapter.own_bytes or None)
    row = row or find_gpu(rows, name=adapter.name)
    unified = row.unified if row else adapter.own_bytes < adapter.shared_bytes and vendor is not Vendor.NVIDIA
    useful = row is None or row.helps
    return Accelerator(
        index=index,
        name=adapter.name or (row.name if row else f"GPU {pci_id}"),
        vendor=vendor,
        pool=_pool(adapter, row, unified, useful, ram),
        unified=unified,
        backends=_backends(vendor, row) if useful else (),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        compute_capability=row.compute_capability if row else None,
        gfx_target=row.gfx_target if row else None,
        cores=row.cores if row else None,
        link=row.link if row else None,
        driver=adapter.driver,
        pci_id=pci_id,
        catalog_name=row.name if row else None,
        usable=useful,
    )


def _backends(vendor: Vendor, row: GpuRow | None) -> tuple[Backend, ...]:
    """As under Linux, save that ROCm serves only cards of RDNA 2 and later here."""
    target = row.gfx_target if row else None
    on_hip = target is not None and target.startswith(("gfx103", "gfx110", "gfx115", "gfx120"))
    return backends_of(vendor, target if on_hip else None, row.compute_capability if row else None)


def _pool(adapter: Adapter, row: GpuRow | None, unified: bool, useful: bool, ram: Pool | None) -> Pool:
    """A card's own memory; on a chip the carve-out and what Windows shares. Shared memory of a card with its own does
    not count: over the link it is slower than the processor's."""
    rate = Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}") if row else None
    if unified:
        total = adapter.own_bytes + adapter.shared_bytes
        free_ram = ram.usable_bytes if ram else adapter.shared_bytes
        usable = adapter.own_bytes + min(adapter.shared_bytes, free_ram)
        return Pool(total, None, usable if useful else 0, _shared_rate(ram, rate))
    total = adapter.own_bytes or (row.memory_bytes if row else None) or 0
    return Pool(total, None, max(0, total - _KEPT_BYTES), rate)


def _shared_rate(ram: Pool | None, in_table: Rate | None) -> Rate | None:
    """The modules' rate, unless the firmware describes soldered memory so badly that it misses more than one of two
    channels."""
    told = ram.bandwidth if ram else None
    if told is None or in_table is None:
        return told or in_table
    return told if told.per_s >= 0.5 * in_table.per_s else in_table


# --------------------------------------------------------------------------------------------------------------------
# What to tell


def _problems(cards: tuple[Accelerator, ...]) -> Iterator[Problem]:
    for card in cards:
        if not card.usable:
            continue
        if not card.pool.total_bytes:
            yield Problem("windows", f"the memory of {card.name} is not known", "give --vram, such as 16GiB")
        if card.catalog_name is None:
            yield Problem("windows", f"{card.name} is not in the table of GPUs", "give --bandwidth, such as 256GB/s")


def _evidence(name: str, source: str, ram: Pool | None, cards: tuple[Accelerator, ...]) -> Iterator[Evidence]:
    if name:
        yield Evidence("cpu", name, source)
    if ram is not None:
        yield Evidence("ram.total", format_bytes(ram.total_bytes), "GlobalMemoryStatusEx")
        if ram.bandwidth is not None:
            yield Evidence("ram.bandwidth", format_rate(ram.bandwidth.per_s), ram.bandwidth.source)
    for card in cards:
        why = "" if card.usable else f", {TOO_SLOW}"
        yield Evidence("gpu", f"{card.name}, {format_bytes(card.pool.total_bytes)}{why}", "DXGI and registry")
