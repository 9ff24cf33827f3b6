"""A name that holds a format is answered in that format, by the engine that runs it on the machine."""

from __future__ import annotations

import pytest

from fitcheck.errors import FitcheckError
from fitcheck.session import Session
from fitcheck.types import Request, Task

NVIDIA, MAC, CPU = "RTX 4090", "M4 Max 64GB", "cpu"


@pytest.mark.parametrize(
    ("on", "name", "quant", "runtime"),
    [
        (NVIDIA, "Qwen/Qwen3-32B", None, None),
        (NVIDIA, "unsloth/Qwen3-32B-GGUF:Q4_K_M", "Q4_K_M", None),
        (NVIDIA, "Qwen/Qwen3-32B-AWQ", "AWQ", "vllm"),
        (NVIDIA, "Qwen/Qwen3-32B-FP8", "FP8", "vllm"),
        (NVIDIA, "unsloth/Qwen3-14B-bnb-4bit", "NF4", "transformers"),
        (NVIDIA, "mlx-community/Qwen3-32B-4bit", "MLX-4BIT", "mlx"),
        (NVIDIA, "mlx-community/Qwen3-8B-bf16", "BF16", "mlx"),
        (MAC, "mlx-community/Qwen3-32B-4bit", "MLX-4BIT", "mlx"),
        (MAC, "Qwen/Qwen3-32B-AWQ", "AWQ", "vllm"),
        ("RX 7900 XTX", "Qwen/Qwen3-32B-AWQ", "AWQ", "vllm"),
        ("RX 7900 XTX", "nvidia/Qwen3-14B-NVFP4", "NVFP4", "vllm"),
        (CPU, "Qwen/Qwen3-32B-AWQ", "AWQ", "vllm"),
    ],
)
def test_the_format_of_a_name_is_what_is_asked_for(on: str, name: str, quant: str | None, runtime: str | None) -> None:
    request = Session(on).asked(name, Request()).request
    assert (request.quant, request.runtime) == (quant, runtime)


def test_what_is_asked_for_goes_before_what_the_name_holds() -> None:
    asked = Session(NVIDIA).asked("Qwen/Qwen3-32B-AWQ", Request(quant="Q4_K_M"))
    assert (asked.request.quant, asked.request.runtime) == ("Q4_K_M", None)
    assert asked.model.hub_repo == "Qwen/Qwen3-32B"


def test_the_command_fetches_what_was_named() -> None:
    session = Session(NVIDIA)
    for name in ("Qwen/Qwen3-32B-AWQ", "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"):
        asked = session.asked(name, Request())
        chooser = session.chooser(asked.request)
        assert chooser.estimate(chooser.choose(asked.model)).command.startswith(f"vllm serve {name} ")


def test_a_publishers_mix_is_fetched_from_that_publisher() -> None:
    session = Session(NVIDIA)
    request = Request(quant="UD-Q4_K_XL")
    ranker = session.ranker(request)
    commands = [ranker.fit(ranked).command for ranked in ranker.best(Task.CHAT, 12)]
    assert len(commands) == 12
    assert all(each.startswith(("llama-server -hf unsloth/", "https://")) for each in commands), commands


@pytest.mark.parametrize(
    ("quant", "runtime", "hint"),
    [("AWQ", "llama.cpp", "vllm"), ("Q4_K_M", "vllm", "llama.cpp"), ("MLX-4BIT", "vllm", "mlx")],
)
def test_an_engine_is_not_asked_to_load_what_it_cannot(quant: str, runtime: str, hint: str) -> None:
    with pytest.raises(FitcheckError) as refused:
        Session(NVIDIA).asked("qwen3-32b", Request(quant=quant, runtime=runtime))
    assert refused.value.code == "bad_option"
    assert hint in refused.value.hint


def test_an_engine_without_a_quantised_cache_is_not_asked_for_one() -> None:
    with pytest.raises(FitcheckError) as refused:
        Session(NVIDIA).chooser(Request(runtime="vllm", kv_type_k="q8_0", kv_type_v="q8_0"))
    assert refused.value.code == "bad_option"
    Session(NVIDIA).chooser(Request(runtime="ollama", kv_type_k="q8_0", kv_type_v="q8_0"))


def test_a_format_whose_engine_is_not_known_is_refused_in_a_line() -> None:
    with pytest.raises(FitcheckError) as refused:
        Session(NVIDIA).asked("turboderp/Qwen3-14B-exl3", Request())
    assert "exllamav3" in refused.value.message


@pytest.mark.parametrize(
    ("written", "runtime", "quant"),
    [("4bit", None, "Q4_K_M"), ("4bit", "mlx", "MLX-4BIT"), ("FP16", None, "F16"), ("FP16", "vllm", "FP16")],
)
def test_a_quantisation_is_spelled_as_the_engine_calls_it(written: str, runtime: str | None, quant: str) -> None:
    assert Session(NVIDIA).spelled(Request(quant=written, runtime=runtime)).quant == quant


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llama3.1", "llama-3.1-8b"),
        ("qwen3", "qwen3-8b"),
        ("gemma3", "gemma-3-4b"),
        ("Mistral", "mistral-7b-instruct-v0.3"),
    ],
)
def test_a_name_without_a_tag_is_what_ollama_takes_and_says_so(name: str, model: str) -> None:
    asked = Session(NVIDIA).asked(name, Request())
    assert asked.model.id == model
    assert asked.notes == (f"{name} is {model} in Ollama's library",)


def test_a_name_that_means_one_model_needs_no_note() -> None:
    for name in ("qwen3:8b", "qwen3-8b", "Qwen/Qwen3-8B"):
        assert Session(NVIDIA).asked(name, Request()).notes == ()


def test_a_file_that_is_not_here_is_the_model_of_its_name() -> None:
    asked = Session(NVIDIA).asked("Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf", Request())
    assert (asked.model.id, asked.request.quant) == ("llama-3.1-8b", "Q5_K_M")


@pytest.mark.parametrize(
    ("address", "model", "quant", "publisher"),
    [
        (
            "https://huggingface.co/Qwen/Qwen3-8B-GGUF/resolve/main/Qwen3-8B-Q4_K_M.gguf?download=true",
            "qwen3-8b",
            "Q4_K_M",
            "qwen",
        ),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "qwen3-8b", None, None),
        ("https://huggingface.co/Qwen/Qwen3-32B-AWQ", "qwen3-32b", "AWQ", None),
        ("hf.co/unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL", "qwen3-8b", "UD-Q4_K_XL", "unsloth"),
        ("https://ollama.com/library/qwen3:8b-q8_0", "qwen3-8b", "Q8_0", None),
        ("unsloth/Qwen3-8B-GGUF/Qwen3-8B-UD-Q6_K_XL.gguf", "qwen3-8b", "UD-Q6_K_XL", "unsloth"),
    ],
)
def test_an_address_is_the_name_in_it(address: str, model: str, quant: str | None, publisher: str | None) -> None:
    asked = Session(NVIDIA).asked(address, Request())
    assert (asked.model.id, asked.request.quant, asked.model.publisher) == (model, quant, publisher)


def test_a_path_that_is_not_here_is_no_model() -> None:
    with pytest.raises(FitcheckError) as refused:
        Session(NVIDIA).asked("models/Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf", Request())
    assert refused.value.code == "unreadable_file"
