"""``import fitcheck``: the answers as values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fitcheck
from fitcheck.catalog.user import add
from fitcheck.errors import FitcheckError
from fitcheck.types import Check, Fit, Machine, Model, PlacementKind, Request, Verdict

CONFIG = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
}


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


def test_the_same_question_is_answered_from_memory() -> None:
    machine, asked = fitcheck.pretend("RTX 4070"), Request(quant="Q4_K_M")
    first = fitcheck.estimate("qwen3-14b", machine, asked)
    assert fitcheck.estimate("qwen3-14b", machine, Request(quant="Q4_K_M")) is first
    assert fitcheck.estimate("qwen3-14b", machine, Request(quant="Q5_K_M")) != first
    smaller = fitcheck.estimate("qwen3-14b", fitcheck.pretend("RTX 3060"), asked)
    assert smaller.have_bytes != first.have_bytes


def test_models_that_are_added_meanwhile_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FITCHECK_HOME", str(tmp_path))
    folder = tmp_path / "my-own-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FitcheckError):
        fitcheck.find("my-own-model")
    own = add(tmp_path, str(folder), fitcheck.find(str(folder)))
    assert fitcheck.find(own.id).params > 0


def test_a_file_is_read_again(tmp_path: Path) -> None:
    machine, folder = fitcheck.pretend("RTX 4070"), tmp_path / "changing"
    folder.mkdir()
    needs = []
    for layers in (4, 8):
        (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
        needs.append(fitcheck.estimate(str(folder), machine).need_bytes)
    assert needs[0] < needs[1]


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
