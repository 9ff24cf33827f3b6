"""Recorded machines of strangers: processor, cores, memory, GPUs and bandwidth are right for each one in scope.

The captures lie where FITCHECK_CAPTURES points, each a folder with a ``meta.json`` whose ``expected`` was read off the
recording by a small parser of its own.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from fitcheck.probe.capture import replay
from fitcheck.types import Machine
from fitcheck.units import GIB, MIB

FOLDER = os.environ.get("FITCHECK_CAPTURES")
SLUGS = sorted(path.name for path in Path(FOLDER).iterdir() if path.is_dir()) if FOLDER else []

#: Probed without failing like all others, but not held to values, and why.
OUT_OF_SCOPE = {
    "amdgpu-top-sample": "the output of another monitor, which fitcheck does not read",
    "ansible-sparc-t5-debian-ldom-24vcpu": "no engine is built for SPARC",
    "cadvisor-cgroups": "limits without a machine; tests/captures has limits with one",
    "ohai-darwin-hardware-profiler": "Ruby source of a test, not the output of a tool",
    "pycpuinfo-free-bsd-11-x86-64": "boot messages of a system that no engine publishes builds for",
    "pycpuinfo-haiku-x86-64-beta-1-ryzen-7": "no engine is built for Haiku",
    "pycpuinfo-linux-alt-p9-mipsel-bfk3": "no engine is built for MIPS",
    "pycpuinfo-linux-mips64el-loongson3A3000": "no engine is built for MIPS",
    "pycpuinfo-open-indiana-5-11-x86-64-ryzen-7": "no engine is built for Solaris",
    "pycpuinfo-pcbsd-10-x86-64": "boot messages of a system that no engine publishes builds for",
    "pycpuinfo-solaris-11-x86-32": "no engine is built for Solaris",
    "pycpuinfo-true-os-18-x86-64-ryzen-7": "boot messages of a system that no engine publishes builds for",
}

#: Where the expected value is not what the recording says.
CORRECTED: dict[str, dict[str, Any]] = {
    # the recording lists all processors without blank lines between them; only the first was counted
    "ansible-x86_64-2cpu": {"physical_cores": 2},
    "ansible-x86_64-4cpu": {"physical_cores": 4},
    # core ids repeat on the two dies of each package; every sibling list holds one CPU
    "hwloc-48amd64-4pa2n6c-sparse": {"physical_cores": 48},
    # macOS 11 could not name the chip yet; hw.cpufamily is that of the M1
    "archspec-darwin-bigsur-m1": {"cpu_brand": "Apple M1"},
    # /proc/cpuinfo is cut after the first processor, lscpu.txt beside it is whole: 2 sockets, 96 or 32 cores
    "pycpuinfo-linux-aarch64-64": {"physical_cores": 96},
    "ohai-ppc64le-p9-host": {"physical_cores": 32},
}

#: GB/s in data sheets, by the name that fitcheck gives the card.
DATA_SHEETS = {
    "AMD Instinct MI100": 1228.8, "AMD Instinct MI210": 1638.4, "AMD Instinct MI25": 484,
    "AMD Instinct MI50 32GB": 1024,
    "AMD Radeon 780M": 102.4, "AMD Radeon 8060S": 256, "AMD Radeon Pro WX 9100": 484, "AMD Radeon RX 5700 XT": 448,
    "AMD Radeon RX 580 4GB": 224, "AMD Radeon RX 6700 XT": 384, "AMD Radeon RX 6900 XT": 512,
    "AMD Radeon RX 7800 XT": 624, "AMD Radeon RX 7900 XTX": 960, "AMD Radeon RX 9070 XT": 644.6,
    "Apple M1": 68.3, "Apple M1 Max": 400, "Apple M1 Pro": 200, "Apple M2": 100, "Apple M2 Max 30-core": 400,
    "Apple M3 Max 30-core": 300, "Apple M3 Pro 14-core": 150, "Apple M4": 120, "Apple M4 Max": 546,
    "Apple M4 Pro 16-core": 273, "Intel Arc A380": 186, "Intel Arc A580": 512, "Intel Arc B580": 456,
    "Intel Arc 140V": 136.5, "NVIDIA GB10": 273, "NVIDIA GeForce GTX 1070 Ti": 256,
    "NVIDIA GeForce RTX 2080 SUPER": 496,
    "NVIDIA GeForce RTX 3060": 360, "NVIDIA GeForce RTX 3060 Laptop GPU": 288, "NVIDIA GeForce RTX 3080": 760,
    "NVIDIA GeForce RTX 3090": 936, "NVIDIA GeForce RTX 4050 Laptop GPU": 192, "NVIDIA GeForce RTX 4080 SUPER": 736,
    "NVIDIA GeForce RTX 4090 48GB": 1008, "NVIDIA H200": 4800, "NVIDIA RTX 1000 Ada Generation Laptop GPU": 192,
    "NVIDIA RTX 4000 SFF Ada Generation": 280, "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": 1792,
    "Quadro P2000": 140, "Tesla P100-PCIE-16GB": 732, "Tesla T4": 320,
}  # fmt: skip

needs_captures = pytest.mark.skipif(not SLUGS, reason="FITCHECK_CAPTURES does not point at captures")
in_scope = [slug for slug in SLUGS if slug not in OUT_OF_SCOPE]


def expected_of(slug: str) -> dict[str, Any]:
    meta = json.loads((Path(FOLDER or "") / slug / "meta.json").read_text())
    expected: dict[str, Any] = {**meta.get("expected", {}), **CORRECTED.get(slug, {})}
    if slug.startswith("archspec-linux"):
        expected["physical_cores"] = None  # excerpts of /proc/cpuinfo: one processor of many
    return expected


def machine_of(slug: str) -> Machine:
    return replay(Path(FOLDER or "") / slug)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@needs_captures
@pytest.mark.parametrize("slug", SLUGS)
def test_every_capture_gives_a_machine_and_no_part_fails(slug: str) -> None:
    machine = machine_of(slug)
    assert machine.cpu.physical_cores >= 1
    assert not [problem for problem in machine.problems if "probe failed" in problem.message]


@needs_captures
@pytest.mark.parametrize("slug", in_scope)
def test_processor(slug: str) -> None:
    expected, cpu = expected_of(slug), machine_of(slug).cpu
    if expected.get("cpu_brand"):
        assert one_line(cpu.name) == one_line(expected["cpu_brand"])
    if expected.get("physical_cores"):
        assert cpu.physical_cores == expected["physical_cores"]
    if expected.get("p_cores"):
        assert cpu.performance_cores == int(expected["p_cores"])


@needs_captures
@pytest.mark.parametrize("slug", in_scope)
def test_instruction_sets(slug: str) -> None:
    machine = machine_of(slug)
    wanted = set(expected_of(slug).get("isa") or ())
    if machine.arch == "x86_64":
        wanted.discard("sme")  # there AMD's memory encryption
    assert wanted <= set(machine.cpu.features)


@needs_captures
@pytest.mark.parametrize("slug", in_scope)
def test_memory(slug: str) -> None:
    expected, machine = expected_of(slug), machine_of(slug)
    if expected.get("ram_bytes"):
        assert machine.ram.total_bytes == expected["ram_bytes"]
    elif expected.get("ram_gb") and not slug.startswith("ggml-metal"):  # whose logs tell the GPU's limit alone
        assert machine.ram.total_bytes == expected["ram_gb"] * GIB


@needs_captures
@pytest.mark.parametrize("slug", [slug for slug in in_scope if expected_of(slug).get("gpus")])
def test_gpus(slug: str) -> None:
    machine = machine_of(slug)
    wanted = [gpu for gpu in expected_of(slug)["gpus"] if "and" not in gpu]
    cards = list(machine.accelerators)
    whole = [card for card in cards if "MIG" not in card.name]
    assert len(whole) == len(wanted)
    for gpu, card in zip(wanted, whole, strict=True):
        if gpu.get("name"):
            assert card.name == gpu["name"]
        if gpu.get("pci_id"):
            assert card.pci_id == gpu["pci_id"].lower()
        if gpu.get("compute_capability", "").replace(".", "").isdigit():
            assert card.compute_capability == gpu["compute_capability"]
        size = gpu.get("vram_bytes") or gpu.get("pool_bytes") or (gpu.get("vram_mib") or gpu.get("memory") or 0) * MIB
        if size and not gpu.get("integrated"):
            assert card.pool.total_bytes == size
        if gpu.get("unified_memory") or gpu.get("integrated"):
            assert card.unified
        parts = [float(part["mib"].split()[0]) * MIB for part in gpu.get("mig_devices", ())]
        assert parts == [] or parts == [other.pool.total_bytes for other in cards if "MIG" in other.name]


@needs_captures
@pytest.mark.parametrize("slug", in_scope)
def test_bandwidth(slug: str) -> None:
    """By the data sheet within 3 %, save a card that its owner had overclocked: there by its clock."""
    for card in machine_of(slug).accelerators:
        sheet = DATA_SHEETS.get(card.catalog_name or "")
        if sheet and "MIG" not in card.name:
            assert card.pool.bandwidth is not None
            assert card.pool.bandwidth.per_s == pytest.approx(sheet * 1e9, rel=0.03)
        elif card.catalog_name == "NVIDIA GeForce RTX 2080":
            assert card.pool.bandwidth is not None
            assert card.pool.bandwidth.per_s == 7560e6 * 2 * 256 / 8


@needs_captures
def test_the_tables_of_this_file_name_captures_that_exist() -> None:
    assert not [slug for slug in (*OUT_OF_SCOPE, *CORRECTED) if slug not in SLUGS and len(SLUGS) > 150]
