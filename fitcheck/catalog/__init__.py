"""Models: the catalog, names, files and the Hub."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fitcheck.errors import FitcheckError
from fitcheck.types import BenchmarkIndex, Licence, Model

CATALOG_FILE = "model_catalog.json"
DEFAULT_SOURCE = "collected"  # key of the source of every fact that names no other


class Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The models that fitcheck knows.

    ``sources``: key -> where facts come from; a fact that names none comes from ``collected``. ``indices``: key ->
    benchmark index. ``licences``: key -> licence (SPDX, else the Hub's name). ``warnings``: which rows of the
    user's own were left out, why.
    """

    date: str
    models: tuple[Model, ...]
    sources: dict[str, str] = {}
    indices: dict[str, BenchmarkIndex] = {}
    licences: dict[str, Licence] = {}
    warnings: tuple[str, ...] = ()


def catalog_path() -> Path:
    """The built-in catalog: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "data" / CATALOG_FILE
    return installed if installed.exists() else package.parent / CATALOG_FILE


def decode(raw: bytes) -> Catalog:
    """JSON bytes -> Catalog, every field checked. Raises FitcheckError with the path of the bad field."""
    try:
        return msgspec.json.decode(raw, type=Catalog)
    except msgspec.DecodeError as error:
        raise FitcheckError("bad_catalog", f"the model catalog is not valid: {error}", "reinstall fitcheck") from error


def load(user_folder: Path | None = None) -> Catalog:
    """The built-in models, and the user's own rows from ``user_folder``.

    A broken row of the user's, or one that has the id of a built-in model, is left out and becomes a warning. Raises
    FitcheckError when the built-in file is missing or broken.
    """
    path = catalog_path()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FitcheckError("bad_catalog", f"cannot read the model catalog: {path}", "reinstall fitcheck") from error
    catalog = decode(raw)
    return catalog if user_folder is None else _with_own(catalog, user_folder)


def _with_own(catalog: Catalog, user_folder: Path) -> Catalog:
    from fitcheck.catalog import user

    own, warnings = user.read(user_folder)
    if not own and not warnings:
        return catalog
    built_in = {model.id for model in catalog.models}
    added = tuple(model for model in own if model.id not in built_in)
    if len(added) < len(own):
        hidden = ", ".join(model.id for model in own if model.id in built_in)
        warnings = (*warnings, f"your own models have names of built-in ones and were left out: {hidden}")
    return msgspec.structs.replace(catalog, models=catalog.models + added, warnings=catalog.warnings + warnings)
