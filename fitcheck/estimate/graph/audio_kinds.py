"""Encoders of sound that stand in the same ``mmproj`` file as one of images, and so are loaded with it.

Source: llama.cpp 0c1e57098, tools/mtmd/models/gemma4a.cpp and gemma4ua.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.image import ImageGraph
from fitcheck.estimate.graph.tensors import Tensor

CHANNELS = (128, 32)  # of the two convolutions that thin out the spectrogram
CHUNK = PAST = 12  # frames that attend to each other, and to so many before them
KERNEL = 5  # of the convolution in each layer


def frames(g: ImageGraph) -> Tensor:
    """[bins, frames] of the sound."""
    sound = g.input("f32", g.wide, g.high, 1)
    return g.cont(g.transpose(sound))


def gemma4_frames(g: ImageGraph) -> Tensor:
    """No encoder: the wave itself through one matrix."""
    return g.linear(g.rms(frames(g)), "mm.a.input_projection", g.encoder.out_size)


def gemma4_conformer(g: ImageGraph) -> Tensor:
    """A conformer: half a feed-forward, attention within chunks, a convolution, the other half."""
    g.clamps = True
    x = _thinned(g, frames(g))
    blocks = -(-x.ne[1] // CHUNK)
    relative = g.input("f32", g.d, PAST + 1)
    mask = g.input("f32", CHUNK + PAST, CHUNK, blocks)
    for layer in range(g.encoder.layers):
        name = f"a.blk.{layer}"
        x = _half_feed_forward(g, x, name, "")
        x = g.add(x, g.normed(_attention(g, x, name, relative, mask), f"{name}.attn_post_norm", "RMS_NORM"))
        x = g.add(x, _convolution(g, x, name))
        x = _half_feed_forward(g, x, name, "_1")
        x = g.expand(g.normed(x, f"{name}.ln2", "RMS_NORM"))
    x = g.linear(x, "a.pre_encode.out", g.encoder.projector_size, bias=True)
    return g.linear(g.rms(x), "mm.a.input_projection", g.encoder.out_size)


def _thinned(g: ImageGraph, x: Tensor) -> Tensor:
    """A quarter of the frames, each [hidden]."""
    for i, channels in enumerate(CHANNELS):
        kernel = g.weight(f"a.conv1d.{i}.weight", 3, 3, x.ne[2], channels, type_="f32")
        x = g.cont(g.permute(g.convolved(x, kernel, 2, 1), 1, 2, 0, 3))
        x = g.cont(g.permute(g.normed(x, f"a.conv1d.{i}.norm"), 2, 0, 1, 3))
        x = g.unary(x)
    x = g.cont(g.permute(x, 1, 2, 0, 3))
    width = x.ne[0] * x.ne[1]
    g.weight("a.input_projection.weight", width, g.d, type_="f32")
    return g.linear(g.reshape(x, width, x.ne[2]), "a.input_projection", g.d)


def _half_feed_forward(g: ImageGraph, x: Tensor, name: str, which: str) -> Tensor:
    y = g.normed(x, f"{name}.ffn_norm{which}", "RMS_NORM")
    y = g.unary(g.linear(y, f"{name}.ffn_up{which}", g.encoder.ffn_size))
    y = g.linear(y, f"{name}.ffn_down{which}", g.d)
    return g.add(x, g.scale(g.normed(y, f"{name}.ffn_post_norm{which}", "RMS_NORM")))


def _attention(g: ImageGraph, x: Tensor, name: str, relative: Tensor, mask: Tensor) -> Tensor:
    size, heads, n = g.head_size, g.encoder.heads, x.ne[1]
    blocks = mask.ne[2]
    normed = g.normed(x, f"{name}.attn_pre_norm", "RMS_NORM")
    q, k, v = (g.reshape(g.linear(normed, f"{name}.attn_{part}", g.d), size, heads, n) for part in "qkv")
    q = g.weigh(g.mul(g.scale(q), g.weight(f"{name}.per_dim_scale.weight", size)))
    k = g.scale(k)
    q = g.reshape(g.op("PAD", "f32", (size, heads, CHUNK * blocks), q), size, heads, CHUNK, blocks)
    q = g.cont(g.permute(q, 0, 3, 1, 2))
    k = g.cont(g.permute(_overlapping(g, k, blocks), 0, 3, 1, 2))
    v = g.cont(g.permute(_overlapping(g, v, blocks), 1, 3, 0, 2))
    scores = g.product(k, q)
    scores = g.add(scores, _shifted(g, name, q, relative, blocks))
    scores = g.add(g.scale(g.unary(g.scale(scores))), mask)
    y = g.product(v, g.same("SOFT_MAX", scores))
    y = g.cont(g.permute(y, 0, 2, 3, 1))
    y = g.cont(y, size * heads, CHUNK * blocks)
    if n < CHUNK * blocks:
        y = g.cont(g.view(y, (size * heads, n)))
    return g.linear(y, f"{name}.attn_out", g.d)


def _overlapping(g: ImageGraph, x: Tensor, blocks: int) -> Tensor:
    """[head, heads, chunk and past, blocks]: each block with what comes before it."""
    size, heads, _, _ = x.ne
    context = CHUNK + PAST
    x = g.op("PAD", "f32", (size, heads, context * blocks), x)
    row, frame = 4 * size, 4 * size * heads
    return g.cont(g.view(x, (size, heads, context, blocks), (row, frame, CHUNK * frame)))


def _shifted(g: ImageGraph, name: str, q: Tensor, relative: Tensor, blocks: int) -> Tensor:
    """Scores by distance, moved so that they stand beside those by content."""
    size, heads, context, distances = g.head_size, g.encoder.heads, CHUNK + PAST, PAST + 1
    matrix = g.weight(f"{name}.attn_k_rel.weight", g.d, g.d)
    p = g.reshape(g.weigh(g.product(matrix, relative)), size, heads, distances)
    p = g.cont(g.permute(p, 0, 2, 1, 3))
    y = g.product(p, g.reshape(q, size, CHUNK * blocks, heads))
    y = g.op("PAD", "f32", (context + 1, CHUNK, blocks, heads), g.reshape(y, distances, CHUNK, blocks, heads))
    y = g.reshape(y, (context + 1) * CHUNK, blocks, heads)
    row = 4 * (context + 1) * CHUNK
    y = g.cont(g.view(y, (CHUNK * context, blocks, heads), (row, row * blocks)))
    return g.reshape(y, context, CHUNK, blocks, heads)


def _convolution(g: ImageGraph, x: Tensor, name: str) -> Tensor:
    y = g.linear(g.normed(x, f"{name}.conv_norm", "RMS_NORM"), f"{name}.conv_pw1", 2 * g.d)
    n, row = y.ne[1], 8 * g.d
    gate = g.unary(g.cont(g.view(y, (g.d, n), (row,))))
    y = g.cont(g.transpose(g.mul(g.view(y, (g.d, n), (row,)), gate)))
    y = g.op("PAD", "f32", (n + KERNEL - 1, g.d), y)
    y = g.weigh(g.op("SSM_CONV", "f32", (g.d, n), y, g.weight(f"{name}.conv_dw.weight", KERNEL, g.d, type_="f32")))
    y = g.unary(g.normed(y, f"{name}.norm_conv", "RMS_NORM"))
    return g.linear(y, f"{name}.conv_pw2", g.d)
