"""The encoders in an ``mmproj`` file, from its header.

Sizes are taken from tensors where there is one that shows them: the keys of older files are not all filled in. A file
of a kind that is not known here, or whose numbers cannot be right, gives no encoders.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.catalog.gguf import Header
from fitcheck.types import MediaEncoder

MOST_LAYERS = 512
MOST_WIDE = 1 << 17  # elements of a row, pixels of a side
MOST_TOKENS = 1 << 16
POSITIONS = "v.position_embd.weight"


class Place(NamedTuple):
    """Where the widths of a kind are seen: of the language model, and of the projector ("": the kind settles it).

    ``merge``: patches per side that become a token where no key says so.
    """

    out: str
    projector: str = ""
    merge: int = 1


MATRIX = "mm.input_projection.weight"
PLACES = {
    "gemma3": Place(MATRIX, merge=4),
    "gemma3nv": Place(MATRIX),
    "gemma4v": Place(MATRIX, merge=3),
    "gemma4uv": Place(MATRIX),
    "gemma4a": Place("mm.a.input_projection.weight", "a.pre_encode.out.weight"),
    "gemma4ua": Place("mm.a.input_projection.weight"),
    "mlp": Place("mm.2.weight"),
    "pixtral": Place("mm.2.weight"),
    "qwen2vl_merger": Place("mm.2.weight", merge=2),
    "qwen2.5vl_merger": Place("mm.2.weight", merge=2),
    "qwen3vl_merger": Place("mm.2.weight", merge=2),
    "llama4": Place("mm.model.fc.weight", "mm.model.mlp.1.weight"),
    "kimivl": Place("mm.2.weight"),
    "kimik25": Place("mm.2.weight"),
    "glm4v": Place("mm.model.fc.weight", "mm.up.weight", merge=2),
    "glm5v": Place("mm.model.fc.weight", "mm.up.weight", merge=2),
    "minimax_m3": Place("mm.2.weight", "mm.1.weight", merge=2),
    "muse-glimmer": Place("mm.2.weight", "mm.0.weight", merge=2),
    "step3vl": Place("mm.model.fc.weight", merge=4),
    "internvl": Place("mm.model.mlp.3.weight"),
    "resampler": Place("resampler.proj.weight"),
}
TRANSPOSED = ("gemma3",)  # whose matrix to the language model is stored the other way round
NOT_LOADED = ("gemma3na",)  # llama.cpp leaves Gemma 3n's encoder of sound in the file
BY_FILE = ("kimik25", "glm5v")  # whose file says how large an image may be
LARGE_PATCHES = {"gemma4uv": 3}  # whose patches are so many times the file's
SPARSE = {"muse-glimmer": 4}  # whose windows no key tells


def encoders_of(header: Header) -> tuple[MediaEncoder, ...]:
    """All encoders of the file; none where one of them is not known."""
    kinds = [
        (part, header.text(f"clip.{part}.projector_type") or (header.text("clip.projector_type") if alone else None))
        for part, alone in (("vision", True), ("audio", False))
        if header.metadata.get(f"clip.has_{part}_encoder") is True
    ]
    found = [_encoder(header, part, kind) for part, kind in kinds if kind not in NOT_LOADED]
    return tuple(each for each in found if each) if all(found) else ()


def _encoder(header: Header, part: str, kind: str | None) -> MediaEncoder | None:
    place = PLACES.get(kind or "")
    dims = {tensor.name: (*tensor.dims, 1, 1) for tensor in header.tensors}
    if kind is None or place is None or place.out not in dims:
        return None

    def number(key: str, default: int = 0) -> int:
        return header.number(f"clip.{part}.{key}") or default

    hidden, heads, layers = number("embedding_length"), number("attention.head_count"), number("block_count")
    ffn = _ffn_size(dims, part, hidden)
    if not ffn:  # no transformer, whatever the keys say
        heads = layers = 0
    patch = number("patch_size", 1) * LARGE_PATCHES.get(kind, 1)
    merge = number("spatial_merge_size") or number("projector.scale_factor") or place.merge
    merge = 1 if kind in LARGE_PATCHES else merge
    head = number("attention.head_dim")
    encoder = MediaEncoder(
        kind=kind,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        ffn_size=ffn,
        patch_size=patch,
        image_size=number("image_size"),
        out_size=dims[place.out][0 if kind in TRANSPOSED else 1],
        merge=merge,
        projector_size=dims.get(place.projector, (0, 0))[1],
        positions=_positions(dims, kind) if part == "vision" else 0,
        head_size=head if head * heads != hidden or kind == "gemma4v" else 0,
        full_attention_every=number("n_wa_pattern") or SPARSE.get(kind, 0),
        deepstack=tuple(
            layer for layer in range(min(layers, MOST_LAYERS)) if f"v.deepstack.{layer}.norm.weight" in dims
        ),
        standardized="v.std_bias" in dims and part == "vision",
        newline="v.image_newline" in dims,
        tokens=number("image_max_pixels") // max(patch * merge, 1) ** 2 if kind in BY_FILE else 0,
    )
    return encoder if plausible(encoder) else None


def _ffn_size(dims: dict[str, tuple[int, ...]], part: str, hidden: int) -> int:
    """Of the first layer; older files call its two matrices by each other's name."""
    shape = dims.get(f"{part[0]}.blk.0.ffn_up.weight", (0, 0))
    return shape[0] if shape[1] == hidden else shape[1]


def _positions(dims: dict[str, tuple[int, ...]], kind: str) -> int:
    """Rows of the table (per axis where there are two); a table by row and column counts as one."""
    shape = dims.get(POSITIONS, (0, 0, 1))
    if kind == "mlp":  # as many as its images have patches
        return 0
    return shape[1] * shape[2] if kind == "kimik25" else shape[1]


def plausible(encoder: MediaEncoder) -> bool:
    """Whether a graph of it can be walked at all."""
    wide = (encoder.hidden_size, encoder.ffn_size, encoder.out_size, encoder.projector_size, encoder.image_size)
    shaped = encoder.layers == 0 or encoder.heads > 0
    return (
        encoder.hidden_size > 0
        and shaped
        and 0 <= encoder.layers <= MOST_LAYERS
        and 0 < encoder.merge * encoder.patch_size <= MOST_WIDE
        and all(0 <= size <= MOST_WIDE for size in (*wide, encoder.heads, encoder.head_size))
        and 0 <= encoder.tokens <= MOST_TOKENS
        and 0 <= encoder.full_attention_every <= MOST_LAYERS
    )
