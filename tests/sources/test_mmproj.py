"""The encoders of an ``mmproj`` file are read from its header."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fitcheck import catalog
from fitcheck.catalog.gguf_model import model_from_file
from fitcheck.types import MediaEncoder

pytest.importorskip("gguf")


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"sources_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files, true_encoders = _module("conftest"), _module("true_encoders")
FILES = {model.encoders: model.id for model in catalog.load().models if model.encoders}
STATED = {"kimik25": 4096, "glm5v": 8000}  # whose files say how many tokens an image may have


def stated(encoder: MediaEncoder) -> MediaEncoder:
    return replace(encoder, tokens=STATED.get(encoder.kind, encoder.tokens))


@pytest.fixture
def llama(write_gguf: Any) -> Path:
    """The language model beside it."""
    path: Path = write_gguf("model.gguf", *files.small_llama())
    return path


@pytest.mark.parametrize("encoders", FILES, ids=FILES.values())
def test_the_header_tells_the_encoders(encoders: tuple[MediaEncoder, ...], tmp_path: Path, llama: Path) -> None:
    written = tuple(stated(encoder) for encoder in encoders)
    path = true_encoders.write(written, tmp_path / "mmproj.gguf")
    model = model_from_file(llama, path)
    assert model.encoders == written
    assert model.tower_params["vision"] > 0


def overwrite(path: Path, name: bytes, distance: int, value: bytes) -> None:
    """Put ``value`` so many bytes behind the start of ``name`` in the header."""
    with path.open("r+b") as file:
        file.seek(file.read(1 << 16).index(name) + distance)
        file.write(value)


def test_a_kind_that_is_not_known_gives_no_encoders(tmp_path: Path, llama: Path) -> None:
    path = true_encoders.write(next(iter(FILES)), tmp_path / "mmproj.gguf")
    kind = next(iter(FILES))[0].kind.encode()
    overwrite(path, kind, 0, b"x" * len(kind))
    assert model_from_file(llama, path).encoders == ()


@pytest.mark.parametrize("wrong", [{"layers": 1 << 20}, {"heads": 0}, {"patch_size": 1 << 30}])
def test_numbers_that_cannot_be_right_give_no_encoders(wrong: dict[str, int], tmp_path: Path, llama: Path) -> None:
    encoder = next(encoders[0] for encoders in FILES if encoders[0].kind == "gemma3")
    path = true_encoders.write((encoder,), tmp_path / "mmproj.gguf")
    key, value = next(iter(wrong.items()))
    name = {"layers": "block_count", "heads": "attention.head_count", "patch_size": "patch_size"}[key].encode()
    overwrite(path, name, len(name) + 4, value.to_bytes(4, "little"))  # behind the type of the value
    assert model_from_file(llama, path).encoders == ()
