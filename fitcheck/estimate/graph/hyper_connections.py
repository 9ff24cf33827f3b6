"""Hyper-connections: several residual streams, of which a block reads a weighted sum and to which it writes.

``read`` and ``write`` are those of DeepSeek-V4 and GLM-5.3-Flash, where a matrix per token, made doubly stochastic,
also mixes the streams. One operation each, as the engine's kernels do it.
Source: llama.cpp 0c1e57098, build_hc_pre and build_hc_post of src/models/deepseek4.cpp and glm5-next.cpp.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.estimate.graph.model import ModelGraph
from fitcheck.estimate.graph.tensors import Tensor

STREAMS = 4  # hyper_connection.count of all published models
MIXES = (2 + STREAMS) * STREAMS  # numbers per token: what is read, what is written, and how streams are mixed


class Shares(NamedTuple):
    """How a block's result is written: its weight per stream, and the matrix that mixes the streams."""

    written: Tensor
    mixed: Tensor


def copied(g: ModelGraph, x: Tensor) -> Tensor:
    """The embedding in every stream: [width, streams, tokens]."""
    return g.repeat(g.reshape(x, g.d, 1, g.tokens), g.d, STREAMS, g.tokens)


def read(g: ModelGraph, il: int, x: Tensor, name: str) -> tuple[Tensor, Shares]:
    """The sum of the streams that the block ``name`` (hc_attn, hc_ffn) reads, and how it writes."""
    tokens = x.ne[2]
    mixes = g.matmul(il, f"{name}_fn", MIXES, g.rms(g.reshape(x, g.d * STREAMS, tokens)))
    before, after = (_affine(g, g.view(mixes, (STREAMS, tokens), (mixes.nb()[1],))) for _ in range(2))
    mixed = g.op("HC_COMB", "f32", (STREAMS, STREAMS, tokens), mixes)
    for part, count in (("scale", 3), ("base", MIXES)):
        g.weighted(mixed, il, f"{name}_{part}", (count, 1, 1, 1), STREAMS * tokens, "f32")
    return g.op("HC_PRE", "f32", (g.d, tokens), x, before), Shares(after, mixed)


def _affine(g: ModelGraph, x: Tensor) -> Tensor:
    """Scaled, shifted and squashed; scale and base are views of weights, which tie nothing to a device."""
    return g.scale(g.unary(g.same("ADD", g.same("MUL", x))))


def write(g: ModelGraph, y: Tensor, x: Tensor, shares: Shares) -> Tensor:
    """The streams ``x`` mixed, and the block's result ``y`` added to each."""
    return g.op("HC_POST", "f32", x.ne, y, x, *shares)


def mean(g: ModelGraph, x: Tensor) -> Tensor:
    """The mean of the streams."""
    views = [g.view(x, (g.d, x.ne[2]), (x.nb()[2],)) for _ in range(STREAMS)]
    total = views[0]
    for stream in views[1:]:
        total = g.add(total, stream)
    return g.scale(total)
