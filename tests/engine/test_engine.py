"""What llama.cpp allocates, byte for byte: against the engine itself.

Needs a build of llama.cpp 0c1e570 and a C++ compiler: ``FITCHECK_LLAMA_CPP`` names the folder of its programs
(``build/bin`` inside its sources). Files of true shapes are written sparse; no weight is stored or read.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from fitcheck import catalog, facts
from fitcheck.accuracy.memory import Predictor, Row
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.overhead import resident
from fitcheck.estimate.quantize import weights
from fitcheck.types import Cpu, Machine, Model, Pool, Request

BIN = Path(os.environ.get("FITCHECK_LLAMA_CPP", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not (BIN / "llama-quantize").exists() or not shutil.which("c++"),
    reason="FITCHECK_LLAMA_CPP names no build of llama.cpp, or there is no compiler",
)
_spec = importlib.util.spec_from_file_location("true_files", Path(__file__).parent / "true_files.py")
assert _spec is not None and _spec.loader is not None
true_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(true_files)

TABLE = facts.load().quantizations
MIB = 1 << 20


class Question(NamedTuple):
    """One allocation; ``outputs`` 0: room for the logits of every token of a batch."""

    architecture: str
    context: int = 8192
    kv_type: str = "f16"
    ubatch: int = 512
    sequences: int = 1
    outputs: int = 1
    flash: str = "on"
    swa_full: bool = False
    unified: bool = False


ARCHITECTURES = """
afmoe arcee chatglm cohere2 cohere2moe command-r deepseek2 deepseek32 deepseek4 dots1 ernie4_5 ernie4_5-moe exaone
exaone-moe exaone4 falcon gemma gemma2 gemma3 gemma3n gemma4 glm-dsa glm4 glm5-next gpt-oss gpt2 gptneox granite
granitehybrid granitemoe hunyuan-dense hunyuan-moe internlm2 jamba laguna llama llama4 mellum mimo2 minimax-m2
nanbeige nemotron nemotron_h nemotron_h_moe olmo olmo2 olmoe phi2 phi3 phimoe qwen2 qwen2moe qwen2vl qwen3 qwen35
qwen35moe qwen3moe qwen3next qwen4exp seed_oss smollm3 stablelm starcoder2 step35
"""
#: the smallest model of each architecture in the usual setting
USUAL = [Question(architecture) for architecture in ARCHITECTURES.split()]
UNUSUAL = [
    Question("llama", context=2048, kv_type="q8_0"),
    Question("llama", kv_type="q4_0", sequences=4, outputs=4),
    Question("llama", ubatch=1024, outputs=0),
    Question("llama", flash="off"),
    Question("gemma3", context=32768, swa_full=True),
    Question("gemma3", context=32768, sequences=4, outputs=4, unified=True),
    Question("gemma3n", kv_type="q8_0"),
    Question("gemma4", flash="off"),
    Question("gpt-oss", context=131072),
    Question("deepseek2", context=32768, kv_type="q8_0"),
    Question("deepseek4", context=32768, kv_type="q8_0", sequences=4, outputs=4, unified=True),
    Question("deepseek4", context=131072, ubatch=2048, flash="off", swa_full=True),
    Question("qwen35", sequences=4, outputs=4),
    Question("granitehybrid", context=131072, kv_type="q5_1"),
]


@cache
def smallest() -> dict[str, Model]:
    models = sorted(catalog.load().models, key=lambda model: -model.params)
    return {model.architecture: model for model in models if model.architecture and model.shape is not None}


@pytest.fixture(scope="session")
def breakdown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks the engine, compiled."""
    root = BIN.parent.parent
    program = tmp_path_factory.mktemp("engine") / "breakdown"
    include = [f"-I{root / part}" for part in ("include", "src", "ggml/include")]
    link = [f"-L{BIN}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{BIN}"]
    source = Path(__file__).parent / "breakdown.cpp"
    subprocess.run(["c++", "-std=c++17", str(source), *include, *link, "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("question", USUAL + UNUSUAL, ids=lambda q: "-".join(str(part) for part in q))
def test_the_engine_allocates_what_is_predicted(question: Question, breakdown: Path, tmp_path: Path) -> None:
    model = smallest()[question.architecture]
    file = true_files.write(model, tmp_path / "model.gguf")
    asked = (question.context, question.ubatch, question.sequences, question.outputs, question.kv_type, question.flash)
    flags = (int(question.swa_full), int(question.unified))
    done = subprocess.run([breakdown, file, *map(str, (*asked, *flags))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = Row(
        model=model.id,
        quant="BF16",
        n_ctx=question.context,
        kv_type=question.kv_type,
        flash_attention=question.flash,
        flash_resolved=question.flash,
        n_ubatch=question.ubatch,
        n_outputs_max=question.outputs,
        n_seq_max=question.sequences,
        kv_unified=question.unified,
        swa_full=question.swa_full,
        placement="cpu",
        weights=(),
        context=(),
        compute=(),
        output=0,
        kv=0,
        recurrent=0,
    )
    predictor = Predictor(TABLE)
    load = predictor.load(model, row)
    on_device, caches = predictor.weights_and_context(load, row)
    compute = predictor.compute(model, load, row)
    assert [*on_device, *caches, *compute] == [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("smollm2-135m-instruct", "Q4_K_M"),
        ("gemma-3-270m", "Q4_0"),
        ("gpt2", "Q8_0"),
        ("granite-4.0-h-350m", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct", "Q5_K_M"),
    ],
)
@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "no-mmap"])
def test_a_real_load_stays_within_the_predicted_resident_memory(
    name: str, quant: str, mmap: bool, tmp_path: Path
) -> None:
    """Files of random weights, loaded and run for real on the CPU: 512 tokens of prompt, room for all their logits."""
    model = next(model for model in catalog.load().models if model.id == name)
    whole = true_files.fill(true_files.write(model, tmp_path / "whole.gguf"))
    file = tmp_path / "file.gguf"
    subprocess.run([BIN / "llama-quantize", whole, file, quant], check=True, capture_output=True)
    run = [
        BIN / "llama-bench",
        "-m",
        file,
        "-p",
        "512",
        "-n",
        "0",
        "-r",
        "1",
        "-t",
        "2",
        "-lm",
        "mmap" if mmap else "none",
    ]
    measure = "import resource as r, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=s.DEVNULL); "
    measure += "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", measure, *map(str, run)], capture_output=True, text=True, check=True)
    request = Request(context_tokens=512, logits_tokens=0, quant=quant, runtime="llama.cpp")
    ram = Pool(64 << 30, 64 << 30, 64 << 30)
    machine = Machine("linux", "x86_64", Cpu("cpu", 2, 2), ram)
    found = Estimator(facts.load()).place(model, quant, machine, request, "llama.cpp")
    expected = resident(found.uses[0], mmap)
    assert expected.least <= 1024 * int(done.stdout) <= expected.most


@pytest.mark.parametrize("architecture", [question.architecture for question in USUAL])
@pytest.mark.parametrize("quant", ["Q4_K_M", "Q3_K_M", "IQ4_XS"])
def test_llama_quantize_writes_the_bytes_that_are_predicted(architecture: str, quant: str, tmp_path: Path) -> None:
    """It prints hundredths of a MiB."""
    model = smallest()[architecture]
    file = true_files.write(model, tmp_path / "model.gguf")
    done = subprocess.run(
        [BIN / "llama-quantize", "--dry-run", file, tmp_path / "out.gguf", quant], capture_output=True, text=True
    )
    found = re.search(r"quant size *= *([\d.]+) MiB", done.stdout + done.stderr)
    assert found, done.stderr
    assert weights(model, quant, TABLE).total / MIB == pytest.approx(float(found[1]), abs=0.0051)
