"""One function per kind of image encoder: what llama.cpp's graph for an ``mmproj`` file of that projector type does.

The names are those of ``clip.projector_type``. Source: llama.cpp 0c1e57098, tools/mtmd/models/*.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fitcheck.estimate.graph.audio_kinds import gemma4_conformer, gemma4_frames
from fitcheck.estimate.graph.image import PATCHES, ImageGraph, Transformer
from fitcheck.estimate.graph.mobilenet import mobilenet_v5
from fitcheck.estimate.graph.tensors import Tensor

QUERIES, HEAD = 64, 128  # of MiniCPM-V's resampler: tokens of an image, size of a head
BATCH_TOKENS = 1024  # of images that are encoded at once (mtmd.cpp, batch_max_tokens)
SIGLIP = Transformer(last_norm=True)
CLIP = Transformer(first_norm=True)
PIXTRAL = Transformer(norm="RMS_NORM", norm_bias=False, qkv_bias=False, out_bias=False, gated=True, ffn_bias=False,
                      first_norm=True)  # fmt: skip
QWEN2 = Transformer(last_norm=True)
QWEN25 = Transformer(norm="RMS_NORM", norm_bias=False, gated=True, last_norm=True)
QWEN3 = Transformer(one_qkv=True, last_norm=True)
LLAMA4 = Transformer(first_norm=True, last_norm=True)
KIMI_K25 = Transformer(one_qkv=True, last_norm=True)
GLM4 = Transformer(norm="RMS_NORM", norm_bias=False, one_qkv=True, qkv_bias=False, out_bias=False, gated=True,
                   ffn_bias=False, last_norm=True)  # fmt: skip
GLM5 = GLM4._replace(qkv_bias=True, out_bias=True, ffn_bias=True, norm_heads=True)
GEMMA4 = Transformer(norm="RMS_NORM", norm_bias=False, qkv_bias=False, out_bias=False, gated=True, ffn_bias=False,
                     norm_results=True, norm_heads=True, norm_values=True)  # fmt: skip
STEP3 = Transformer(one_qkv=True, first_norm=True, scaled=True)
INTERN = Transformer(scaled=True)


def gemma3(g: ImageGraph) -> Tensor:
    """SigLIP, pooled, one matrix."""
    x = g.add(g.patches(bias=True, type_="f32"), g.position_table())
    x = g.pooled(g.transformer(x, SIGLIP))
    x = g.normed(x, "mm.soft_emb_norm", "RMS_NORM")
    matrix = g.cont(g.transpose(g.weight("mm.input_projection.weight", g.encoder.out_size, g.d)))
    return g.product(matrix, x)


def llava(g: ImageGraph) -> Tensor:
    """CLIP without its last layer, two matrices."""
    x = g.concat(g.patches(), g.weight("v.class_embd", g.d), 1)
    table = g.weight("v.position_embd.weight", g.d, g.n + 1, type_="f16")
    x = g.add(x, g.weigh(g.rows(table, g.input("i32", g.n + 1))))
    last = g.encoder.layers - 1
    x = g.transformer(x, CLIP, layers=last)
    g.same_as(f"v.blk.{last}", "v.blk.0")
    if g.encoder.newline:
        g.weight("v.image_newline", g.encoder.out_size)
    x = g.rows(g.reshape(x, g.d, g.n + 1), g.input("i32", g.n))
    return g.two_layers(x, ("mm.0", "mm.2"), (g.encoder.out_size, g.encoder.out_size))


def pixtral(g: ImageGraph) -> Tensor:
    """Positions by rope; squares of patches as one; a token between the rows of the image."""
    encoder = g.encoder
    rows, columns = g.input("i32", g.n), g.input("i32", g.n)
    patches = g.patches()
    x = g.transformer(patches, PIXTRAL, g.rotation_by_axis(rows, columns))
    if encoder.merge > 1:
        x = g.normed(x, "mm.input_norm", "RMS_NORM")
        x = g.cont(g.permute(g.reshape(x, g.d, g.columns, g.lines), 2, 0, 1, 3))
        kernel = g.view(x, (encoder.merge, encoder.merge, g.d), (0, 0))
        across = encoder.merge**2 * g.d
        x = g.op("IM2COL", "f32", (across, g.columns // encoder.merge, g.lines // encoder.merge), kernel, x)
        x.host_only = True  # CUDA wants a kernel without gaps, and this one stands for its size alone
        x = g.linear(g.reshape(x, across, x.ne[1] * x.ne[2]), "mm.patch_merger", g.d)
    x = g.two_layers(x, ("mm.1", "mm.2"), (encoder.out_size, encoder.out_size), bias=encoder.merge == 1)
    wide, high = g.columns // encoder.merge, g.lines // encoder.merge
    breaks = g.same("SCALE", g.scratch("f32", encoder.out_size, 1, high))
    breaks = g.with_vector("ADD", breaks, "v.token_embd.img_break")
    x = g.concat(g.reshape(x, encoder.out_size, wide, high), breaks, 1)
    return g.view(x, (encoder.out_size, high * (wide + 1) - 1))


def qwen2(g: ImageGraph) -> Tensor:
    """Full attention in every layer."""
    x = g.transformer(g.merged_patches(), QWEN2, g.rotation_by_sections())
    return _merged(g, x)


def qwen25(g: ImageGraph) -> Tensor:
    """Attention within windows, but in every ``full_attention_every``-th layer."""
    patches = g.merged_patches()
    rotate = g.rotation_by_sections()
    order = g.input("i32", g.n // 4)
    window = g.input("f32", g.n, g.n)
    if g.flash:
        window = g.half(window)
    x = g.reshape(g.rows(g.reshape(patches, 4 * g.d, g.n // 4), order), g.d, g.n)
    x = g.transformer(x, QWEN25, rotate, lambda layer: None if g.attends_fully(layer) else window)
    return g.rows(_merged(g, x), g.input("i32", g.n // 4))


def _merged(g: ImageGraph, x: Tensor) -> Tensor:
    return g.two_layers(g.reshape(x, 4 * g.d, g.n // 4), ("mm.0", "mm.2"), (4 * g.d, g.encoder.out_size))


def qwen3(g: ImageGraph) -> Tensor:
    """Learned positions; the states of some layers go to the language model too, beside the last one."""
    encoder = g.encoder
    x = g.with_vector("ADD", g.merged_patches(), f"{PATCHES}.bias")
    x = g.add(x, g.in_token_order(g.resized_positions()))
    features: list[Tensor] = []

    def collect(layer: int, state: Tensor) -> None:
        if layer in encoder.deepstack:
            name = f"v.deepstack.{layer}"
            y = g.normed(g.reshape(state, 4 * g.d, g.n // 4), f"{name}.norm", bias=True)
            y = g.two_layers(y, (f"{name}.fc1", f"{name}.fc2"), (4 * g.d, encoder.out_size))
            features[:] = [g.concat(features[0], y, 0) if features else y]

    x = _merged(g, g.transformer(x, QWEN3, g.rotation_by_sections(), after=collect))
    return g.concat(x, features[0], 0) if features else x


def llama4(g: ImageGraph) -> Tensor:
    """Patches by one matrix, a token for the whole image, squares of patches as one, three matrices."""
    encoder = g.encoder
    side = encoder.patch_size
    rows, columns = g.input("i32", g.n + 1), g.input("i32", g.n + 1)
    kernel = g.weight(f"{PATCHES}.weight", 3 * side**2, g.d)
    windows = g.weigh(g.op("IM2COL", "f32", (3 * side**2, g.columns, g.lines), kernel, g.pixels()))
    x = g.reshape(g.weigh(g.product(kernel, windows)), g.d, g.n)
    x = g.concat(x, g.weight("v.class_embd", g.d), 1)
    x = g.weigh(g.add(x, g.position_table()))
    x = g.transformer(x, LLAMA4, g.rotation_by_axis(columns, rows))
    across = encoder.merge**2 * g.d
    x = g.view(x, (g.d, g.n))
    x = g.reshape(x, encoder.merge * g.d, g.columns // encoder.merge, g.lines)
    x = g.cont(g.permute(x, 0, 2, 1, 3), across, g.columns // encoder.merge, g.lines // encoder.merge)
    x = g.cont(x, across, g.n // encoder.merge**2)
    size = encoder.projector_size
    x = g.unary(g.linear(x, "mm.model.mlp.1", size))
    x = g.unary(g.linear(x, "mm.model.mlp.2", size))
    return g.linear(x, "mm.model.fc", encoder.out_size)


def kimi_vl(g: ImageGraph) -> Tensor:
    """MoonViT: learned positions resized, and rope."""
    rows, columns = g.input("i32", g.n), g.input("i32", g.n)
    positions = g.resized_positions()
    x = g.add(g.patches(bias=True), positions)
    return _moon_projector(g, g.transformer(x, SIGLIP, g.rotation_by_axis(columns, rows)))


def kimi_k25(g: ImageGraph) -> Tensor:
    """MoonViT of the later models: one matrix for Q, K and V; positions by row and column."""
    rows, columns = g.input("i32", g.n), g.input("i32", g.n)
    side = int(g.encoder.positions**0.5)
    table = g.weight("v.position_embd.weight", g.d, side, side)
    if (g.columns, g.lines) != (side, side):
        table = g.op("UPSCALE", "f32", (g.lines, g.columns, g.d), g.permute(table, 2, 1, 0, 3))
        table = g.permute(table, 2, 1, 0, 3)
    positions = g.cont(table, g.d, g.n)
    x = g.add(g.patches(bias=True), positions)
    return _moon_projector(g, g.transformer(x, KIMI_K25, g.rotation_by_axis(columns, rows)))


def _moon_projector(g: ImageGraph, x: Tensor) -> Tensor:
    merge = g.encoder.merge
    x = g.shuffled(x)
    across, tokens = x.ne[:2]
    x = g.normed(g.view(x, (g.d, tokens * merge**2)), "mm.input_norm", bias=True)
    return g.two_layers(g.view(x, (across, tokens)), ("mm.1", "mm.2"), (across, g.encoder.out_size))


def glm4(g: ImageGraph) -> Tensor:
    """Learned positions, a convolution that merges patches, a gated projector."""
    encoder = g.encoder
    newer = encoder.kind == "glm5v"
    image = g.pixels()
    first = g.convolved(image, g.patch_kernel(), encoder.patch_size)
    second = g.convolved(image, g.patch_kernel(f"{PATCHES}.weight.1"), encoder.patch_size)
    x = g.in_token_order(g.permute(g.add(first, second), 1, 2, 0, 3))
    x = g.with_vector("ADD", x, f"{PATCHES}.bias")
    rotate = g.rotation_by_sections()
    if not newer:
        x = g.normed(x, "v.norm_embd", "RMS_NORM")
    if encoder.positions:
        x = g.add(x, g.in_token_order(g.resized_positions()))
    x = g.transformer(x, GLM5 if newer else GLM4, rotate)
    merge, out = encoder.merge, encoder.out_size
    tokens = g.n // merge**2
    x = g.cont(g.permute(g.reshape(x, g.d, merge, merge, tokens), 2, 0, 1, 3))
    x = g.convolved(x, g.weight("mm.patch_merger.weight", merge, merge, g.d, out), merge)
    x = g.with_vector("ADD", g.reshape(x, x.ne[2], tokens), "mm.patch_merger.bias")
    x = g.unary(g.normed(g.linear(x, "mm.model.fc", out), "mm.post_norm", bias=True))
    return g.feed_forward(x, "mm.", encoder.projector_size, gated=True, bias=False)


def gemma4(g: ImageGraph) -> Tensor:
    """A table of positions per axis and rope, clamps around every matrix, pooled."""
    encoder = g.encoder
    image = g.same("SCALE", g.pixels())
    x = g.patches(image)
    columns, rows = g.input("i32", g.n), g.input("i32", g.n)
    x = _with_axis_positions(g, x, columns, rows)
    g.clamps = True
    x = g.same("SCALE", g.pooled(g.transformer(x, GEMMA4, g.rotation_by_axis(columns, rows))))
    if encoder.standardized:
        x = g.with_vector("MUL", g.with_vector("SUB", x, "v.std_bias"), "v.std_scale")
    return g.linear(g.rms(x), "mm.input_projection", encoder.out_size)


def _with_axis_positions(g: ImageGraph, x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    table = g.weight("v.position_embd.weight", g.d, g.encoder.positions, 2)
    for ids in (columns, rows):
        x = g.add(x, g.weigh(g.rows(g.view(table, (g.d, g.encoder.positions)), ids)))
    return x


def gemma4_unified(g: ImageGraph) -> Tensor:
    """No transformer: one matrix over large patches, between norms."""
    encoder = g.encoder
    across = 3 * encoder.patch_size**2
    kernel = g.scratch("f32", encoder.patch_size, encoder.patch_size, 3)
    x = g.op("IM2COL", "f32", (across, g.columns, g.lines), kernel, g.pixels())
    x = g.normed(g.reshape(x, across, g.n), "v.patch_norm.1", bias=True)
    x = g.linear(x, PATCHES, g.d, bias=True)
    x = g.normed(x, "v.patch_norm.2", bias=True)
    columns, rows = g.input("i32", g.n), g.input("i32", g.n)
    x = g.normed(_with_axis_positions(g, x, columns, rows), "v.patch_norm.3", bias=True)
    return g.linear(g.rms(x), "mm.input_projection", encoder.out_size)


def minimax_m3(g: ImageGraph) -> Tensor:
    """Rope over thirds of a head; a projector per patch and one per square of patches."""
    encoder = g.encoder
    patches = g.merged_patches()
    rows, columns = g.input("i32", g.n), g.input("i32", g.n)
    x = g.transformer(patches, CLIP, g.rotation_by_axis(rows, columns))
    widths = (encoder.projector_size, encoder.out_size)
    x = g.two_layers(x, ("mm.1", "mm.2"), widths)
    x = g.reshape(x, 4 * encoder.out_size, g.n // 4)
    return g.two_layers(x, ("mm.merger.fc1", "mm.merger.fc2"), widths)


def muse_glimmer(g: ImageGraph) -> Tensor:
    """Attention within windows, but in every fourth and the last layer; three matrices."""
    encoder = g.encoder
    columns, rows = g.input("i32", g.n), g.input("i32", g.n)
    windows, back, merged = (g.input("i32", g.n) for _ in range(3))
    window = g.input("f32", g.n, g.n)
    x = g.add(g.patches(), g.resized_positions())
    x = g.rows(x, windows)
    x = g.transformer(
        x,
        Transformer(first_norm=True, last_norm=True),
        g.rotation_by_axis(columns, rows),
        lambda layer: None if layer == encoder.layers - 1 or g.attends_fully(layer) else window,
    )
    x = g.rows(g.rows(g.reshape(x, g.d, g.n), back), merged)
    square = encoder.merge**2
    x = g.cont(g.permute(g.reshape(x, g.d, square, g.n // square), 1, 0, 2, 3))
    x = g.reshape(x, square * g.d, g.n // square)
    x = g.unary(g.linear(x, "mm.0", encoder.projector_size))
    x = g.unary(g.linear(x, "mm.1", encoder.projector_size))
    return g.linear(x, "mm.2", encoder.out_size)


def step3(g: ImageGraph) -> Tensor:
    """Learned positions and rope; two convolutions that halve the image, one matrix."""
    rows, columns = g.input("i32", g.n), g.input("i32", g.n)
    patches = g.patches()
    x = g.add(patches, g.resized_positions())
    x = g.transformer(x, STEP3, g.rotation_by_axis(columns, rows))
    x = g.cont(g.permute(x, 1, 0, 2, 3), g.columns, g.lines, g.d)
    for i in range(2):
        x = g.convolved(x, g.weight(f"mm.{i}.weight", 3, 3, x.ne[2], 2 * x.ne[2]), 2, 1)
        wide, high, channels, _ = x.ne
        x = g.cont(g.transpose(g.reshape(x, wide * high, channels)))
        x = g.cont(g.transpose(g.with_vector("ADD", x, f"mm.{i}.bias")))
        x = g.reshape(x, wide, high, channels)
    x = g.cont(g.permute(g.reshape(x, x.ne[0] * x.ne[1], x.ne[2]), 1, 0, 2, 3))
    return g.linear(x, "mm.model.fc", g.encoder.out_size)


def internvl(g: ImageGraph) -> Tensor:
    """A token for the whole image, squares of patches as one, two matrices behind a norm."""
    encoder = g.encoder
    x = g.patches(bias=True)
    token = g.weigh(g.repeat(g.weight("v.class_embd", g.d), g.d, 1, g.images))
    x = g.add(g.concat(x, token, 1), g.position_table())
    x = g.reshape(g.transformer(x, INTERN), g.d, g.n + 1, g.images)
    x = g.cont(g.view(x, (g.d, g.n, g.images), (4 * g.d, 4 * g.d * (g.n + 1))))
    x = g.normed(g.shuffled(x), "mm.model.mlp.0", bias=True)
    return g.two_layers(x, ("mm.model.mlp.1", "mm.model.mlp.3"), (encoder.out_size, encoder.out_size))


def minicpm(g: ImageGraph) -> Tensor:
    """SigLIP, and a resampler: learned queries that attend to the patches, each with its place as sines."""
    encoder, out = g.encoder, g.encoder.out_size
    frequencies = g.input("f32", out // 4)
    rows, columns = g.input("f32", 1, g.n), g.input("f32", 1, g.n)
    table = g.weight("v.position_embd.weight", g.d, encoder.positions, type_="f16")
    positions = g.weigh(g.rows(table, g.input("i32", g.n)))
    x = g.transformer(g.add(g.patches(bias=True), positions), SIGLIP)
    v = g.linear(x, "resampler.kv", out)
    q = g.normed(g.weight("resampler.query", out, QUERIES), "resampler.ln_q", bias=True)
    v = g.normed(v, "resampler.ln_kv", bias=True)
    g.weight("resampler.pos_embed_k", out, encoder.positions)
    angles = g.repeat(frequencies, out // 4, g.n)
    across, along = (
        g.concat(g.op("SIN", "f32", angle.ne, angle), g.op("COS", "f32", angle.ne, angle), 0)
        for angle in (g.mul(angles, columns), g.mul(angles, rows))
    )
    k = g.add(v, g.concat(across, along, 0))
    parts = [
        g.reshape(g.linear(part, f"resampler.attn.{name}", out, bias=True), HEAD, out // HEAD, part.ne[1])
        for part, name in ((q, "q"), (k, "k"), (v, "v"))
    ]
    x = g.linear(g.attend(*parts), "resampler.attn.out", out, bias=True)
    return g.linear(g.normed(x, "resampler.ln_post", bias=True), "resampler.proj", out)


class Kind(NamedTuple):
    """A kind of encoder. ``tokens``: of the largest image that it is given; 0: images are always of its own size.
    ``loaded_side``: tokens per side of the image that the engine plans for when it loads the file (0: the largest).
    ``bins``: of a frame, where it is an encoder of sound. ``at_once``: tiles of an image are encoded together.
    ``rounded``: tiles have about the area of its own size, their sides rounded to patches.
    """

    build: Callable[[ImageGraph], Tensor]
    tokens: int = 0
    loaded_side: int = 0
    bins: int = 0
    at_once: bool = False
    rounded: bool = False


KINDS = {
    "gemma3": Kind(gemma3),
    "mlp": Kind(llava),
    "pixtral": Kind(pixtral, 1024, 16),
    "qwen2vl_merger": Kind(qwen2, 4096, 46),
    "qwen2.5vl_merger": Kind(qwen25, 4096, 46),
    "qwen3vl_merger": Kind(qwen3, 4096, 46),
    "llama4": Kind(llama4),
    "kimivl": Kind(kimi_vl, 1024, 16),
    "kimik25": Kind(kimi_k25, 4096),
    "glm4v": Kind(glm4, 4096, 46),
    "glm5v": Kind(glm4, 8000, 46),
    "gemma4v": Kind(gemma4, 1120, 16),
    "gemma4uv": Kind(gemma4_unified, 1120, 16),
    "minimax_m3": Kind(minimax_m3, 576, 16),
    "muse-glimmer": Kind(muse_glimmer, 4096, 32),
    "step3vl": Kind(step3),
    "internvl": Kind(internvl, at_once=True),
    "resampler": Kind(minicpm, rounded=True),
    "gemma3nv": Kind(mobilenet_v5),
    "gemma4a": Kind(gemma4_conformer, bins=128),
    "gemma4ua": Kind(gemma4_frames, bins=640),
}
