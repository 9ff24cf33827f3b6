"""The questions to NVIDIA's library, asked of a stand-in with its calls and layouts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.nvidia import probe_nvidia
from fitcheck.units import MIB

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"), reason="needs a C compiler on Linux"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    command = [COMPILER or "cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o"]
    subprocess.run([*command, str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder


def ask(library: Path, **variables: str) -> dict[str, Any]:
    code = "import json; from fitcheck.probe.nvidia.nvml import query_nvml; print(json.dumps(query_nvml()))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def test_cards_and_instances_are_told(library: Path) -> None:
    reply = ask(library)
    assert reply["driver"] == "580.95.05"
    h100, gb10 = reply["cards"]
    assert h100["total_bytes"] == 81559 * MIB
    assert (h100["bus_bits"], h100["memory_mhz"], h100["mig"]) == (5120, 2619, 1)
    assert [part["multiprocessors"] for part in h100["instances"]] == [60, 16]
    assert gb10["compute_capability"] == [12, 1]
    assert "total_bytes" not in gb10


def test_the_reply_becomes_accelerators(library: Path) -> None:
    files = {"/proc/meminfo": b"MemTotal: 125508468 kB\nMemAvailable: 120000000 kB\n"}
    found = probe_nvidia(CaptureHost(files, queries={"nvml": ask(library)}))
    usable = [(card.name, card.pool.total_bytes // MIB) for card in found.accelerators if card.usable]
    assert usable == [("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448), ("NVIDIA GB10", 125508468 // 1024)]


def test_an_error_of_the_driver_is_told_by_number(library: Path) -> None:
    assert ask(library, NVML_STUB_ERROR="18")["error"] == 18


def test_a_missing_library_is_told(tmp_path: Path) -> None:
    assert ask(tmp_path)["error"] == 12
