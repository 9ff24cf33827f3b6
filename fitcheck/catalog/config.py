"""A Hugging Face model (config.json, and the headers of its safetensors files) -> ``Model``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fitcheck.catalog.config_families import FAMILIES, Family
from fitcheck.catalog.config_shape import Config, bound_shape, shape_from_config
from fitcheck.catalog.plausible import implausible
from fitcheck.catalog.safetensors import DTYPE_BITS, WeightFile, read_header
from fitcheck.catalog.source import LocalSource, clean, read_json, unreadable
from fitcheck.estimate.tensors import parameters
from fitcheck.types import MediaEncoder, Model, PublishedFile, Shape

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_INDEX_BYTES = 16 << 20
MAX_FILES = 2000

_DTYPES = {"bfloat16": "BF16", "float16": "FP16", "float32": "FP32", "float64": "FP32"}
_TOWERS = {
    "vision": (
        "vision",
        "visual",
        "vision_tower",
        "vision_model",
        "vision_embed_tokens",
        "embed_vision",
        "patch_embed",
    ),
    "audio": ("audio", "audio_tower", "audio_encoder", "embed_audio", "speech"),
    "projector": ("multi_modal_projector", "mm_projector", "aligner", "merger", "connector"),
    "mtp": ("mtp", "nextn"),
}


class Weights(Struct, frozen=True):
    """What the weight files hold: their bytes, the elements per dtype, and the elements of towers by name."""

    bytes: int
    elements: dict[str, int]
    towers: dict[str, int]

    @property
    def params(self) -> int:
        """Parameters, where they are stored one by one; packed integers count as what 4 bits each would be."""
        floats = sum(count for dtype, count in self.elements.items() if dtype.startswith(("F", "BF")))
        packed = sum(
            DTYPE_BITS[dtype] * count // 4 for dtype, count in self.elements.items() if dtype in ("I32", "U32")
        )
        return floats + packed

    @property
    def dtype(self) -> str:
        """The dtype of most bytes."""
        name = max(self.elements, key=lambda dtype: self.elements[dtype] * DTYPE_BITS[dtype], default="BF16")
        return {"F16": "FP16", "F32": "FP32"}.get(name, name)


def model_from_folder(folder: Path) -> Model:
    """The model in a folder with config.json and safetensors files. Raises FitcheckError (``unreadable_file``)."""
    config = read_json(folder / CONFIG, MAX_CONFIG_BYTES)
    files = [_read(folder / name) for name in _weight_names(folder)]
    return model_from_config(config, folder.name, weights=weights_of(files) if files else None, path=str(folder))


def _read(path: Path) -> WeightFile:
    with LocalSource(path) as source:
        return read_header(source)


def _weight_names(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.is_file():
        return sorted(path.name for path in folder.glob("*.safetensors"))[:MAX_FILES]
    names = names_in_index(read_json(index, MAX_INDEX_BYTES))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise unreadable(folder.name, f"{missing[0]} is missing", "download the rest of the model")
    return names


def names_in_index(index: Mapping[str, Any]) -> list[str]:
    """The weight files that an index names. A name that leaves the folder is refused."""
    table = index.get("weight_map")
    names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    for name in names:
        if not is_plain_name(name):
            raise unreadable(INDEX, f"names a file outside its folder: {clean(name, 80)}")
    return names[:MAX_FILES]


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a file in the same folder, on every system."""
    return name.isprintable() and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def weights_of(files: Iterable[WeightFile]) -> Weights:
    """Add up the headers of one model's files."""
    elements: dict[str, int] = {}
    towers: dict[str, int] = {}
    total = 0
    for file in files:
        total += file.file_bytes
        for name, (dtype, count) in file.tensors.items():
            elements[dtype] = elements.get(dtype, 0) + count
            tower = _tower(name)
            if tower is not None:
                towers[tower] = towers.get(tower, 0) + count
    return Weights(total, elements, towers)


def _tower(name: str) -> str | None:
    parts = set(name.split(".")[:3])
    return next((tower for tower, words in _TOWERS.items() if parts & set(words)), None)


def model_from_config(
    raw: Mapping[str, Any], name: str, weights: Weights | None = None, repo: str | None = None, path: str | None = None
) -> Model:
    """The model that a configuration describes. ``name``: the folder or repository.

    A model type without a form keeps parameters and bytes, if ``weights`` are given; else FitcheckError.
    """
    tables = _tables()
    text, model_type = _text_config(raw, tables)
    family = FAMILIES.get(model_type)
    shape = _shape(text, model_type, family, tables) if family is not None else None
    quant, native = _formats(raw, text, weights)
    if shape is None and weights is not None:
        shape = bound_shape(Config(text, {}), weights.params - sum(weights.towers.values()))
    wrong = implausible(shape) if shape is not None else None
    if wrong is not None:
        raise unreadable(name, f"its configuration cannot be right: {wrong}")
    if shape is not None:
        params, active = parameters(shape)
    elif weights is not None:
        params = active = weights.params - sum(weights.towers.values())
    else:
        raise unreadable(
            name, f"model type {clean(model_type, 40) or 'unknown'} is not known, and there are no weights"
        )
    architectures = raw.get("architectures")
    files = (PublishedFile(repo or "", quant, weights.bytes, source="safetensors headers"),) if weights else ()
    return Model(
        id=clean(name, 100),
        name=clean(name.split("/")[-1], 100),
        shape=shape,
        params=params,
        params_active=active,
        architecture=family.architecture if family else None,
        hf_architecture=clean(architectures[0], 80) if isinstance(architectures, list) and architectures else None,
        hub_repo=repo,
        modalities=_modalities(raw),
        context_tokens=_context(text, raw),
        native_dtype=native,
        tower_params=weights.towers if weights else {},
        encoders=_encoders(raw, shape) if "vision_config" in raw else (),
        files=files,
        grade=_grade(shape, params, weights, quant) if family is not None else "C",
        note="" if family is not None and shape is not None else _note(model_type, shape),
        file_quant=quant,
        path=path,
    )


def _encoders(raw: Mapping[str, Any], shape: Shape | None) -> tuple[MediaEncoder, ...]:
    from fitcheck.catalog.config_encoders import encoders_of

    return encoders_of(raw, shape.hidden_size if shape is not None else 0)


def _note(model_type: str, shape: Shape | None) -> str:
    known = "the cache is a bound" if shape is not None else "no cache is estimated"
    return f"model type {clean(model_type, 40)} is not known: parameters are those of its files, {known}"


def _tables() -> dict[str, Any]:
    """``data/config_defaults.json``: values that files of a model type leave out, and text types of multimodal ones."""
    path = Path(__file__).resolve().parent.parent / "data" / "config_defaults.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])


def _text_config(raw: Mapping[str, Any], tables: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The configuration of the text model, and its model type."""
    outer = str(raw.get("model_type", ""))[:80]
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        inner = raw.get(key)
        if isinstance(inner, dict):
            if key == "thinker_config":
                return _text_config(inner, tables)
            told = inner.get("model_type")
            kind = told if isinstance(told, str) else tables["text_types"].get(outer, "")
            return {**_inherited(raw), **inner}, kind[:80]
    return raw, tables["text_types"].get(outer, outer) if outer not in FAMILIES else outer


def _inherited(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the text part takes from the whole."""
    return {key: raw[key] for key in ("tie_word_embeddings",) if key in raw}


def _shape(text: Mapping[str, Any], model_type: str, family: Family, tables: Mapping[str, Any]) -> Shape | None:
    return shape_from_config(Config(text, tables["defaults"].get(model_type, {})), family)


def _formats(raw: Mapping[str, Any], text: Mapping[str, Any], weights: Weights | None) -> tuple[str, str]:
    """The format of the weights, and the dtype of what is not quantised."""
    told = raw.get("dtype") or raw.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    native = _DTYPES.get(told, "BF16") if isinstance(told, str) else (weights.dtype if weights else "BF16")
    if native not in ("BF16", "FP16", "FP32"):
        native = "BF16"
    mlx = raw.get("quantization")
    if isinstance(mlx, dict) and isinstance(mlx.get("bits"), int):
        return _mlx_format(mlx), native
    table = raw.get("quantization_config") or text.get("quantization_config")
    if isinstance(table, dict):
        return _quantised_format(table), native
    return native, native


def _mlx_format(table: Mapping[str, Any]) -> str:
    if table.get("mode") in ("mxfp4", "nvfp4", "mxfp8"):
        return str(table["mode"]).upper()
    suffix = "-G32" if table.get("group_size") == 32 and table["bits"] == 4 else ""
    return f"MLX-{table['bits'] & 15}BIT{suffix}"


def _quantised_format(table: Mapping[str, Any]) -> str:
    """The row of quantizations.json for a ``quantization_config``."""
    method = str(table.get("quant_method", "")).lower()[:40]
    if method == "fp8":
        return "FP8-BLOCK" if table.get("weight_block_size") else "FP8"
    if method == "gptq":
        return "GPTQ-INT8" if table.get("bits") == 8 else "GPTQ-G32" if table.get("group_size") == 32 else "GPTQ"
    if method == "bitsandbytes":
        return "INT8" if table.get("load_in_8bit") else "NF4"
    if method == "compressed-tensors":
        return _compressed_format(table)
    if method == "modelopt":
        return "NVFP4" if "FP4" in str(table.get("quant_algo", ""))[:40] else "FP8"
    named = {"awq": "AWQ", "mxfp4": "MXFP4", "exl2": "EXL2", "exl3": "EXL3"}
    return named.get(method, "UNKNOWN")


def _compressed_format(table: Mapping[str, Any]) -> str:
    form = str(table.get("format", ""))[:40]
    if "nvfp4" in form:
        return "NVFP4"
    if "mxfp4" in form:
        return "MXFP4"
    if form == "pack-quantized":
        return "GPTQ-G32" if _group_size(table.get("config_groups")) == 32 else "GPTQ"
    return "INT8" if "int" in form else "FP8"


def _group_size(groups: Any) -> Any:
    """The group size of the first group of a compressed-tensors configuration, None where it has none."""
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    return weights.get("group_size") if isinstance(weights, dict) else None


def _modalities(raw: Mapping[str, Any]) -> tuple[str, ...]:
    found = ["text"]
    if "vision_config" in raw or "visual" in raw:
        found.append("vision")
    if "audio_config" in raw:
        found.append("audio")
    return tuple(found)


def _context(text: Mapping[str, Any], raw: Mapping[str, Any]) -> int:
    config = Config(text, raw)
    return config.number("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "model_max_length")


def _grade(shape: Shape | None, params: int, weights: Weights | None, quant: str) -> str:
    """A where the files' own count agrees, B within 0.7 %, else C."""
    if shape is None or weights is None or quant not in ("BF16", "FP16", "FP32"):
        return "C"
    found = weights.params - sum(weights.towers.values())
    off = abs(params - found)
    return "A" if off == 0 else "B" if off <= 0.007 * found else "C"
