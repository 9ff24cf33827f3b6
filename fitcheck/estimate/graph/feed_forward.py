"""Feed-forward blocks: dense ones and mixtures of experts.

Source: llama.cpp 0c1e57098, llm_graph_context::build_ffn and build_moe_ffn.
"""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.estimate.graph.model import MAX_EXPERTS, ModelGraph, UnknownGraphError
from fitcheck.estimate.graph.tensors import HOST, Dims, Tensor
from fitcheck.types import DenseFeedForward, MixtureOfExperts

FUSED_EXPERTS = range(2, 16)  # CUDA weighs and adds so many at once (MOE_WEIGHTED_REDUCTION_MAX_EXPERTS)


def feed_forward(
    g: ModelGraph, il: int, x: Tensor, spec: DenseFeedForward | MixtureOfExperts, routing: Tensor | None = None
) -> Tensor:
    """The feed-forward block of one layer over its normalised input; ``routing``: router logits made before."""
    if isinstance(spec, DenseFeedForward):
        return dense(g, il, x, spec.intermediate_size, spec.gated, spec.bias)
    if spec.chunk_experts:
        return experts_with_chunks(g, il, x, spec)
    y = latent_experts(g, il, x, spec) if spec.latent else experts(g, il, x, spec, routing)
    if spec.dense_parallel:
        y = g.scale(g.add(dense(g, il, x, spec.dense_parallel, spec.gated), y))
    return g.add(y, shared_expert(g, il, x, spec)) if shared_width(spec) else y


def shared_width(spec: MixtureOfExperts) -> int:
    """Width of all shared experts together."""
    return spec.shared_intermediate_size or spec.n_shared * spec.moe_intermediate_size


def dense(
    g: ModelGraph, il: int, x: Tensor, width: int, gated: bool = True, bias: bool = False, suffix: str = ""
) -> Tensor:
    """Up, activation (gated by a second projection), down. ``suffix`` names the weights: ``_shexp`` …"""
    kind = g.traits.dense if not suffix else "split"
    if gated and kind == "fused":
        y = g.glu(g.linear(il, "ffn_up", 2 * width, x, bias))
    else:
        up = g.linear(il, f"ffn_up{suffix}", width, x, bias)
        if gated:
            y = gated_unit(g, g.linear(il, f"ffn_gate{suffix}", width, x, bias), up)
        else:
            y = g.unary(up)
            if g.traits.squares:
                y = g.same("SQR", y)
    if g.traits.sub_norms:
        y = g.norm(y, il, "ffn_sub_norm")
    return g.linear(il, f"ffn_down{suffix}", g.d, y, bias)


def gated_unit(g: ModelGraph, gate: Tensor, up: Tensor) -> Tensor:
    """The activation of a gated block: one operation, but for Kimi K3, which bends both branches by tanh."""
    if not g.traits.bends_gate:
        return g.glu(gate, up)
    bent = g.mul(g.scale(g.unary(g.scale(gate))), g.unary(gate))
    return g.mul(bent, g.scale(g.unary(g.scale(up))))


def shared_expert(g: ModelGraph, il: int, x: Tensor, spec: MixtureOfExperts) -> Tensor:
    """The expert that every token passes, with its gate where it has one."""
    y = dense(g, il, x, shared_width(spec), spec.gated, suffix="_shexp")
    if not spec.shared_gate:
        return y
    logits = g.matmul(il, "ffn_gate_inp_shexp", 1, x, "f32")
    gate = g.unary(logits)
    return g.mul(y, g.same("DIV", gate, logits) if g.traits.divides_shared_gate else gate)


def latent_experts(g: ModelGraph, il: int, x: Tensor, spec: MixtureOfExperts) -> Tensor:
    """Experts that work in a smaller space (Nemotron 3, Kimi K3)."""
    assert spec.latent is not None
    logits = g.matmul(il, "ffn_gate_inp", spec.n_experts, x, "f32")
    y = experts(g, il, g.matmul(il, "ffn_latent_down", spec.latent, x), spec, logits)
    if spec.latent_norm:
        y = g.norm(y, il, "ffn_latent_norm")
    return g.matmul(il, "ffn_latent_up", g.d, y)


def experts_with_chunks(g: ModelGraph, il: int, x: Tensor, spec: MixtureOfExperts) -> Tensor:
    """Experts, and what small ones that several of them share make of their sum (GroveMoE)."""
    logits = g.matmul(il, "ffn_gate_inp", spec.n_experts, x, "f32")
    y = experts(g, il, x, spec, logits)
    chunks = replace(
        spec,
        n_experts=spec.chunk_experts,
        experts_per_token=min(spec.experts_per_token, spec.chunk_experts),
        moe_intermediate_size=spec.chunk_intermediate_size,
    )
    return g.add(y, g.scale(experts(g, il, y, chunks, logits, "chexps")))


def experts(
    g: ModelGraph, il: int, x: Tensor, spec: MixtureOfExperts, logits: Tensor | None = None, suffix: str = "exps"
) -> Tensor:
    """Route, run the chosen experts, weigh and add them. ``suffix`` names their weights."""
    traits = g.traits
    if not 0 < spec.experts_per_token <= spec.n_experts <= MAX_EXPERTS:
        raise UnknownGraphError("number of experts")
    if logits is None:
        logits = g.matmul(il, "ffn_gate_inp", spec.n_experts, x, "f32")
    chosen, weights = _route(g, il, logits, spec)
    before = len(g.nodes)
    g.expand(weights)
    if g.fuses and _is_chosen_in_one_kernel(g, spec):
        weights.root.kept = _kept_while_choosing(g.nodes[before:])
    tokens, width = x.ne[1], x.ne[0]
    x = g.reshape(x, width, 1, tokens)
    if traits.weighs_input:
        x = g.mul(g.repeat(x, width, spec.experts_per_token, tokens, 1), weights)
    y = _activated(g, il, x, chosen, spec, suffix)
    y = _expert_matmul(g, il, f"ffn_down_{suffix}", width, y, chosen, spec)
    y = _expert_bias(g, il, "ffn_down_exps", y, chosen, spec)
    if traits.weighs_input:
        return _sum_of_experts(g, y, spec.experts_per_token)
    total = _sum_of_experts(g, g.mul(y, weights), spec.experts_per_token)
    if g.fuses and spec.experts_per_token in FUSED_EXPERTS:
        total.kept = (y, weights)
    return total


def _is_chosen_in_one_kernel(g: ModelGraph, spec: MixtureOfExperts) -> bool:
    """Whether CUDA chooses and weighs the experts of a token at once (ggml_cuda_should_use_topk_moe)."""
    n = spec.n_experts
    has_kernel = n in (288, 576) or (n <= 512 and n & (n - 1) == 0)
    is_usual = g.traits.gating_of(spec) != "softmax_of_chosen" and not g.traits.weighs_input
    is_usual = is_usual and not g.traits.ranks_by_sigmoid
    return has_kernel and is_usual and spec.expert_groups <= 1 and not spec.hash_routed


def _kept_while_choosing(nodes: list[Tensor]) -> tuple[Tensor, ...]:
    """All results from the probabilities on, and what they are made from."""
    order = next(i for i, node in enumerate(nodes) if node.op == "ARGSORT")
    first = max(i for i in range(order) if nodes[i].op in ("SOFT_MAX", "UNARY"))
    return tuple(dict.fromkeys(each.root for node in nodes[first:] for each in (node, *node.sources)))


def _route(g: ModelGraph, il: int, logits: Tensor, spec: MixtureOfExperts) -> tuple[Tensor, Tensor]:
    """Which experts, and their weights [1, chosen, tokens]."""
    traits = g.traits
    used, (n, tokens) = spec.experts_per_token, logits.ne[:2]
    if spec.router_bias and not traits.biases_choice(spec):
        logits = g.vector("ADD", il, "ffn_gate_inp_b", logits)
    gating = traits.gating_of(spec)
    if gating == "softmax":
        probabilities = g.same("SOFT_MAX", logits)
    elif gating == "sigmoid":
        probabilities = g.unary(logits)
    elif gating == "sqrt_softplus":
        probabilities = g.same("SQRT", g.unary(logits))
    else:
        probabilities = logits
    if spec.hash_routed:
        chosen = g.weight_rows(il, "ffn_gate_tid2eid", used, g.token_ids, "i32")
    else:
        chosen = _best(g, il, logits, probabilities, spec)
    weights = g.rows(g.reshape(probabilities, 1, n, tokens), chosen)
    if gating == "softmax_of_chosen":
        weights = g.reshape(g.same("SOFT_MAX", g.reshape(weights, used, tokens)), 1, used, tokens)
    if traits.normalises(spec):
        weights = g.reshape(weights, used, tokens)
        total = g.same("CLAMP", g.sum_rows(weights))
        weights = g.reshape(g.same("DIV", weights, total), 1, used, tokens)
    if traits.scales(spec):
        weights = g.scale(weights)
    return chosen, weights


def _best(g: ModelGraph, il: int, logits: Tensor, probabilities: Tensor, spec: MixtureOfExperts) -> Tensor:
    """Numbers of the experts that rank highest for each token: [chosen, tokens]."""
    traits = g.traits
    ranking = probabilities
    if traits.biases_choice(spec):
        ranking = g.vector("ADD", il, "exp_probs_b", probabilities)
    if traits.weighs_input:
        ranking = logits
    if traits.ranks_by_sigmoid:
        ranking = g.unary(logits)
    if spec.expert_groups > 1:
        ranking = _best_groups(g, ranking, spec)
    order = g.op("ARGSORT", "i32", ranking.ne, ranking)
    chosen = g.view(order, (spec.experts_per_token, logits.ne[1]), (order.nb()[1],))
    if logits.ne[0] == spec.n_experts:
        return chosen
    return g.op("CPY", "i32", chosen.ne, g.scale(g.op("CPY", "f32", chosen.ne, chosen)))  # of an expert to its chunk


def _best_groups(g: ModelGraph, ranking: Tensor, spec: MixtureOfExperts) -> Tensor:
    """Mask all experts outside the best groups (DeepSeek-V3, Ling)."""
    tokens, groups = ranking.ne[1], spec.expert_groups
    size = spec.n_experts // groups
    grouped = g.reshape(ranking, size, groups, tokens)
    order = g.op("ARGSORT", "i32", grouped.ne, grouped)
    top_two = g.view(order, (2, groups, tokens), order.nb()[1:3])
    scores = g.rows(g.reshape(grouped, 1, size, groups, tokens), top_two)
    scores = g.sum_rows(g.reshape(scores, 2, groups, tokens))
    scores = g.reshape(scores, groups, tokens)
    group_order = g.op("ARGSORT", "i32", scores.ne, scores)
    best = g.view(group_order, (spec.expert_groups_used, tokens), (group_order.nb()[1],))
    kept = g.rows(grouped, best)
    masked = g.write("SET_ROWS", g.same("FILL", grouped), kept, best)
    masked.sources = (kept, best, masked.root)
    return g.reshape(masked, spec.n_experts, tokens)


def _activated(g: ModelGraph, il: int, x: Tensor, chosen: Tensor, spec: MixtureOfExperts, suffix: str) -> Tensor:
    width, tokens = spec.moe_intermediate_size, chosen.ne[1]
    if g.traits.fused_experts:
        both = _expert_matmul(g, il, "ffn_gate_up_exps", 2 * width, x, chosen, spec)
        half = (width, spec.experts_per_token, tokens)
        return g.glu(g.view(both, half, both.nb()[1:3]), g.view(both, half, both.nb()[1:3]))
    up = _expert_matmul(g, il, f"ffn_up_{suffix}", width, x, chosen, spec)
    up = _expert_bias(g, il, "ffn_up_exps", up, chosen, spec)
    if not spec.gated:
        up = g.unary(up)
        return g.same("SQR", up) if g.traits.squares else up
    gate = _expert_matmul(g, il, f"ffn_gate_{suffix}", width, x, chosen, spec)
    gate = _expert_bias(g, il, "ffn_gate_exps", gate, chosen, spec)
    return gated_unit(g, gate, up)


def _expert_device(g: ModelGraph, il: int) -> int:
    return HOST if il < g.expert_layers_on_host else g.layer_devices[il]


def _expert_matmul(
    g: ModelGraph, il: int, name: str, width: int, x: Tensor, chosen: Tensor, spec: MixtureOfExperts
) -> Tensor:
    tokens = x.ne[2]
    node = g.op("MUL_MAT_ID", "f32", (width, chosen.ne[0], tokens), x, chosen)
    node.experts = spec.n_experts
    ne: Dims = (x.ne[0], width, spec.n_experts, 1)
    return g.tied(node, _expert_device(g, il), il, name, ne, tokens)


def _expert_bias(g: ModelGraph, il: int, name: str, y: Tensor, chosen: Tensor, spec: MixtureOfExperts) -> Tensor:
    if not spec.bias:
        return y
    node = g.op("ADD_ID", "f32", y.ne, y)
    device = _expert_device(g, il)
    g.tied(node, device, il, name, (y.ne[0], spec.n_experts, 1, 1), y.ne[1] * y.ne[2], "f32")
    node.sources = (*node.sources, chosen)
    return node


def _sum_of_experts(g: ModelGraph, y: Tensor, used: int) -> Tensor:
    """Views of all experts first, then one sum after the other."""
    g.expand(y)
    row = y.nb()[2]
    parts = [g.expand(g.view(y, (y.ne[0], y.ne[2]), (row,))) for _ in range(used)]
    total = parts[0]
    for part in parts[1:]:
        total = g.expand(g.add(total, part))
    return g.cont(total) if used == 1 else total
