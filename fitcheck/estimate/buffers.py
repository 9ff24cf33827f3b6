"""Compute and output buffers of llama.cpp: the scratch memory that its graph needs beside weights and caches.

``compute_buffers`` answers for one placement, per device. Where the engine's graph is known
(``fitcheck.estimate.graph``) the answer is the engine's own allocation plan, to the byte; for an unknown architecture
it is an upper bound, and ``ComputeBuffers.exact`` says so. The catalog's models in their common placements have been
planned before (``BufferTable``), so that ranking hundreds of them walks no graphs. Source: llama.cpp 0c1e57098.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from msgspec import Raw, Struct, field
from msgspec.json import decode

from fitcheck.types import (
    Attention,
    Backend,
    CompressedAttention,
    CountedMixer,
    DenseFeedForward,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    ParallelMixers,
    Shape,
    ShortConvolution,
)

HOST = 0  # device number of the host in ``BufferQuestion.layer_devices`` and index of its bytes in the answer
CONTEXT_STEP = 256  # tokens: the engine rounds contexts up to it
MAX_CONTEXT = 1 << 40  # tokens: more than any context
PLANNED_CACHES = ("f16", "q8_0")  # types of K and V that the table knows
USUAL_TYPE = "q8_0"  # of weights whose type is not told
PIPELINE_COPIES = 4  # of inputs, where several GPUs work on several micro-batches at once (GGML_SCHED_MAX_COPIES)
SAME_RULES = (Backend.CUDA, Backend.ROCM)  # other backends reorder nodes or size their scratch apart: nearly the same
BETWEEN_CARDS, ON_HOST = "between cards", "on host"  # names in a row of the table
HOLES = 6  # states of a batch that lie elsewhere than in the typical split, at most
Piece = tuple[int, ...]  # first context; then for each series its bytes there and its growth per step
Pieces = tuple[list[int], list[tuple[tuple[int, ...], tuple[int, ...]]]]  # where they start; bytes there, growth
CopiedWeight = tuple[int, str, int, int]  # first layer that has it, name, row length, elements
WeightType = Callable[[int, str], str]


class BufferQuestion(Struct, frozen=True, kw_only=True):
    """One model in one placement.

    ``layer_devices`` holds a device number per layer and one more for the output matrix: 0 is the host, 1 the first
    GPU, 2 the second, … Empty means that everything is on the host. ``cpu_expert_layers`` is ``--n-cpu-moe``: so many
    layers from the first keep their routed experts on the host. ``weight_type(layer, name)`` names the ggml type of
    the weight ``blk.<layer>.<name>.weight`` (``ffn_down_exps`` …); asked only for weights on the host beside a GPU,
    which the engine copies to the GPU for large batches. ``backend`` is that of the GPUs. ``outputs`` is how many
    tokens' logits one micro-batch keeps (0: all of them, as llama-bench and the raw library do). ``flash_attention``
    is the resolved setting; ``flash_turned_off``: it was on until the engine found no kernel for it, and V lies in
    its cache as for flash attention. ``fuses``: the GPUs make the sum of a token's experts in one kernel, as CUDA does,
    and keep what it reads until then. ``rope_factors``: how many frequency factors the file holds. ``model`` is the
    catalog's id: with it a precomputed answer is found in the ``BufferTable``.
    """

    architecture: str
    shape: Shape
    context_tokens: int
    ubatch_tokens: int = 512
    batch_tokens: int = 2048
    sequences: int = 1
    outputs: int = 1
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    flash_attention: bool = True
    flash_turned_off: bool = False
    swa_full: bool = False
    kv_unified: bool = False
    layer_devices: tuple[int, ...] = ()
    cpu_expert_layers: int = 0
    weight_type: WeightType | None = None
    backend: Backend = Backend.CUDA
    fuses: bool = True
    embedding: bool = False
    rope_factors: int = 0
    model: str = ""


class ComputeBuffers(Struct, frozen=True):
    """Bytes per device: the host first, then each GPU. ``exact`` is False for a bound; ``common``: a bound that all
    splits of its kind have in common.
    """

    bytes: tuple[int, ...]
    exact: bool
    common: bool = False


class BufferForm(Struct, frozen=True):
    """What the table says of one placement, at any context; of the placement itself, or a bound for all of its kind.

    ``row`` and ``kind`` tell where in the table; ``step`` and ``longest`` (tokens) as there. ``cards``: GPUs of the
    bound, 0 where the answer is the placement's own; then ``exact`` says whether it is the engine's to the byte. A
    bound adds to each device, with t tokens in a batch and c in the context, t x (``per_token`` + c x ``per_cell`` +
    t x ``per_pair``) bytes; to GPUs ``cached`` bytes per c; and the copies of weights take ``copies`` bytes beside the
    last series.
    """

    row: dict[str, Raw]
    kind: str
    step: int
    longest: int
    exact: bool = False
    cards: int = 0
    ubatch_tokens: int = 0
    copies: int = 0
    per_token: int = 0
    per_cell: int = 0
    per_pair: int = 0
    cached: int = 0
    pieces: dict[str, Pieces] = field(default_factory=dict)  # by type of caches, those asked for so far

    def at(self, context_tokens: int, kv_type_k: str, kv_type_v: str) -> ComputeBuffers | None:
        """The answer at a context with caches of a type, None where that was not planned."""
        found = self.pieces.get(kv_type_k)
        if found is None:
            found = self.pieces[kv_type_k] = self._decoded(kv_type_k)
        starts, pieces = found
        context = -(-context_tokens // CONTEXT_STEP) * CONTEXT_STEP
        at = bisect_right(starts, context) - 1
        if at < 0 or context > self.longest or kv_type_k != kv_type_v:
            return None
        steps = -(-(context - starts[at]) // self.step)
        bytes_there, growth = pieces[at]
        series = [size + steps * grown for size, grown in zip(bytes_there, growth, strict=True)]
        if not self.cards:
            return ComputeBuffers(tuple(series), self.exact)
        tokens = min(context_tokens, self.ubatch_tokens)
        extra = tokens * (self.per_token + context_tokens * self.per_cell + tokens * self.per_pair)
        host, gpu, *below = series
        if below:
            gpu = max(gpu, below[0] + self.copies)
        gpu += self.cached * context_tokens + extra
        return ComputeBuffers((host + extra, *(gpu,) * self.cards), False, True)

    def _decoded(self, kv_type: str) -> Pieces:
        raw = self.row.get(f"{self.kind} {kv_type}")
        pieces = decode(raw, type=tuple[Piece, ...]) if raw is not None else ()
        return [piece[0] for piece in pieces], [(piece[1::2], piece[2::2]) for piece in pieces]


class BufferTable(Struct, frozen=True):
    """Plans of the catalog's models as straight pieces over the context.

    ``rows`` maps a model's row number (``models``) to its plans: "gpu f16" to pieces of first context, host bytes, host
    bytes per step of 256 tokens, GPU bytes, GPU bytes per step; decoded when first asked for. Splits ("experts": all
    routed experts on the host, "half": the first half of the layers) have two GPU series: without copies of weights,
    and what lies below the largest copy; "half weights" lists what is copied. ``form`` makes of them an answer for
    all splits of their kind. "between cards" and "on host", where a row has them, are what that lacks over several
    cards and with something on the host: bytes per token of a batch, and of these for each token of the context.
    "contexts", where a row has it: its step, and the longest context that was planned.
    """

    models: dict[str, int]
    rows: tuple[dict[str, Raw], ...]
    engine: str = ""

    def find(self, question: BufferQuestion) -> ComputeBuffers | None:
        """The planned answer, or None where the table has none for this very placement."""
        return None if _is_spread(question) else self._answer(question)

    def bound(self, question: BufferQuestion) -> ComputeBuffers | None:
        """A bound for a placement over host and GPUs or over several GPUs, the same for all splits of its kind; None
        where the table has none.
        """
        return self._answer(question) if _is_spread(question) else None

    def _answer(self, question: BufferQuestion) -> ComputeBuffers | None:
        form = self.form(question)
        return form.at(question.context_tokens, question.kv_type_k, question.kv_type_v) if form else None

    def form(self, question: BufferQuestion) -> BufferForm | None:
        """The answer to a question at any context and with any caches: of a placement over several devices the
        ``bound``; None where the table has none.
        """
        if not _is_spread(question):
            return self.on_one(
                question.model, _is_common(question), question.backend if question.layer_devices else None
            )
        row = self._row(question.model, _is_common(question))
        return None if row is None else _bound_of(row, question)

    def on_one(self, model: str, common: bool, backend: Backend | None) -> BufferForm | None:
        """The same for a placement on one GPU, or on the processor (``backend`` None). ``common``: with the settings
        that were planned.
        """
        row = self._row(model, common)
        if row is None:
            return None
        kind = "cpu" if backend is None else "metal" if backend is Backend.METAL else "gpu"
        return BufferForm(row, kind, *grid(row), backend is None or backend in SAME_RULES)

    def _row(self, model: str, common: bool) -> dict[str, Raw] | None:
        number = self.models.get(model) if common else None
        return None if number is None else self.rows[number]


def grid(row: dict[str, Raw]) -> tuple[int, int]:
    """Tokens from which to which next context a row of the table grows, and the longest context that it knows."""
    raw = row.get("contexts")
    return decode(raw, type=tuple[int, int]) if raw is not None else (CONTEXT_STEP, MAX_CONTEXT)


def _bound_of(row: dict[str, Raw], question: BufferQuestion) -> BufferForm | None:
    cards = max(question.layer_devices)
    split = _is_split(question)
    layers = split and HOST in question.layer_devices
    shared = cards > 1 and shares_caches(question.shape)
    kind = "half" if layers else "experts" if split else "gpu"
    if (layers and question.cpu_expert_layers) or shared or f"{kind} {PLANNED_CACHES[0]}" not in row:
        return None
    per_token, per_cell, per_pair = _between_cards(question) if cards > 1 else (0, 0, 0)
    copies = 0
    if split:
        weights = decode(row[f"{kind} weights"], type=tuple[CopiedWeight, ...])
        copies = _copies_at_once(copied_bytes(weights, question.weight_type), cards, question.shape)
        per_token += HOLES * 4 * question.shape.hidden_size
    for name in (BETWEEN_CARDS,) * (cards > 1) + (ON_HOST,) * split:
        if name in row:
            lacking = decode(row[name], type=tuple[int, int])
            per_token, per_cell = per_token + lacking[0], per_cell + lacking[1]
    cached = _cached_copies_bytes(question.shape) if layers else 0
    return BufferForm(
        row, kind, *grid(row), False, cards, question.ubatch_tokens, copies, per_token, per_cell, per_pair, cached
    )


def copied_bytes(weights: tuple[CopiedWeight, ...], weight_type: WeightType | None) -> tuple[int, ...]:
    """Bytes of the host weights that are copied to a GPU, each size once, the largest first."""
    from fitcheck.estimate.graph.planner import padded_matrix_bytes

    sizes = {
        padded_matrix_bytes(weight_type(layer, name) if weight_type else USUAL_TYPE, row, elements)
        for layer, name, row, elements in weights
    }
    return tuple(sorted(sizes, reverse=True)) or (0,)


def _copies_at_once(sizes: tuple[int, ...], cards: int, shape: Shape) -> int:
    """A bound for the copies of weights that lie beside each other. One takes the place of the one before if it is not
    larger; with several cards all go to the first, and what comes back from the others may lie between two of them, as
    may what compressed caches and n-grams leave behind.
    """
    holes = any(isinstance(kind.mixer, CompressedAttention) or kind.ngrams for kind in shape.kinds)
    return sum(sizes) + (sizes[0] if cards > 1 or holes else 0)


def _cached_copies_bytes(shape: Shape) -> int:
    """A bound for copies of K and V in 16 bits, per token of context: of layers on the host, whose attention runs on a
    GPU all the same (beyond those of the typical split), and of quantised caches.
    """
    attentions = [kind.mixer for kind in shape.kinds if isinstance(kind.mixer, Attention)]
    widths = [mixer.n_kv_heads * (mixer.head_dim + (mixer.v_head_dim or mixer.head_dim)) for mixer in attentions]
    return 2 * 2 * max(widths, default=0)


def _between_cards(question: BufferQuestion) -> tuple[int, int, int]:
    """A bound for what several cards need beyond one, each: four copies of the inputs and of what crosses. Bytes per
    token of a batch: of each, for each token of the context, and for each other token of the batch.
    """
    shape = question.shape
    mixers = [kind.mixer for kind in shape.kinds]
    masks = len({mixer.window for mixer in mixers if isinstance(mixer, Attention)}) or 1
    masks += any(isinstance(mixer, LatentAttention) and mixer.indexer for mixer in mixers)
    inner = max((mixer.d_inner for mixer in mixers if isinstance(mixer, (Mamba1, Mamba2))), default=0)
    inner = max(inner, *(mixer.channels // 4 for mixer in mixers if isinstance(mixer, ShortConvolution)), 0)
    decays = max((mixer.n_heads for mixer in mixers if isinstance(mixer, LightningAttention)), default=0)
    width = 4 * shape.hidden_size * max(1, shape.num_loops) + 4 * inner
    copied = PIPELINE_COPIES * 4
    return copied * width, (PIPELINE_COPIES - 1) * masks * 2, copied * decays


def shares_caches(shape: Shape) -> bool:
    """Whether layers read caches of earlier ones, which several cards copy to one another."""
    return any(isinstance(kind.mixer, Attention) and kind.mixer.kv_shared for kind in shape.kinds)


def _is_common(q: BufferQuestion) -> bool:
    return is_common(q.flash_attention, q.ubatch_tokens, q.batch_tokens, q.sequences, q.outputs, q.swa_full)


def is_common(
    flash_attention: bool, ubatch_tokens: int, batch_tokens: int, sequences: int, outputs: int, swa_full: bool
) -> bool:
    """Whether these are the settings that were planned."""
    usual = (ubatch_tokens, sequences, outputs) == (512, 1, 1) and batch_tokens >= 512
    return flash_attention and usual and not swa_full


def _is_split(question: BufferQuestion) -> bool:
    """Whether something lies on the host beside a GPU."""
    return bool(question.layer_devices) and (HOST in question.layer_devices or question.cpu_expert_layers > 0)


def _is_spread(question: BufferQuestion) -> bool:
    """Whether a placement is over several devices."""
    return max(question.layer_devices, default=HOST) > 1 or _is_split(question)


def compute_buffers(question: BufferQuestion, table: BufferTable | None = None) -> ComputeBuffers:
    """Bytes of the compute buffer on (host, first GPU, second GPU, …), from ``table`` where it knows the question."""
    found = table.find(question) if table is not None else None
    if found is not None:
        return found
    from fitcheck.estimate.graph.whole import planned_bytes  # imported late: most answers come from the table

    planned = planned_bytes(question)
    if planned is None:
        return upper_bound(question)
    return ComputeBuffers(planned, not question.layer_devices or question.backend in SAME_RULES)


def output_buffer_bytes(shape: Shape, sequences: int = 1, embedding: bool = False) -> int:
    """Bytes of the host buffer for logits (and embeddings, for an embedding model) of one token per sequence."""
    return 4 * sequences * (shape.vocab_size + (shape.hidden_size if embedding else 0))


def layer_split(n_layers: int, gpus: int, shares: tuple[float, ...] = ()) -> tuple[int, ...]:
    """``layer_devices`` of a full offload to ``gpus`` cards: llama.cpp's layer split by ``shares`` (equal if empty)."""
    weights = shares or (1.0,) * gpus
    total = sum(weights)
    ends = [sum(weights[: i + 1]) / total for i in range(gpus)]
    return tuple(
        1 + next((i for i, end in enumerate(ends) if layer / (n_layers + 1) < end), gpus - 1)
        for layer in range(n_layers + 1)
    )


def upper_bound(question: BufferQuestion) -> ComputeBuffers:
    """A bound for graphs that this program does not know: the widest layer without any reuse, masks and logits."""
    shape = question.shape
    context = question.context_tokens
    tokens = min(context, question.ubatch_tokens)
    outputs = min(tokens, question.outputs or tokens)
    d = shape.hidden_size
    width = max((_layer_width(layer, d, question) for layer in shape.kinds), default=0)
    mask = context * tokens * (2 if question.flash_attention else 4) * 2
    logits = 2 * 4 * outputs * shape.vocab_size  # Chameleon overwrites some in a second copy
    full = 4 * tokens * width + mask + logits + 4 * outputs * d + 4 * d * tokens
    if (question.kv_type_k, question.kv_type_v) != ("f16", "f16"):
        full += _cached_copies_bytes(shape) * context
    gpus = max(question.layer_devices, default=0)
    if not gpus:
        return ComputeBuffers((full,), False)
    copies = PIPELINE_COPIES if gpus > 1 else 1
    on_host = full + copies * (8 * d * tokens + mask)  # operations that the GPU cannot run do so there
    crossing = 64 if gpus > 1 else 4  # bytes per hidden unit: of four residual streams and what is made of them
    on_gpu = full + copies * (mask + crossing * d * tokens)
    if _is_split(question):
        on_gpu += 2 * _largest_weight_bytes(question)
    return ComputeBuffers((on_host, *[on_gpu] * gpus), False)


def _largest_weight_bytes(question: BufferQuestion) -> int:
    """Of the matrices in layers, which a split copies from the host to a GPU."""
    from fitcheck.estimate.graph.planner import padded_matrix_bytes
    from fitcheck.estimate.tensors import layer_tensors

    shape, largest = question.shape, 0
    for index, letter in enumerate(shape.layers):
        if letter not in shape.layers[:index]:
            part = layer_tensors(shape.kinds[ord(letter) - 97], shape)
            matrices = [matrix for matrix in part.mixer + part.ffn + part.experts if matrix.rows > 1]
            for matrix in matrices:
                kind = question.weight_type(index, matrix.name) if question.weight_type else USUAL_TYPE
                largest = max(largest, padded_matrix_bytes(kind, matrix.columns, matrix.elements))
    return largest


def _layer_width(layer: Layer, d: int, question: BufferQuestion) -> int:
    """Numbers per token that a layer makes, none of them reused."""
    ffn = layer.ffn
    width = 16 * d + _mixer_width(layer.mixer, question) + 2 * layer.extra_params // max(1, d)
    if isinstance(ffn, DenseFeedForward):
        width += 3 * ffn.intermediate_size
    elif isinstance(ffn, MixtureOfExperts):
        width += ffn.experts_per_token * (3 * ffn.moe_intermediate_size + d) + 3 * ffn.n_experts
    return width


def _mixer_width(mixer: Mixer, question: BufferQuestion) -> int:
    scores = 0 if question.flash_attention else 2 * question.context_tokens
    if isinstance(mixer, Attention):
        return mixer.n_heads * (4 * mixer.head_dim + scores)
    if isinstance(mixer, LatentAttention):
        seen = 4 * question.context_tokens if mixer.indexer else 0
        return mixer.n_heads * (4 * (mixer.kv_lora_rank + mixer.qk_rope_head_dim) + scores) + seen
    if isinstance(mixer, CompressedAttention):
        return mixer.n_heads * (6 * mixer.head_dim + scores) + 4 * question.context_tokens
    if isinstance(mixer, ParallelMixers):
        return sum(_mixer_width(part, question) for part in mixer.parts)
    if isinstance(mixer, CountedMixer):
        return 4 * mixer.params // max(1, question.shape.hidden_size)
    if isinstance(mixer, (Mamba1, Mamba2)):
        return 12 * mixer.d_inner + 4 * mixer.d_state * getattr(mixer, "n_groups", 1)
    return 24 * question.shape.hidden_size  # linear attention and short convolutions
