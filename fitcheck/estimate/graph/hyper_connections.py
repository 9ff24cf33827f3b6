"""Hyper-connections: several residual streams, of which a block reads a weighted sum and to which it writes.

``read`` and ``write`` are those of DeepSeek-V4 and GLM-5.3-Flash, where a matrix per token, made doubly stochastic,
also mixes the streams.
Source: llama.cpp 0c1e57098, build_hc_pre and build_hc_post of src/models/deepseek4.cpp and glm5-next.cpp.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.estimate.graph.model import ModelGraph
from fitcheck.estimate.graph.tensors import HOST, Tensor

STREAMS = 4  # hyper_connection.count of all published models
MIXES = (2 + STREAMS) * STREAMS  # numbers per token: what is read, what is written, and how streams are mixed


class Shares(NamedTuple):
    """How a block's result is written: its weight per stream, and the matrix that mixes the streams."""

    written: Tensor
    mixed: Tensor


def fuses_writes(g: ModelGraph) -> bool:
    """Whether one kernel writes to all streams. Not with layers on the host beside a GPU: where the two meet, the
    engine finds the write on the GPU, not with its layer, and gives the kernel up."""
    return not g.gpus or HOST not in g.layer_devices[:-1]


def copied(g: ModelGraph, x: Tensor) -> Tensor:
    """The embedding in every stream: [width, streams, tokens]."""
    return g.repeat(g.reshape(x, g.d, 1, g.tokens), g.d, STREAMS, g.tokens)


def read(g: ModelGraph, il: int, x: Tensor, name: str) -> tuple[Tensor, Shares]:
    """The sum of the streams that the block ``name`` (hc_attn, hc_ffn) reads, and how it writes."""
    tokens = x.ne[2]
    mixes = g.matmul(il, f"{name}_fn", MIXES, g.rms(g.reshape(x, g.d * STREAMS, tokens)))
    before, after = (_affine(g, il, mixes) for _ in range(2))
    mixed = g.op("HC_COMB", "f32", (STREAMS, STREAMS, tokens), mixes)
    for part, count in (("scale", 3), ("base", MIXES)):
        g.weighted(mixed, il, f"{name}_{part}", (count, 1, 1, 1), STREAMS * tokens, "f32")
    return g.op("HC_PRE", "f32", (g.d, tokens), x, before), Shares(after, mixed)


def _affine(g: ModelGraph, il: int, mixes: Tensor) -> Tensor:
    """A weight per stream: scaled, shifted and squashed. Scale and base are views of weights, which tie nothing to a
    device but are copied to it."""
    device = g.layer_devices[il]
    scale, base = (g.view(g.stored("f32", device, size), (part,)) for size, part in ((3, 1), (MIXES, STREAMS)))
    x = g.view(mixes, (STREAMS, mixes.ne[1]), (mixes.nb()[1],))
    return g.scale(g.unary(g.add(g.mul(x, scale), base)))


def write(g: ModelGraph, y: Tensor, x: Tensor, shares: Shares) -> Tensor:
    """The streams ``x`` mixed, and the block's result ``y`` added to each."""
    if fuses_writes(g):
        return fused_write(g, y, x, shares)
    streams: Tensor | None = None
    for _ in range(STREAMS):
        stream = g.reshape(_written(g, y, x, shares), g.d, 1, x.ne[2])
        streams = stream if streams is None else g.concat(streams, stream, 1)
    assert streams is not None
    return streams


def fused_write(g: ModelGraph, y: Tensor, x: Tensor, shares: Shares) -> Tensor:
    """``write`` by one kernel wherever layers lie: DeepSeek-V4, whose writes the engine keeps with their layers."""
    return g.op("HC_POST", "f32", x.ne, y, x, *shares)


def _written(g: ModelGraph, y: Tensor, x: Tensor, shares: Shares) -> Tensor:
    """One stream of ``write``, step by step."""
    tokens = x.ne[2]
    total = g.mul(y, g.view(shares.written, (1, tokens), (shares.written.nb()[1],)))
    for _ in range(STREAMS):
        stream = g.view(x, (g.d, tokens), (x.nb()[2],))
        total = g.add(total, g.mul(stream, g.view(shares.mixed, (1, tokens), (shares.mixed.nb()[2],))))
    return total


def mean(g: ModelGraph, x: Tensor) -> Tensor:
    """The mean of the streams."""
    views = [g.view(x, (g.d, x.ne[2]), (x.nb()[2],)) for _ in range(STREAMS)]
    total = views[0]
    for stream in views[1:]:
        total = g.add(total, stream)
    return g.scale(total)
