"""Files that look like models: written by the ``gguf`` package with true shapes, sparse, no weights in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

GGML_F32, GGML_Q4_K = 0, 12


def gguf_string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + b"".join(struct.pack("<i", item) for item in value)


def gguf_header(
    metadata: Mapping[str, Any], tensors: Iterable[tuple[str, tuple[int, ...], int]], version: int = 3
) -> tuple[bytes, int]:
    """A header, and the bytes of tensor data that it promises. Types: F32 and Q4_K."""
    tensors = list(tensors)
    body = b"".join(gguf_string(key) + gguf_value(value) for key, value in metadata.items())
    offset = 0
    for name, dims, kind in tensors:
        body += gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        elements = 1
        for dim in dims:
            elements *= dim
        size = elements * 4 if kind == GGML_F32 else elements // 256 * 144
        offset += (size + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)) + body
    return head + b"\0" * (-len(head) % 32), offset


def write_sparse(path: Path, head: bytes, data_bytes: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + data_bytes)
    return path


def small_llama(n_layers: int = 2, hidden: int = 256, vocab: int = 512) -> tuple[dict[str, Any], list[Any]]:
    """Metadata and tensors of a small llama with two key-value heads of 64."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "Small Llama",
        "general.file_type": 15,
        "llama.block_count": n_layers,
        "llama.context_length": 4096,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": 2 * hidden,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(vocab)],
    }
    tensors: list[Any] = [("token_embd.weight", (hidden, vocab), GGML_Q4_K)]
    for i in range(n_layers):
        tensors += [
            (f"blk.{i}.attn_norm.weight", (hidden,), GGML_F32),
            (f"blk.{i}.attn_q.weight", (hidden, 256), GGML_Q4_K),
            (f"blk.{i}.attn_k.weight", (hidden, 128), GGML_Q4_K),
            (f"blk.{i}.attn_v.weight", (hidden, 128), GGML_Q4_K),
            (f"blk.{i}.attn_output.weight", (256, hidden), GGML_Q4_K),
            (f"blk.{i}.ffn_norm.weight", (hidden,), GGML_F32),
            (f"blk.{i}.ffn_gate.weight", (hidden, 2 * hidden), GGML_Q4_K),
            (f"blk.{i}.ffn_up.weight", (hidden, 2 * hidden), GGML_Q4_K),
            (f"blk.{i}.ffn_down.weight", (2 * hidden, hidden), GGML_Q4_K),
        ]
    return metadata, [*tensors, ("output_norm.weight", (hidden,), GGML_F32)]


def safetensors_header(tensors: Mapping[str, tuple[str, list[int]]]) -> tuple[bytes, int]:
    """A header, and the bytes of data that it promises."""
    widths = {"BF16": 2, "F16": 2, "F32": 4, "U32": 4, "I32": 4, "F8_E4M3": 1}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = widths[dtype]
        for dim in shape:
            size *= dim
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text, end


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Write a sparse GGUF file: ``write_gguf(name, metadata, tensors)``."""

    def write(name: str, metadata: Mapping[str, Any], tensors: Iterable[Any], version: int = 3) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_sparse(path, *gguf_header(metadata, tensors, version))

    return write
