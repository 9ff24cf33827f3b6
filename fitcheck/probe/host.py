"""The one door to the outside: every probe asks a ``Host``, never the operating system.

``LiveHost`` answers from this machine; ``fitcheck.probe.capture.CaptureHost`` answers from a recorded folder, so that
every probe runs on any machine's evidence under any system. Whatever is absent or refused is ``None`` (or empty), the
reason of a refusal stays in ``Host.denied``; nothing here raises. Texts come as the system gave them: bounded, but not
cleaned (``fitcheck.probe.probe`` cleans every text of the finished ``Machine``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from fitcheck.types import Accelerator, Cpu, Evidence, Pool, Problem

MIB = 1024**2
_LARGEST = 2**60  # nothing that a probe reads (bytes, kHz, counts) is larger; more is garbage

#: Calls of the operating system or a driver library, by name, and the module of fitcheck.probe whose function
#: ``query_<name>(*args)`` makes them. Results are JSON-able, so that a capture can replay them.
QUERY_MODULES = {
    "nvml": "nvidia.nvml",  # -> {"driver": …, "cards": [{…}]} or {"error": code, "message": …}
    "local_memory": "intel_calls",  # (driver, render node) -> {"bytes": …}, of an Intel card
    "disk": "disk",  # (path) -> {"total": bytes, "free": bytes}
    "memory": "ram",  # -> {"total": bytes, "available": bytes}, where there is no /proc/meminfo
    "modules": "memory_speed",  # -> {"MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS": "5600", …}, where root may read it
    "bandwidth": "bandwidth",  # (threads, buffer bytes, chunk bytes) -> {"bytes_per_s": …}
    "cores": "cpu",  # -> {"physical": n, "logical": n}, where there is no /proc/cpuinfo
    "sysctl": "apple_calls",  # (name, …) -> {name: text}
    "metal": "apple_calls",
    "registry": "windows_calls",
    "smbios": "windows_calls",
    "dxgi": "windows_calls",
    "processors": "windows_calls",
}

#: Where tools live that are often off PATH under sudo, ssh and services.
_TOOL_FOLDERS = ("/usr/lib/wsl/lib", "/opt/rocm/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


class Found(Struct, frozen=True):
    """What one part of the probe found. ``cpu``, ``ram`` and ``os_version`` only from parts that speak for the whole
    system (Apple, Windows)."""

    accelerators: tuple[Accelerator, ...] = ()
    problems: tuple[Problem, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    cpu: Cpu | None = None
    ram: Pool | None = None
    os_version: str | None = None
    environment: str | None = None


class Host(Protocol):
    """A machine to ask. Paths are absolute and written with ``/``, also for captures replayed on Windows."""

    os: str  # linux, darwin, windows, or what sys.platform says
    arch: str  # x86_64, arm64, …, "" where unknown
    live: bool  # this machine, now: worth measuring
    denied: dict[str, str]  # path, command or query -> why it was refused ("permission denied", "exit 9: …")

    def read_text(self, path: str, limit: int = MIB) -> str | None:
        """The first ``limit`` bytes of a file, undecodable bytes replaced; None if absent or denied."""

    def read_bytes(self, path: str, limit: int = MIB) -> bytes | None:
        """The first ``limit`` bytes of a file; None if absent or denied."""

    def list_dir(self, path: str) -> tuple[str, ...]:
        """The names in a folder, sorted; empty if absent or denied."""

    def exists(self, path: str) -> bool:
        """Whether there is a file, folder or device of that name."""

    def run(self, args: Sequence[str], timeout_s: float = 1.5) -> str | None:
        """What an installed tool printed; None if it is absent, failed or took too long. ``args[0]`` is its name."""

    def environ(self, name: str) -> str | None:
        """An environment variable, None if not set."""

    def query(self, name: str, *args: str) -> object | None:
        """The result of a named call of ``QUERY_MODULES``; None where it cannot be made."""

    def attached(self, name: str) -> str | None:
        """A text that lies beside a capture (the output of another tool, by file name); None on a live host."""


class LiveHost:
    """This machine."""

    live = True

    def __init__(self) -> None:
        self.os = "windows" if sys.platform in ("win32", "cygwin") else sys.platform
        self.arch = _live_arch()
        self.denied: dict[str, str] = {}

    def read_bytes(self, path: str, limit: int = MIB) -> bytes | None:
        """Read a file, 20 µs."""
        try:
            with Path(path).open("rb", buffering=0) as file:
                return _read_up_to(file.fileno(), limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            self.denied[path] = _reason(error)
            return None

    def read_text(self, path: str, limit: int = MIB) -> str | None:
        """Read a file as text."""
        data = self.read_bytes(path, limit)
        return None if data is None else data.decode("utf-8", "replace")

    def list_dir(self, path: str) -> tuple[str, ...]:
        """List a folder."""
        try:
            return tuple(sorted(entry.name for entry in Path(path).iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except (OSError, ValueError) as error:
            self.denied[path] = _reason(error)
            return ()

    def exists(self, path: str) -> bool:
        """Look a path up."""
        try:
            return Path(path).exists()
        except (OSError, ValueError):
            return False

    def run(self, args: Sequence[str], timeout_s: float = 1.5) -> str | None:
        """Start a tool, looked up first because a failing start of a process costs more."""
        tool = _find_tool(args[0])
        if tool is None:
            return None
        import subprocess

        try:
            done = subprocess.run(
                [tool, *args[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.denied[args[0]] = f"no answer within {timeout_s:g} s"
            return None
        except (OSError, ValueError) as error:
            self.denied[args[0]] = _reason(error)
            return None
        if done.returncode != 0:
            said = (done.stdout.strip() or done.stderr.strip())[:400].decode("utf-8", "replace")
            self.denied[args[0]] = f"exit {done.returncode}: {said}"
            return None
        return done.stdout[: 8 * MIB].decode("utf-8", "replace")

    def environ(self, name: str) -> str | None:
        """Look a variable up."""
        return os.environ.get(name)

    def query(self, name: str, *args: str) -> object | None:
        """Import the module that knows the call, and make it."""
        from importlib import import_module

        try:
            module = import_module(f"fitcheck.probe.{QUERY_MODULES[name]}")
            call = getattr(module, f"query_{name}", None)
            result: object = None if call is None else call(*args)
            return result
        except (ImportError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            self.denied[name] = _reason(error)
            return None

    def attached(self, name: str) -> str | None:
        """Nothing lies beside a live machine."""
        return None


def to_int(text: object, base: int = 10) -> int | None:
    """A whole number as systems print it (blanks, NUL and line ends around it, ``0x`` with base 16); None if it is
    none, negative or absurdly large."""
    if isinstance(text, (str, int)) and not isinstance(text, bool):
        try:
            number = int(text.strip(" \t\r\n\0")[:40], base) if isinstance(text, str) else text
        except ValueError:
            return None
        return number if 0 <= number <= _LARGEST else None
    return None


def clean(text: str, limit: int = 200) -> str:
    """Text that is safe to print on one line: no control or escape characters, blanks collapsed, bounded."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    return " ".join(printable.split())[:limit]


def parse_cpu_list(text: str | None, most: int = 16384) -> tuple[int, ...]:
    """``"0-3,8"`` -> (0, 1, 2, 3, 8): the kernel's list format for CPUs and nodes. Garbage is left out."""
    numbers: set[int] = set()
    for part in (text or "").strip(" \t\r\n\0").split(",")[:most]:
        first, _, last = part.partition("-")
        low = to_int(first)
        high = to_int(last) if last else low
        if low is not None and high is not None and high < most:
            numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def _live_arch() -> str:
    if hasattr(os, "uname"):
        machine = os.uname().machine
    else:
        machine = os.environ.get("PROCESSOR_ARCHITEW6432") or os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return normal_arch(machine)


def normal_arch(machine: str) -> str:
    """One spelling per architecture: AMD64 -> x86_64, aarch64 -> arm64."""
    lower = machine.strip().lower()
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "i86pc": "x86"}.get(lower, lower)


def _read_up_to(descriptor: int, limit: int) -> bytes:
    """Up to ``limit`` bytes, in blocks: files in /proc and /sys give less than asked for."""
    blocks: list[bytes] = []
    left = limit
    while left > 0:
        block = os.read(descriptor, min(left, 65536))
        if not block:
            break
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def _find_tool(name: str) -> str | None:
    """Where a tool is installed, None if nowhere."""
    suffix = ".exe" if os.name == "nt" else ""
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *_TOOL_FOLDERS):
        if folder and os.access(f"{folder}/{name}{suffix}", os.X_OK):
            return f"{folder}/{name}{suffix}"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    return clean(str(error)) or type(error).__name__
