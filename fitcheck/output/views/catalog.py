"""Lists of models, one model with its facts, and what a command changed."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BLANK, DIM, STRONG, Block, Column, Document, Span, Table, line
from fitcheck.output.words import next_steps
from fitcheck.types import Model, Report
from fitcheck.units import format_bytes, format_params, format_tokens

_LIST = (
    Column("MODEL", keep=99, shorten=True),
    Column("PARAMS", right=True, keep=8),
    Column("ACTIVE", right=True, keep=5),
    Column("CONTEXT", right=True, keep=7),
    Column("LICENCE", keep=6, shorten=True),
    Column("RELEASED", keep=4),
)
_FACTS = (Column("FACT", keep=99), Column("VALUE", keep=98, shorten=True))
_FILES = (
    Column("FILE", keep=99, shorten=True),
    Column("QUANT", keep=8),
    Column("SIZE", right=True, keep=98),
)


def document(report: Report, verbose: bool = False) -> Document:
    """The models of the report, or the one model's facts."""
    if report.command == "catalog_list":
        return Document(tuple(_list(report)), table_only=True)
    if report.command == "catalog_show":
        return Document(tuple(_show(report, report.models[0])))
    return Document((line(report.summary), *(line(note, indent=2) for note in report.notes), *next_steps(report)))


def quiet(report: Report) -> str:
    """Ids, one to a word."""
    return " ".join(model.id for model in report.models)


def _list(report: Report) -> Iterator[Block]:
    yield Table(_LIST, tuple(_row(model) for model in report.models))
    yield line(Span(f"{report.summary}, catalog of {report.catalog_date}", DIM))
    for note in report.notes:
        yield line(note, indent=2)
    yield from next_steps(report)


def _row(model: Model) -> tuple[Span, ...]:
    active = "" if model.params_active * 2 > model.params else format_params(model.params_active)
    return (
        Span(model.id, STRONG),
        Span(format_params(model.params)),
        Span(active),
        Span(format_tokens(model.context_tokens) if model.context_tokens else "-"),
        Span(model.licence or "-"),
        Span(model.released or "-"),
    )


def _show(report: Report, model: Model) -> Iterator[Block]:
    yield line(Span(model.name, STRONG), f" ({model.id})")
    yield BLANK
    yield Table(_FACTS, tuple((Span(name), Span(value)) for name, value in _facts(model) if value), header=False)
    published = [file for file in model.files if file.repo]
    if published:
        yield BLANK
        rows = ((file.repo, file.quant, format_bytes(file.bytes)) for file in published)
        yield Table(_FILES, tuple(tuple(map(Span, row)) for row in rows))
    yield BLANK
    for note in report.notes:
        yield line(Span(note, DIM), indent=2)
    yield from next_steps(report)


def _facts(model: Model) -> Iterator[tuple[str, str]]:
    yield "developer", model.developer
    yield "parameters", f"{format_params(model.params)}, {format_params(model.params_active)} read per token"
    if model.shape:
        shape = model.shape
        yield "shape", f"{shape.n_layers} layers of {shape.hidden_size}, vocabulary of {shape.vocab_size}"
    yield "context", format_tokens(model.context_tokens) if model.context_tokens else ""
    yield "licence", f"{model.licence or 'not stated'} ({model.openness.value.replace('_', ' ')})"
    yield "released", model.released or ""
    yield "takes", ", ".join(model.modalities)
    yield "made for", ", ".join(model.abilities)
    yield "architecture", model.architecture or "not in llama.cpp"
    yield "Hub", model.hub_repo or ""
    yield "Ollama", ", ".join(model.ollama_tags)
    yield "GGUF", ", ".join(model.gguf_repos)
    yield "also called", ", ".join(model.aliases)
    yield "scores", ", ".join(f"{score.index} {score.score:g} ({score.date})" for score in model.benchmarks)
