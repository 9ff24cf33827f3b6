"""Models on the Hub: what is read, how little of it, and what people are told when it goes wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fitcheck.catalog.gguf_model import quant_of
from fitcheck.catalog.hub import Hub
from fitcheck.errors import FitcheckError

HERE = Path(__file__).parent


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_hub = _module("fake_hub")
files = _module("conftest")

LLAMA_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with fake_hub.running_hub() as server:
        yield server


def put_gguf(hub: Any, repo: str, name: str, vocab: int = 512) -> int:
    head, data = files.gguf_header(*files.small_llama(vocab=vocab))
    size = len(head) + data

    def body(offset: int, length: int) -> bytes:
        part = head[offset : offset + length]
        return part + b"\0" * (length - len(part))

    hub.put(repo, name, body, size)
    return size


def refusal(hub: Any, ref: str, **options: Any) -> FitcheckError:
    with pytest.raises(FitcheckError) as caught:
        Hub(hub.url, **options).resolve(ref)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_quantisation_of_a_repository_has_its_exact_tensors(hub: Any) -> None:
    size = put_gguf(hub, "org/small-GGUF", "small-Q4_K_M.gguf")
    put_gguf(hub, "org/small-GGUF", "small-Q8_0.gguf")
    model = Hub(hub.url).resolve("org/small-GGUF:q4_k_m")
    assert model.tensors is not None and len(model.tensors) == 20
    assert (model.id, model.hub_repo, model.licence) == ("hf:org/small-GGUF:Q4_K_M", "org/small-GGUF", "apache-2.0")
    assert {file.quant: file.bytes for file in model.files}["Q4_K_M"] == size


def test_a_repository_of_several_files_leaves_the_choice_open_and_lists_their_sizes(hub: Any) -> None:
    sizes = [put_gguf(hub, "org/small-GGUF", f"small-{quant}.gguf") for quant in ("Q4_K_M", "Q8_0", "UD-Q2_K_XL")]
    model = Hub(hub.url).resolve("org/small-GGUF")
    assert model.tensors is None and model.file_quant is None and model.shape is not None
    assert sorted(file.quant for file in model.files) == ["Q4_K_M", "Q8_0", "UD-Q2_K_XL"]
    assert sum(file.bytes for file in model.files) == sum(sizes)


def test_split_files_are_one_model_and_the_projector_goes_with_it(hub: Any) -> None:
    metadata, tensors = files.small_llama()
    for part, own in enumerate((tensors[:10], tensors[10:]), 1):
        head, data = files.gguf_header(metadata if part == 1 else {"general.architecture": "llama"}, own)
        hub.put("org/big", f"Q4_K_M/big-Q4_K_M-{part:05d}-of-00002.gguf", head + b"\0" * data)
    head, data = files.gguf_header({"general.architecture": "clip"}, [("v.patch", (256, 4), 0)])
    hub.put("org/big", "mmproj-F16.gguf", head + b"\0" * data)
    model = Hub(hub.url).resolve("org/big:Q4_K_M")
    assert model.tensors is not None and len(model.tensors) == len(tensors)
    assert model.tower_params == {"vision": 1024} and model.modalities == ("text", "vision")


def test_of_a_5_gb_file_no_more_than_8_mb_is_read(hub: Any) -> None:
    metadata, tensors = files.small_llama(vocab=150_000)
    metadata["tokenizer.ggml.merges"] = [f"merge {i} of many" for i in range(150_000)]
    tensors.append(("output.weight", (256 * 1024, 34_000), 12))
    head, data = files.gguf_header(metadata, tensors)
    assert len(head) > 4_000_000 and len(head) + data > 5_000_000_000

    def body(offset: int, length: int) -> bytes:
        part = head[offset : offset + length]
        return part + b"\0" * (length - len(part))

    hub.put("org/large", "large-Q4_K_M.gguf", body, len(head) + data)
    reader = Hub(hub.url)
    assert reader.resolve("org/large:Q4_K_M").files[0].bytes == len(head) + data
    assert reader.bytes_read <= 8_000_000 and hub.bytes_sent <= 8_000_000


def test_a_server_that_ignores_ranges_is_not_read_to_the_end(hub: Any) -> None:
    put_gguf(hub, "org/small", "small-Q4_K_M.gguf", vocab=40_000)
    hub.files["org/small", "small-Q4_K_M.gguf"] = (lambda offset, length: b"\0" * length, 5_000_000_000)
    hub.behaviour["org/small"] = "no ranges"
    reader = Hub(hub.url)
    with pytest.raises(FitcheckError) as caught:
        reader.resolve("org/small:Q4_K_M")
    assert caught.value.code == "unreadable_file" and reader.bytes_read < 2_000_000


def test_a_configuration_and_its_weights_are_read_from_headers(hub: Any) -> None:
    hub.put("org/hf", "config.json", json.dumps(LLAMA_CONFIG).encode())
    layer = {"self_attn.q_proj": [64, 64], "self_attn.k_proj": [32, 64], "self_attn.v_proj": [32, 64]}
    layer |= {"self_attn.o_proj": [64, 64], "mlp.gate_proj": [128, 64], "mlp.up_proj": [128, 64]}
    layer |= {"mlp.down_proj": [64, 128], "input_layernorm": [64], "post_attention_layernorm": [64]}
    tensors = {f"model.layers.{i}.{name}.weight": ("BF16", shape) for i in range(2) for name, shape in layer.items()}
    tensors |= {"model.embed_tokens.weight": ("BF16", [100, 64]), "model.norm.weight": ("BF16", [64])}
    tensors |= {"vision_tower.patch.weight": ("BF16", [10, 10])}
    head, data = files.safetensors_header(tensors)
    hub.put("org/hf", "model.safetensors", head + b"\0" * data)
    model = Hub(hub.url).resolve("org/hf")
    assert model.grade == "A" and model.tower_params == {"vision": 100} and model.file_quant == "BF16"
    assert model.params == sum(1 for _ in range(2)) * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 128) + 6400 + 64
    assert model.files[0].bytes == len(head) + data


def test_a_token_is_sent_to_the_hub_and_not_to_where_it_redirects(hub: Any) -> None:
    with fake_hub.running_hub() as other:
        put_gguf(hub, "org/small", "small-Q4_K_M.gguf")
        put_gguf(other, "org/small", "small-Q4_K_M.gguf")
        hub.behaviour["org/small"] = "redirect"
        hub.other = other
        # another host by name: the loopback interface under its other name
        type(other).url = property(lambda self: f"http://localhost:{self.server_address[1]}")
        try:
            model = Hub(hub.url, token="hf_secret").resolve("org/small:Q4_K_M")
        finally:
            type(other).url = property(lambda self: f"http://127.0.0.1:{self.server_address[1]}")
        assert model.tensors is not None and other.ranges > 0
        assert all("hf_secret" in seen.get("Authorization", seen.get("authorization", "")) for seen in hub.headers_seen)
        assert not any("hf_secret" in str(seen) for seen in other.headers_seen)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("status 401", "not_found", "private"),
        ("status 403 X-Error-Code=GatedRepo", "gated", "terms"),
        ("status 404", "not_found", "does not exist"),
        ("status 429 Retry-After=17", "rate_limited", "limits"),
        ("status 500", "network", "500"),
        ("status 302 Location=/nowhere", "not_found", "does not exist"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(hub: Any, answer: str, code: str, words: str) -> None:
    hub.behaviour["org/refused"] = answer
    error = refusal(hub, "org/refused")
    assert (error.code, words in error.message) == (code, True)
    assert error.hint
    if code == "rate_limited":
        assert "17 s" in error.hint


@pytest.mark.parametrize("how", ["cut", "wrong length"])
def test_a_reply_of_the_wrong_length_is_a_network_error(hub: Any, how: str) -> None:
    put_gguf(hub, "org/small", "small-Q4_K_M.gguf")
    hub.behaviour["org/small"] = how
    assert refusal(hub, "org/small:Q4_K_M").code == "network"


def test_a_slow_hub_is_given_up(hub: Any) -> None:
    put_gguf(hub, "org/small", "small-Q4_K_M.gguf", vocab=40_000)
    hub.behaviour["org/small"] = "slow"
    error = refusal(hub, "org/small:Q4_K_M", deadline_s=0.5)
    assert error.code == "network"


def test_a_hub_that_is_not_there_is_a_network_error() -> None:
    with pytest.raises(FitcheckError) as caught:
        Hub("http://127.0.0.1:9", deadline_s=5).resolve("org/model")
    assert caught.value.code == "network"


def test_a_missing_quantisation_names_those_that_are_there(hub: Any) -> None:
    put_gguf(hub, "org/small", "small-Q4_K_M.gguf")
    error = refusal(hub, "org/small:Q9_X")
    assert error.code == "unknown_quant" and "Q4_K_M" in error.hint


@pytest.mark.parametrize("ref", ["", "model", "org/../etc", "org/model/../../x", "org/mo del", "a/b:" + "Q" * 99, "/"])
def test_what_is_not_a_hub_name_opens_no_connection(ref: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        Hub("http://127.0.0.1:9").resolve(ref)
    assert caught.value.code == "unknown_model"


def test_file_names_of_a_listing_cannot_leave_the_repository_or_colour_the_terminal(hub: Any) -> None:
    put_gguf(hub, "org/evil", "../../../../etc/Q4_K_M.gguf")
    put_gguf(hub, "org/evil", "x\x1b[31m-Q4_K_M.gguf")
    error = refusal(hub, "org/evil:Q4_K_M")
    assert error.code in ("unknown_quant", "not_found")
    assert (error.message + error.hint).isprintable()


def test_a_cached_model_needs_no_network(hub: Any, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / "models--org--kept" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    files.write_sparse(snapshot / "kept-Q4_K_M.gguf", *files.gguf_header(*files.small_llama()))
    model = Hub("http://127.0.0.1:9").resolve("org/kept:Q4_K_M")
    assert model.tensors is not None and hub.headers_seen == []


def test_endpoint_and_offline_mode_come_from_the_environment(hub: Any, tmp_path: Path) -> None:
    put_gguf(hub, "org/small", "small-Q4_K_M.gguf")
    script = (
        "from fitcheck.catalog.hub import Hub\nfrom fitcheck.errors import FitcheckError\n"
        "try: print(Hub().resolve('org/small:Q4_K_M').id)\nexcept FitcheckError as e: print(e.code)"
    )
    environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path)}
    environ.pop("HF_HUB_OFFLINE", None)
    for offline, said in (("0", "hf:org/small:Q4_K_M"), ("1", "offline")):
        done = subprocess.run(
            [sys.executable, "-c", script], env={**environ, "HF_HUB_OFFLINE": offline}, capture_output=True, text=True
        )
        assert done.stdout.strip() == said, done.stderr


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-8B-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL"),
        ("IQ2_XXS/model-00001-of-00002.gguf", "IQ2_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("llama-2-7b.Q5_0.gguf", "Q5_0"),
        ("model-bf16.gguf", "BF16"),
        ("model.gguf", ""),
    ],
)
def test_file_names_tell_their_quantisation(name: str, quant: str) -> None:
    assert quant_of(name) == quant
