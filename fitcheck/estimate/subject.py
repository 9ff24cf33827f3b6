"""A model as the estimator knows it: what questions about it have in common is worked out once.

A question comes as a ``Setup``: what a request means for this model on a site. From it follow the ``Load`` that is
placed and the compute buffers of a split.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from fitcheck.estimate import runtimes as engines
from fitcheck.estimate.buffers import BufferForm, BufferQuestion, ComputeBuffers, WeightType, compute_buffers, is_common
from fitcheck.estimate.cache import CacheForm, CacheSettings, cache_forms, padded, widest_value
from fitcheck.estimate.images import NO_ENCODERS, Placed, encoders_of, in_16_bits
from fitcheck.estimate.memory import LayerCaches, LayerWeights, Load, caches_of
from fitcheck.estimate.placement import Split, split_by
from fitcheck.estimate.quantize import count_rope_factors, store, stored_shape, tensors_of_kinds, type_of, weights_of
from fitcheck.estimate.runtimes import Runtime
from fitcheck.estimate.site import Site
from fitcheck.estimate.speed_work import Costs, KindCost, kind_costs
from fitcheck.estimate.stored import Stored
from fitcheck.types import Backend, FlashAttention, Interval, Model, PlacementKind, Request, Shape, Task, Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitcheck.estimate.tables import Tables
    from fitcheck.estimate.tensors import LayerTensors

UNKNOWN_CONTEXT = 8192


class Setup(Struct, frozen=True):
    """A request as the engine gets it for one model on one site.

    ``context_tokens``: per sequence; ``flash``: the resolved setting of flash attention; ``outputs``: tokens whose
    logits are kept; ``graph``: what the engine's graph depends on beside context, type of caches and placement.
    """

    request: Request
    context_tokens: int
    flash: bool
    caches: CacheSettings
    backend: Backend
    outputs: int
    graph: tuple[object, ...]

    @property
    def is_common(self) -> bool:
        """Whether plans were made with such settings."""
        q = self.request
        return is_common(self.flash, q.ubatch_tokens, q.batch_tokens, q.parallel, self.outputs, q.swa_full)


class Subject:
    """One model; ``decoding``, ``most_contexts``: its speeds and the most context so far, by all that they depend on.
    Raises FitcheckError for a model without a shape.
    """

    def __init__(self, model: Model, tables: Tables) -> None:
        self.model = model
        self.shape = stored_shape(model, tables.quantizations)
        self._tables = tables
        self.decoding: dict[tuple[object, ...], Interval] = {}
        self.most_contexts: dict[tuple[object, ...], int] = {}
        self._stored: dict[str, Stored] = {}
        self._weights: dict[str, Weights] = {}
        self._costs: dict[str, Costs] = {}
        self._setup: tuple[Request, Site, Setup] | None = None  # of the last question
        self._flash: dict[tuple[str, str], bool] = {}
        self._encoders: dict[tuple[object, ...], Placed] = {}
        self._layers: dict[tuple[str, str], LayerWeights] = {}
        self._caches: dict[CacheSettings, LayerCaches] = {}
        self._loads: dict[tuple[str, CacheSettings, str], Load] = {}
        self._types: dict[str, WeightType] = {}
        self._forms: dict[tuple[object, ...], BufferForm | None] = {}
        self._plans: dict[tuple[object, ...], ComputeBuffers] = {}

    def stored(self, quant: str) -> Stored:
        """The model in a quantisation as the engine stores it. Raises FitcheckError for an unknown name."""
        found = self._stored.get(quant)
        if found is None:
            known = self._tables.weights.find(self.model, quant)
            found = self._stored[quant] = known or store(self.model, quant, self._tables.quantizations)
        return found

    def weights(self, quant: str) -> Weights:
        """Bytes of the model in a quantisation."""
        found = self._weights.get(quant)
        if found is None:
            found = self._weights[quant] = weights_of(self.stored(quant))
        return found

    def costs(self, quant: str) -> Costs:
        """The model in a quantisation as work."""
        found = self._costs.get(quant)
        if found is None:
            operations = self._tables.speed_model.operations
            found = self._costs[quant] = Costs(self.model, self.weights(quant), operations, self._kind_costs)
        return found

    @cached_property
    def _kind_costs(self) -> tuple[KindCost, ...]:
        return kind_costs(self.shape, self._tables.speed_model.operations)

    def setup(self, request: Request, site: Site) -> Setup:
        """What a request means for this model on a site."""
        if self._setup is None or self._setup[0] is not request or self._setup[1] is not site:
            self._setup = (request, site, self._new_setup(request, site))
        return self._setup[2]

    def _new_setup(self, request: Request, site: Site) -> Setup:
        flash = self._flash_attention(request, site)
        context, sequences = context_of(self.model, request), request.parallel
        outputs = sequences if request.logits_tokens is None else request.logits_tokens
        padded_v = None
        if not flash and request.flash_attention is FlashAttention.OFF:
            padded_v = widest_value(self.shape)
        caches = CacheSettings(
            context * sequences,
            sequences,
            request.kv_unified,
            request.swa_full,
            request.ubatch_tokens if site.row.memory == engines.LLAMA_CPP else site.row.batch_tokens,
            request.kv_type_k,
            request.kv_type_v,
            padded_v,
            site.row.context_step,
        )
        graph = (
            flash,
            not flash and request.flash_attention is FlashAttention.AUTO,
            site.backend_name,
            sequences,
            request.ubatch_tokens,
            request.batch_tokens,
            outputs,
            request.swa_full,
            request.kv_unified,
        )
        return Setup(request, context, flash, caches, site.backend, outputs, graph)

    def load(self, quant: str, setup: Setup, row: Runtime) -> Load:
        """What has to be kept in memory."""
        key = (quant, setup.caches, row.memory)
        found = self._loads.get(key)
        if found is None:
            layers, caches = self._layers_of(quant, row.memory), self._caches_of(setup.caches)
            found = self._loads[key] = Load(layers, caches, max(1, self.shape.num_loops))
        return found

    def encoders(self, request: Request, site: Site) -> Placed:
        """The encoders of images, where images are asked for."""
        if request.task is not Task.VISION:
            return NO_ENCODERS
        backend = site.backend if site.gpus else None
        key = (request.flash_attention, backend, site.runtime)
        found = self._encoders.get(key)
        if found is None:
            if site.row.memory == engines.LLAMA_CPP:
                heads = site.row.flash_heads.get(backend.value) if backend else None
                found = encoders_of(self.model, request.flash_attention, backend, heads, self._tables.encoders)
            else:
                found = in_16_bits(self.model)
            self._encoders[key] = found
        return found

    def compute(self, quant: str, setup: Setup, load: Load, split: Split) -> ComputeBuffers:
        """Compute buffers of a split, fast: of a catalog's model over several devices a bound, the same for all splits
        of its kind.
        """
        mixed = split.kind is PlacementKind.SPLIT
        key = (len(split.ends), mixed and (quant, split.cpu_expert_layers > 0), setup.graph)
        if key not in self._forms:
            self._forms[key] = self._form(quant, setup, load, split)
        form = self._forms[key]
        caches = setup.caches
        found = form.at(padded(caches.context_tokens), caches.type_k, caches.type_v) if form else None
        return found or self.plan(quant, setup, split)

    def _form(self, quant: str, setup: Setup, load: Load, split: Split) -> BufferForm | None:
        table = self._tables.buffers
        if table is None or not self._is_known:
            return None
        if split.kind is PlacementKind.CPU or (split.kind is PlacementKind.GPU and len(split.ends) == 2):
            backend = None if split.kind is PlacementKind.CPU else setup.backend
            return table.on_one(self.model.id, setup.is_common, backend)
        return table.form(self._question(quant, setup, _typical(split, load)))

    def plan(self, quant: str, setup: Setup, split: Split) -> ComputeBuffers:
        """Compute buffers of this very split: the engine's own plan, some 10 ms where no table has it."""
        mixed = split.kind is PlacementKind.SPLIT
        key = (mixed and quant, split, setup.context_tokens, setup.caches.type_k, setup.caches.type_v, setup.graph)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = compute_buffers(self._question(quant, setup, split), self._tables.buffers)
        return found

    @cached_property
    def _is_known(self) -> bool:
        return self._tables.weights.knows(self.model)

    @cached_property
    def _kinds(self) -> Callable[[int], LayerTensors]:
        return tensors_of_kinds(self.shape, self._tables.quantizations.layout(self.model.architecture))

    def _layers_of(self, quant: str, memory: str) -> LayerWeights:
        key = (quant, memory)
        found = self._layers.get(key)
        if found is None:
            stored = self.stored(quant)
            if memory != engines.LLAMA_CPP:
                from fitcheck.estimate.engines import beside_the_layers

                stored = beside_the_layers(stored)
            found = self._layers[key] = LayerWeights(stored)
        return found

    def _caches_of(self, settings: CacheSettings) -> LayerCaches:
        found = self._caches.get(settings)
        if found is None:
            found = self._caches[settings] = caches_of(
                self.shape, self._cache_forms, settings, self._tables.quantizations
            )
        return found

    @cached_property
    def _cache_forms(self) -> tuple[CacheForm, ...]:
        return cache_forms(self.shape, self._tables.quantizations.layout(self.model.architecture))

    def _flash_attention(self, request: Request, site: Site) -> bool:
        """The setting that the engine resolves ``auto`` to: on, unless a head is of a size that the backend has no
        kernel for. A quantised V cache needs it on.
        """
        if request.flash_attention is not FlashAttention.AUTO:
            return request.flash_attention is FlashAttention.ON
        if request.kv_type_v not in ("f16", "bf16", "f32"):
            return True
        key = (site.runtime, site.backend)
        found = self._flash.get(key)
        if found is None:
            heads = site.row.flash_heads.get(site.backend.value)
            sizes = engines.head_sizes(self.shape)
            found = self._flash[key] = heads is None or all(size in heads for size in sizes)
        return found

    def _weight_type(self, quant: str) -> WeightType:
        found = self._types.get(quant)
        if found is None:
            table = self._tables.quantizations
            found = self._types[quant] = type_of(self.model, quant, table, self._kinds)
        return found

    def _question(self, quant: str, setup: Setup, split: Split) -> BufferQuestion:
        model, request, table = self.model, setup.request, self._tables.quantizations
        mixed = split.kind is PlacementKind.SPLIT
        return BufferQuestion(
            architecture=model.architecture or "",
            shape=self.shape,
            context_tokens=padded(setup.caches.context_tokens),
            ubatch_tokens=request.ubatch_tokens,
            batch_tokens=request.batch_tokens,
            sequences=request.parallel,
            outputs=setup.outputs,
            kv_type_k=request.kv_type_k,
            kv_type_v=request.kv_type_v,
            flash_attention=setup.flash,
            flash_turned_off=not setup.flash and request.flash_attention is FlashAttention.AUTO,
            swa_full=request.swa_full,
            kv_unified=request.kv_unified,
            layer_devices=_devices(split, self.shape),
            cpu_expert_layers=split.cpu_expert_layers,
            weight_type=self._weight_type(quant) if mixed else None,
            backend=setup.backend,
            embedding="embedding" in model.modalities,
            rope_factors=count_rope_factors(model, self.shape, table) if mixed else 0,
            model=model.id if self._is_known else "",
        )


def context_of(model: Model, request: Request) -> int:
    """Tokens per sequence that are asked for: the request's, at most the model's own maximum where that is known."""
    asked = request.context_tokens or model.context_tokens or UNKNOWN_CONTEXT
    longest = model.longest_context_tokens
    return min(asked, longest) if longest else asked


def _typical(split: Split, load: Load) -> Split:
    """The split over several devices that stands for all of its kind over as many cards, of equal size: everything on
    GPUs, all experts on the host, or the first half of the layers.
    """
    shares = (1,) * (len(split.ends) - 1)
    n = load.n_layers
    if split.cpu_expert_layers:
        return split_by(load, shares, None, n)
    on_gpus = None if split.kind is PlacementKind.GPU else n + load.prediction_layers + 1 - n // 2
    return split_by(load, shares, on_gpus)


def _devices(split: Split, shape: Shape) -> tuple[int, ...]:
    """The device of each layer that the graph runs, and of the output; empty where all is on the host."""
    if not split.gpu_layers:
        return ()
    *layers, output = split.layer_devices
    return (*layers * shape.num_loops, output)
