"""The terms of the time that a placed model takes: for one token, and for a prompt.

Devices of a layer split work in turn, so their terms add up. Where several devices hold the same layers (tensor
parallel) each does its share at the same time and all exchange activations twice per layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil

from msgspec import Struct

from fitcheck.estimate.speed_device import TOKEN_S, Device, Hardware
from fitcheck.estimate.speed_model import Seconds, SpeedModel, Term, factor_of
from fitcheck.estimate.speed_work import Costs, Part, PrefillWork, Work, prefill_work
from fitcheck.types import FlashAttention, Machine, Model, Placement, Request, Weights

HOP_S = 30e-6  # one hand-over of activations between devices
DEQUANTISED_BYTES = 4.0  # of one parameter: its FP16 value is written, then read
PAGEABLE_PER_S = 8e9  # weights in a mapped file go through the driver's buffer: 7.4 and 8.2 GB/s beside an H100
EXCHANGE_S = 10e-6  # one all-reduce of a token's activations between cards
CACHE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip


class Running(Struct, frozen=True):
    """A placed model: what runs where. ``uses`` are the devices that have work, one after the other, ``devices`` what
    they can do; ``held``: which share of the routed experts of its own layers each holds. ``parallel``: so many cards
    share each of ``uses``, which stands for the slowest; ``link_per_s``: of the slowest link between any two.
    """

    costs: Costs
    request: Request
    speed_model: SpeedModel
    uses: tuple[Part, ...]
    devices: tuple[Device, ...]
    held: tuple[float, ...]
    parallel: int = 1
    link_per_s: float = 1.0

    @property
    def is_split(self) -> bool:
        """Whether devices hand activations to each other."""
        return len(self.uses) > 1


def running(
    model: Model,
    weights: Weights,
    placement: Placement,
    machine: Machine,
    request: Request,
    runtime: str,
    speed_model: SpeedModel,
) -> Running:
    """What runs where. The model must have a shape."""
    costs = Costs(model, weights, speed_model.operations)
    return run_on(Hardware(machine, runtime, speed_model), costs, placement.devices, request)


def run_on(hardware: Hardware, costs: Costs, parts: Sequence[Part], request: Request) -> Running:
    """The same of what was worked out before: of the machine, and of the model in its quantisation."""
    uses = tuple([part for part in parts if _has_work(part)]) or tuple(parts[:1])
    devices = tuple([hardware.device(use.device) for use in uses])
    speed_model = hardware.speed_model
    if len(uses) == 1:
        return Running(costs, request, speed_model, uses, devices, (1.0,))
    stages = [list(stage) for _, stage in groupby(zip(uses, devices, strict=True), key=_layers_of)]
    slowest = [min(stage, key=lambda pair: pair[1].bandwidth_per_s) for stage in stages]
    held = tuple([costs.experts_held(use) for use, _ in slowest])
    return Running(
        costs,
        request,
        speed_model,
        tuple([use for use, _ in slowest]),
        tuple([device for _, device in slowest]),
        held,
        len(stages[0]),
        min([device.link_per_s for device in devices]),
    )


def _layers_of(pair: tuple[Part, Device]) -> tuple[int, int] | str:
    """What the devices of one stage have in common."""
    use, _ = pair
    return (use.first_layer, use.last_layer) if use.last_layer > use.first_layer else use.device


def _has_work(use: Part) -> bool:
    return use.last_layer > use.first_layer or use.output or use.expert_layers > 0


def device_work(run: Running, number: int, depth: float) -> Work:
    """What the device of a number reads and launches per token, at ``depth`` tokens in the cache."""
    costs, request, use = run.costs, run.request, run.uses[number]
    cache_bytes = CACHE_BYTES.get(request.kv_type_k, 2.0), CACHE_BYTES.get(request.kv_type_v, 2.0)
    work = costs.decode(depth, cache_bytes, use.first_layer, use.last_layer, run.held[number], use.output)
    if use.device != "cpu":
        return work
    for other, held in zip(run.uses, run.held, strict=True):
        if held < 1.0:
            work = work.plus(costs.experts(other.first_layer, other.last_layer, 1.0 - held))
    return work


def decode_terms(run: Running, depth: float) -> list[Term]:
    """The terms of one token's time at ``depth`` tokens in the cache."""
    terms = []
    for number, device in enumerate(run.devices):
        terms += _decode_on(run, device, device_work(run, number, depth), run.parallel)
    terms.append(Term("overhead", TOKEN_S, run.devices[0].keys("decode/token_ms")))
    return terms + _link_terms(run, 1)


def _decode_on(run: Running, device: Device, work: Work, share: int) -> list[Term]:
    own = () if device.is_cpu else _model_keys(run, "decode")
    keys = device.token_keys(_quant_keys(run, "decode") if device.is_cpu else ())
    per_byte = 1.0 / (device.bandwidth_per_s * share)
    terms = [
        Term("memory", work.weight_bytes * per_byte, keys.read + own),
        Term("memory", work.cache_bytes * per_byte, keys.cache + own),
    ]
    if work.state_bytes:
        terms.append(Term("memory", work.state_bytes * per_byte, keys.read + own))
    terms.append(Term("overhead", work.operations * 1e-6, keys.operation + own, keys.crowd))
    if device.is_cpu:
        parameters = work.weight_bytes * run.costs.params_per_byte
        terms.append(Term("compute", parameters / device.peak_per_s, keys.compute))
        if not device.bandwidth_measured:  # else what each core takes in is part of the measurement
            terms.append(Term("memory", work.weight_bytes / device.peak_per_s, keys.core_read))
    return terms


def token_seconds(run: Running, depth: float) -> Seconds:
    """What ``decode_terms`` come to, worked out without them."""
    parameters, costs = run.speed_model.parameters, run.costs
    of_model = factor_of(parameters, _model_keys(run, "decode"))
    spent = overhead = 0.0
    for number, device in enumerate(run.devices):
        weights, cache, state, operations = device_work(run, number, depth)
        factors = device.token_factors(_quant_keys(run, "decode") if device.is_cpu else (), parameters)
        per_byte = 1.0 / (device.bandwidth_per_s * run.parallel)
        own = 1.0 if device.is_cpu else of_model
        took = ((weights + state) * factors.read + cache * factors.cache) * per_byte * own
        if device.is_cpu:
            in_core = 0.0 if device.bandwidth_measured else factors.core_read
            took += weights * (costs.params_per_byte * factors.compute + in_core) / device.peak_per_s
        spent += took
        overhead += operations * 1e-6 * factors.operation * own
        if not number:
            overhead += factors.token_s
    return Seconds(spent + sum([term.base_s for term in _link_terms(run, 1)]), overhead)


def prefill_terms(run: Running, prompt_tokens: int, depth: int = 0) -> list[Term]:
    """The terms of a prompt's time, with ``depth`` tokens in the cache before it."""
    terms = []
    for number, device in enumerate(run.devices):
        terms += _prefill_on(run, number, device, prompt_tokens, depth)
    return terms + _link_terms(run, prompt_tokens)


def _prefill_on(run: Running, number: int, own: Device, tokens: int, depth: int) -> list[Term]:
    """On one device. Layers in RAM beside a GPU: the engine copies their weights there for every micro-batch."""
    ubatch, use = run.request.ubatch_tokens, run.uses[number]
    work = prefill_work(run.costs, tokens, ubatch, use.first_layer, use.last_layer, depth)
    batches = ceil(tokens / ubatch)
    terms = []
    device = own
    if own.is_cpu and run.is_split:
        device = next(other for other in run.devices if not other.is_cpu)
        streamed = max(work.weight_bytes, device_work(run, number, 0.0).weight_bytes)
        terms.append(Term("link", batches * streamed / min(device.link_per_s, PAGEABLE_PER_S), ()))
    whole = device.keys("prefill/device") + (() if device.is_cpu else _model_keys(run, "prefill"))
    peak = device.peak_per_s * run.parallel
    attention = device.keys("prefill/attention") + whole
    if run.request.flash_attention is FlashAttention.OFF:
        attention += ("prefill/attention/flash/off",)
    if device.is_cpu:
        terms += _on_cores(run, device, work, whole)
        terms.append(Term("compute", work.attention_flop / 2.0 / peak, device.keys("prefill/compute_ns") + attention))
    else:
        compute = device.keys("prefill/compute")
        sizes = (("prefill/compute/peak", peak / 1e14),)
        terms.append(Term("compute", work.dense_flop / peak, compute + whole, sizes))
        terms.append(Term("compute", work.attention_flop / peak, compute + attention))
        if work.expert_flop:
            rows = (("prefill/compute/rows", work.rows_per_expert / 32.0),)
            keys = compute + device.keys("prefill/expert") + whole
            terms.append(Term("compute", work.expert_flop / peak, keys, sizes + rows))
    read = batches * work.weight_bytes / (device.bandwidth_per_s * run.parallel)
    terms.append(Term("memory", read, device.keys("prefill/read") + whole))
    if _dequantises(run, device):
        keys = device.keys("prefill/dequantise") + whole
        terms.append(Term("memory", read * run.costs.params_per_byte * DEQUANTISED_BYTES, keys))
    operations = batches * work.operations * 1e-6
    terms.append(Term("overhead", operations, device.keys("prefill/operation_us") + whole))
    return terms


def _on_cores(run: Running, device: Device, work: PrefillWork, whole: tuple[str, ...]) -> Iterator[Term]:
    """The matrix products of a prompt on a processor. ggml's matrix tiles take MUL_MAT, not MUL_MAT_ID."""
    vectors, of_quant = device.without_tiles, _quant_keys(run, "prefill")
    dense, routed = _shares_in_blocks(run)
    for flop, share_in_blocks, units, more in (
        (work.dense_flop, dense, device, ()),
        (work.expert_flop, routed, vectors, device.keys("prefill/expert")),
    ):
        keys = units.keys("prefill/compute_ns") + more + whole
        for share, of_type in ((1.0 - share_in_blocks, of_quant), (share_in_blocks, units.keys("prefill/block"))):
            if flop * share:  # compute_ns is per parameter and token, of two operations
                yield Term("compute", flop * share / 2.0 / device.peak_per_s, keys + of_type)


def _shares_in_blocks(run: Running) -> tuple[float, float]:
    """Shares of the dense and of the routed parameters that lie in blocks of 32: all of such a quantisation; of one in
    super-blocks what falls back because its rows are no multiple of them.
    """
    found = run.speed_model.quant_classes.get(run.costs.weights.quant)
    if found is None:
        return run.costs.narrow_shares
    return (1.0, 1.0) if found == "block" else (0.0, 0.0)


def _model_keys(run: Running, test: str) -> tuple[str, ...]:
    return (f"{test}/model/id/{run.costs.model.id}",)


def _dequantises(run: Running, device: Device) -> bool:
    """Whether the engine unpacks the weights to FP16 for every micro-batch, because its kernels multiply nothing else
    on this device."""
    model = run.speed_model
    if model.quant_classes.get(run.costs.weights.quant) == "float":
        return False
    return any(device.names.get(level) in model.dequantising for level in ("build", "target"))


def _quant_keys(run: Running, test: str) -> tuple[str, ...]:
    name = run.speed_model.quant_classes.get(run.costs.weights.quant)
    return (f"{test}/compute_ns/quant/{name}",) if name and name != "block" else ()


def _link_terms(run: Running, tokens: int) -> list[Term]:
    """Activations that travel: once per border of a layer split, twice per layer between cards that share layers."""
    if not run.is_split and run.parallel == 1:
        return []
    shape = run.costs.shape
    activations = 2.0 * shape.hidden_size * tokens / run.link_per_s
    exchanges = 2 * shape.n_layers if run.parallel > 1 else 0
    borders = len(run.uses) - 1
    if min(run.held) < 1.0:  # experts in RAM: to the processor and back in every such layer
        away = [(1.0 - held) * (use.last_layer - use.first_layer) for use, held in zip(run.uses, run.held, strict=True)]
        borders += round(2 * sum(away))
    return [Term("link", exchanges * (EXCHANGE_S + activations) + borders * (HOP_S + activations), ())]
