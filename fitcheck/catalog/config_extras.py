"""Parameters of some model families that no form of a layer holds. Source: modeling files of transformers 5.23.0."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fitcheck.types import Shape

if TYPE_CHECKING:
    from fitcheck.catalog.config_shape import Config

Counts = tuple[int, int, int]  # per layer, outside layers, in the table of per-layer inputs


def with_extras(shape: Shape, config: Config, kind: str | None) -> Shape:
    """The shape with what its family has beyond the forms; ``kind`` is a key of ``EXTRAS``."""
    if kind is None:
        return shape
    layer, outside, table = EXTRAS[kind](config, shape)
    kinds = tuple(replace(each, extra_params=layer) for each in shape.kinds)
    return replace(shape, kinds=kinds, extra_params=outside, per_layer_embedding_params=table)


def _per_layer_input(config: Config, shape: Shape) -> Counts:
    """Gemma 4: a table of inputs for each layer, projected, gated and normed."""
    width, hidden = config.number("hidden_size_per_layer_input"), shape.hidden_size
    if not width:
        return _router_scales(config, shape), 0, 0
    layer = 2 * hidden * width + hidden + _router_scales(config, shape)
    outside = hidden * width * shape.n_layers + width
    return layer, outside, config.number("vocab_size_per_layer_input") * width * shape.n_layers


def _router_scales(config: Config, shape: Shape) -> int:
    """Gemma 4: one scale per hidden unit before the router, one per expert behind it."""
    return shape.hidden_size + config.number("num_experts") if config.flag("enable_moe_block") else 0


def _alternating_updates(config: Config, shape: Shape) -> Counts:
    """Gemma 3n: per-layer inputs, and several streams that are predicted and corrected."""
    layer, outside, table = _per_layer_input(config, shape)
    hidden, streams, rank = shape.hidden_size, config.number("altup_num_inputs"), config.number("laurel_rank")
    layer += streams**2 + streams**3 + hidden * streams + 2 * hidden * rank + 3 * hidden
    return layer, outside + 2 * (streams - 1) * hidden**2, table


def _activation(config: Config, shape: Shape) -> Counts:
    """Apertus: two numbers of its activation per layer."""
    return 2, 0, 0


def _inner_norms(config: Config, shape: Shape) -> Counts:
    """BitNet: norms before the two output projections, of which the form counts two of hidden size too many."""
    return config.number("intermediate_size") - shape.hidden_size, 0, 0


def _embedding_norm(config: Config, shape: Shape) -> Counts:
    """BLOOM: a layer norm behind the embedding."""
    return 0, 2 * shape.hidden_size, 0


def _token_types(config: Config, shape: Shape) -> Counts:
    return 0, config.number("type_vocab_size") * shape.hidden_size, 0


def _token_types_and_pooler(config: Config, shape: Shape) -> Counts:
    hidden = shape.hidden_size
    return 0, config.number("type_vocab_size") * hidden + hidden * hidden + hidden, 0


EXTRAS: dict[str, Callable[[Config, Shape], Counts]] = {
    "per_layer_input": _per_layer_input,
    "alternating_updates": _alternating_updates,
    "activation": _activation,
    "inner_norms": _inner_norms,
    "embedding_norm": _embedding_norm,
    "token_types": _token_types,
    "token_types_and_pooler": _token_types_and_pooler,
}
