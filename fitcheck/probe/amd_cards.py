"""AMD GPUs under Linux: sysfs for memory, the KFD topology for compute units, target and memory bus, ROCm's tools where
neither is readable.

A chip with unified memory (APU) reports a carve-out as its VRAM and more of the RAM as GTT: engines use both. An
Instinct card may be split into partitions, which engines see as devices of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from fitcheck.probe.display import (
    GROUPS_HINT,
    DisplayDevice,
    display_devices,
    link_of,
    parse_json,
    problem_of_access,
    refused_nodes,
)
from fitcheck.probe.hardware import TOO_SLOW, TRANSFERS_PER_CLOCK, GpuRow, backends_of, find_gpu, fold_name, load_gpus
from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.types import Accelerator, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes, format_rate

_KFD = "/sys/class/kfd/kfd/topology/nodes"
_NAMES = "/usr/share/libdrm/amdgpu.ids"
_VENDOR_ID = "1002"
_MOST_NODES = 1024

_FASTEST_LPDDR5_MHZ = 1200  # the clock of an LPDDR5 bus is an eighth of its rate; a faster one belongs to DIMMs
_HBM_TARGETS = ("gfx900", "gfx904", "gfx906", "gfx908", "gfx90a")
_HBM3_TARGETS = ("gfx94", "gfx95")
_CHIP_TARGETS = (
    "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx115", "gfx117",
)  # fmt: skip
_USUAL_CHIP_MIB = 8192  # the largest carve-out that firmware chooses by itself


class Node(Struct, frozen=True):
    """A GPU in the KFD topology: one card, or one partition of it. Sizes in bytes, width in bits, clock in MHz."""

    number: int
    target: str | None
    compute_units: int
    pci_id: str
    address: str
    memory_bytes: int
    bus_bits: int
    memory_mhz: int


class _Card(Struct, frozen=True):
    """What is known about one device before it becomes an ``Accelerator``."""

    pci_id: str | None = None
    revision: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    vram_used_bytes: int | None = None
    gtt_bytes: int | None = None
    target: str | None = None
    compute_units: int | None = None
    bus_bits: int | None = None
    memory_mhz: int | None = None
    link: Link | None = None
    driver: str | None = None
    uuid: str | None = None
    partition: str | None = None
    parts: int = 1
    trouble: str | None = None
    source: str = ""


def find_cards(host: Host) -> Found:
    """AMD's GPUs: from the kernel, else from what ROCm's tools say."""
    cards = list(_cards_of_kernel(host)) or list(_cards_of_tools(host))
    if not cards:
        return Found()
    rows = load_gpus()
    accelerators, evidence = [], []
    problems = list(_problems_of_access(host, cards))
    for card in cards:
        accelerator, source = _accelerator(host, card, rows)
        accelerators.append(accelerator)
        evidence.append(_evidence(accelerator, source))
        problems += _problems_of(card, accelerator)
    override = host.environ("HSA_OVERRIDE_GFX_VERSION")
    if override:
        evidence.append(Evidence("gpu.amd.target", override, "HSA_OVERRIDE_GFX_VERSION"))
    return Found(accelerators=tuple(accelerators), problems=tuple(problems), evidence=tuple(evidence))


# --------------------------------------------------------------------------------------------------------------------
# The kernel


def _cards_of_kernel(host: Host) -> Iterator[_Card]:
    devices = display_devices(host, _VENDOR_ID)
    nodes = _nodes(host)
    names = _names(host) if devices else {}
    claimed: set[int] = set()
    for device in devices:
        own = _nodes_of(device, nodes, alone=len(devices) == 1)
        claimed.update(node.number for node in own)
        card = _card_of_device(host, device, names)
        yield from _partitions(card, own) if own else [card]
    by_board: dict[str, list[Node]] = {}
    for node in nodes:
        if node.number not in claimed:
            board = node.address[:-1] if _is_partitioned(node) else str(node.number)
            by_board.setdefault(board, []).append(node)
    for own in by_board.values():
        yield from _partitions(_Card(pci_id=own[0].pci_id, source=_KFD), own)


def _card_of_device(host: Host, device: DisplayDevice, names: dict[tuple[str, str], str]) -> _Card:
    def size(name: str) -> int | None:
        return to_int(host.read_text(f"{device.folder}/mem_info_{name}", 64))

    return _Card(
        pci_id=device.pci_id,
        revision=device.revision,
        name=names.get((device.pci_id[5:], device.revision or "")),
        vram_bytes=size("vram_total"),
        vram_used_bytes=size("vram_used"),
        gtt_bytes=size("gtt_total"),
        memory_mhz=_fastest_mhz(host.read_text(f"{device.folder}/pp_dpm_mclk", 4096)),
        link=link_of(host, device),
        driver=device.driver or None,
        uuid=(host.read_text(f"{device.folder}/unique_id", 64) or "").strip() or None,
        partition=_partition_modes(host, device),
        trouble=problem_of_access(host, device, ("amdgpu",)),
        source=device.folder,
    )


def _partition_modes(host: Host, device: DisplayDevice) -> str | None:
    """How the compute dies and the memory of an Instinct card are divided ("CPX/NPS4"), None where they are not."""
    names = (f"{device.folder}/current_{what}_partition" for what in ("compute", "memory"))
    modes = [clean(host.read_text(name, 64) or "", 8) for name in names]
    return "/".join(mode for mode in modes if mode) if modes[0] not in ("", "SPX") else None


def _fastest_mhz(text: str | None) -> int | None:
    """The last state of pp_dpm_mclk: lines like ``3: 1249Mhz *``."""
    clocks = [int(mhz) for mhz in re.findall(r"(\d{1,6})\s?mhz", (text or "")[:4096], re.IGNORECASE)]
    return max(clocks, default=0) or None


def _nodes(host: Host) -> list[Node]:
    numbers = [number for name in host.list_dir(_KFD) if (number := to_int(name)) is not None]
    nodes = (_node(host, number) for number in sorted(numbers)[:_MOST_NODES])
    return [node for node in nodes if node is not None]


def _node(host: Host, number: int) -> Node | None:
    folder = f"{_KFD}/{number}"
    properties = _numbers(host.read_text(f"{folder}/properties", 16384))
    simds, vendor = properties.get("simd_count", 0), properties.get("vendor_id", 0)
    if simds == 0 or vendor != 0x1002:
        return None
    banks = [
        _numbers(host.read_text(f"{folder}/mem_banks/{bank}/properties", 4096))
        for bank in host.list_dir(f"{folder}/mem_banks")[:16]
    ]
    local = next((bank for bank in banks if bank.get("heap_type") in (1, 2)), {})
    location = properties.get("location_id", 0)
    return Node(
        number=number,
        target=_target(properties.get("gfx_target_version", 0)),
        compute_units=simds // max(1, properties.get("simd_per_cu", 4)),
        pci_id=f"{_VENDOR_ID}:{properties.get('device_id', 0):04x}",
        address=_address(properties.get("domain", 0), location),
        memory_bytes=local.get("size_in_bytes", 0),
        bus_bits=local.get("width", 0),
        memory_mhz=local.get("mem_clk_max", 0),
    )


def _address(domain: int, location: int) -> str:
    """A PCI address as sysfs writes it; ``location`` is bus << 8 | device << 3 | function."""
    return f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"


def _numbers(text: str | None) -> dict[str, int]:
    """Lines of "name number"; huge numbers (unique ids) are left out."""
    pairs = (line.split(None, 1) for line in (text or "").splitlines()[:256])
    values = {pair[0]: to_int(pair[1]) for pair in pairs if len(pair) == 2}
    return {name: value for name, value in values.items() if value is not None}


def _target(version: int) -> str | None:
    """``90402`` -> gfx942, ``110501`` -> gfx1151: major, minor and step, the step in hexadecimal."""
    if version < 10000:
        return None
    return f"gfx{version // 10000}{version // 100 % 100}{version % 100:x}"


def _nodes_of(device: DisplayDevice, nodes: list[Node], alone: bool) -> list[Node]:
    """The KFD nodes of a device: at its address, of a partitioned one also those at its other functions; of a lone
    one whose address is not known, the only node of its kind."""
    there = [node for node in nodes if node.address == device.address]
    if there and _is_partitioned(there[0]):
        return [node for node in nodes if node.address[:-1] == device.address[:-1]]
    if there or device.address or not alone:
        return there
    kind = [node for node in nodes if node.pci_id == device.pci_id]
    return kind if len(kind) == 1 else []


def _is_partitioned(node: Node) -> bool:
    """Only Instinct MI300 and later split a board into devices at further functions of one address."""
    return node.target is not None and node.target.startswith(_HBM3_TARGETS)


def _partitions(card: _Card, nodes: list[Node]) -> Iterator[_Card]:
    """One card per node: the whole, or its parts. Parts have their share of memory and of the bandwidth, which the
    kernel reports of the whole; what is in use is counted for the whole and taken to be spread evenly."""
    from msgspec.structs import replace

    split = len(nodes) > 1
    used = card.vram_used_bytes // len(nodes) if card.vram_used_bytes else card.vram_used_bytes
    for node in nodes:
        yield replace(
            card,
            vram_bytes=node.memory_bytes or None if split or not card.vram_bytes else card.vram_bytes,
            vram_used_bytes=used,
            target=node.target,
            compute_units=node.compute_units,
            bus_bits=node.bus_bits or None,
            memory_mhz=node.memory_mhz or card.memory_mhz,
            partition=card.partition or f"1/{len(nodes)}" if split else None,
            parts=len(nodes),
        )


def _names(host: Host) -> dict[tuple[str, str], str]:
    """libdrm's names by (device, revision): one chip is sold as several cards."""
    names = {}
    for line in (host.read_text(_NAMES, 262144) or "").splitlines():
        device, _, rest = line.partition(",")
        revision, _, name = rest.partition(",")
        names[device.strip().lower(), revision.strip().lower()] = clean(name, 80)
    return names


# --------------------------------------------------------------------------------------------------------------------
# ROCm's tools


def _cards_of_tools(host: Host) -> Iterator[_Card]:
    """``rocm-smi --json``, and gpustack's report where a capture holds one."""
    text = host.run(("rocm-smi", "--showproductname", "--showmeminfo", "vram", "gtt", "--json"))
    for name, values in sorted(_json_object(text).items()):
        if name.startswith("card") and isinstance(values, dict):
            yield _card_of_rocm_smi({str(key).lower(): str(value) for key, value in values.items()})
    yield from _cards_of_gpustack(host.attached("detect.json"))


def _json_object(text: str | None) -> dict[str, object]:
    """The JSON object in a tool's output, warnings before it skipped; empty where there is none."""
    start = (text or "").find("{")
    value = parse_json(text[start:]) if text and start >= 0 else None
    return value if isinstance(value, dict) else {}


def _card_of_rocm_smi(values: dict[str, str]) -> _Card:
    """Keys changed their case and some their name between ROCm 5 and 6."""
    device = _hex_word(values.get("device id") or values.get("gpu id"))
    name = values.get("card series") or values.get("device name")
    return _Card(
        pci_id=f"{_VENDOR_ID}:{device}" if device else None,
        revision=_hex_word(values.get("device rev")),
        name=None if name in (None, "N/A") else name,
        vram_bytes=to_int(values.get("vram total memory (b)")),
        vram_used_bytes=to_int(values.get("vram total used memory (b)")),
        gtt_bytes=to_int(values.get("gtt total memory (b)")),
        target=values.get("gfx version") if (values.get("gfx version") or "").startswith("gfx") else None,
        driver=values.get("driver version"),
        source="rocm-smi",
    )


def _hex_word(text: str | None) -> str | None:
    match = re.fullmatch(r"0x([0-9a-f]{2,4})", (text or "").strip().lower())
    return match[1] if match else None


def _cards_of_gpustack(text: str | None) -> Iterator[_Card]:
    entries = parse_json(text)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("manufacturer") == "amd":
            total, used = to_int(entry.get("memory")), to_int(entry.get("memory_used"))
            yield _Card(
                name=str(entry.get("name")),
                vram_bytes=None if total is None else total * 1024**2,
                vram_used_bytes=None if used is None else used * 1024**2,
                target=str(entry.get("compute_capability")),
                compute_units=to_int(entry.get("cores")),
                driver=str(entry.get("driver_version")),
                source="detect.json",
            )


# --------------------------------------------------------------------------------------------------------------------
# From facts to an accelerator


def _accelerator(host: Host, card: _Card, rows: tuple[GpuRow, ...]) -> tuple[Accelerator, str]:
    row = _row_of(card, rows)
    target = card.target or (row.gfx_target if row else None)
    unified = _is_chip(card, row, target)
    trouble = card.trouble or (TOO_SLOW if row and not row.helps else None)
    rate = _bandwidth(card, row, target, unified)
    share = 1 / card.parts
    compute = {dtype: peak * share for dtype, peak in row.compute.items()} if row else {}
    accelerator = Accelerator(
        index=0,
        name=card.name or (row.name if row else f"AMD GPU {card.pci_id}"),
        vendor=Vendor.AMD,
        pool=_shared_pool(host, card, rate) if unified else _own_pool(card, row, rate),
        unified=unified,
        backends=() if trouble else backends_of(Vendor.AMD, target, None),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=compute,
        gfx_target=target,
        cores=card.compute_units or (row.cores if row else None),
        link=Link("on-chip") if unified else card.link or (row.link if row else None),
        partition=card.partition,
        driver=card.driver,
        pci_id=card.pci_id,
        uuid=card.uuid,
        catalog_name=row.name if row else None,
        usable=trouble is None,
    )
    return accelerator, card.source


def _row_of(card: _Card, rows: tuple[GpuRow, ...]) -> GpuRow | None:
    whole_bytes = card.vram_bytes * card.parts if card.vram_bytes else None
    whole_cores = card.compute_units * card.parts if card.compute_units else None
    found = find_gpu(
        _named_in_brackets(card.name, rows) or rows,
        pci_id=card.pci_id,
        revision=card.revision,
        name=card.name,
        memory_bytes=whole_bytes,
        cores=whole_cores,
        memory_mhz=card.memory_mhz,
    )
    return found if found is None or found.vendor is Vendor.AMD else None


def _named_in_brackets(name: str | None, rows: tuple[GpuRow, ...]) -> tuple[GpuRow, ...]:
    """``Navi 22 [Radeon RX 6700/6700 XT / 6800M]`` -> the rows of the three, as lists of PCI ids name a chip."""
    match = re.search(r"\[(.{1,120})\]", name or "")
    if match is None:
        return ()
    first, *others = (part.strip() for part in match[1].split("/"))
    series = first.rpartition(" ")[0] if re.search(r"\d$", first) else re.sub(r"\s*\d.*", "", first)
    wanted = {fold_name(part) for part in (first, *others, *(f"{series} {other}" for other in others))}
    return tuple(row for row in rows if fold_name(row.name) in wanted or fold_name(row.name[4:]) in wanted)


def _is_chip(card: _Card, row: GpuRow | None, target: str | None) -> bool:
    if row is not None:
        return row.unified
    if target is not None:
        return target.startswith(_CHIP_TARGETS)
    vram, gtt = card.vram_bytes or 0, card.gtt_bytes or 0
    return 0 < vram < gtt and vram <= _USUAL_CHIP_MIB * 1024**2 and card.bus_bits is None and card.link is None


def _bandwidth(card: _Card, row: GpuRow | None, target: str | None, unified: bool) -> Rate | None:
    """Width x clock x transfers per clock; the table's figure where the kernel does not say."""
    kind = _memory_type(card, row, target, unified)
    bits = card.bus_bits or (row.bus_bits if row else None)
    in_table = row.bandwidth_per_s / card.parts if row else None
    if kind and bits and card.memory_mhz:
        transfers = TRANSFERS_PER_CLOCK.get(kind, 0)
        reported = bits / 8 * card.memory_mhz * 1e6 * transfers / card.parts
        if reported and (in_table is None or 0.5 < reported / in_table < 1.5):
            return Rate(reported, Origin.REPORTED, f"{bits} bit x {card.memory_mhz} MHz x {transfers} ({kind})")
    return Rate(in_table, Origin.CATALOG, f"table of GPUs: {row.name}") if row and in_table else None


def _memory_type(card: _Card, row: GpuRow | None, target: str | None, unified: bool) -> str | None:
    if unified:
        return "LPDDR5" if (card.memory_mhz or 0) <= _FASTEST_LPDDR5_MHZ and not _is_ddr4(row) else "DDR5"
    if row is not None:
        return row.memory_type
    if target is None:
        return None
    if target.startswith(_HBM_TARGETS):
        return "HBM2"
    if target.startswith(_HBM3_TARGETS):
        return "HBM3"
    return "GDDR6" if target.startswith(("gfx10", "gfx11", "gfx12")) else "GDDR5"


def _is_ddr4(row: GpuRow | None) -> bool:
    return row is not None and row.memory_type in ("DDR4", "LPDDR4", "LPDDR4X")


def _own_pool(card: _Card, row: GpuRow | None, rate: Rate | None) -> Pool:
    total = card.vram_bytes or (row.memory_bytes if row else None) or 0
    free = None if card.vram_used_bytes is None else max(0, total - card.vram_used_bytes)
    usable = 0 if card.trouble else total if free is None else free
    return Pool(total, free, usable, rate)


def _shared_pool(host: Host, card: _Card, rate: Rate | None) -> Pool:
    """Carve-out and GTT. The counter of used GTT misses what HIP allocates; the RAM that is free now bounds it."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    ram = read_ram(host, read_confinement(host)).ram
    carve_out, gtt = card.vram_bytes or 0, card.gtt_bytes
    if gtt is None:
        gtt = ram.total_bytes // 2 if ram else 0
    free_carve_out = max(0, carve_out - (card.vram_used_bytes or 0))
    free = free_carve_out + (min(gtt, ram.usable_bytes) if ram else gtt)
    return Pool(carve_out + gtt, free, 0 if card.trouble else free, rate)


# --------------------------------------------------------------------------------------------------------------------
# What to tell


def _evidence(card: Accelerator, source: str) -> Evidence:
    rate = f", {format_rate(card.pool.bandwidth.per_s)}" if card.pool.bandwidth else ""
    return Evidence("gpu.amd", f"{card.name}, {format_bytes(card.pool.total_bytes)}{rate}", source)


def _problems_of_access(host: Host, cards: list[_Card]) -> Iterator[Problem]:
    refused = refused_nodes(host, "/dev/kfd") if any(card.trouble is None for card in cards) else ()
    if refused:
        yield Problem("amd", f"you may not open {', '.join(refused)}: engines will not find the GPU", GROUPS_HINT)


def _problems_of(card: _Card, accelerator: Accelerator) -> Iterator[Problem]:
    name = accelerator.name
    if card.trouble:
        yield Problem("amd", f"{name} {card.trouble}", _hint(card))
    if accelerator.catalog_name is None:
        yield Problem("amd", f"{name} is not in the table of GPUs", "give --bandwidth, such as 256GB/s")
    if not accelerator.pool.total_bytes:
        yield Problem("amd", f"the memory of {name} is not known", "give --vram, such as 16GiB")


def _hint(card: _Card) -> str:
    if card.driver == "radeon":
        return "boot with radeon.si_support=0 radeon.cik_support=0 amdgpu.si_support=1 amdgpu.cik_support=1"
    if card.driver == "vfio-pci":
        return "it is not counted"
    if card.driver == "amdgpu":
        return "start the container with --device /dev/kfd --device /dev/dri"
    return "install a kernel with the amdgpu driver"
