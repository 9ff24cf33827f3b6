"""The processor of a Linux machine: name, cores, sockets, and the instruction sets that matter to inference."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from msgspec import Struct

from fitcheck.probe.host import MIB, Found, Host, clean, parse_cpu_list, to_int
from fitcheck.probe.limits import Confinement
from fitcheck.types import Cpu, Evidence, Problem

_CPUS = "/sys/devices/system/cpu"
_NODES = "/sys/devices/system/node"
_MOST_CPUS = 8192

#: Flags of /proc/cpuinfo that change how fast an engine computes, by architecture.
_FEATURES = {
    "x86": (
        "sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl",
        "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx10_1", "amx_tile", "amx_int8", "amx_bf16",
        "amx_fp16", "hypervisor",
    ),
    "arm": ("neon", "asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme", "sme2"),
    "other": ("altivec", "vsx", "mma", "vx", "vxe", "vxe2", "nnpa", "lsx", "lasx", "msa"),
}  # fmt: skip

#: Where /proc/cpuinfo names the processor or the board, best first; spellings differ between architectures.
_NAME_FIELDS = ("model name", "Model Name", "Model", "Hardware", "cpu model", "cpu", "uarch")

#: Below this share of the fastest core's capacity a core is an efficiency core, and below the second one it only
#: slows down a calculation that waits for every thread.
_PERFORMANCE_SHARE = 0.75
_WORTH_A_THREAD = 0.5
_EFFICIENCY_CORE = 0.45  # assumed for Intel, whose kernel interface gives no capacities


class Core(Struct, frozen=True):
    """One physical core: its logical CPUs, its package, and its speed as a share of the fastest core's."""

    cpus: tuple[int, ...]
    package: int = 0
    speed: float = 1.0


class _Facts(Struct, frozen=True):
    """What /proc/cpuinfo says: one dict per processor, and what stands outside of processors."""

    processors: tuple[dict[str, str], ...]
    machine: dict[str, str]


def read_cpu(host: Host, confinement: Confinement) -> Found:
    """The processor as ``Found.cpu``; a problem where nothing describes it."""
    cores = _cores_of_topology(host)
    facts = _cpuinfo(host, whole=not (cores and host.arch in ("x86_64", "x86")))
    cores = _with_speeds(host, cores or _cores_of_lscpu(host, facts) or _cores_of_cpuinfo(facts))
    name, source = _name(host, facts, cores)
    problems = []
    if not name:
        name, source = host.arch or "unknown processor", "architecture"
        problems.append(Problem("cpu", "the processor does not say its name", "attach /proc/cpuinfo to a report"))
    if not cores:
        cores = (Core((0,)),)
        problems.append(Problem("cpu", "the number of cores is not known; one is assumed", "is /proc mounted?"))
    nodes = _numa_nodes(host)
    cpu = Cpu(
        name=name,
        physical_cores=len(cores),
        logical_cpus=sum(len(core.cpus) for core in cores),
        performance_cores=_performance_cores(cores),
        sockets=_sockets(host, cores),
        numa_nodes=nodes,
        features=_features(host.arch, facts),
        threads=_threads(cores, confinement),
    )
    return Found(cpu=cpu, problems=tuple(problems), evidence=tuple(_evidence(host, cpu, source)))


def query_cores() -> dict[str, object]:
    """Name and core counts from psutil and the platform module, for systems without a probe of their own."""
    import platform

    import psutil

    return {
        "name": platform.processor(),
        "physical": psutil.cpu_count(logical=False),
        "logical": psutil.cpu_count(logical=True),
    }


def cpu_of_other_system(host: Host) -> Cpu | None:
    """The processor where neither Linux nor a system's own probe tells (the BSDs, Solaris, …)."""
    answer = host.query("cores")
    known = answer if isinstance(answer, dict) else {}
    physical, logical = to_int(known.get("physical")), to_int(known.get("logical"))
    name = clean(str(known.get("name") or _name_in_boot_messages(host)))
    if not name and not physical:
        return None
    cores = physical or logical or 1
    return Cpu(name=name or host.arch, physical_cores=cores, logical_cpus=logical or cores, threads=cores)


# --------------------------------------------------------------------------------------------------------------------
# Cores


def _cores_of_topology(host: Host) -> tuple[Core, ...]:
    """Physical cores from the sets of sibling CPUs: core ids repeat per cluster on Arm and on old AMD servers."""
    online = parse_cpu_list(host.read_text(f"{_CPUS}/online", 4096), _MOST_CPUS)
    cores: dict[tuple[int, ...], Core] = {}
    seen: set[int] = set()
    for number in online or _listed_cpus(host):
        if number in seen:
            continue
        folder = f"{_CPUS}/cpu{number}/topology"
        siblings = host.read_text(f"{folder}/core_cpus_list", 4096) or host.read_text(
            f"{folder}/thread_siblings_list", 4096
        )
        if siblings is None:
            continue
        package = to_int(host.read_text(f"{folder}/physical_package_id", 64))
        cpus = tuple(cpu for cpu in parse_cpu_list(siblings, _MOST_CPUS) if not online or cpu in online)
        if number not in cpus or (package is None and to_int(host.read_text(f"{folder}/core_id", 64)) is None):
            cpus = (number,)  # without ids (-1) the kernel knows no topology and calls all CPUs siblings
        seen.update(cpus)
        cores[cpus] = Core(cpus, package or 0)
    return tuple(cores.values())


def _listed_cpus(host: Host) -> tuple[int, ...]:
    names = (re.fullmatch(r"cpu(\d{1,5})", name) for name in host.list_dir(_CPUS))
    return tuple(sorted(int(match[1]) for match in names if match))


def _cores_of_cpuinfo(facts: _Facts) -> tuple[Core, ...]:
    """Physical cores from package and core ids; one core per processor where there are none (Arm)."""
    groups: dict[tuple[str, str], list[int]] = {}
    for position, processor in enumerate(facts.processors):
        number = to_int(processor.get("processor"))
        package = processor.get("physical id", processor.get("package", "0"))
        core = processor.get("core id", processor.get("core", f"alone {position}"))
        groups.setdefault((package, core), []).append(position if number is None else number)
    return tuple(Core(tuple(cpus), to_int(package) or 0) for (package, _), cpus in groups.items())


def _cores_of_lscpu(host: Host, facts: _Facts) -> tuple[Core, ...]:
    """Physical cores by ``lscpu``, where a recording holds it beside a shortened or wordless /proc/cpuinfo."""
    if host.arch.startswith("riscv") or any("core id" in processor for processor in facts.processors[1:]):
        return ()  # on RISC-V lscpu takes a missing topology for hardware threads
    names = ("Thread(s) per core", "Core(s) per socket", "Socket(s)")
    text = host.attached("lscpu.txt") or ""
    found = (re.search(rf"^{re.escape(name)}:\s*(\d{{1,4}})\s*$", text, re.MULTILINE) for name in names)
    threads, per_socket, sockets = (int(match[1]) if match else 0 for match in found)
    count = per_socket * sockets
    if not 0 < count * threads <= _MOST_CPUS:
        return ()
    return tuple(Core(tuple(range(i * threads, (i + 1) * threads)), i // per_socket) for i in range(count))


def _with_speeds(host: Host, cores: tuple[Core, ...]) -> tuple[Core, ...]:
    """The cores with their speeds: from the kernel's capacities (Arm) or its lists of core types (Intel); else, where
    some cores have two threads and some one, the latter are efficiency cores."""
    efficient = set(parse_cpu_list(host.read_text("/sys/devices/cpu_atom/cpus", 4096)))
    if efficient:
        return tuple(_at(core, _EFFICIENCY_CORE if efficient.intersection(core.cpus) else 1.0) for core in cores)
    if host.arch.startswith("arm"):
        capacity = [to_int(host.read_text(f"{_CPUS}/cpu{core.cpus[0]}/cpu_capacity", 64)) for core in cores]
        known = [value for value in capacity if value]
        if known and len(known) == len(cores):
            return tuple(_at(core, (value or 0) / max(known)) for core, value in zip(cores, capacity, strict=True))
        return cores
    threads = {len(core.cpus) for core in cores}
    if threads == {1, 2} and host.arch == "x86_64" and len({core.package for core in cores}) == 1:
        return tuple(_at(core, 1.0 if len(core.cpus) == 2 else _EFFICIENCY_CORE) for core in cores)
    return cores


def _at(core: Core, speed: float) -> Core:
    return Core(core.cpus, core.package, speed)


def _performance_cores(cores: tuple[Core, ...]) -> int | None:
    """How many cores are performance cores; None where all are alike."""
    fast = sum(core.speed >= _PERFORMANCE_SHARE for core in cores)
    return fast if 0 < fast < len(cores) else None


def _sockets(host: Host, cores: tuple[Core, ...]) -> int:
    """Packages; older kernels on Arm number clusters of unlike cores as if they were packages."""
    unlike = host.arch.startswith("arm") and len({core.speed for core in cores}) > 1
    return 1 if unlike else len({core.package for core in cores})


def _threads(cores: tuple[Core, ...], confinement: Confinement) -> int:
    """How many threads an engine should use: one per core that is fast enough, of those that this process may use."""
    allowed = confinement.cpus
    reachable = [core for core in cores if allowed is None or not set(allowed).isdisjoint(core.cpus)] or list(cores)
    fast = [core for core in reachable if core.speed >= _WORTH_A_THREAD] or reachable
    quota = confinement.limits.cpus
    return max(1, min(len(fast), math.ceil(quota) if quota else len(fast)))


def _numa_nodes(host: Host) -> int:
    """NUMA nodes that have CPUs; memory-only nodes (GPU, CXL, HBM) are not counted."""
    names = (re.fullmatch(r"node(\d{1,4})", name) for name in host.list_dir(_NODES))
    lists = (host.read_text(f"{_NODES}/{match[0]}/cpulist", 4096) for match in names if match)
    return max(1, sum(1 for text in lists if parse_cpu_list(text)))


# --------------------------------------------------------------------------------------------------------------------
# /proc/cpuinfo


def _cpuinfo(host: Host, whole: bool) -> _Facts:
    """Parse /proc/cpuinfo. On x86 every processor repeats 4 KiB, and the kernel asks each core for its clock to print
    it: the first block is enough where the topology is known."""
    text = host.read_text("/proc/cpuinfo", 4 * MIB if whole else 16384) or ""
    processors: list[dict[str, str]] = []
    machine: dict[str, str] = {}
    current = machine
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon:
            continue
        if key == "processor" and len(processors) < _MOST_CPUS:
            processors.append({})
            current = processors[-1]
        elif re.fullmatch(r"processor \d+", key):  # s390x: all fields in one line
            processors.append({})
            key, value = "identity", value.strip()
            current = processors[-1]
        elif key in ("Hardware", "Model", "Revision", "Serial", "platform", "machine", "motherboard", "timebase"):
            current = machine
        current.setdefault(key, value.strip(" \t\0"))
    return _Facts(tuple(processors), machine)


def _name(host: Host, facts: _Facts, cores: tuple[Core, ...]) -> tuple[str, str]:
    """The processor's name and where it stands. Arm has no names: the kernel gives part numbers."""
    first = facts.processors[0] if facts.processors else {}
    for field in _NAME_FIELDS:
        name = clean(first.get(field) or facts.machine.get(field) or "")
        if name and not name.isdigit():
            return name, f"/proc/cpuinfo: {field}"
    parts = _arm_parts(facts, cores)
    board = clean((host.read_text("/proc/device-tree/model", 256) or "").rstrip("\0"))
    if parts:
        return (f"{board}: {parts}" if board else parts), "/proc/cpuinfo: CPU part"
    if board:
        return board, "/proc/device-tree/model"
    listed = re.search(r"^Model name:\s*(\S.*)$", host.attached("lscpu.txt") or "", re.MULTILINE)
    if listed:
        return clean(listed[1]), "lscpu"
    return _name_by_numbers(first, facts.machine), "/proc/cpuinfo"


def _name_by_numbers(processor: dict[str, str], machine: dict[str, str]) -> str:
    """A makeshift name: maker with family and model (some virtual machines), ISA (RISC-V), machine type (s390x)."""
    vendor = machine.get("vendor_id") or processor.get("vendor_id") or ""
    identity = re.search(r"machine = (\w+)", processor.get("identity", ""))
    if identity:
        return clean(f"{vendor} {identity[1]}")
    if "cpu family" in processor:
        return clean(f"{vendor} family {processor['cpu family']} model {processor.get('model', '?')}")
    if "isa" in processor:
        return clean(f"RISC-V {processor['isa'].partition('_')[0]}")
    return clean(vendor)


def _arm_parts(facts: _Facts, cores: tuple[Core, ...]) -> str:
    """``Neoverse-N1``, or ``10x Cortex-X925 + 10x Cortex-A725`` with the fastest first."""
    speeds = {cpu: core.speed for core in cores for cpu in core.cpus}
    counts: dict[tuple[str, str], int] = {}
    fastest: dict[tuple[str, str], float] = {}
    for position, processor in enumerate(facts.processors):
        part = processor.get("CPU part")
        if part is None:
            continue
        key = (processor.get("CPU implementer", ""), part)
        counts[key] = counts.get(key, 0) + 1
        number = to_int(processor.get("processor"))
        fastest[key] = max(fastest.get(key, 0.0), speeds.get(position if number is None else number, 1.0))
    if not counts:
        return ""
    table = _arm_part_names()
    order = sorted(counts, key=lambda key: -fastest[key])
    names = [_arm_part(table, *key) for key in order]
    if len(names) == 1:
        return names[0]
    return clean(" + ".join(f"{counts[key]}x {name}" for key, name in zip(order, names, strict=True)))


def _arm_part(table: dict[str, dict[str, str]], implementer: str, part: str) -> str:
    known = table.get(implementer.lower(), {})
    maker = known.get("name", f"implementer {clean(implementer, 12)}")
    name = known.get(part.lower(), f"part {clean(part, 12)}")
    return name if maker in ("Arm", "Ampere") and part.lower() in known else f"{maker} {name}"


def _arm_part_names() -> dict[str, dict[str, str]]:
    import json
    from pathlib import Path

    table: dict[str, dict[str, dict[str, str]]] = json.loads(
        (Path(__file__).parent.parent / "data" / "arm_parts.json").read_text("utf-8")
    )
    return table["parts"]


def _features(arch: str, facts: _Facts) -> tuple[str, ...]:
    first = facts.processors[0] if facts.processors else {}
    words: set[str] = set()
    for field in ("flags", "Features", "features", "Features ", "ASEs implemented", "cpu"):
        words.update(first.get(field, facts.machine.get(field, "")).replace(",", " ").split())
    family = "x86" if arch.startswith("x86") else "arm" if arch.startswith("arm") else "other"
    found = tuple(name for name in _FEATURES[family] if name in words)
    vector = re.match(r"rv\d+[a-z]*v", first.get("isa", ""))
    return (*found, "rvv") if vector else found


def _name_in_boot_messages(host: Host) -> str:
    """``CPU: …`` in the messages of a BSD, ``brand`` in Solaris' kstat, ``CPU #0: "…"`` in Haiku's sysinfo."""
    for command, sign in (
        ("dmesg", r"^CPU: (.+)$"),
        ("kstat", r"^\s*brand\s+(\S.*)$"),
        ("sysinfo", r'^CPU #0: "(.+?)"'),
    ):
        match = re.search(sign, host.run((command,)) or "", re.MULTILINE)
        if match:
            return re.sub(r"\([\d.]+-MHz .*?\)", "", match[1])
    return ""


def _evidence(host: Host, cpu: Cpu, source: str) -> Iterable[Evidence]:
    yield Evidence("cpu.name", cpu.name, source)
    yield Evidence("cpu.cores", f"{cpu.physical_cores} cores, {cpu.logical_cpus} threads", f"{_CPUS}/*/topology")
    if cpu.performance_cores is not None:
        yield Evidence("cpu.performance_cores", str(cpu.performance_cores), "cpu_core, cpu_capacity or siblings")
    product = clean(host.read_text("/sys/class/dmi/id/product_name", 128) or "")
    if product:
        yield Evidence("machine.product", product, "/sys/class/dmi/id/product_name")
