"""``import fitcheck``: the answers as values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fitcheck
from fitcheck.errors import FitcheckError
from fitcheck.types import Check, Fit, Machine, Model, PlacementKind, Request, Verdict


def test_functions_answer_like_the_commands() -> None:
    machine = fitcheck.pretend("RTX 4070")
    model = fitcheck.find("qwen3-14b")
    fit = fitcheck.estimate(model, machine, Request(context_tokens=4096))
    assert isinstance(machine, Machine) and isinstance(model, Model) and isinstance(fit, Fit)
    assert (fit.model, fit.context_tokens, fit.placement.kind) == ("qwen3-14b", 4096, PlacementKind.GPU)
    check = fitcheck.check("deepseek-v3", machine)
    assert isinstance(check, Check) and not check.passed
    assert check.fit is not None and check.fit.verdict is Verdict.NO
    fits = fitcheck.rank(machine, limit=3)
    assert len(fits) == 3
    assert all(found.quality for found in fits)


def test_an_own_list_of_models_can_be_ranked() -> None:
    models = [fitcheck.find(name) for name in ("qwen3-0.6b", "qwen3-14b")]
    machine = fitcheck.pretend("RTX 4070")
    assert {fit.model for fit in fitcheck.rank(machine, models=models)} == {"qwen3-0.6b", "qwen3-14b"}


def test_mistakes_are_exceptions_with_a_code() -> None:
    with pytest.raises(FitcheckError) as caught:
        fitcheck.find("no-such-model-anywhere")
    assert caught.value.code == "unknown_model"
    with pytest.raises(AttributeError):
        fitcheck.nothing  # noqa: B018


@pytest.mark.parametrize(
    "first", ["", "import fitcheck.probe.host, fitcheck.estimate.fit", "from fitcheck import probe"]
)
def test_probe_and_estimate_are_functions_however_their_packages_were_imported(first: str) -> None:
    code = f"{first}\nimport fitcheck\nassert fitcheck.probe().cpu.logical_cpus\nassert callable(fitcheck.estimate)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    for command in (["scan"], ["check", "qwen3-0.6b"], ["machine"], ["catalog", "list"]):
        done = subprocess.run([sys.executable, "-m", "fitcheck", *command], env=environ, cwd=tmp_path, check=False)
        assert done.returncode in (0, 1)
    assert list(tmp_path.iterdir()) == []
