"""How fast memory is: by its modules, by the tables, and what one process reaches of it on several sockets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from fitcheck.probe.host import Host, clean, to_int
from fitcheck.types import Cpu, Machine, Origin, Pool, Problem, Rate, Vendor

if TYPE_CHECKING:
    from fitcheck.probe.hardware import CpuRow

_DMI_PROPERTIES = "/run/udev/data/+dmi:id"
_DIMM_BITS = 64  # ECC bits not counted
_DESKTOP_BITS = 128
_MOST_SLOTS_PER_CHANNEL = 3
_MOST_MODULES = 256
_FASTEST_MTS = 20_000
_SECOND_SOCKET_GAIN = 0.2  # of one socket's bandwidth, for a process that is not spread over sockets by hand
_WITH_MEMORY = (Vendor.NVIDIA, Vendor.APPLE)  # whose chips with a built-in GPU are sold with their memory
_SOLDERED = ("soc", "sbc", "embedded")  # kinds of cpus.json whose memory is not the owner's choice
_FIRMWARE_TABLE = "/sys/firmware/dmi/tables/DMI"
_FIRMWARE_ENTRIES = "/sys/firmware/dmi/entries"


def read_module_speed(host: Host, cpu: Cpu | None = None) -> Rate | None:
    """Peak bandwidth of the memory modules, in bytes/s, as the firmware reports them to udev (248 and later); None in
    virtual machines and containers."""
    return speed_of_modules(_dmi_properties(host.read_text(_DMI_PROPERTIES) or ""), "udev dmi", cpu)


def read_firmware_speed(host: Host, cpu: Cpu | None = None) -> Rate | None:
    """The same from the firmware's own table, which only root may read."""
    table = host.query("modules")
    return speed_of_modules(table if isinstance(table, dict) else _modules_of_entries(host), "SMBIOS", cpu)


def query_modules() -> dict[str, str] | None:
    """The firmware's list of memory modules under udev's names, without serial numbers; only root may read it."""
    from pathlib import Path

    from fitcheck.probe.windows_calls import memory_modules

    table = Path(_FIRMWARE_TABLE)
    return memory_modules(table.read_bytes()[:262144]) if table.exists() else None


def _modules_of_entries(host: Host) -> dict[str, str]:
    """The same list from the entries of the table one by one, as recordings hold them."""
    from fitcheck.probe.windows_calls import memory_modules

    if host.live:
        return {}
    names = (name for name in host.list_dir(_FIRMWARE_ENTRIES)[:2048] if name.startswith("17-"))
    entries = (host.read_bytes(f"{_FIRMWARE_ENTRIES}/{name}/raw", 1024) or b"" for name in sorted(names, key=len))
    return memory_modules(b"".join(entries))


def speed_of_modules(properties: dict[str, str], source: str, cpu: Cpu | None = None) -> Rate | None:
    """Peak bandwidth of modules described under udev's names (MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS, …), no more
    channels than ``cpu`` has."""
    described = [_Module.of(properties, number) for number in range(min(len(properties), _MOST_MODULES))]
    filled = [module for module in described if module.speed_mts]
    if not filled:
        return None
    speed = min(module.speed_mts for module in filled)
    width = _bus_bits(described)
    if cpu is not None and width > _DESKTOP_BITS:
        width = min(width, _most_bits(cpu) or width)
    return Rate(
        per_s=width / 8 * speed * 1e6,
        origin=Origin.REPORTED,
        source=f"{source}: {len(filled)} modules {filled[0].kind} {speed} MT/s, bus {width} bit".replace("  ", " "),
    )


def _dmi_properties(text: str) -> dict[str, str]:
    lines = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:MEMORY_"))
    return {name: value for name, _, value in lines}


class _Module(Struct, frozen=True):
    """A slot. ``speed_mts`` is 0 where it is empty or does not tell; ``controller``, ``channel`` and ``slot`` are what
    its labels say, "" where they do not."""

    speed_mts: int
    bits: int
    kind: str
    controller: str
    channel: str
    slot: str

    @classmethod
    def of(cls, properties: dict[str, str], number: int) -> _Module:
        def field(name: str) -> str:
            return str(properties.get(f"MEMORY_DEVICE_{number}_{name}", ""))[:200]

        speed = to_int(field("CONFIGURED_SPEED_MTS")) or to_int(field("SPEED_MTS")) or 0
        absent = field("PRESENT") == "0" or speed > _FASTEST_MTS
        labels = f"{field('BANK_LOCATOR')} {field('LOCATOR')}"
        channel, slot = _CHANNEL.search(labels), _SLOT.search(labels)
        controller = _CONTROLLER.search(labels)
        return cls(
            speed_mts=0 if absent else speed,
            bits=min(to_int(field("DATA_WIDTH")) or _DIMM_BITS, 128),
            kind=clean(field("TYPE"), 12),
            controller=controller[1] if controller else "",
            channel=(channel[1] if channel else slot[1] if slot else "").upper(),
            slot=slot[2] if slot and not channel else "",
        )


_CONTROLLER = re.compile(r"(?:controller|\bmc|node|\bP|cpu|proc)[ _-]?(\d+)", re.IGNORECASE)
_CHANNEL = re.compile(r"(?:channel|chan|\bch)[ _-]?([A-Z]|\d+)", re.IGNORECASE)
_SLOT = re.compile(r"(?:dimm|ddr\d?)[ _-]?([A-Z])[ _-]?(\d+)", re.IGNORECASE)


def _bus_bits(modules: list[_Module]) -> int:
    """Width of all channels together. Modules of one channel share its wires; soldered parts, which are narrower than a
    channel, each bring their own.

    ``DIMM_A1`` is channel A, slot 1 on a desktop; where a letter has more than three slots it is a socket, whose first
    slots are on different channels.
    """
    filled = [module for module in modules if module.speed_mts]
    narrow = sum(module.bits for module in filled if module.bits < _DIMM_BITS)
    wide = [module for module in filled if module.bits >= _DIMM_BITS]
    if len(wide) > 2 and not any(module.channel for module in wide):
        return _DESKTOP_BITS + narrow  # unlabelled slots: a desktop's four modules sit on two channels
    letter_is_socket = any((to_int(module.slot) or 0) > _MOST_SLOTS_PER_CHANNEL for module in modules)
    channels = {
        (module.controller, module.channel or str(number), module.slot if letter_is_socket else "")
        for number, module in enumerate(wide)
    }
    return len(channels) * _DIMM_BITS + narrow


def _most_bits(cpu: Cpu) -> int | None:
    """Width of all memory channels of the processors, None if they are not in the table."""
    from fitcheck.probe.hardware import find_cpu

    processor = find_cpu(cpu.name)
    return processor.row.channels * processor.row.channel_bits * cpu.sockets if processor else None


def tabled_bandwidth(machine: Machine) -> Rate | None:
    """Peak bandwidth by the tables, in bytes/s: that of a GPU which comes with this memory, or the processor's with
    every channel filled, which is an assumption where modules can be exchanged."""
    shared = [card.pool.bandwidth for card in machine.accelerators if card.unified and card.vendor in _WITH_MEMORY]
    shared += [card.pool.bandwidth for card in machine.accelerators if card.unified and _is_reported(card.pool)]
    from_gpu = next((rate for rate in shared if rate is not None), None)
    if from_gpu is not None:
        return Rate(from_gpu.per_s, from_gpu.origin, f"shared with the GPU: {from_gpu.source}")
    from fitcheck.probe.hardware import find_cpu

    processor = find_cpu(machine.cpu.name)
    if processor is None:
        return None
    return platform_bandwidth(processor.row, _sockets_with_memory(machine.cpu))


def platform_bandwidth(row: CpuRow, sockets: int) -> Rate:
    """Peak of all sockets of a platform of cpus.json, every channel filled: an assumption unless it is soldered."""
    origin = Origin.CATALOG if row.kind in _SOLDERED else Origin.ASSUMED
    source = f"{row.name}: {row.channels} channels of {row.memory_type} at {row.rate_mts} MT/s, all filled"
    return Rate(row.bandwidth_per_s * sockets, origin, source)


def _is_reported(pool: Pool) -> bool:
    return pool.bandwidth is not None and pool.bandwidth.origin is Origin.REPORTED


def speed_problem(rate: Rate | None) -> Problem | None:
    """What to tell about a speed that is not known, or only assumed."""
    if rate is None:
        return Problem("ram", "the speed of memory is not known", "pass --bandwidth, such as --bandwidth 50GB/s")
    if rate.origin is not Origin.ASSUMED:
        return None
    hint = "pass --bandwidth if modules are fewer or slower, or run fitcheck calibrate"
    return Problem("ram", f"the speed of memory is assumed: {rate.source}", hint)


def for_one_process(rate: Rate, cpu: Cpu) -> Rate:
    """What one process reaches of the bandwidth of all sockets: little more than one socket's."""
    sockets = _sockets_with_memory(cpu)
    if sockets == 1:
        return rate
    share = (1 + _SECOND_SOCKET_GAIN) / sockets
    return Rate(rate.per_s * share, rate.origin, f"{rate.source}; one process on {sockets} sockets reaches {share:.0%}")


def _sockets_with_memory(cpu: Cpu) -> int:
    """Sockets of virtual machines are fiction unless they have NUMA nodes to go with them."""
    return max(1, min(cpu.sockets, cpu.numa_nodes))
