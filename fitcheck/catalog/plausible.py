"""Refuse shapes that no model has, before arithmetic divides by a width of zero or counts 2^63 heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

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
    for name, value, least in _numbers(shape):
        most = MAX_COUNT if name in _COUNTS else MAX_SIZE
        if not least <= value <= most:
            return f"{name} is {value:,}"
    for ffn in (kind.ffn for kind in shape.kinds):
        if isinstance(ffn, MixtureOfExperts) and ffn.experts_per_token > ffn.n_experts:
            return f"experts_per_token is {ffn.experts_per_token:,} of {ffn.n_experts:,}"
    return None


def _numbers(value: Any) -> Iterator[tuple[str, int, int]]:
    """Every whole number of a struct and of the structs in it: field name, number, the least that it may be.

    A number that is 0 unless stated may be 0: it counts something that most models do not have.
    """
    for field in fields(value):
        item = getattr(value, field.name)
        for each in item if isinstance(item, tuple) else (item,):
            if isinstance(each, Struct):
                yield from _numbers(each)
            elif type(each) is int:
                yield field.name, each, 0 if field.name in _MAY_BE_ZERO or field.default == 0 else 1
