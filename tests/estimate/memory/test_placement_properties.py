"""What must hold for every model and machine: asking for more never needs less, having more never hurts."""

from __future__ import annotations

from functools import cache

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitcheck import catalog, facts
from fitcheck.accuracy import weights_table
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.longest import most_that_fits
from fitcheck.estimate.placement import Candidate, candidate, planned
from fitcheck.types import (
    Accelerator,
    Backend,
    Cpu,
    Machine,
    Model,
    Origin,
    PlacementKind,
    Pool,
    Rate,
    Request,
    Vendor,
    Verdict,
)

GIB = 1 << 30
FACTS = facts.load()
#: one model per kind of memory: dense, windows, experts, latent, recurrent, tied, shared caches
IDS = (
    "llama-3.1-8b",
    "gemma-3-12b",
    "qwen3-30b-a3b",
    "deepseek-v2-lite",
    "qwen3.5-9b",
    "llama-3.2-1b",
    "gemma-3n-e2b",
    "gpt-oss-20b",
    "granite-4.0-h-tiny",
)
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def models() -> dict[str, Model]:
    return {model.id: model for model in catalog.load().models}


@cache
def estimator() -> Estimator:
    return Estimator(FACTS)


def machine(ram_gib: float, gpus_gib: tuple[float, ...] = (), unified: bool = False) -> Machine:
    def pool(gib: float) -> Pool:
        return Pool(int(gib * GIB), int(gib * GIB), int(gib * GIB), Rate(100e9, Origin.ASSUMED))

    cards = tuple(
        Accelerator(
            index,
            "card",
            Vendor.APPLE if unified else Vendor.NVIDIA,
            pool(gib),
            unified=unified,
            backends=(Backend.METAL if unified else Backend.CUDA,),
        )
        for index, gib in enumerate(gpus_gib)
    )
    return Machine("linux", "x86_64", Cpu("cpu", 8, 16), pool(ram_gib), cards)


def place(model: str, where: Machine, request: Request, quant: str = "Q4_K_M") -> Candidate:
    runtime = request.runtime or "llama.cpp"
    return estimator().place(models()[model], quant, where, request, runtime)


model_ids = st.sampled_from(IDS)
contexts = st.sampled_from((512, 2048, 8192, 32768, 100_000))
memories = st.floats(0.5, 96, allow_nan=False)
cards = st.lists(st.floats(0.5, 48, allow_nan=False), max_size=3).map(tuple)


def need_on_the_host(model: str, request: Request) -> int:
    return place(model, machine(4096), request).need


@PROPERTY
@given(model_ids, contexts, contexts)
def test_more_context_never_needs_less(model: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert need_on_the_host(model, Request(context_tokens=small)) <= need_on_the_host(
        model, Request(context_tokens=large)
    )


@PROPERTY
@given(model_ids, st.integers(1, 4), st.integers(1, 4))
def test_more_sequences_never_need_less(model: str, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert need_on_the_host(model, Request(parallel=few)) <= need_on_the_host(model, Request(parallel=many))


@PROPERTY
@given(model_ids, contexts)
def test_more_bits_per_cache_element_never_need_less(model: str, context: int) -> None:
    def cache_bytes(kv_type: str) -> int:
        request = Request(context_tokens=context, kv_type_k=kv_type, kv_type_v=kv_type)
        return sum(use.parts.kv for use in place(model, machine(4096), request).uses)

    sizes = [cache_bytes(kv_type) for kv_type in ("q4_0", "q5_0", "q8_0", "f16", "f32")]
    assert sizes == sorted(sizes)


@PROPERTY
@given(model_ids, memories, cards, st.floats(0, 64), st.integers(0, 2))
def test_more_memory_never_turns_yes_into_no(
    model: str, ram: float, gpus: tuple[float, ...], more: float, which: int
) -> None:
    before = place(model, machine(ram, gpus), Request())
    if which < len(gpus):
        grown = machine(ram, (*gpus[:which], gpus[which] + more, *gpus[which + 1 :]))
    else:
        grown = machine(ram + more, gpus)
    after = place(model, grown, Request())
    assert before.verdict is Verdict.NO or after.verdict is not Verdict.NO


@PROPERTY
@given(model_ids, memories, cards)
def test_the_parts_of_a_split_add_up_to_the_whole(model: str, ram: float, gpus: tuple[float, ...]) -> None:
    found = place(model, machine(ram, gpus), Request())
    whole = place(model, machine(4096), Request())
    layers = sum(end - start for start, end in zip((0, *found.split.ends), found.split.ends, strict=False))
    assert layers == models()[model].shape.n_layers  # type: ignore[union-attr]
    weights, all_weights = (sum(use.parts.weights for use in each.uses) for each in (found, whole))
    assert all_weights <= weights <= all_weights * 1.6  # a tied embedding is kept twice beside a GPU
    assert sum(use.parts.kv for use in found.uses) == sum(use.parts.kv for use in whole.uses)
    assert sum(use.parts.state for use in found.uses) == sum(use.parts.state for use in whole.uses)


@PROPERTY
@given(model_ids, st.sampled_from((128, 512, 1024)), st.sampled_from((1, 0)), st.booleans())
def test_an_answer_does_not_depend_on_questions_before_it(model: str, ubatch: int, logits: int, full: bool) -> None:
    request = Request(ubatch_tokens=ubatch, logits_tokens=logits, swa_full=full)
    fresh = Estimator(FACTS).place(models()[model], "Q4_K_M", machine(4096), request, "llama.cpp")
    assert place(model, machine(4096), request) == fresh


@PROPERTY
@given(model_ids, memories)
def test_unified_memory_is_counted_once(model: str, gib: float) -> None:
    where = machine(gib, (gib,), unified=True)
    found = place(model, where, Request(allow=(PlacementKind.GPU,)))
    assert len(found.uses) == 1
    assert found.have == where.accelerators[0].pool.usable_bytes


@PROPERTY
@given(model_ids, memories, cards, contexts)
def test_the_full_answer_keeps_what_the_quick_one_promises(
    model: str, ram: float, gpus: tuple[float, ...], context: int
) -> None:
    where, request = machine(ram, gpus), Request(context_tokens=context, quant="Q4_K_M")
    quick = estimator().quick(models()[model], "Q4_K_M", where, request)
    fit = estimator().estimate(models()[model], where, request)
    assert fit.exact
    assert (quick.kind, quick.have_bytes) == (fit.placement.kind, fit.have_bytes)
    assert (quick.verdict is Verdict.NO) == (fit.verdict is Verdict.NO)
    if fit.verdict is not Verdict.NO:
        assert fit.need_bytes <= quick.need_bytes
        assert fit.verdict in (quick.verdict, Verdict.FITS)
    assert sum(term.bytes for term in fit.terms) == fit.need_bytes
    assert sum(use.need_bytes for use in fit.placement.devices) == fit.need_bytes


@PROPERTY
@given(model_ids, memories, cards)
def test_the_most_context_that_fits_is_the_most(model: str, ram: float, gpus: tuple[float, ...]) -> None:
    where = machine(ram, gpus)
    fit = estimator().estimate(models()[model], where, Request(quant="Q4_K_M"))
    if fit.verdict is Verdict.NO:
        return
    longest = models()[model].context_extended_tokens or models()[model].context_tokens

    def left(tokens: int) -> int:
        request = Request(context_tokens=tokens)
        ground = estimator().ground(models()[model], "Q4_K_M", where, request, "llama.cpp")
        split = place(model, where, Request()).split
        return min(use.left for use in planned(ground, candidate(ground, split)).uses)

    assert left(fit.max_context_tokens) >= 0
    assert fit.max_context_tokens == longest or left(min(fit.max_context_tokens + 256, longest)) < 0
    # rotations of a quantised cache take some host memory, which may be what is short
    assert fit.max_context_q8_tokens >= 0.98 * fit.max_context_tokens


@given(st.integers(1, 5000), st.integers(0, 10**7), st.integers(1, 3000), st.integers(0, 10**6))
def test_the_search_along_a_line_finds_its_root(steps: int, room: int, slope: int, bend: int) -> None:
    def left(tokens: int) -> int:
        return room - slope * tokens - max(0, tokens - bend) * slope // 2

    longest = 256 * steps
    found = most_that_fits(left, 256, longest)
    fitting = [n for n in (*range(256, longest, 256), longest) if left(n) >= 0]
    assert found == (fitting[-1] if fitting else 0)


def test_the_table_of_weights_is_that_of_this_catalog() -> None:
    fresh = msgspec.msgpack.encode(weights_table.build())
    assert fresh == msgspec.msgpack.encode(FACTS.weights), "run python -m fitcheck.accuracy.weights_table"
