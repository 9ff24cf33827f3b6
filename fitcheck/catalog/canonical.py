"""The one way to write the catalog, so that a change of one fact is a change of one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fitcheck.catalog import Catalog
from fitcheck.types import Model

# containers that are written over several lines; everything below them stands on one line
_OPEN = {
    "",
    ".sources",
    ".indices",
    ".licences",
    ".models",
    ".models[]",
    ".models[].shape",
    ".models[].shape.kinds",
    ".models[].files",
    ".models[].benchmarks",
}


def canonical(catalog: Catalog) -> bytes:
    """The catalog as the repository keeps it: models, files and tables sorted, one line per field, file and score."""
    tables = {
        "date": catalog.date,
        "sources": dict(sorted(catalog.sources.items())),
        "indices": dict(sorted(catalog.indices.items())),
        "licences": dict(sorted(catalog.licences.items())),
        "models": [_sorted(model) for model in sorted(catalog.models, key=lambda model: model.id)],
    }
    return ("\n".join(_lines(msgspec.to_builtins(tables), "", "")) + "\n").encode()


def _sorted(model: Model) -> Model:
    """The same model with its lists in a fixed order."""
    return msgspec.structs.replace(
        model,
        abilities=tuple(sorted(model.abilities)),
        aliases=tuple(sorted(model.aliases)),
        benchmarks=tuple(sorted(model.benchmarks, key=lambda score: (score.index, score.date, score.source))),
        files=tuple(sorted(model.files, key=lambda file: (file.repo, file.quant, file.bytes))),
        sources=dict(sorted(model.sources.items())),
        tower_params=dict(sorted(model.tower_params.items())),
    )


def _lines(value: Any, path: str, indent: str) -> Iterator[str]:
    """The lines of a value, without the comma that may follow it."""
    if path not in _OPEN or not value:
        yield indent + msgspec.json.encode(value).decode()
        return
    is_object = isinstance(value, dict)
    yield indent + ("{" if is_object else "[")
    deeper = indent + " "
    last = len(value) - 1
    for position, entry in enumerate(value.items() if is_object else value):
        key, item = entry if is_object else (None, entry)
        name = f'"{key}": ' if is_object else ""
        lines = list(_lines(item, f"{path}.{key}" if is_object else f"{path}[]", deeper))
        lines[0] = deeper + name + lines[0][len(deeper) :]
        lines[-1] += "," if position < last else ""
        yield from lines
    yield indent + ("}" if is_object else "]")
