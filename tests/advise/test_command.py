from __future__ import annotations

import pytest
from msgspec.structs import replace

import fitcheck
from fitcheck.session import Session
from fitcheck.types import Fit, Model, Request, Task, Verdict


def answer(on: str, name: str, request: Request) -> Fit:
    session = Session(on)
    model: Model = session.model(name)
    chooser = session.chooser(request)
    return chooser.estimate(chooser.choose(model))


@pytest.mark.parametrize(
    ("on", "name", "request_", "expected"),
    [
        ("RTX 4070", "qwen3-14b", Request(), "ollama run qwen3:14b"),
        # a tag of Ollama runs with settings of its own: what else is asked for needs flags
        ("RTX 4070", "qwen3-14b", Request(parallel=4), "GGUF:Q4_K_M -c 32768 -np 4"),
        ("RTX 4070", "qwen3-14b", Request(context_tokens=16384), "GGUF:Q4_K_M -c 16384"),
        (
            "RTX 4070",
            "qwen3-14b",
            Request(context_tokens=32768, kv_type_k="q8_0", kv_type_v="q8_0"),
            "GGUF:Q4_K_M -c 32768 -np 1 -ctk q8_0 -ctv q8_0",
        ),
        # who names a publisher's files gets those
        (
            "RTX 4070",
            "unsloth/Qwen3-14B-GGUF",
            Request(),
            "llama-server -hf unsloth/Qwen3-14B-GGUF:Q4_K_M -c 8192 -np 1",
        ),
        ("RTX 4070", "qwen3-14b", Request(runtime="ollama"), "ollama run qwen3:14b"),
        (
            "RTX 4090",
            "unsloth/Qwen3-14B-GGUF",
            Request(runtime="ollama", quant="Q6_K"),
            "ollama run hf.co/unsloth/Qwen3-14B-GGUF:Q6_K",
        ),
        ("RTX 4070", "qwen3-embedding-8b", Request(), "-c 8192 -np 1 --embedding"),
        # an image encoder that was not counted is not loaded
        ("RTX 4090", "qwen3-vl-8b", Request(quant="Q8_0"), "GGUF:Q8_0 -c 8192 -np 1 --no-mmproj"),
        # what is not published has to be made, or found
        ("M4 Max 64GB", "qwen3-32b", Request(runtime="mlx", quant="MLX-4BIT"), "-q --q-bits 4 && mlx_lm.server"),
        ("H100", "qwen3-8b", Request(runtime="vllm", quant="BF16"), "vllm serve Qwen/Qwen3-8B --max-model-len 8192"),
        ("H100", "qwen3-8b", Request(runtime="vllm", quant="FP8"), "vllm serve Qwen/Qwen3-8B --quantization fp8"),
        ("H100", "qwen3-8b", Request(runtime="vllm", quant="AWQ"), "https://huggingface.co/models?other=base_model"),
        ("H100", "qwen3-8b", Request(runtime="transformers", quant="NF4"), "Qwen/Qwen3-8B --quantization bnb-4bit"),
    ],
)
def test_the_command_does_what_was_asked(on: str, name: str, request_: Request, expected: str) -> None:
    assert expected in answer(on, name, request_).command


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("llama.cpp", "llama-server -m '/some models/a b.gguf' -c 8192"),
        ("lmstudio", "lms load '/some models/a b.gguf' --context-length 8192 --parallel 1"),  # by itself it takes four
    ],
)
def test_a_file_is_named_as_a_shell_reads_it(runtime: str, expected: str) -> None:
    model = replace(fitcheck.find("qwen3-0.6b"), path="/some models/a b.gguf", file_quant="Q8_0")
    fit = fitcheck.estimate(model, fitcheck.pretend("RTX 4090"), Request(runtime=runtime))
    assert fit.command.startswith(expected)


def test_for_images_the_encoder_is_loaded() -> None:
    request = Request(task=Task.VISION, quant="Q8_0")
    assert answer("RTX 4090", "qwen3-vl-8b", request).command.endswith("GGUF:Q8_0 -c 8192 -np 1")


@pytest.mark.parametrize(
    ("on", "runtime", "name", "quant"),
    [
        ("RTX 4090", "vllm", "qwen3-32b", "AWQ"),
        ("RTX 4090", "vllm", "gpt-oss-20b", "MXFP4"),
        ("RTX 4090", "vllm", "llama-3.3-70b", "AWQ"),  # does not fit: what is said to be missing is of the smallest
        ("M4 Max 64GB", "mlx", "qwen3.6-27b", "MLX-4BIT"),
    ],
)
def test_every_engine_is_offered_four_bits_as_its_users_know_them(on: str, runtime: str, name: str, quant: str) -> None:
    assert answer(on, name, Request(runtime=runtime)).quant == quant


@pytest.mark.parametrize(("on", "runtime"), [("RTX 4090", "mlx"), ("M4 Max 64GB", "vllm"), ("cpu", "vllm")])
def test_nothing_fits_on_hardware_that_the_engine_does_not_run_on(on: str, runtime: str) -> None:
    machine = fitcheck.pretend(on)
    assert answer(on, "qwen3-0.6b", Request(runtime=runtime)).verdict is Verdict.NO
    assert not fitcheck.rank(machine, Request(runtime=runtime))


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("unsloth/Qwen3-14B-GGUF:Q6_K", "Q6_K"),
        ("hf.co/bartowski/Qwen_Qwen3-14B-GGUF:IQ4_XS", "IQ4_XS"),
        ("llama3.1:8b-instruct-q8_0", "Q8_0"),
        ("llama3.1:8b-instruct-fp16", "F16"),
    ],
)
def test_a_quantisation_in_the_name_is_the_one_that_is_answered_for(name: str, quant: str) -> None:
    machine = fitcheck.pretend("RTX 4090")
    assert fitcheck.estimate(name, machine).quant == quant
    assert fitcheck.estimate(name, machine, Request(quant="Q5_K_M")).quant == "Q5_K_M"  # unless another is asked for


def test_a_repository_that_the_catalog_does_not_know_is_the_one_that_is_run() -> None:
    fit = fitcheck.estimate("bartowski/Qwen_Qwen3-14B-GGUF", fitcheck.pretend("RTX 4070"))
    assert fit.command.startswith("llama-server -hf bartowski/Qwen_Qwen3-14B-GGUF:")


@pytest.mark.parametrize("runtime", [None, "llama.cpp", "ollama"])
def test_mxfp4_in_a_gguf_file_is_the_mix_of_that_name(runtime: str | None) -> None:
    machine = fitcheck.pretend("RTX 4070")
    fit = fitcheck.estimate("gpt-oss-20b", machine, Request(quant="MXFP4", runtime=runtime))
    assert fit == fitcheck.estimate("gpt-oss-20b", machine, Request(quant="MXFP4_MOE", runtime=runtime))
    assert fit.quant == "MXFP4_MOE"
