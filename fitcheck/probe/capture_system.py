"""What system a capture was made on, where it does not say: from the files that it holds."""

from __future__ import annotations

import re

from fitcheck.probe.host import Host, clean, normal_arch

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


def guess_os(host: Host) -> str:
    """linux, darwin, windows, or another system's name."""
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


def guess_arch(host: Host) -> str:
    """x86_64, arm64, …; empty where nothing tells."""
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


def _arch_of_other_systems(host: Host) -> str:
    if host.os == "darwin":
        intel = "Intel" in (host.attached("sysctl.txt") or "")
        return "x86_64" if intel else "arm64"
    return "x86_64" if host.os == "windows" else ""
