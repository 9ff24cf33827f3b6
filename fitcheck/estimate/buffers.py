"""Compute and output buffers of llama.cpp: the scratch memory that its graph needs beside weights and caches.

``compute_buffers`` answers for one placement, per device. Where the engine's graph is known
(``fitcheck.estimate.graph``) the answer is the engine's own allocation plan, to the byte; for an unknown architecture
it is an upper bound, and ``ComputeBuffers.exact`` says so. Source: llama.cpp 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from fitcheck.types import Attention, Backend, DenseFeedForward, LatentAttention, MixtureOfExperts, Shape

HOST = 0  # device number of the host in ``BufferQuestion.layer_devices`` and index of its bytes in the answer


class BufferQuestion(Struct, frozen=True, kw_only=True):
    """One model in one placement.

    ``layer_devices`` holds a device number per layer and one more for the output matrix: 0 is the host, 1 the first
    GPU, 2 the second, … Empty means that everything is on the host. ``cpu_expert_layers`` is ``--n-cpu-moe``: so many
    layers from the first keep their routed experts on the host. ``weight_type(layer, name)`` names the ggml type of
    the weight ``blk.<layer>.<name>.weight`` (``ffn_down_exps`` …); asked only for weights on the host beside a GPU,
    which the engine copies to the GPU for large batches. ``outputs`` is how many tokens' logits one micro-batch keeps
    (0: all of them, as llama-bench and the raw library do). ``flash_attention`` is the resolved setting.
    ``model`` is the catalog's id: with it a precomputed answer is found in the ``BufferTable``.
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
    swa_full: bool = False
    kv_unified: bool = False
    layer_devices: tuple[int, ...] = ()
    cpu_expert_layers: int = 0
    weight_type: Callable[[int, str], str] | None = None
    backend: Backend = Backend.CUDA
    embedding: bool = False
    model: str = ""


class ComputeBuffers(Struct, frozen=True):
    """Bytes per device: the host first, then each GPU. ``exact`` is False for the upper bound."""

    bytes: tuple[int, ...]
    exact: bool


def compute_buffers(question: BufferQuestion) -> ComputeBuffers:
    """Bytes of the compute buffer on (host, first GPU, second GPU, …)."""
    from fitcheck.estimate.graph.whole import planned_bytes  # imported late: most answers come from the table

    planned = planned_bytes(question)
    return ComputeBuffers(planned, True) if planned is not None else _upper_bound(question)


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


def _upper_bound(question: BufferQuestion) -> ComputeBuffers:
    """A bound for graphs that this program does not know: the widest layer without any reuse, masks and logits."""
    shape = question.shape
    tokens = min(question.context_tokens, question.ubatch_tokens)
    outputs = min(tokens, question.outputs or tokens)
    d = shape.hidden_size
    width = 0
    for layer in shape.kinds:
        mixer, ffn, wide = layer.mixer, layer.ffn, 6 * d
        if isinstance(mixer, Attention):
            heads = mixer.n_heads * mixer.head_dim
            wide += 4 * heads + (0 if question.flash_attention else 2 * mixer.n_heads * question.context_tokens)
        elif isinstance(mixer, LatentAttention):
            wide += 4 * mixer.n_heads * (mixer.kv_lora_rank + mixer.qk_rope_head_dim)
        if isinstance(ffn, DenseFeedForward):
            wide += 3 * ffn.intermediate_size
        elif isinstance(ffn, MixtureOfExperts):
            wide += ffn.experts_per_token * (3 * ffn.moe_intermediate_size + d) + 3 * ffn.n_experts
        width = max(width, wide)
    mask = question.context_tokens * tokens * (2 if question.flash_attention else 4) * 2
    full = 4 * tokens * width + mask + 4 * outputs * (shape.vocab_size + d) + 4 * d * tokens
    gpus = max(question.layer_devices, default=0)
    if not gpus:
        return ComputeBuffers((full,), False)
    copies = 4 if gpus > 1 else 1
    on_gpu = full + copies * (mask + 4 * d * tokens)
    return ComputeBuffers((copies * (8 * d * tokens + mask), *[on_gpu] * gpus), False)
