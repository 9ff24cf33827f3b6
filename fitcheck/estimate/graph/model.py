"""What all graph descriptions share: the sizes of one run, the inputs, the caches and the small building blocks.

Source: llama.cpp 0c1e57098, src/llama-graph.cpp, src/llama-kv-cache*.cpp, src/llama-context.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fitcheck.estimate.graph.tensors import BLOCKS, HOST, Graph, Tensor, row_bytes
from fitcheck.types import (
    Attention,
    Backend,
    CompressedAttention,
    DenseFeedForward,
    LatentAttention,
    Layer,
    Mixer,
    ParallelMixers,
)

if TYPE_CHECKING:
    from fitcheck.estimate.buffers import BufferQuestion
    from fitcheck.estimate.graph.architectures import Traits

T = TypeVar("T")
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
CONTEXT_PADDING = 256  # tokens: contexts and window caches are rounded up to it


class UnknownGraphError(Exception):
    """The program has no graph for this model; the caller falls back to a bound."""


def expect(part: object, kind: type[T]) -> T:
    """``part`` if the graph knows how to build it. Raises UnknownGraphError."""
    if not isinstance(part, kind):
        raise UnknownGraphError(type(part).__name__)
    return part


def padded(count: int, step: int) -> int:
    """``count`` rounded up to a multiple of ``step``."""
    return (count + step - 1) // step * step


class CacheInputs:
    """The inputs of one kind of cache (whole context, or window): row indices, mask and rotations."""

    def __init__(self, model: ModelGraph, cells: int, layers: list[Attention]) -> None:
        self.cells = cells
        tokens, streams = model.tokens, model.streams
        self.k_rows = model.input("i64", tokens)
        self.v_rows = model.input("i64", tokens * model.widest_v if model.transposes_v else tokens)
        self.mask = model.input("f16" if model.flash else "f32", cells, tokens // streams, 1, streams)
        k_heads = {layer.head_dim for layer in layers}
        v_heads = {layer.v_head_dim or layer.head_dim for layer in layers}
        self.k_rotation = self.v_rotation = None
        if model.rotates_k and len(k_heads) == 1:
            self.k_rotation = rotation_of(model, next(iter(k_heads)))
        if model.rotates_v and BLOCKS[model.kv_type_v][0] > 1 and len(v_heads) == 1:
            self.v_rotation = model.input("f32", 64, 64)


class BatchInputs:
    """The input of attention over the batch itself, where nothing is cached."""

    def __init__(self, model: ModelGraph) -> None:
        self.mask = model.input("f16" if model.flash else "f32", model.tokens, model.tokens)


def rotation_of(model: ModelGraph, head: int) -> Tensor | None:
    """What rotates keys of ``head`` elements before they are quantised: the largest power of two, from 64 on, that
    divides them. None where the cache is not quantised, or nothing divides."""
    if BLOCKS[model.kv_type_k][0] == 1 or head % 64:
        return None
    size = 64
    while head % (size * 2) == 0:
        size *= 2
    return model.input("f32", size, size)


class ModelGraph(Graph):
    """A graph for one question: sizes of the micro-batch, caches per layer, and helpers for norms and projections."""

    def __init__(self, question: BufferQuestion, traits: Traits) -> None:
        shape = question.shape
        if not 0 < shape.n_layers * max(1, shape.num_loops) <= MAX_LAYERS:
            raise UnknownGraphError("depth")
        if shape.hidden_size < 1 or shape.vocab_size < 1:
            raise UnknownGraphError("width")
        layers = list(shape.each_layer()) * max(1, shape.num_loops)
        devices = question.layer_devices or (HOST,) * (len(layers) + 1)
        super().__init__(devices, max(devices), question.weight_type or (lambda layer, name: "f16"))
        self.traits = traits
        self.shape = shape
        self.layers: list[Layer] = layers
        self.head = len(layers)  # "layer" number of the output matrix
        self.d = shape.hidden_size
        self.vocab = shape.vocab_size
        self.expert_layers_on_host = question.cpu_expert_layers if self.gpus else 0
        self.rope_factors = question.rope_factors
        self.fuses = self.gpus > 0 and question.fuses and question.backend is not Backend.METAL
        self._set_batch(question)
        self._set_caches(question)
        self.deep_rows: Tensor | None = None
        self.token_ids = self.input("i32", self.tokens)
        self.positions = self.input("i32", self.tokens * traits.positions)
        self.attention_scale = self.input("f32", 1, 1, self.tokens) if traits.attention_scale else None

    def rope_factors_on_host(self, il: int) -> Tensor | None:
        """The table of frequency factors of a host layer beside GPUs, where the model has one; layers share it."""
        if not self.rope_factors or not self.copies_weights or self.layer_devices[il] != HOST:
            return None
        if self.traits.family == "gemma4" and self.windows[il]:
            return None
        return self.host_weight((0, "rope_freqs", "ROPE"), (self.rope_factors, 1, 1, 1), "f32")

    def rotates(self, il: int) -> bool:
        """Whether layer ``il`` has rotary positions."""
        rule = self.traits.rope
        if rule == "windows" or rule == "windows_or_dense":
            dense = rule == "windows_or_dense" and isinstance(self.layers[il].ffn, DenseFeedForward)
            return bool(self.windows[il]) or not self.has_windows or dense
        if rule == "of_32_layers":
            return len(self.layers) == 32
        return rule == "all" or (rule == "three_of_four" and (il + 1) % 4 != 0)

    def _set_batch(self, question: BufferQuestion) -> None:
        sequences = question.sequences
        context = padded(question.context_tokens, CONTEXT_PADDING)
        self.streams = 1 if question.kv_unified else sequences
        self.cells = context if self.streams == 1 else padded(context // sequences, CONTEXT_PADDING)
        batch = min(context, question.batch_tokens)
        tokens = min(batch, question.ubatch_tokens)
        self.outputs = min(tokens, question.outputs or batch)
        self.sequences = sequences
        self.sequence_tokens = (tokens + sequences - 1) // sequences
        self.tokens = self.sequence_tokens * sequences
        self.ubatch = tokens

    def _set_caches(self, question: BufferQuestion) -> None:
        self.flash = question.flash_attention
        self.transposes_v = not self.flash and not question.flash_turned_off
        self.kv_type_k, self.kv_type_v = question.kv_type_k, question.kv_type_v
        self.swa_full = question.swa_full
        seen = self.traits.windows
        self.windows = [(_window(layer.mixer) or 0) if seen else 0 for layer in self.layers]  # 0: the whole context
        self.has_windows = any(self.windows)
        own = [mixer for layer in self.layers if (mixer := attention_of(layer.mixer))]
        self.widest_v = max(((a.v_head_dim or a.head_dim) * a.n_kv_heads for a in own), default=0)
        full = [a for a, window in self._attentions() if not window] or own
        self.rotates_k = bool(full) and full[0].head_dim % 64 == 0
        self.rotates_v = bool(full) and (full[0].v_head_dim or full[0].head_dim) % 64 == 0
        self._caches: dict[int, tuple[Tensor, Tensor]] = {}

    def _attentions(self) -> list[tuple[Attention, int]]:
        pairs = zip(self.layers, self.windows, strict=True)
        return [(mixer, window) for layer, window in pairs if (mixer := attention_of(layer.mixer))]

    # ---- inputs

    def embed(self) -> Tensor:
        """Rows of the token embedding, gathered on the host, and the input for embeddings that text leaves unused.

        With deep inputs each row has room for what an image adds to the first layers.
        """
        width = self.d * (1 + self.traits.deep_inputs)
        rows = self.host_rows(self.token_ids, self.d)
        if self.traits.deep_inputs:
            rows = self.deep_rows = self.op("PAD", "f32", (width, self.tokens), rows)
        self.expand(rows)
        self.expand(self.input("f32", width, self.tokens))
        if self.traits.deep_inputs:
            return self.deep_part()
        return self.expand(self.scale(rows)) if self.traits.scaled_embedding else rows

    def deep_part(self) -> Tensor:
        """One part of the padded embedding rows."""
        assert self.deep_rows is not None
        return self.view(self.deep_rows, (self.d, self.tokens), (self.deep_rows.nb()[1],))

    def host_rows(self, ids: Tensor, width: int) -> Tensor:
        """Rows of a table that always lies on the host."""
        rows = self.op("GET_ROWS", "f32", (width, ids.ne[0]), ids)
        rows.home = HOST
        return rows

    def cache_inputs(self) -> dict[bool, CacheInputs]:
        """Inputs of the whole-context cache (False) and of the window cache (True); the same where there is one."""
        attentions = [(a, w) for a, w in self._attentions() if not a.kv_shared]
        whole = CacheInputs(self, self.cells, [a for a, w in attentions if not w])
        if not self.has_windows:
            return {False: whole, True: whole}
        return {False: whole, True: CacheInputs(self, self.window_cells(), [a for a, w in attentions if w])}

    def window_cells(self) -> int:
        """Cells of the window cache, per stream."""
        sequences = self.sequences if self.streams == 1 else 1
        cells = padded(min(self.cells, max(self.windows) * sequences + self.ubatch), CONTEXT_PADDING)
        return self.cells if self.swa_full else cells

    def batch_inputs(self) -> dict[bool, BatchInputs]:
        """Masks over the batch: for the whole of it (False), and for the window (True)."""
        whole = BatchInputs(self)
        return {False: whole, True: BatchInputs(self) if self.has_windows else whole}

    # ---- caches

    def cache(self, il: int, attention: Attention, cells: int) -> tuple[Tensor, Tensor]:
        """K and V of layer ``il``; a layer that shares reads the last earlier one of its kind."""
        owner = il
        if attention.kv_shared:
            owner = max(
                (
                    i
                    for i in range(il)
                    if self.windows[i] == self.windows[il]
                    and (other := attention_of(self.layers[i].mixer))
                    and not other.kv_shared
                ),
                default=-1,
            )
            if owner < 0:
                raise UnknownGraphError("shared cache without an owner")
        if owner not in self._caches:
            device = self.layer_devices[owner]
            k_width = attention.head_dim * attention.n_kv_heads
            v_width = (attention.v_head_dim or attention.head_dim) * attention.n_kv_heads
            self._caches[owner] = (
                self.stored(self.kv_type_k, device, k_width, cells, self.streams),
                self.stored(
                    self.kv_type_v, device, self.widest_v if self.transposes_v else v_width, cells, self.streams
                ),
            )
        return self._caches[owner]

    def cache_view(self, cache: Tensor, head_dim: int, heads: int, cells: int) -> Tensor:
        """A cache as [head_dim, heads, cells, streams]."""
        width = cache.ne[0]
        strides = (row_bytes(cache.type, head_dim), row_bytes(cache.type, width), row_bytes(cache.type, width * cells))
        return self.view(cache, (head_dim, heads, cells, self.streams), strides)

    def transposed_cache_view(self, cache: Tensor, head_dim: int, heads: int, cells: int) -> Tensor:
        """A V cache that was written transposed, as [cells, heads, head_dim, streams]."""
        size = BLOCKS[cache.type][1]
        strides = (size * cells * head_dim, size * cells, size * cells * cache.ne[0])
        return self.view(cache, (cells, heads, head_dim, self.streams), strides)

    # ---- small blocks

    def norm(self, x: Tensor, il: int, name: str) -> Tensor:
        """The architecture's norm: RMS or layer norm, with weight and bias as it has them."""
        traits = self.traits
        x = self.same(traits.norm, x)
        if traits.norm_weight:
            x = self.vector("MUL", il, name, x)
            if traits.norm_bias:
                x = self.vector("ADD", il, name, x)
        return x

    def rms_norm(self, x: Tensor, il: int, name: str) -> Tensor:
        """RMS norm with a weight."""
        return self.vector("MUL", il, name, self.rms(x))

    def linear(self, il: int, name: str, width: int, x: Tensor, bias: bool = False) -> Tensor:
        """A projection, with its bias."""
        x = self.matmul(il, name, width, x)
        return self.vector("ADD", il, name, x) if bias else x

    def logits(self, x: Tensor) -> None:
        """The output matrix over the normalised state, which stays, as the logits do."""
        x.output = True
        if self.traits.host_output:
            y = self.op("MUL_MAT", "f32", (self.vocab, x.ne[1]), x)
            self.tied(y, HOST, self.head, "token_embd", (self.d, self.vocab, 1, 1), x.ne[1])
        else:
            y = self.matmul(self.head, "output", self.vocab, x)
        if self.shape.lm_head_bias:
            y = self.vector("ADD", self.head, "output", y)
        y.output = True
        self.expand(y)


def attention_of(mixer: Mixer) -> Attention | None:
    """The attention in a layer that caches keys and values of its heads, if there is one."""
    if isinstance(mixer, Attention):
        return mixer
    if isinstance(mixer, LatentAttention) and not mixer.absorbed:
        key = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
        return Attention(mixer.n_heads, mixer.n_heads, head_dim=key, v_head_dim=mixer.v_head_dim)
    if isinstance(mixer, ParallelMixers):
        return next((part for part in mixer.parts if isinstance(part, Attention)), None)
    return None


def _window(mixer: Mixer) -> int | None:
    if isinstance(mixer, (CompressedAttention, LatentAttention)):
        return mixer.window
    attention = attention_of(mixer)
    return attention.window if attention else None
