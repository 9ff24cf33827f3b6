from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fitcheck.commands import check as command
from fitcheck.commands.check import Wish, wishes_of_file
from fitcheck.configuration import find, load
from fitcheck.errors import FitcheckError
from fitcheck.options import RequestOptions
from fitcheck.session import Session
from fitcheck.types import Licences, PlacementKind, Request, Task

HERE = Path(__file__).parent
GPU = ["--on", str(HERE / "machine_gpu.json")]

GOOD = """\
context = "16k"
allow = ["gpu", "split"]

[[models]]
model = "qwen3-0.6b"
min-speed = 15

[[models]]
model = "llama-3.3-70b"
alternatives = ["qwen3-14b", "qwen3-0.6b"]
context = 8192
for = "coding"
licence = "permissive"
"""


def written(folder: Path, text: str, name: str = "fitcheck.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_model_has_its_own_limits_and_those_of_the_file(tmp_path: Path) -> None:
    first, second = (wanted for wanted in load(written(tmp_path, GOOD)))
    assert first.names == ("qwen3-0.6b",)
    request = first.request(RequestOptions())
    assert (request.context_tokens, request.min_decode_per_s, request.task) == (16384, 15, Task.CHAT)
    assert second.names == ("llama-3.3-70b", "qwen3-14b", "qwen3-0.6b")
    request = second.request(RequestOptions())
    assert (request.context_tokens, request.task, request.licences) == (8192, Task.CODING, Licences.PERMISSIVE)
    assert request.allow == (PlacementKind.GPU, PlacementKind.SPLIT)


def test_the_command_line_goes_first(tmp_path: Path) -> None:
    wanted = load(written(tmp_path, GOOD))[0]
    assert wanted.request(RequestOptions(context="4k")).context_tokens == 4096


def test_pyproject_says_the_same_under_its_own_table(tmp_path: Path) -> None:
    text = "[project]\nname = 'x'\n[tool.fitcheck]\ncontext = '4k'\n[[tool.fitcheck.models]]\nmodel = 'qwen3-0.6b'\n"
    path = written(tmp_path, text, "pyproject.toml")
    assert load(path)[0].request(RequestOptions()).context_tokens == 4096
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find(tmp_path / "a" / "b") == path


def test_a_pyproject_without_the_table_is_passed_over(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    written(inner, "[project]\nname = 'x'\n", "pyproject.toml")
    outer = written(tmp_path, GOOD)
    assert find(inner) == outer


BAD = {
    "no model": ("context = '8k'\n", "line 1: models"),
    "not a list of tables": ("models = 'qwen3'\n", "line 1: models"),
    "unknown field": ("[[models]]\nmodel = 'a'\nspeed = 3\n", "line 3: speed is not a field"),
    "field of the second model": ("[[models]]\nmodel = 'a'\n\n[[models]]\nmodel = 'b'\nkv = 'x'\n", "line 6: kv"),
    "model that is missing": ("\n[[models]]\ncontext = '8k'\n", "line 2: model is missing"),
    "model that is a number": ("[[models]]\nmodel = 3\n", "line 2: model"),
    "alternatives that are a name": ("[[models]]\nmodel = 'a'\nalternatives = 'b'\n", "line 3: alternatives"),
    "speed that is text": ("[[models]]\nmodel = 'a'\nmin-speed = 'fast'\n", "line 3: min-speed"),
    "speed that is true": ("[[models]]\nmodel = 'a'\nmin-speed = true\n", "line 3: min-speed"),
    "speed below nothing": ("min-speed = -1\n[[models]]\nmodel = 'a'\n", "line 1: min-speed"),
    "context that is no number": ("[[models]]\nmodel = 'a'\ncontext = 'lots'\n", "line 3: context"),
    "unknown task": ("[[models]]\nmodel = 'a'\nfor = 'cooking'\n", "line 3: for"),
    "unknown placement": ("[[models]]\nmodel = 'a'\nallow = ['moon']\n", "line 3: allow"),
    "no TOML": ("[[models]\n", "not valid TOML"),
    "twice the same field": ("context = '1k'\ncontext = '2k'\n", "not valid TOML"),
}


@pytest.mark.parametrize(("text", "place"), BAD.values(), ids=BAD)
def test_every_mistake_is_named_with_its_line_and_field(text: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(FitcheckError) as caught:
        load(written(tmp_path, text))
    assert caught.value.code == "bad_configuration"
    assert place in caught.value.message
    assert "fitcheck.toml" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fitcheck.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FitcheckError, match="not UTF-8"):
        load(path)


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fitcheck", "check", *arguments, *GPU]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_a_setup_script_is_one_line(tmp_path: Path) -> None:
    written(tmp_path, "[[models]]\nmodel = 'deepseek-v3'\nalternatives = ['qwen3-0.6b']\n")
    done = check(tmp_path, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "qwen3-0.6b\n", "")
    written(tmp_path, "[[models]]\nmodel = 'qwen3-0.6b'\n[[models]]\nmodel = 'deepseek-v3'\n")
    assert check(tmp_path).returncode == 1
    written(tmp_path, "[[models]]\nmodel = 'qwen3-0.6b'\ncontext = []\n")
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: fitcheck.toml line 3: context")


@pytest.mark.parametrize(
    ("entry", "line", "says"),
    [
        ('modl = "qwen3-0.6b"', 3, "modl is not a field"),
        ('model = "qwn3-0.6b"', 3, "unknown model 'qwn3-0.6b'"),
        ('min-speed = 1\nmodel = "qwen3-0.6b"\nquant = "Q9"', 4, "unknown quantisation Q9"),
    ],
)
def test_a_mistake_is_found_with_its_line(tmp_path: Path, entry: str, line: int, says: str) -> None:
    path = written(tmp_path, f'context = "4k"\n[[models]]\n{entry}\n')
    with pytest.raises(FitcheckError, match=f"^fitcheck.toml line {line}: {says}"):
        command.check(Session("RTX 4070"), Request(), wishes_of_file(path, RequestOptions()))


def test_what_comes_closest_to_an_embedding_model_embeds(tmp_path: Path) -> None:
    path = written(tmp_path, '[[models]]\nmodel = "nomic-embed-text-v1.5"\ncontext = "16k"\n')
    (found,) = command.check(Session("RTX 4070"), Request(), wishes_of_file(path, RequestOptions())).checks
    assert not found.passed and found.nearest is not None and "embed" in found.nearest.model


def test_what_comes_closest_to_a_quantisation_is_another_of_the_same_model() -> None:
    request = Request(quant="Q8_0")
    (found,) = command.check(Session("RTX 4060"), request, (Wish(("qwen3-14b",), request),)).checks
    assert not found.passed and found.nearest is not None
    assert found.nearest.model == "qwen3-14b" and found.nearest.quant != "Q8_0"


def test_one_device_that_is_too_small_is_named() -> None:
    request = Request(parallel=8, context_tokens=32768, allow=(PlacementKind.GPU,))
    (found,) = command.check(Session("RTX 3060"), request, (Wish(("llama-3.1-8b",), request),)).checks
    memory = found.requirements[0]
    assert not memory.met and "on gpu0" in memory.needed and memory.found == "11.6 GiB"
