"""Limits of containers and services hold the memory and the threads that an engine may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fitcheck.probe.capture import CaptureHost, replay
from fitcheck.probe.limits import read_confinement
from fitcheck.units import GIB

CAPTURES = Path(__file__).parents[2] / "captures"


def test_page_cache_of_a_container_counts_as_free() -> None:
    machine = replay(CAPTURES / "container-cgroup2")
    assert machine.limits.memory_bytes == 4 * GIB
    assert machine.ram.usable_bytes == 3 * GIB  # 4 GiB less 1 GiB anonymous; 2 GiB of cache do not count
    assert machine.environment == "container"


def test_quota_and_cpuset_limit_threads_but_not_cores() -> None:
    machine = replay(CAPTURES / "container-cgroup2")
    assert (machine.cpu.physical_cores, machine.cpu.threads) == (8, 3)  # cpuset of 4, quota of 2.5
    assert machine.limits.cpus == 2.5


def test_limits_of_ancestors_hold_the_process() -> None:
    machine = replay(CAPTURES / "service-ancestor-limit")
    assert machine.limits.memory_bytes == 8 * GIB  # memory.high of the parent, below memory.max of the grandparent
    assert machine.ram.usable_bytes == 8 * GIB
    assert machine.cpu.threads == 2


def test_version_one_groups_are_found_where_they_are_mounted() -> None:
    machine = replay(CAPTURES / "container-cgroup1")
    assert machine.limits.memory_bytes == 2 * GIB
    assert machine.ram.usable_bytes == int(1.5 * GIB)
    assert (machine.limits.cpus, machine.cpu.threads) == (2.0, 2)


def test_no_limit_is_no_limit() -> None:
    machine = replay(CAPTURES / "cgroup1-unlimited")
    assert machine.limits.memory_bytes is None
    assert machine.limits.cpus is None
    assert machine.ram.usable_bytes == machine.ram.free_bytes


def test_a_limit_above_the_memory_of_the_machine_is_clamped() -> None:
    host = CaptureHost(
        {
            "/proc/meminfo": b"MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n",
            "/proc/self/cgroup": b"0::/\n",
            "/sys/fs/cgroup/memory.max": b"1099511627776\n",
            "/sys/fs/cgroup/memory.current": b"0\n",
        }
    )
    from fitcheck.probe.ram import read_ram

    ram = read_ram(host, read_confinement(host)).ram
    assert ram is not None
    assert ram.usable_bytes == 512 * 1024**2


def test_a_path_that_climbs_out_of_the_mount_is_not_followed() -> None:
    host = CaptureHost({"/proc/self/cgroup": b"0::/../../etc\n", "/sys/fs/cgroup/memory.max": b"1048576\n"})
    assert read_confinement(host).limits.memory_bytes == 1048576


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups are Linux only")
def test_a_real_limit_is_obeyed() -> None:
    """Make a control group of either version, where this system lets us, and look at the machine from inside it."""
    group = _make_group()
    if group is None:
        pytest.skip("this system lets us make no control group")
    limit = 700 * 1024**2
    try:
        (group / _limit_file(group)).write_text(str(limit))
        code = (
            f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
            "from fitcheck.probe import probe\n"
            "machine = probe(bandwidth=False)\n"
            "print(machine.limits.memory_bytes, machine.ram.usable_bytes)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found, usable = map(int, done.stdout.split())
        assert found == limit
        assert 0 < usable <= limit
    finally:
        group.rmdir()


def _limit_file(group: Path) -> str:
    return "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"


def _make_group() -> Path | None:
    for parent in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = parent / f"fitcheck-test-{os.getpid()}"
        try:
            group.mkdir()
            if (group / _limit_file(group)).exists():
                return group
            group.rmdir()
        except OSError:
            continue
    return None


def test_mounts_and_cpusets_are_found_in_the_older_list_of_mounts() -> None:
    host = CaptureHost(
        {
            "/proc/mounts": b"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /cg/mem cgroup rw,memory 0 0\n",
            "/proc/self/cgroup": b"4:memory:/job\n0::/job\n",
            "/sys/fs/cgroup/unified/job/cpuset.cpus.effective": b"2-3\n",
            "/cg/mem/job/memory.limit_in_bytes": b"1073741824\n",
        }
    )
    found = read_confinement(host)
    assert found.cpus == (2, 3)
    assert found.limits.memory_bytes == GIB
