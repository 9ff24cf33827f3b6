"""Models that other programs keep: found, read, and never a way out of their stores."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fitcheck.catalog.installed import Stores, installed, ollama_model
from fitcheck.errors import FitcheckError

_spec = importlib.util.spec_from_file_location("sources_files", Path(__file__).parent / "conftest.py")
assert _spec is not None and _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

DIGEST = "sha256:" + "ab" * 32


def stores(home: Path, **environ: str) -> Stores:
    return Stores(environ, home)


def write_model(path: Path, **metadata: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    base, tensors = files.small_llama()
    files.write_sparse(path, *files.gguf_header({**base, **metadata}, tensors))


def ollama(folder: Path, name: tuple[str, ...], layers: list[dict[str, Any]] | None = None) -> None:
    manifest = folder.joinpath("manifests", *name)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kind = "application/vnd.ollama.image.model"
    manifest.write_text(json.dumps({"layers": layers or [{"mediaType": kind, "digest": DIGEST, "size": 1}]}))
    write_model(folder / "blobs" / DIGEST.replace(":", "-"))


def test_ollama_models_are_found_by_the_names_that_ollama_uses(tmp_path: Path) -> None:
    store = tmp_path / ".ollama" / "models"
    ollama(store, ("registry.ollama.ai", "library", "llama3.1", "8b"))
    ollama(store, ("registry.ollama.ai", "someone", "model", "latest"))
    ollama(store, ("hf.co", "org", "Repo-GGUF", "Q4_K_M"))
    found = installed(stores(tmp_path))
    assert [model.id for model in found.models] == [
        "ollama:hf.co/org/Repo-GGUF:Q4_K_M",
        "ollama:llama3.1:8b",
        "ollama:someone/model:latest",
    ]
    assert found.problems == ()
    assert ollama_model("llama3.1:8b", stores(tmp_path)).tensors is not None
    assert ollama_model("someone/model", stores(tmp_path)).id == "ollama:someone/model"


def test_ollama_models_moves_the_store(tmp_path: Path) -> None:
    ollama(tmp_path / "elsewhere", ("registry.ollama.ai", "library", "qwen3", "4b"))
    found = installed(stores(tmp_path / "home", OLLAMA_MODELS=str(tmp_path / "elsewhere")))
    assert [model.id for model in found.models] == ["ollama:qwen3:4b"]


def test_the_projector_of_an_ollama_model_goes_with_it(tmp_path: Path) -> None:
    store = tmp_path / ".ollama" / "models"
    projector = "sha256:" + "cd" * 32
    kinds = {"model": DIGEST, "projector": projector}
    layers = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest} for kind, digest in kinds.items()]
    ollama(store, ("registry.ollama.ai", "library", "llava", "7b"), layers)
    head = files.gguf_header({"general.architecture": "clip"}, [("v.patch", (256, 4), files.GGML_F32)])
    files.write_sparse(store / "blobs" / projector.replace(":", "-"), *head)
    assert ollama_model("llava:7b", stores(tmp_path)).tower_params == {"vision": 1024}


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../etc/passwd", "sha256:" + "ab" * 31, "/etc/passwd", "", 7, None, "sha256:" + "AB" * 32],
)
def test_a_manifest_cannot_point_out_of_the_store(tmp_path: Path, digest: object) -> None:
    store = tmp_path / ".ollama" / "models"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    ollama(store, ("registry.ollama.ai", "library", "evil", "1b"), [layer])
    found = installed(stores(tmp_path))
    assert found.models == () and len(found.problems) == 1 and "no GGUF model" in found.problems[0]


@pytest.mark.parametrize("name", ["../../secret", "a/../b", "a/b/c/d", "..", "a:../b", "", "a\x1b[31m:b", "a\\b"])
def test_a_name_cannot_lead_out_of_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        ollama_model(name, stores(tmp_path))
    assert caught.value.code == "unknown_model" and (caught.value.message + caught.value.hint).isprintable()


def test_lm_studio_llama_cpp_and_the_hub_cache_are_looked_through(tmp_path: Path) -> None:
    write_model(tmp_path / ".lmstudio" / "models" / "org" / "repo" / "lm-Q4_K_M.gguf")
    write_model(tmp_path / "llama" / "org_repo_cached-Q4_K_M.gguf")
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    write_model(snapshot / "hub-Q4_K_M.gguf")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    other = tmp_path / "hub" / "models--org--tensors" / "snapshots" / "def"
    other.mkdir(parents=True)
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    (other / "config.json").write_text(json.dumps(config))
    files.write_sparse(other / "model.safetensors", *files.safetensors_header({"w": ("BF16", [8, 8])}))
    found = installed(stores(tmp_path, LLAMA_CACHE=str(tmp_path / "llama"), HF_HUB_CACHE=str(tmp_path / "hub")))
    names = ["hub-Q4_K_M", "lm-Q4_K_M", "org/tensors", "org_repo_cached-Q4_K_M"]
    assert [model.id for model in found.models] == names and found.problems == ()


def test_a_broken_file_is_one_line_and_hides_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / ".lmstudio" / "models" / "org" / "repo"
    write_model(folder / "good.gguf")
    (folder / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    write_model(folder / "x\x1b[31m.gguf")
    found = installed(stores(tmp_path))
    assert [model.id for model in found.models] == ["good"] and len(found.problems) == 2
    assert all(problem.isprintable() for problem in found.problems)


def test_parts_of_a_split_file_are_one_model(tmp_path: Path) -> None:
    folder = tmp_path / ".lmstudio" / "models"
    folder.mkdir(parents=True)
    metadata, tensors = files.small_llama()
    for part, own in enumerate((tensors[:9], tensors[9:]), 1):
        head = files.gguf_header(metadata if part == 1 else {"general.architecture": "llama"}, own)
        files.write_sparse(folder / f"m-{part:05d}-of-00002.gguf", *head)
    assert len(installed(stores(tmp_path)).models) == 1


def test_an_empty_machine_has_no_models_and_no_problems(tmp_path: Path) -> None:
    found = installed(stores(tmp_path, OLLAMA_MODELS=str(tmp_path / "none")))
    assert (found.models, found.problems) == ((), ())


def test_a_store_that_may_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / ".lmstudio" / "models" / "org" / "repo" / "own.gguf")
    (tmp_path / ".cache" / "huggingface" / "hub").mkdir(parents=True)
    glob = Path.glob

    def refuse(path: Path, *arguments: Any) -> Any:
        if path.name == "hub":
            raise PermissionError(13, "Permission denied")
        return glob(path, *arguments)

    monkeypatch.setattr(Path, "glob", refuse)
    found = installed(stores(tmp_path))
    assert ([model.id for model in found.models], found.problems) == (["own"], ())
