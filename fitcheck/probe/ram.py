"""Memory of a Linux machine: what there is, what is free, and what may be taken.

Page cache and ZFS' cache count as free, swap and compressed swap never count, huge pages that were set aside cannot be
used by an engine, and memory of a GPU that shows up as a NUMA node (Grace Hopper) belongs to the GPU.
"""

from __future__ import annotations

import re

from fitcheck.probe.host import Found, Host, to_int
from fitcheck.probe.limits import Confinement
from fitcheck.probe.memory_speed import read_module_speed
from fitcheck.types import Cpu, Evidence, Pool, Problem
from fitcheck.units import KIB, format_bytes

_ARC = "/proc/spl/kstat/zfs/arcstats"


def read_ram(host: Host, confinement: Confinement, cpu: Cpu | None = None) -> Found:
    """Memory as ``Found.ram``; a problem where nothing tells how much there is."""
    counts = _meminfo(host.read_text("/proc/meminfo", 65536) or "")
    total = counts.get("MemTotal", 0)
    if total == 0:
        return Found(problems=(Problem("ram", "the size of memory is not known", "pass --ram, such as --ram 32GiB"),))
    on_gpus = _memory_on_gpus(host)
    set_aside = counts.get("HugePages_Free", 0) * counts.get("Hugepagesize", 0)
    own = max(0, total - set_aside - on_gpus)
    free = min(_available(counts) + _reclaimable_arc(host), own)
    limits = confinement.limits
    capacity = min(own, limits.memory_bytes or own)
    usable = max(0, min(free, capacity, total if confinement.headroom_bytes is None else confinement.headroom_bytes))
    speed = read_module_speed(host, cpu)
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
    import psutil

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
