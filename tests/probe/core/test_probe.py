"""The probe as a whole: parts that fail, hang or lie neither stop nor delay it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from fitcheck.output import wire
from fitcheck.probe import begin, probe
from fitcheck.probe.capture import CaptureHost, replay
from fitcheck.probe.host import LiveHost, clean, parse_cpu_list, to_int

CAPTURES = Path(__file__).parents[2] / "captures"


class _BrokenHost(CaptureHost):
    """Answers the first questions, then fails as no host should."""

    def query(self, name: str, *args: str) -> object | None:
        raise RuntimeError("driver \x1b[31mcrashed\x07")


class _HungHost(CaptureHost):
    """Its driver never answers."""

    def query(self, name: str, *args: str) -> object | None:
        threading.Event().wait(5)
        return None

    def run(self, args: Sequence[str], timeout_s: float = 1.5) -> str | None:
        threading.Event().wait(5)
        return None


def test_a_part_that_fails_becomes_a_problem() -> None:
    machine = probe(_BrokenHost({"/proc/meminfo": b"MemTotal: 1024 kB\n"}), bandwidth=False)
    assert machine.ram.total_bytes == 1024 * 1024
    failed = [problem for problem in machine.problems if "probe failed" in problem.message]
    assert {"nvidia", "disk"} <= {problem.part for problem in failed}
    assert all("--capture" in problem.hint and "\x1b" not in problem.message for problem in failed)


def test_a_driver_that_hangs_costs_the_deadline_and_no_more() -> None:
    start = time.monotonic()
    machine = probe(_HungHost({"/proc/meminfo": b"MemTotal: 1024 kB\n"}), deadline_s=0.3, bandwidth=False)
    assert time.monotonic() - start < 3.0  # the driver would take five
    assert machine.ram.total_bytes == 1024 * 1024
    assert any(problem.part == "nvidia" and "in time" in problem.message for problem in machine.problems)


def test_names_cannot_write_to_the_terminal() -> None:
    machine = replay(CAPTURES / "hostile-names")
    text = wire.encode_machine(machine).decode() if hasattr(wire, "encode_machine") else repr(machine)
    for sign in ("\x1b", "\\u001b", "\x07", "\u202e"):
        assert sign not in text
    assert len(machine.cpu.name) <= 200
    assert machine.ram.total_bytes == 0


def test_probing_starts_in_the_background() -> None:
    start = time.monotonic()
    probing = begin(_HungHost({}), deadline_s=1.5, bandwidth=False)
    assert time.monotonic() - start < 1.0
    assert probing.finish().problems


def test_this_machine_is_seen() -> None:
    machine = probe(LiveHost(), bandwidth=False)
    assert machine.ram.total_bytes > 100 * 1024**2
    assert machine.cpu.physical_cores >= 1
    assert 1 <= machine.cpu.threads <= machine.cpu.logical_cpus
    assert machine.disk_free_bytes


@pytest.mark.parametrize(
    ("text", "number"), [("12\n", 12), (" 7\0", 7), ("-1", None), ("9" * 5000, None), ("1e3", None), ("", None)]
)
def test_numbers_are_whole_and_bounded(text: str, number: int | None) -> None:
    assert to_int(text) == number


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-2,5\n", (0, 1, 2, 5)), ("", ()), (None, ()), ("0-99999999", ()), ("3-1,x,2", (2,)), ("4,4", (4,))],
)
def test_lists_of_processors(text: str | None, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_cleaning_keeps_one_printable_line() -> None:
    assert clean("a\x1b[1mb\n\tc\u202e" + "d" * 999, 20) == "a [1mb c dddddddddddd"[:20]


def test_the_driver_of_a_card_replaces_what_windows_says_about_it() -> None:
    from fitcheck.probe import _accelerators
    from fitcheck.probe.host import Found
    from fitcheck.types import Accelerator, Pool, Vendor

    def card(name: str, vendor: Vendor, usable: bool = True) -> Accelerator:
        return Accelerator(0, name, vendor, Pool(1, 1, 1), usable=usable)

    by_windows = Found((card("by windows", Vendor.NVIDIA), card("Radeon", Vendor.AMD)))
    merged = _accelerators({"windows": by_windows, "nvidia": Found((card("by driver", Vendor.NVIDIA),))})
    assert [(found.index, found.name) for found in merged] == [(0, "Radeon"), (1, "by driver")]
    alone = _accelerators({"windows": by_windows, "nvidia": Found()})
    assert [found.name for found in alone] == ["by windows", "Radeon"]
