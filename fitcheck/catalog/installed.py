"""Models that other programs already keep on this machine: Ollama, LM Studio, llama.cpp, the Hugging Face cache.

Only headers are read. What those programs wrote is outside text like any other: names are checked before they become
paths, so a manifest cannot point out of its store.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.catalog.gguf_model import is_projector, model_from_file, part_paths
from fitcheck.catalog.source import LocalSource, clean, read_json
from fitcheck.errors import FitcheckError
from fitcheck.types import Model

MAX_MODELS = 500
MAX_ENTRIES = 20_000  # of folders that are looked through
MAX_DEPTH = 6
MAX_MANIFEST_BYTES = 1 << 20

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_OLLAMA_REGISTRY = "registry.ollama.ai"
_OLLAMA_LAYERS = "application/vnd.ollama.image."


class Installed(Struct, frozen=True):
    """What was found: models by name, and one line for each that could not be read."""

    models: tuple[Model, ...]
    problems: tuple[str, ...]


class Stores:
    """Where each program keeps its models. ``environ`` and ``home`` may be those of another machine, in tests."""

    def __init__(self, environ: Mapping[str, str] | None = None, home: Path | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._home = Path.home() if home is None else home

    def _given(self, name: str) -> Path | None:
        value = self._environ.get(name)
        return Path(value).expanduser() if value else None

    @property
    def ollama(self) -> list[Path]:
        """Ollama's stores: the one that OLLAMA_MODELS names, else the user's and the service's."""
        given = self._given("OLLAMA_MODELS")
        if given is not None:
            return [given]
        return [self._home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]

    @property
    def lm_studio(self) -> list[Path]:
        """LM Studio's folders, today's and the one of before 2025."""
        return [self._home / ".lmstudio" / "models", self._home / ".cache" / "lm-studio" / "models"]

    @property
    def llama_cpp(self) -> list[Path]:
        """The cache of llama.cpp's ``-hf`` option."""
        given = self._given("LLAMA_CACHE")
        if given is not None:
            return [given]
        return [self._caches / "llama.cpp"]

    @property
    def _caches(self) -> Path:
        if sys.platform == "darwin":
            return self._home / "Library" / "Caches"
        name, default = ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
        return self._given(name) or self._home / default

    @property
    def hub(self) -> list[Path]:
        """The cache of huggingface_hub."""
        given = self._given("HF_HUB_CACHE") or self._given("HUGGINGFACE_HUB_CACHE")
        if given is not None:
            return [given]
        return [(self._given("HF_HOME") or self._home / ".cache" / "huggingface") / "hub"]


def installed(stores: Stores | None = None) -> Installed:
    """Every model that is already here, by name; each file once. Never raises."""
    stores = stores or Stores()
    models: dict[str, Model] = {}
    problems: list[str] = []
    for name, read in _all(stores):
        if len(models) >= MAX_MODELS:
            problems.append(f"more than {MAX_MODELS} models: the rest was not read")
            break
        try:
            models.setdefault(name, replace(read(), id=name))
        except FitcheckError as error:
            problems.append(clean(f"{name}: {error.message}"))
        except OSError as error:
            problems.append(clean(f"{name}: {error.strerror}"))
    return Installed(tuple(models[name] for name in sorted(models)), tuple(problems))


def find(name: str, stores: Stores | None = None) -> Model | None:
    """The model that ``installed`` lists under ``name``; no other file is read. Raises FitcheckError."""
    read = next((read for found, read in _all(stores or Stores()) if found.casefold() == name.casefold()), None)
    return replace(read(), id=name) if read is not None else None


Reader = Callable[[], Model]
T = TypeVar("T")


def _all(stores: Stores) -> Iterator[tuple[str, Reader]]:
    """Names and how to read each, store by store."""
    for folder in stores.ollama:
        for name, manifest in _allowed(_ollama_manifests(folder)):
            yield f"ollama:{name}", _ollama_reader(folder, manifest, name)
    for folder in [*stores.lm_studio, *stores.llama_cpp]:
        for path in _allowed(_gguf_files(folder)):
            yield clean(path.name.removesuffix(".gguf")), _file_reader(path)
    for folder in stores.hub:
        yield from _allowed(_hub_models(folder))


def _allowed(found: Iterator[T]) -> Iterator[T]:
    """What a store holds, as far as this user may look into it: Ollama's service keeps its own to itself."""
    try:
        yield from found
    except OSError:
        return


def _file_reader(path: Path) -> Reader:
    def read() -> Model:
        if not str(path).isprintable():  # it would be printed in the command that runs the model
            raise FitcheckError("unreadable_file", "its path holds control characters", "rename the file")
        return model_from_file(path)

    return read


# --------------------------------------------------------------------------------------------------------------------
# Ollama


def ollama_model(name: str, stores: Stores | None = None) -> Model:
    """The model that Ollama keeps under ``name`` (``llama3.1:8b``, ``user/model:tag``), read from its store.

    Raises FitcheckError: ``unknown_model``, ``unreadable_file``.
    """
    for folder in (stores or Stores()).ollama:
        manifest = folder / "manifests" / _manifest_path(name)
        if os.access(manifest, os.R_OK):
            return replace(_ollama_reader(folder, manifest, name)(), id=f"ollama:{name}")
    raise FitcheckError("unknown_model", f"Ollama has no model {clean(name, 80)}", f"ollama pull {clean(name, 80)}")


def _manifest_path(name: str) -> Path:
    """Where a model's manifest lies below ``manifests``. Raises FitcheckError for what is not a model name."""
    name, _, tag = name.partition(":")
    parts = name.split("/")
    if len(parts) > 3 or not all(_NAME_PART.fullmatch(part) for part in [*parts, tag or "latest"]):
        raise FitcheckError("unknown_model", f"not a name that Ollama uses: {clean(name, 80)}", "ollama list")
    host = [] if len(parts) == 3 else [_OLLAMA_REGISTRY]
    owner = ["library"] if len(parts) == 1 else []
    return Path(*host, *owner, *parts, tag or "latest")


def _ollama_manifests(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names as ``ollama list`` prints them, and the manifest of each."""
    root = folder / "manifests"
    for path in _files(root):
        parts = path.relative_to(root).parts
        if len(parts) != 4 or not all(_NAME_PART.fullmatch(part) for part in parts):
            continue
        host, owner, model, tag = parts
        prefix = [part for part, default in ((host, _OLLAMA_REGISTRY), (owner, "library")) if part != default]
        yield "/".join([*prefix, model]) + f":{tag}", path


def _ollama_reader(folder: Path, manifest: Path, name: str) -> Reader:
    def read() -> Model:
        layers = ollama_layers(read_json(manifest, MAX_MANIFEST_BYTES))
        blob = layers.get("model")
        if blob is None:
            raise FitcheckError(
                "unreadable_file", f"{clean(name, 80)}: its manifest names no GGUF model", "ollama list"
            )
        projector = layers.get("projector")
        blobs = folder / "blobs"
        model = model_from_file(blobs / blob, blobs / projector if projector else None)
        return replace(model, name=name, ollama_tags=(name,))

    return read


def ollama_layers(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Kind of layer (model, projector, …) -> name of its blob, for digests that are digests."""
    layers = manifest.get("layers")
    found: dict[str, str] = {}
    for layer in layers[:100] if isinstance(layers, list) else []:
        if not isinstance(layer, dict):
            continue
        kind, match = str(layer.get("mediaType", "")), _DIGEST.fullmatch(str(layer.get("digest", ""))[:100])
        if match is not None and kind.startswith(_OLLAMA_LAYERS):
            found.setdefault(kind.removeprefix(_OLLAMA_LAYERS), f"sha256-{match[1]}")
    return found


# --------------------------------------------------------------------------------------------------------------------
# Folders of files


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, in order of name, a bounded number of them."""
    left = MAX_ENTRIES
    for folder, folders, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(folders) if depth < MAX_DEPTH else []
        for name in sorted(files):
            left -= 1
            if left < 0:
                return
            yield Path(folder) / name


def _gguf_files(root: Path) -> Iterator[Path]:
    """Models in GGUF files below a folder; of a split one only the first part."""
    for path in _files(root):
        if path.suffix != ".gguf" or is_projector(path.name):
            continue
        try:
            is_first = part_paths(path)[0] == path
        except FitcheckError:
            continue
        if is_first:
            yield path


def _hub_models(root: Path) -> Iterator[tuple[str, Reader]]:
    """Models in a Hub cache: ``models--org--name/snapshots/REVISION``, the revision that ``main`` points to."""
    for folder in sorted(root.glob("models--*"))[:MAX_MODELS]:
        snapshot = snapshot_of(folder)
        if snapshot is None:
            continue
        repo = clean(folder.name.removeprefix("models--").replace("--", "/", 1))
        ggufs = list(_gguf_files(snapshot))
        for path in ggufs:
            yield clean(path.name.removesuffix(".gguf")), _file_reader(path)
        if not ggufs and (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
            yield repo, _folder_reader(snapshot, repo)


def snapshot_of(folder: Path) -> Path | None:
    """The newest state of a cached repository, None if there is none."""
    snapshots = folder / "snapshots"
    main = folder / "refs" / "main"
    if main.is_file():
        with LocalSource(main) as source:
            revision = source.fetch(0, 64).decode("ascii", "replace").strip()
        if _NAME_PART.fullmatch(revision) and (snapshots / revision).is_dir():
            return snapshots / revision
    found = [path for path in snapshots.glob("*") if path.is_dir()] if snapshots.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _folder_reader(folder: Path, repo: str) -> Reader:
    def read() -> Model:
        from fitcheck.catalog.config import model_from_folder

        return replace(model_from_folder(folder), name=repo.split("/")[-1], hub_repo=repo)

    return read
