"""A config.json gives the parameters that transformers builds from it, and says what format the weights have."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fitcheck.catalog.config import model_from_config, model_from_folder
from fitcheck.catalog.config_families import FAMILIES
from fitcheck.catalog.resolve import from_path
from fitcheck.errors import FitcheckError
from fitcheck.types import Attention, CountedMixer, MixtureOfExperts

HERE = Path(__file__).parent
ROWS: list[dict[str, Any]] = json.loads((HERE / "config_counts.json").read_text())["rows"]

_spec = importlib.util.spec_from_file_location("sources_files", HERE / "conftest.py")
assert _spec is not None and _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}


def test_more_than_a_hundred_model_types_are_compared() -> None:
    assert len({row["config"]["model_type"] for row in ROWS}) >= 100


@pytest.mark.parametrize("model_type", sorted({row["config"]["model_type"] for row in ROWS}))
def test_parameters_are_those_that_transformers_builds(model_type: str) -> None:
    for row in ROWS:
        if row["config"]["model_type"] == model_type:
            model = model_from_config(row["config"], model_type)
            assert model.params == pytest.approx(row["params"], rel=1e-3), row["config"]


def test_every_known_model_type_has_its_defaults_beside_it() -> None:
    table = json.loads((HERE.parent.parent / "fitcheck/data/config_defaults.json").read_text())
    assert set(table["defaults"]) <= set(FAMILIES)
    assert set(table["text_types"].values()) - set(FAMILIES) <= {"aria_text"}


def test_an_unknown_model_type_without_weights_says_that_it_cannot() -> None:
    with pytest.raises(FitcheckError) as caught:
        model_from_config({"model_type": "newest_thing", "hidden_size": 64}, "org/newest")
    assert caught.value.code == "unreadable_file" and "newest_thing" in caught.value.message


def unknown_type(folder: Path, **changes: Any) -> Path:
    config = {"model_type": "newest_thing", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    files.write_sparse(folder / "model.safetensors", *files.safetensors_header({"w": ("BF16", [1001, 64])}))
    return folder


def test_an_unknown_model_type_with_weights_keeps_parameters_and_a_bound_for_its_cache(tmp_path: Path) -> None:
    model = model_from_folder(unknown_type(tmp_path, num_attention_heads=4, num_key_value_heads=2))
    assert (model.params, model.grade) == (1001 * 64, "C") and "newest_thing" in model.note
    assert model.files[0].bytes == (tmp_path / "model.safetensors").stat().st_size
    assert model.shape is not None and model.shape.n_layers == 2
    mixer = model.shape.kinds[0].mixer
    assert isinstance(mixer, CountedMixer) and mixer.kv_bytes_per_token == 2 * 2 * 2 * 16


def test_an_unknown_model_type_that_tells_nothing_keeps_parameters_and_bytes(tmp_path: Path) -> None:
    model = model_from_folder(unknown_type(tmp_path, vocab_size=None))
    assert (model.params, model.grade, model.shape) == (1001 * 64, "C", None) and model.note


@pytest.mark.parametrize(
    ("table", "quant"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, "AWQ"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "GPTQ-INT8"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "FP8-BLOCK"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "NF4"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}, "FP8"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}}, "NVFP4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "NVFP4"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX-4BIT"),
        ({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, "MXFP4"),
        ({"torch_dtype": "float16"}, "FP16"),
        ({}, "BF16"),
    ],
)
def test_the_format_of_the_weights_is_a_row_of_the_quantisation_table(table: dict[str, Any], quant: str) -> None:
    from fitcheck import facts

    assert model_from_config({**LLAMA, **table}, "m").file_quant == quant
    assert quant in facts.load().quantizations.formats


def test_an_mlx_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "quantization": {"group_size": 64, "bits": 4}}))
    tensors = {"model.embed_tokens.weight": ("U32", [100, 8]), "model.embed_tokens.scales": ("BF16", [100, 1])}
    files.write_sparse(tmp_path / "model.safetensors", *files.safetensors_header(tensors))
    model = from_path(tmp_path)
    assert model.file_quant == "MLX-4BIT" and model.architecture == "llama" and model.path == str(tmp_path)


def test_a_missing_weight_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FitcheckError, match="model-00001-of-00002"):
        from_path(tmp_path)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "a\\b", "..", "C:\\x"])
def test_an_index_cannot_name_files_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FitcheckError, match="outside its folder"):
        from_path(tmp_path)


def test_text_configurations_inside_multimodal_ones_are_found() -> None:
    raw = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 6},
        "vision_config": {},
    }
    model = model_from_config(raw, "gemma")
    assert model.shape is not None and model.shape.n_layers == 6
    assert model.modalities == ("text", "vision") and model.architecture == "gemma3"


def test_layer_lists_become_windows_and_mixtures() -> None:
    raw = {"model_type": "gpt_oss", "num_hidden_layers": 4, "sliding_window": 128}
    raw |= {"layer_types": ["sliding_attention", "full_attention"] * 2}
    shape = model_from_config(raw, "oss").shape
    assert shape is not None and shape.layers == "abab"
    windowed, full = (kind.mixer for kind in shape.kinds)
    assert isinstance(windowed, Attention) and isinstance(full, Attention)
    assert (windowed.window, full.window) == (128, None)
    assert all(isinstance(kind.ffn, MixtureOfExperts) for kind in shape.kinds)
