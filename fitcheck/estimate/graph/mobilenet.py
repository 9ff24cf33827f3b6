"""MobileNetV5, the image encoder of Gemma 3n: convolutions, and attention with one key head, in four stages.

There is one of it, so its stages stand here. Source: llama.cpp 0c1e57098, tools/mtmd/models/mobilenetv5.cpp; the
stages: timm 1.0.31 (PyPI), mobilenetv5.py, mobilenetv5_300m_enc.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.estimate.graph.image import ImageGraph
from fitcheck.estimate.graph.tensors import Tensor

STEM = 64
TOKENS_PER_SIDE = 16


class Edge(NamedTuple):
    """A 3 x 3 convolution to ``ratio`` times the channels and back."""

    out: int
    ratio: int


class Inverted(NamedTuple):
    """The same with a convolution per channel before (``start``) and in between (``middle``): their sides, 0: none."""

    out: int
    ratio: int
    start: int = 0
    middle: int = 0


class Attends(NamedTuple):
    """Attention of ``heads`` queries; ``thinned``: keys and values at half the resolution."""

    heads: int
    size: int
    thinned: bool


Block = Edge | Inverted | Attends
STAGES: tuple[tuple[Block, ...], ...] = (
    (Edge(128, 4),) * 3,
    (Inverted(256, 6, 3, 5), *(Inverted(256, 4, side) for side in (5, 3, 5, 3))),
    (
        Inverted(640, 6, 5, 5),
        *(Inverted(640, 4, 5),) * 7,
        Inverted(640, 1),
        *(Attends(12, 64, True), Inverted(640, 2)) * 14,
    ),
    (Inverted(1280, 6, 5, 5), *(Attends(16, 96, False), Inverted(1280, 2)) * 19),
)
FUSED_STAGES = (2, 3)  # whose results make the tokens


def mobilenet_v5(g: ImageGraph) -> Tensor:
    """The encoder, the adapter that fuses its last two stages, and one matrix to the language model."""
    x = _full(g, _padded_for(g, g.pixels(), 3), g.weight("v.conv_stem.conv.weight", 3, 3, 3, STEM, type_="f32"), 2)
    x = g.weigh(g.add(x, g.weight("v.conv_stem.conv.bias", 1, 1, STEM)))
    x = g.unary(_normed(g, x, "v.conv_stem.bn.weight"))
    features = []
    for stage, blocks in enumerate(STAGES):
        for i, block in enumerate(blocks):
            x = g.expand(_block(g, x, f"v.blk.{stage}.{i}", block, 1 if i else 2))
        if stage in FUSED_STAGES:
            features.append(x)
    x = _fused(g, features[0], features[1])
    width, channels = x.ne[0], x.ne[2]
    x = g.cont(g.permute(g.permute(x, 2, 1, 0, 3), 0, 2, 1, 3))
    x = g.scale(g.cont(g.reshape(x, channels, width * width)))
    x = g.normed(x, "mm.soft_emb_norm", "RMS_NORM")
    return g.rms(g.linear(x, "mm.input_projection", g.encoder.out_size))


def _block(g: ImageGraph, x: Tensor, name: str, block: Block, stride: int) -> Tensor:
    if isinstance(block, Edge):
        return _edge(g, x, name, block, stride)
    return _inverted(g, x, name, block, stride) if isinstance(block, Inverted) else _attention(g, x, name, block)


def _edge(g: ImageGraph, x: Tensor, name: str, block: Edge, stride: int) -> Tensor:
    channels = x.ne[2]
    kernel = g.weight(f"{name}.conv_exp.weight", 3, 3, channels, block.ratio * channels)
    y = _full(g, _padded_for(g, x, 3), kernel, 2) if stride == 2 else _full(g, x, kernel, 1, 1)
    y = g.unary(_normed(g, y, f"{name}.bn1.weight"))
    y = _normed(g, _pointwise(g, y, f"{name}.conv_pwl.weight", block.out), f"{name}.bn2.weight")
    return g.add(y, x) if y.ne == x.ne else y


def _inverted(g: ImageGraph, x: Tensor, name: str, block: Inverted, stride: int) -> Tensor:
    y = x
    if block.start:
        y = _by_channel(g, y, f"{name}.dw_start.conv.weight", block.start, 1, block.start // 2)
        y = _normed(g, y, f"{name}.dw_start.bn.weight")
    y = _pointwise(g, y, f"{name}.pw_exp.conv.weight", block.ratio * x.ne[2])
    y = g.unary(_normed(g, y, f"{name}.pw_exp.bn.weight"))
    if block.middle:
        y = _by_channel(g, _padded_for(g, y, block.middle), f"{name}.dw_mid.conv.weight", block.middle, stride)
        y = g.unary(_normed(g, y, f"{name}.dw_mid.bn.weight"))
    y = _normed(g, _pointwise(g, y, f"{name}.pw_proj.conv.weight", block.out), f"{name}.pw_proj.bn.weight")
    y = _scaled(g, y, name)
    return g.add(y, x) if y.ne == x.ne else y


def _attention(g: ImageGraph, x: Tensor, name: str, block: Attends) -> Tensor:
    heads, size = block.heads, block.size
    normed = _normed(g, x, f"{name}.norm.weight")
    q = _pointwise(g, normed, f"{name}.attn.query.proj.weight", heads * size)
    k, v = (_key_or_value(g, normed, f"{name}.attn.{part}", block) for part in ("key", "value"))
    n, cells = x.ne[0] * x.ne[1], k.ne[0] * k.ne[1]
    q = g.cont(g.permute(g.reshape(q, n, size, heads), 1, 0, 2, 3))
    k = g.cont(g.permute(g.reshape(k, cells, size), 1, 0, 2, 3))
    v = g.cont(g.reshape(v, cells, size))
    scores = g.same("SOFT_MAX", g.scale(g.product(k, q)))
    y = g.cont(g.permute(g.product(v, scores), 1, 0, 2, 3))
    y = g.cont(g.reshape(y, x.ne[0], x.ne[1], heads * size))
    y = _pointwise(g, y, f"{name}.attn.output.proj.weight", x.ne[2])
    return g.add(_scaled(g, y, name), x)


def _key_or_value(g: ImageGraph, x: Tensor, name: str, block: Attends) -> Tensor:
    if block.thinned:
        x = _by_channel(g, _padded_for(g, x, 3), f"{name}.down_conv.weight", 3, 2)
        x = _normed(g, x, f"{name}.norm.weight")
    return _pointwise(g, x, f"{name}.proj.weight", block.size)


def _fused(g: ImageGraph, high: Tensor, low: Tensor) -> Tensor:
    width, _, _, _ = high.ne
    low = g.op("UPSCALE", "f32", (width, width, low.ne[2]), low)
    x = g.concat(high, low, 2)
    x = _pointwise(g, x, "v.msfa.ffn.pw_exp.conv.weight", 2 * x.ne[2])
    x = g.unary(_normed(g, x, "v.msfa.ffn.pw_exp.bn.weight"))
    x = _pointwise(g, x, "v.msfa.ffn.pw_proj.conv.weight", g.d)
    x = _normed(g, x, "v.msfa.ffn.pw_proj.bn.weight")
    x = g.op("POOL_2D", "f32", (TOKENS_PER_SIDE, TOKENS_PER_SIDE, g.d), x)
    return _normed(g, x, "v.msfa.norm.weight")


# ---- convolutions over [wide, high, channels]


def _full(g: ImageGraph, x: Tensor, kernel: Tensor, stride: int, padding: int = 0) -> Tensor:
    """Over all channels, in one operation."""
    wide, high = ((side + 2 * padding - kernel.ne[0]) // stride + 1 for side in x.ne[:2])
    return g.weigh(g.op("CONV_2D", "f32", (wide, high, kernel.ne[3]), kernel, x))


def _pointwise(g: ImageGraph, x: Tensor, name: str, out: int) -> Tensor:
    return _full(g, x, g.weight(name, 1, 1, x.ne[2], out), 1)


def _by_channel(g: ImageGraph, x: Tensor, name: str, side: int, stride: int, padding: int = 0) -> Tensor:
    """Over each channel alone, as windows times kernels."""
    channels = x.ne[2]
    kernel = g.weight(name, side, side, 1, channels)
    wide, high = ((length + 2 * padding - side) // stride + 1 for length in x.ne[:2])
    image = g.reshape(x, x.ne[0], x.ne[1], 1, channels)
    windows = g.weigh(g.op("IM2COL", "f16", (side * side, wide, high, channels), kernel, image))
    windows = g.reshape(windows, side * side, wide * high, channels)
    y = g.weigh(g.product(g.reshape(kernel, side * side, 1, channels), windows))
    return g.reshape(y, wide, high, channels)


def _padded_for(g: ImageGraph, x: Tensor, side: int) -> Tensor:
    """Room at the edges for a convolution of ``side`` that halves an even length."""
    more = side - 2
    return g.op("PAD", "f32", (x.ne[0] + more, x.ne[1] + more, x.ne[2]), x)


def _normed(g: ImageGraph, x: Tensor, name: str) -> Tensor:
    """Over the channels, which are turned to the front and back."""
    y = g.rms(g.cont(g.permute(x, 2, 1, 0, 3)))
    return g.cont(g.permute(g.with_vector("MUL", y, name), 2, 1, 0, 3))


def _scaled(g: ImageGraph, x: Tensor, name: str) -> Tensor:
    return g.weigh(g.mul(x, g.weight(f"{name}.layer_scale.gamma", 1, 1, x.ne[2])))
