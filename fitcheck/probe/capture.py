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
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fitcheck.errors import FitcheckError
from fitcheck.probe.host import MIB, Host, LiveHost, clean, normal_arch
from fitcheck.types import Machine

CAPTURE_FILE = "capture.json"
_MOST_FILES = 20_000
_LARGEST_CAPTURE = 32 * MIB

#: What a tool printed, by the words that its command line must contain, best match first. A tool without arguments
#: is looked up as ``<tool>.txt``.
_TOOL_OUTPUTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("nvidia-smi", "-q", "-x"), "nvidia-smi-q-x.xml"),
    (("nvidia-smi", "-L"), "nvidia-smi-L.txt"),
    (("nvidia-smi", "--query-gpu"), "query-gpu.csv"),
    (("nvidia-smi", "--version"), "nvidia-smi-version.txt"),
    (("rocm-smi",), "rocm-smi.json"),
    (("amd-smi",), "amd-smi.json"),
    (("lscpu", "-p"), "lscpu-cores.txt"),
    (("sysinfo",), "sysinfo-cpu.txt"),
    (("clinfo", "--json"), "clinfo.json"),
    (("vulkaninfo", "--json"), "vulkaninfo.json"),
    (("system_profiler", "SPDisplaysDataType"), "SPDisplaysDataType.json"),
    (("system_profiler", "SPHardwareDataType"), "system_profiler-SPHardwareDataType.txt"),
)

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
        self.os = os_name or _guess_os(self)
        self.arch = arch or _guess_arch(self)

    @classmethod
    def open(cls, folder: str | Path) -> CaptureHost:
        """Open a capture folder. Raises FitcheckError ``unreadable_capture``."""
        root = Path(folder)
        if not root.is_dir():
            raise FitcheckError("unreadable_capture", f"no such capture folder: {clean(str(folder))}", _RECORD_HINT)
        sources = _sources(root)
        recorded = _recorded(root, sources.pop(CAPTURE_FILE, None))
        files: dict[str, bytes | Callable[[], bytes]] = {}
        attachments: dict[str, bytes | Callable[[], bytes]] = {}
        for name, read in sources.items():
            for path in _machine_paths(name, sources):
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


# --------------------------------------------------------------------------------------------------------------------
# Opening a folder

_RECORD_HINT = "record one with: fitcheck machine --capture FOLDER"


class _Recorded:
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


def _recorded(root: Path, read: Callable[[], bytes] | None) -> _Recorded:
    if read is None:
        return _Recorded({})
    try:
        document = json.loads(read())
    except (ValueError, RecursionError) as error:
        raise FitcheckError(
            "unreadable_capture", f"{clean(root.name)}/{CAPTURE_FILE} is not a capture", _RECORD_HINT
        ) from error
    return _Recorded(document if isinstance(document, dict) else {})


def _sources(root: Path) -> dict[str, Callable[[], bytes]]:
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


def _content(source: bytes | Callable[[], bytes] | None, limit: int) -> bytes | None:
    if source is None:
        return None
    return (source if isinstance(source, bytes) else source())[:limit]


def _machine_paths(name: str, names: Iterable[str]) -> Iterable[str]:
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


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def _in_lines(value: object) -> object:
    """Texts of several lines as lists of lines: a capture is read by people, too."""
    if not isinstance(value, dict):
        return value
    return {name: text.split("\n") if isinstance(text, str) and "\n" in text else text for name, text in value.items()}


def _joined(value: object) -> dict[str, str]:
    """Texts by name, each a string or a list of lines."""
    if not isinstance(value, dict):
        return {}
    whole = {name: "\n".join(map(str, text)) if isinstance(text, list) else text for name, text in value.items()}
    return _texts(whole)


def _text_or_none(value: object) -> str | None:
    return clean(value, 40) if isinstance(value, str) and value else None


# --------------------------------------------------------------------------------------------------------------------
# What system was recorded, where the capture does not say

_OS_SIGNS: tuple[tuple[str, str, str], ...] = (
    ("winreg.json", "", "windows"),
    ("wmic-cpu.txt", "", "windows"),
    ("cpuid.txt", "", "windows"),
    ("fastfetch-gpu.json", "Direct3D", "windows"),
    ("capture.txt", "\nos:             windows", "windows"),
    ("nvidia-smi-q-x.xml", "<current_dm>WDDM", "windows"),
    ("nvidia-smi-q-x.xml", "<driver_model>\n\t\t\t<current_dm>TCC", "windows"),
    ("sysctl.txt", "hw.model: Mac", "darwin"),
    ("sysctl.txt", "machdep.cpu.", "darwin"),
    ("sysctl.txt", "hw.perflevel", "darwin"),
    ("sysctl.txt", "", "freebsd"),
    ("SPDisplaysDataType.json", "", "darwin"),
    ("system_profiler-SPHardwareDataType.txt", "", "darwin"),
    ("hardware_system_profiler_output.rb", "", "darwin"),
    ("ggml-metal.log", "", "darwin"),
    ("gpuinfo.txt", "Apple", "darwin"),
    ("kstat.txt", "", "sunos"),
    ("sysinfo-cpu.txt", "", "haiku"),
    ("dmesg.boot", "", "freebsd"),
    ("dmesg.txt", "FreeBSD", "freebsd"),
)


def _guess_os(host: CaptureHost) -> str:
    if host.exists("/proc") or host.exists("/sys"):
        return "linux"
    for name, sign, system in _OS_SIGNS:
        text = host.attached(name)
        if text is not None and sign in text:
            return system
    return "linux"


#: Words of /proc/cpuinfo that tell the architecture, first match wins.
_ARCH_SIGNS: tuple[tuple[str, str], ...] = (
    (r"^flags\s*:.*\blm\b", "x86_64"),
    (r"^vendor_id\s*: (Genuine|Authentic)", "x86"),
    (r"^vendor_id\s*: IBM/S390", "s390x"),
    (r"^CPU architecture\s*: ?(8|AArch64)", "arm64"),
    (r"^CPU implementer", "arm"),
    (r"^isa\s*: ?rv64", "riscv64"),
    (r"^cpu family\s*: \d+$", "x86_64"),
    (r"^(cpu|machine)\s*:.*(POWER|PowerNV|CHRP)", "ppc64le"),
    (r"^machine\s*:.*PowerMac", "ppc"),
    (r"^(CPU Family|cpu family)\s*: ?Loongson-64", "loongarch64"),
    (r"^cpu\s*: ?UltraSparc", "sparc64"),
    (r"^cpu model\s*:", "mips"),
)


def _guess_arch(host: CaptureHost) -> str:
    told = host.attached("uname-m.txt")
    if told:
        return normal_arch(clean(told, 20))
    match = re.search(r"^Architecture:\s*(\S{1,20})", host.attached("lscpu.txt") or "", re.MULTILINE)
    if match is not None:
        return normal_arch(match[1])
    text = host.read_text("/proc/cpuinfo", 65536) or ""
    for sign, arch in _ARCH_SIGNS:
        if re.search(sign, text, re.MULTILINE):
            return arch
    return _arch_of_other_systems(host)


def _arch_of_other_systems(host: CaptureHost) -> str:
    if host.os == "darwin":
        intel = "Intel" in (host.attached("sysctl.txt") or "")
        return "x86_64" if intel else "arm64"
    return "x86_64" if host.os == "windows" else ""
