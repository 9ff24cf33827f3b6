"""Bounded reading of files that somebody else wrote, local or remote.

Nothing here trusts a count or a length: a reader asks for what it needs, and every request is held against the size of
the file and a limit before memory is taken for it.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, Protocol

from fitcheck.errors import FitcheckError

LOCAL_CHUNK_BYTES = 1 << 18


class Source(Protocol):
    """A file that can be read at any offset. ``name`` is what people call it, ``size`` its length in bytes, and
    ``chunk_bytes`` how much is best asked for at once."""

    name: str
    size: int
    chunk_bytes: int

    def fetch(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""


class LocalSource:
    """A file on disk; use as a context manager."""

    chunk_bytes = LOCAL_CHUNK_BYTES

    def __init__(self, path: Path) -> None:
        self.name = clean(path.name)
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise unreadable(self.name, clean(error.strerror or "cannot be opened").lower()) from error

    def fetch(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``."""
        try:
            self._file.seek(offset)
            return self._file.read(length)
        except OSError as error:
            raise unreadable(self.name, clean(error.strerror or "cannot be read").lower()) from error

    def __enter__(self) -> LocalSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def clean(text: object, limit: int = 200) -> str:
    """``text`` as one printable line of at most ``limit`` characters: no control characters, no terminal escapes."""
    head = str(text)[:limit]
    return head if head.isprintable() else "".join(c if c.isprintable() else "?" for c in head)


def unreadable(name: str, why: str, hint: str = "") -> FitcheckError:
    """The error for a file that cannot be understood: one line that names the file and the reason."""
    return FitcheckError("unreadable_file", f"{clean(name)}: {clean(why)}", hint)


class Cursor:
    """Reads forward through a source in chunks, and holds no more than one chunk and one value.

    ``limit`` bounds the position that may be reached; going past it or past the end of the file raises FitcheckError.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._buffer = b""
        self._start = 0  # offset in the file of the buffer's first byte
        self._at = 0  # position in the buffer

    @property
    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self._start + self._at

    def require(self, length: int) -> None:
        """Raise unless ``length`` more bytes lie within the file and the limit."""
        end = self.position + length
        if end > self._source.size:
            raise unreadable(self._source.name, "ends inside its header", "download the file again")
        if end > self._limit:
            raise unreadable(self._source.name, f"header is longer than {self._limit >> 20} MiB")

    def _load(self, length: int) -> None:
        """Have the next ``length`` bytes in the buffer."""
        if len(self._buffer) - self._at >= length:
            return
        self.require(length)
        rest = self._buffer[self._at :]
        self._start += self._at
        self._at = 0
        wanted = min(max(length - len(rest), self._source.chunk_bytes), self._source.size - self._start - len(rest))
        self._buffer = rest + self._source.fetch(self._start + len(rest), wanted)
        if len(self._buffer) < length:
            raise unreadable(self._source.name, "ends inside its header", "download the file again")

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        self._load(length)
        data = self._buffer[self._at : self._at + length]
        self._at += length
        return data

    def integer(self, width: int) -> int:
        """The next ``width`` bytes as an unsigned little-endian integer."""
        return int.from_bytes(self.take(width), "little")

    def skip(self, length: int) -> None:
        """Pass over ``length`` bytes; what is not in the buffer is never read."""
        self.require(length)
        self._at += length
        if self._at > len(self._buffer):
            self._start += self._at
            self._buffer = b""
            self._at = 0

    def skip_strings(self, count: int) -> None:
        """Pass over ``count`` strings, each an 8-byte length and its bytes."""
        self.require(8 * count)
        buffer, at, last = self._buffer, self._at, len(self._buffer) - 8
        for _ in range(count):
            if at > last:
                self._at = min(at, len(buffer))
                self.skip(at - self._at)
                self._load(8)
                buffer, at, last = self._buffer, self._at, len(self._buffer) - 8
            at += 8 + _length_at(buffer, at)[0]
        self._at = min(at, len(buffer))
        self.skip(at - self._at)


_length_at = struct.Struct("<Q").unpack_from


def parse_json(data: bytes, name: str, limit: int) -> dict[str, Any]:
    """A JSON object from outside, of at most ``limit`` bytes. Raises FitcheckError for anything else, however deep."""
    if len(data) > limit:
        raise unreadable(name, f"longer than {limit >> 20} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "not valid JSON") from error
    if not isinstance(value, dict):
        raise unreadable(name, "not a JSON object")
    return value


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object from a file of at most ``limit`` bytes."""
    with LocalSource(path) as source:
        if source.size > limit:
            raise unreadable(source.name, f"longer than {limit >> 20} MiB")
        return parse_json(source.fetch(0, limit), source.name, limit)
