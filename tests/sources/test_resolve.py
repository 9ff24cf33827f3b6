"""What people type leads to a catalog row, a file, or a clear refusal."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fitcheck.accuracy import fuzz_sources
from fitcheck.catalog import load
from fitcheck.catalog.resolve import resolve
from fitcheck.errors import FitcheckError

_spec = importlib.util.spec_from_file_location("sources_files", Path(__file__).parent / "conftest.py")
assert _spec is not None and _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
_spec = importlib.util.spec_from_file_location("true_shapes", Path(__file__).parent / "true_shapes.py")
assert _spec is not None and _spec.loader is not None
true_shapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(true_shapes)

CATALOG = load()


def test_a_catalog_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "gpt-oss-20b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("openai/gpt-oss-20b", CATALOG).path is None
    with pytest.raises(FitcheckError, match=r"no config.json"):
        resolve("./openai/gpt-oss-20b", CATALOG)


def test_a_folder_that_no_row_is_named_after_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-own-thing").mkdir()
    files.write_sparse(tmp_path / "my-own-thing" / "w.gguf", *files.gguf_header(*files.small_llama()))
    monkeypatch.chdir(tmp_path)
    assert resolve("my-own-thing", CATALOG).id == "my-own-thing"
    assert resolve("./my-own-thing/w.gguf", CATALOG).id == "./my-own-thing/w.gguf"


def test_an_installed_model_is_found_by_the_name_that_the_scan_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    files.write_sparse(tmp_path / "org_Some-Thing-Q4_K_M.gguf", *files.gguf_header(*files.small_llama()))
    model = resolve("org_some-thing-q4_k_m", CATALOG)
    assert model.tensors is not None and model.id == "org_some-thing-q4_k_m"


def test_a_folder_of_two_models_asks_which(tmp_path: Path) -> None:
    for name in ("one", "two"):
        files.write_sparse(tmp_path / f"{name}.gguf", *files.gguf_header(*files.small_llama()))
    with pytest.raises(FitcheckError, match="2 models") as caught:
        resolve(str(tmp_path), CATALOG)
    assert "one.gguf" in caught.value.hint


@pytest.mark.parametrize("text", ["a\x1b[31m", "a\nb", "x" * 5000, ""])
def test_what_cannot_be_a_name_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        resolve(text, CATALOG)
    assert caught.value.code == "unknown_model" and caught.value.message.isprintable()


def test_the_folder_of_a_user_that_there_is_not_is_refused() -> None:
    with pytest.raises(FitcheckError) as caught:
        resolve("~no-such-user-here/model.gguf", CATALOG)
    assert caught.value.code == "unreadable_file"


def test_a_file_of_a_known_model_brings_its_licence_and_scores(tmp_path: Path) -> None:
    row = resolve("qwen3-0.6b", CATALOG)
    model = resolve(str(true_shapes.write(row, tmp_path / "Qwen3-0.6B-BF16.gguf")), CATALOG)
    assert model.tensors is not None
    assert (model.licence, model.openness, model.benchmarks) == (row.licence, row.openness, row.benchmarks)


def test_a_file_that_only_has_the_name_of_a_known_model_brings_nothing(tmp_path: Path) -> None:
    path = files.write_sparse(tmp_path / "Qwen3-8B-Q4_K_M.gguf", *files.gguf_header(*files.small_llama()))
    assert resolve(str(path), CATALOG).benchmarks == ()


def test_hostile_inputs_end_in_a_model_or_in_one_line() -> None:
    outcomes, failures, _ = fuzz_sources.run(seed=11, count=1500)
    assert failures == []
    assert {name.split(":")[0] for name in outcomes} == set(fuzz_sources.KINDS)
    assert all(outcomes[f"{kind}: model"] > 20 for kind in fuzz_sources.KINDS)
