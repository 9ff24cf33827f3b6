"""What llama.cpp needs for encoders of images, byte for byte: against the engine itself.

Needs what ``test_engine.py`` needs: ``FITCHECK_LLAMA_CPP`` and a C++ compiler.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fitcheck import catalog
from fitcheck.estimate.graph.image import PATCHES, bytes_of
from fitcheck.estimate.graph.image_plan import buffer_bytes, loaded_image, weights
from fitcheck.types import MediaEncoder

BIN = Path(os.environ.get("FITCHECK_LLAMA_CPP", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not (BIN / "libmtmd.so").exists() or not shutil.which("c++"),
    reason="FITCHECK_LLAMA_CPP names no build of llama.cpp, or there is no compiler",
)
_path = Path(__file__).parents[1] / "sources" / "true_encoders.py"
_spec = importlib.util.spec_from_file_location("true_encoders", _path)
assert _spec is not None and _spec.loader is not None
true_encoders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(true_encoders)

FILES = {model.encoders: model.id for model in catalog.load().models if model.encoders}
STATED = {"kimik25": 4096, "glm5v": 8000}  # whose files say how many tokens an image may have


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks the engine, compiled."""
    root = BIN.parent.parent
    compiled = tmp_path_factory.mktemp("engine") / "encoders"
    include = [f"-I{root / part}" for part in ("include", "ggml/include", "tools/mtmd")]
    link = [f"-L{BIN}", "-lmtmd", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{BIN}"]
    source = Path(__file__).parent / "encoders.cpp"
    subprocess.run(["c++", "-std=c++17", str(source), *include, *link, "-o", str(compiled)], check=True)
    return compiled


def needed(encoder: MediaEncoder, beside: MediaEncoder | None) -> int:
    """Weights without padding and the working memory for loading; ``beside``: whose patches are loaded again."""
    again = weights(beside) if beside else {}
    held = [*weights(encoder).values(), *(weight for name, weight in again.items() if name.startswith(PATCHES))]
    return sum(bytes_of(weight, 1) for weight in held) + buffer_bytes(encoder, loaded_image(encoder), True)[0]


@pytest.mark.parametrize("encoders", FILES, ids=FILES.values())
def test_the_engine_needs_what_is_predicted(encoders: tuple[MediaEncoder, ...], program: Path, tmp_path: Path) -> None:
    stated = tuple(replace(encoder, tokens=STATED.get(encoder.kind, encoder.tokens)) for encoder in encoders)
    file = true_encoders.write(stated, tmp_path / "mmproj.gguf")
    done = subprocess.run([program, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [needed(encoder, stated[0] if i else None) for i, encoder in enumerate(stated)]
    assert [int(line) for line in done.stdout.splitlines() if line.isdigit()] == expected
