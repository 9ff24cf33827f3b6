"""The user's own rows outlive versions, and never break what is built in."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from fitcheck.catalog import load, user
from fitcheck.catalog.resolve import resolve
from fitcheck.errors import FitcheckError
from fitcheck.types import Model

_spec = importlib.util.spec_from_file_location("sources_files", Path(__file__).parent / "conftest.py")
assert _spec is not None and _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

CATALOG = load()


def small(folder: Path, name: str = "own") -> Path:
    return Path(files.write_sparse(folder / f"{name}.gguf", *files.gguf_header(*files.small_llama())))


def added(folder: Path, path: Path) -> Model:
    return user.add(folder / "data", str(path), resolve(str(path), CATALOG))


def test_a_model_that_was_added_is_part_of_the_catalog_with_its_tensors(tmp_path: Path) -> None:
    model = added(tmp_path, small(tmp_path))
    catalog = load(tmp_path / "data")
    assert len(catalog.models) == len(CATALOG.models) + 1 and catalog.warnings == ()
    assert resolve("own", catalog) == model and model.id == "own"


def test_adding_again_replaces_and_removing_forgets(tmp_path: Path) -> None:
    path = small(tmp_path)
    added(tmp_path, path)
    added(tmp_path, path)
    added(tmp_path, small(tmp_path, "second"))
    folder = tmp_path / "data"
    assert [model.id for model in user.read(folder)[0]] == ["own", "second"]
    user.remove(folder, "own")
    user.remove(folder, str(tmp_path / "second.gguf"))
    assert user.read(folder) == ((), ())
    with pytest.raises(FitcheckError, match="not one of your own"):
        user.remove(folder, "own")


def test_a_relative_path_is_kept_so_that_it_means_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path)
    monkeypatch.chdir(tmp_path)
    user.add(tmp_path / "data", "./own.gguf", resolve("./own.gguf", CATALOG))
    assert user.refs(tmp_path / "data") == (str(tmp_path / "own.gguf"),)


def break_row(folder: Path, field: str, value: object) -> None:
    path = folder / user.FILE
    table = json.loads(path.read_text())
    table["models"][0]["model"][field] = value
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(("field", "value"), [("params", "many"), ("field_of_tomorrow", 1), ("shape", {"x": 1})])
def test_a_wrong_or_newer_row_is_skipped_with_one_warning_and_kept(tmp_path: Path, field: str, value: object) -> None:
    added(tmp_path, small(tmp_path))
    added(tmp_path, small(tmp_path, "second"))
    folder = tmp_path / "data"
    break_row(folder, field, value)
    catalog = load(folder)
    assert len(catalog.warnings) == 1 and "skipped" in catalog.warnings[0]
    assert [model.id for model in user.read(folder)[0]] == ["second"]
    added(tmp_path, small(tmp_path, "third"))
    assert len(json.loads((folder / user.FILE).read_text())["models"]) == 3
    assert set(user.refs(folder)) == {str(tmp_path / f"{name}.gguf") for name in ("own", "second", "third")}


def test_refreshing_mends_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    path = small(tmp_path)
    added(tmp_path, path)
    break_row(tmp_path / "data", "field_of_tomorrow", 1)
    added(tmp_path, path)
    assert len(user.read(tmp_path / "data")[0]) == 1 and user.read(tmp_path / "data")[1] == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"models": 7}', b"\xff" * 100, b"[" * 100_000])
def test_a_broken_file_is_one_warning_and_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / user.FILE).write_bytes(content)
    catalog = load(folder)
    assert len(catalog.models) == len(CATALOG.models) and len(catalog.warnings) == 1
    with pytest.raises(FitcheckError) as caught:
        added(tmp_path, small(tmp_path))
    assert caught.value.code == "storage"
    assert (folder / user.FILE).read_bytes() == content


def test_no_folder_means_no_rows() -> None:
    assert user.read(None) == ((), ())
