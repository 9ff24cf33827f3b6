"""What must hold of any speed, whatever the fitted numbers are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.estimate.quantize import weights
from fitcheck.estimate.speed import decode, predict
from fitcheck.estimate.speed_model import SpeedModel, seconds_of
from fitcheck.estimate.speed_nearest import nearest
from fitcheck.estimate.speed_terms import decode_terms, prefill_terms, running, token_seconds
from fitcheck.probe.pretend import pretend
from fitcheck.types import (
    Backend,
    Calibration,
    DeviceUse,
    Machine,
    Model,
    Origin,
    Placement,
    PlacementKind,
    Rate,
    Request,
    Speed,
)

FACTS = facts.load()
MODELS = {model.id: model for model in catalog.load().models}
DENSE, EXPERTS, HYBRID, LATENT = (
    MODELS[name] for name in ("llama-3.1-8b", "qwen3-30b-a3b", "qwen3.6-27b", "deepseek-v2-lite")
)
CARD = pretend("RTX 4070")
HARDWARE = ("RTX 4070", "RX 7900 XTX", "Arc B580", "M4 Max 64GB", "Ryzen 7 7700")


def on(machine: Machine, model: Model, devices: tuple[str, ...] | None = None) -> Placement:
    """Everything on every named device (by default the first GPU, or the processor where there is none)."""
    assert model.shape is not None
    layers = model.shape.n_layers
    names = devices or (("gpu0",) if machine.accelerators else ("cpu",))
    kind = PlacementKind.CPU if names == ("cpu",) else PlacementKind.GPU
    return Placement(kind, tuple(DeviceUse(name, name, 0, 0, 0, layers, layers, True) for name in names))


def speed(
    machine: Machine,
    model: Model,
    quant: str = "Q4_K_M",
    placement: Placement | None = None,
    runtime: str = "llama.cpp",
    **asked: int | str,
) -> Speed:
    request = Request(**asked)  # type: ignore[arg-type]
    where = placement or on(machine, model)
    sized = weights(model, quant, FACTS.quantizations)
    return predict(running(model, sized, where, machine, request, runtime, FACTS.speed_model), machine)


def with_bandwidth(machine: Machine, per_s: float) -> Machine:
    rate = Rate(per_s, Origin.USER)
    if not machine.accelerators:
        return replace(machine, ram=replace(machine.ram, bandwidth=rate))
    card = machine.accelerators[0]
    return replace(machine, accelerators=(replace(card, pool=replace(card.pool, bandwidth=rate)),))


@pytest.mark.parametrize("hardware", HARDWARE)
@settings(max_examples=10, deadline=None)
@given(low=st.floats(20e9, 4000e9), factor=st.floats(1.0, 8.0))
def test_more_bandwidth_never_slows(hardware: str, low: float, factor: float) -> None:
    machine = pretend(hardware)
    for model in (DENSE, EXPERTS):
        slow, fast = (speed(with_bandwidth(machine, rate), model) for rate in (low, low * factor))
        assert fast.decode_per_s.likely >= slow.decode_per_s.likely * 0.999999
        assert fast.prefill_per_s is not None and slow.prefill_per_s is not None
        assert fast.prefill_per_s.likely >= slow.prefill_per_s.likely * 0.999999


@pytest.mark.parametrize("model", [DENSE, EXPERTS, HYBRID, LATENT], ids=lambda model: model.id)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_a_deeper_context_never_speeds_up(hardware: str, model: Model) -> None:
    machine = pretend(hardware)
    full = [speed(machine, model, context_tokens=n).decode_full_context_per_s.likely for n in (1024, 8192, 32768)]
    assert full == sorted(full, reverse=True)
    answer = speed(machine, model, context_tokens=32768)
    assert answer.decode_full_context_per_s.likely <= answer.decode_per_s.likely


@pytest.mark.parametrize("hardware", ["Ryzen 7 7700", "Xeon w5-3435X", "Raspberry Pi 5 8GB"])
@pytest.mark.parametrize("model", [DENSE, EXPERTS], ids=lambda model: model.id)
def test_half_of_the_cores_decode_slower_but_by_less_than_half(hardware: str, model: Model) -> None:
    machine = replace(pretend(hardware), accelerators=())
    half = replace(machine, cpu=replace(machine.cpu, threads=machine.cpu.threads // 2))
    whole_speed, half_speed = speed(machine, model), speed(half, model)
    assert whole_speed.decode_per_s.likely / 2 < half_speed.decode_per_s.likely < whole_speed.decode_per_s.likely
    assert whole_speed.prefill_per_s is not None and half_speed.prefill_per_s is not None
    assert half_speed.prefill_per_s.likely < whole_speed.prefill_per_s.likely


def test_cards_that_multiply_fp16_only_read_quantised_prompts_slower_than_plain_ones() -> None:
    def ratio(hardware: str) -> float:
        quantised, plain = (speed(pretend(hardware), DENSE, quant).prefill_per_s for quant in ("Q4_K_M", "F16"))
        assert quantised is not None and plain is not None
        return quantised.likely / plain.likely

    assert ratio("Tesla V100 32GB") < 1.0 < ratio("RTX 3090")


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("family", [("Q8_0", "Q4_0"), ("Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"), ("F16", "Q8_0")])
def test_a_smaller_quantisation_of_the_same_family_is_never_slower(hardware: str, family: tuple[str, ...]) -> None:
    speeds = [speed(pretend(hardware), DENSE, quant).decode_per_s.likely for quant in family]
    assert speeds == sorted(speeds)


@pytest.mark.parametrize("model", [DENSE, EXPERTS], ids=lambda model: model.id)
def test_tensor_parallel_is_faster_than_one_card_and_never_beats_the_sum(model: Model) -> None:
    two = pretend("2x RTX 3090")
    one_speed = speed(two, model, placement=on(two, model, ("gpu0",)), runtime="vllm").decode_per_s.likely
    both = speed(two, model, placement=on(two, model, ("gpu0", "gpu1")), runtime="vllm").decode_per_s.likely
    assert both < 2 * one_speed
    if model is DENSE:
        assert both > one_speed


def split(model: Model, first: str, second: str) -> Placement:
    assert model.shape is not None
    layers, half = model.shape.n_layers, model.shape.n_layers // 2
    return Placement(
        PlacementKind.SPLIT,
        (
            DeviceUse(first, first, 0, 0, 0, half, half, False),
            DeviceUse(second, second, 0, 0, half, layers, layers - half, True),
        ),
    )


def test_layers_on_two_cards_run_in_turn() -> None:
    two = pretend("2x RTX 3090")
    alone = speed(two, DENSE).decode_per_s.likely
    halves = speed(two, DENSE, placement=split(DENSE, "gpu0", "gpu1")).decode_per_s.likely
    assert 0.9 * alone < halves <= alone


def test_a_partial_offload_lies_between_processor_and_card() -> None:
    alone, partly = speed(CARD, DENSE), speed(CARD, DENSE, placement=split(DENSE, "gpu0", "cpu"))
    processor = speed(CARD, DENSE, placement=on(CARD, DENSE, ("cpu",)))
    assert processor.decode_per_s.likely < partly.decode_per_s.likely < alone.decode_per_s.likely
    assert partly.prefill_per_s is not None and alone.prefill_per_s is not None
    assert partly.prefill_per_s.likely < alone.prefill_per_s.likely


def test_experts_in_ram_cost_the_time_of_ram() -> None:
    assert EXPERTS.shape is not None
    layers = EXPERTS.shape.n_layers
    card = DeviceUse("gpu0", "", 0, 0, 0, layers, layers, True)
    speeds = []
    for held in (layers, layers // 2, 0):
        away = DeviceUse("cpu", "", 0, 0, 0, 0, layers - held, False)
        uses = (replace(card, expert_layers=held), away) if held < layers else (card,)
        speeds.append(speed(CARD, EXPERTS, placement=Placement(PlacementKind.SPLIT, uses)).decode_per_s.likely)
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] > 2 * speeds[-1]


def test_a_device_that_only_holds_buffers_takes_no_time() -> None:
    alone = on(CARD, DENSE)
    beside = replace(alone, devices=(*alone.devices, DeviceUse("cpu", "", 10**9, 10**10)))
    assert speed(CARD, DENSE, placement=beside) == speed(CARD, DENSE, placement=alone)


@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_quick_path_says_what_the_whole_answer_says(hardware: str) -> None:
    machine, sized = pretend(hardware), weights(EXPERTS, "Q4_K_M", FACTS.quantizations)
    where = on(machine, EXPERTS)
    quick = decode(running(EXPERTS, sized, where, machine, Request(), "llama.cpp", FACTS.speed_model), machine)
    assert quick == speed(machine, EXPERTS).decode_per_s


@pytest.mark.parametrize("hardware", [*HARDWARE, "2x RTX 3090", "Xeon w5-3425 (CPU)"])
@pytest.mark.parametrize("model", [DENSE, EXPERTS, HYBRID, LATENT], ids=lambda model: model.id)
def test_the_time_of_a_token_is_the_sum_of_its_terms(hardware: str, model: Model) -> None:
    machine, sized = pretend(hardware), weights(model, "Q4_K_M", FACTS.quantizations)
    cards = [f"gpu{card.index}" for card in machine.accelerators]
    places = [on(machine, model, (name,)) for name in ("cpu", *cards)]
    places += [split(model, first, second) for first, second in pairwise(["cpu", *cards])]
    runs = [running(model, sized, where, machine, Request(), "llama.cpp", FACTS.speed_model) for where in places]
    if len(cards) > 1:
        shared = on(machine, model, tuple(cards))
        runs.append(running(model, sized, shared, machine, Request(), "vllm", FACTS.speed_model))
    for run in runs:
        for depth in (0.0, 700.0, 30_000.0):
            terms = seconds_of(decode_terms(run, depth), FACTS.speed_model.parameters)
            assert token_seconds(run, depth) == pytest.approx(terms, rel=1e-12)


def test_matrix_tiles_of_a_processor_serve_dense_layers_and_not_routed_experts() -> None:
    tiles, sized = pretend("Xeon w5-3425 (CPU)"), weights(EXPERTS, "Q4_K_M", FACTS.quantizations)
    run = running(EXPERTS, sized, on(tiles, EXPERTS), tiles, Request(), "llama.cpp", FACTS.speed_model)
    units = {key.rpartition("/")[2] for term in prefill_terms(run, 512) for key in term.keys if "/instructions/" in key}
    routed = [term for term in prefill_terms(run, 512) if "prefill/expert/backend/cpu" in term.keys]
    assert units == {"amx", "avx512_bf16"} and routed
    assert all("prefill/compute_ns/instructions/avx512_bf16" in term.keys for term in routed)


def test_rows_that_are_no_multiple_of_a_super_block_are_timed_in_blocks() -> None:
    machine = pretend("Ryzen 9 9950X (CPU)")
    wide, narrow = MODELS["llama-3.2-1b"], MODELS["gemma-3-270m"]
    shares = []
    for model in (wide, narrow):
        sized = weights(model, "Q4_K_M", FACTS.quantizations)
        run = running(model, sized, on(machine, model), machine, Request(), "llama.cpp", FACTS.speed_model)
        products = [term for term in prefill_terms(run, 512) if not any("/attention/" in key for key in term.keys)]
        products = [term for term in products if term.what == "compute"]
        in_blocks = [term for term in products if any(key.startswith("prefill/block/") for key in term.keys)]
        shares.append(sum(term.base_s for term in in_blocks) / sum(term.base_s for term in products))
    assert shares[0] == 0.0 and 0.5 < shares[1] < 1.0  # 640 columns, but for what reads 2,048 and 1,024


def test_intervals_widen_where_nothing_was_measured() -> None:
    def width(machine: Machine) -> float:
        found = speed(machine, DENSE).decode_per_s
        return found.high / found.low

    arc = pretend("Arc A770")
    on_sycl = replace(arc, accelerators=(replace(arc.accelerators[0], backends=(Backend.SYCL,)),))
    assert width(pretend("RTX 4070")) < width(pretend("RTX 5050")) < width(on_sycl)


def test_an_engine_that_nobody_measured_on_such_a_card_is_less_certain() -> None:
    def width(hardware: str, runtime: str) -> float:
        found = speed(pretend(hardware), DENSE, runtime=runtime).decode_per_s
        return found.high / found.low

    assert width("RTX 3090", "lmstudio") > width("RTX 3090", "llama.cpp") * 1.2


def test_unknown_memory_speed_is_assumed_and_said() -> None:
    machine = pretend("RTX 4070")
    card = machine.accelerators[0]
    blind = replace(machine, accelerators=(replace(card, pool=replace(card.pool, bandwidth=None)),))
    found, known = speed(blind, DENSE), speed(machine, DENSE)
    assert "memory bandwidth" in found.assumed and not known.assumed
    assert found.decode_per_s.high / found.decode_per_s.low > known.decode_per_s.high / known.decode_per_s.low


def test_a_calibrated_machine_says_measured_and_follows_the_measurement() -> None:
    plain = speed(CARD, DENSE)
    machine = replace(CARD, calibration=Calibration("2026-01-01", "", speed_factors={"cuda": 0.8}))
    found = speed(machine, DENSE)
    assert found.origin is Origin.MEASURED
    assert found.decode_per_s.likely == pytest.approx(0.8 * plain.decode_per_s.likely)
    assert found.decode_per_s.high / found.decode_per_s.low < 1.3


def test_parallel_sequences_raise_throughput_and_share_the_weights() -> None:
    alone = speed(CARD, DENSE)
    four = speed(CARD, DENSE, parallel=4)
    assert alone.throughput_per_s is None and four.throughput_per_s is not None
    assert alone.decode_per_s.likely < four.throughput_per_s.likely < 4 * alone.decode_per_s.likely


def test_the_first_token_waits_for_the_prompt() -> None:
    short, long = (speed(CARD, DENSE, prompt_tokens=n, context_tokens=32768).first_token_s for n in (512, 16384))
    assert short is not None and long is not None
    assert long.likely > 32 * short.likely * 0.8  # attention grows faster than the prompt, start-up does not


def test_every_backend_of_a_card_has_parameters_of_its_own() -> None:
    model: SpeedModel = FACTS.speed_model
    for backend in ("cuda", "rocm", "metal", "vulkan", "sycl", "cpu", *model.runtime_backends.values()):
        for term in ("decode/read", "decode/operation_us", "decode/token_ms", "prefill/compute", "prefill/read"):
            assert f"{term}/backend/{backend}" in model.parameters, (term, backend)


def test_every_parameter_is_explained() -> None:
    for key in FACTS.speed_model.parameters:
        assert FACTS.speed_model.family(key).about


def test_the_nearest_measurements_are_of_this_hardware_and_of_this_model_first() -> None:
    hardware = pretend("RTX 3090").accelerators[0].catalog_name
    assert hardware is not None
    sizes = {model.id: model.params_active for model in MODELS.values()}
    found = nearest(FACTS.measurements, hardware, DENSE, "Q4_K_M", "llama.cpp", sizes)
    assert found and {row.hardware for row in found} == {"NVIDIA GeForce RTX 3090"}
    of_model = [row.model == DENSE.id for row in found]
    assert of_model == sorted(of_model, reverse=True) and of_model[0]
    assert all(row.source.startswith("https://") for row in found)


def test_a_model_that_nobody_measured_is_compared_with_models_of_its_size() -> None:
    hardware = pretend("RTX 4090").accelerators[0].catalog_name
    assert hardware is not None
    sizes = {model.id: model.params_active for model in MODELS.values()}
    others = [row for row in FACTS.measurements if row.model != DENSE.id]
    found = nearest(others, hardware, DENSE, "Q4_K_M", "llama.cpp", sizes)
    assert all(0.5 < sizes[row.model] / DENSE.params_active < 2 for row in found)
