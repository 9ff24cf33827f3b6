"""Memory: what counts as usable, and how fast its modules are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.probe.capture import CaptureHost, replay
from fitcheck.probe.memory_speed import read_module_speed, speed_of_modules
from fitcheck.types import Cpu, Origin
from fitcheck.units import GIB, KIB, MIB

CAPTURES = Path(__file__).parents[2] / "captures"


def test_the_cache_of_zfs_is_free_and_huge_pages_and_swap_are_not_usable() -> None:
    ram = replay(CAPTURES / "zfs-huge-pages").ram
    assert ram.total_bytes == 16_000_000 * KIB
    assert ram.free_bytes == 4_000_000 * KIB + 7 * GIB  # MemAvailable, and ZFS' cache above its minimum
    assert ram.usable_bytes == min(ram.free_bytes, ram.total_bytes - 1000 * 2 * MIB)


def test_kernels_without_memavailable_count_their_caches() -> None:
    ram = replay(CAPTURES / "kernel-before-3.14").ram
    assert ram.free_bytes == (1_000_000 + 100_000 + 50_000 + 500_000 - 20_000) * KIB


def test_memory_of_a_gpu_that_is_a_numa_node_belongs_to_the_gpu() -> None:
    machine = replay(CAPTURES / "gh200")
    assert machine.ram.total_bytes == 600_000_000 * KIB  # as the system reports it
    assert machine.ram.usable_bytes == 500_000_000 * KIB  # node 1 is the GPU's
    assert machine.accelerators[0].pool.total_bytes == 102625181696
    assert not machine.accelerators[0].unified


@pytest.mark.parametrize(
    ("slug", "gigabytes_per_s"),
    [
        ("desktop-hybrid-rtx4090", 83.2),  # two DDR5-5200 modules of four slots, configured below their rated 5600
        ("desktop-four-modules", 51.2),  # four DDR4-3200 modules on two channels
        ("laptop-soldered-memory", 102.4),  # eight 16-bit parts of LPDDR5-6400
        ("server-two-sockets", 409.6 * 0.6),  # a process reaches 1.2 times one socket's eight channels
    ],
)
def test_module_speed_gives_bandwidth(slug: str, gigabytes_per_s: float) -> None:
    rate = replay(CAPTURES / slug).ram.bandwidth
    assert rate is not None
    assert rate.origin is Origin.REPORTED
    assert rate.per_s == pytest.approx(gigabytes_per_s * 1e9)


def test_four_modules_without_channel_labels_sit_on_two_channels() -> None:
    lines = "".join(f"E:MEMORY_DEVICE_{i}_SPEED_MTS=3200\nE:MEMORY_DEVICE_{i}_LOCATOR=Slot {i}\n" for i in range(4))
    rate = read_module_speed(CaptureHost({"/run/udev/data/+dmi:id": lines.encode()}))
    assert rate is not None
    assert rate.per_s == 2 * 8 * 3200e6


@pytest.mark.parametrize("text", ["", "E:MEMORY_DEVICE_0_SPEED_MTS=999999999\n", "E:MEMORY_DEVICE_0_PRESENT=0\n"])
def test_slots_without_a_believable_speed_give_no_bandwidth(text: str) -> None:
    assert read_module_speed(CaptureHost({"/run/udev/data/+dmi:id": text.encode()})) is None


def test_boards_with_soldered_memory_take_their_speed_from_the_table() -> None:
    rate = replay(CAPTURES / "raspberry-pi-5").ram.bandwidth
    assert rate is not None
    assert rate.origin is Origin.CATALOG
    assert rate.per_s == pytest.approx(17.07e9, rel=0.01)


def test_an_assumed_speed_comes_with_a_problem_that_says_so() -> None:
    machine = replay(CAPTURES / "container-cgroup2")
    assert machine.ram.bandwidth is not None
    assert machine.ram.bandwidth.origin is Origin.ASSUMED
    assert any("assumed" in problem.message and "--bandwidth" in problem.hint for problem in machine.problems)


def test_a_size_without_unit_is_in_bytes() -> None:
    from fitcheck.probe import probe

    machine = probe(CaptureHost({"/proc/meminfo": b"MemTotal:       15908761600\nSwapTotal: 1"}), bandwidth=False)
    assert machine.ram.total_bytes == 15908761600


def _modules(places: list[tuple[str, str]], speed: int = 1600) -> dict[str, str]:
    properties = {}
    for number, (bank, place) in enumerate(places):
        prefix = f"MEMORY_DEVICE_{number}_"
        properties[f"{prefix}BANK_LOCATOR"], properties[f"{prefix}LOCATOR"] = bank, place.rstrip("-")
        properties[f"{prefix}SPEED_MTS"] = "0" if place.endswith("-") else str(speed)
    return properties


@pytest.mark.parametrize(
    ("places", "bits"),
    [
        ([("BANK 0", "DIMM_A1"), ("BANK 1", "DIMM_A2"), ("BANK 2", "DIMM_B1"), ("BANK 3", "DIMM_B2")], 128),
        ([("", f"DIMM_{socket}{slot}" + ("" if slot < 5 else "-")) for socket in "AB" for slot in range(1, 13)], 512),
        ([("P0 CHANNEL A", "DIMM 0"), ("P0 CHANNEL A", "DIMM 1")], 64),
        ([("P0 CHANNEL A", "DIMM 0"), ("P1 CHANNEL A", "DIMM 0")], 128),
        ([("Controller0-ChannelA", "x"), ("Controller1-ChannelA", "x")], 128),
        ([("", "")], 64),
    ],
)
def test_labels_tell_channels(places: list[tuple[str, str]], bits: int) -> None:
    rate = speed_of_modules(_modules(places), "test")
    assert rate is not None
    assert rate.per_s == bits / 8 * 1600e6


def test_a_processor_has_no_more_channels_than_its_platform() -> None:
    places = [("", f"CPU0 CHANNEL {letter}") for letter in "ABCDEFGHIJKL"]
    cpu = Cpu("AMD EPYC 7301 16-Core Processor", 16, 32)  # eight channels
    rate = speed_of_modules(_modules(places, 2666), "test", cpu)
    assert rate is not None
    assert rate.per_s == 8 * 8 * 2666e6


def test_what_only_root_may_read_is_read_where_it_can_be() -> None:
    from fitcheck.probe import probe

    files = {"/proc/meminfo": b"MemTotal: 16000000 kB\n", "/proc/cpuinfo": b"processor : 0\nmodel name : X\n"}
    host = CaptureHost(files, queries={"modules": _modules([("", "DIMM_A1"), ("", "DIMM_B1")], 6000)})
    rate = probe(host, bandwidth=False).ram.bandwidth
    assert rate is not None
    assert (rate.per_s, rate.origin) == (96e9, Origin.REPORTED)
