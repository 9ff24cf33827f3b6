"""The graph of an image encoder: patches of the image, a vision transformer, and a projector to the width of the
language model. The parts that the encoders share; ``image_kinds`` puts them together.

Walking the graph also finds every weight, with the type that the converter gives it in an ``mmproj`` file of 16 bits.
Source: llama.cpp 0c1e57098, tools/mtmd/clip.cpp (``clip_graph``) and conversion/base.py (``MmprojModel``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fitcheck.estimate.graph.tensors import BLOCKS, HOST, Dims, Graph, Tensor, dims
from fitcheck.types import MediaEncoder

CHANNELS = 3
PATCHES, POSITIONS = "v.patch_embd", "v.position_embd.weight"
HALF_PRECISION = "f16"


class Transformer(NamedTuple):
    """How the layers of an encoder are made. ``norm`` is ggml's operation; ``one_qkv``: Q, K and V are one matrix.

    ``first_norm`` and ``last_norm`` stand around all layers; ``norm_results``: what attention and feed-forward give is
    normed too, ``scaled``: multiplied by a vector; ``norm_heads``: each head of Q and K is, ``norm_values``: of V.
    """

    norm: str = "NORM"
    norm_bias: bool = True
    one_qkv: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    gated: bool = False
    ffn_bias: bool = True
    first_norm: bool = False
    last_norm: bool = False
    norm_results: bool = False
    norm_heads: bool = False
    norm_values: bool = False
    scaled: bool = False


Rotate = Callable[[Tensor], Tensor]
Mask = Callable[[int], "Tensor | None"]
After = Callable[[int, Tensor], None]


class ImageGraph(Graph):
    """Builds the graph of one encoder for ``images`` of ``wide`` x ``high`` pixels, all of it on one device.

    ``flash``: with flash attention; ``has_kernel``: the GPU has one for it, else that part runs on the host.
    """

    def __init__(
        self,
        encoder: MediaEncoder,
        wide: int,
        high: int,
        flash: bool,
        gpus: int,
        has_kernel: bool = True,
        images: int = 1,
    ) -> None:
        self.place = 1 if gpus else HOST
        super().__init__((self.place,), gpus, lambda _layer, _name: HALF_PRECISION)
        self.encoder = encoder
        self.flash, self.has_kernel = flash, has_kernel
        self.wide, self.high, self.images = wide, high, images
        self.columns, self.lines = wide // encoder.patch_size, high // encoder.patch_size
        self.n = self.columns * self.lines
        self.d = encoder.hidden_size
        self.head_size = encoder.head_size or (self.d // encoder.heads if encoder.heads else 0)
        self.weights: dict[str, Tensor] = {}
        self.clamps = False

    # ---- weights

    def same_as(self, name: str, other: str) -> None:
        """The file has a layer ``name`` that is not run, like the layer ``other``."""
        for key, weight in tuple(self.weights.items()):
            if key.startswith(f"{other}."):
                self.weights[name + key.removeprefix(other)] = weight

    def weight(self, name: str, *ne: int, type_: str = "") -> Tensor:
        """The weight of this name in the file, the same tensor each time."""
        if name not in self.weights:
            self.weights[name] = self.stored(type_ or stored_type(name, dims(ne)), self.place, *ne)
        return self.weights[name]

    def weigh(self, node: Tensor) -> Tensor:
        """``node`` reads a weight and so runs where the weights are."""
        node.home = self.place
        return node

    def linear(self, x: Tensor, name: str, width: int, bias: bool = False) -> Tensor:
        """``weight @ x``, between clamps where the encoder has them, and a bias."""
        if self.clamps:
            x = self.same("CLAMP", x)
        matrix = self.weight(f"{name}.weight", x.ne[0], width)
        y = self.weigh(Tensor("f32", (width, *x.ne[1:]), "MUL_MAT", (matrix, x)))
        if self.clamps:
            y = self.same("CLAMP", y)
        return self.with_vector("ADD", y, f"{name}.bias") if bias else y

    def with_vector(self, op: str, x: Tensor, name: str) -> Tensor:
        """``x op vector`` for each row of ``x``."""
        return self.weigh(self.same(op, x, self.weight(name, x.ne[0])))

    def normed(self, x: Tensor, name: str = "", op: str = "NORM", bias: bool = False) -> Tensor:
        """A norm with its weight and bias; without a ``name`` it has none."""
        x = self.same(op, x)
        if name:
            x = self.with_vector("MUL", x, f"{name}.weight")
        return self.with_vector("ADD", x, f"{name}.bias") if bias else x

    # ---- from pixels to patches

    def pixels(self) -> Tensor:
        """The image."""
        return self.input("f32", self.wide, self.high, CHANNELS, self.images)

    def convolved(self, x: Tensor, kernel: Tensor, stride: int, padding: int = 0) -> Tensor:
        """``ggml_conv_2d``: x [wide, high, channels], kernel [k, k, channels, out]."""
        k, _, channels, out = kernel.ne
        wide, high = ((side + 2 * padding - k) // stride + 1 for side in x.ne[:2])
        windows = self.weigh(self.op("IM2COL", "f16", (k * k * channels, wide, high, x.ne[3]), kernel, x))
        rows = self.reshape(windows, windows.ne[0], wide * high * x.ne[3])
        product = self.weigh(self.product(rows, self.reshape(kernel, k * k * channels, out)))
        product = self.reshape(product, wide, high, x.ne[3], out)
        return self.cont(self.permute(product, 0, 1, 3, 2))

    def patch_kernel(self, name: str = f"{PATCHES}.weight", type_: str = "") -> Tensor:
        """The weight that makes a patch a vector."""
        side = self.encoder.patch_size
        return self.weight(name, side, side, CHANNELS, self.d, type_=type_)

    def patches(self, image: Tensor | None = None, bias: bool = False, type_: str = "") -> Tensor:
        """[hidden, patches] of the image, row by row."""
        x = self.convolved(image or self.pixels(), self.patch_kernel(type_=type_), self.encoder.patch_size)
        x = self.cont(self.transpose(self.reshape(x, self.n, self.d, self.images)))
        return self.with_vector("ADD", x, f"{PATCHES}.bias") if bias else x

    def merged_patches(self) -> Tensor:
        """[hidden, patches], the patches of one token side by side; two kernels, for two frames of a video."""
        image = self.pixels()
        first = self.convolved(image, self.patch_kernel(), self.encoder.patch_size)
        second = self.convolved(image, self.patch_kernel(f"{PATCHES}.weight.1"), self.encoder.patch_size)
        return self.in_token_order(self.permute(self.add(first, second), 1, 2, 0, 3))

    def in_token_order(self, x: Tensor) -> Tensor:
        """[hidden, patches] of what lies row by row, the patches of one token (2 x 2) next to each other."""
        x = self.cont(x, 2 * self.d, self.columns // 2, self.lines)
        x = self.reshape(x, 2 * self.d, self.columns // 2, 2, self.lines // 2)
        return self.cont(self.permute(x, 0, 2, 1, 3), self.d, self.n)

    # ---- positions

    def position_table(self) -> Tensor:
        """[hidden, positions], learned for images of one size."""
        return self.weight(POSITIONS, self.d, self.encoder.positions)

    def resized_positions(self) -> Tensor:
        """The table of positions interpolated to this image."""
        table = self.position_table()
        side = int(self.encoder.positions**0.5)
        if self.columns == self.lines == side:
            return table
        table = self.permute(self.reshape(table, self.d, side, side), 2, 0, 1, 3)
        table = self.op("UPSCALE", "f32", (self.columns, self.lines, self.d), table)
        return self.cont(self.permute(table, 1, 2, 0, 3), self.d, self.n)

    def rotation_by_axis(self, first: Tensor, second: Tensor) -> Rotate:
        """Rope over one half of a head by the patch's column, over the other by its row."""
        return lambda x: self.same("ROPE", self.same("ROPE", x, first), second)

    def rotation_by_sections(self) -> Rotate:
        """Rope over four sections of a head at once."""
        positions = self.input("i32", 4 * self.n)
        return lambda x: self.same("ROPE", x, positions)

    # ---- the transformer

    def attends_fully(self, layer: int) -> bool:
        """Whether a layer attends beyond windows."""
        every = self.encoder.full_attention_every
        return not every or (layer + 1) % every == 0

    def transformer(
        self,
        x: Tensor,
        how: Transformer,
        rotate: Rotate | None = None,
        mask: Mask | None = None,
        after: After | None = None,
        layers: int | None = None,
    ) -> Tensor:
        """All layers (or the first ``layers``) over x [hidden, patches].

        ``mask(layer)`` is its attention mask, ``after`` is told each result.
        """
        x = self.reshape(x, self.d, x.ne[1] * x.ne[2])
        if how.first_norm:
            x = self.normed(x, "v.pre_ln", how.norm, how.norm_bias)
        for layer in range(self.encoder.layers if layers is None else layers):
            x = self._layer(f"v.blk.{layer}", x, how, rotate, mask(layer) if mask else None)
            if after:
                after(layer, x)
        return self.normed(x, "v.post_ln", how.norm, how.norm_bias) if how.last_norm else x

    def _layer(self, name: str, x: Tensor, how: Transformer, rotate: Rotate | None, mask: Tensor | None) -> Tensor:
        normed = self.normed(x, f"{name}.ln1", how.norm, how.norm_bias)
        y = self._attention(name, self._heads(name, normed, how), how, rotate, mask)
        y = self.with_vector("MUL", y, f"{name}.ls1.weight") if how.scaled else y
        y = self.normed(y, f"{name}.attn_post_norm", how.norm) if how.norm_results else y
        x = self.add(y, x)
        y = self.normed(x, f"{name}.ln2", how.norm, how.norm_bias)
        y = self.feed_forward(y, f"{name}.ffn_", self.encoder.ffn_size, how.gated, how.ffn_bias)
        y = self.normed(y, f"{name}.ffn_post_norm", how.norm) if how.norm_results else y
        y = self.with_vector("MUL", y, f"{name}.ls2.weight") if how.scaled else y
        return self.add(x, y)

    def _heads(self, name: str, x: Tensor, how: Transformer) -> list[Tensor]:
        """Q, K and V as [head, heads, patches, images]."""
        heads, size, n = self.encoder.heads, self.head_size, x.ne[1] // self.images
        width = heads * size
        if how.one_qkv:
            qkv = self.linear(x, f"{name}.attn_qkv", 3 * width, how.qkv_bias)
            strides = (4 * size, 12 * width, 12 * width * n)
            parts = [self.view(qkv, (size, heads, n, self.images), strides) for _ in "qkv"]
        else:
            parts = [self.linear(x, f"{name}.attn_{part}", width, how.qkv_bias) for part in "qkv"]
            parts = [self.reshape(part, size, heads, n, self.images) for part in parts]
        if how.norm_heads:
            parts[:2] = [
                self.normed(part, f"{name}.attn_{letter}_norm", how.norm)
                for part, letter in zip(parts, "qk", strict=False)
            ]
        return parts

    def _attention(
        self, name: str, qkv: list[Tensor], how: Transformer, rotate: Rotate | None, mask: Tensor | None
    ) -> Tensor:
        q, k, v = qkv
        if rotate:
            q, k = rotate(q), rotate(k)
        if how.norm_values:
            v = self.normed(v, op="RMS_NORM")
        return self.linear(self.attend(q, k, v, mask), f"{name}.attn_out", self.d, how.out_bias)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """[width, patches] of what attention gives for q, k and v [head, heads, patches, images]."""
        for part in (q, k, v):
            self.expand(part)
        size, heads, n, images = q.ne
        q, k = self.permute(q, 0, 2, 1, 3), self.permute(k, 0, 2, 1, 3)
        if self.flash:
            mask = self.half(mask) if mask else self.stored("f16", self.place, 0, 0, 0, 0)
            k, v = self.half(k), self.half(self.permute(v, 0, 2, 1, 3))
            y = self.op("FLASH_ATTN", "f32", (size, heads, n, images), q, k, v, mask)
            y.host_only = not self.has_kernel
            return self.reshape(y, size * heads, n * images)
        v = self.cont(self.permute(v, 1, 2, 0, 3))
        scores = self.product(k, q)
        scores = self.same("SOFT_MAX", scores, mask) if mask else self.same("SOFT_MAX", scores)
        return self.cont(self.permute(self.product(v, scores), 0, 2, 1, 3), size * heads, n * images)

    def half(self, x: Tensor) -> Tensor:
        """A copy in 16 bits."""
        return self.op("CPY", "f16", x.ne, x)

    def feed_forward(self, x: Tensor, name: str, width: int, gated: bool, bias: bool, out: int = 0) -> Tensor:
        """Up, activation, down; with a gate their product."""
        out = out or x.ne[0]
        up = self.linear(x, f"{name}up", width, bias)
        if gated:
            y = self.glu(self.linear(x, f"{name}gate", width, bias), up)
        else:
            y = self.unary(up)
        return self.linear(y, f"{name}down", out, bias)

    def two_layers(self, x: Tensor, names: tuple[str, str], widths: tuple[int, int], bias: bool = True) -> Tensor:
        """Linear, activation, linear: most projectors."""
        x = self.unary(self.linear(x, names[0], widths[0], bias))
        return self.linear(x, names[1], widths[1], bias)

    # ---- from patches to tokens

    def shuffled(self, x: Tensor) -> Tensor:
        """Each square of ``merge`` x ``merge`` patches as one vector."""
        merge = self.encoder.merge
        x = self.reshape(x, merge * self.d, self.columns // merge, self.lines, self.images)
        across = merge * merge * self.d
        x = self.cont(self.permute(x, 0, 2, 1, 3), across, self.lines // merge, self.columns // merge, self.images)
        return self.cont(self.permute(x, 0, 2, 1, 3), across, self.n // merge**2, self.images)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean of each square of ``merge`` x ``merge`` patches."""
        merge = self.encoder.merge
        x = self.cont(self.transpose(x), self.columns, self.lines, self.d)
        x = self.op("POOL_2D", "f32", (self.columns // merge, self.lines // merge, self.d), x)
        return self.cont(self.transpose(self.reshape(x, x.ne[0] * x.ne[1], self.d)))


def stored_type(name: str, ne: Dims) -> str:
    """The type of a weight in an ``mmproj`` file of 16 bits: vectors, norms, positions and whatever is not called a
    weight stay in 32.
    """
    if ne[1:] == (1, 1, 1) or name.endswith("_norm.weight") or name == POSITIONS:
        return "f32"
    return HALF_PRECISION if ".weight" in name else "f32"


def bytes_of(weight: Tensor, alignment: int) -> int:
    """Bytes of a weight in a buffer."""
    size = weight.elements * BLOCKS[weight.type][1]
    return -(-size // alignment) * alignment
