"""The header of a GGUF file (version 2 and 3): metadata and tensors, never tensor data.

Format and limits follow ggml's own reader (ggml/src/gguf.cpp, llama.cpp 0c1e570): what that one refuses is refused
here. Token lists are passed over, only their length is kept.
"""

from __future__ import annotations

import struct
from typing import Union

from msgspec import Struct

from fitcheck.catalog.source import Cursor, Source, clean, unreadable
from fitcheck.types import Tensor

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 64 << 20
MAX_KEYS = 8192
MAX_TENSORS = 65536
MAX_DIMS = 4
MAX_NAME_BYTES = 63  # ggml keeps 64 with the closing zero
MAX_KEY_BYTES = 4096
MAX_KEPT_TEXT = 1024
MAX_KEPT_ITEMS = 4096  # per-layer arrays have at most 512 entries
MAX_STRINGS = 2_000_000  # the largest vocabularies hold 0.3 M tokens and 0.6 M merges
MAX_ELEMENTS = 2**63 - 1
DEFAULT_ALIGNMENT = 32

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# ggml type id -> name, elements per block, bytes per block (ggml/src/ggml.c)
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

# general.file_type -> name of the mix (include/llama.h, enum llama_ftype)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
GUESSED = 1024  # bit of a file type that was not stated but inferred


class Items(Struct, frozen=True):
    """An array whose items were passed over: how many there were."""

    count: int


Scalar = Union[int, float, bool, str]
Value = Union[Scalar, tuple[Scalar, ...], Items]


class Header(Struct, frozen=True):
    """What a GGUF header says. ``data_offset`` is where tensor data starts, ``tensor_bytes`` where they end,
    counted from there; ``file_bytes`` is the length of the file."""

    name: str
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    tensor_bytes: int
    file_bytes: int

    @property
    def missing_bytes(self) -> int:
        """Bytes of tensor data that the file does not hold: a download that was cut short."""
        return max(0, self.data_offset + self.tensor_bytes - self.file_bytes) if self.tensors else 0

    def text(self, key: str) -> str | None:
        """A text value, or None."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """A whole number, or None."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def count(self, key: str) -> int:
        """The length of an array, 0 if there is none."""
        value = self.metadata.get(key)
        if isinstance(value, Items):
            return value.count
        return len(value) if isinstance(value, tuple) else 0


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of one tensor in its type."""
    _, block, size = _TYPE_BY_NAME[tensor.type]
    return elements(tensor.dims) // block * size


def elements(dims: tuple[int, ...]) -> int:
    """The product of dimensions."""
    product = 1
    for dim in dims:
        product *= dim
    return product


_TYPE_BY_NAME = {row[0]: row for row in TENSOR_TYPES.values()}


def read_header(source: Source) -> Header:
    """Read and check a header. Raises FitcheckError (``unreadable_file``) for anything that ggml would not load."""
    cursor = Cursor(source, MAX_HEADER_BYTES)
    version = _read_version(cursor, source.name)
    n_tensors = _bounded(cursor.integer(8), MAX_TENSORS, "tensors", source.name)
    n_keys = _bounded(cursor.integer(8), MAX_KEYS, "metadata keys", source.name)
    metadata = _Metadata(cursor, source.name).read(n_keys)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise unreadable(source.name, "alignment is not a power of two")
    tensors, data_bytes = _read_tensors(cursor, source.name, n_tensors, alignment)
    return Header(
        name=source.name,
        version=version,
        metadata=metadata,
        tensors=tensors,
        data_offset=_padded(cursor.position, alignment),
        tensor_bytes=data_bytes,
        file_bytes=source.size,
    )


def _read_version(cursor: Cursor, name: str) -> int:
    magic = cursor.take(4)
    if magic != MAGIC:
        raise unreadable(name, "not a GGUF file", "give a .gguf file, a model folder or a name from the catalog")
    version = cursor.integer(4)
    if version & 0xFFFF == 0:
        raise unreadable(name, "a big-endian GGUF file, which engines on this machine cannot load")
    if version not in (2, 3):
        raise unreadable(name, f"GGUF version {version}; versions 2 and 3 are known")
    return version


def _bounded(count: int, most: int, what: str, name: str) -> int:
    if count > most:
        raise unreadable(name, f"claims {count:,} {what}; at most {most:,} are read")
    return count


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment


class _Metadata:
    """The key-value part of a header."""

    def __init__(self, cursor: Cursor, name: str) -> None:
        self._cursor = cursor
        self._name = name
        self._strings_left = MAX_STRINGS

    def read(self, n_keys: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._text(MAX_KEY_BYTES, "a key")
            if not key or key in values:
                raise unreadable(self._name, f"metadata key {key!r} is empty or given twice")
            values[key] = self._value(self._cursor.integer(4))
        return values

    def _text(self, limit: int, what: str) -> str:
        length = self._cursor.integer(8)
        if length > limit:
            raise unreadable(self._name, f"{what} is {length:,} bytes long")
        return clean(self._cursor.take(length).decode("utf-8", "replace"), limit)

    def _value(self, kind: int) -> Value:
        if kind in SCALARS:
            form = "<" + SCALARS[kind]
            value: Scalar = struct.unpack(form, self._cursor.take(struct.calcsize(form)))[0]
            return value
        if kind == STRING:
            return self._long_text()
        if kind == ARRAY:
            return self._array(self._cursor.integer(4), self._cursor.integer(8))
        raise unreadable(self._name, f"metadata value of unknown type {kind}")

    def _long_text(self) -> str:
        """A text of any length, of which the first characters are kept: chat templates are long."""
        length = self._cursor.integer(8)
        kept = min(length, MAX_KEPT_TEXT)
        self._cursor.require(length)
        text = self._cursor.take(kept).decode("utf-8", "replace")
        self._cursor.skip(length - kept)
        return clean(text, MAX_KEPT_TEXT)

    def _array(self, kind: int, count: int) -> Value:
        if kind in SCALARS:
            form = SCALARS[kind]
            width = struct.calcsize("<" + form)
            self._cursor.require(count * width)
            if count <= MAX_KEPT_ITEMS:
                return struct.unpack(f"<{count}{form}", self._cursor.take(count * width))
            self._cursor.skip(count * width)
            return Items(count)
        if kind != STRING:
            raise unreadable(self._name, f"metadata array of type {kind}, which ggml does not load")
        self._strings_left -= count
        if self._strings_left < 0:
            raise unreadable(self._name, f"claims more than {MAX_STRINGS:,} strings")
        self._cursor.skip_strings(count)
        return Items(count)


def _read_tensors(cursor: Cursor, name: str, n_tensors: int, alignment: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensor list, and where the last one's data ends; offsets must follow each other, as ggml asks."""
    tensors = []
    seen = set()
    end = 0
    cursor.require(n_tensors * (8 + 1 + 4 + 4 + 8))
    for _ in range(n_tensors):
        tensor = _read_tensor(cursor, name)
        if tensor.name in seen:
            raise unreadable(name, f"tensor {tensor.name} is given twice")
        seen.add(tensor.name)
        offset = _padded(end, alignment)
        if cursor.integer(8) != offset:
            raise unreadable(name, f"tensor {tensor.name} does not start where the one before it ends")
        end = offset + tensor_bytes(tensor)
        if end > MAX_ELEMENTS:
            raise unreadable(name, "tensor sizes overflow")
        tensors.append(tensor)
    return tuple(tensors), end


def _read_tensor(cursor: Cursor, name: str) -> Tensor:
    length = cursor.integer(8)
    if not 0 < length <= MAX_NAME_BYTES:
        raise unreadable(name, f"a tensor name of {length:,} bytes")
    title = clean(cursor.take(length).decode("utf-8", "replace"))
    n_dims = cursor.integer(4)
    if n_dims > MAX_DIMS:
        raise unreadable(name, f"tensor {title} has {n_dims:,} dimensions")
    dims = struct.unpack(f"<{n_dims}Q", cursor.take(8 * n_dims)) or (1,)
    if 0 in dims or elements(dims) > MAX_ELEMENTS:
        raise unreadable(name, f"tensor {title} has an impossible size")
    kind = cursor.integer(4)
    if kind not in TENSOR_TYPES:
        raise unreadable(name, f"tensor {title} has unknown type {kind}", "a newer fitcheck may know it")
    type_name, block, _ = TENSOR_TYPES[kind]
    if dims[0] % block:
        raise unreadable(name, f"rows of tensor {title} do not divide into blocks of {type_name}")
    return Tensor(title, dims, type_name)
