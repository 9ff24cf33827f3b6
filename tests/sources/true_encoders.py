"""Encoders -> ``mmproj`` files as llama.cpp's converters write them: true shapes, sparse, no weights.

The tensors are those that a walk of the graph finds; that llama.cpp loads the file says that none is missing.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from fitcheck.estimate.graph.image_plan import weights
from fitcheck.types import MediaEncoder

TYPES = {"f32": (np.float32, gguf.GGMLQuantizationType.F32), "f16": (np.float16, gguf.GGMLQuantizationType.F16)}
SILU = {"qwen2.5vl_merger", "pixtral", "glm4v", "glm5v"}
SOUND = {"gemma4a": 128, "gemma4ua": 640}  # mel bins
SCALE_KEYS = {"llama4", "kimivl", "kimik25", "internvl", "step3vl"}
DEFAULT_MERGES = {"gemma3", "gemma3nv", "gemma4v", "gemma4uv"}
FILE_PATCHES = {"gemma4uv": 3}  # the file's patches are so many times smaller
MORE = {"step3vl": {"preproc_image_size": 3024}}
OLD_KEYS = {"resampler": {"clip.minicpmv_version": 3, "clip.minicpmv_query_num": 64}}


def write(encoders: tuple[MediaEncoder, ...], path: Path) -> Path:
    """One file of all encoders."""
    writer = gguf.GGUFWriter(path, "clip")
    for encoder in encoders:
        _add_keys(writer, encoder, alone=len(encoders) == 1)
    writer.add_bool("clip.use_gelu", encoders[0].kind not in SILU)
    writer.add_bool("clip.use_silu", encoders[0].kind in SILU)
    size = 0
    for encoder in encoders:
        for name, weight in weights(encoder).items():
            dims = list(weight.ne)
            while len(dims) > 1 and dims[-1] == 1:
                dims.pop()
            kind, raw = TYPES[weight.type]
            n_bytes = weight.elements * np.dtype(kind).itemsize
            writer.add_tensor_info(name, dims[::-1], np.dtype(kind), n_bytes, raw_dtype=raw)
            size += -(-n_bytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 32 + size)
    return path


def _add_keys(writer: gguf.GGUFWriter, encoder: MediaEncoder, alone: bool) -> None:
    part = "audio" if encoder.kind in SOUND else "vision"
    writer.add_bool(f"clip.has_{part}_encoder", True)
    alone = alone and encoder.kind != "gemma3nv"  # whose files hold sound too, which nothing loads
    writer.add_string("clip.projector_type" if alone else f"clip.{part}.projector_type", encoder.kind)
    numbers = {
        "embedding_length": encoder.hidden_size,
        "attention.head_count": encoder.heads,
        "feed_forward_length": encoder.ffn_size,
        "block_count": encoder.layers,
        "projection_dim": encoder.out_size,
    }
    if encoder.head_size:
        numbers["attention.head_dim"] = encoder.head_size
    if part == "audio":
        numbers["num_mel_bins"] = 128
    else:
        numbers |= _image_numbers(encoder)
        writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for key, number in numbers.items():
        writer.add_uint32(f"clip.{part}.{key}", number)
    writer.add_float32(f"clip.{part}.attention.layer_norm_epsilon", 1e-6)
    for key, number in OLD_KEYS.get(encoder.kind, {}).items():
        (writer.add_int32 if key.endswith("version") else writer.add_uint32)(key, number)
    if encoder.kind == "glm5v":
        writer.add_float32("clip.vision.swiglu_clamp", 10.0)


def _image_numbers(encoder: MediaEncoder) -> dict[str, int]:
    numbers = {
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size // FILE_PATCHES.get(encoder.kind, 1),
        **MORE.get(encoder.kind, {}),
    }
    if encoder.kind not in DEFAULT_MERGES:
        key = "projector.scale_factor" if encoder.kind in SCALE_KEYS else "spatial_merge_size"
        numbers[key] = encoder.merge
    if encoder.full_attention_every:
        numbers["n_wa_pattern"] = encoder.full_attention_every
    if encoder.tokens:
        pixels = (encoder.patch_size * encoder.merge) ** 2
        numbers |= {"image_min_pixels": pixels, "image_max_pixels": encoder.tokens * pixels}
    return numbers
