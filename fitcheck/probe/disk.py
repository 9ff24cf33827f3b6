"""Free space where models are downloaded to."""

from __future__ import annotations

from fitcheck.probe.host import Host, to_int
from fitcheck.types import Evidence
from fitcheck.units import format_bytes

#: Folders that engines and download tools were told to use, by variable.
_FOLDER_VARIABLES = ("LLAMA_CACHE", "OLLAMA_MODELS", "HF_HOME", "XDG_CACHE_HOME")


def read_disk(host: Host) -> tuple[int | None, tuple[Evidence, ...]]:
    """Free bytes for this user where downloads go, and where that is."""
    for name in _FOLDER_VARIABLES:
        folder = host.environ(name)
        free = _free(host, folder) if folder else None
        if free is not None:
            return free, (Evidence("disk.free", format_bytes(free), f"${name}"),)
    free = _free(host, "~")
    if free is not None:
        return free, (Evidence("disk.free", format_bytes(free), "home folder"),)
    free = _free_of_df(host.attached("df.txt"))
    return free, (Evidence("disk.free", format_bytes(free), "df"),) if free is not None else ()


def query_disk(path: str) -> dict[str, int]:
    """Free and total bytes of the file system of ``path``, or of the nearest parent that exists."""
    import os
    from pathlib import Path

    place = Path(path).expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if hasattr(os, "statvfs"):
        status = os.statvfs(place)
        return {"free": status.f_bavail * status.f_frsize, "total": status.f_blocks * status.f_frsize}
    from shutil import disk_usage

    usage = disk_usage(place)
    return {"free": usage.free, "total": usage.total}


def _free(host: Host, folder: str) -> int | None:
    answer = host.query("disk", folder)
    return to_int(answer.get("free")) if isinstance(answer, dict) else None


def _free_of_df(text: str | None) -> int | None:
    """The fourth column of the first line of ``df`` in bytes or 1 KiB blocks."""
    lines = (text or "").splitlines()
    if len(lines) < 2:
        return None
    fields = lines[1].split()
    free = to_int(fields[3]) if len(fields) >= 6 else None
    return None if free is None else free * (1024 if "1K-blocks" in lines[0] else 1)
