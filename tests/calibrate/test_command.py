"""``fitcheck calibrate`` from end to end, with engines that work, that fail, and that are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from fitcheck.calibrate.stored import FILE, load
from fitcheck.commands.calibrate import calibrate
from fitcheck.probe.pretend import pretend
from fitcheck.session import Session
from fitcheck.types import Model, Report

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stand-ins are scripts with a #! line")
HERE = replace(pretend("cpu"), pretended=False)
WORKS = 'print(\'{"backends": "CPU", "n_prompt": 0, "n_gen": 128, "avg_ts": 40.0}\')'


@pytest.fixture
def run(
    tmp_path: Path, stored: Model, tool: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Report]:
    """Calibrate a machine that has one model, and a llama-bench of this source."""
    monkeypatch.setenv("FITCHECK_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    monkeypatch.setattr("fitcheck.catalog.installed.installed", lambda: SimpleNamespace(models=(stored,)))
    monkeypatch.setattr("fitcheck.calibrate.measure.memory_bandwidth", lambda machine, seconds: 6e10)

    def answer(source: str) -> Report:
        tool("llama-bench", source)
        return calibrate(Session.of(HERE), 10.0)

    return answer


def test_what_an_engine_did_is_said_and_kept(run: Callable[[str], Report], tmp_path: Path) -> None:
    report = run(WORKS)
    assert "llama.cpp: Llama-3.2-1B-Instruct-Q4_K_M, 40.0 tokens/s" in report.notes
    kept = load(HERE, tmp_path)
    assert kept is not None and set(kept.speed_factors) == set(kept.operation_factors) == {"cpu"}


@pytest.mark.parametrize("source", ["print('nonsense')", "raise SystemExit(1)", "raise KeyError"])
def test_an_engine_that_fails_is_one_line_and_leaves_nothing_of_itself(
    source: str, run: Callable[[str], Report], tmp_path: Path
) -> None:
    report = run(source)
    assert sum(note.startswith("llama-bench: Llama-3.2-1B") for note in report.notes) == 1
    assert not any("Traceback" in note or "\n" in note for note in report.notes)
    kept = load(HERE, tmp_path)
    assert kept is not None and kept.ram_bandwidth_bytes_per_s == 6e10
    assert not kept.speed_factors and not kept.prefill_factors


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
from types import SimpleNamespace
import fitcheck.calibrate.measure, fitcheck.catalog.installed
from fitcheck import catalog
from msgspec.structs import replace
model = next(m for m in catalog.load().models if m.id == "llama-3.2-1b")
model = replace(model, file_quant="Q4_K_M", path=sys.argv.pop())
fitcheck.catalog.installed.installed = lambda: SimpleNamespace(models=(model,))
fitcheck.calibrate.measure.memory_bandwidth = lambda machine, seconds: 6e10
from fitcheck.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_stops_the_engine_and_writes_nothing(
    tmp_path: Path, stored: Model, tool: Callable[[str, str], None]
) -> None:
    pulse = tmp_path / "pulse"
    tool(
        "llama-bench",
        f"import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"for _ in range(1000): open({str(pulse)!r}, 'a').write('.'), time.sleep(0.03)",
    )
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "calibrate", str(stored.path)],
        env={**os.environ, "FITCHECK_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while not pulse.exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "interrupted\n")
    assert not (home / FILE).exists() and not list(home.glob("*"))
    beats = pulse.read_text()
    time.sleep(0.3)
    assert pulse.read_text() == beats  # nothing runs on
