"""Measure how fast this machine reads its memory, in a fifth of a second, where nothing reports it.

Every thread scans its own buffer with the C library's ``memchr`` (ctypes lets other threads run meanwhile), which reads
memory as fast as a plain C loop. The buffers are larger than the last-level cache, else the cache would be measured,
and made of small pages, as the mapped files are that engines read weights from.
"""

from __future__ import annotations

from msgspec import Struct, structs

from fitcheck.probe.host import Host, parse_cpu_list, to_int
from fitcheck.types import Origin, Rate

_MIB = 1024**2
_CHUNK_BYTES = _MIB // 2  # per thread and thread: the more threads, the more seldom each asks for the interpreter
_MEASURE_S = 0.02  # reading; giving the buffers their pages takes longer
_BUFFER_BYTES = (32 * _MIB, 64 * _MIB)  # of each thread: least and most
_WINDOW_BYTES = 8 * _MIB  # mapped at a time by each thread
_SHARE_OF_FREE = 4  # never take more than a quarter of what is free
_MOST_THREADS = 32
_PLAUSIBLE_PER_S = (0.2e9, 5e12)


class Plan(Struct, frozen=True):
    """How to measure: threads, buffer bytes of each, and how much is read at once."""

    threads: int
    buffer_bytes: int
    chunk_bytes: int


def plan(host: Host, threads: int, free_bytes: int) -> Plan | None:
    """Buffers of twice the thread's share of the last-level cache; None where memory is too short to measure."""
    workers = max(1, min(threads, _MOST_THREADS))
    cache, sharers = last_level_cache(host)
    least, most = _BUFFER_BYTES
    each = max(least, min(most, 2 * cache // max(1, min(sharers, workers))))
    chunk = min(workers * _CHUNK_BYTES, least // 4)
    if each * workers > free_bytes // _SHARE_OF_FREE:
        return None
    return Plan(workers, each // chunk * chunk, chunk)


def last_level_cache(host: Host) -> tuple[int, int]:
    """Bytes of the largest cache of the first CPU, and how many CPUs share it; (0, 1) if unknown."""
    folder = "/sys/devices/system/cpu/cpu0/cache"
    largest = (0, 1)
    for name in host.list_dir(folder)[:16]:
        size = _cache_size(host.read_text(f"{folder}/{name}/size", 64) or "")
        sharers = len(parse_cpu_list(host.read_text(f"{folder}/{name}/shared_cpu_list", 4096)))
        largest = max(largest, (size, max(1, sharers)))
    return largest


def _cache_size(text: str) -> int:
    number = to_int(text.strip().rstrip("KMG"))
    unit = text.strip()[-1:]
    return (number or 0) * {"K": 1024, "M": _MIB, "G": 1024 * _MIB}.get(unit, 1)


def measured_bandwidth(host: Host, threads: int, usable_bytes: int) -> Rate | None:
    """Measure on a live host, or replay what was measured there; None where memory is short or nothing was."""
    planned = plan(host, threads, usable_bytes)
    if planned is None:
        return None
    answer = host.query("bandwidth", *(str(value) for value in structs.astuple(planned)))
    per_s = answer.get("bytes_per_s") if isinstance(answer, dict) else None
    low, high = _PLAUSIBLE_PER_S
    if not isinstance(per_s, (int, float)) or not low < per_s < high:
        return None
    source = f"{planned.threads} threads read {planned.buffer_bytes // _MIB} MiB each"
    return Rate(per_s, Origin.MEASURED, source)


def query_bandwidth(threads: str, buffer_bytes: str, chunk_bytes: str) -> dict[str, float] | None:
    """The measurement as a question to a host, so that a capture holds it."""
    per_s = measure(Plan(int(threads), int(buffer_bytes), int(chunk_bytes)))
    return {"bytes_per_s": per_s} if per_s else None


def measure(plan: Plan) -> float | None:
    """Read bandwidth of all threads together, in bytes/s; None where this system has no such calls.

    Each chunk is timed by the clock of its thread's processor time, which stands still while other programs have the
    processor: a busy machine is not taken for a slow one. Each thread's median counts, which a few chunks that were
    still in a cache, or had the memory to themselves, do not move. Only a window of the memory is mapped at a time, so
    that the process stays small.
    """
    import ctypes
    import mmap
    import os
    from threading import Barrier, BrokenBarrierError, Thread
    from time import perf_counter, thread_time

    try:
        library = ctypes.CDLL(None, use_errno=True)
        scan, map_memory, unmap_memory = library.memchr, library.mmap, library.munmap
        memory, flags = os.memfd_create("fitcheck"), mmap.MAP_SHARED | mmap.MAP_POPULATE
    except (OSError, AttributeError, TypeError):
        return None
    size = ctypes.c_size_t
    scan.argtypes, scan.restype = (ctypes.c_void_p, ctypes.c_int, size), ctypes.c_void_p
    map_memory.argtypes = (ctypes.c_void_p, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    map_memory.restype, unmap_memory.argtypes = ctypes.c_void_p, (ctypes.c_void_p, size)
    times: list[list[float]] = [[] for _ in range(plan.threads)]  # seconds per chunk, by thread
    ready = Barrier(plan.threads)
    window = max(_WINDOW_BYTES // plan.chunk_bytes, 1) * plan.chunk_bytes

    def read(first: int, seconds: list[float]) -> None:
        try:
            os.posix_fallocate(memory, first, plan.buffer_bytes)  # the kernel writes zeros, by which pages become real
            ready.wait(timeout=1.0)
        except (OSError, BrokenBarrierError):
            ready.abort()
            return
        end, offset = perf_counter() + _MEASURE_S, 0
        while perf_counter() < end:
            place = map_memory(None, window, mmap.PROT_READ, flags, memory, first + offset)
            if place in (None, ctypes.c_size_t(-1).value):
                return
            for chunk in range(0, window, plan.chunk_bytes):
                before = thread_time()
                scan(place + chunk, 1, plan.chunk_bytes)
                seconds.append(thread_time() - before)
            unmap_memory(place, window)
            offset = (offset + window) % (plan.buffer_bytes // window * window)

    pairs = ((number * plan.buffer_bytes, seconds) for number, seconds in enumerate(times))
    workers = [Thread(target=read, args=pair, daemon=True) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=2.0)
    if not any(worker.is_alive() for worker in workers):
        Thread(target=os.close, args=(memory,), daemon=True).start()  # the kernel takes milliseconds to free the pages
    return sum(plan.chunk_bytes / usual for seconds in times if (usual := _median(seconds)) > 0)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
