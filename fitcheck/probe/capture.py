"""Recorded machines: replay a folder as a ``Host``, and record this machine into one.

A capture is a folder. Two layouts are read, and may be mixed:

- ``capture.json``, which ``record`` writes: every file, listing, command and query that the probe asked for on the
  recorded machine, with names and serial numbers removed. One file, so that it can be attached to a report and read
  on any system.
- the machine's own files under their own paths (``proc/meminfo``, ``sys/class/drm/card0/device/vendor``), and what
  tools printed under the names of ``_TOOL_OUTPUTS`` (``nvidia-smi-q-x.xml``, ``rocm-smi.json``, ``lscpu.txt``, …).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fitcheck.errors import FitcheckError
from fitcheck.probe.capture_folder import CAPTURE_FILE, RECORD_HINT, machine_paths, read_recording, sources_of
from fitcheck.probe.capture_system import guess_arch, guess_os
from fitcheck.probe.host import MIB, Host, LiveHost, clean
from fitcheck.types import Machine

#: What a tool printed, by the words that its command line must contain, best match first. A tool without arguments
#: is looked up as ``<tool>.txt``.
_TOOL_OUTPUTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("nvidia-smi", "-q", "-x"), "nvidia-smi-q-x.xml"),
    (("nvidia-smi", "-L"), "nvidia-smi-L.txt"),
    (("nvidia-smi", "--query-gpu"), "query-gpu.csv"),
    (("rocm-smi",), "rocm-smi.json"),
    (("sysinfo",), "sysinfo-cpu.txt"),
    (("clinfo", "--json"), "clinfo.json"),
    (("system_profiler", "SPDisplaysDataType"), "SPDisplaysDataType.json"),
)


class CaptureHost:
    """A recorded machine. ``files`` maps paths as on the machine to bytes, or to a function that reads them."""

    live = False

    def __init__(
        self,
        files: Mapping[str, bytes | Callable[[], bytes]],
        *,
        os_name: str | None = None,
        arch: str | None = None,
        present: Iterable[str] = (),
        commands: Mapping[str, str] | None = None,
        queries: Mapping[str, object] | None = None,
        variables: Mapping[str, str] | None = None,
        attachments: Mapping[str, bytes | Callable[[], bytes]] | None = None,
        denied: Mapping[str, str] | None = None,
    ) -> None:
        self._files = dict(files)
        self._commands = dict(commands or {})
        self._queries = dict(queries or {})
        self._variables = dict(variables or {})
        self._attachments = dict(attachments or {})
        self.denied: dict[str, str] = dict(denied or {})
        _add_lspci(self._files, self.attached("lspci-vmmnD.txt"))
        self._folders = _folders((*self._files, *present))
        self.os = os_name or guess_os(self)
        self.arch = arch or guess_arch(self)

    @classmethod
    def open(cls, folder: str | Path) -> CaptureHost:
        """Open a capture folder. Raises FitcheckError ``unreadable_capture``."""
        root = Path(folder)
        if not root.is_dir():
            raise FitcheckError("unreadable_capture", f"no such capture folder: {clean(str(folder))}", RECORD_HINT)
        sources = sources_of(root)
        recorded = read_recording(root, sources.pop(CAPTURE_FILE, None))
        files: dict[str, bytes | Callable[[], bytes]] = {}
        attachments: dict[str, bytes | Callable[[], bytes]] = {}
        for name, read in sources.items():
            for path in machine_paths(name, sources):
                files[path] = read
            attachments[name] = read
        files.update(recorded.files)
        return cls(
            files,
            os_name=recorded.os,
            arch=recorded.arch,
            present=recorded.present,
            commands=recorded.commands,
            queries=recorded.queries,
            variables=recorded.variables,
            attachments=attachments,
            denied=recorded.denied,
        )

    def read_bytes(self, path: str, limit: int = MIB) -> bytes | None:
        """A recorded file."""
        return _content(self._files.get(path), limit)

    def read_text(self, path: str, limit: int = MIB) -> str | None:
        """A recorded file as text."""
        data = self.read_bytes(path, limit)
        return None if data is None else data.decode("utf-8", "replace")

    def list_dir(self, path: str) -> tuple[str, ...]:
        """The recorded names under a folder."""
        return tuple(sorted(self._folders.get(path.rstrip("/"), ())))

    def exists(self, path: str) -> bool:
        """Whether the path or something under it was recorded."""
        bare = path.rstrip("/")
        if bare in self._files or bare in self._folders:
            return True
        folder, _, name = bare.rpartition("/")
        return name in self._folders.get(folder, ())

    def run(self, args: Sequence[str], timeout_s: float = 1.5) -> str | None:
        """What the tool printed on the recorded machine."""
        line = " ".join(args)
        if line in self._commands:
            return self._commands[line]
        for words, name in _TOOL_OUTPUTS:
            if words[0] == args[0] and all(any(arg.startswith(word) for arg in args[1:]) for word in words[1:]):
                text = self.attached(name)
                if text is not None:
                    return text
        return self.attached(f"{args[0]}.txt") if len(args) == 1 else None

    def environ(self, name: str) -> str | None:
        """A recorded variable."""
        return self._variables.get(name)

    def query(self, name: str, *args: str) -> object | None:
        """A recorded call."""
        recorded = self._queries.get(_query_key(name, args))
        if recorded is None and name == "sysctl":
            return _sysctl_values(self.attached("sysctl.txt"), args)
        return recorded

    def attached(self, name: str) -> str | None:
        """A file of the capture by its name in the folder."""
        data = _content(self._attachments.get(name), 8 * MIB)
        return None if data is None else data.decode("utf-8", "replace")


class RecordingHost:
    """Passes every question on to ``inner`` and keeps the answers."""

    def __init__(self, inner: Host) -> None:
        self._inner = inner
        self.os, self.arch, self.live, self.denied = inner.os, inner.arch, inner.live, inner.denied
        self.files: dict[str, str] = {}
        self.present: set[str] = set()
        self.commands: dict[str, str] = {}
        self.queries: dict[str, object] = {}
        self.variables: dict[str, str] = {}

    def read_bytes(self, path: str, limit: int = MIB) -> bytes | None:
        """Read and keep, as text: what is not text comes from queries."""
        data = self._inner.read_bytes(path, limit)
        if data is not None:
            self.files[path] = data.decode("utf-8", "replace")
        return data

    def read_text(self, path: str, limit: int = MIB) -> str | None:
        """Read and keep."""
        data = self.read_bytes(path, limit)
        return None if data is None else data.decode("utf-8", "replace")

    def list_dir(self, path: str) -> tuple[str, ...]:
        """List and keep."""
        names = self._inner.list_dir(path)
        self.present.update(f"{path.rstrip('/')}/{name}" for name in names)
        return names

    def exists(self, path: str) -> bool:
        """Look up and keep."""
        found = self._inner.exists(path)
        if found:
            self.present.add(path)
        return found

    def run(self, args: Sequence[str], timeout_s: float = 1.5) -> str | None:
        """Run and keep."""
        text = self._inner.run(args, timeout_s)
        if text is not None:
            self.commands[" ".join(args)] = text
        return text

    def environ(self, name: str) -> str | None:
        """Look up and keep."""
        value = self._inner.environ(name)
        if value is not None:
            self.variables[name] = value
        return value

    def query(self, name: str, *args: str) -> object | None:
        """Ask and keep."""
        result = self._inner.query(name, *args)
        if result is not None:
            self.queries[_query_key(name, args)] = result
        return result

    def attached(self, name: str) -> str | None:
        """What lies beside the inner capture."""
        return self._inner.attached(name)

    def recording(self) -> dict[str, object]:
        """Everything kept, by the names that ``capture.json`` has for it."""
        return {
            "fitcheck_capture": 1,
            "os": self.os,
            "arch": self.arch,
            "environ": dict(sorted(self.variables.items())),
            "files": dict(sorted(self.files.items())),
            "present": sorted(self.present),
            "commands": dict(sorted(self.commands.items())),
            "queries": dict(sorted(self.queries.items())),
            "denied": dict(sorted(self.denied.items())),
        }


def replay(folder: str | Path) -> Machine:
    """The machine that a capture folder describes. Raises FitcheckError ``unreadable_capture``."""
    from fitcheck.probe import probe

    return probe(CaptureHost.open(folder))


def record(folder: str | Path, host: Host | None = None) -> Machine:
    """Probe this machine and write the evidence to ``folder/capture.json``: home folder, host name, user name, serial
    numbers, UUIDs and MAC addresses are taken out. Raises FitcheckError ``unwritable_folder``."""
    from fitcheck.probe import probe
    from fitcheck.probe.privacy import scrub

    recorder = RecordingHost(host or LiveHost())
    machine = probe(recorder, deadline_s=10.0)
    kept = {name: _in_lines(value) for name, value in scrub(recorder.recording()).items()}
    text = json.dumps(kept, indent=1) + "\n"
    try:
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / CAPTURE_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FitcheckError("unwritable_folder", f"cannot write the capture: {clean(str(error))}", "") from error
    return machine


def _in_lines(value: object) -> object:
    """Texts of several lines as lists of lines: a capture is read by people, too."""
    if not isinstance(value, dict):
        return value
    return {name: text.split("\n") if isinstance(text, str) and "\n" in text else text for name, text in value.items()}


def _content(source: bytes | Callable[[], bytes] | None, limit: int) -> bytes | None:
    if source is None:
        return None
    return (source if isinstance(source, bytes) else source())[:limit]


def _folders(paths: Iterable[str]) -> dict[str, set[str]]:
    """The names in each folder, from the paths of all files."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        child = path
        while "/" in child:
            parent, _, name = child.rpartition("/")
            known = folders.setdefault(parent, set())
            if name in known:
                break
            known.add(name)
            child = parent
    return folders


def _add_lspci(files: dict[str, bytes | Callable[[], bytes]], text: str | None) -> None:
    """``lspci -vmmnD`` as the files of /sys/bus/pci/devices that it was made from."""
    names = {"Class": "class", "Vendor": "vendor", "Device": "device", "Rev": "revision"}
    for block in (text or "").split("\n\n")[:4096]:
        values = dict(line.split(":\t", 1) for line in block.splitlines() if ":\t" in line)
        slot = values.get("Slot", "").strip()
        if not slot:
            continue
        for label, name in names.items():
            if label in values:
                digits = values[label].strip() + ("00" if label == "Class" else "")
                files.setdefault(f"/sys/bus/pci/devices/{slot}/{name}", f"0x{digits}\n".encode())


def _query_key(name: str, args: Sequence[str]) -> str:
    return " ".join((name, *args))


def _sysctl_values(text: str | None, names: Sequence[str]) -> dict[str, str] | None:
    """The wanted lines of ``sysctl -a``, all of them where none are named."""
    if text is None:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    values = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    return {name: values[name] for name in names if name in values} if names else values
