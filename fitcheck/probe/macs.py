"""Apple: chips with unified memory, under macOS and under Linux (Asahi); and Macs with Intel processors.

The GPU may use what Metal recommends at most; where Metal cannot be asked, a rule by size and system version stands in.
Chips of one name are sold with fewer GPU cores and, from the Max on, with less bandwidth: the count of cores decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import log2

from msgspec import Struct

from fitcheck.probe.display import parse_json
from fitcheck.probe.hardware import (
    GIB,
    MIB,
    CpuTable,
    GpuRow,
    Processor,
    find_cpu,
    find_gpu,
    load_cpus,
    load_gpus,
    processor_of,
)
from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.types import Accelerator, Backend, Cpu, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes, format_rate

NEWEST_MACOS = 26

_SYSCTLS = (
    "hw.memsize", "hw.model", "hw.physicalcpu", "hw.logicalcpu", "hw.perflevel0.physicalcpu",
    "hw.perflevel1.physicalcpu", "machdep.cpu.brand_string", "machdep.cpu.core_count", "machdep.cpu.thread_count",
    "machdep.cpu.features", "machdep.cpu.leaf7_features", "iogpu.wired_limit_mb", "kern.osproductversion",
    "hw.optional.neon", "hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16",
    "hw.optional.arm.FEAT_SME",
)  # fmt: skip
_FEATURES = {
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "sse4.2": "sse4_2", "avx1.0": "avx", "f16c": "f16c", "fma": "fma", "avx2": "avx2", "avx512f": "avx512f",
    "avx512vnni": "avx512_vnni",
}  # fmt: skip
#: Chips by the name that Linux' device tree gives them.
_DEVICE_TREE = {
    "t8103": "Apple M1", "t6000": "Apple M1 Pro", "t6001": "Apple M1 Max", "t6002": "Apple M1 Ultra",
    "t8112": "Apple M2", "t6020": "Apple M2 Pro", "t6021": "Apple M2 Max", "t6022": "Apple M2 Ultra",
    "t8122": "Apple M3", "t6030": "Apple M3 Pro", "t6031": "Apple M3 Max", "t6034": "Apple M3 Max",
    "t8132": "Apple M4", "t6040": "Apple M4 Pro", "t6041": "Apple M4 Max",
}  # fmt: skip
_KEPT_BYTES = 2 * GIB  # what macOS and a desktop use where free memory is not known


class _Facts(Struct, frozen=True):
    """What the system says about itself; None and empty where it does not."""

    chip: str = ""
    model: str = ""
    physical: int | None = None
    logical: int | None = None
    performance: int | None = None
    ram_bytes: int | None = None
    features: tuple[str, ...] = ()
    version: str | None = None
    gpu_cores: int | None = None
    limit_bytes: int | None = None
    limit_source: str = ""


def working_set_bytes(ram_bytes: int, macos_major: int) -> int:
    """How much memory Metal recommends to use at most (recommendedMaxWorkingSetSize), where it cannot be asked.

    Up to macOS 15 two thirds up to 36 GiB, else three quarters; since macOS 26 from 74 % at 16 GiB to 84 % at 128 GiB
    (seen: 11.84 of 16, 107.52 of 128 GiB).
    """
    if macos_major < 26:
        return ram_bytes * 2 // 3 if ram_bytes <= 36 * GIB else ram_bytes * 3 // 4
    doublings = min(3.0, max(0.0, log2(max(1, ram_bytes) / (16 * GIB))))
    return int(ram_bytes * (0.74 + 0.1 * doublings / 3))


# --------------------------------------------------------------------------------------------------------------------
# macOS


def find_mac(host: Host) -> Found:
    """The whole machine under macOS."""
    cpus = load_cpus()
    displays = _displays(host)
    facts = _facts(host, displays)
    processor = find_cpu(facts.chip, cpus) or find_cpu(facts.model, cpus)
    chip = processor.row.name if processor and processor.row.vendor is Vendor.APPLE else ""
    ram = _ram(host, facts)
    if not chip:
        cards = tuple(_intel_mac_cards(displays))
        problems = tuple(
            Problem("apple", f"{card.name} is not used: engines compute on the processor of Intel Macs")
            for card in cards
        )
        cards += tuple(_unnamed_card(facts))
        return Found(cards, problems, _evidence(facts, ram, cards), _cpu(facts, processor), ram, facts.version)
    row = _row(chip, facts, cpus)
    if ram is not None and row is not None:
        ram = Pool(ram.total_bytes, ram.free_bytes, ram.usable_bytes, _rate(row))
    card = _card(chip, facts, row, ram)
    missing = () if row else (Problem("apple", f"{chip} is not in the table", "give --bandwidth, such as 120GB/s"),)
    cpu = _cpu(facts, processor)
    return Found((card,), missing, _evidence(facts, ram, (card,)), cpu, ram, facts.version)


def _facts(host: Host, displays: list[dict[str, object]]) -> _Facts:
    answer = host.query("sysctl", *_SYSCTLS)
    values = {name: str(value) for name, value in answer.items()} if isinstance(answer, dict) else {}
    profile = _hardware_profile(host)
    metal = host.query("metal")
    device = metal if isinstance(metal, dict) else _metal_log(host)
    gpu = next((item for item in displays if "apple" in str(item.get("spdisplays_vendor", "")).lower()), {})
    brand = values.get("machdep.cpu.brand_string", "")
    if not brand or brand.startswith(("VirtualApple", "Apple processor")):
        brand = profile.get("chip") or str(gpu.get("sppci_model") or device.get("name") or "") or _chip_by_arm(values)
    cores = re.search(r"(\d+)(?:\s*\((\d+) performance)?", profile.get("total number of cores", ""), re.IGNORECASE)
    limit, source = _limit(values, device)
    version = values.get("kern.osproductversion")
    return _Facts(
        chip=clean(brand, 80),
        model=clean(values.get("hw.model") or profile.get("model identifier") or "", 40),
        physical=_first(values, "hw.physicalcpu", "machdep.cpu.core_count") or (to_int(cores[1]) if cores else None),
        logical=_first(values, "hw.logicalcpu", "hw.ncpu", "machdep.cpu.thread_count"),
        performance=to_int(values.get("hw.perflevel0.physicalcpu"))
        or (to_int(cores[2]) if cores and cores[2] else None),
        ram_bytes=to_int(values.get("hw.memsize")) or _gigabytes(profile.get("memory")),
        features=_features(values),
        version=f"macOS {clean(version, 20)}" if version else None,
        gpu_cores=to_int(gpu.get("sppci_cores")) or to_int(device.get("cores")) or _cores_of_registry(host),
        limit_bytes=limit,
        limit_source=source,
    )


def _first(values: dict[str, str], *names: str) -> int | None:
    return next((number for name in names if (number := to_int(values.get(name)))), None)


def _chip_by_arm(values: dict[str, str]) -> str:
    """Early systems call every chip "Apple processor": the first of them is the M1."""
    return "Apple M1" if values.get("machdep.cpu.brand_string") == "Apple processor" else ""


def _features(values: dict[str, str]) -> tuple[str, ...]:
    arm = [feature for name, feature in _FEATURES.items() if values.get(name) == "1"]
    words = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}".lower().split()
    return tuple(arm + [_FEATURES[word] for word in words if word in _FEATURES])


def _limit(values: dict[str, str], device: dict[str, object]) -> tuple[int | None, str]:
    """What the GPU may use: the user's own limit, or what Metal recommends."""
    wired = to_int(values.get("iogpu.wired_limit_mb"))
    if wired:
        return wired * MIB, "sysctl iogpu.wired_limit_mb"
    return to_int(device.get("working_set_bytes")), "Metal recommendedMaxWorkingSetSize"


def _hardware_profile(host: Host) -> dict[str, str]:
    """``system_profiler SPHardwareDataType``: lines of "Name: value". Only where sysctl is not answered."""
    text = host.attached("system_profiler-SPHardwareDataType.txt") or host.attached("gpuinfo.txt") or ""
    pairs = (line.strip().partition(":") for line in text.splitlines()[:200] if "[" not in line)
    profile = {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
    plist = host.attached("hardware_system_profiler_output.rb") or ""
    profile |= dict(re.findall(r"<key>(\w{1,40})</key>\s*<(?:string|integer)>([^<]{1,80})<", plist[:65536]))
    names = {
        "chip": "gpu name" if "gpu name" in profile else "cpu_type",
        "memory": "gpu memory" if "gpu memory" in profile else "physical_memory",
        "model identifier": "machine_model",
        "total number of cores": "number_processors",
    }
    return profile | {name: profile[old] for name, old in names.items() if old in profile}


def _metal_log(host: Host) -> dict[str, object]:
    """What llama.cpp prints about the device when it starts, where a capture holds it."""
    text = host.attached("ggml-metal.log") or ""
    limit = re.search(r"recommendedMaxWorkingSetSize\s*=\s*(\d{1,9}(?:\.\d+)?) MB", text)
    name = re.search(r"GPU name:\s*(Apple [\w ]{1,20})|\((Apple [\w ]{1,20})\)", text)
    cores = re.search(r"GPU core count:\s*(\d{1,3})", host.attached("gpuinfo.txt") or "")
    return {
        "working_set_bytes": int(float(limit[1]) * 1e6) if limit else None,
        "name": (name[1] or name[2]).strip() if name else None,
        "cores": cores[1] if cores else None,
    }


def _displays(host: Host) -> list[dict[str, object]]:
    """The GPUs that ``system_profiler`` lists; asked only where the registry does not tell the cores (0.2 to 1.5 s)."""
    if host.live and _cores_of_registry(host) is not None:
        return []
    text = host.run(("system_profiler", "SPDisplaysDataType", "-json")) or ""
    document = parse_json(text[text.find("{") :]) if "{" in text else None
    items = document.get("SPDisplaysDataType") if isinstance(document, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _cores_of_registry(host: Host) -> int | None:
    text = host.run(("ioreg", "-rc", "AGXAccelerator", "-d1")) or ""
    match = re.search(r'"gpu-core-count"\s*=\s*(\d{1,4})', text)
    return int(match[1]) if match else None


def _gigabytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d{1,5}) GB", text or "")
    return int(match[1]) * GIB if match else None


# --------------------------------------------------------------------------------------------------------------------
# From facts to values


def _ram(host: Host, facts: _Facts) -> Pool | None:
    total = facts.ram_bytes
    if not total:
        return None
    memory = host.query("memory")
    free = to_int(memory.get("available")) if isinstance(memory, dict) else None
    return Pool(total, free, max(0, total - _KEPT_BYTES) if free is None else min(free, total))


def _cpu(facts: _Facts, processor: Processor | None) -> Cpu | None:
    physical = facts.physical or (processor.physical_cores if processor else None)
    if physical is None:
        return None
    performance = facts.performance
    if performance is None and processor is not None and processor.efficiency_cores:
        performance = processor.performance_cores if processor.physical_cores == physical else None
    return Cpu(
        name=processor.row.name if processor and processor.row.vendor is Vendor.APPLE else facts.chip or facts.model,
        physical_cores=physical,
        logical_cpus=facts.logical or physical,
        performance_cores=performance,
        features=facts.features or (processor.row.features if processor else ()),
        threads=performance or physical,
    )


def _row(chip: str, facts: _Facts, cpus: CpuTable) -> GpuRow | None:
    """The row with this many GPU cores; where they are not known, one sold with these CPU cores and this memory."""
    rows = tuple(row for row in load_gpus() if chip in (row.name, *row.driver_names))
    if facts.gpu_cores is not None:
        rows = tuple(row for row in rows if row.cores == facts.gpu_cores) or rows
    elif facts.performance is not None:
        platform = next((row for row in cpus.platforms if row.name == chip), None)
        matching = tuple(
            row for row in rows if platform and processor_of(platform, row.name).performance_cores == facts.performance
        )
        rows = matching or rows
    return find_gpu(rows, name=chip, memory_bytes=facts.ram_bytes)


def _rate(row: GpuRow) -> Rate:
    return Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}")


def _card(chip: str, facts: _Facts, row: GpuRow | None, ram: Pool | None) -> Accelerator:
    rate = _rate(row) if row else None
    if ram is None:
        pool = Pool(facts.limit_bytes or 0, None, facts.limit_bytes or 0, rate)
    else:
        limit = facts.limit_bytes or working_set_bytes(ram.total_bytes, _major(facts.version))
        pool = Pool(ram.total_bytes, ram.free_bytes, min(limit, ram.usable_bytes), rate)
    return _accelerator(chip, row, pool, (Backend.METAL,), facts.gpu_cores)


def _accelerator(
    chip: str, row: GpuRow | None, pool: Pool, backends: tuple[Backend, ...], cores: int | None
) -> Accelerator:
    return Accelerator(
        index=0,
        name=chip,
        vendor=Vendor.APPLE,
        pool=pool,
        unified=True,
        backends=backends,
        architecture=row.architecture if row else None,
        form="soc",
        compute=row.compute if row else {},
        cores=cores or (row.cores if row else None),
        link=Link("on-chip"),
        catalog_name=row.name if row else None,
    )


def _major(version: str | None) -> int:
    match = re.search(r"(\d{1,3})", version or "")
    return int(match[1]) if match else NEWEST_MACOS


def _unnamed_card(facts: _Facts) -> Iterator[Accelerator]:
    """A Metal device whose chip nothing names: it works as far as its limit goes."""
    if facts.limit_bytes and not facts.chip:
        pool = Pool(facts.limit_bytes, None, facts.limit_bytes)
        yield _accelerator("Apple GPU", None, pool, (Backend.METAL,), facts.gpu_cores)


def _intel_mac_cards(displays: list[dict[str, object]]) -> Iterator[Accelerator]:
    for item in displays:
        name = clean(str(item.get("sppci_model") or item.get("_name") or "GPU"), 80)
        own = re.fullmatch(r"(\d{1,6}) ([GM])B", str(item.get("spdisplays_vram") or ""))
        size = int(own[1]) * (GIB if own[2] == "G" else MIB) if own else 0
        vendor = next((vendor for vendor in Vendor if vendor.value in name.lower()), Vendor.OTHER)
        vendor = Vendor.AMD if "radeon" in name.lower() else vendor
        yield Accelerator(index=0, name=name, vendor=vendor, pool=Pool(size, None, 0), unified=not own, usable=False)


def _evidence(facts: _Facts, ram: Pool | None, cards: tuple[Accelerator, ...]) -> tuple[Evidence, ...]:
    found = [Evidence("cpu", facts.chip or facts.model, "sysctl machdep.cpu.brand_string")]
    if ram is not None:
        found.append(Evidence("ram.total", format_bytes(ram.total_bytes), "sysctl hw.memsize"))
    for card in cards:
        rate = f", {format_rate(card.pool.bandwidth.per_s)}" if card.pool.bandwidth else ""
        found.append(Evidence("gpu.apple", f"{card.name}, {card.cores or '?'} cores{rate}", "ioreg or system_profiler"))
    if facts.limit_bytes:
        found.append(Evidence("gpu.apple.limit", format_bytes(facts.limit_bytes), facts.limit_source))
    return tuple(found)


# --------------------------------------------------------------------------------------------------------------------
# Linux on Apple chips


def find_linux_gpu(host: Host) -> Found:
    """The GPU of an Apple chip under Asahi Linux, which serves Vulkan."""
    compatible = host.read_text("/proc/device-tree/compatible", 1024) or ""
    chip = next(
        (_DEVICE_TREE[word] for word in re.findall(r"apple,(t\d{4})", compatible) if word in _DEVICE_TREE), None
    )
    if chip is None:
        return Found()
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    row = find_gpu(name=chip)
    ram = read_ram(host, read_confinement(host)).ram
    pool = ram or Pool(0, None, 0)
    heap = pool.total_bytes * 3 // 4
    rate = _rate(row) if row else None
    pool = Pool(pool.total_bytes, pool.free_bytes, min(heap, pool.usable_bytes), rate)
    card = _accelerator(chip, row, pool, (Backend.VULKAN,), None)
    return Found((card,), (), (Evidence("gpu.apple", chip, "/proc/device-tree/compatible"),))
