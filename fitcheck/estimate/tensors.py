"""A model's shape -> its tensors, as llama.cpp's files hold them.

Every layer is described by its matrices (which a quantisation may change) and by how many numbers stay in 32 bits
whatever the quantisation: norms, biases, routers, short convolutions. Matrix names are llama.cpp's without ``.weight``,
because its quantisation rules go by name. Source: the ``load_arch_tensors`` functions of llama.cpp 0c1e570.
"""

from __future__ import annotations

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
    ParallelMixers,
    Shape,
    ShortConvolution,
)


class Matrix(Struct, frozen=True):
    """A two-dimensional weight, or a stack of them: ``stack`` matrices of ``columns`` x ``rows`` (elements per row)."""

    name: str
    columns: int
    rows: int
    stack: int = 1

    @property
    def elements(self) -> int:
        """Elements of all matrices of the stack."""
        return self.columns * self.rows * self.stack


class Part(Struct, frozen=True):
    """One side of a layer: its matrices, elements that stay F32, and elements that stay in the trained 16 bits."""

    matrices: tuple[Matrix, ...] = ()
    float32: int = 0
    kept: int = 0

    @property
    def elements(self) -> int:
        """All elements, which is the parameter count of the part."""
        return sum(matrix.elements for matrix in self.matrices) + self.float32 + self.kept


class LayerTensors(Struct, frozen=True):
    """The tensors of one kind of layer, by how often they are read (see ``types.LayerBytes``)."""

    mixer: Part
    ffn: Part
    experts: Part


def _attention(a: Attention, hidden: int, fused: bool) -> Part:
    head_v = a.v_head_dim or a.head_dim
    q = a.n_heads * a.head_dim
    k = 0 if a.kv_shared else a.n_kv_heads * a.head_dim
    v = 0 if a.kv_shared else a.n_kv_heads * head_v
    matrices = []
    if fused:
        matrices.append(Matrix("attn_qkv", hidden, q + k + v))
    else:
        matrices.append(Matrix("attn_q", hidden, 2 * q if a.gate == "q_double" else q))
        if k:
            matrices.append(Matrix("attn_k", hidden, k))
        if v and not a.k_eq_v:
            matrices.append(Matrix("attn_v", hidden, v))
    if a.gate == "full":
        matrices.append(Matrix("attn_gate", hidden, a.n_heads * head_v))
    elif a.gate == "per_head":
        matrices.append(Matrix("attn_gate", hidden, a.n_heads))
    matrices.append(Matrix("attn_output", a.n_heads * head_v, hidden))
    biases = {"q": q, "k": k, "v": v, "o": hidden}
    float32 = sum(biases[letter] for letter in a.bias)
    if a.qk_norm == "per_head":
        float32 += a.head_dim * (1 if a.kv_shared else 2)
    elif a.qk_norm:
        float32 += q + k
    if a.sinks:
        float32 += a.n_heads
    return Part(tuple(matrices), float32 + a.extra_params)


def _indexer(i: Indexer, hidden: int, q_rank: int) -> Part:
    matrices = (
        Matrix("indexer.attn_q_b", q_rank, i.n_heads * i.head_dim),
        Matrix("indexer.attn_k", hidden, i.head_dim),
        Matrix("indexer.proj", hidden, i.n_heads),
    )
    return Part(matrices, 2 * i.head_dim)


def _latent(a: LatentAttention, hidden: int) -> Part:
    head_qk = a.qk_nope_head_dim + a.qk_rope_head_dim
    if a.q_lora_rank:
        matrices = [
            Matrix("attn_q_a", hidden, a.q_lora_rank),
            Matrix("attn_q_b", a.q_lora_rank, a.n_heads * head_qk),
        ]
    else:
        matrices = [Matrix("attn_q", hidden, a.n_heads * head_qk)]
    matrices += [
        Matrix("attn_kv_a_mqa", hidden, a.kv_lora_rank + a.qk_rope_head_dim),
        Matrix("attn_k_b", a.qk_nope_head_dim, a.kv_lora_rank, a.n_heads),
        Matrix("attn_v_b", a.kv_lora_rank, a.v_head_dim, a.n_heads),
        Matrix("attn_output", a.n_heads * a.v_head_dim, hidden),
    ]
    float32 = (a.q_lora_rank or 0) + a.kv_lora_rank + a.extra_params
    if a.indexer is not None:
        indexer = _indexer(a.indexer, hidden, a.q_lora_rank or hidden)
        matrices += indexer.matrices
        float32 += indexer.float32
    if a.gate == "full":
        matrices.append(Matrix("attn_gate", hidden, a.n_heads * a.v_head_dim))
    elif a.gate == "per_head":
        matrices.append(Matrix("attn_gate", hidden, a.n_heads))
    return Part(tuple(matrices), float32)


def _compressed(a: CompressedAttention, hidden: int) -> Part:
    """DeepSeek-V4: low-rank queries, one shared key-value head, output in groups, a compressor per compressed layer."""
    group_width = a.n_heads * a.head_dim // a.o_groups
    matrices = [
        Matrix("attn_q_a", hidden, a.q_lora_rank),
        Matrix("attn_q_b", a.q_lora_rank, a.n_heads * a.head_dim),
        Matrix("attn_kv", hidden, a.head_dim),
        Matrix("attn_output_a", group_width, a.o_lora_rank * a.o_groups),
        Matrix("attn_output_b", a.o_groups * a.o_lora_rank, hidden),
    ]
    float32 = a.q_lora_rank + a.head_dim + a.n_heads
    if a.compress_ratio:
        overlap = 2 if a.compress_ratio == 4 else 1
        width = overlap * a.head_dim
        matrices += [
            Matrix("attn_compressor_kv", hidden, width),
            Matrix("attn_compressor_gate", hidden, width),
            Matrix("attn_compressor_ape", width, a.compress_ratio),
        ]
        float32 += a.head_dim
    if a.indexer is not None:
        width = 2 * a.indexer.head_dim
        matrices += [
            Matrix("indexer.attn_q_b", a.q_lora_rank, a.indexer.n_heads * a.indexer.head_dim),
            Matrix("indexer.proj", hidden, a.indexer.n_heads),
            Matrix("indexer_compressor_kv", hidden, width),
            Matrix("indexer_compressor_gate", hidden, width),
            Matrix("indexer_compressor_ape", width, a.compress_ratio),
        ]
        float32 += a.indexer.head_dim
    return Part(tuple(matrices), float32)


def _mamba1(m: Mamba1, hidden: int) -> Part:
    matrices = (
        Matrix("ssm_in", hidden, 2 * m.d_inner),
        Matrix("ssm_x", m.d_inner, m.dt_rank + 2 * m.d_state),
        Matrix("ssm_dt", m.dt_rank, m.d_inner),
        Matrix("ssm_out", m.d_inner, hidden),
    )
    # convolution and its bias, time step bias, A, D
    float32 = m.d_inner * (m.conv_kernel + 1 + 1 + m.d_state + 1)
    return Part(matrices, float32 + (m.dt_rank + 2 * m.d_state if m.inner_norms else 0))


def _mamba2(m: Mamba2, hidden: int) -> Part:
    channels = m.d_inner + 2 * m.n_groups * m.d_state
    matrices = (
        Matrix("ssm_in", hidden, m.d_inner + channels + m.n_heads),
        Matrix("ssm_out", m.d_inner, hidden),
    )
    # convolution and its bias; time step bias, A and D per head; gated norm
    return Part(matrices, channels * (m.conv_kernel + 1) + 3 * m.n_heads + (m.d_inner if m.norm else 0))


def _delta_net(m: GatedDeltaNet, hidden: int) -> Part:
    value = m.n_v_heads * m.v_head_dim
    channels = 2 * m.n_k_heads * m.k_head_dim + value
    matrices = (
        Matrix("attn_qkv", hidden, channels),
        Matrix("attn_gate", hidden, value),
        Matrix("ssm_alpha", hidden, m.n_v_heads),
        Matrix("ssm_beta", hidden, m.n_v_heads),
        Matrix("ssm_out", value, hidden),
    )
    return Part(matrices, channels * m.conv_kernel + 2 * m.n_v_heads + m.v_head_dim)


def _kimi_delta(m: KimiDelta, hidden: int) -> Part:
    inner = m.n_heads * m.head_dim
    matrices = [Matrix(name, hidden, inner) for name in ("attn_q", "attn_k", "attn_v")]
    for name, full_rank in (("ssm_f", m.full_rank_decay), ("ssm_g", m.full_rank_gate)):
        if full_rank:
            matrices.append(Matrix(name + "_a", hidden, inner))
        else:
            matrices += [Matrix(name + "_a", hidden, m.head_dim), Matrix(name + "_b", m.head_dim, inner)]
    matrices += [Matrix("ssm_beta", hidden, m.n_heads), Matrix("attn_output", inner, hidden)]
    # three convolutions, time step bias, A, norm of the heads
    return Part(tuple(matrices), 3 * inner * m.conv_kernel + inner + m.n_heads + m.head_dim)


def _short_convolution(m: ShortConvolution, hidden: int) -> Part:
    matrices = (
        Matrix("shortconv.in_proj", hidden, 3 * m.channels),
        Matrix("shortconv.out_proj", m.channels, hidden),
    )
    return Part(matrices, m.channels * m.conv_kernel)


def _lightning(m: LightningAttention, hidden: int) -> Part:
    inner = m.n_heads * m.head_dim
    matrices = (
        Matrix("attn_qkv", hidden, 3 * inner),
        Matrix("attn_gate", hidden, inner),
        Matrix("attn_output", inner, hidden),
    )
    return Part(matrices, inner)


def _counted(m: CountedMixer, hidden: int) -> Part:
    """Only a count is known: matrices of the hidden size, which a K-quant can hold where the hidden size lets it."""
    rows, rest = divmod(m.params, hidden)
    return Part((Matrix("mixer", hidden, rows),), rest)


def mixer_part(mixer: Mixer, hidden: int, fused_qkv: bool) -> Part:
    """Tensors of a mixer in a model of ``hidden`` width; ``fused_qkv``: Q, K and V lie in one tensor."""
    if isinstance(mixer, Attention):
        return _attention(mixer, hidden, fused_qkv)
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
        return _joined(tuple(mixer_part(part, hidden, fused_qkv) for part in mixer.parts))
    return Part()


def _joined(parts: tuple[Part, ...]) -> Part:
    return Part(
        tuple(matrix for part in parts for matrix in part.matrices),
        sum(part.float32 for part in parts),
        sum(part.kept for part in parts),
    )


def _mlp(prefix: str, hidden: int, width: int, gated: bool, stack: int = 1) -> tuple[Matrix, ...]:
    names = ("ffn_gate", "ffn_up") if gated else ("ffn_up",)
    into = tuple(Matrix(name + prefix, hidden, width, stack) for name in names)
    return (*into, Matrix("ffn_down" + prefix, width, hidden, stack))


def _experts(m: MixtureOfExperts, hidden: int) -> tuple[Part, Part]:
    router_outputs = m.router_outputs or m.n_experts
    matrices: tuple[Matrix, ...] = ()
    float32 = hidden * router_outputs + (router_outputs if m.router_bias else 0)
    shared = m.shared_intermediate_size
    if shared is None and m.n_shared:
        shared = m.n_shared * m.moe_intermediate_size
    if shared:
        matrices += _mlp("_shexp", hidden, shared, m.gated)
    if m.shared_gate:
        float32 += hidden
    if m.dense_parallel:
        matrices += _mlp("", hidden, m.dense_parallel, m.gated)
    width = m.expert_hidden or hidden
    if m.latent:
        matrices += (
            Matrix("ffn_latent_down", hidden, m.latent),
            Matrix("ffn_latent_up", m.latent, hidden),
        )
        width = m.latent
        float32 += m.latent_norm
    routed = _mlp("_exps", width, m.moe_intermediate_size, m.gated, m.n_experts)
    biases = m.n_experts * (m.moe_intermediate_size * (2 if m.gated else 1) + width) if m.bias else 0
    return Part(matrices, float32), Part(routed, biases)


def ffn_parts(ffn: FeedForward, hidden: int) -> tuple[Part, Part]:
    """Tensors of a feed-forward: those every token reads, and the routed experts."""
    if isinstance(ffn, DenseFeedForward):
        matrices = _mlp("", hidden, ffn.intermediate_size, ffn.gated)
        biases = ffn.intermediate_size * (2 if ffn.gated else 1) + hidden if ffn.bias else 0
        return Part(matrices, biases), Part()
    if isinstance(ffn, MixtureOfExperts):
        return _experts(ffn, hidden)
    return Part(), Part()


def layer_tensors(layer: Layer, shape: Shape, fused_qkv: bool = False) -> LayerTensors:
    """Tensors of one kind of layer; its norms and unmodelled parameters count to the mixer."""
    hidden = shape.hidden_size
    mixer = mixer_part(layer.mixer, hidden, fused_qkv)
    ffn, experts = ffn_parts(layer.ffn, hidden)
    norms = layer.norms * hidden * shape.norm_factor
    mixer = Part(mixer.matrices, mixer.float32 + norms + layer.extra_params, mixer.kept)
    return LayerTensors(mixer, ffn, experts)


def parameters(shape: Shape) -> tuple[int, int]:
    """Parameters of the text model: all of them, and those read per token (input embedding and tables left out)."""
    total = active = 0
    counts = [0] * len(shape.kinds)
    for letter in shape.layers:
        counts[ord(letter) - 97] += 1
    for count, kind in zip(counts, shape.kinds, strict=True):
        tensors = layer_tensors(kind, shape)
        always = tensors.mixer.elements + tensors.ffn.elements
        routed = tensors.experts.elements
        total += count * (always + routed)
        share = kind.ffn.experts_per_token / kind.ffn.n_experts if isinstance(kind.ffn, MixtureOfExperts) else 0
        active += count * (always + round(routed * share))
    embedding = shape.vocab_size * shape.hidden_size
    head = 0 if shape.no_lm_head else embedding
    norms = shape.final_norms * shape.hidden_size * shape.norm_factor
    rest = norms + (shape.vocab_size if shape.lm_head_bias else 0)
    tables = shape.learned_positions * shape.hidden_size + shape.per_layer_embedding_params + shape.lookup_params
    total += embedding + (0 if shape.tie_word_embeddings else head) + rest + tables + shape.extra_params
    active += head + rest + shape.extra_params
    return total, active * shape.num_loops
