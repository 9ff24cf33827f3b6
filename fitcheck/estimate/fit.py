"""One model on one machine: where it goes, what it needs, how fast it runs.

``Estimator.quick`` gives the numbers that ranking needs; ``Estimator.estimate`` the whole answer with every term and
its formula. Both come from ``Estimator.place``: there is one arithmetic. Where that has only a bound for the compute
buffers (over several devices), ``estimate`` has the engine's graph planned for the placement that was chosen.

The verdict: ``fits`` where every device keeps the margin free (1 GiB unless the request says otherwise), ``tight``
where every need is met but not every margin, ``no`` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.estimate import runtimes as engines
from fitcheck.estimate.buffers import BufferQuestion, compute_buffers
from fitcheck.estimate.cache import CELL_STEP, CacheSettings, padded, widest_value
from fitcheck.estimate.images import NO_ENCODERS, Placed, encoders_of, in_16_bits
from fitcheck.estimate.longest import most_context
from fitcheck.estimate.memory import Caches, Load, caches_of, load_of
from fitcheck.estimate.placement import (
    Candidate,
    Compute,
    Gpu,
    Ground,
    Split,
    best_candidate,
    gpus_of,
    parallel_candidate,
    planned,
    split_by,
)
from fitcheck.estimate.quantize import count_rope_factors, store, stored_shape, type_of, weights_of
from fitcheck.estimate.reach import least_bytes_per_weight
from fitcheck.estimate.runtimes import Runtime, Runtimes
from fitcheck.estimate.served import as_seen, detours
from fitcheck.estimate.stored import Stored
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
    Task,
    Verdict,
    Weights,
)

if TYPE_CHECKING:
    from fitcheck.estimate.placement import Part
    from fitcheck.estimate.speed_device import Hardware
    from fitcheck.estimate.speed_terms import Running
    from fitcheck.estimate.speed_work import Costs
    from fitcheck.estimate.tables import Tables

Q8_CACHE = "q8_0"
UNKNOWN_CONTEXT = 8192


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


class Estimator:
    """Answers questions about fits in one run; keeps what questions have in common."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._least: dict[str, float] = {}
        self._stored: dict[tuple[str, str], Stored] = {}
        self._weights: dict[tuple[str, str], Weights] = {}
        self._shapes: dict[str, Shape] = {}
        self._flash: dict[tuple[str, ...], bool] = {}
        self._images: dict[tuple[object, ...], Placed] = {}
        self._caches: dict[tuple[str, CacheSettings], Caches] = {}
        self._loads: dict[tuple[str, str, CacheSettings, str], Load] = {}
        self._tabled: dict[tuple[object, ...], Compute | None] = {}
        self._plans: dict[tuple[object, ...], Compute] = {}
        self._places: dict[tuple[str, str, str, int, Request], tuple[Machine, Candidate]] = {}
        self._fits: dict[tuple[str, str, int, Request, bool], tuple[Machine, Fit]] = {}
        self._hardware: dict[tuple[int, str], Hardware] = {}
        self._costs: dict[tuple[str, str], Costs] = {}
        self._seen_by: dict[tuple[int, str], tuple[Machine, Machine]] = {}
        self._gpus: dict[tuple[int, str], tuple[Machine, tuple[Gpu, ...]]] = {}

    def quants(self, model: Model, request: Request) -> tuple[str, ...]:
        """Quantisations to consider, best quality first: the one asked for, the file's own, or the runtime's list."""
        if request.quant:
            return (request.quant,)
        if model.file_quant:
            return (model.file_quant,)
        return quants_of(model, request.runtime, self._tables.runtimes)

    def least_bytes_per_weight(self, model: Model, quant: str) -> float:
        """A lower bound for any of the model's matrices in a quantisation; 0 where there is none."""
        table = self._tables.quantizations
        if model.architecture in table.own_mixes:
            return 0.0
        found = self._least.get(quant)
        if found is None:
            found = self._least[quant] = least_bytes_per_weight(quant, table)
        return found

    def weights(self, model: Model, quant: str) -> Weights:
        """Bytes of the model in a quantisation."""
        key = (_name(model), quant)
        found = self._weights.get(key)
        if found is None:
            found = self._weights[key] = weights_of(self.stored(model, quant))
        return found

    def stored(self, model: Model, quant: str) -> Stored:
        """The model in a quantisation as the engine stores it, kept for the run."""
        key = (_name(model), quant)
        found = self._stored.get(key)
        if found is None:
            known = self._tables.weights.find(model, quant)
            found = self._stored[key] = known or store(model, quant, self._tables.quantizations)
        return found

    def quick(self, model: Model, quant: str, machine: Machine, request: Request, planned: bool = False) -> Quick:
        """The numbers of ``estimate`` for one quantisation. A placement over several devices may need less than this
        says, unless it is to be ``planned``.
        """
        runtime = engines.choose(model, machine, request.runtime)
        place = self.place_planned if planned else self.place
        found = place(model, quant, machine, request, runtime)
        weights = self.weights(model, quant)
        return Quick(
            model=model.id,
            quant=quant,
            runtime=runtime,
            verdict=found.verdict,
            kind=found.split.kind,
            need_bytes=found.need,
            have_bytes=found.have,
            context_tokens=context_of(model, request),
            share_on_gpu=found.share_on_gpu,
            decode_per_s=self._decode(model, quant, found, machine, request, runtime),
            disk_bytes=weights.file_bytes,
        )

    def estimate(self, model: Model, machine: Machine, request: Request, most_context: bool = True) -> Fit:
        """The whole answer for one model; with ``request.quant`` None for the best quality that fits. ``most_context``
        takes some 50 ms over several devices.

        Raises FitcheckError for unknown names of quantisations or runtimes and for a model without a shape.
        """
        runtime = engines.choose(model, machine, request.runtime)
        quant = request.quant or self._best_quant(model, machine, request, runtime)
        key = (_name(model), quant, id(machine), request, most_context)
        found = self._fits.get(key)
        if found is None or found[0] is not machine:
            found = self._fits[key] = machine, self._fit(model, quant, machine, request, runtime, most_context)
        return found[1]

    def place(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Candidate:
        """The placement of one quantisation, and what it needs at most."""
        key = (_name(model), quant, runtime, id(machine), request)
        found = self._places.get(key)
        if found is None or found[0] is not machine:
            ground = self.ground(model, quant, machine, request, runtime)
            parallel = self._tables.runtimes.row(runtime).tensor_parallel
            best = parallel_candidate(ground) if parallel and ground.gpus else best_candidate(ground)
            found = self._places[key] = machine, best
        return found[1]

    def place_planned(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Candidate:
        """The same placement with the engine's own plan of its buffers: some 10 ms where no table has it."""
        found = self.place(model, quant, machine, request, runtime)
        return found if found.exact else planned(self.ground(model, quant, machine, request, runtime), found)

    def ground(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Ground:
        """What a placement of one quantisation is chosen by."""
        row = self._tables.runtimes.row(runtime)
        shape = self._shape(model)
        gpus = self._usable_gpus(machine, runtime, row)
        flash = self._flash_attention(_name(model), request, shape, gpus, row)
        load = self._load(model, quant, request, flash, row)
        compute: Callable[[Split], Compute]
        plan: Callable[[Split], Compute] | None = None
        if row.memory == engines.LLAMA_CPP:
            compute = partial(self._compute, model, quant, load, request, flash, gpus)
            plan = partial(self._planned, model, quant, request, flash, gpus)
        else:
            from fitcheck.estimate.engines import activations

            compute = activations(shape, row, request, context_of(model, request))
        return Ground(
            load=load,
            gpus=gpus,
            host_have=machine.ram.usable_bytes,
            host_overhead=self._tables.runtimes.overheads["cpu"].bytes,
            output_bytes=4 * shape.vocab_size * request.parallel,
            encoders=self._encoders(model, request, gpus, row),
            margin=row.margin_bytes if request.margin_bytes is None else request.margin_bytes,
            compute=compute,
            plan=plan,
            allow=request.allow,
            can_split=row.split,
            has_cpu=Backend.CPU in row.backends,
        )

    def most_context(
        self, model: Model, quant: str, split: Split, machine: Machine, request: Request, planned: int = 0
    ) -> int:
        """The most tokens per sequence that still fit in this placement, a multiple of 256; 0 where none do.
        ``planned``: a context whose buffers are planned already."""
        runtime = engines.choose(model, machine, request.runtime)
        longest = model.context_extended_tokens or model.context_tokens or UNKNOWN_CONTEXT

        def ground_at(tokens: int) -> Ground:
            return self.ground(model, quant, machine, replace(request, context_tokens=tokens), runtime)

        parallel = self._tables.runtimes.row(runtime).tensor_parallel and bool(ground_at(longest).gpus)
        return most_context(ground_at, split, CELL_STEP, planned, longest, request.margin_bytes or 0, parallel)

    def _best_quant(self, model: Model, machine: Machine, request: Request, runtime: str) -> str:
        """The best quality that fits, the GPU before a split before the CPU, the least quality where nothing fits."""
        ranks = {PlacementKind.GPU: 0, PlacementKind.SPLIT: 1, PlacementKind.CPU: 2}
        quants = self.quants(model, request)
        if len(quants) == 1:
            return quants[0]
        found = [(self.place(model, quant, machine, request, runtime), quant) for quant in quants]
        order = {Verdict.FITS: 0, Verdict.TIGHT: 1, Verdict.NO: 2}
        best = min(found, key=lambda pair: (order[pair[0].verdict], ranks[pair[0].split.kind]))
        return quants[-1] if best[0].verdict is Verdict.NO else best[1]

    def _fit(
        self, model: Model, quant: str, machine: Machine, request: Request, runtime: str, most_context: bool
    ) -> Fit:
        from fitcheck.estimate.explain import flags_of, notes_of, reasons_of, terms_of
        from fitcheck.estimate.speed import predict

        found = self.place_planned(model, quant, machine, request, runtime)
        weights = self.weights(model, quant)
        row = self._tables.runtimes.row(runtime)
        encoders = self._encoders(model, request, self._usable_gpus(machine, runtime, row), row)
        used = encoders.beside(len(found.split.ends) > 1)
        context = context_of(model, request)
        flags = flags_of(found, row, context, request, machine)
        placement = _placement(found, machine, flags)
        most = most_q8 = None
        if most_context:
            q8 = replace(request, kv_type_k=Q8_CACHE, kv_type_v=Q8_CACHE)
            most = self.most_context(model, quant, found.split, machine, request, context)
            most_q8 = self.most_context(model, quant, found.split, machine, q8)
        return Fit(
            model=model.id,
            quant=quant,
            runtime=runtime,
            verdict=found.verdict,
            placement=placement,
            terms=terms_of(found, quant, model, request, self._tables.runtimes),
            need_bytes=found.need,
            have_bytes=found.have,
            context_tokens=context,
            max_context_tokens=most,
            max_context_q8_tokens=most_q8,
            speed=predict(self._running(model, quant, found.parts, machine, request, runtime), machine),
            quality=None,
            reasons=reasons_of(found),
            notes=(*detours(machine, runtime, row), *notes_of(found, row, context, request, used)),
            command=engines.command_of(row, model, quant, flags, context),
            disk_bytes=weights.file_bytes,
            exact=weights.exact and found.exact and used.exact,
        )

    def _flash_attention(self, model: str, request: Request, shape: Shape, gpus: tuple[Gpu, ...], row: Runtime) -> bool:
        backend = gpus[0].backend if gpus else Backend.CPU
        key = (model, request.flash_attention, request.kv_type_v, backend, row.source)
        found = self._flash.get(key)
        if found is None:
            found = self._flash[key] = flash_attention(request, shape, backend, row)
        return found

    def _shape(self, model: Model) -> Shape:
        name = _name(model)
        found = self._shapes.get(name)
        if found is None:
            found = self._shapes[name] = stored_shape(model, self._tables.quantizations)
        return found

    def _encoders(self, model: Model, request: Request, gpus: tuple[Gpu, ...], row: Runtime) -> Placed:
        if request.task is not Task.VISION:
            return NO_ENCODERS
        backend = gpus[0].backend if gpus else None
        key = (_name(model), request.flash_attention, backend, row.source)
        found = self._images.get(key)
        if found is None:
            if row.memory == engines.LLAMA_CPP:
                heads = row.flash_heads.get(backend.value) if backend else None
                found = encoders_of(model, request.flash_attention, backend, heads, self._tables.encoders)
            else:
                found = in_16_bits(model)
            self._images[key] = found
        return found

    def _load(self, model: Model, quant: str, request: Request, flash: bool, row: Runtime) -> Load:
        shape = self._shape(model)
        transposed = not flash and request.flash_attention is FlashAttention.OFF
        settings = cache_settings(model, request, widest_value(shape) if transposed else None, row.context_step)
        name = _name(model)
        key = (name, quant, settings, row.memory)
        found = self._loads.get(key)
        if found is None:
            caches = self._caches.get((name, settings))
            if caches is None:
                table = self._tables.quantizations
                caches = caches_of(shape, settings, table, table.layout(model.architecture))
                self._caches[name, settings] = caches
            stored = self.stored(model, quant)
            if row.memory != engines.LLAMA_CPP:
                from fitcheck.estimate.engines import beside_the_layers

                stored = beside_the_layers(stored)
            found = self._loads[key] = load_of(stored, caches, max(1, shape.num_loops))
        return found

    def _compute(
        self, model: Model, quant: str, load: Load, request: Request, flash: bool, gpus: tuple[Gpu, ...], split: Split
    ) -> Compute:
        """Compute buffers of a split, fast: of a catalog's model over several devices a bound, the same for all splits
        of its kind.
        """
        asked = _typical(split, load)
        key = _key(model, quant, request, flash, gpus, asked)
        if key not in self._tabled:
            question = self._question(model, quant, request, flash, gpus, asked)
            self._tabled[key] = self._from_table(question)
        return self._tabled[key] or self._planned(model, quant, request, flash, gpus, split)

    def _planned(
        self, model: Model, quant: str, request: Request, flash: bool, gpus: tuple[Gpu, ...], split: Split
    ) -> Compute:
        """Compute buffers of this very split: the engine's own plan, some 10 ms where no table has it."""
        key = _key(model, quant, request, flash, gpus, split)
        found = self._plans.get(key)
        if found is None:
            question = self._question(model, quant, request, flash, gpus, split)
            answer = compute_buffers(question, self._tables.buffers)
            found = self._plans[key] = Compute(answer.bytes, answer.exact)
        return found

    def _from_table(self, question: BufferQuestion) -> Compute | None:
        table = self._tables.buffers
        answer = (table.find(question) or table.bound(question)) if table else None
        return Compute(answer.bytes, answer.exact) if answer else None

    def _question(
        self, model: Model, quant: str, request: Request, flash: bool, gpus: tuple[Gpu, ...], split: Split
    ) -> BufferQuestion:
        mixed = split.kind is PlacementKind.SPLIT
        return BufferQuestion(
            architecture=model.architecture or "",
            shape=self._shape(model),
            context_tokens=padded(context_of(model, request) * request.parallel),
            ubatch_tokens=request.ubatch_tokens,
            batch_tokens=request.batch_tokens,
            sequences=request.parallel,
            outputs=request.parallel if request.logits_tokens is None else request.logits_tokens,
            kv_type_k=request.kv_type_k,
            kv_type_v=request.kv_type_v,
            flash_attention=flash,
            flash_turned_off=not flash and request.flash_attention is FlashAttention.AUTO,
            swa_full=request.swa_full,
            kv_unified=request.kv_unified,
            layer_devices=_devices(split, self._shape(model)),
            cpu_expert_layers=split.cpu_expert_layers,
            weight_type=type_of(model, quant, self._tables.quantizations) if mixed else None,
            backend=gpus[0].backend if gpus else Backend.CPU,
            embedding="embedding" in model.modalities,
            rope_factors=count_rope_factors(model, self._shape(model), self._tables.quantizations) if mixed else 0,
            model=model.id if self._tables.weights.knows(model) else "",
        )

    def _usable_gpus(self, machine: Machine, name: str, row: Runtime) -> tuple[Gpu, ...]:
        key = (id(machine), name)
        found = self._gpus.get(key)
        if found is None or found[0] is not machine:
            overheads = self._tables.runtimes.overheads
            seen = self._seen(machine, name)
            gpus = gpus_of(seen, row.backends, lambda backend, card: row.reserve_bytes + overheads[backend].on(card))
            if row.utilization < 1:
                from fitcheck.estimate.engines import share_of

                gpus = tuple(share_of(gpu, row.utilization) for gpu in gpus)
            found = self._gpus[key] = machine, gpus
        return found[1]

    def _seen(self, machine: Machine, runtime: str) -> Machine:
        """The machine with the backends that the runtime has for its cards."""
        key = (id(machine), runtime)
        found = self._seen_by.get(key)
        if found is None or found[0] is not machine:
            found = self._seen_by[key] = machine, as_seen(machine, self._tables.runtimes.row(runtime))
        return found[1]

    def _running(
        self, model: Model, quant: str, parts: Sequence[Part], machine: Machine, request: Request, runtime: str
    ) -> Running:
        """What runs where, as the speed model sees it."""
        from fitcheck.estimate.speed_device import Hardware
        from fitcheck.estimate.speed_terms import run_on
        from fitcheck.estimate.speed_work import Costs

        site = (id(machine), runtime)
        hardware = self._hardware.get(site)
        if hardware is None:  # keeps the machine, so that no other gets its number
            hardware = self._hardware[site] = Hardware(self._seen(machine, runtime), runtime, self._tables.speed_model)
        subject = (_name(model), quant)
        costs = self._costs.get(subject)
        if costs is None:
            costs = Costs(model, self.weights(model, quant), self._tables.speed_model.operations)
            self._costs[subject] = costs
        return run_on(hardware, costs, parts, request)

    def _decode(
        self, model: Model, quant: str, found: Candidate, machine: Machine, request: Request, runtime: str
    ) -> Interval | None:
        if found.verdict is Verdict.NO:
            return None
        from fitcheck.estimate.speed import decode

        return decode(self._running(model, quant, found.parts, machine, request, runtime), machine)


def quants_of(model: Model, runtime: str | None, runtimes: Runtimes) -> tuple[str, ...]:
    """The quantisations that a runtime (None: the one that suits the model) offers for a model, best quality first."""
    if runtime in (None, "auto"):
        runtime = engines.LLAMA_CPP if model.architecture else engines.VLLM
    row = runtimes.row(runtime)
    native = row.native_quants.get(model.native_dtype)
    return (native,) if native else row.quants


def _name(model: Model) -> str:
    """What tells models apart in one run: a file may bear the name of a catalog's row."""
    return f"{model.id} {model.path}" if model.path else model.id


def context_of(model: Model, request: Request) -> int:
    """Tokens per sequence that are asked for: the request's, at most the model's own maximum where that is known."""
    asked = request.context_tokens or model.context_tokens or UNKNOWN_CONTEXT
    longest = model.context_extended_tokens or model.context_tokens
    return min(asked, longest) if longest else asked


def flash_attention(request: Request, shape: Shape, backend: Backend, row: Runtime) -> bool:
    """The setting that the engine resolves ``auto`` to: on, unless a head is of a size that the backend has no kernel
    for. A quantised V cache needs it on.
    """
    if request.flash_attention is not FlashAttention.AUTO:
        return request.flash_attention is FlashAttention.ON
    if request.kv_type_v not in ("f16", "bf16", "f32"):
        return True
    heads = row.flash_heads.get(backend.value)
    return heads is None or all(size in heads for size in engines.head_sizes(shape))


def cache_settings(model: Model, request: Request, padded_v: int | None = None, step: int = CELL_STEP) -> CacheSettings:
    """What the engine knows about the context when it allocates caches; ``padded_v`` and ``step`` as there."""
    return CacheSettings(
        context_tokens=context_of(model, request) * request.parallel,
        sequences=request.parallel,
        unified=request.kv_unified,
        swa_full=request.swa_full,
        ubatch_tokens=request.ubatch_tokens,
        type_k=request.kv_type_k,
        type_v=request.kv_type_v,
        padded_v=padded_v,
        step=step,
    )


def _typical(split: Split, load: Load) -> Split:
    """The split that stands for all of its kind over as many cards, of equal size: everything on GPUs, all experts on
    the host, or the first half of the layers.
    """
    shares = (1,) * (len(split.ends) - 1)
    if split.kind is PlacementKind.CPU or (split.kind is PlacementKind.GPU and len(shares) < 2):
        return split
    n = load.n_layers
    if split.cpu_expert_layers:
        return split_by(load, shares, None, n)
    on_gpus = None if split.kind is PlacementKind.GPU else n + load.prediction_layers + 1 - n // 2
    return split_by(load, shares, on_gpus)


def _key(
    model: Model, quant: str, request: Request, flash: bool, gpus: tuple[Gpu, ...], split: Split
) -> tuple[object, ...]:
    """What compute buffers depend on."""
    return (
        _name(model),
        quant if split.kind is PlacementKind.SPLIT else "",
        context_of(model, request),
        split,
        flash,
        gpus[0].backend if gpus else Backend.CPU,
        request.parallel,
        request.ubatch_tokens,
        request.batch_tokens,
        request.logits_tokens,
        request.kv_type_k,
        request.kv_type_v,
        request.swa_full,
        request.kv_unified,
    )


def _devices(split: Split, shape: Shape) -> tuple[int, ...]:
    """The device of each layer that the graph runs, and of the output; empty where all is on the host."""
    if not split.gpu_layers:
        return ()
    *layers, output = split.layer_devices
    return (*layers * shape.num_loops, output)


def _placement(found: Candidate, machine: Machine, flags: tuple[str, ...]) -> Placement:
    """The candidate as a value of the answer."""
    cards = {f"gpu{card.index}": card.name for card in machine.accelerators}
    uses = tuple(
        DeviceUse(
            device=part.device,
            name=cards.get(part.device, machine.cpu.name),
            need_bytes=use.need,
            have_bytes=use.have,
            first_layer=part.first_layer,
            last_layer=part.last_layer,
            expert_layers=part.expert_layers,
            output=part.output,
        )
        for part, use in zip(found.parts, found.uses, strict=True)
    )
    return Placement(found.split.kind, uses, flags, found.share_on_gpu)
