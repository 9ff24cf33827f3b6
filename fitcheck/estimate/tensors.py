"""A model's shape -> its tensors, as llama.cpp's files hold them.

Names are llama.cpp's without ``.weight``, because its quantisation rules go by name. What an architecture does in its
own way is data (``layouts`` in ``data/quantizations.json``). Source: the ``load_arch_tensors`` functions of llama.cpp
0c1e570; the sums reproduce the published parameter counts of the catalog.
"""

from __future__ import annotations

from math import log2

from msgspec import Struct

from fitcheck.types import (
    Attention,
    CompressedAttention,
    CountedMixer,
    DenseFeedForward,
    FeedForward,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    NgramEmbedding,
    ParallelMixers,
    Shape,
    ShortConvolution,
)

QUANTISED = "quantised"  # takes the type that the quantisation mix gives it
KEPT = "kept"  # stays in the 16 bits it was trained in
FLOAT32 = "float32"  # stays in 32 bits: norms, biases, routers, short convolutions


OVERLAPPED_RATIO = 4  # DeepSeek-V4 compresses overlapping windows at this ratio, which doubles the compressor
LOOKUP_COLUMNS = 256  # row of a looked-up table whose real row is not known; a multiple of every block


class Matrix(Struct, frozen=True):
    """A weight of ``stack`` matrices of ``rows`` rows, each of ``columns`` elements. A vector has one row."""

    name: str
    columns: int
    rows: int = 1
    stack: int = 1
    precision: str = QUANTISED

    @property
    def elements(self) -> int:
        """Elements of all matrices of the stack."""
        return self.columns * self.rows * self.stack


Part = tuple[Matrix, ...]


class LayerTensors(Struct, frozen=True):
    """The tensors of one kind of layer, by how often they are read (see ``types.LayerBytes``)."""

    mixer: Part
    ffn: Part
    experts: Part


class RopeFactors(Struct, frozen=True):
    """Frequency factors that some files carry, ``tables`` of them, each of half the rotated part of a head.

    Met when the vocabulary is in ``vocabulary`` and the context above ``context_above`` (both where given).
    ``layers`` "full": heads of full-attention layers, where windowed ones differ.
    """

    tables: int
    vocabulary: tuple[int, int] | None = None
    context_above: int = 0
    rotary: float = 1.0
    layers: str = "all"


Extra = tuple[str, str, str, str]  # name, columns, rows, precision; sizes are products of numbers and of Shape's words


class Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """How the files of one llama.cpp architecture differ from the usual.

    ``fused_qkv``: Q, K and V lie in one tensor; ``fused_experts``: gate and up of the routed experts do.
    ``stored_shared_kv``: layers that read another layer's cache have K and V weights of their own all the same.
    ``output_first``: the engine makes the tied output before the embedding, hence two copies even on one device.
    ``layer_scalars``: numbers per layer that are no parameters (a scale, norms that a converter makes up).
    ``embedding_norm``: the one norm outside layers belongs to the embedding, on the first layer's device.
    ``prediction_layers``: multi-token prediction layers in the file, counted as layers when they are split over
    devices, never loaded. ``kept``, ``at_least_q8``: names that the mix leaves alone or in 8 bits. ``*_extras`` name
    what ``Shape.extra_params`` and its kin count.
    ``gqa_of_first_layer``: heads are listed per layer, and quantisation rules ask about the first one.
    ``layers_of_70b``: how many make a model what llama.cpp calls 70B, ``multi_head_is_65b``: unless every query head
    has a KV head of its own.
    ``stored_vocabulary``: entries that files keep of a padded vocabulary. ``cache``: False for encoders, which keep
    nothing. ``windows``: False where the engine ignores sliding windows. ``indexer_cache``: elements of K and V per
    cell that an indexer keeps beside ordinary attention; ``indexer_keys``: how many keys that of latent attention
    keeps. ``header_bytes_per_token``: of a file's header per entry of the vocabulary: text, score, type and merges.
    """

    fused_qkv: bool = False
    fused_experts: bool = False
    stored_shared_kv: bool = False
    output_first: bool = False
    output: str | None = None
    layers_of_70b: int = 0
    multi_head_is_65b: bool = False
    layer_scalars: int = 0
    embedding_norm: bool = False
    pooler: bool = True
    prediction_layers: int = 0
    gqa_of_first_layer: bool = False
    stacked_experts_only: bool = False
    cache: bool = True
    windows: bool = True
    stored_vocabulary: int = 0
    indexer_cache: tuple[int, int] | None = None
    indexer_keys: int = 1
    header_bytes_per_token: int = 40
    kept: tuple[str, ...] = ()
    at_least_q8: tuple[str, ...] = ()
    rope_factors: tuple[RopeFactors, ...] = ()
    layer_extras: tuple[Extra, ...] = ()
    first_layer_extras: tuple[Extra, ...] = ()
    mixer_extras: tuple[Extra, ...] = ()
    output_extras: tuple[Extra, ...] = ()


PLAIN = Layout()


def vector(name: str, elements: int) -> Part:
    """A weight that stays in 32 bits, or nothing."""
    return (Matrix(name, elements, precision=FLOAT32),) if elements else ()


def elements(part: Part) -> int:
    """All elements of a part, which is its parameter count."""
    return sum(matrix.elements for matrix in part)


def _attention(a: Attention, hidden: int, layout: Layout) -> Part:
    head_v = a.v_head_dim or a.head_dim
    has_kv = layout.stored_shared_kv or not a.kv_shared
    q = a.n_heads * a.head_dim
    k = a.n_kv_heads * a.head_dim if has_kv else 0
    v = a.n_kv_heads * head_v if has_kv else 0
    part: Part
    if layout.fused_qkv:
        part = (Matrix("attn_qkv", hidden, q + k + v), *vector("attn_qkv.bias", q + k + v if "q" in a.bias else 0))
    else:
        part = (Matrix("attn_q", hidden, 2 * q if a.gate == "q_double" else q), *_bias(a, "q", q))
        if k:
            part += (Matrix("attn_k", hidden, k), *_bias(a, "k", k))
        if v and not a.k_eq_v:
            part += (Matrix("attn_v", hidden, v), *_bias(a, "v", v))
    part += _gate(a.gate, hidden, a.n_heads, head_v)
    part += (Matrix("attn_output", a.n_heads * head_v, hidden), *_bias(a, "o", hidden))
    if a.qk_norm:
        per_head = a.qk_norm == "per_head"
        part += vector("attn_q_norm", a.head_dim if per_head else q)
        part += vector("attn_k_norm", (a.head_dim if per_head else k) if has_kv else 0)
    return part + vector("attn_sinks", a.n_heads if a.sinks else 0)


def _bias(a: Attention, letter: str, width: int) -> Part:
    return vector(f"attn_{letter}.bias", width if letter in a.bias else 0)


def _gate(kind: str | None, hidden: int, heads: int, head_v: int) -> Part:
    if kind == "full":
        return (Matrix("attn_gate", hidden, heads * head_v),)
    return (Matrix("attn_gate", hidden, heads),) if kind == "per_head" else ()


def _indexer(i: Indexer, hidden: int, q_rank: int) -> Part:
    return (
        Matrix("indexer.attn_q_b", q_rank, i.n_heads * i.head_dim),
        Matrix("indexer.attn_k", hidden, i.head_dim),
        Matrix("indexer.proj", hidden, i.n_heads),
        *vector("indexer.k_norm", i.head_dim),
        *vector("indexer.k_norm.bias", i.head_dim),
    )


def _latent(a: LatentAttention, hidden: int) -> Part:
    head_qk = a.qk_nope_head_dim + a.qk_rope_head_dim
    part: Part
    if a.q_lora_rank:
        part = (
            Matrix("attn_q_a", hidden, a.q_lora_rank),
            *vector("attn_q_a_norm", a.q_lora_rank),
            Matrix("attn_q_b", a.q_lora_rank, a.n_heads * head_qk),
        )
    else:
        part = (Matrix("attn_q", hidden, a.n_heads * head_qk),)
    part += (
        Matrix("attn_kv_a_mqa", hidden, a.kv_lora_rank + a.qk_rope_head_dim),
        *vector("attn_kv_a_norm", a.kv_lora_rank),
        *_decompression(a),
        Matrix("attn_output", a.n_heads * a.v_head_dim, hidden),
    )
    if a.indexer is not None:
        part += _indexer(a.indexer, hidden, a.q_lora_rank or hidden)
    return part + _gate(a.gate, hidden, a.n_heads, a.v_head_dim)


def _decompression(a: LatentAttention) -> Part:
    if not a.absorbed:
        return (Matrix("attn_kv_b", a.kv_lora_rank, a.n_heads * (a.qk_nope_head_dim + a.v_head_dim)),)
    return (
        Matrix("attn_k_b", a.qk_nope_head_dim, a.kv_lora_rank, a.n_heads),
        Matrix("attn_v_b", a.kv_lora_rank, a.v_head_dim, a.n_heads),
    )


def _compressed(a: CompressedAttention, hidden: int) -> Part:
    """DeepSeek-V4: low-rank queries, one shared key-value head, output in groups, a compressor per compressed layer."""
    part: Part = (
        Matrix("attn_q_a", hidden, a.q_lora_rank),
        *vector("attn_q_a_norm", a.q_lora_rank),
        Matrix("attn_q_b", a.q_lora_rank, a.n_heads * a.head_dim),
        Matrix("attn_kv", hidden, a.head_dim),
        *vector("attn_kv_norm", a.head_dim),
        *vector("attn_sinks", a.n_heads),
        Matrix("attn_output_a", a.n_heads * a.head_dim // a.o_groups, a.o_lora_rank * a.o_groups),
        Matrix("attn_output_b", a.o_groups * a.o_lora_rank, hidden),
    )
    if a.compress_ratio:
        overlap = 2 if a.compress_ratio == OVERLAPPED_RATIO else 1
        part += _compressor("attn_compressor", hidden, overlap * a.head_dim, a.compress_ratio, a.head_dim)
    if a.indexer is not None:
        part += (
            Matrix("indexer.attn_q_b", a.q_lora_rank, a.indexer.n_heads * a.indexer.head_dim),
            Matrix("indexer.proj", hidden, a.indexer.n_heads),
        )
        width = 2 * a.indexer.head_dim
        part += _compressor("indexer_compressor", hidden, width, a.compress_ratio, a.indexer.head_dim)
    return part


def _compressor(name: str, hidden: int, width: int, ratio: int, norm: int) -> Part:
    return (
        Matrix(f"{name}_kv", hidden, width),
        Matrix(f"{name}_gate", hidden, width),
        Matrix(f"{name}_ape", width, ratio),
        *vector(f"{name}_norm", norm),
    )


def _mamba1(m: Mamba1, hidden: int) -> Part:
    part: Part = (
        Matrix("ssm_in", hidden, 2 * m.d_inner),
        *vector("ssm_conv1d", m.d_inner * m.conv_kernel),
        *vector("ssm_conv1d.bias", m.d_inner),
        Matrix("ssm_x", m.d_inner, m.dt_rank + 2 * m.d_state),
        Matrix("ssm_dt", m.dt_rank, m.d_inner),
        *vector("ssm_dt.bias", m.d_inner),
        *vector("ssm_a", m.d_inner * m.d_state),
        *vector("ssm_d", m.d_inner),
        Matrix("ssm_out", m.d_inner, hidden),
    )
    if m.inner_norms:
        part += vector("ssm_dt_norm", m.dt_rank) + vector("ssm_b_norm", m.d_state) + vector("ssm_c_norm", m.d_state)
    return part


def _mamba2(m: Mamba2, hidden: int) -> Part:
    channels = m.d_inner + 2 * m.n_groups * m.d_state
    return (
        Matrix("ssm_in", hidden, m.d_inner + channels + m.n_heads),
        *vector("ssm_conv1d", channels * m.conv_kernel),
        *vector("ssm_conv1d.bias", channels),
        *vector("ssm_dt.bias", m.n_heads),
        *vector("ssm_a", m.n_heads),
        *vector("ssm_d", m.n_heads),
        *vector("ssm_norm", m.d_inner if m.norm else 0),
        Matrix("ssm_out", m.d_inner, hidden),
    )


def _delta_net(m: GatedDeltaNet, hidden: int) -> Part:
    value = m.n_v_heads * m.v_head_dim
    channels = 2 * m.n_k_heads * m.k_head_dim + value
    return (
        Matrix("attn_qkv", hidden, channels),
        Matrix("attn_gate", hidden, value),
        *vector("ssm_conv1d", channels * m.conv_kernel),
        *vector("ssm_dt.bias", m.n_v_heads),
        *vector("ssm_a", m.n_v_heads),
        Matrix("ssm_alpha", hidden, m.n_v_heads),
        Matrix("ssm_beta", hidden, m.n_v_heads),
        *vector("ssm_norm", m.v_head_dim),
        Matrix("ssm_out", value, hidden),
    )


def _kimi_delta(m: KimiDelta, hidden: int) -> Part:
    inner = m.n_heads * m.head_dim
    part: Part = tuple(Matrix(name, hidden, inner) for name in ("attn_q", "attn_k", "attn_v"))
    for name, full_rank in (("ssm_f", m.full_rank_decay), ("ssm_g", m.full_rank_gate)):
        if full_rank:
            part += (Matrix(name + "_a", hidden, inner),)
        else:
            part += (Matrix(name + "_a", hidden, m.head_dim), Matrix(name + "_b", m.head_dim, inner))
    part += tuple(Matrix(f"ssm_conv1d_{x}", inner * m.conv_kernel, precision=FLOAT32) for x in "qkv")
    return (
        *part,
        Matrix("ssm_beta", hidden, m.n_heads),
        *vector("ssm_a", m.n_heads),
        *vector("ssm_dt.bias", inner),
        *vector("ssm_norm", m.head_dim),
        Matrix("attn_output", inner, hidden),
    )


def _ngrams(spec: NgramEmbedding, hidden: int) -> Part:
    """Projections of the table's rows, norms and the convolution; the table itself lies outside layers."""
    width = spec.streams * hidden
    return (
        Matrix("ple_key", hidden, width),
        Matrix("ple_value", hidden, hidden),
        *(Matrix(f"ple_norm_{name}", width, precision=FLOAT32) for name in ("key", "query", "conv")),
        Matrix("ple_conv1d", spec.conv_kernel, width, precision=KEPT),
    )


def _short_convolution(m: ShortConvolution, hidden: int) -> Part:
    return (
        Matrix("shortconv.in_proj", hidden, 3 * m.channels),
        *vector("shortconv.conv", m.channels * m.conv_kernel),
        Matrix("shortconv.out_proj", m.channels, hidden),
    )


def _lightning(m: LightningAttention, hidden: int) -> Part:
    inner = m.n_heads * m.head_dim
    return (
        *vector("attn_norm_2", inner),
        Matrix("attn_qkv", hidden, 3 * inner),
        Matrix("attn_gate", hidden, inner),
        Matrix("attn_output", inner, hidden),
    )


def _counted(m: CountedMixer, hidden: int) -> Part:
    """Only a count is known: matrices of the hidden size, which a K-quant can hold where the hidden size lets it."""
    rows, rest = divmod(m.params, hidden)
    return (Matrix("mixer", hidden, rows), *vector("mixer.rest", rest))


def mixer_part(mixer: Mixer, hidden: int, layout: Layout = PLAIN) -> Part:
    """Tensors of a mixer in a model of ``hidden`` width."""
    if isinstance(mixer, Attention):
        return _attention(mixer, hidden, layout)
    if isinstance(mixer, LatentAttention):
        return _latent(mixer, hidden)
    if isinstance(mixer, CompressedAttention):
        return _compressed(mixer, hidden)
    if isinstance(mixer, Mamba1):
        return _mamba1(mixer, hidden)
    if isinstance(mixer, Mamba2):
        return _mamba2(mixer, hidden)
    if isinstance(mixer, GatedDeltaNet):
        return _delta_net(mixer, hidden)
    if isinstance(mixer, KimiDelta):
        return _kimi_delta(mixer, hidden)
    if isinstance(mixer, ShortConvolution):
        return _short_convolution(mixer, hidden)
    if isinstance(mixer, LightningAttention):
        return _lightning(mixer, hidden)
    if isinstance(mixer, CountedMixer):
        return _counted(mixer, hidden)
    if isinstance(mixer, ParallelMixers):
        return tuple(matrix for part in mixer.parts for matrix in mixer_part(part, hidden, layout))
    return ()


def _mlp(prefix: str, hidden: int, width: int, gated: bool, stack: int = 1, bias: bool = False) -> Part:
    names = ("ffn_gate", "ffn_up") if gated else ("ffn_up",)
    part: Part = tuple(Matrix(name + prefix, hidden, width, stack) for name in names)
    part += (Matrix("ffn_down" + prefix, width, hidden, stack),)
    if bias:
        part += tuple(vector(f"{name}{prefix}.bias", width * stack)[0] for name in names)
        part += vector(f"ffn_down{prefix}.bias", hidden * stack)
    return part


def _experts(m: MixtureOfExperts, hidden: int, layout: Layout) -> tuple[Part, Part]:
    router_outputs = m.router_outputs or m.n_experts
    always = vector("ffn_gate_inp", hidden * router_outputs)
    always += vector("exp_probs_b.bias", router_outputs if m.router_bias else 0)
    shared = m.shared_intermediate_size or m.n_shared * m.moe_intermediate_size
    if shared:
        always += _mlp("_shexp", hidden, shared, m.gated)
    always += vector("ffn_gate_inp_shexp", hidden if m.shared_gate else 0)
    if m.dense_parallel:
        always += _mlp("", hidden, m.dense_parallel, m.gated)
    width = m.latent or m.expert_hidden or hidden
    if m.latent:
        always += (Matrix("ffn_latent_down", hidden, m.latent), Matrix("ffn_latent_up", m.latent, hidden))
        always += vector("ffn_latent_norm", m.latent_norm)
    if layout.fused_experts:
        return always, (
            Matrix("ffn_gate_up_exps", width, 2 * m.moe_intermediate_size, m.n_experts),
            Matrix("ffn_down_exps", m.moe_intermediate_size, width, m.n_experts),
        )
    return always, _mlp("_exps", width, m.moe_intermediate_size, m.gated, m.n_experts, m.bias)


def ffn_parts(ffn: FeedForward, hidden: int, layout: Layout = PLAIN) -> tuple[Part, Part]:
    """Tensors of a feed-forward: those that every token reads, and the routed experts."""
    if isinstance(ffn, DenseFeedForward):
        return _mlp("", hidden, ffn.intermediate_size, ffn.gated, bias=ffn.bias), ()
    if isinstance(ffn, MixtureOfExperts):
        return _experts(ffn, hidden, layout)
    return (), ()


def _words(shape: Shape, mixer: Mixer | None = None) -> dict[str, int]:
    """The words that sizes of extras are written in."""
    words = {"hidden": shape.hidden_size, "layers": shape.n_layers, "heads": getattr(mixer, "n_heads", 0)}
    if shape.per_layer_embedding_params:
        words["per_layer"] = per_layer_width(shape)
    return words


def per_layer_width(shape: Shape) -> int:
    """Width of the per-layer input (Gemma 3n, Gemma 4). Its table may have fewer rows than the vocabulary."""
    wanted = shape.per_layer_embedding_params / (shape.vocab_size * shape.n_layers)
    return 1 << max(round(log2(wanted)), 0)


def _extras(extras: tuple[Extra, ...], count: int, words: dict[str, int], name: str) -> Part:
    """The tensors that ``count`` parameters are; what is not named stays in 32 bits."""
    if not count:
        return ()
    part = tuple(
        Matrix(extra, _size(columns, words), _size(rows, words), precision=precision)
        for extra, columns, rows, precision in extras
    )
    rest = count - elements(part)
    return part + vector(name, rest) if rest >= 0 else vector(name, count)


def _size(text: str, words: dict[str, int]) -> int:
    size = 1
    for factor in text.split("*"):
        size *= int(factor) if factor.isdigit() else words.get(factor, 0)
    return size


def layer_tensors(layer: Layer, shape: Shape, layout: Layout = PLAIN) -> LayerTensors:
    """Tensors of one kind of layer; its norms and extras count to the mixer."""
    hidden = shape.hidden_size
    mixer = mixer_part(layer.mixer, hidden, layout)
    words = _words(shape, layer.mixer)
    mixer += _extras(layout.mixer_extras, getattr(layer.mixer, "extra_params", 0), words, "mixer.extra")
    for _ in range(layer.norms * shape.norm_factor):
        mixer += vector("norm", hidden)
    mixer += _extras(layout.layer_extras, layer.extra_params, words, "extra")
    mixer += _ngrams(layer.ngrams, hidden) if layer.ngrams else ()
    mixer += vector("layer_output_scale", layout.layer_scalars)
    ffn, experts = ffn_parts(layer.ffn, hidden, layout)
    if isinstance(layer.ffn, MixtureOfExperts) and layer.ffn.hash_routed:
        ffn += vector("ffn_gate_tid2eid", layer.ffn.experts_per_token * shape.vocab_size)
    return LayerTensors(mixer, ffn, experts)


class OuterTensors(Struct, frozen=True):
    """Tensors outside layers. ``first_layer`` lie beside the first layer, ``output`` beside the output matrix.

    ``tied``: the embedding is the output matrix; a model without ``head`` that is not tied has no logits.
    """

    embedding: Matrix
    head: Part
    tied: bool
    tables: Part
    first_layer: Part
    output: Part


def outer_tensors(shape: Shape, layout: Layout = PLAIN) -> OuterTensors:
    """Tensors of a model outside its layers."""
    hidden, words = shape.hidden_size, _words(shape)
    norms: Part = ()
    for _ in range(shape.final_norms * shape.norm_factor):
        norms += vector("output_norm", hidden)
    own_head = not (shape.tie_word_embeddings or shape.no_lm_head)
    head = (Matrix("output", hidden, shape.vocab_size),) if own_head else ()
    output = vector("output.bias", shape.vocab_size if shape.lm_head_bias else 0)
    tables = vector("position_embd", shape.learned_positions * hidden)
    if shape.per_layer_embedding_params:
        tables += (Matrix("per_layer_token_embd", words["per_layer"] * shape.n_layers, shape.vocab_size),)
    if shape.lookup_params:
        ngrams = next((kind.ngrams for kind in shape.kinds if kind.ngrams), None)
        columns = hidden // ngrams.heads if ngrams else LOOKUP_COLUMNS
        tables += (Matrix("per_layer_token_embd", columns, shape.lookup_params // columns),)
    first: Part = ()
    extra = shape.extra_params
    if layout.embedding_norm:
        first, norms = norms, ()
        pooler = hidden * hidden + hidden
        extra -= pooler if not layout.pooler and extra > pooler else 0
        tables += vector("token_types", extra)
        extra = 0
    if layout.first_layer_extras and extra:
        first = _extras(layout.first_layer_extras, extra, words, "extra")
        named = len(layout.first_layer_extras)
        extra -= elements(first[:named])
        first = first[:named]
    output += norms + _extras(layout.output_extras, extra, words, "extra")
    tied = shape.tie_word_embeddings and not shape.no_lm_head
    return OuterTensors(Matrix("token_embd", hidden, shape.vocab_size), head, tied, tables, first, output)


def rope_factors(shape: Shape, layout: Layout, context_tokens: int) -> Part:
    """Frequency factors of the file: in every device's memory that holds layers, and no parameters."""
    for rule in layout.rope_factors:
        low, high = rule.vocabulary or (0, shape.vocab_size)
        if low <= shape.vocab_size <= high and context_tokens > rule.context_above:
            heads = [k.mixer for k in shape.kinds if isinstance(k.mixer, Attention)]
            full = [mixer for mixer in heads if not mixer.window] if rule.layers == "full" else heads
            if full:
                table = vector("rope_factors", round(full[0].head_dim * rule.rotary) // 2)
                return table * rule.tables
    return ()


def parameters(shape: Shape) -> tuple[int, int]:
    """Parameters of the text model: all of them, and those read per token (input embedding and tables left out)."""
    total = active = 0
    counts = [0] * len(shape.kinds)
    for letter in shape.layers:
        counts[ord(letter) - 97] += 1
    for count, kind in zip(counts, shape.kinds, strict=True):
        tensors = layer_tensors(kind, shape)
        always = elements(tensors.mixer) + elements(tensors.ffn)
        routed = elements(tensors.experts)
        total += count * (always + routed)
        share = kind.ffn.experts_per_token / kind.ffn.n_experts if isinstance(kind.ffn, MixtureOfExperts) else 0
        active += count * (always + round(routed * share))
    embedding = shape.vocab_size * shape.hidden_size
    head = 0 if shape.no_lm_head else embedding
    norms = shape.final_norms * shape.hidden_size * shape.norm_factor
    rest = norms + (shape.vocab_size if shape.lm_head_bias else 0) + shape.extra_params
    tables = shape.learned_positions * shape.hidden_size + shape.per_layer_embedding_params + shape.lookup_params
    total += embedding + (0 if shape.tie_word_embeddings else head) + rest + tables
    return total, active + head + rest
