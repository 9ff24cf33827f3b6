"""One model on one machine: where it goes, what it needs, how fast it runs.

``Estimator.quick`` gives the numbers that ranking needs; ``Estimator.estimate`` the whole answer with every term and
its formula. Both come from ``Estimator._place``: there is one arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fitcheck.errors import FitcheckError
from fitcheck.estimate import placement as placing
from fitcheck.estimate import runtimes as engines
from fitcheck.estimate.cache import CacheSettings, padded, widest_value
from fitcheck.estimate.memory import Load, load_of
from fitcheck.estimate.placement import Device, Need, Split
from fitcheck.estimate.quantize import weights as quantized_weights
from fitcheck.estimate.runtimes import Runtime
from fitcheck.types import (
    Backend,
    DeviceUse,
    Fit,
    FlashAttention,
    Interval,
    Machine,
    Model,
    Placement,
    PlacementKind,
    Request,
    Shape,
    Speed,
    Term,
    Verdict,
    Weights,
)

if TYPE_CHECKING:
    from fitcheck.facts import Facts

Q8_CACHE = "q8_0"
QUICK_CONTEXT_STEPS = 12


class Quick(Struct, frozen=True):
    """The numbers of a fit, without words. ``decode_per_s`` is None where nothing fits."""

    model: str
    quant: str
    runtime: str
    verdict: Verdict
    kind: PlacementKind
    need_bytes: int
    have_bytes: int
    context_tokens: int
    share_on_gpu: float
    decode_per_s: Interval | None
    disk_bytes: int


class _Device(Struct):
    """Bytes of one device of a candidate, by part."""

    name: str
    have: int
    weights: int
    kv: int
    state: int
    compute: int
    output: int
    overhead: int

    @property
    def need(self) -> int:
        return self.weights + self.kv + self.state + self.compute + self.output + self.overhead


class _Candidate(Struct):
    """A placement with its needs and what that means."""

    split: Split
    need: Need
    devices: list[_Device]
    verdict: Verdict


class Estimator:
    """Answers questions about fits in one run; keeps what questions have in common."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._weights: dict[tuple[str, str], Weights] = {}
        self._loads: dict[tuple[object, ...], Load] = {}
        self._devices: dict[tuple[int, str], tuple[Device, ...]] = {}

    def quants(self, model: Model, request: Request) -> tuple[str, ...]:
        """Quantisations to consider, best quality first: the one asked for, the file's own, or the runtime's list."""
        if request.quant:
            return (request.quant,)
        if model.file_quant:
            return (model.file_quant,)
        name = request.runtime if request.runtime not in (None, "auto") else None
        row = self._facts.runtimes.row(name or ("llama.cpp" if model.architecture else "vllm"))
        if model.native_dtype == "MXFP4" and "Q8_0" in row.quants:
            return ("MXFP4_MOE",)
        return row.quants

    def estimate(self, model: Model, machine: Machine, request: Request) -> Fit:
        """The whole answer for one model; with ``request.quant`` None for the best quality that fits.

        Raises FitcheckError for unknown names of quantisations or runtimes and for a model without a shape.
        """
        runtime_name = engines.choose(model, machine, request.runtime)
        quants = self.quants(model, request)
        best = quants[-1]
        for wanted in (Verdict.FITS, Verdict.TIGHT):
            found = self._first(model, quants, machine, request, runtime_name, wanted)
            if found is not None:
                best = found
                break
        return self._fit(model, best, machine, request, runtime_name)

    def quick(self, model: Model, quant: str, machine: Machine, request: Request) -> Quick:
        """The numbers of ``estimate`` for one quantisation, fast."""
        runtime_name = engines.choose(model, machine, request.runtime)
        candidate = self._place(model, quant, machine, request, runtime_name)
        weights = self.weights(model, quant)
        return Quick(
            model=model.id,
            quant=quant,
            runtime=runtime_name,
            verdict=candidate.verdict,
            kind=candidate.split.kind,
            need_bytes=sum(device.need for device in candidate.devices),
            have_bytes=sum(device.have for device in candidate.devices),
            context_tokens=context_of(model, request),
            share_on_gpu=_share_on_gpu(candidate),
            decode_per_s=self._decode(model, weights, candidate, machine, request, runtime_name),
            disk_bytes=weights.file_bytes,
        )

    def weights(self, model: Model, quant: str) -> Weights:
        """Bytes of the model in a quantisation, kept for the run."""
        key = (model.id, quant)
        found = self._weights.get(key)
        if found is None:
            found = self._weights[key] = quantized_weights(model, quant, self._facts.quantizations)
        return found

    def _first(
        self, model: Model, quants: tuple[str, ...], machine: Machine, request: Request, runtime: str, wanted: Verdict
    ) -> str | None:
        ranks = {PlacementKind.GPU: 0, PlacementKind.SPLIT: 1, PlacementKind.CPU: 2}
        best: tuple[int, str] | None = None
        for quant in quants:
            candidate = self._place(model, quant, machine, request, runtime)
            if candidate.verdict is wanted:
                rank = ranks[candidate.split.kind]
                if best is None or rank < best[0]:
                    best = (rank, quant)
        return best[1] if best else None

    def _place(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> _Candidate:
        """The best placement: GPU, else split, else CPU; the last one tried where none fits."""
        row = self._facts.runtimes.row(runtime)
        shape = _shape(model)
        devices = self._gpus(machine, runtime, row)
        margin = row.margin_bytes if request.margin_bytes is None else request.margin_bytes
        n = shape.n_layers
        tried: list[_Candidate] = []
        load = self._load(model, quant, request, devices)
        if devices and PlacementKind.GPU in request.allow:
            tried.append(self._candidate(model, load, placing.gpu_split(n, devices), devices, machine, request, margin))
            if tried[-1].verdict is not Verdict.NO:
                return tried[-1]
        unified = bool(devices) and devices[0].card.unified
        if devices and not unified and row.split and PlacementKind.SPLIT in request.allow:
            split = self._best_split(model, load, devices, machine, request, margin)
            if split is not None:
                tried.append(split)
                if split.verdict is not Verdict.NO:
                    return split
        if PlacementKind.CPU in request.allow and Backend.CPU in row.backends:
            tried.append(self._candidate(model, load, placing.cpu_split(n), (), machine, request, margin))
            if tried[-1].verdict is not Verdict.NO:
                return tried[-1]
        if not tried:
            tried.append(self._candidate(model, load, placing.cpu_split(n), (), machine, request, margin))
        return min(tried, key=lambda c: max(device.need - device.have for device in c.devices))

    def _best_split(
        self,
        model: Model,
        load: Load,
        devices: tuple[Device, ...],
        machine: Machine,
        request: Request,
        margin: int,
    ) -> _Candidate | None:
        """The split that leaves least on the host: experts first, whole layers after that."""
        n = len(load.layers)
        shares = tuple(max(device.have_bytes - device.overhead_bytes, 0) for device in devices)

        def on_gpu_fits(split: Split) -> bool:
            found = self._candidate(model, load, split, devices, machine, request, margin)
            return all(device.need + margin <= device.have for device in found.devices[1:])

        if any(layer.experts for layer in load.layers):
            full = placing.split_layers(n, n + 1, shares)
            low, high = 1, n
            if on_gpu_fits(Split(PlacementKind.SPLIT, n + 1, n, full)):
                while low < high:
                    middle = (low + high) // 2
                    if on_gpu_fits(Split(PlacementKind.SPLIT, n + 1, middle, full)):
                        high = middle
                    else:
                        low = middle + 1
                best = Split(PlacementKind.SPLIT, n + 1, low, full)
                return self._candidate(model, load, best, devices, machine, request, margin)
        low, high = 0, n
        while low < high:
            middle = (low + high + 1) // 2
            if on_gpu_fits(Split(PlacementKind.SPLIT, middle, 0, placing.split_layers(n, middle, shares))):
                low = middle
            else:
                high = middle - 1
        if not low:
            return None
        best = Split(PlacementKind.SPLIT, low, 0, placing.split_layers(n, low, shares))
        return self._candidate(model, load, best, devices, machine, request, margin)

    def _candidate(
        self,
        model: Model,
        load: Load,
        split: Split,
        devices: tuple[Device, ...],
        machine: Machine,
        request: Request,
        margin: int,
    ) -> _Candidate:
        need = placing.need_of(load, split)
        shape = _shape(model)
        used = max(split.layer_devices, default=0)
        compute = self._compute(model, shape, split, request)
        output = 4 * shape.vocab_size * request.parallel
        overheads = self._facts.runtimes.overheads
        host = _Device(
            "cpu",
            machine.ram.usable_bytes,
            need.weights[0],
            need.kv[0],
            need.state[0],
            compute[0],
            output,
            overheads["cpu"].bytes,
        )
        parts = [host]
        for index, device in enumerate(devices[:used], start=1):
            parts.append(
                _Device(
                    device.name,
                    device.have_bytes,
                    need.weights[index],
                    need.kv[index],
                    need.state[index],
                    compute[index],
                    0,
                    device.overhead_bytes,
                )
            )
        if used and devices[0].card.unified:
            parts = [_merged(parts)]
        return _Candidate(split, need, parts, _verdict(parts, margin))

    def _compute(self, model: Model, shape: Shape, split: Split, request: Request) -> tuple[int, ...]:
        from fitcheck.estimate.buffers import BufferQuestion, compute_buffers

        question = BufferQuestion(
            architecture=model.architecture or "",
            shape=shape,
            context_tokens=padded(context_of(model, request) * request.parallel),
            ubatch_tokens=request.ubatch_tokens,
            batch_tokens=request.batch_tokens,
            sequences=request.parallel,
            outputs=1 if request.logits_tokens is None else request.logits_tokens,
            kv_type_k=request.kv_type_k,
            kv_type_v=request.kv_type_v,
            flash_attention=request.flash_attention is not FlashAttention.OFF,
            swa_full=request.swa_full,
            kv_unified=request.kv_unified,
            layer_devices=split.layer_devices,
            cpu_expert_layers=split.cpu_expert_layers,
            model=model.id,
        )
        return compute_buffers(question).bytes

    def _load(self, model: Model, quant: str, request: Request, devices: tuple[Device, ...]) -> Load:
        settings = cache_settings(model, request, bool(devices))
        key = (model.id, quant, settings)
        found = self._loads.get(key)
        if found is None:
            table = self._facts.quantizations
            found = self._loads[key] = load_of(_shape(model), self.weights(model, quant), settings, table)
        return found

    def _gpus(self, machine: Machine, name: str, row: Runtime) -> tuple[Device, ...]:
        key = (id(machine), name)
        found = self._devices.get(key)
        if found is None:
            overheads = {key: row.bytes for key, row in self._facts.runtimes.overheads.items()}
            found = self._devices[key] = placing.gpu_devices(machine, row.backends, overheads)
        return found

    def _fit(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Fit:
        candidate = self._place(model, quant, machine, request, runtime)
        weights = self.weights(model, quant)
        placement = self._placement(model, candidate, machine, request)
        speed = self._speed(model, weights, placement, machine, request, runtime)
        need = sum(device.need for device in candidate.devices)
        have = sum(device.have for device in candidate.devices)
        context = context_of(model, request)
        reasons = ()
        if candidate.verdict is Verdict.NO:
            short = max(candidate.devices, key=lambda device: device.need - device.have)
            reasons = (f"memory on {short.name}: needs {short.need} bytes, has {short.have}",)
        return Fit(
            model=model.id,
            quant=quant,
            runtime=runtime,
            verdict=candidate.verdict,
            placement=placement,
            terms=tuple(_terms(candidate, quant)),
            need_bytes=need,
            have_bytes=have,
            context_tokens=context,
            max_context_tokens=context if candidate.verdict is not Verdict.NO else 0,
            max_context_q8_tokens=context if candidate.verdict is not Verdict.NO else 0,
            speed=speed,
            quality=None,
            reasons=reasons,
            command=self._command(model, quant, runtime, placement, request),
            disk_bytes=weights.file_bytes,
            exact=weights.exact,
        )

    def _placement(self, model: Model, candidate: _Candidate, machine: Machine, request: Request) -> Placement:
        split = candidate.split
        names = {gpu.index: gpu.name for gpu in machine.accelerators}
        uses = []
        order = [device.name for device in candidate.devices]
        merged = order == ["gpu0"] and split.kind is PlacementKind.GPU
        for position, device in enumerate(candidate.devices):
            number = position + 1 if merged else position
            mine = [i for i, home in enumerate(split.layer_devices[:-1]) if home == number]
            experts = candidate.need.experts[number] if number < len(candidate.need.experts) else 0
            name = machine.cpu.name if device.name == "cpu" else names.get(int(device.name[3:]), device.name)
            uses.append(
                DeviceUse(
                    device=device.name,
                    name=name,
                    need_bytes=device.need,
                    have_bytes=device.have,
                    first_layer=mine[0] if mine else 0,
                    last_layer=mine[-1] + 1 if mine else 0,
                    expert_layers=experts,
                    output=split.layer_devices[-1] == number,
                )
            )
        flags = _flags(model, split, request)
        return Placement(split.kind, tuple(uses), flags, _share_on_gpu(candidate))

    def _speed(
        self, model: Model, weights: Weights, placement: Placement, machine: Machine, request: Request, runtime: str
    ) -> Speed | None:
        from fitcheck.estimate.speed import predict

        return predict(model, weights, placement, machine, request, runtime, self._facts.speed_model)

    def _decode(
        self, model: Model, weights: Weights, candidate: _Candidate, machine: Machine, request: Request, runtime: str
    ) -> Interval | None:
        from fitcheck.estimate.speed import decode

        placement = self._placement(model, candidate, machine, request)
        return decode(model, weights, placement, machine, request, runtime, self._facts.speed_model)

    def _command(self, model: Model, quant: str, runtime: str, placement: Placement, request: Request) -> str:
        row = self._facts.runtimes.row(runtime)
        values = {
            "file": model.path or f"{model.name}-{quant}.gguf",
            "tag": model.ollama_tags[0] if model.ollama_tags else model.id,
            "repo": model.hub_repo or model.id,
            "flags": " ".join(placement.flags),
            "context": str(context_of(model, request)),
        }
        return row.command.format(**values).strip()


def context_of(model: Model, request: Request) -> int:
    """Tokens per sequence that are asked for: the request's, at most the model's own maximum where that is known."""
    asked = request.context_tokens or model.context_tokens or 8192
    longest = model.context_extended_tokens or model.context_tokens
    return min(asked, longest) if longest else asked


def cache_settings(model: Model, request: Request, on_cuda: bool) -> CacheSettings:
    """What the engine knows about the context when it allocates caches."""
    shape = _shape(model)
    flash = request.flash_attention is not FlashAttention.OFF
    return CacheSettings(
        context_tokens=context_of(model, request) * request.parallel,
        sequences=request.parallel,
        unified=request.kv_unified,
        swa_full=request.swa_full,
        ubatch_tokens=request.ubatch_tokens,
        type_k=request.kv_type_k,
        type_v=request.kv_type_v,
        pad_rows=on_cuda,
        padded_v=None if flash else widest_value(shape),
    )


def _shape(model: Model) -> Shape:
    if model.shape is None:
        raise FitcheckError("unknown_shape", f"the shape of {model.id} is not known", "name a model file or hf: repo")
    return model.shape


def _merged(parts: list[_Device]) -> _Device:
    """Host and GPU parts in one unified pool, under the GPU's name and limit."""
    host, gpu = parts[0], parts[1]
    return _Device(
        gpu.name,
        gpu.have,
        host.weights + gpu.weights,
        host.kv + gpu.kv,
        host.state + gpu.state,
        host.compute + gpu.compute,
        host.output + gpu.output,
        host.overhead + gpu.overhead,
    )


def _verdict(devices: list[_Device], margin: int) -> Verdict:
    """fits: every device keeps the margin free; tight: every need is met; no: at least one is not."""
    if any(device.need > device.have for device in devices):
        return Verdict.NO
    return Verdict.FITS if all(device.need + margin <= device.have for device in devices) else Verdict.TIGHT


def _share_on_gpu(candidate: _Candidate) -> float:
    total = sum(candidate.need.weights)
    host = 0 if candidate.split.kind is PlacementKind.GPU else candidate.need.weights[0]
    return 1 - host / total if total else 0.0


def _flags(model: Model, split: Split, request: Request) -> tuple[str, ...]:
    flags = ["-c", str(context_of(model, request) * request.parallel)]
    if split.kind is PlacementKind.CPU:
        flags += ["-ngl", "0"]
    else:
        flags += ["-ngl", str(split.gpu_layers)]
    if split.cpu_expert_layers:
        flags += ["--n-cpu-moe", str(split.cpu_expert_layers)]
    if request.kv_type_k != "f16":
        flags += ["-ctk", request.kv_type_k]
    if request.kv_type_v != "f16":
        flags += ["-ctv", request.kv_type_v]
    if request.flash_attention is not FlashAttention.AUTO:
        flags += ["-fa", request.flash_attention.value]
    if request.parallel > 1:
        flags += ["-np", str(request.parallel)]
    return tuple(flags)


def _terms(candidate: _Candidate, quant: str) -> list[Term]:
    terms = []
    for device in candidate.devices:
        for name, value in (
            ("weights", device.weights),
            ("kv_cache", device.kv),
            ("recurrent_state", device.state),
            ("compute_buffer", device.compute),
            ("output_buffer", device.output),
            ("runtime_overhead", device.overhead),
        ):
            if value:
                terms.append(Term(name, device.name, value))
    return terms
