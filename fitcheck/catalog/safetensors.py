"""The header of a safetensors file: names, types and shapes of tensors, never their data.

Format: an 8-byte little-endian length, that many bytes of JSON, then data (safetensors 0.6 README). Offsets must lie
within the file and may not overlap.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fitcheck.catalog.source import Source, clean, unreadable

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 200_000

# safetensors dtype -> bits per element
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
    "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class _Entry(Struct, frozen=True):
    """One tensor of the header; ``__metadata__`` decodes to an empty one."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    data_offsets: tuple[int, int] = (0, 0)


class WeightFile(Struct, frozen=True):
    """One file: ``tensors`` maps a name to (dtype, elements); ``file_bytes`` is its length."""

    name: str
    tensors: dict[str, tuple[str, int]]
    file_bytes: int


def read_header(source: Source) -> WeightFile:
    """Read and check a header. Raises FitcheckError (``unreadable_file``)."""
    name, size = source.name, source.size
    length = int.from_bytes(source.fetch(0, 8), "little") if size >= 8 else 0
    if length > MAX_HEADER_BYTES or length > size - 8 or length < 2:
        raise unreadable(name, "not a safetensors file, or a cut one", "download the file again")
    try:
        entries = msgspec.json.decode(source.fetch(8, length).rstrip(), type=dict[str, _Entry])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise unreadable(name, "its header is not valid") from error
    if len(entries) > MAX_TENSORS:
        raise unreadable(name, f"claims {len(entries):,} tensors; at most {MAX_TENSORS:,} are read")
    entries.pop("__metadata__", None)
    return WeightFile(name, _checked(name, entries, size - 8 - length), size)


def _checked(name: str, entries: dict[str, _Entry], data_bytes: int) -> dict[str, tuple[str, int]]:
    """The tensors, if their offsets follow each other and agree with their sizes."""
    found = {}
    end = 0
    for title, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        bits = DTYPE_BITS.get(entry.dtype)
        if bits is None:
            raise unreadable(name, f"tensor {clean(title, 80)} has unknown type {clean(entry.dtype, 20)}")
        elements = 1
        for dim in entry.shape:
            elements *= dim
        start, stop = entry.data_offsets
        if (
            min(entry.shape, default=0) < 0
            or elements >= 1 << 63
            or start != end
            or stop - start != elements * bits // 8
        ):
            raise unreadable(name, f"tensor {clean(title, 80)} does not lie where its size says")
        end = stop
        found[clean(title)] = (entry.dtype, elements)
    if end > data_bytes:
        raise unreadable(name, f"cut short: {end - data_bytes:,} bytes are missing", "download the file again")
    return found
