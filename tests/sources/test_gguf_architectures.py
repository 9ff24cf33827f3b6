"""A file and the catalog's row of the same model need the same memory, term by term, whatever the architecture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fitcheck import facts
from fitcheck.catalog import load
from fitcheck.catalog.gguf_model import model_from_file
from fitcheck.estimate.fit import Estimator
from fitcheck.types import Accelerator, Backend, Cpu, Fit, Machine, Model, Pool, Request, Vendor

_spec = importlib.util.spec_from_file_location("true_shapes", Path(__file__).parent / "true_shapes.py")
assert _spec is not None and _spec.loader is not None
true_shapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(true_shapes)

# parts of these that their files hold have no form in a shape, so the writer cannot write them
WITHOUT_A_FORM = {"bitnet", "hy_v4", "kimi-k3", "minimax-m3", "apertus"}
TIB = 1 << 40


def smallest_rows() -> dict[str, Model]:
    """The smallest model of each architecture."""
    rows: dict[str, Model] = {}
    for model in sorted(load().models, key=lambda model: -model.params):
        if model.architecture and model.shape is not None and model.architecture not in WITHOUT_A_FORM:
            rows[model.architecture] = model
    return rows


ROWS = smallest_rows()


def machine(gpu: bool) -> Machine:
    card = Accelerator(
        index=0,
        name="card",
        vendor=Vendor.NVIDIA,
        pool=Pool(TIB, TIB, TIB),
        backends=(Backend.CUDA,),
        compute_capability="9.0",
    )
    cpu = Cpu(name="cpu", physical_cores=8, logical_cpus=16)
    return Machine("linux", "x86_64", cpu, Pool(TIB, TIB, TIB), accelerators=(card,) if gpu else ())


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return Estimator(facts.load())


def terms(fit: Fit) -> list[tuple[Any, ...]]:
    return sorted((term.name, term.device, term.bytes) for term in fit.terms)


def test_at_least_sixty_architectures_are_compared() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("architecture", sorted(ROWS))
def test_a_file_needs_the_memory_of_its_catalog_row(architecture: str, tmp_path: Path, estimator: Estimator) -> None:
    row = ROWS[architecture]
    model = model_from_file(true_shapes.write(row, tmp_path / f"{architecture}.gguf"))
    assert (model.architecture, model.file_quant, model.context_tokens) == (architecture, "BF16", row.context_tokens)
    for gpu, context in ((True, 8192), (False, None)):
        request = Request(context_tokens=context, quant="BF16", runtime="llama.cpp")
        found = estimator.estimate(model, machine(gpu), request)
        expected = estimator.estimate(row, machine(gpu), request)
        assert terms(found) == terms(expected)
