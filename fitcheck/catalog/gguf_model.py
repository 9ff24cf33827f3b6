"""GGUF files -> ``Model``: one file or a split set, the projector beside it, and what the header says about itself."""

from __future__ import annotations

import re
from pathlib import Path

from fitcheck.catalog.gguf import FILE_TYPES, GUESSED, Header, elements, read_header, tensor_bytes
from fitcheck.catalog.gguf_architectures import ARCHITECTURES
from fitcheck.catalog.gguf_shape import shape_from_gguf
from fitcheck.catalog.plausible import implausible
from fitcheck.catalog.source import LocalSource, clean, unreadable
from fitcheck.estimate.tensors import parameters
from fitcheck.types import CountedMixer, MediaEncoder, Model, PublishedFile, Shape, Tensor

MAX_PARTS = 1000
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.DOTALL)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PROJECTOR_QUANT = "mmproj"
DYNAMIC = "UD-"  # mixes that are told by the name of the file only; its header says what they started from
_VISION_PREFIXES = ("v.", "mm.", "a.")  # Ollama keeps the vision part in the model's own file


def model_from_file(path: Path, projector: Path | None = None) -> Model:
    """The model in a GGUF file, or in the split set that it belongs to. ``projector``: its vision part, where that does
    not lie beside it under its usual name. Raises FitcheckError (``unreadable_file``)."""
    headers = [_read(part) for part in part_paths(path)]
    beside = projector or _projector_beside(path)
    return model_from_headers(headers, str(path), projector=_read(beside) if beside else None)


def part_paths(path: Path) -> list[Path]:
    """All files of the split set that ``path`` belongs to, the first one first; only ``path`` if it is not split."""
    return [path.with_name(name) for name in part_names(path.name)]


def part_names(name: str) -> list[str]:
    """The names of all parts of a split file; only ``name`` itself if it is not one."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    parts = int(match["parts"])
    if not 0 < parts <= MAX_PARTS or not 0 < int(match["part"]) <= parts:
        raise unreadable(name, "part number out of range")
    return [f"{match['stem']}-{part:05d}-of-{parts:05d}.gguf" for part in range(1, parts + 1)]


def is_projector(name: str) -> bool:
    """Whether a file of this name is the vision or audio part that goes with a model."""
    return "mmproj" in name.lower() and name.lower().endswith(".gguf")


def quant_of(name: str) -> str:
    """The quantisation that a file name tells (``UD-Q4_K_XL``), "" if it tells none."""
    found = _QUANT.findall(name.rsplit("/", 1)[-1]) or _QUANT.findall(name)
    return found[-1].upper() if found else ""


def _read(path: Path) -> Header:
    with LocalSource(path) as source:
        return read_header(source)


def _projector_beside(path: Path) -> Path | None:
    """The projector in the same folder, the largest one if there are several precisions of it."""
    if is_projector(path.name):
        return None
    found = [other for other in path.parent.glob("*.gguf") if is_projector(other.name) and other.is_file()]
    return max(found, key=lambda other: (other.stat().st_size, other.name), default=None)


def model_from_headers(headers: list[Header], path: str | None, projector: Header | None = None) -> Model:
    """The model that these headers (all parts of one) describe. ``path``: where it lies, None if it is elsewhere."""
    first = headers[0]
    architecture = first.text("general.architecture")
    if architecture is None:
        raise unreadable(first.name, "does not name its architecture")
    _refuse_parts_of_models(first, architecture)
    everything = _all_tensors(headers)
    tensors = tuple(tensor for tensor in everything if not tensor.name.startswith(_VISION_PREFIXES))
    inside = tuple(tensor for tensor in everything if tensor.name.startswith(_VISION_PREFIXES))
    shape = shape_from_gguf(architecture, first.metadata, _n_vocab(first, architecture, tensors), tensors)
    wrong = implausible(shape) if shape is not None else None
    if wrong is not None:
        raise unreadable(first.name, f"its header cannot be right: {wrong}")
    bodies, heads = _split_off_prediction(tensors, shape)
    known = architecture in ARCHITECTURES
    exact = shape is not None and known and not _has_counted(shape)
    held = sum(elements(tensor.dims) for tensor in bodies)
    params, active = parameters(shape) if shape is not None else (held, held)
    towers = {"mtp": sum(elements(tensor.dims) for tensor in heads)} if heads else {}
    files = [_file(headers, first, bodies, architecture)]
    vision = projector.tensors if projector is not None else inside
    if vision:
        towers["vision"] = sum(elements(tensor.dims) for tensor in vision)
        size = projector.file_bytes if projector is not None else sum(map(tensor_bytes, inside))
        files.append(PublishedFile("", PROJECTOR_QUANT, size, file=projector.name if projector else first.name))
    title = first.text("general.name") or _stem(first.name)
    return Model(
        id=_stem(first.name),
        name=clean(title, 100),
        shape=shape,
        params=params,
        params_active=active,
        architecture=architecture,
        family=clean(first.text("general.basename") or "", 100),
        developer=clean(first.text("general.organization") or "", 100),
        licence=clean(first.text("general.license") or "", 60).lower() or None,
        modalities=("text", "vision") if vision else ("text",),
        context_tokens=first.number(f"{architecture}.context_length") or 0,
        native_dtype=files[0].quant,
        tower_params=towers,
        encoders=_encoders(projector) if projector is not None else (),
        files=tuple(files),
        grade="A" if exact else "C",
        note=_note(architecture, shape, known),
        tensors=tensors,
        file_quant=files[0].quant,
        path=path,
    )


def _encoders(projector: Header) -> tuple[MediaEncoder, ...]:
    from fitcheck.catalog.mmproj import encoders_of

    return encoders_of(projector)


def _refuse_parts_of_models(header: Header, architecture: str) -> None:
    kind = header.text("general.type") or ("mmproj" if architecture == "clip" else "model")
    if kind == "mmproj" or architecture == "clip":
        raise unreadable(header.name, "the vision part of a model, not a model", "give the model's own .gguf file")
    if kind in ("adapter", "imatrix"):
        raise unreadable(header.name, f"an {kind} for a model, not a model", "give the model's own .gguf file")


def _all_tensors(headers: list[Header]) -> tuple[Tensor, ...]:
    first = headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if not tensors:
        raise unreadable(first.name, "holds a vocabulary only, no weights")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise unreadable(first.name, "two parts hold the same tensor")
    told = first.number("split.tensors.count")
    if len(headers) > 1 and told is not None and told != len(tensors):
        raise unreadable(first.name, f"the parts hold {len(tensors)} of {told} tensors", "download the missing part")
    for header in headers:
        if header.missing_bytes:
            raise unreadable(
                header.name, f"cut short: {header.missing_bytes:,} bytes are missing", "download the file again"
            )
    return tensors


def _n_vocab(header: Header, architecture: str, tensors: tuple[Tensor, ...]) -> int:
    """The number of tokens: the token list's length, else what the metadata or the embedding says."""
    tokens = header.count("tokenizer.ggml.tokens") or header.number(f"{architecture}.vocab_size")
    if tokens:
        return tokens
    return next((t.dims[1] for t in tensors if t.name == "token_embd.weight" and len(t.dims) == 2), 0)


def _split_off_prediction(
    tensors: tuple[Tensor, ...], shape: Shape | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Tensors of the model, and those of prediction heads behind its last layer, which are not loaded."""
    if shape is None:
        return tensors, ()
    heads = {tensor.name for tensor in tensors if (_layer_of(tensor.name) or 0) >= shape.n_layers}
    return tuple(t for t in tensors if t.name not in heads), tuple(t for t in tensors if t.name in heads)


def _layer_of(name: str) -> int | None:
    parts = name.split(".", 2)
    return int(parts[1][:4]) if parts[0] == "blk" and len(parts) == 3 and parts[1].isdecimal() else None


def _file(headers: list[Header], first: Header, bodies: tuple[Tensor, ...], architecture: str) -> PublishedFile:
    return PublishedFile(
        repo=first.text("general.source.huggingface.repository") or "",
        quant=_quant(first, bodies),
        bytes=sum(header.file_bytes for header in headers),
        file=first.name,
        source=f"GGUF header ({architecture})",
    )


def _quant(header: Header, tensors: tuple[Tensor, ...]) -> str:
    """The mix that the file says it has, else the type that most of its bytes have."""
    named = quant_of(header.name)
    if named.startswith(DYNAMIC):
        return named
    told = header.number("general.file_type")
    if told is not None and told & ~GUESSED in FILE_TYPES:
        return FILE_TYPES[told & ~GUESSED]
    totals: dict[str, int] = {}
    for tensor in tensors:
        totals[tensor.type] = totals.get(tensor.type, 0) + tensor_bytes(tensor)
    return max(totals, key=lambda name: totals[name])


def _has_counted(shape: Shape) -> bool:
    return any(isinstance(kind.mixer, CountedMixer) and kind.mixer.time_mix is None for kind in shape.kinds)


def _note(architecture: str, shape: Shape | None, known: bool) -> str:
    if shape is None:
        return f"architecture {architecture} is not known: weights are exact, everything else is not estimated"
    if not known:
        return f"architecture {architecture} is not known: weights are exact, caches and buffers are bounds"
    return "some layers have no known form: their cache is a bound" if _has_counted(shape) else ""


def _stem(name: str) -> str:
    match = _SPLIT.fullmatch(name)
    return match["stem"] if match else name.removesuffix(".gguf")
