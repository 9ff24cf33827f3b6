"""The n-gram embedding of one layer: rows of a large table, named by the last tokens, are added to the streams.

Source: llama.cpp 0c1e57098, build_inp_ple and build_ple of src/models/qwen4exp.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.hyper_connections import STREAMS
from fitcheck.estimate.graph.model import ModelGraph
from fitcheck.estimate.graph.recurrent import StateInputs, convolution_input
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import NgramEmbedding


def gathered(g: ModelGraph, spec: NgramEmbedding) -> Tensor:
    """The table's rows of each token, behind each other; gathered on the host, as the embedding is."""
    rows = g.host_rows(g.input("i32", spec.heads * g.tokens), g.d // spec.heads)
    return g.reshape(g.expand(rows), g.d, g.tokens)


def added_ngrams(g: ModelGraph, il: int, x: Tensor, rows: Tensor, spec: NgramEmbedding, states: StateInputs) -> Tensor:
    """The streams with the rows added, gated by how well these suit each stream, once as they are and once convolved
    over the tokens."""
    key = _normed(g, il, g.matmul(il, "ple_key", g.d * STREAMS, rows), "ple_norm_key")
    fit = g.scale(g.sum_rows(g.mul(key, _normed(g, il, x, "ple_norm_query"))))
    size = g.same("SQRT", g.same("CLAMP", g.unary(fit)))
    gate = g.unary(g.mul(g.unary(fit), size))
    value = g.reshape(g.matmul(il, "ple_value", g.d, rows), g.d, 1, g.tokens)
    gated = g.mul(g.repeat(value, g.d, STREAMS, g.tokens), gate)
    normed = _normed(g, il, g.reshape(gated, g.d * STREAMS, g.tokens), "ple_norm_conv")
    convolved = _convolved(g, il, g.reshape(normed, g.d * STREAMS, g.tokens), spec, states)
    return g.add(x, g.add(gated, g.reshape(convolved, g.d, STREAMS, g.tokens)))


def _normed(g: ModelGraph, il: int, x: Tensor, name: str) -> Tensor:
    """RMS norm of each stream."""
    return g.vector("MUL", il, name, g.rms(g.reshape(x, g.d, STREAMS, g.tokens)), g.d, STREAMS)


def _convolved(g: ModelGraph, il: int, x: Tensor, spec: NgramEmbedding, states: StateInputs) -> Tensor:
    """A causal convolution over every n-th token, as a sum of shifted copies."""
    width, tokens, n = g.d * STREAMS, g.sequence_tokens, g.sequences
    new = g.transpose(g.reshape(x, width, tokens, n))
    both = convolution_input(g, il, states, new, spec.history + 1, width)
    total: Tensor | None = None
    for _ in range(spec.conv_kernel):
        shifted = g.cont(g.transpose(g.view(both, (tokens, width, n), both.nb()[1:3])))
        term = g.mul(shifted, _tap(g, il, spec, width))
        total = term if total is None else g.add(total, term)
    assert total is not None
    return g.cont(g.unary(total))


def _tap(g: ModelGraph, il: int, spec: NgramEmbedding, width: int) -> Tensor:
    """One weight per channel: a column of the kernel, which as a view ties nothing to a device; files hold 16 bits."""
    kernel = g.stored("f16", g.layer_devices[il], spec.conv_kernel, width)
    column = g.cont(g.view(kernel, (1, width), (kernel.nb()[1],)))
    return g.op("CPY", "f32", (width,), g.reshape(column, width))
