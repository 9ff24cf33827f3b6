"""The encoder of images that a Transformers configuration describes, as llama.cpp's converter would write it.

Source: llama.cpp 0c1e57098, conversion/*.py. A configuration that leaves out a size of its tower gives no encoder, and
neither does a model type that is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fitcheck.catalog.config_shape import Config
from fitcheck.catalog.mmproj import plausible
from fitcheck.types import MediaEncoder

GEMMA3_TOKENS = 256  # of an image, where the configuration does not say
QWEN_IMAGE = 560  # pixels that the converter writes for Qwen2-VL and 2.5-VL
WRITTEN_IMAGE_PATCHES = 64  # per side, of MoonViT's table


def encoders_of(raw: Mapping[str, Any], out_size: int) -> tuple[MediaEncoder, ...]:
    """The encoders of a whole ``config.json``; ``out_size`` is the width of its language model."""
    form = _FORMS.get(str(raw.get("model_type")))
    vision = raw.get("vision_config")
    if form is None or not isinstance(vision, dict) or not out_size:
        return ()
    encoder = form(Config(vision, {}), Config(raw, {}), out_size)
    complete = all((encoder.hidden_size, encoder.layers, encoder.heads, encoder.ffn_size, encoder.patch_size))
    return (encoder,) if complete and plausible(encoder) else ()


def _encoder(kind: str, vision: Config, out_size: int, **more: Any) -> MediaEncoder:
    """What most towers name alike; ``more`` counts first."""
    sizes = {
        "hidden_size": vision.number("hidden_size"),
        "layers": vision.number("num_hidden_layers", "depth"),
        "heads": vision.number("num_attention_heads", "num_heads"),
        "ffn_size": vision.number("intermediate_size"),
        "patch_size": vision.number("patch_size"),
        "image_size": vision.number("image_size"),
    }
    return MediaEncoder(kind=kind, out_size=out_size, **{**sizes, **more})


def _gemma3(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    side = vision.number("image_size") // max(vision.number("patch_size"), 1)
    tokens = raw.number("mm_tokens_per_image", default=GEMMA3_TOKENS)
    merge = side // max(int(tokens**0.5), 1)
    return _encoder("gemma3", vision, out_size, merge=merge, positions=side**2)


def _qwen2(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    width = vision.number("embed_dim")
    ffn = width * vision.number("mlp_ratio", default=4)
    merge = vision.number("spatial_merge_size", default=2)
    return _encoder(
        "qwen2vl_merger", vision, out_size, hidden_size=width, ffn_size=ffn, image_size=QWEN_IMAGE, merge=merge
    )


def _qwen25(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    every = next(iter(vision.numbers("fullatt_block_indexes") or ()), -1) + 1
    merge = vision.number("spatial_merge_size", default=2)
    return _encoder(
        "qwen2.5vl_merger", vision, out_size, image_size=QWEN_IMAGE, merge=merge, full_attention_every=every
    )


def _qwen3(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    positions = vision.number("num_position_embeddings")
    return _encoder(
        "qwen3vl_merger",
        vision,
        out_size,
        image_size=int(positions**0.5) * vision.number("patch_size"),
        merge=vision.number("spatial_merge_size", default=2),
        positions=positions,
        deepstack=tuple(vision.numbers("deepstack_visual_indexes") or ()),
    )


def _mistral3(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    return _encoder("pixtral", vision, out_size, merge=raw.number("spatial_merge_size", default=2))


def _kimi_vl(vision: Config, raw: Config, out_size: int) -> MediaEncoder:
    side = WRITTEN_IMAGE_PATCHES
    image = side * vision.number("patch_size")
    return _encoder("kimivl", vision, out_size, image_size=image, merge=2, positions=side**2)


_FORMS: dict[str, Callable[[Config, Config, int], MediaEncoder]] = {
    "gemma3": _gemma3,
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen25,
    "qwen3_vl": _qwen3,
    "qwen3_vl_moe": _qwen3,
    "qwen3_5": _qwen3,
    "qwen3_5_moe": _qwen3,
    "qwen4_exp": _qwen3,
    "mistral3": _mistral3,
    "kimi_vl": _kimi_vl,
}
