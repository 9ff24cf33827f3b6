"""What ``fitcheck catalog`` shows: models that pass filters, and every fact of one model with its source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from msgspec import Struct

from fitcheck.catalog import DEFAULT_SOURCE, Catalog
from fitcheck.errors import FitcheckError
from fitcheck.types import Licences, Model, Openness
from fitcheck.units import format_bytes, format_params, format_tokens

MODALITIES = ("text", "vision", "audio", "embedding")
_PARAMS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*([kmbt]?)")
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_ALLOWED = {
    Licences.ANY: frozenset(Openness),
    Licences.PERMISSIVE: frozenset((Openness.PERMISSIVE, Openness.FULLY_OPEN)),
    Licences.OPEN: frozenset((Openness.FULLY_OPEN,)),
}


class Fact(Struct, frozen=True):
    """One line about a model: what, its value for reading, and where it comes from ("" for what is computed)."""

    name: str
    value: str
    source: str = ""


class Filters(Struct, frozen=True):
    """What models must have. ``text``: part of an id, name, family or developer; ``family`` and ``licence``: part of
    that name, whatever its case; ``modality``: text, vision, audio or embedding; ``max_params``: total parameters;
    ``suits``: any further test, such as a task's."""

    text: str = ""
    licences: Licences = Licences.ANY
    licence: str | None = None
    family: str | None = None
    modality: str | None = None
    max_params: int | None = None
    suits: Callable[[Model], bool] | None = None


def parse_params(text: str) -> int:
    """``"70b"``, ``"1.5B"``, ``"270m"`` -> parameters. Raises FitcheckError."""
    match = _PARAMS.fullmatch(text.strip().lower())
    if match is None:
        raise FitcheckError("bad_option", f"not a number of parameters: {text[:40]!r}", "write it like 8b or 270m")
    return int(float(match[1]) * _SCALE[match[2]])


def modality_named(text: str) -> str:
    """The modality that ``text`` names. Raises FitcheckError."""
    modality = text.strip().lower()
    if modality not in MODALITIES:
        raise FitcheckError("bad_option", f"unknown modality: {text[:40]!r}", f"write one of {', '.join(MODALITIES)}")
    return modality


def listed(catalog: Catalog, filters: Filters) -> tuple[Model, ...]:
    """The models that pass, by family, size and name."""
    models = [model for model in catalog.models if _passes(model, filters)]
    return tuple(sorted(models, key=lambda model: (model.family.casefold(), model.params, model.id)))


def _passes(model: Model, filters: Filters) -> bool:
    family, licence = (filters.family or "").casefold(), (filters.licence or "").casefold()
    named = " ".join((model.id, model.name, model.family, model.developer)).casefold()
    return (
        filters.text.casefold() in named
        and model.openness in _ALLOWED[filters.licences]
        and licence in (model.licence or "").casefold()
        and any(family in name.casefold() for name in (model.family, model.lineage, model.developer))
        and (filters.modality is None or filters.modality in model.modalities)
        and (filters.max_params is None or model.params <= filters.max_params)
        and (filters.suits is None or filters.suits(model))
    )


def facts(model: Model, catalog: Catalog) -> tuple[Fact, ...]:
    """Everything that the catalog holds about a model, each with its source."""
    return tuple(fact for fact in (*_identity(model, catalog), *_evidence(model, catalog)) if fact.value)


def _identity(model: Model, catalog: Catalog) -> Iterator[Fact]:
    def source(field: str) -> str:
        return catalog.sources.get(model.sources.get(field, DEFAULT_SOURCE), "")

    licence = catalog.licences.get(model.licence or "")
    openness = model.openness.value.replace("_", " ")
    extended = model.context_extended_tokens
    yield Fact("name", model.name)
    yield Fact("developer", model.developer)
    yield Fact("released", model.released or "", source("released"))
    yield Fact("licence", f"{licence.name} ({openness})" if licence else openness, source("licence"))
    yield Fact("gated", {True: "yes", False: "no", None: ""}[model.gated], source("gated"))
    yield Fact("input", ", ".join(model.modalities))
    yield Fact("abilities", ", ".join(model.abilities))
    yield Fact("parameters", _parameters(model), source("shape"))
    yield Fact("checked", _checked(model))
    yield Fact("layers", _layers(model), source("shape"))
    context = format_tokens(model.context_tokens) + (f", {format_tokens(extended)} extended" if extended else "")
    yield Fact("context", context, source("context_tokens"))
    yield Fact("runs as", ", ".join(model.ollama_tags), source("ollama_tags"))
    yield Fact("Hub", ", ".join(repo for repo in (model.hub_repo, *model.gguf_repos) if repo))
    yield Fact("architecture", ", ".join(name for name in (model.architecture, model.hf_architecture) if name))
    yield Fact("note", model.note)


def _evidence(model: Model, catalog: Catalog) -> Iterator[Fact]:
    for file in model.files:
        value = f"{file.quant} {format_bytes(file.bytes)}{'' if file.exact else ' (rounded)'}"
        yield Fact("file", f"{value} {file.repo}".rstrip(), catalog.sources.get(file.source, ""))
    for score in model.benchmarks:
        index = catalog.indices.get(score.index)
        value = f"{index.name if index else score.index} {score.score:g}, {score.date}"
        yield Fact("score", value, catalog.sources.get(score.source, ""))


def _parameters(model: Model) -> str:
    text = format_params(model.params)
    if model.params_active < 0.8 * model.params:
        text += f", {format_params(model.params_active)} per token"
    towers = [f"{name} {format_params(count)}" for name, count in model.tower_params.items() if name != "unused"]
    return ", ".join([text, *towers])


def _checked(model: Model) -> str:
    count = f" ({model.published_params:,})" if model.published_params else ""
    return {
        "A": f"the shape reproduces the published parameter count exactly{count}",
        "B": f"the shape reproduces the published parameter count within 0.7 %{count}",
    }.get(model.grade, "the shape has no published count to be checked against")


def _layers(model: Model) -> str:
    shape = model.shape
    if shape is None:
        return ""
    return f"{shape.n_layers} of {len(shape.kinds)} kind{'s' if len(shape.kinds) > 1 else ''}"
