"""``--on``: a machine from the names of its parts, without looking at the real one.

``"RTX 4090"``, ``"2x RTX 3090"``, ``"RTX 4090 laptop"``, ``"M4 Max 128GB"``, ``"Ryzen 7 7700 + RTX 4070"``,
``"Raspberry Pi 5 8GB"``, ``"cpu"``. What the text leaves open is assumed, and every assumption is an ``Evidence`` whose
source says so. A name that several parts share is an error that lists them.
"""

from __future__ import annotations

from msgspec import structs

from fitcheck.errors import FitcheckError
from fitcheck.probe.hardware import GIB, MIB, CpuRow, CpuTable, GpuRow, Processor, find_cpu, processor_with_gpu
from fitcheck.probe.macs import NEWEST_MACOS, working_set_bytes
from fitcheck.probe.memory_speed import for_one_process, platform_bandwidth
from fitcheck.probe.shorthand import MemorySpeed
from fitcheck.probe.spelling import Named, Part, Tables, read_names
from fitcheck.types import Accelerator, Cpu, Evidence, Machine, Origin, Pool, Rate, Vendor

__all__ = ["Tables", "pretend"]

_LONGEST_TEXT = 300
_ASSUMED = "assumed"

#: What a pretended card or board sits in where the text does not say: the commonest processor of its kind.
_HOSTS = {
    "desktop": "Ryzen 7 7700",
    "laptop": "Core i7-13700H",
    "workstation": "Xeon w5-3435X",
    "datacenter": "EPYC 9354",
}
#: Installed RAM per memory channel, GiB, where neither the text nor the platform says.
_CHANNEL_GIB = {"desktop": 16, "laptop": 8, "mini": 16, "workstation": 16, "server": 32}

#: RAM beside datacentre cards, in units of their memory: what clouds rent with one (13 to 85 GB with a T4 or A100 40GB,
#: 117 to 256 GB with an H100).
_RAM_PER_CARD_MEMORY = 2

#: Share of the installed memory that the system sees; firmware and graphics keep the rest.
_VISIBLE_SHARE = {"sbc": 0.985, "soc": 1.0, "embedded": 0.96}
_PC_SHARE = 0.975
_GB10_SHARE = 0.935  # 119.7 of 128 GiB
_CHIP_GPU_SHARE = 0.75  # carve-out and GTT of an APU set for models; drivers' defaults are one half


def pretend(
    text: str,
    ram_bytes: int | None = None,
    vram_bytes: int | None = None,
    bandwidth_per_s: float | None = None,
    tables: Tables | None = None,
) -> Machine:
    """The machine that ``text`` names. ``ram_bytes`` and ``vram_bytes`` (of each card) replace what is named or
    assumed, ``bandwidth_per_s`` that of the cards, or of the RAM where there is no card. ``tables`` are for who
    pretends many machines.

    Raises FitcheckError: ``unknown_hardware``, ``ambiguous_hardware`` (its message lists the candidates).
    """
    if not text.strip() or len(text) > _LONGEST_TEXT or not text.isprintable():
        raise FitcheckError("unknown_hardware", "no hardware is named", 'write it like --on "RTX 4090"')
    if text.strip().lower() in ("cpu", "cpu only"):
        text = _HOSTS["desktop"]
    tables = tables or Tables()
    named = read_names(text, tables)
    chip = next((row for row, _ in named.cards if row.unified), None)
    processor, sockets = _processor_of(named, tables.cpus)
    installed, source = (ram_bytes, "--ram") if ram_bytes else _installed(named, processor, sockets)
    ram = _ram(installed, processor, sockets, chip, named.ram, exact=bool(ram_bytes))
    rows = [(row, part) for row, part in named.cards for _ in range(part.count)]
    cards = [_accelerator(index, row, part, ram, installed, vram_bytes) for index, (row, part) in enumerate(rows)]
    if bandwidth_per_s:
        told = Rate(bandwidth_per_s, Origin.USER, "--bandwidth")
        cards = [structs.replace(card, pool=structs.replace(card.pool, bandwidth=told)) for card in cards]
        ram = ram if cards else structs.replace(ram, bandwidth=told)
    evidence = [Evidence("machine", text.strip(), "--on")]
    if not named.processors and chip is None:
        evidence.append(Evidence("cpu", processor.name, _ASSUMED))
    if source == _ASSUMED:
        evidence.append(Evidence("ram.installed", f"{installed / GIB:.0f} GiB", _ASSUMED))
    apple = processor.row.vendor is Vendor.APPLE
    return Machine(
        os="darwin" if apple else "linux",
        arch=processor.row.arch,
        cpu=_cpu(processor, sockets),
        ram=ram,
        accelerators=tuple(cards),
        os_version=f"macOS {NEWEST_MACOS}" if apple else None,
        pretended=True,
        evidence=tuple(evidence),
    )


def _processor_of(named: Named, cpus: CpuTable) -> tuple[Processor, int]:
    """The processor and how many sockets: the one named, the one on the same chip as a GPU, or the commonest one beside
    cards of this kind."""
    if named.processors:
        processor, part = named.processors[0]
        return processor, part.count
    for row, _ in named.cards:
        own = processor_with_gpu(row, cpus) if row.unified else None
        if own is not None:
            return own, 1
    forms = {row.form for row, _ in named.cards}
    form = next((form for form in ("datacenter", "workstation", "laptop") if form in forms), "desktop")
    host = find_cpu(_HOSTS[form], cpus)
    assert host is not None
    return host, 1


def _installed(named: Named, processor: Processor, sockets: int) -> tuple[int, str]:
    """Installed RAM in bytes, and who says so. Beside cards at least as much as they have."""
    beside_chip = [part.memory_gib for row, part in named.cards if row.unified]
    told = [*beside_chip, named.ram_gib, *(part.memory_gib for _, part in named.processors)]
    size = next((size for size in told if size), None)
    if size:
        return int(size * GIB), "--on"
    chip = next((row for row, _ in named.cards if row.unified), None)
    if chip is not None and chip.memory_options_gib:
        sizes = chip.memory_options_gib
        return int(sizes[len(sizes) // 2] * GIB), "--on" if len(sizes) == 1 else _ASSUMED
    platform = processor.row
    size = platform.ram_gib or _CHANNEL_GIB.get(platform.kind, 8) * platform.channels * sockets
    on_cards = sum((row.memory_gib or 0) * part.count for row, part in named.cards)
    if not named.processors and any(row.form == "datacenter" for row, _ in named.cards):
        size, on_cards = _CHANNEL_GIB["server"], on_cards * _RAM_PER_CARD_MEMORY
    while size < on_cards:
        size *= 2
    return int(size * GIB), _ASSUMED


def _ram(
    installed: int, processor: Processor, sockets: int, chip: GpuRow | None, told: MemorySpeed, exact: bool
) -> Pool:
    """The RAM as the system would report it: firmware keeps a part, a running system uses some."""
    total = installed if exact else int(installed * _visible_share(processor, chip))
    free = total - max(GIB // 2, min(4 * GIB, total // 16))
    if chip is not None:
        bandwidth = Rate(chip.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {chip.name}")
    else:
        bandwidth = for_one_process(_memory_rate(processor.row, sockets, told), _cpu(processor, sockets))
    return Pool(total, max(0, free), max(0, free), bandwidth)


def _memory_rate(platform: CpuRow, sockets: int, told: MemorySpeed) -> Rate:
    """Peak bandwidth of the platform's memory, with the rate and the channels that were told. Known where both are, or
    where there are no more than the usual two channels."""
    row = structs.replace(
        platform, rate_mts=told.rate_mts or platform.rate_mts, channels=told.channels or platform.channels
    )
    rate = platform_bandwidth(row, sockets)
    known = told.rate_mts and (told.channels or platform.channels <= 2)
    return structs.replace(rate, origin=Origin.USER) if known else rate


def _visible_share(processor: Processor, chip: GpuRow | None) -> float:
    if chip is not None and chip.name == "NVIDIA GB10":
        return _GB10_SHARE
    return _VISIBLE_SHARE.get(processor.row.kind, _PC_SHARE)


def _cpu(processor: Processor, sockets: int) -> Cpu:
    row = processor.row
    physical = processor.physical_cores * sockets
    performance = processor.performance_cores * sockets if processor.efficiency_cores else None
    return Cpu(
        name=processor.name,
        physical_cores=physical,
        logical_cpus=processor.logical_cpus * sockets,
        performance_cores=performance,
        sockets=sockets,
        numa_nodes=sockets,
        features=row.features,
        threads=performance or physical,
    )


def _accelerator(index: int, row: GpuRow, part: Part, ram: Pool, installed: int, vram_bytes: int | None) -> Accelerator:
    pool = _shared_pool(row, ram, installed, vram_bytes) if row.unified else _own_pool(row, part, vram_bytes)
    return Accelerator(
        index=index,
        name=row.name,
        vendor=row.vendor,
        pool=pool,
        unified=row.unified,
        backends=row.backends,
        architecture=row.architecture,
        form=row.form,
        compute=row.compute,
        compute_capability=row.compute_capability,
        gfx_target=row.gfx_target,
        cores=row.cores,
        link=row.link,
        catalog_name=row.name,
    )


def _own_pool(row: GpuRow, part: Part, vram_bytes: int | None) -> Pool:
    """A card's own memory as the driver reports it, of which the driver keeps a part."""
    total = vram_bytes or row.memory_bytes or int((part.memory_gib or 0) * GIB)
    free = max(0, total - driver_reserve_bytes(total))
    return Pool(total, free, free, Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}"))


def driver_reserve_bytes(total_bytes: int) -> int:
    """What a driver keeps of a card's memory before any program runs: seen 300 to 620 MiB on Linux since Turing."""
    return min(max(total_bytes // 50, 400 * MIB), 640 * MIB)


def _shared_pool(row: GpuRow, ram: Pool, installed: int, vram_bytes: int | None) -> Pool:
    """The part of the RAM that a chip's GPU may use: all of it under CUDA, a limit under Metal, and on other chips
    what firmware and driver set aside."""
    if vram_bytes is not None:
        usable = min(vram_bytes, ram.usable_bytes)
    elif row.vendor is Vendor.APPLE:
        usable = min(working_set_bytes(installed, NEWEST_MACOS), ram.usable_bytes)
    elif row.vendor is Vendor.NVIDIA:
        usable = ram.usable_bytes
    else:
        usable = min(int(installed * _CHIP_GPU_SHARE), ram.usable_bytes)
    return Pool(ram.total_bytes, ram.free_bytes, usable, ram.bandwidth)
