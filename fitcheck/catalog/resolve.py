"""What a person types -> ``Model``: a file, a folder, ``hf:org/repo[:quant]``, ``ollama:name``, or a catalog name."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from fitcheck.catalog import Catalog
from fitcheck.errors import FitcheckError
from fitcheck.types import Model

HUB = "hf:"
OLLAMA = "ollama:"
MAX_TEXT = 4096
LATEST = ":latest"
_SITES = ("huggingface.co/", "hf.co/", "ollama.com/library/")
_REPOSITORY_PARTS = 2  # owner and name; after them come blob/main or tree/main


def resolve(text: str, catalog: Catalog) -> Model:
    """The model that ``text`` names. Only ``hf:`` opens the network.

    A file's model has the text as its id, so that it can be typed again. A catalog name wins over a file of that name,
    unless it looks like a path (``./``, ``/``, ``~``); the name of a GGUF file that is not here is that of a model.
    Raises FitcheckError: ``unknown_model``, ``ambiguous_model``, ``unreadable_file``, ``network``, ``not_found``,
    ``gated``, ``rate_limited``, ``offline``.
    """
    text = without_address(text)
    if not 0 < len(text) <= MAX_TEXT or not text.isprintable():
        why = "a model's name is empty, too long or holds control characters"
        raise FitcheckError("unknown_model", why, "fitcheck catalog list")
    if text.startswith(HUB):
        from fitcheck.catalog.hub import Hub

        return enriched(Hub().resolve(text.removeprefix(HUB)), catalog)
    if text.startswith(OLLAMA):
        from fitcheck.catalog.installed import ollama_model

        return enriched(ollama_model(text.removeprefix(OLLAMA)), catalog)
    if _looks_like_path(text):
        return enriched(replace(from_path(_expanded(text)), id=text), catalog)
    return _named(text, catalog)


def enriched(model: Model, catalog: Catalog) -> Model:
    """A model read from a file, with what the catalog knows about it beyond its header: licence, scores, abilities.

    The row must have the same architecture and, within 2 %, the same parameters.
    """
    row = _row_of(model, catalog)
    if row is None:
        return model
    return replace(
        model,
        family=row.family or model.family,
        developer=row.developer or model.developer,
        hub_repo=model.hub_repo or row.hub_repo,
        licence=row.licence or model.licence,
        openness=row.openness,
        released=row.released,
        abilities=row.abilities,
        benchmarks=row.benchmarks,
        context_extended_tokens=row.context_extended_tokens,
    )


def _row_of(model: Model, catalog: Catalog) -> Model | None:
    from fitcheck.catalog import names

    for text in dict.fromkeys((model.hub_repo or "", model.name, model.id)):
        if not text:
            continue
        try:
            row = names.find(text, catalog)
        except FitcheckError:
            continue
        if row.architecture == model.architecture and abs(row.params - model.params) <= 0.02 * row.params:
            return row
    return None


def _looks_like_path(text: str) -> bool:
    if text.startswith(("/", "./", "../", "~", ".\\", "..\\")) or text[1:3] == ":\\":
        return True
    on_the_hub = (repository(text) or "").casefold().endswith("-gguf")
    return text.endswith(".gguf") and (Path(text).exists() or ("/" in text and not on_the_hub))


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # of a user that there is not
        raise FitcheckError("unreadable_file", f"{text}: no such folder", "write the path in full") from error


def _named(text: str, catalog: Catalog) -> Model:
    from fitcheck.catalog import names

    try:
        return _published(names.find(text, catalog), text)
    except FitcheckError as error:
        default = library_default(text, catalog)
        if default is not None:
            return default
        if error.code != "unknown_model":
            raise
        if Path(text).exists():
            return enriched(replace(from_path(Path(text)), id=text), catalog)
        from fitcheck.catalog.installed import find

        model = find(text)
        if model is None:
            raise
        return enriched(model, catalog)


def library_default(text: str, catalog: Catalog) -> Model | None:
    """The model that Ollama takes for a name without a tag: ``latest``, or the only one of that name."""
    from fitcheck.catalog import names

    tags = names.library(text, catalog.models)
    only = len({model.id for _, model in tags}) == 1
    return tags[0][1] if tags and (only or tags[0][0].endswith(LATEST)) else None


def as_published(model: Model, text: str, quant: str) -> Model:
    """The model as the repository that ``text`` names holds it, in a format other than GGUF."""
    repo = repository(text)
    return replace(model, file_quant=quant, hub_repo=repo or model.hub_repo)


def _published(model: Model, text: str) -> Model:
    """The model as the GGUF repository that ``text`` names holds it: ``unsloth/gemma-4-12b-it-GGUF:Q4_K_M``."""
    repo = repository(text)
    if repo is None or not repo.casefold().endswith("-gguf"):
        return model
    others = [known for known in model.gguf_repos if known.casefold() != repo.casefold()]
    named = next((known for known in model.gguf_repos if known not in others), repo)
    return replace(model, publisher=repo.casefold().partition("/")[0], gguf_repos=(named, *others))


def repository(text: str) -> str | None:
    """``owner/name`` of the Hub repository that a name is of, None where it is of none."""
    parts = without_address(text).partition(":")[0].split("/")
    return "/".join(parts[:2]) if len(parts) > 1 and all(parts[:2]) else None


def without_address(text: str) -> str:
    """A name without the address of the site it was copied from: ``https://huggingface.co/org/repo/blob/main/x.gguf``
    is ``org/repo/x.gguf``, ``https://ollama.com/library/qwen3:8b`` is ``qwen3:8b``."""
    text = text.strip()
    plain = text.removeprefix("https://").removeprefix("http://").removeprefix("www.")
    site = next((site for site in _SITES if plain.startswith(site)), None)
    if site is None:
        return text
    path = plain.removeprefix(site).partition("?")[0].partition("#")[0].strip("/").split("/")
    file = path[-1:] if len(path) > _REPOSITORY_PARTS and path[-1].endswith(".gguf") else []
    return "/".join([*path[:_REPOSITORY_PARTS], *file])


def from_path(path: Path) -> Model:
    """The model in a GGUF file or in a model folder. Raises FitcheckError (``unreadable_file``)."""
    if path.is_dir():
        return _from_folder(path)
    from fitcheck.catalog.gguf_model import model_from_file

    if not path.exists():
        raise FitcheckError("unreadable_file", f"{path}: no such file", "give a .gguf file or a model folder")
    return model_from_file(path)


def _from_folder(folder: Path) -> Model:
    """A folder with config.json, or with the parts of one GGUF model."""
    if (folder / "config.json").is_file():
        from fitcheck.catalog.config import model_from_folder

        return model_from_folder(folder)
    from fitcheck.catalog.gguf_model import is_projector, model_from_file, part_paths

    firsts = {part_paths(file)[0] for file in folder.glob("*.gguf") if not is_projector(file.name)}
    if len(firsts) == 1:
        return model_from_file(firsts.pop())
    if firsts:
        names = ", ".join(sorted(first.name for first in firsts)[:3])
        raise FitcheckError("ambiguous_model", f"{folder}: holds {len(firsts)} models", f"give one of them: {names}")
    raise FitcheckError("unreadable_file", f"{folder}: no config.json and no .gguf file", "give a model folder")
