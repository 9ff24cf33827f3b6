"""A runtime drives a card by the backend that its own builds have for it."""

from __future__ import annotations

import csv

import pytest
from msgspec.structs import replace

import fitcheck
from fitcheck import facts
from fitcheck.accuracy import measurements
from fitcheck.estimate.served import as_served, detours
from fitcheck.probe.pretend import pretend
from fitcheck.types import Backend, Machine, PlacementKind, Request

RUNTIMES = facts.load().runtimes


def first_backend(machine: Machine, runtime: str) -> Backend | None:
    return next(iter(as_served(machine.accelerators, machine.os, RUNTIMES.row(runtime))[0].backends), None)


@pytest.mark.parametrize(
    ("hardware", "system", "runtime", "backend"),
    [
        ("Radeon 860M", "linux", "llama.cpp", Backend.ROCM),
        ("Radeon 860M", "linux", "ollama", Backend.VULKAN),
        ("RX 6700 XT", "linux", "ollama", Backend.VULKAN),
        ("RX 7900 XTX", "linux", "ollama", Backend.ROCM),
        ("Radeon 780M", "linux", "ollama", Backend.ROCM),
        ("Radeon 780M", "windows", "ollama", Backend.VULKAN),
        ("Radeon 890M", "linux", "lmstudio", Backend.VULKAN),
        ("Tesla P40", "linux", "ollama", Backend.CUDA),
        ("Tesla P40", "linux", "vllm", None),
    ],
)
def test_a_card_that_the_builds_of_a_backend_are_not_made_for_takes_the_next_one(
    hardware: str, system: str, runtime: str, backend: Backend | None
) -> None:
    assert first_backend(replace(pretend(hardware), os=system), runtime) is backend


def test_a_machine_whose_cards_are_all_served_stays_the_same_object() -> None:
    machine = pretend("RTX 4070")
    assert as_served(machine.accelerators, machine.os, RUNTIMES.row("ollama")) == machine.accelerators
    assert not list(detours(machine, "ollama", RUNTIMES.row("ollama")))


def test_the_answer_says_so_and_the_speed_is_that_of_the_other_backend() -> None:
    machine = pretend("Radeon 860M")
    with_rocm, with_vulkan = (
        fitcheck.estimate("qwen3-8b", machine, Request(runtime=runtime, quant="Q4_K_M"))
        for runtime in ("llama.cpp", "ollama")
    )
    assert "ollama has no ROCm for gfx1152 (AMD Radeon 860M): it takes Vulkan" in with_vulkan.notes
    assert not any("gfx1152" in note for note in with_rocm.notes)
    card = machine.accelerators[0]
    on_vulkan = replace(machine, accelerators=(replace(card, backends=(Backend.VULKAN,)),))
    alone = fitcheck.estimate("qwen3-8b", on_vulkan, Request(runtime="ollama", quant="Q4_K_M"))
    assert with_vulkan.speed == alone.speed


def test_a_card_that_is_too_old_for_an_engine_is_left_alone() -> None:
    fit = fitcheck.estimate("qwen3-8b", pretend("Tesla P40"), Request(runtime="vllm"))
    assert fit.placement.kind is not PlacementKind.GPU
    assert any("compute capability 6.1" in note and "leaves the card alone" in note for note in fit.notes)


def test_measurements_name_no_backend_that_their_engine_does_not_have_for_the_card() -> None:
    backends = {backend.value: backend for backend in Backend}
    wrong = set()
    with measurements.FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runtime, backend = RUNTIMES.runtimes.get(row["engine"]), backends.get(row["backend"])
            if runtime is None or backend is None or backend is Backend.CPU or row["usable"] == "no":
                continue
            card = pretend(row["hardware"]).accelerators[0]
            if not runtime.serves(backend, card, "linux"):
                wrong.add((row["engine"], row["backend"], row["hardware"]))
    assert wrong == set()


@pytest.mark.parametrize(
    ("hardware", "context", "given"),
    [("RTX 4070", 8192, "4k"), ("RTX 4070", 4096, ""), ("RTX 4090", 8192, "32k"), ("2x RTX 3090", 8192, "128k")],
)
def test_ollama_gives_the_context_that_its_cards_let_it(hardware: str, context: int, given: str) -> None:
    machine = pretend(hardware)
    fit = fitcheck.estimate("llama-3.1-8b", machine, Request(runtime="ollama", context_tokens=context))
    said = [note for note in fit.notes if "by itself" in note]
    assert said == (
        [f"ollama by itself gives {given} of context here; OLLAMA_CONTEXT_LENGTH={context} is what is counted"]
        if given
        else []
    )
