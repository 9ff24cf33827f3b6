"""``fitcheck.toml``, or ``[tool.fitcheck]`` of pyproject.toml: the models that an application needs.

::

    context = "16k"            # for every model, as the options of fitcheck check

    [[models]]
    model = "qwen3:14b"
    alternatives = ["llama3.1:8b"]
    min-speed = 15
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from fitcheck.errors import FitcheckError
from fitcheck.options import RequestOptions
from fitcheck.types import Request, Task

FILE = "fitcheck.toml"
_LIMIT_BYTES = 1024 * 1024
_MOST_MODELS = 100
#: Field of the file -> field of RequestOptions, and the types that TOML may give it.
_TEXT, _COUNT, _RATE = (str,), (int,), (int, float)
_FIELDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "context": ("context", (str, int)),
    "runtime": ("runtime", _TEXT),
    "quant": ("quant", _TEXT),
    "kv": ("kv", _TEXT),
    "parallel": ("parallel", _COUNT),
    "prompt": ("prompt", (str, int)),
    "min-speed": ("min_speed", _RATE),
    "min-prefill": ("min_prefill", _RATE),
    "first-token": ("first_token", _RATE),
    "allow": ("allow", (str, list)),
    "for": ("task", _TEXT),
    "licence": ("licence", _TEXT),
    "margin": ("margin", _TEXT),
}


class Wanted(Struct, frozen=True):
    """One model that is needed: its name and those that would do instead, in order, and what is asked of them.
    ``where``: file and line."""

    names: tuple[str, ...]
    options: RequestOptions
    where: str = ""

    def request(self, given: RequestOptions) -> Request:
        """What is asked; the options of the command line go first."""
        return given.request(self.options.request())


def find(folder: Path) -> Path | None:
    """The nearest file, in ``folder`` or above it, that says what an application needs."""
    for place in (folder, *folder.parents):
        own, project = place / FILE, place / "pyproject.toml"
        if _is_file(own):
            return own
        if _is_file(project) and b"[tool.fitcheck" in _read(project):
            return project
    return None


def _is_file(path: Path) -> bool:
    """Whether there is such a file, as far as this user may look."""
    try:
        return path.is_file()
    except OSError:
        return False


def load(path: Path) -> tuple[Wanted, ...]:
    """The models of a file. Raises FitcheckError with file, line and field."""
    text = _decoded(path)
    table = _parsed(path, text)
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("fitcheck", {})
    place = _Place(path.name, text)
    models = table.pop("models", None)
    if not isinstance(models, list) or not models or not all(isinstance(entry, dict) for entry in models):
        raise place.error("models", "needs at least one [[models]] table with a model in it")
    if len(models) > _MOST_MODELS:
        raise place.error("models", f"holds more than {_MOST_MODELS} models")
    defaults = _options(table, place)
    return tuple(_wanted(entry, defaults, _Place(path.name, text, number)) for number, entry in enumerate(models, 1))


class _Place(Struct, frozen=True):
    """Where a field stands: in the head of the file (``entry`` 0), or in the n-th [[models]] table."""

    file: str
    text: str
    entry: int = 0

    def error(self, field: str, message: str, hint: str = "") -> FitcheckError:
        return FitcheckError("bad_configuration", f"{self.of(field)}: {field} {message}", hint)

    def of(self, field: str) -> str:
        """File and line of a field."""
        return f"{self.file} line {self._line(field)}"

    def _line(self, field: str) -> int:
        """The line of the field; of its table where the field is not there."""
        entry, table_line = 0, 1
        for number, line in enumerate(self.text.splitlines(), 1):
            if re.match(r"\s*\[\[\s*(tool\.fitcheck\.)?models\s*\]\]", line):
                entry, table_line = entry + 1, number if entry + 1 == self.entry else table_line
            if entry == self.entry and re.match(rf"""\s*["']?{re.escape(field)}["']?\s*=""", line):
                return number
        return table_line


def _wanted(entry: dict[str, Any], defaults: dict[str, Any], place: _Place) -> Wanted:
    entry = dict(entry)
    name, others = entry.pop("model", None), entry.pop("alternatives", [])
    options = _options(entry, place)
    if not isinstance(name, str) or not name:
        raise place.error("model", "is missing, or not a name", 'write it like model = "llama3.1:8b"')
    if not isinstance(others, list) or not all(isinstance(other, str) and other for other in others):
        raise place.error("alternatives", "must be a list of names", 'write it like alternatives = ["llama3.1:8b"]')
    return Wanted((name, *others), RequestOptions(**{**defaults, **options}), place.of("model"))


def _options(table: dict[str, Any], place: _Place) -> dict[str, Any]:
    """The fields as RequestOptions takes them, each checked by itself so that an error names its line."""
    options: dict[str, Any] = {}
    for field, value in table.items():
        if field not in _FIELDS:
            raise place.error(field, "is not a field", f"fields: model, alternatives, {', '.join(_FIELDS)}")
        name, kinds = _FIELDS[field]
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = " or ".join(dict.fromkeys(map(_kind_name, kinds)))
            raise place.error(field, f"cannot be {value!r}", f"it must be {wanted}")
        options[name] = _as_option(name, value, field, place)
        try:
            RequestOptions(**{name: options[name]}).request()
        except FitcheckError as error:
            raise place.error(field, f"is wrong: {error.message}", error.hint) from None
    return options


def _as_option(name: str, value: Any, field: str, place: _Place) -> Any:
    if name == "task":
        try:
            return Task(value)
        except ValueError:
            choices = ", ".join(task.value for task in Task)
            raise place.error(field, f"cannot be {value!r}", f"choose from {choices}") from None
    if name == "allow":
        return [str(word) for word in value] if isinstance(value, list) else [value]
    return str(value) if name in ("context", "prompt") else value


def _kind_name(kind: type) -> str:
    return {str: "text", list: "a list", int: "a number", float: "a number"}[kind]


def _decoded(path: Path) -> str:
    raw = _read(path)
    if len(raw) > _LIMIT_BYTES:
        raise FitcheckError("bad_configuration", f"{path.name} is larger than 1 MiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FitcheckError("bad_configuration", f"{path.name} is not UTF-8 text") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise FitcheckError("unreadable_file", f"cannot read {path.name}: {error.strerror}") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FitcheckError("bad_configuration", f"{path.name} is not valid TOML: {error}") from None
