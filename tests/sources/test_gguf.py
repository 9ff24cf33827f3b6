"""GGUF files: real headers, split files, projectors, little reading, and files that lie."""

from __future__ import annotations

import importlib.util
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fitcheck.catalog.gguf import read_header
from fitcheck.catalog.gguf_model import model_from_file
from fitcheck.catalog.resolve import from_path
from fitcheck.catalog.source import LocalSource
from fitcheck.errors import FitcheckError
from fitcheck.types import Attention, CountedMixer

_spec = importlib.util.spec_from_file_location("sources_files", Path(__file__).parent / "conftest.py")
assert _spec is not None and _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

Write = Callable[..., Path]

# name -> version, architecture, tokens: the vocabulary files of llama.cpp 0c1e570, models/
VOCABULARIES = {
    "ggml-vocab-aquila.gguf": (2, "llama", 100008),
    "ggml-vocab-bert-bge.gguf": (3, "bert", 30522),
    "ggml-vocab-command-r.gguf": (3, "command-r", 256000),
    "ggml-vocab-gemma-4.gguf": (3, "gemma4", 262144),
    "ggml-vocab-gpt-2.gguf": (3, "gpt2", 50257),
    "ggml-vocab-llama-bpe.gguf": (3, "llama", 128256),
    "ggml-vocab-nomic-bert-moe.gguf": (3, "nomic-bert-moe", 250048),
    "ggml-vocab-qwen2.gguf": (3, "qwen2", 151936),
}


class CountingSource(LocalSource):
    """Counts what is read."""

    bytes_read = 0

    def fetch(self, offset: int, length: int) -> bytes:
        data = super().fetch(offset, length)
        self.bytes_read += len(data)
        return data


def refusal(path: Path) -> str:
    with pytest.raises(FitcheckError) as caught:
        from_path(path)
    assert caught.value.code == "unreadable_file" and caught.value.message.isprintable()
    return caught.value.message


@pytest.mark.skipif("FITCHECK_GGUF_SAMPLES" not in os.environ, reason="no folder of real GGUF files")
@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_real_vocabulary_files_are_read_and_refused_as_models(name: str) -> None:
    path = Path(os.environ["FITCHECK_GGUF_SAMPLES"]) / name
    with LocalSource(path) as source:
        header = read_header(source)
    tokens = header.count("tokenizer.ggml.tokens")
    assert (header.version, header.text("general.architecture"), tokens) == VOCABULARIES[name]
    assert "vocabulary only" in refusal(path)


@pytest.mark.skipif("FITCHECK_GGUF_SAMPLES" not in os.environ, reason="no folder of real GGUF files")
def test_gemma_3_270m_has_the_published_parameters_and_its_window_pattern() -> None:
    model = model_from_file(Path(os.environ["FITCHECK_GGUF_SAMPLES"]) / "gemma-3-270m-q4_k_m.gguf")
    assert model.params == 268_098_176 and model.file_quant == "Q4_K_M" and model.files[0].bytes == 253_113_024
    assert model.shape is not None and model.shape.layers == "aaaaabaaaaabaaaaab"


def test_a_model_is_described_by_its_header(write_gguf: Write) -> None:
    path = write_gguf("Small-Llama-Q4_K_M.gguf", *files.small_llama())
    model = from_path(path)
    assert (model.id, model.name, model.architecture) == ("Small-Llama-Q4_K_M", "Small Llama", "llama")
    assert (model.file_quant, model.context_tokens, model.grade) == ("Q4_K_M", 4096, "A")
    assert model.shape is not None and model.shape.tie_word_embeddings and model.shape.layers == "aa"
    mixer = model.shape.kinds[0].mixer
    assert isinstance(mixer, Attention) and (mixer.n_heads, mixer.n_kv_heads, mixer.head_dim) == (4, 2, 64)
    layer = 256 * (256 + 128 + 128 + 256 + 3 * 512) + 2 * 256
    assert model.params == 2 * layer + 512 * 256 + 256
    assert model.files[0].bytes == path.stat().st_size


def test_a_dynamic_mix_is_called_what_its_file_is_called(write_gguf: Write) -> None:
    assert from_path(write_gguf("Small-UD-Q2_K_XL.gguf", *files.small_llama())).file_quant == "UD-Q2_K_XL"


def test_versions_2_and_3_say_the_same(write_gguf: Write) -> None:
    one = from_path(write_gguf("a2/m.gguf", *files.small_llama(), version=2))
    two = from_path(write_gguf("a3/m.gguf", *files.small_llama(), version=3))
    assert (one.shape, one.tensors, one.params) == (two.shape, two.tensors, two.params)


def test_a_20_gb_file_is_resolved_from_its_first_megabytes(tmp_path: Path) -> None:
    metadata, tensors = files.small_llama(vocab=150_000)
    metadata["tokenizer.ggml.merges"] = [f"merge {i} of many" for i in range(150_000)]
    tensors.append(("output.weight", (256 * 1024, 140_000), files.GGML_Q4_K))
    path = files.write_sparse(tmp_path / "large.gguf", *files.gguf_header(metadata, tensors))
    assert path.stat().st_size > 20e9
    with CountingSource(path) as source:
        read_header(source)
    assert source.bytes_read < 16_000_000
    times = []
    for _ in range(3):
        start = time.perf_counter()
        from_path(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


def test_parts_are_one_model_whichever_is_named(write_gguf: Write) -> None:
    metadata, tensors = files.small_llama()
    parts = [
        write_gguf("m-00001-of-00002.gguf", {**metadata, "split.tensors.count": len(tensors)}, tensors[:9]),
        write_gguf("m-00002-of-00002.gguf", {"general.architecture": "llama"}, tensors[9:]),
    ]
    models = [from_path(part) for part in parts]
    assert models[0].shape == models[1].shape == from_path(write_gguf("whole/m.gguf", metadata, tensors)).shape
    assert models[0].files[0].bytes == sum(part.stat().st_size for part in parts)
    assert models[0].id == "m"
    assert from_path(parts[0].parent).tensors == models[0].tensors
    parts[1].unlink()
    assert "m-00002-of-00002.gguf" in refusal(parts[0])


def test_a_projector_beside_the_model_is_part_of_it(write_gguf: Write) -> None:
    path = write_gguf("model.gguf", *files.small_llama())
    write_gguf("mmproj-F16.gguf", {"general.architecture": "clip"}, [("v.patch", (256, 8), files.GGML_F32)])
    model = from_path(path)
    assert model.modalities == ("text", "vision") and model.tower_params == {"vision": 2048}
    assert [file.quant for file in model.files] == ["Q4_K_M", "mmproj"]
    assert "not a model" in refusal(path.with_name("mmproj-F16.gguf"))


def test_vision_tensors_inside_the_file_are_not_the_text_model(write_gguf: Write) -> None:
    metadata, tensors = files.small_llama()
    plain = from_path(write_gguf("plain/m.gguf", metadata, tensors))
    model = from_path(write_gguf("both/m.gguf", metadata, [*tensors, ("v.blk.0.attn_q.weight", (256, 256), 0)]))
    assert model.params == plain.params and model.tower_params == {"vision": 65536}


def test_prediction_layers_are_not_run(write_gguf: Write) -> None:
    metadata, tensors = files.small_llama(n_layers=3)
    metadata["llama.nextn_predict_layers"] = 1
    model = from_path(write_gguf("m.gguf", metadata, tensors))
    assert model.shape is not None and model.shape.n_layers == 2 and model.tower_params["mtp"] > 0
    assert model.params == from_path(write_gguf("two/m.gguf", *files.small_llama(n_layers=2))).params


def test_an_unknown_architecture_keeps_exact_weights_and_a_bound_for_its_cache(write_gguf: Write) -> None:
    metadata, tensors = files.small_llama()
    metadata = {key.replace("llama.", "newest."): value for key, value in metadata.items()}
    metadata["general.architecture"] = "newest"
    tensors = [(name.replace("attn_", "mix_"), dims, kind) for name, dims, kind in tensors]
    model = from_path(write_gguf("m.gguf", metadata, tensors))
    assert model.grade == "C" and "newest" in model.note
    assert model.shape is not None and model.tensors is not None and len(model.tensors) == len(tensors)
    mixer = model.shape.kinds[0].mixer
    assert isinstance(mixer, CountedMixer) and mixer.kv_bytes_per_token == 2 * 2 * (64 + 64)


def test_files_that_are_cut_say_how_much_is_missing(write_gguf: Write) -> None:
    path = write_gguf("m.gguf", *files.small_llama())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)
    assert "1,000 bytes are missing" in refusal(path)


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (0, b"GGML", "not a GGUF file"),
        (4, struct.pack("<I", 1), "version 1"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**63), "tensors"),
        (16, struct.pack("<Q", 2**63), "metadata keys"),
        (24, struct.pack("<Q", 2**63), "bytes long"),
    ],
)
def test_impossible_counts_are_refused_before_anything_is_allocated(
    write_gguf: Write, offset: int, data: bytes, words: str
) -> None:
    assert words in refusal(patched(write_gguf("m.gguf", *files.small_llama()), offset, data))


def raw_gguf(path: Path, key: bytes, kind: int, payload: bytes) -> Path:
    body = files.gguf_string(key) + struct.pack("<I", kind) + payload
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + body)
    return path


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 9, 1)),  # arrays in arrays
        (9, struct.pack("<IQ", 4, 2**61)),  # an array of 2^61 numbers
        (9, struct.pack("<IQ", 8, 2**61)),  # an array of 2^61 strings
        (8, struct.pack("<Q", 2**63)),  # a string of 2^63 bytes
        (77, b""),  # a type that does not exist
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, kind: int, payload: bytes) -> None:
    refusal(raw_gguf(tmp_path / "m.gguf", b"a.key", kind, payload))


def test_names_and_texts_cannot_reach_the_terminal_as_escapes(write_gguf: Write) -> None:
    metadata, tensors = files.small_llama()
    metadata["general.name"] = "\x1b[31mred\x07\nline"
    metadata["general.license"] = "mit\x1b]0;title\x07"
    model = from_path(write_gguf("m.gguf", metadata, tensors))
    assert model.name.isprintable() and (model.licence or "").isprintable()


def overlapping(tensors: list[Any]) -> bytes:
    head, _ = files.gguf_header(files.small_llama()[0], tensors)
    name = files.gguf_string(tensors[1][0])
    at = head.index(name) + len(name) + 4 + 8 * len(tensors[1][1]) + 4
    return bytes(head[:at] + struct.pack("<Q", 0) + head[at + 8 :])


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    path = files.write_sparse(tmp_path / "m.gguf", overlapping(files.small_llama()[1]), 10_000_000)
    assert "does not start where" in refusal(path)


def test_sizes_that_overflow_are_refused(write_gguf: Write) -> None:
    path = write_gguf("m.gguf", {"general.architecture": "llama"}, [("w", (256, 8), files.GGML_F32)])
    raw = path.read_bytes().replace(struct.pack("<QQ", 256, 8), struct.pack("<QQ", 2**62, 2**62))
    path.write_bytes(raw)
    assert "impossible size" in refusal(path)


@pytest.mark.parametrize("name", ["m-00001-of-99999.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf"])
def test_part_numbers_out_of_range_are_refused(write_gguf: Write, name: str) -> None:
    assert "part number" in refusal(write_gguf(name, *files.small_llama()))


def test_a_missing_file_and_an_empty_folder_say_so(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.gguf")
    assert "no config.json" in refusal(tmp_path)
