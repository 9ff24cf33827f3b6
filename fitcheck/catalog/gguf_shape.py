"""Hyper-parameters and tensors of a GGUF file -> ``Shape``.

Sizes come from the metadata that llama.cpp reads (src/llama-model.cpp, src/models/*.cpp, 0c1e570). What a layer is
made of comes from its tensors; without a tensor list, from the row of the architecture. A layer that has no form in
``types`` keeps its parameter count and a bound for its cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from fitcheck.catalog.gguf_architectures import ARCHITECTURES, Architecture
from fitcheck.catalog.gguf_described import DescribedLayer, outside_described
from fitcheck.catalog.gguf_listed import NO_PARAMETERS, Dims, ListedLayer, count_elements, outside_listed
from fitcheck.catalog.gguf_sizes import MAX_LAYERS, Sizes
from fitcheck.catalog.plausible import implausible
from fitcheck.estimate.tensors import Layout, elements, layer_tensors
from fitcheck.types import Layer, Shape, Tensor

_UNKNOWN = Architecture()


def shape_from_gguf(
    architecture: str, metadata: Mapping[str, Any], n_vocab: int, tensors: Iterable[Tensor] | None = None
) -> Shape | None:
    """The shape that ``architecture`` has with this metadata (keys as in the file: ``llama.block_count``, …).

    ``n_vocab`` is the number of tokens. With ``tensors`` any architecture gets a shape; without them None is returned
    for one that has no row in ``ARCHITECTURES``, or one whose row says that tensors are needed. None also stands for
    metadata without depth or width.
    """
    row = ARCHITECTURES.get(architecture)
    sizes = Sizes(architecture, metadata)
    if tensors is None:
        return _described_shape(row, sizes, n_vocab) if row is not None else None
    row = row or _UNKNOWN
    hidden, n_layers = sizes.get("embedding_length"), sizes.depth
    if not hidden or not 0 < n_layers <= MAX_LAYERS:
        return None
    windows = _windows(row, sizes, n_layers)
    shared_from = _first_layer_without_cache(row, sizes, n_layers)
    outside, blocks = _by_layer(tensors, n_layers)
    layers = [ListedLayer(blocks[i], sizes, i, windows[i], i >= shared_from).layer() for i in range(n_layers)]
    shape = _shape(layers, **outside_listed(outside, blocks, row, sizes, hidden, n_vocab))
    return _with_rest(shape, layers, blocks, Layout(stored_shared_kv=row.stored_shared_kv))


def described_shape(row: Architecture, metadata: Mapping[str, Any], n_vocab: int) -> Shape | None:
    """The shape of a structure with these hyper-parameters (keys with any one prefix); None without depth or width."""
    return _described_shape(row, Sizes(next(iter(metadata), "").split(".")[0], metadata), n_vocab)


def _described_shape(row: Architecture, sizes: Sizes, n_vocab: int) -> Shape | None:
    hidden, n_layers = sizes.get("embedding_length"), sizes.depth
    if row.needs_tensors or not hidden or not 0 < n_layers <= MAX_LAYERS:
        return None
    windows = _windows(row, sizes, n_layers)
    shared_from = _first_layer_without_cache(row, sizes, n_layers)
    layers = [DescribedLayer(row, sizes, i, windows[i], i >= shared_from).layer() for i in range(n_layers)]
    return _shape(layers, **outside_described(row, sizes, hidden, n_vocab))


def _with_rest(shape: Shape, layers: list[Layer], blocks: list[Dims], layout: Layout) -> Shape:
    """Count what a layer has beyond its form, so that the parameters are those of the file."""
    if implausible(shape):
        return shape
    modelled = {layer: _modelled(layer, shape, layout) for layer in shape.kinds}
    counted = []
    for layer, block in zip(layers, blocks, strict=True):
        found = count_elements(dims for name, dims in block.items() if not name.startswith(NO_PARAMETERS))
        counted.append(replace(layer, extra_params=max(0, found - modelled[layer])))
    whole = _shape(counted, hidden_size=shape.hidden_size, vocab_size=shape.vocab_size)
    return replace(shape, kinds=whole.kinds, layers=whole.layers)


def _modelled(layer: Layer, shape: Shape, layout: Layout) -> int:
    """Elements that the form of a layer accounts for."""
    parts = layer_tensors(layer, shape, layout)
    return elements(parts.mixer) + elements(parts.ffn) + elements(parts.experts)


def _shape(layers: list[Layer], **outside: Any) -> Shape:
    """Name equal layers by the same letter."""
    letters: dict[Layer, str] = {}
    text = "".join(letters.setdefault(layer, chr(97 + len(letters))) for layer in layers)
    return Shape(kinds=tuple(letters), layers=text, **outside)


def _by_layer(tensors: Iterable[Tensor], n_layers: int) -> tuple[Dims, list[Dims]]:
    """Tensors outside layers, and those of each layer, by name. Prediction heads, past the last layer, fall out.

    T5 has two stacks, ``enc.`` and ``dec.``. Where there are both, a layer is the decoder's, and what the encoder has
    at the same place is counted with it, as the engine loads them to one device.
    """
    outside: Dims = {}
    blocks: list[Dims] = [{} for _ in range(n_layers)]
    named = {tensor.name: tensor.dims for tensor in tensors}
    main = "dec." if any(name.startswith("dec.blk.") for name in named) else "enc."
    for name, dims in named.items():
        stack = name[:4] if name.startswith(("enc.blk.", "dec.blk.")) else main
        parts = name.removeprefix(stack).split(".", 2)
        if parts[0] == "blk" and len(parts) == 3 and parts[1].isdecimal():
            index = int(parts[1][:4])
            if index < n_layers:
                inside = parts[2].replace("attn_o.", "attn_output.")
                blocks[index][inside if stack == main else stack + inside] = dims
        else:
            outside[name] = dims
    return outside, blocks


def _windows(row: Architecture, sizes: Sizes, n_layers: int) -> list[int | None]:
    """The sliding window of each layer in tokens, None for full attention."""
    rule = row.windows
    if rule is None or rule.only_layers not in (None, n_layers):
        return [None] * n_layers
    named = sizes.get("attention.sliding_window", -1)
    tokens = rule.tokens if rule.fixed and named != 0 else (named if named >= 0 else rule.tokens)
    listed = sizes.array("attention.sliding_window_pattern")
    if listed is not None:
        return [tokens if tokens and i < len(listed) and listed[i] else None for i in range(n_layers)]
    period = sizes.get("attention.sliding_window_pattern", rule.period)
    full = 0 if rule.full_first else period - 1
    return [tokens if tokens and (period == 0 or i % period != full) else None for i in range(n_layers)]


def _first_layer_without_cache(row: Architecture, sizes: Sizes, n_layers: int) -> int:
    """From this layer on, layers read the cache of earlier ones."""
    if row.layers_with_cache is not None:
        return row.layers_with_cache
    return n_layers - sizes.get("attention.shared_kv_layers")
