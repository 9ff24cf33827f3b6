"""Files whose layers are not one stack of attention and feed-forward."""

from __future__ import annotations

from typing import Any

import pytest

from fitcheck import facts
from fitcheck.accuracy.memory_score import read
from fitcheck.catalog.gguf_shape import shape_from_gguf
from fitcheck.estimate.quantize import store
from fitcheck.estimate.tensors import parameters
from fitcheck.types import CountedMixer, Model, Tensor

ROWS: dict[str, Any] = {
    row["architecture"]: row
    for row in read("engine_graphs.json.gz")["rows"]
    if row.get("tensors") and "variant" not in row
}


def _model(architecture: str) -> Model:
    row = ROWS[architecture]
    tensors = tuple(Tensor(name, tuple(dims), "F32") for name, dims in row["tensors"].items())
    metadata = {f"{architecture}.{key}": value for key, value in row["hyperparameters"].items()}
    shape = shape_from_gguf(architecture, metadata, row["vocabulary"], tensors)
    assert shape is not None
    params, active = parameters(shape)
    return Model(architecture, architecture, shape, params, active, architecture, tensors=tensors, file_quant="F32")


def _elements(model: Model) -> int:
    total = 0
    for tensor in model.tensors or ():
        product = 1
        for dim in tensor.dims:
            product *= dim
        total += product
    return total


@pytest.mark.parametrize("architecture", sorted(set(ROWS) - {"talkie"}))  # its numbers per layer are no parameters
def test_parameters_are_the_elements_of_the_file(architecture: str) -> None:
    model = _model(architecture)
    assert model.params == _elements(model)


def test_both_stacks_of_an_encoder_and_decoder_lie_with_their_layers() -> None:
    """Else splits over devices would put half of the model beside the output matrix."""
    stored = store(_model("t5"), "F32", facts.load().quantizations)
    layers = [stored.kinds[ord(letter) - 97] for letter in stored.layers]
    sizes = [layer.mixer.file + layer.ffn.file for layer in layers]
    assert max(sizes) < 1.01 * min(sizes)
    assert stored.beside_output.file < min(sizes) / 100


@pytest.mark.parametrize(("architecture", "version"), [("rwkv6", 6), ("rwkv6qwen2", 6), ("rwkv7", 7), ("arwkv7", 7)])
def test_rwkv_is_told_by_its_tensors(architecture: str, version: int) -> None:
    shape = _model(architecture).shape
    assert shape is not None
    for kind in shape.kinds:
        assert isinstance(kind.mixer, CountedMixer) and kind.mixer.time_mix is not None
        assert kind.mixer.time_mix.version == version
        assert bool(kind.mixer.time_mix.channel_width) == (architecture in ("rwkv6", "rwkv7"))


def test_passes_of_hrm_text_share_the_layers_of_two_stacks() -> None:
    row, model = ROWS["hrm_text"], _model("hrm_text")
    assert model.shape is not None
    assert model.shape.n_layers == 2 * row["hyperparameters"]["hrm.layers_per_stack"]
    assert model.shape.n_layers * model.shape.num_loops == row["hyperparameters"]["block_count"]
