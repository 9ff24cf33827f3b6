"""Processors are named and counted as they are, on every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.probe.capture import CaptureHost, replay

CAPTURES = Path(__file__).parents[2] / "captures"


@pytest.mark.parametrize(
    ("slug", "name", "cores", "logical", "performance", "threads"),
    [
        ("desktop-hybrid-rtx4090", "13th Gen Intel(R) Core(TM) i5-13400", 6, 8, 2, 2),
        ("desktop-four-modules", "AMD Ryzen 7 5700X 8-Core Processor", 8, 16, None, 8),
        ("dgx-spark", "2x Cortex-X925 + 2x Cortex-A725", 4, 4, 2, 4),
        ("gh200", "Neoverse-V2", 4, 4, None, 4),
        ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0", 4, 4, None, 4),
        ("s390x", "IBM/S390 8561", 2, 2, None, 2),
        ("riscv64", "sifive,u74-mc", 2, 2, None, 2),
    ],
)
def test_name_and_cores(slug: str, name: str, cores: int, logical: int, performance: int | None, threads: int) -> None:
    cpu = replay(CAPTURES / slug).cpu
    assert cpu.name == name
    assert (cpu.physical_cores, cpu.logical_cpus) == (cores, logical)
    assert (cpu.performance_cores, cpu.threads) == (performance, threads)


def test_sockets_and_nodes_with_processors_are_counted() -> None:
    cpu = replay(CAPTURES / "server-two-sockets").cpu
    assert (cpu.sockets, cpu.numa_nodes) == (2, 2)  # a third node has memory only


def test_features_that_share_a_name_with_another_architecture_are_not_taken_over() -> None:
    """``sme`` on x86 is AMD's memory encryption, on Arm the matrix extension."""
    text = b"processor : 0\nmodel name : AMD EPYC 9654\nflags : lm avx2 sme avx512f\nphysical id : 0\ncore id : 0\n"
    from fitcheck.probe import probe

    assert probe(CaptureHost({"/proc/cpuinfo": text}), bandwidth=False).cpu.features == ("avx2", "avx512f")


def test_cores_with_one_thread_beside_cores_with_two_are_efficiency_cores() -> None:
    ids = [0, 0, 1, 1, 2, 3, 4, 5]
    block = "processor : {}\nvendor_id : GenuineIntel\nmodel name : X\nphysical id : 0\ncore id : {}\nflags : lm avx2\n"
    text = "\n".join(block.format(number, core) for number, core in enumerate(ids))
    from fitcheck.probe import probe

    cpu = probe(CaptureHost({"/proc/cpuinfo": text.encode()}), bandwidth=False).cpu
    assert (cpu.physical_cores, cpu.performance_cores, cpu.threads) == (6, 2, 2)


def test_offline_processors_are_not_counted() -> None:
    files = {"/sys/devices/system/cpu/online": b"0,2\n"}
    for number in range(4):
        folder = f"/sys/devices/system/cpu/cpu{number}/topology"
        files[f"{folder}/core_cpus_list"] = f"{number // 2 * 2}-{number // 2 * 2 + 1}\n".encode()
        files[f"{folder}/physical_package_id"] = b"0\n"
    from fitcheck.probe import probe

    cpu = probe(CaptureHost(files, arch="x86_64"), bandwidth=False).cpu
    assert (cpu.physical_cores, cpu.logical_cpus) == (2, 2)


def test_a_machine_that_says_nothing_has_one_core_and_problems() -> None:
    from fitcheck.probe import probe

    machine = probe(CaptureHost({}), bandwidth=False)
    assert machine.cpu.physical_cores == 1
    assert {"cpu", "ram"} <= {problem.part for problem in machine.problems}
    assert all(problem.hint for problem in machine.problems)
