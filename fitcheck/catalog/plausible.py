"""Refuse shapes that no model has, before arithmetic divides by a width of zero or counts 2^63 heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from fitcheck.types import MixtureOfExperts, Shape

MAX_SIZE = 1 << 24  # the largest vocabularies have 2^18 entries, the widest layers 2^17
MAX_COUNT = 1 << 50  # parameters

_COUNTS = frozenset(
    ("params", "extra_params", "per_layer_embedding_params", "lookup_params", "state_bytes", "window_bytes")
)
_MAY_BE_ZERO = _COUNTS | {
    *("norms", "norm_factor", "final_norms", "learned_positions", "n_shared", "latent_norm", "compress_ratio"),
    *("qk_nope_head_dim", "qk_rope_head_dim", "experts_per_token", "n_groups"),
}


def implausible(shape: Shape) -> str | None:
    """The first size that cannot be (``n_heads is 0``), None if all can."""
    for name, value in _numbers(shape):
        most = MAX_COUNT if name in _COUNTS else MAX_SIZE
        if not (0 if name in _MAY_BE_ZERO else 1) <= value <= most:
            return f"{name} is {value:,}"
    for ffn in (kind.ffn for kind in shape.kinds):
        if isinstance(ffn, MixtureOfExperts) and ffn.experts_per_token > ffn.n_experts:
            return f"experts_per_token is {ffn.experts_per_token:,} of {ffn.n_experts:,}"
    return None


def _numbers(value: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a struct and of the structs in it, by field name."""
    for name in value.__struct_fields__:
        item = getattr(value, name)
        for each in item if isinstance(item, tuple) else (item,):
            if isinstance(each, Struct):
                yield from _numbers(each)
            elif type(each) is int:
                yield name, each
