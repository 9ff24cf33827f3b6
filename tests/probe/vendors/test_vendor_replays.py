"""The repository's own small captures of AMD, Intel, Apple and Windows machines, replayed as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.probe.capture import replay

CAPTURES = Path(__file__).parents[2] / "captures"

#: Capture -> processor, rows of its GPUs, their memory in GiB, GB/s of the first.
EXPECTED = {
    "amd-rx7900xtx": ("AMD Ryzen 7 7700 8-Core Processor", ["AMD Radeon RX 7900 XTX"], 23.98, 959.2),
    "amd-strix-halo": ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", ["AMD Radeon 8060S"], 64.5, 256.0),
    "amd-mi308x-partitioned": ("AMD EPYC 9654 96-Core Processor", ["AMD Instinct MI308X"] * 4, 48.0, 1331.2),
    "amd-rocm-smi": ("AMD Ryzen 5 5600X 6-Core Processor", ["AMD Radeon RX 6700 XT"], 11.98, 384.0),
    "intel-arc-b580": ("13th Gen Intel(R) Core(TM) i5-13600K", ["Intel Arc B580"], 11.75, 456.0),
    "intel-lunar-lake": ("Intel(R) Core(TM) Ultra 7 256V", ["Intel Arc 140V"], 46.49, 136.5),
    "mac-m4-max-32-cores": ("Apple M4 Max", ["Apple M4 Max 32-core"], 36.0, 410.0),
    "mac-linux-m1-pro": (None, ["Apple M1 Pro"], 61.99, 204.8),
    "windows-arc-b580": ("Intel(R) Core(TM) Ultra 7 265K", ["Intel Arc B580"], 11.94, 456.0),
    "windows-strix-halo": ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", ["AMD Radeon 8060S"], 19.6, 256.0),
    "vulkan-only": (None, ["AMD Radeon 780M"], 31.88, 102.4),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_capture_gives_the_machine_that_was_recorded(name: str) -> None:
    cpu, rows, gib, gbs = EXPECTED[name]
    machine = replay(CAPTURES / name)
    assert cpu is None or machine.cpu.name == cpu
    assert [card.catalog_name for card in machine.accelerators] == rows
    pool = machine.accelerators[0].pool
    assert pool.total_bytes / 1024**3 == pytest.approx(gib, abs=0.02)
    assert pool.bandwidth is not None and pool.bandwidth.per_s / 1e9 == pytest.approx(gbs, rel=0.001)
