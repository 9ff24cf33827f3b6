"""The catalog adds up, loads fast, and is written in one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fitcheck import facts
from fitcheck.catalog import Catalog, catalog_path, decode, load
from fitcheck.catalog.canonical import canonical
from fitcheck.catalog.schema import schema_text
from fitcheck.catalog.verify import FileSize, file_sizes, rounding_bytes, verify
from fitcheck.errors import FitcheckError
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.types import Model

DATA = Path(facts.__file__).parent / "data"
# Cold: a fresh interpreter that has imported what every command imports anyway, and has not decoded anything.
TIMED_LOAD = """
import pathlib, time, msgspec, fitcheck.types
start = time.process_time()
from fitcheck.catalog import load
load()
print(time.process_time() - start)
"""


def changed(catalog: Catalog, model_id: str, **fields: object) -> Catalog:
    models = tuple(replace(model, **fields) if model.id == model_id else model for model in catalog.models)
    return replace(catalog, models=models)


def test_every_row_adds_up(catalog: Catalog, quantizations: Quantizations) -> None:
    assert [str(defect) for defect in verify(catalog, quantizations)] == []


def test_the_models_that_people_run_are_there(catalog: Catalog) -> None:
    assert len(catalog.models) >= 400
    assert sum(model.grade in "AB" for model in catalog.models) >= 400
    assert all(model.shape is not None for model in catalog.models)
    assert {"gpt2", "llama-4-scout", "gemma-3n-e4b"} <= {model.id for model in catalog.models}


def test_it_loads_and_validates_in_15_ms() -> None:
    times = [
        float(subprocess.run([sys.executable, "-c", TIMED_LOAD], capture_output=True, check=True, text=True).stdout)
        for _ in range(5)
    ]
    assert min(times) <= 0.015


def test_it_is_written_in_the_one_canonical_way(catalog: Catalog) -> None:
    text = catalog_path().read_bytes()
    assert text == canonical(catalog)
    assert decode(text) == catalog


def test_a_published_file_is_one_line_of_the_catalog(catalog: Catalog) -> None:
    lines = canonical(catalog).decode().splitlines()
    assert sum('"repo":' in line for line in lines) == sum(len(model.files) for model in catalog.models)
    assert all(line.count('"repo":') <= 1 for line in lines)


def _is_off(size: FileSize) -> bool:
    return abs(size.predicted / size.file.bytes - 1) > 0.01


def test_published_file_sizes_are_predicted_within_1_percent(catalog: Catalog, quantizations: Quantizations) -> None:
    """At least 98 % of all files that bear the name of a mix, where the size is known better than to a whole GB; every
    file that is off says why, and rounding explains whole GB."""
    sizes = list(file_sizes(catalog, quantizations))
    known = [size for size in sizes if rounding_bytes(size.file) < 0.01 * size.file.bytes]
    assert len(known) >= 400
    assert sum(not _is_off(size) for size in known) >= 0.98 * len(known)
    assert [size for size in sizes if _is_off(size) and not size.file.note] == []
    assert [size for size in sizes if size not in known and not size.agrees] == []


def test_a_note_is_only_where_a_size_disagrees(catalog: Catalog, quantizations: Quantizations) -> None:
    assert [size for size in file_sizes(catalog, quantizations) if size.file.note and not _is_off(size)] == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"params": 8_030_261_249}, "params"),
        ({"params_active": 9_000_000_000}, "params_active"),
        ({"published_params": 8_100_000_000}, "published_params"),
        ({"licence": "made-up"}, "licence"),
        ({"abilities": ("flying",)}, "abilities"),
        ({"released": "July 2024"}, "released"),
        ({"context_extended_tokens": 1024}, "context_extended_tokens"),
        ({"ollama_tags": ("qwen3:8b",)}, "name"),
        ({"id": "Llama 3.1"}, "id"),
        ({"sources": {"shape": "hearsay"}}, "sources.shape"),
    ],
)
def test_a_broken_row_names_its_field(
    catalog: Catalog, quantizations: Quantizations, fields: dict[str, object], field: str
) -> None:
    defects = verify(changed(catalog, "llama-3.1-8b", **fields), quantizations)
    assert field in {defect.field for defect in defects}
    assert any("lama" in defect.model for defect in defects)


def test_a_file_of_the_wrong_size_is_found(catalog: Catalog, quantizations: Quantizations) -> None:
    model = next(model for model in catalog.models if model.id == "llama-3.1-8b")
    file = next(file for file in model.files if file.quant == "Q4_K_M" and not file.note)
    broken = changed(catalog, model.id, files=(replace(file, bytes=file.bytes * 11 // 10),))
    defects = verify(broken, quantizations)
    assert [(defect.model, defect.field) for defect in defects] == [("llama-3.1-8b", "files Q4_K_M")]


def test_the_committed_schema_is_the_generated_one() -> None:
    stale = "write schema_text() of fitcheck.catalog.schema to data/catalog.schema.json again"
    assert (DATA / "catalog.schema.json").read_bytes() == schema_text(), stale


def test_a_broken_catalog_names_the_bad_field() -> None:
    with pytest.raises(FitcheckError) as refused:
        decode(b'{"date": "2026-11-22", "models": [{"id": "a", "name": "a", "shape": null, "params": "many"}]}')
    assert refused.value.code == "bad_catalog"
    assert "$.models[0].params" in refused.value.message


def test_a_users_own_row_is_added_and_cannot_replace_a_built_in_one(catalog: Catalog, tmp_path: Path) -> None:
    user = pytest.importorskip("fitcheck.catalog.user")
    gpt2 = next(model for model in catalog.models if model.id == "gpt2")
    mine: list[Model] = [replace(gpt2, id="mine", ollama_tags=(), aliases=()), replace(gpt2, params=1)]
    for model in mine:
        user.add(tmp_path, f"hf:me/{model.id}", model)
    loaded = load(tmp_path)
    assert len(loaded.models) == len(catalog.models) + 1
    assert next(model for model in loaded.models if model.id == "gpt2") == gpt2
    assert "gpt2" in " ".join(loaded.warnings)


def test_a_broken_file_of_the_users_is_a_warning(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "models.json").write_bytes(b"{]")
    loaded = load(tmp_path)
    assert loaded.models == catalog.models
    assert loaded.warnings


def test_layers_stand_in_execution_order(catalog: Catalog) -> None:
    """Spot checks against llama.cpp's rules: gemma3 5:1, gpt-oss starts with a window, first layers dense."""
    models = {model.id: model for model in catalog.models}

    def windows(model_id: str) -> str:
        shape = models[model_id].shape
        assert shape is not None
        return "".join("w" if getattr(layer.mixer, "window", None) else "f" for layer in shape.each_layer())

    def kinds(model_id: str) -> str:
        shape = models[model_id].shape
        assert shape is not None
        return "".join(msgspec.to_builtins(layer.ffn)["type"][0] for layer in shape.each_layer())

    assert windows("gemma-3-4b") == "wwwwwf" * 5 + "wwww"
    assert windows("gpt-oss-20b") == "wf" * 12
    assert windows("gemma-2-9b") == "wf" * 21
    assert windows("olmo-3-7b-instruct") == "wwwf" * 8
    assert kinds("deepseek-v3") == "ddd" + "m" * 58
    assert kinds("llama-4-maverick") == "dm" * 24
