"""How fast a placed model runs: a roofline per device, with fitted efficiencies, as an interval that holds.

Decode, per token:  t = sum over devices of  weights / bandwidth x read + cache / bandwidth x read x cache
                        + 2 state / bandwidth x read + operations x operation    + token
Prefill of n tokens: t = 2 P n / peak x compute + attention FLOP / peak x attention
                        + ceil(n / ubatch) x (weights touched / bandwidth x read + operations x operation) + start
The factors (read, cache, operation, ...) are products of fitted parameters by backend, generation and engine: see
``speed_model`` for the form, speed_model.json for the values. Devices of a layer split work in turn.
"""

from __future__ import annotations

from math import ceil, exp

from msgspec import Struct

from fitcheck.estimate.speed_model import SpeedModel, Spread, Term, term_seconds, total_seconds
from fitcheck.estimate.speed_work import (
    CACHE_BYTES,
    Work,
    decode_work,
    expert_work,
    prefill_work,
)
from fitcheck.types import (
    Accelerator,
    DeviceUse,
    Interval,
    Machine,
    Measurement,
    Model,
    Origin,
    Placement,
    Request,
    Speed,
    Weights,
)

UNKNOWN_BANDWIDTH_PER_S = 40e9  # dual-channel DDR4-2666: the common PC whose memory says nothing
DISK_BYTES_PER_S = 2.5e9  # a common NVMe drive; load time says that it is assumed


class Device(Struct, frozen=True):
    """A device as the speed model sees it. ``peak_per_s``: dense FP16 FLOP/s."""

    backend: str
    generation: str
    engine: str
    name: str
    bandwidth_per_s: float
    peak_per_s: float
    form: str = ""
    assumed: tuple[str, ...] = ()

    def keys(self, term: str) -> tuple[str, ...]:
        """The parameters that multiply a term on this device, from the general to the particular."""
        backend = self.backend
        return (
            f"{term}.{backend}",
            f"{term}.{backend}.{self.generation}",
            f"{term}.engine.{self.engine}.{backend}",
        )


def predict(
    model: Model,
    weights: Weights,
    placement: Placement,
    machine: Machine,
    request: Request,
    runtime: str,
    speed_model: SpeedModel,
    measurements: tuple[Measurement, ...] | None = None,
) -> Speed:
    """The speeds of a placed model. ``runtime`` is a row of runtimes.json. Pure. The model must have a shape."""
    parameters = speed_model.parameters
    uses = placement.devices
    devices = [device_of(use, machine, runtime, speed_model) for use in uses]
    full_depth = float(request.context_tokens or model.context_tokens or request.prompt_tokens)
    depth = min(full_depth, request.prompt_tokens + request.answer_tokens / 2)

    terms = decode_terms(model, weights, uses, devices, depth, request, speed_model)
    full_terms = decode_terms(model, weights, uses, devices, full_depth, request, speed_model)
    seconds, full_seconds = total_seconds(terms, parameters), total_seconds(full_terms, parameters)
    spread = spread_of("decode", devices, speed_model)

    prefill_s = total_seconds(
        prefill_terms(model, weights, uses, devices, request.prompt_tokens, request, speed_model), parameters
    )
    prefill_spread = spread_of("prefill", devices, speed_model)
    first = Interval(
        prefill_s * exp(prefill_spread.low) + seconds * exp(spread.low),
        prefill_s + seconds,
        prefill_s * exp(prefill_spread.high) + seconds * exp(spread.high),
    )
    work = sum((_decode_work(model, weights, use, uses, depth, request, speed_model) for use in uses), Work())
    return Speed(
        decode_per_s=_rate(1.0, seconds, spread),
        decode_full_context_per_s=_rate(1.0, full_seconds, spread),
        prefill_per_s=_rate(request.prompt_tokens, prefill_s, prefill_spread),
        first_token_s=first,
        throughput_per_s=_throughput(model, weights, uses, devices, depth, request, speed_model, spread),
        bound_by=_bound_by(terms, parameters),
        bytes_per_token=int(work.weight_bytes + work.cache_bytes + work.state_bytes),
        bandwidth_per_s=devices[0].bandwidth_per_s,
        origin=Origin.MODELLED,
        rough_prefill=prefill_spread.high - prefill_spread.low > 1.2,
        load_s=_load(weights),
        assumed=tuple(dict.fromkeys(what for device in devices for what in device.assumed)),
        nearest=(),
    )


def decode(
    model: Model,
    weights: Weights,
    placement: Placement,
    machine: Machine,
    request: Request,
    runtime: str,
    speed_model: SpeedModel,
) -> Interval:
    """Decode speed alone, tokens/s at the start: the arithmetic of ``predict`` without the rest."""
    uses = placement.devices
    devices = [device_of(use, machine, runtime, speed_model) for use in uses]
    full_depth = float(request.context_tokens or model.context_tokens or request.prompt_tokens)
    depth = min(full_depth, request.prompt_tokens + request.answer_tokens / 2)
    terms = decode_terms(model, weights, uses, devices, depth, request, speed_model)
    return _rate(1.0, total_seconds(terms, speed_model.parameters), spread_of("decode", devices, speed_model))


def device_of(use: DeviceUse, machine: Machine, runtime: str, speed_model: SpeedModel) -> Device:
    """The device that a placement names ("cpu", "gpu0", ...), with the facts that its speed depends on."""
    if use.device == "cpu":
        return _cpu(machine, runtime)
    return _gpu(machine.accelerators[int(use.device[3:])], runtime, speed_model)


def _cpu(machine: Machine, runtime: str) -> Device:
    bandwidth = machine.ram.bandwidth
    assumed = () if bandwidth and bandwidth.origin is not Origin.ASSUMED else ("memory bandwidth",)
    return Device(
        backend="cpu",
        generation="measured" if bandwidth and bandwidth.origin is Origin.MEASURED else "peak",
        engine=runtime,
        name=machine.cpu.name,
        bandwidth_per_s=bandwidth.per_s if bandwidth else UNKNOWN_BANDWIDTH_PER_S,
        peak_per_s=machine.cpu.threads * 60e9,
        assumed=assumed,
    )


def _gpu(card: Accelerator, runtime: str, speed_model: SpeedModel) -> Device:
    own_backend = card.backends[0].value if card.backends else "vulkan"
    bandwidth = card.pool.bandwidth
    peak = card.compute.get("fp16") or card.compute.get("fp32")
    assumed = []
    if bandwidth is None or bandwidth.origin is Origin.ASSUMED:
        assumed.append("memory bandwidth")
    if peak is None:
        assumed.append("compute peak")
    per_s = bandwidth.per_s if bandwidth else UNKNOWN_BANDWIDTH_PER_S
    return Device(
        backend=speed_model.runtimes.get(runtime, own_backend),
        generation=card.architecture or "",
        engine=runtime,
        name=card.catalog_name or card.name,
        bandwidth_per_s=per_s,
        peak_per_s=peak or per_s * 100,
        form=card.form or "",
        assumed=tuple(assumed),
    )


def decode_terms(
    model: Model,
    weights: Weights,
    uses: tuple[DeviceUse, ...],
    devices: list[Device],
    depth: float,
    request: Request,
    speed_model: SpeedModel,
) -> list[Term]:
    """The terms of one token's time on all devices, at ``depth`` tokens in the cache."""
    terms = []
    for use, device in zip(uses, devices, strict=True):
        work = _decode_work(model, weights, use, uses, depth, request, speed_model)
        read, cache = device.keys("decode.read"), device.keys("decode.cache")
        per_byte = 1.0 / device.bandwidth_per_s
        terms.append(Term("memory", work.weight_bytes * per_byte, read))
        terms.append(Term("memory", work.cache_bytes * per_byte, read + cache))
        terms.append(Term("memory", work.state_bytes * per_byte, read))
        terms.append(Term("overhead", work.operations * 1e-6, device.keys("decode.operation_us")))
    terms.append(Term("overhead", 1e-3, devices[0].keys("decode.token_ms")))
    return terms


def _decode_work(
    model: Model,
    weights: Weights,
    use: DeviceUse,
    uses: tuple[DeviceUse, ...],
    depth: float,
    request: Request,
    speed_model: SpeedModel,
) -> Work:
    operations = speed_model.operations
    cache_bytes = CACHE_BYTES.get(request.kv_type_k, 2.0), CACHE_BYTES.get(request.kv_type_v, 2.0)
    share = _experts_here(model, use)
    work = decode_work(
        model, weights, operations, depth, cache_bytes, use.first_layer, use.last_layer, share, use.output
    )
    if use.device == "cpu":
        for other in uses:
            away = 1.0 - _experts_here(model, other)
            if other is not use and away > 0.0:
                work += expert_work(model, weights, operations, other.first_layer, other.last_layer, away)
    return work


def _experts_here(model: Model, use: DeviceUse) -> float:
    """Share of the routed experts of a device's own layers that it holds; the rest is read by the CPU."""
    shape = model.shape
    assert shape is not None
    with_experts = sum(
        hasattr(shape.kinds[ord(letter) - 97].ffn, "n_experts")
        for letter in shape.layers[use.first_layer : use.last_layer]
    )
    if not with_experts or use.device == "cpu":
        return 1.0
    return min(1.0, use.expert_layers / with_experts)


def prefill_terms(
    model: Model,
    weights: Weights,
    uses: tuple[DeviceUse, ...],
    devices: list[Device],
    prompt_tokens: int,
    request: Request,
    speed_model: SpeedModel,
) -> list[Term]:
    """The terms of a prompt's time on all devices, from an empty cache."""
    shape = model.shape
    assert shape is not None
    terms = []
    batches = ceil(prompt_tokens / request.ubatch_tokens)
    for use, device in zip(uses, devices, strict=True):
        work = prefill_work(model, weights, prompt_tokens, request.ubatch_tokens, use.first_layer, use.last_layer)
        token = _decode_work(model, weights, use, uses, 0.0, request, speed_model)
        compute = device.keys("prefill.compute")
        peak = device.peak_per_s
        terms.append(Term("compute", work.dense_flop / peak, compute))
        terms.append(Term("compute", work.expert_flop / peak, (*compute, *device.keys("prefill.expert"))))
        terms.append(Term("compute", work.attention_flop / peak, (*compute, *device.keys("prefill.attention"))))
        read = batches * work.weight_bytes / device.bandwidth_per_s
        terms.append(Term("memory", read, device.keys("prefill.read")))
        operations = batches * token.operations * 1e-6
        terms.append(Term("overhead", operations, device.keys("prefill.operation_us")))
    terms.append(Term("overhead", 1e-3, devices[0].keys("prefill.start_ms")))
    return terms


def spread_of(test: str, devices: list[Device], speed_model: SpeedModel) -> Spread:
    """The widest spread among the devices; an unknown backend takes the widest of all. Assumed inputs widen it."""
    spreads = speed_model.spreads
    known = [spreads.get(f"{test}.{device.backend}", spreads[f"{test}.other"]) for device in devices]
    widest = max(known, key=lambda spread: spread.high - spread.low)
    if any(device.assumed for device in devices):
        return Spread(widest.low - 0.25, widest.high + 0.25, widest.sources)
    return widest


def _rate(tokens: float, seconds: float, spread: Spread) -> Interval:
    return Interval(tokens / seconds * exp(-spread.high), tokens / seconds, tokens / seconds * exp(-spread.low))


def _bound_by(terms: list[Term], parameters: dict[str, float]) -> str:
    shares: dict[str, float] = {}
    for term in terms:
        shares[term.what] = shares.get(term.what, 0.0) + term_seconds(term, parameters)
    return max(shares, key=lambda what: shares[what])


def _throughput(
    model: Model,
    weights: Weights,
    uses: tuple[DeviceUse, ...],
    devices: list[Device],
    depth: float,
    request: Request,
    speed_model: SpeedModel,
    spread: Spread,
) -> Interval | None:
    """Tokens/s over all parallel sequences: weights are read once per step, caches and arithmetic per sequence."""
    n = request.parallel
    if n == 1:
        return None
    one = decode_terms(model, weights, uses, devices, depth, request, speed_model)
    many = decode_terms(model, weights, uses, devices, depth * n, request, speed_model)
    compute = prefill_terms(model, weights, uses, devices, n, request, speed_model)
    parameters = speed_model.parameters
    arithmetic = sum(term_seconds(term, parameters) for term in compute if term.what == "compute")
    step_s = max(total_seconds(many, parameters), total_seconds(one, parameters) + arithmetic)
    return _rate(n, step_s, spread)


def _load(weights: Weights) -> Interval:
    seconds = weights.file_bytes / DISK_BYTES_PER_S
    return Interval(seconds / 2.5, seconds, seconds * 5)
