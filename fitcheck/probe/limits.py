"""Limits of the container or service that this process runs in: cgroups of both versions, cpusets and quotas.

A process is held by its own cgroup and by every ancestor that it can see. Page cache counts as free: weights that are
mapped from a file are charged to the cgroup, and given back when something else needs the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from fitcheck.probe.host import Host, clean, parse_cpu_list, to_int
from fitcheck.types import Evidence, Limits
from fitcheck.units import format_bytes

_MOST_LEVELS = 32
#: Marks of container engines in the path of a cgroup.
_CONTAINER_PATH = re.compile(r"docker|kubepods|containerd|crio|libpod|lxc|machine\.slice")


class Confinement(Struct, frozen=True):
    """What holds this process. ``headroom_bytes``: what may still be allocated under the tightest memory limit;
    ``cpus``: the CPUs that it may run on, None where that is not known."""

    limits: Limits = Limits()
    headroom_bytes: int | None = None
    cpus: tuple[int, ...] | None = None
    environment: str | None = None
    evidence: tuple[Evidence, ...] = ()


class _Level(Struct, frozen=True):
    """One cgroup: its memory limit and what of it is in use without page cache."""

    source: str
    memory_bytes: int | None = None
    used_bytes: int = 0
    cpus: float | None = None


def read_confinement(host: Host) -> Confinement:
    """Cgroup limits, allowed CPUs and the kind of environment. Only Linux has any of them."""
    if host.os != "linux":
        return Confinement()
    levels = tuple(_levels(host))
    memory = min((level for level in levels if level.memory_bytes is not None), key=_memory_of, default=None)
    quota = min((level for level in levels if level.cpus is not None), key=_cpus_of, default=None)
    headroom = min(
        (max(0, _memory_of(level) - level.used_bytes) for level in levels if level.memory_bytes), default=None
    )
    allowed = _allowed_cpus(host)
    evidence = []
    if memory is not None:
        evidence.append(Evidence("limits.memory", format_bytes(_memory_of(memory)), memory.source))
    if quota is not None:
        evidence.append(Evidence("limits.cpus", f"{quota.cpus:g}", quota.source))
    environment, sign = _environment(host)
    if environment is not None:
        evidence.append(Evidence("machine.environment", environment, sign))
    sources = dict.fromkeys(level.source for level in (memory, quota) if level is not None)
    return Confinement(
        limits=Limits(
            memory_bytes=memory.memory_bytes if memory else None,
            cpus=quota.cpus if quota else None,
            source=", ".join(sources),
        ),
        headroom_bytes=headroom,
        cpus=allowed,
        environment=environment,
        evidence=tuple(evidence),
    )


def _memory_of(level: _Level) -> int:
    return level.memory_bytes or 0


def _cpus_of(level: _Level) -> float:
    return level.cpus or 0.0


def _allowed_cpus(host: Host) -> tuple[int, ...] | None:
    """The CPUs that this process may run on: cpusets and affinity, as the kernel combined them."""
    status = host.read_text("/proc/self/status", 16384) or ""
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
    if match:
        return parse_cpu_list(match[1]) or None
    mounts = _mounts(host)
    for hierarchy, name in (("cgroup2", "cpuset.cpus.effective"), ("cpuset", "cpuset.effective_cpus")):
        path = _own_path(host, hierarchy)
        folders = _folders(host, mounts.get(hierarchy, ("/sys/fs/cgroup/cpuset", "/")), path) if path else ()
        told = next((text for folder in folders if (text := host.read_text(f"{folder}/{name}", 4096))), None)
        if told:
            return parse_cpu_list(told) or None
    return None


# --------------------------------------------------------------------------------------------------------------------
# Cgroups


def _levels(host: Host) -> Iterator[_Level]:
    """The own cgroup and its visible ancestors, in each hierarchy that limits memory or CPUs."""
    mounts = _mounts(host)
    for hierarchy, read in (("cgroup2", _read_v2), ("memory", _read_v1_memory), ("cpu", _read_v1_cpu)):
        path = _own_path(host, hierarchy)
        if path is not None:
            for folder in _folders(host, mounts[hierarchy], path):
                yield read(host, folder)


def _own_path(host: Host, hierarchy: str) -> str | None:
    """The cgroup of this process in a hierarchy, as it stands in /proc/self/cgroup."""
    for line in (host.read_text("/proc/self/cgroup", 65536) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and (controllers == "" if hierarchy == "cgroup2" else hierarchy in controllers.split(",")):
            return path
    return None


def _mounts(host: Host) -> dict[str, tuple[str, str]]:
    """Hierarchy (``cgroup2`` or the name of a controller) -> (mount point, the cgroup that is mounted there)."""
    mounts: dict[str, tuple[str, str]] = {}
    for kind, options, place, root in _mounted(host):
        if kind == "cgroup2":
            mounts.setdefault("cgroup2", (place, root))
        elif kind == "cgroup":
            for controller in options.split(","):
                mounts.setdefault(controller, (place, root))
    defaults = {"cgroup2": "/sys/fs/cgroup", "memory": "/sys/fs/cgroup/memory", "cpu": "/sys/fs/cgroup/cpu"}
    return {name: (place, "/") for name, place in defaults.items()} | mounts


def _mounted(host: Host) -> Iterator[tuple[str, str, str, str]]:
    """(kind, options, mount point, what of the file system is mounted there) of every mount of this process."""
    text = host.read_text("/proc/self/mountinfo")
    for line in (text or "").splitlines():
        place, dash, kind = line.partition(" - ")
        fields, kinds = place.split(" "), kind.split(" ")
        if dash and len(fields) >= 5 and len(kinds) >= 3:
            yield kinds[0], kinds[2], fields[4], fields[3]
    for line in (host.read_text("/proc/mounts") or "").splitlines() if text is None else ():
        fields = line.split(" ")
        if len(fields) >= 4:
            yield fields[2], fields[3], fields[1], "/"


def _folders(host: Host, mount: tuple[str, str], path: str) -> Iterator[str]:
    """The folder of the cgroup at ``path`` and of each one above it, up to the mount point.

    Inside a container the path may be that of the outer system, of which only the own part is mounted: then the mount
    point itself is the own cgroup.
    """
    place, root = mount
    inner = path.removeprefix(root) if root != "/" else path
    parts = [part for part in inner.split("/") if part not in ("", ".")][:_MOST_LEVELS]
    if ".." in parts or (parts and not host.exists(f"{place}/{'/'.join(parts)}")):
        parts = []
    for depth in range(len(parts), -1, -1):
        yield "/".join((place, *parts[:depth]))


def _read_v2(host: Host, folder: str) -> _Level:
    limits = [to_int(host.read_text(f"{folder}/{name}", 64)) for name in ("memory.max", "memory.high")]
    known = [limit for limit in limits if limit is not None]
    used = to_int(host.read_text(f"{folder}/memory.current", 64)) if known else None
    cache = _statistics(host, f"{folder}/memory.stat", ("inactive_file", "active_file")) if known else 0
    return _Level(
        source=folder,
        memory_bytes=min(known, default=None),
        used_bytes=max(0, (used or 0) - cache),
        cpus=_quota(*_two(host.read_text(f"{folder}/cpu.max", 64))),
    )


def _read_v1_memory(host: Host, folder: str) -> _Level:
    limit = to_int(host.read_text(f"{folder}/memory.limit_in_bytes", 64))
    if limit is None:  # absurdly large: no limit
        return _Level(source=folder)
    used = to_int(host.read_text(f"{folder}/memory.usage_in_bytes", 64))
    cache = _statistics(host, f"{folder}/memory.stat", ("total_inactive_file", "total_active_file"))
    return _Level(source=folder, memory_bytes=limit, used_bytes=max(0, (used or 0) - cache))


def _read_v1_cpu(host: Host, folder: str) -> _Level:
    quota = host.read_text(f"{folder}/cpu.cfs_quota_us", 64)
    period = host.read_text(f"{folder}/cpu.cfs_period_us", 64)
    return _Level(source=folder, cpus=_quota(quota, period))


def _quota(quota: str | None, period: str | None) -> float | None:
    """CPUs from a quota and its period in microseconds; ``max`` and -1 mean no limit."""
    amount, length = to_int(quota), to_int(period)
    return amount / length if amount and length else None


def _two(text: str | None) -> tuple[str | None, str | None]:
    words = (text or "").split()
    return (words[0], words[1]) if len(words) >= 2 else (None, None)


def _statistics(host: Host, path: str, names: tuple[str, ...]) -> int:
    """The sum of the named lines of a memory.stat file, in bytes."""
    pairs = (line.partition(" ") for line in (host.read_text(path, 65536) or "").splitlines())
    return sum(to_int(value) or 0 for name, _, value in pairs if name in names)


# --------------------------------------------------------------------------------------------------------------------
# Environment


def _environment(host: Host) -> tuple[str | None, str]:
    """wsl2, container or vm, and what tells so; None on bare metal or where nothing tells."""
    release = "/proc/sys/kernel/osrelease"
    if "microsoft" in (host.read_text(release, 256) or "").lower():
        return "wsl2", release
    sign = _container_sign(host)
    if sign:
        return "container", sign
    if host.exists("/sys/hypervisor/type"):
        return "vm", "/sys/hypervisor/type"
    if " hypervisor" in (host.read_text("/proc/cpuinfo", 8192) or ""):
        return "vm", "/proc/cpuinfo: hypervisor"
    return None, ""


def _container_sign(host: Host) -> str:
    """What shows that this is a container; empty where nothing does."""
    marks = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    found = next((mark for mark in marks if host.exists(mark)), "")
    if found:
        return found
    if host.environ("KUBERNETES_SERVICE_HOST"):
        return "$KUBERNETES_SERVICE_HOST"
    own = clean(host.read_text("/proc/self/cgroup", 4096) or "", 4096)
    return "/proc/self/cgroup" if _CONTAINER_PATH.search(own) else ""
