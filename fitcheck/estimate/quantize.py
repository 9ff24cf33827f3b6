"""A model in one quantisation, as exact bytes by role.

llama.cpp chooses a type per tensor from the file type (the mix), the tensor's name, the layer's index and a few facts
about the model; a type whose block does not divide the row falls back to another. The choices are data
(``data/quantizations.json``); this module applies them. Source: ``src/llama-quant.cpp`` of llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from msgspec import Struct

from fitcheck.errors import FitcheckError
from fitcheck.estimate import tensors
from fitcheck.estimate.tensors import LayerTensors, Matrix, Part
from fitcheck.types import Attention, LayerBytes, MixtureOfExperts, Model, Shape, Tensor, Weights


class Block(Struct, frozen=True):
    """``elements`` weights are stored in ``bytes`` bytes."""

    elements: int
    bytes: int


class Mix(Struct, frozen=True):
    """A file type: the type of ordinary matrices, and rules (condition, type) per tensor category, first match wins.

    ``stacked`` is the type of stacked (expert) matrices where it differs; ``embedding`` that of an untied embedding.
    """

    base: str
    output: str
    embedding: str | None = None
    stacked: str | None = None
    needs_imatrix: bool = False
    rules: dict[str, tuple[tuple[str, str], ...]] = {}


class Layout(Struct, frozen=True):
    """How the files of one llama.cpp architecture differ from the usual: see ``data/quantizations.json``."""

    fused_qkv: bool = False
    gqa_from_attention: bool = True
    layers_of_70b: int = 0
    mixes: dict[str, Mix] = {}
    output: str | None = None


class Format(Struct, frozen=True):
    """A format outside GGUF. ``bits`` per weight of what is quantised: linear matrices, experts only, or all."""

    bits: float
    runtimes: tuple[str, ...] = ()
    source: str = ""
    group: int | None = None
    quantised: str = "linear"
    output_bits: float | None = None
    vendors: tuple[str, ...] | None = None
    compute_dtype: str | None = None
    note: str = ""


class Quantizations(Struct, frozen=True):
    """The table ``data/quantizations.json``."""

    sources: dict[str, str]
    blocks: dict[str, Block]
    fallbacks: dict[str, str]
    conditions: dict[str, str]
    mixes: dict[str, Mix]
    formats: dict[str, Format]
    kv_types: dict[str, str]
    quality: tuple[dict[str, Any], ...]
    layouts: dict[str, Layout] = {}

    def tensor_bytes(self, type_name: str, columns: int, rows: int) -> int:
        """Bytes of ``rows`` rows of ``columns`` elements in a type whose block divides the row."""
        block = self.blocks[type_name]
        return columns * rows // block.elements * block.bytes

    def fitting_type(self, type_name: str, columns: int) -> str:
        """The type itself, or what llama.cpp stores where rows of ``columns`` elements do not fill its blocks."""
        if columns % self.blocks[type_name].elements == 0:
            return type_name
        fallback = self.fallbacks.get(type_name, type_name)
        return fallback if columns % self.blocks[fallback].elements == 0 else "F16"

    def kv_row_bytes(self, kv_type: str, elements: int) -> int:
        """Bytes of one cache row of ``elements`` elements in a cache type (``f16``, ``q8_0``, …)."""
        block = self.blocks[self.kv_types[kv_type]]
        return -(-elements // block.elements) * block.bytes


class _Place(Struct):
    """What the conditions of a mix may ask about one tensor."""

    layer: int
    n_layers: int
    value: int  # how many value-like tensors came before
    n_values: int
    gqa: int
    experts: int
    big_llama: bool


def _more_bits(i: int, n: int) -> bool:
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


_CONDITIONS: dict[str, Callable[[_Place], bool]] = {
    "always": lambda p: True,
    "more bits": lambda p: _more_bits(p.layer, p.n_layers),
    "more bits of values": lambda p: _more_bits(p.value, p.n_values),
    "first eighth": lambda p: p.layer < p.n_layers // 8,
    "first sixteenth": lambda p: p.layer < p.n_layers // 16,
    "middle": lambda p: p.n_layers // 8 <= p.layer < 7 * p.n_layers // 8,
    "first 2 values": lambda p: p.value < 2,
    "first 4 values": lambda p: p.value < 4,
    "gqa 4": lambda p: p.gqa >= 4,
    "8 experts": lambda p: p.experts == 8,
    "4 experts": lambda p: p.experts >= 4,
    "70B": lambda p: p.big_llama,
    "70B gqa 4": lambda p: p.big_llama and p.gqa >= 4,
    "8 experts more bits": lambda p: p.experts == 8 and _more_bits(p.layer, p.n_layers),
}

_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
_CATEGORIES = {"attn_qkv": "attn_v", "attn_kv_b": "attn_v"}


@lru_cache(maxsize=256)
def _category(name: str) -> str:
    """The rule that a tensor falls under; llama.cpp matches parts of the name."""
    if name in _CATEGORIES:
        return _CATEGORIES[name]
    for prefix in ("ffn_up", "ffn_gate", "ffn_down"):
        if name.startswith(prefix):
            return prefix
    return name


def _chosen_type(mix: Mix, name: str, stack: int, place: _Place) -> str:
    if mix.stacked is not None:
        return mix.stacked if stack > 1 else mix.base
    for condition, type_name in mix.rules.get(_category(name), ()):
        if _CONDITIONS[condition](place):
            return type_name
    return mix.base


def _part_bytes(part: Part, mix: Mix, place: _Place, table: Quantizations, kept_bytes: int) -> int:
    total = 4 * part.float32 + kept_bytes * part.kept
    for matrix in part.matrices:
        chosen = _chosen_type(mix, matrix.name, matrix.stack, place)
        if table.blocks[chosen].elements > 1:
            chosen = table.fitting_type(chosen, matrix.columns)
        total += table.tensor_bytes(chosen, matrix.columns, matrix.rows * matrix.stack)
    return total


def _n_experts(shape: Shape) -> int:
    return max((kind.ffn.n_experts for kind in shape.kinds if isinstance(kind.ffn, MixtureOfExperts)), default=0)


def _gqa(shape: Shape) -> int:
    for kind in shape.each_layer():
        if isinstance(kind.mixer, Attention):
            return kind.mixer.n_heads // kind.mixer.n_kv_heads
    return 0


def _letter(index: int) -> str:
    return chr(97 + index)


def _of_shape(model: Model, shape: Shape, quant: str, mix: Mix, layout: Layout, table: Quantizations) -> Weights:
    kinds = [tensors.layer_tensors(kind, shape, layout.fused_qkv) for kind in shape.kinds]
    experts = _n_experts(shape)
    n_values = sum(_count_values(kinds[ord(letter) - 97]) for letter in shape.layers)
    place = _Place(0, shape.n_layers, 0, n_values, _gqa(shape), experts, layout.layers_of_70b == shape.n_layers)
    kept = 4 if quant == "F32" else 2
    found: dict[LayerBytes, str] = {}
    letters = []
    down = 0
    for index, letter in enumerate(shape.layers):
        kind = kinds[ord(letter) - 97]
        has_ffn = bool(kind.ffn.matrices or kind.experts.matrices)
        place.layer = index if experts else down
        layer = LayerBytes(
            _part_bytes(kind.mixer, mix, place, table, kept),
            _part_bytes(kind.ffn, mix, place, table, kept),
            _part_bytes(kind.experts, mix, place, table, kept),
        )
        down += has_ffn
        place.value += _count_values(kind)
        letters.append(found.setdefault(layer, _letter(len(found))))
    hidden = shape.hidden_size
    tied = shape.tie_word_embeddings or shape.no_lm_head
    output_type = table.fitting_type(layout.output or mix.output, hidden)
    embedding_type = output_type if tied else table.fitting_type(mix.embedding or mix.base, hidden)
    embedding = table.tensor_bytes(embedding_type, hidden, shape.vocab_size)
    output = 0 if tied else table.tensor_bytes(output_type, hidden, shape.vocab_size)
    lookup = table.tensor_bytes(embedding_type, 1, 0) + 4 * shape.learned_positions * hidden
    lookup += _table_bytes(shape, embedding_type, table)
    other = 4 * (shape.final_norms * hidden * shape.norm_factor + shape.extra_params)
    other += 4 * shape.vocab_size if shape.lm_head_bias else 0
    layers = sum(layer.total * letters.count(letter) for layer, letter in found.items())
    total = layers + embedding + output + lookup + other
    return Weights(
        quant=quant,
        kinds=tuple(found),
        layers="".join(letters),
        token_embedding=embedding,
        output=output,
        lookup=lookup,
        other=other,
        tied=tied,
        total=total,
        file_bytes=total,
    )


def _count_values(kind: LayerTensors) -> int:
    return sum(1 for matrix in kind.mixer.matrices if matrix.name in _VALUES)


def _table_bytes(shape: Shape, embedding_type: str, table: Quantizations) -> int:
    rows = shape.per_layer_embedding_params // shape.vocab_size
    total = 0
    if rows:
        total += table.tensor_bytes(table.fitting_type(embedding_type, rows), rows, shape.vocab_size)
    if shape.lookup_params:
        total += table.tensor_bytes(embedding_type, shape.lookup_params, 1)
    return total


def weights(model: Model, quant: str, quantizations: Quantizations) -> Weights:
    """Bytes of ``model`` in ``quant`` by role; exact for GGUF mixes of architectures that llama.cpp runs.

    Raises FitcheckError ``unknown_quant`` for a name that is in no table, ``unknown_shape`` for a model without one.
    """
    shape = model.shape
    if shape is None:
        raise FitcheckError("unknown_shape", f"the shape of {model.id} is not known", "use a model file or hf: name")
    layout = quantizations.layouts.get(model.architecture or "", Layout())
    mix = layout.mixes.get(quant) or quantizations.mixes.get(quant)
    if mix is not None:
        return _of_shape(model, shape, quant, mix, layout, quantizations)
    raise FitcheckError("unknown_quant", f"unknown quantisation {quant}", "try Q4_K_M, Q8_0 or F16")
