"""How fast a placed model runs: a roofline per device with fitted efficiencies, as an interval that holds.

Decode, one token:
    t = sum over devices of (weights + cache x c + 2 state) / bandwidth x read + operations x operation_us
        + [CPU] (parameters x compute_ns + weights x core_read_ns) / cores,   plus token_ms, plus hand-overs
Prefill, n tokens:
    t = sum over devices of (dense FLOP + expert FLOP x expert + attention FLOP x attention) / peak x compute
        + ceil(n / ubatch) x (weights touched / bandwidth x read + operations x operation_us),   plus hand-overs
    [CPU] FLOP of weights in blocks of 32 x block, by the instructions that the processor has
Several sequences: the weights are read once per step, caches and arithmetic once per sequence.

The factors are products of parameters by backend, engine, card and model, fitted to published
measurements (``fitcheck.accuracy.fit_speed``): an estimate leans on what was measured on this hardware and on this
model, shrunk by how few those measurements are. ``speed_model`` has the form, speed_model.json values and meanings.
"""

from __future__ import annotations

from math import exp, log

from fitcheck.estimate.speed_calibrated import calibrated_seconds, calibrated_spread, is_calibrated
from fitcheck.estimate.speed_model import Seconds, SpeedModel, Spread, Term, seconds_of, term_seconds
from fitcheck.estimate.speed_terms import Running, decode_terms, device_work, prefill_terms, token_seconds
from fitcheck.types import Interval, Machine, Model, Origin, Request, Speed, Weights

DISK_PER_S = Interval(0.5e9, 2.5e9, 6.0e9)  # SATA, a common NVMe drive, a fast one: the drive is not known
ROUGH_WIDTH = log(3.3)  # a prefill interval wider than this is an order of magnitude
FEW_SOURCES = 5  # a prefill spread seen in fewer sources is one too


def predict(run: Running, machine: Machine) -> Speed:
    """The speeds of a placed model on ``machine``."""
    request, speed_model = run.request, run.speed_model
    depth, full_depth = depths(run.costs.model, request)
    step = token_seconds(run, depth)
    step_s = calibrated_seconds(step, run, machine, "decode")
    full_s = calibrated_seconds(token_seconds(run, full_depth), run, machine, "decode")
    spread = spread_of("decode", run, machine, step)
    prompt = request.prompt_tokens
    prefill_s = first = None
    prefill_spread = spread_of("prefill", run, machine)
    if prompt:
        terms = seconds_of(prefill_terms(run, prompt), speed_model.parameters)
        prefill_s = calibrated_seconds(terms, run, machine, "prefill")
        first = _sum(_times(prefill_s, prefill_spread), _times(step_s, spread))
    read = [device_work(run, number, depth) for number in range(len(run.uses))]
    return Speed(
        decode_per_s=_rate(1, step_s, spread),
        decode_full_context_per_s=_rate(1, full_s, spread),
        prefill_per_s=_rate(prompt, prefill_s, prefill_spread) if prefill_s else None,
        first_token_s=first,
        throughput_per_s=_throughput(run, machine, depth, spread) if request.parallel > 1 else None,
        bound_by=_bound_by(decode_terms(run, depth), speed_model),
        bytes_per_token=int(sum(work.weight_bytes + work.cache_bytes + work.state_bytes for work in read)),
        bandwidth_per_s=run.devices[0].bandwidth_per_s,
        origin=_origin(run, machine),
        rough_prefill=_is_rough(prefill_spread, run, machine),
        load_s=_load(run.costs.weights),
        assumed=tuple(dict.fromkeys(what for device in run.devices for what in device.assumed)),
    )


def decode(run: Running, machine: Machine) -> Interval:
    """Decode speed alone, tokens/s at the start: the arithmetic of ``predict`` without the rest."""
    step = token_seconds(run, depths(run.costs.model, run.request)[0])
    return _rate(1, calibrated_seconds(step, run, machine, "decode"), spread_of("decode", run, machine, step))


def depths(model: Model, request: Request) -> tuple[float, float]:
    """Tokens in the cache when half of the answer is there, and when the context is full."""
    full = float(request.context_tokens or model.context_tokens or request.prompt_tokens)
    return min(full, request.prompt_tokens + request.answer_tokens / 2), full


def spread_of(test: str, run: Running, machine: Machine, step: Seconds | None = None) -> Spread:
    """The interval of the least certain device: by backend, wider for hardware that nobody measured and for assumed
    inputs; narrow where this machine was calibrated with models like this one (``step``, a token's time, tells)."""
    model = run.speed_model
    found = []
    for device in run.devices:
        spread = model.spreads.get(f"{test}/{device.backend}") or model.spreads[f"{test}/other"]
        wider = (0.0 if device.seen else model.unseen) + (model.assumed if device.assumed else 0.0)
        wider += 0.0 if device.engine_seen else model.other_engine
        found.append(spread.widened(wider) if wider and not device.is_cpu else spread)
    widest = max(found, key=_width)
    if not is_calibrated(run, machine, test):
        return widest
    return min(widest, calibrated_spread(test, run, machine, step), key=_width)


def _is_rough(spread: Spread, run: Running, machine: Machine) -> bool:
    """Whether a prefill speed is an order of magnitude only."""
    seen = spread.sources >= FEW_SOURCES or is_calibrated(run, machine, "prefill")
    return _width(spread) > ROUGH_WIDTH or not seen


def _width(spread: Spread) -> float:
    return spread.high - spread.low


def _origin(run: Running, machine: Machine) -> Origin:
    if is_calibrated(run, machine, "decode"):
        return Origin.MEASURED
    return Origin.PUBLISHED if all(device.seen for device in run.devices) else Origin.MODELLED


def _times(seconds: float, spread: Spread) -> Interval:
    return Interval(seconds * exp(spread.low), seconds, seconds * exp(spread.high))


def _rate(tokens: float, seconds: float, spread: Spread) -> Interval:
    times = _times(seconds, spread)
    return Interval(tokens / times.high, tokens / seconds, tokens / times.low)


def _sum(first: Interval, second: Interval) -> Interval:
    return Interval(first.low + second.low, first.likely + second.likely, first.high + second.high)


def _bound_by(terms: list[Term], speed_model: SpeedModel) -> str:
    shares: dict[str, float] = {}
    for term in terms:
        shares[term.what] = shares.get(term.what, 0.0) + term_seconds(term, speed_model.parameters)
    return max(shares, key=lambda what: shares[what])


def _throughput(run: Running, machine: Machine, depth: float, spread: Spread) -> Interval:
    """Tokens/s over all parallel sequences: one step reads the weights once (of routed experts those that any sequence
    wants), each sequence's cache, and is never faster than the arithmetic of as many prompt tokens."""
    sequences = run.request.parallel
    arithmetic = [term for term in prefill_terms(run, sequences) if term.what in ("compute", "memory")]
    bounds = token_seconds(run, depth * sequences), seconds_of(arithmetic, run.speed_model.parameters)
    step_s = max(calibrated_seconds(bound, run, machine, "decode") for bound in bounds)
    return _rate(sequences, step_s, spread)


def _load(weights: Weights) -> Interval:
    size = weights.file_bytes
    return Interval(size / DISK_PER_S.high, size / DISK_PER_S.likely, size / DISK_PER_S.low)
