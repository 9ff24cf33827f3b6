"""The measurement of memory: bounded in time and memory, and near what the hardware gives."""

from __future__ import annotations

import sys
import time

import pytest

from fitcheck.probe.bandwidth import last_level_cache, measure, measured_bandwidth, plan
from fitcheck.probe.capture import CaptureHost
from fitcheck.types import Origin

MIB = 1024**2


def _host(size: str) -> CaptureHost:
    folder = "/sys/devices/system/cpu/cpu0/cache"
    sizes = {f"{folder}/index0/size": b"48K\n", f"{folder}/index3/size": size.encode()}
    return CaptureHost({**sizes, f"{folder}/index3/shared_cpu_list": b"0-3\n"})


def test_buffers_are_larger_than_the_last_level_cache() -> None:
    planned = plan(_host("96M\n"), threads=4, free_bytes=64 * 1024 * MIB)
    assert planned is not None
    assert planned.threads * planned.buffer_bytes >= 192 * MIB
    assert planned.buffer_bytes % planned.chunk_bytes == 0


@pytest.mark.parametrize("size", ["", "999999999999G", "x", "260M"])
def test_buffers_are_bounded_whatever_the_cache_says(size: str) -> None:
    planned = plan(_host(size), threads=64, free_bytes=64 * 1024 * MIB)
    assert planned is not None
    assert planned.threads <= 32
    assert 32 * MIB <= planned.buffer_bytes <= 128 * MIB
    assert planned.buffer_bytes >= 4 * planned.chunk_bytes


def test_a_machine_short_of_memory_is_not_measured() -> None:
    assert plan(_host("8M"), threads=8, free_bytes=16 * MIB) is None


def test_cache_sizes_have_units_and_sharers() -> None:
    assert last_level_cache(_host("33792K\n")) == (33 * MIB, 4)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems report the speed of their memory")
def test_a_measurement_is_quick_and_plausible() -> None:
    planned = plan(_host("8M"), threads=1, free_bytes=8 * 1024 * MIB)
    assert planned is not None
    start = time.monotonic()
    per_s = measure(planned)
    assert time.monotonic() - start < 3.0
    assert per_s is not None
    assert 0.5e9 < per_s < 200e9  # one core


@pytest.mark.parametrize(
    ("answer", "expected"), [({"bytes_per_s": 25e9}, 25e9), ({"bytes_per_s": 1e30}, None), ({}, None), ([1], None)]
)
def test_a_measurement_is_replayed_and_believed_within_reason(answer: object, expected: float | None) -> None:
    host = CaptureHost({}, queries={"bandwidth 2 33554432 1048576": answer})
    rate = measured_bandwidth(host, threads=2, usable_bytes=8 * 1024 * MIB)
    assert (rate.per_s if rate else None) == expected
    assert rate is None or rate.origin is Origin.MEASURED
