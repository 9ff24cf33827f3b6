"""One model on one machine: where it goes, what it needs, how fast it runs.

``Estimator.quick`` gives the numbers that ranking needs; ``Estimator.estimate`` the whole answer with every term and
its formula. Both come from one placement: there is one arithmetic. Where that has only a bound for the compute
buffers (over several devices), ``estimate`` has the engine's graph planned for the placement that was chosen.

The verdict: ``fits`` where every device keeps the margin free (1 GiB unless the request says otherwise), ``tight``
where every need is met but not every margin, ``no`` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.estimate import runtimes as engines
from fitcheck.estimate.buffers import ComputeBuffers
from fitcheck.estimate.cache import CELL_STEP
from fitcheck.estimate.longest import left_of, most_context, most_that_fits
from fitcheck.estimate.placement import Candidate, Ground, Split, best_candidate
from fitcheck.estimate.placement import planned as with_plan
from fitcheck.estimate.reach import least_bytes_per_weight
from fitcheck.estimate.runtimes import Runtimes
from fitcheck.estimate.served import detours
from fitcheck.estimate.site import Site, Sites
from fitcheck.estimate.speed import decode, depths, predict
from fitcheck.estimate.speed_terms import Running, run_on
from fitcheck.estimate.subject import UNKNOWN_CONTEXT, Setup, Subject
from fitcheck.types import (
    Backend,
    DeviceUse,
    Fit,
    Interval,
    Machine,
    Model,
    Placement,
    PlacementKind,
    Request,
    Verdict,
    Weights,
)

if TYPE_CHECKING:
    from fitcheck.estimate.tables import Tables

Q8_CACHE = "q8_0"


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


class Estimator:
    """Answers questions about fits in one run. What they have in common is kept: of a model in a ``Subject``, of a
    machine in a ``Site``.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._least: dict[str, float] = {}
        self._subjects: dict[int, Subject] = {}  # by the number of the model, which is kept, so that no other gets it
        self._sites = Sites(tables)
        self._fits: dict[tuple[Subject, Site, str, Request, bool], Fit] = {}

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
        return self._subject(model).weights(quant)

    def quick(self, model: Model, quant: str, machine: Machine, request: Request, planned: bool = False) -> Quick:
        """The numbers of ``estimate`` for one quantisation. A placement over several devices may need less than this
        says, unless it is to be ``planned``.
        """
        subject = self._subject(model)
        site = self._sites.site(machine, engines.choose(model, machine, request.runtime))
        setup = subject.setup(request, site)
        found = _placed(subject, quant, site, setup, planned)
        return Quick(
            model=model.id,
            quant=quant,
            runtime=site.runtime,
            verdict=found.verdict,
            kind=found.split.kind,
            need_bytes=found.need,
            have_bytes=found.have,
            context_tokens=setup.context_tokens,
            share_on_gpu=found.share_on_gpu,
            decode_per_s=_decode(subject, quant, site, request, found),
        )

    def estimate(self, model: Model, machine: Machine, request: Request, most_context: bool = True) -> Fit:
        """The whole answer for one model; with ``request.quant`` None for the best quality that fits. ``most_context``
        takes some 50 ms over several devices.

        Raises FitcheckError for unknown names of quantisations or runtimes and for a model without a shape.
        """
        subject = self._subject(model)
        site = self._sites.site(machine, engines.choose(model, machine, request.runtime))
        quant = request.quant or self._best_quant(subject, site, request)
        key = (subject, site, quant, request, most_context)
        found = self._fits.get(key)
        if found is None:
            found = self._fits[key] = self._fit(subject, quant, site, request, most_context)
        return found

    def place(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Candidate:
        """The placement of one quantisation, and what it needs at most."""
        subject, site = self._subject(model), self._sites.site(machine, runtime)
        return _placed(subject, quant, site, subject.setup(request, site))

    def ground(self, model: Model, quant: str, machine: Machine, request: Request, runtime: str) -> Ground:
        """What a placement of one quantisation is chosen by."""
        subject, site = self._subject(model), self._sites.site(machine, runtime)
        return _ground(subject, quant, site, subject.setup(request, site))

    def _subject(self, model: Model) -> Subject:
        found = self._subjects.get(id(model))
        if found is None:
            found = self._subjects[id(model)] = Subject(model, self._tables)
        return found

    def _best_quant(self, subject: Subject, site: Site, request: Request) -> str:
        """The best quality that fits, the GPU before a split before the CPU, the least quality where nothing fits."""
        ranks = {PlacementKind.GPU: 0, PlacementKind.SPLIT: 1, PlacementKind.CPU: 2}
        quants = self.quants(subject.model, request)
        if len(quants) == 1:
            return quants[0]
        setup = subject.setup(request, site)
        found = [(_placed(subject, quant, site, setup), quant) for quant in quants]
        order = {Verdict.FITS: 0, Verdict.TIGHT: 1, Verdict.NO: 2}
        best = min(found, key=lambda pair: (order[pair[0].verdict], ranks[pair[0].split.kind]))
        return quants[-1] if best[0].verdict is Verdict.NO else best[1]

    def _fit(self, subject: Subject, quant: str, site: Site, request: Request, most_context: bool) -> Fit:
        from fitcheck.estimate.explain import flags_of, notes_of, own_context_note, reasons_of, terms_of

        model, machine, row = subject.model, site.machine, site.row
        setup = subject.setup(request, site)
        found = _placed(subject, quant, site, setup, planned=True)
        weights = subject.weights(quant)
        used = subject.encoders(request, site).beside(len(found.split.ends) > 1)
        context = setup.context_tokens
        flags = flags_of(found, setup, site)
        most = most_q8 = None
        if most_context:
            q8 = replace(request, kv_type_k=Q8_CACHE, kv_type_v=Q8_CACHE)
            most = _most_context(subject, quant, site, request, found.split, context)
            most_q8 = _most_context(subject, quant, site, q8, found.split)
        return Fit(
            model=model.id,
            quant=quant,
            runtime=site.runtime,
            verdict=found.verdict,
            placement=_placement(found, machine, flags),
            terms=terms_of(found, quant, model, setup, row),
            need_bytes=found.need,
            have_bytes=found.have,
            context_tokens=context,
            max_context_tokens=most,
            max_context_q8_tokens=most_q8,
            speed=predict(_running(subject, quant, site, request, found), machine),
            quality=None,
            reasons=reasons_of(found),
            notes=(
                *detours(machine, site.runtime, row),
                *own_context_note(site, context, model.longest_context_tokens),
                *notes_of(found, row, context, request, used),
            ),
            command=engines.command_of(row, model, quant, flags, context, request.parallel),
            disk_bytes=weights.file_bytes,
            exact=weights.exact and found.exact and used.exact,
        )


def _placed(subject: Subject, quant: str, site: Site, setup: Setup, planned: bool = False) -> Candidate:
    """The placement of one quantisation, and what it needs at most; ``planned``: with the engine's own plan of its
    buffers, some 10 ms where no table has it.
    """
    ground = _ground(subject, quant, site, setup)
    found = _shared(subject, ground) if site.row.tensor_parallel and site.gpus else best_candidate(ground)
    return with_plan(ground, found) if planned else found


def _shared(subject: Subject, ground: Ground) -> Candidate:
    from fitcheck.estimate.parallel import parallel_candidate

    return parallel_candidate(ground, subject.shape)


def _ground(subject: Subject, quant: str, site: Site, setup: Setup) -> Ground:
    row, request = site.row, setup.request
    load = subject.load(quant, setup, row)
    compute: Callable[[Split], ComputeBuffers]
    plan: Callable[[Split], ComputeBuffers] | None = None
    if row.memory == engines.LLAMA_CPP:
        compute = partial(subject.compute, quant, setup, load)
        plan = partial(subject.plan, quant, setup)
    else:
        from fitcheck.estimate.engines import activations

        compute = activations(subject.shape, row, request, setup.context_tokens)
    return Ground(
        load=load,
        gpus=site.gpus,
        host_have=site.machine.ram.usable_bytes,
        host_overhead=site.host_overhead,
        output_bytes=4 * subject.shape.vocab_size * request.parallel,
        encoders=subject.encoders(request, site),
        margin=row.margin_bytes if request.margin_bytes is None else request.margin_bytes,
        compute=compute,
        plan=plan,
        allow=request.allow,
        can_split=row.split,
        has_cpu=Backend.CPU in row.backends,
    )


def _most_context(subject: Subject, quant: str, site: Site, request: Request, split: Split, planned: int = 0) -> int:
    """The most tokens per sequence that still fit in this placement, a multiple of 256; 0 where none do.
    ``planned``: a context whose buffers are planned already.
    """
    key = (site, quant, split, replace(request, context_tokens=None))
    known = subject.most_contexts.get(key)
    if known is not None:
        return known

    def ground_at(tokens: int) -> Ground:
        return _ground(subject, quant, site, subject.setup(replace(request, context_tokens=tokens), site))

    longest = subject.model.longest_context_tokens or UNKNOWN_CONTEXT
    margin = request.margin_bytes or 0
    if site.row.tensor_parallel and site.gpus:
        found = most_that_fits(lambda tokens: left_of(_shared(subject, ground_at(tokens))) - margin, CELL_STEP, longest)
    else:
        found = most_context(ground_at, split, CELL_STEP, planned, longest, margin)
    subject.most_contexts[key] = found
    return found


def _running(subject: Subject, quant: str, site: Site, request: Request, found: Candidate) -> Running:
    """What runs where, as the speed model sees it."""
    return run_on(site.hardware, subject.costs(quant), found.parts, request)


def _decode(subject: Subject, quant: str, site: Site, request: Request, found: Candidate) -> Interval | None:
    """Decode speed, which many questions about a placement share; None where nothing fits."""
    if found.verdict is Verdict.NO:
        return None
    depth, _ = depths(subject.model, request)
    key = (site.hardware, quant, found.split, depth, request.kv_type_k, request.kv_type_v)
    known = subject.decoding.get(key)
    if known is None:
        run = _running(subject, quant, site, request, found)
        known = subject.decoding[key] = decode(run, site.machine)
    return known


def quants_of(model: Model, runtime: str | None, runtimes: Runtimes) -> tuple[str, ...]:
    """The quantisations that a runtime (None: the one that suits the model) offers for a model, best quality first."""
    if runtime in (None, "auto"):
        runtime = engines.LLAMA_CPP if model.architecture else engines.VLLM
    row = runtimes.row(runtime)
    native = row.native_quants.get(model.native_dtype)
    return (native,) if native else row.quants


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
