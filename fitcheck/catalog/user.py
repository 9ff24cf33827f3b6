"""The user's own rows: models that ``fitcheck catalog add`` resolved once and keeps, in the schema of the catalog.

One JSON file in the user's data folder. A row that this version cannot read is left where it is and skipped.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from fitcheck.catalog.source import clean
from fitcheck.errors import FitcheckError
from fitcheck.types import Model

FILE = "models.json"
SCHEMA_VERSION = 1
MAX_FILE_BYTES = 64 << 20


class _File(msgspec.Struct, frozen=True):
    """The file; rows stay bytes until each is read on its own."""

    models: tuple[msgspec.Raw, ...] = ()
    schema_version: int = SCHEMA_VERSION


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model and what the user typed to add it (``hf:org/repo:Q4_K_M``, a path)."""

    ref: str
    model: Model


def read(folder: Path | None) -> tuple[tuple[Model, ...], tuple[str, ...]]:
    """The user's models, and at most one warning about rows that were skipped. Never raises."""
    rows, bad, problem = _read(folder)
    if not problem and not bad:
        return tuple(row.model for row in rows), ()
    what = problem or f"{len(bad)} of your own models skipped ({bad[0][1]}); try: fitcheck catalog refresh"
    return tuple(row.model for row in rows), (what,)


def _read(folder: Path | None) -> tuple[list[Row], list[tuple[msgspec.Raw, str]], str]:
    """Rows, unreadable rows with the reason, and what is wrong with the whole file."""
    if folder is None:
        return [], [], ""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return [], [], f"your own models were skipped: {FILE} is too long"
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return [], [], ""
    except (OSError, ValueError, RecursionError, msgspec.DecodeError):
        return [], [], f"your own models were skipped: {FILE} is not readable"
    rows, bad = [], []
    for raw in file.models:
        try:
            rows.append(msgspec.json.decode(raw, type=Row))
        except (msgspec.DecodeError, RecursionError) as error:
            bad.append((raw, clean(error, 120)))
    return rows, bad, ""


def add(folder: Path, ref: str, model: Model) -> Model:
    """Keep ``model``, which ``ref`` resolved to, under a short id; a row of the same id is replaced.

    Returns the row's model. Raises FitcheckError (``storage``).
    """
    rows, bad, problem = _read(folder)
    if problem:
        raise FitcheckError("storage", problem, f"mend or remove {folder / FILE}")
    model = msgspec.structs.replace(model, id=_short(model.id))
    kept = [row for row in rows if row.model.id != model.id]
    left = [row for row in bad if _ref_of(row) != ref]
    _write(folder, [*kept, Row(_lasting(ref, model), model)], left)
    return model


def _short(name: str) -> str:
    """A name to type instead of a path or a Hub reference, which would be read anew: ``qwen3-8b-q4_k_m``."""
    if name.startswith("hf:"):
        return name.removeprefix("hf:").split("/")[-1]
    return Path(name).name.removesuffix(".gguf")


def _lasting(ref: str, model: Model) -> str:
    """``ref``, such that it means the same in every folder."""
    is_path = not ref.startswith(("hf:", "ollama:")) and model.path is not None and Path(model.path).exists()
    return str(Path(model.path or ref).absolute()) if is_path else ref


def remove(folder: Path, name: str) -> Model:
    """Forget a model by its id or by what was typed to add it. Raises FitcheckError (``unknown_model``)."""
    rows, bad, problem = _read(folder)
    found = [row for row in rows if name in (row.model.id, row.ref) or row.ref == str(Path(name).absolute())]
    if problem or not found:
        known = ", ".join(row.model.id for row in rows[:5]) or "none"
        raise FitcheckError("unknown_model", f"not one of your own models: {clean(name)}", f"your own models: {known}")
    _write(folder, [row for row in rows if row not in found], bad)
    return found[0].model


def refs(folder: Path) -> tuple[str, ...]:
    """What was typed to add each model, those of unreadable rows included: the input of a refresh."""
    rows, bad, _ = _read(folder)
    return tuple(row.ref for row in rows) + tuple(ref for ref in map(_ref_of, bad) if ref)


def _ref_of(bad: tuple[msgspec.Raw, str]) -> str:
    """The ``ref`` of a row whose model cannot be read."""

    class Only(msgspec.Struct):
        ref: str = ""

    try:
        return msgspec.json.decode(bad[0], type=Only).ref
    except (msgspec.DecodeError, RecursionError):
        return ""


def _write(folder: Path, rows: list[Row], bad: list[tuple[msgspec.Raw, str]]) -> None:
    """Write the whole file beside the old one, then put it in its place."""
    import tempfile  # takes longer to import than the rows take to read

    models = [msgspec.Raw(msgspec.json.encode(row)) for row in rows] + [raw for raw, _ in bad]
    data = msgspec.json.encode(_File(tuple(models)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=FILE, delete=False) as file:
            file.write(data + b"\n")
        Path(file.name).replace(folder / FILE)
    except OSError as error:
        raise FitcheckError("storage", f"cannot write {folder / FILE}", "check the folder's permissions") from error
