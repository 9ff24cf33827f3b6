"""The files of a capture folder: where each one lies on the recorded machine, and what ``capture.json`` tells."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fitcheck.errors import FitcheckError
from fitcheck.probe.host import MIB, clean

CAPTURE_FILE = "capture.json"
RECORD_HINT = "record one with: fitcheck machine --capture FOLDER"
_MOST_FILES = 20_000
_LARGEST_CAPTURE = 32 * MIB

#: Where files of partial trees belong: a pattern of their path in the capture, and their path on the machine.
_PLACES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(proc|sys|etc|run|dev|usr|home|root)/(.+)"), r"/\1/\2"),
    (re.compile(r"(card\d+)/(.+)"), r"/sys/class/drm/\1/\2"),
    (re.compile(r"kfd/(.+)"), r"/sys/class/kfd/kfd/\1"),
    (re.compile(r"(\.dockerenv)"), r"/\1"),
)
#: A PCI device in the tree of bridges; also listed by its address, as the kernel does.
_PCI_FILE = re.compile(r"/sys/devices/pci.*/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])/([^/]+)")
#: Files that lie in the capture's top folder although they are those of the one card's device.
_LOOSE_CARD_FILES = ("boot_vga", "class", "current_link_speed", "current_link_width", "device", "revision")


class Recorded:
    """The parts of a ``capture.json``; garbage in it is left out."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self.os = _text_or_none(document.get("os"))
        self.arch = _text_or_none(document.get("arch"))
        self.files = {path: text.encode("utf-8", "replace") for path, text in _joined(document.get("files")).items()}
        self.commands = _joined(document.get("commands"))
        self.variables = _texts(document.get("environ"))
        self.denied = _texts(document.get("denied"))
        queries = document.get("queries")
        self.queries: dict[str, object] = dict(queries) if isinstance(queries, dict) else {}
        present = document.get("present")
        self.present = [path for path in present if isinstance(path, str)] if isinstance(present, list) else []


def read_recording(root: Path, read: Callable[[], bytes] | None) -> Recorded:
    """What ``capture.json`` holds, nothing where there is none. Raises FitcheckError ``unreadable_capture``."""
    if read is None:
        return Recorded({})
    try:
        document = json.loads(read())
    except (ValueError, RecursionError) as error:
        raise FitcheckError(
            "unreadable_capture", f"{clean(root.name)}/{CAPTURE_FILE} is not a capture", RECORD_HINT
        ) from error
    return Recorded(document if isinstance(document, dict) else {})


def sources_of(root: Path) -> dict[str, Callable[[], bytes]]:
    """The files of a capture by their relative path. Links are not followed: a capture may come from anyone."""
    sources: dict[str, Callable[[], bytes]] = {}
    for folder, _, names in os.walk(root, followlinks=False):
        for name in sorted(names):
            path = Path(folder) / name
            if len(sources) < _MOST_FILES and path.is_file() and not path.is_symlink():
                sources[path.relative_to(root).as_posix()] = _reader(path)
    return sources


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(_LARGEST_CAPTURE)
        except OSError:
            return b""

    return read


def machine_paths(name: str, names: Iterable[str]) -> Iterable[str]:
    """The paths on the machine of a file of the capture."""
    for pattern, place in _PLACES:
        match = pattern.fullmatch(name)
        if match is not None:
            path = match.expand(place)
            yield path
            device = _PCI_FILE.fullmatch(path)
            if device is not None:
                yield f"/sys/bus/pci/devices/{device[1]}/{device[2]}"
            return
    if name in _LOOSE_CARD_FILES:
        for card in sorted({other.split("/")[0] for other in names if re.match(r"card\d+/device/", other)}):
            yield f"/sys/class/drm/{card}/device/{name}"


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def _joined(value: object) -> dict[str, str]:
    """Texts by name, each a string or a list of lines."""
    if not isinstance(value, dict):
        return {}
    whole = {name: "\n".join(map(str, text)) if isinstance(text, list) else text for name, text in value.items()}
    return _texts(whole)


def _text_or_none(value: object) -> str | None:
    return clean(value, 40) if isinstance(value, str) and value else None
