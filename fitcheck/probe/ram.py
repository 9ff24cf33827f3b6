"""Memory of a Linux machine: what there is, what is free, what may be taken, and how fast its modules are.

Page cache and ZFS' cache count as free, swap and compressed swap never count, huge pages that were set aside cannot be
used by an engine, and memory of a GPU that shows up as a NUMA node (Grace Hopper) belongs to the GPU.
"""

from __future__ import annotations

import re

from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.probe.limits import Confinement
from fitcheck.types import Cpu, Evidence, Machine, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import KIB, format_bytes

_DMI_PROPERTIES = "/run/udev/data/+dmi:id"
_ARC = "/proc/spl/kstat/zfs/arcstats"
_BUS_BYTES = 8  # a DIMM is 64 bits wide, ECC bits not counted
_MOST_MODULES = 256
_FASTEST_MTS = 20_000
_SECOND_SOCKET_GAIN = 0.2  # of one socket's bandwidth, for a process that is not spread over sockets by hand
_WITH_MEMORY = (Vendor.NVIDIA, Vendor.APPLE)  # whose chips with a built-in GPU are sold with their memory
_SOLDERED = ("soc", "sbc", "embedded")  # kinds of cpus.json whose memory is not the owner's choice


def read_ram(host: Host, confinement: Confinement) -> Found:
    """Memory as ``Found.ram``; a problem where nothing tells how much there is."""
    counts = _meminfo(host.read_text("/proc/meminfo", 65536) or "")
    total = counts.get("MemTotal", 0)
    if total == 0:
        return Found(problems=(Problem("ram", "the size of memory is not known", "pass --ram, such as --ram 32GiB"),))
    on_gpus = min(_memory_on_gpus(host), total)
    total -= on_gpus
    set_aside = min(counts.get("HugePages_Free", 0) * counts.get("Hugepagesize", 0), total)
    free = min(_available(counts) + _reclaimable_arc(host), total - set_aside)
    limits = confinement.limits
    capacity = min(total - set_aside, limits.memory_bytes or total)
    usable = max(0, min(free, capacity, total if confinement.headroom_bytes is None else confinement.headroom_bytes))
    speed = read_module_speed(host)
    evidence = [
        Evidence("ram.total", format_bytes(total), "/proc/meminfo: MemTotal"),
        Evidence("ram.free", format_bytes(free), "/proc/meminfo: MemAvailable"),
    ]
    if set_aside:
        evidence.append(Evidence("ram.huge_pages", f"{format_bytes(set_aside)} set aside", "/proc/meminfo"))
    if on_gpus:
        evidence.append(Evidence("ram.on_gpu", format_bytes(on_gpus), "/proc/driver/nvidia/gpus/*/numa_status"))
    return Found(ram=Pool(total, free, usable, speed), evidence=tuple(evidence))


def query_memory() -> dict[str, int]:
    """Total and available bytes from psutil, for systems without a probe of their own."""
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    return {"total": memory.total, "available": memory.available}


def ram_of_other_system(host: Host) -> Pool | None:
    """Memory where neither Linux nor a system's own probe tells."""
    answer = host.query("memory")
    known = answer if isinstance(answer, dict) else {}
    total = to_int(known.get("total"))
    if not total:
        return None
    free = to_int(known.get("available"))
    return Pool(total, free, total if free is None else min(free, total))


# --------------------------------------------------------------------------------------------------------------------
# How much


def _meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes; a value without ``kB`` is in bytes already (and counts of huge pages are counts)."""
    counts: dict[str, int] = {}
    for line in text.splitlines()[:256]:
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        count = to_int(number)
        if count is not None:
            counts[name.strip()] = count * (KIB if unit.strip().lower() == "kb" else 1)
    return counts


def _available(counts: dict[str, int]) -> int:
    """MemAvailable; for kernels before 3.14 and lean recordings the sum that it grew out of."""
    if "MemAvailable" in counts:
        return counts["MemAvailable"]
    if "MemFree" not in counts:
        return counts.get("MemTotal", 0)
    cache = counts.get("Cached", 0) - counts.get("Shmem", 0)
    return counts["MemFree"] + counts.get("Buffers", 0) + counts.get("SReclaimable", 0) + max(0, cache)


def _reclaimable_arc(host: Host) -> int:
    """What ZFS would give back of its cache, in bytes: all of it but the minimum that it keeps."""
    values: dict[str, int] = {}
    for line in (host.read_text(_ARC, 65536) or "").splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0] in ("size", "c_min"):
            values[fields[0]] = to_int(fields[2]) or 0
    return max(0, values.get("size", 0) - values.get("c_min", 0))


def _memory_on_gpus(host: Host) -> int:
    """Bytes of MemTotal that are memory of an NVIDIA GPU, brought up as NUMA nodes by its driver."""
    nodes: set[int] = set()
    for gpu in host.list_dir("/proc/driver/nvidia/gpus")[:64]:
        status = host.read_text(f"/proc/driver/nvidia/gpus/{gpu}/numa_status", 1024) or ""
        node = re.search(r"^Node:\s*(\d{1,4})\s*$", status, re.MULTILINE)
        if node is not None and re.search(r"^Status:\s*online", status, re.MULTILINE):
            nodes.add(int(node[1]))
    return sum(_memory_of_node(host, node) for node in nodes)


def _memory_of_node(host: Host, node: int) -> int:
    folder = f"/sys/devices/system/node/node{node}"
    has_cpus = (host.read_text(f"{folder}/cpulist", 4096) or "").strip()
    match = re.search(r"MemTotal:\s*(\d{1,15}) kB", host.read_text(f"{folder}/meminfo", 65536) or "")
    return int(match[1]) * KIB if match and not has_cpus else 0


# --------------------------------------------------------------------------------------------------------------------
# How fast


def read_module_speed(host: Host) -> Rate | None:
    """Peak bandwidth of the memory modules, in bytes/s, as the firmware reports them to udev; None in virtual machines,
    containers and on systems whose udev is older than 248."""
    return speed_of_modules(_dmi_properties(host.read_text(_DMI_PROPERTIES) or ""), "udev dmi")


def speed_of_modules(properties: dict[str, str], source: str) -> Rate | None:
    """Peak bandwidth of modules described under udev's names (MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS, ...)."""
    modules = [_module(properties, number) for number in range(min(len(properties), _MOST_MODULES))]
    filled = [module for module in modules if module is not None]
    if not filled:
        return None
    speed = min(module[1] for module in filled)
    width = _bus_bytes(filled)
    kind = clean(properties.get("MEMORY_DEVICE_0_TYPE", ""), 12)
    return Rate(
        per_s=width * speed * 1e6,
        origin=Origin.REPORTED,
        source=f"{source}: {len(filled)} modules {kind} {speed} MT/s, bus {width * 8} bit",
    )


def _dmi_properties(text: str) -> dict[str, str]:
    lines = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:MEMORY_"))
    return {name: value for name, _, value in lines}


def _module(properties: dict[str, str], number: int) -> tuple[str, int, int] | None:
    """(channel, MT/s, width in bits) of a module; None for an empty slot or one whose speed is not told."""
    prefix = f"MEMORY_DEVICE_{number}_"
    speed = to_int(properties.get(f"{prefix}CONFIGURED_SPEED_MTS")) or to_int(properties.get(f"{prefix}SPEED_MTS"))
    if properties.get(f"{prefix}PRESENT") == "0" or not speed or speed > _FASTEST_MTS:
        return None
    width = to_int(properties.get(f"{prefix}DATA_WIDTH")) or 64
    places = [properties.get(f"{prefix}{name}", "") for name in ("BANK_LOCATOR", "LOCATOR")]
    return _channel(places) or f"module {number}", speed, min(width, 128)


_CONTROLLER = re.compile(r"(?:controller|\bmc|node|\bP|cpu|proc)[ _-]?(\d+)", re.IGNORECASE)
_CHANNEL = re.compile(r"(?:channel|chan|\bch)[ _-]?([A-Z]|\d+)", re.IGNORECASE)
_SLOT = re.compile(r"(?:dimm|ddr\d?)[ _-]?([A-Z])[ _-]?\d", re.IGNORECASE)


def _channel(places: list[str]) -> str | None:
    """The memory channel in a module's labels: ``P0 CHANNEL A``, ``Controller0-ChannelA-DIMM0``, ``DIMM_A1``."""
    for text in places:
        channel = _CHANNEL.search(text) or _SLOT.search(text)
        if channel is not None:
            controller = _CONTROLLER.search(text) or _CONTROLLER.search(" ".join(places))
            return f"{controller[1] if controller else ''} {channel[1].upper()}"
    return None


def _bus_bytes(modules: list[tuple[str, int, int]]) -> int:
    """Width of all channels together in bytes. Two modules of one channel share its wires; soldered parts, which are
    narrower than a channel, each bring their own."""
    widest: dict[str, int] = {}
    narrow = 0
    for channel, _, width in modules:
        if width < 64:
            narrow += width
        else:
            widest[channel] = _BUS_BYTES
    if all(channel.startswith("module ") for channel in widest) and len(widest) > 2:
        return 2 * _BUS_BYTES + narrow // 8  # unlabelled slots: a desktop's four modules sit on two channels
    return sum(widest.values()) + narrow // 8


def tabled_bandwidth(machine: Machine) -> Rate | None:
    """Peak bandwidth by the tables, in bytes/s: that of a GPU which comes with this memory, or the processor's with
    every channel filled, which is an assumption where modules can be exchanged."""
    shared = [card.pool.bandwidth for card in machine.accelerators if card.unified and card.vendor in _WITH_MEMORY]
    shared += [card.pool.bandwidth for card in machine.accelerators if card.unified and _is_reported(card.pool)]
    from_gpu = next((rate for rate in shared if rate is not None), None)
    if from_gpu is not None:
        return Rate(from_gpu.per_s, from_gpu.origin, f"shared with the GPU: {from_gpu.source}")
    from fitcheck.probe.hardware import find_cpu

    processor = find_cpu(machine.cpu.name)
    if processor is None:
        return None
    row = processor.row
    origin = Origin.CATALOG if row.kind in _SOLDERED else Origin.ASSUMED
    sockets = _sockets_with_memory(machine.cpu)
    source = f"{row.name}: {row.channels} channels of {row.memory_type} at {row.rate_mts} MT/s, all filled"
    return Rate(row.bandwidth_per_s * sockets, origin, source)


def _is_reported(pool: Pool) -> bool:
    return pool.bandwidth is not None and pool.bandwidth.origin is Origin.REPORTED


def speed_problem(rate: Rate | None) -> Problem | None:
    """What to tell about a speed that is not known, or only assumed."""
    if rate is None:
        return Problem("ram", "the speed of memory is not known", "pass --bandwidth, such as --bandwidth 50GB/s")
    if rate.origin is not Origin.ASSUMED:
        return None
    hint = "pass --bandwidth if modules are fewer or slower, or run fitcheck calibrate"
    return Problem("ram", f"the speed of memory is assumed: {rate.source}", hint)


def for_one_process(rate: Rate, cpu: Cpu) -> Rate:
    """What one process reaches of the bandwidth of all sockets: little more than one socket's."""
    sockets = _sockets_with_memory(cpu)
    if sockets == 1:
        return rate
    share = (1 + _SECOND_SOCKET_GAIN) / sockets
    return Rate(rate.per_s * share, rate.origin, f"{rate.source}; one process on {sockets} sockets reaches {share:.0%}")


def _sockets_with_memory(cpu: Cpu) -> int:
    """Sockets of virtual machines are fiction unless they have NUMA nodes to go with them."""
    return max(1, min(cpu.sockets, cpu.numa_nodes))
