"""Look at the machine: the only package that does.

Every part is asked in a thread of its own and has until the deadline; a part that fails, hangs or finds nothing becomes
a ``Problem``, never an exception. ``begin`` starts looking and lets the caller do something else meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.probe.host import Found, Host, LiveHost, clean
from fitcheck.types import Accelerator, Cpu, Evidence, Limits, Machine, Pool, Problem, Rate, Vendor
from fitcheck.units import format_rate

_LONGEST_TEXT = 400
_REPORT_HINT = "record the evidence with fitcheck machine --capture FOLDER and report it"
_HANG_HINT = "try again; if it stays so, a driver or a disk hangs: look at the end of dmesg"
_MEASURE_DEADLINE_S = 1.5
_HEAD_START_S = 0.005
_SYSTEM_HEAD_START_S = 0.02  # it reads some forty files

#: Parts that look for accelerators, by system: the module of this package whose ``probe_<name>`` is asked.
_PARTS = {
    "linux": ("nvidia", "amd", "intel", "apple", "npu"),
    "windows": ("windows", "nvidia"),
    "darwin": ("apple",),
}
#: Asked after the others, where none of them found an accelerator that works.
_LAST_RESORT = "vulkan"


def probe(host: Host | None = None, deadline_s: float = 2.0, bandwidth: bool = True) -> Machine:
    """Everything about this machine, or the one that ``host`` stands for. Never raises.

    ``bandwidth``: measure the memory's where nothing reports it (0.2 s; a capture replays the measurement).
    """
    return begin(host, deadline_s, bandwidth).finish()


def begin(host: Host | None = None, deadline_s: float = 2.0, bandwidth: bool = True) -> Probing:
    """Start to look, in the background."""
    return Probing(host or LiveHost(), deadline_s, bandwidth)


class _System(Struct, frozen=True):
    """What the parts say that speak for the machine as a whole."""

    found: Found
    limits: Limits
    environment: str | None


class _Part:
    """One question in a thread of its own. ``answer`` is None until there is one, and after a failure or a hang.

    The asker waits ``head_start_s`` for it: most parts read a few small files, and one after the other they are quicker
    than all together, taking the interpreter from each other at every file. What takes longer runs beside the rest.
    """

    def __init__(self, name: str, ask: Callable[[], object], head_start_s: float = 0.0) -> None:
        self.name = name
        self.answer: object = None
        self.failure: Problem | None = None
        self._ask = ask
        self._thread = Thread(target=self._run, name=f"probe {name}", daemon=True)
        self._thread.start()
        self._thread.join(head_start_s)

    def _run(self) -> None:
        try:
            self.answer = self._ask()
        except Exception as error:  # noqa: BLE001 - the one collector: a broken part must not stop the others
            message = f"the {self.name} probe failed: {type(error).__name__}: {error}"
            self.failure = Problem(self.name, message, _REPORT_HINT)

    def wait(self, until: float) -> object:
        """The answer, None if there is none by then (``monotonic`` seconds)."""
        self._thread.join(max(0.0, until - monotonic()))
        if self._thread.is_alive():
            self.failure = Problem(self.name, f"the {self.name} probe did not answer in time", _HANG_HINT)
            return None
        return self.answer


class Probing:
    """A probe that is under way."""

    def __init__(self, host: Host, deadline_s: float, bandwidth: bool) -> None:
        self._host = host
        self._until = monotonic() + deadline_s
        self._speed: _Part | None = None
        # first: it starts the measurement of memory, which takes longer than all the others
        self._system = _Part("system", lambda: self._read_system(bandwidth), _SYSTEM_HEAD_START_S)
        self._vendors = [_Part(name, _asker(name, host), _HEAD_START_S) for name in _PARTS.get(host.os, ())]
        self._disk = _Part("disk", lambda: _read_disk(host), _HEAD_START_S)

    def finish(self) -> Machine:
        """Collect the answers. Waits until the deadline at most, and for the measurement of bandwidth."""
        system = self._system.wait(self._until)
        answers = {part.name: part.wait(self._until) for part in self._vendors}
        founds = {name: answer for name, answer in answers.items() if isinstance(answer, Found)}
        disk = self._disk.wait(self._until)
        parts = [self._system, self._disk, *self._vendors]
        works = any(card.usable for found in founds.values() for card in found.accelerators)
        if not works and _may_have_gpu(self._host):
            last = _Part(_LAST_RESORT, _asker(_LAST_RESORT, self._host))
            fallback = last.wait(self._until)
            parts.append(last)
            founds.update({_LAST_RESORT: fallback} if isinstance(fallback, Found) else {})
        machine = _assemble(
            self._host,
            system if isinstance(system, _System) else _System(Found(), Limits(), None),
            founds,
            disk if isinstance(disk, _Disk) else _Disk(),
            tuple(part.failure for part in parts if part.failure),
        )
        return _printable(self._with_bandwidth(machine))

    def _read_system(self, bandwidth: bool) -> _System:
        from fitcheck.probe.cpu import read_cpu
        from fitcheck.probe.limits import read_confinement
        from fitcheck.probe.ram import read_ram

        host = self._host
        if host.os != "linux":
            return _System(Found(), Limits(), None)
        confinement = read_confinement(host)
        cpu = read_cpu(host, confinement)
        ram = read_ram(host, confinement, cpu.cpu)
        if ram.ram is not None and ram.ram.bandwidth is None and cpu.cpu is not None:
            processor, usable = cpu.cpu, ram.ram.usable_bytes if bandwidth else 0
            self._speed = _Part("memory_speed", lambda: _find_memory_speed(host, processor, usable))
        found = Found(
            cpu=cpu.cpu,
            ram=ram.ram,
            problems=cpu.problems + ram.problems,
            evidence=cpu.evidence + ram.evidence + confinement.evidence,
            os_version=_linux_version(host),
        )
        return _System(found, confinement.limits, confinement.environment)

    def _with_bandwidth(self, machine: Machine) -> Machine:
        """The machine with the best known speed of its memory: reported, measured, or by the tables."""
        from fitcheck.probe.memory_speed import for_one_process, speed_problem, tabled_bandwidth

        if not machine.ram.total_bytes:
            return machine
        until = self._until + (_MEASURE_DEADLINE_S if self._host.live else 0.0)
        found = self._speed.wait(until) if self._speed else None
        rate = found if isinstance(found, Rate) else machine.ram.bandwidth or tabled_bandwidth(machine)
        problem = speed_problem(rate)
        machine = replace(machine, problems=(*machine.problems, *((problem,) if problem else ())))
        if rate is None:
            return machine
        rate = for_one_process(rate, machine.cpu)
        evidence = Evidence("ram.bandwidth", format_rate(rate.per_s), rate.source)
        return replace(machine, ram=replace(machine.ram, bandwidth=rate), evidence=(*machine.evidence, evidence))


# --------------------------------------------------------------------------------------------------------------------
# Asking


class _Disk(Struct, frozen=True):
    found: Found = Found()
    free_bytes: int | None = None


def _asker(name: str, host: Host) -> Callable[[], object]:
    def ask() -> object:
        from importlib import import_module

        module = import_module(f"fitcheck.probe.{name}")
        answer: object = getattr(module, f"probe_{name}")(host)
        return answer

    return ask


def _may_have_gpu(host: Host) -> bool:
    """Whether it is worth to start a tool that lists GPUs: Linux makes a device for every one that can be used."""
    return host.os != "linux" or not host.live or host.exists("/dev/dri") or host.exists("/dev/dxg")


def _read_disk(host: Host) -> _Disk:
    from fitcheck.probe.disk import read_disk

    free, evidence = read_disk(host)
    return _Disk(Found(evidence=evidence), free)


def _find_memory_speed(host: Host, cpu: Cpu, usable_bytes: int) -> Rate | None:
    """What the firmware tells root, else a measurement that takes a part of ``usable_bytes`` (0: do not measure)."""
    from fitcheck.probe.memory_speed import read_firmware_speed

    told = read_firmware_speed(host, cpu)
    if told is not None or not usable_bytes:
        return told
    from fitcheck.probe.bandwidth import measured_bandwidth

    return measured_bandwidth(host, cpu.threads, usable_bytes)


def _linux_version(host: Host) -> str | None:
    """``Debian GNU/Linux 12 (bookworm)`` and the kernel's release."""
    text = host.read_text("/etc/os-release", 8192) or host.read_text("/usr/lib/os-release", 8192) or ""
    names = [line.partition("=")[2].strip(" \"'") for line in text.splitlines() if line.startswith("PRETTY_NAME=")]
    kernel = (host.read_text("/proc/sys/kernel/osrelease", 256) or "").strip()
    return ", ".join([*names[:1], *([f"Linux {kernel}"] if kernel else [])]) or None


# --------------------------------------------------------------------------------------------------------------------
# Putting together


def _assemble(
    host: Host, system: _System, founds: dict[str, Found], disk: _Disk, failures: tuple[Problem, ...]
) -> Machine:
    everything = [system.found, *founds.values(), disk.found]
    cpu = next((found.cpu for found in everything if found.cpu is not None), None)
    ram = next((found.ram for found in everything if found.ram is not None), None)
    problems = failures + tuple(problem for found in everything for problem in found.problems)
    if host.os != "linux":
        cpu, ram, problems = _whole_of_other_system(host, cpu, ram, problems)
    return Machine(
        os=host.os,
        arch=host.arch,
        cpu=cpu or Cpu(name=host.arch or "unknown processor", physical_cores=1, logical_cpus=1),
        ram=ram or Pool(0, None, 0),
        accelerators=_accelerators(founds),
        limits=system.limits,
        os_version=next((found.os_version for found in everything if found.os_version), None),
        environment=system.environment or next((found.environment for found in everything if found.environment), None),
        disk_free_bytes=disk.free_bytes,
        problems=problems,
        evidence=tuple(item for found in everything for item in found.evidence),
    )


def _whole_of_other_system(
    host: Host, cpu: Cpu | None, ram: Pool | None, problems: tuple[Problem, ...]
) -> tuple[Cpu | None, Pool | None, tuple[Problem, ...]]:
    """Processor and memory of systems other than Linux, where their own probe did not find them."""
    if cpu is None:
        from fitcheck.probe.cpu import cpu_of_other_system

        cpu = cpu_of_other_system(host)
        if cpu is None:
            problems += (Problem("cpu", "the processor is not known", _REPORT_HINT),)
    if ram is None:
        from fitcheck.probe.ram import ram_of_other_system

        ram = ram_of_other_system(host)
        if ram is None:
            problems += (Problem("ram", "the size of memory is not known", "pass --ram, such as --ram 32GiB"),)
    return cpu, ram, problems


def _accelerators(founds: dict[str, Found]) -> tuple[Accelerator, ...]:
    """All accelerators, those that work and have memory of their own first, numbered anew. What NVIDIA's driver says
    replaces what the system says about NVIDIA's cards."""
    told = "nvidia" in founds and any(card.usable for card in founds["nvidia"].accelerators)
    cards = [
        card
        for part, found in founds.items()
        for card in found.accelerators
        if part == "nvidia" or not (told and card.vendor is Vendor.NVIDIA)
    ]
    cards.sort(key=lambda card: (not card.usable, card.unified))
    return tuple(replace(card, index=index) for index, card in enumerate(cards))


def _printable(machine: Machine) -> Machine:
    """The machine with every text fit for a terminal: names come from drivers, firmware and recordings of strangers."""
    cleaned = _cleaned(machine)
    assert isinstance(cleaned, Machine)
    return cleaned


def _cleaned(value: object) -> object:
    if type(value) is str:
        return value if value.isprintable() and len(value) <= _LONGEST_TEXT else clean(value, _LONGEST_TEXT)
    if isinstance(value, tuple):
        return tuple(_cleaned(item) for item in value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, Struct):
        return type(value)(*(_cleaned(getattr(value, name)) for name in value.__struct_fields__))
    return value
