"""From a question to bytes: choose the graph of the architecture, build it, plan it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fitcheck.estimate.graph.architectures import ARCHITECTURES
from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.deepseek4 import DeepSeekV4
from fitcheck.estimate.graph.encoder import Encoder
from fitcheck.estimate.graph.gemma import Gemma3n, Gemma4
from fitcheck.estimate.graph.glm_next import GlmNext
from fitcheck.estimate.graph.hrm import HrmText
from fitcheck.estimate.graph.model import ModelGraph, UnknownGraphError
from fitcheck.estimate.graph.plamo2 import PLaMo2
from fitcheck.estimate.graph.planner import CUDA_RULES, METAL_RULES, plan
from fitcheck.estimate.graph.qwen4exp import Qwen4Exp
from fitcheck.estimate.graph.rwkv import Rwkv
from fitcheck.estimate.graph.streams import HunyuanV4, KimiK3
from fitcheck.estimate.graph.t5 import T5Decoder, T5Encoder
from fitcheck.estimate.graph.tensors import HOST
from fitcheck.estimate.graph.variants import Arctic, Chameleon, CogVlm, Talkie
from fitcheck.types import Backend

if TYPE_CHECKING:
    from fitcheck.estimate.buffers import BufferQuestion

LARGEST = 4  # copied weights that may be the largest, depending on their types


class _Builder(Protocol):
    def __init__(self, g: ModelGraph) -> None: ...

    def build(self) -> None:
        """Build the whole graph."""


_BUILDERS: dict[str, type[_Builder]] = {
    "decoder": Decoder,
    "deepseek4": DeepSeekV4,
    "encoder": Encoder,
    "gemma3n": Gemma3n,
    "gemma4": Gemma4,
    "glm_next": GlmNext,
    "hy_v4": HunyuanV4,
    "kimi_k3": KimiK3,
    "qwen4exp": Qwen4Exp,
    "plamo2": PLaMo2,
    "hrm_text": HrmText,
    "rwkv": Rwkv,
    "t5": T5Decoder,
    "t5_encoder": T5Encoder,
    "arctic": Arctic,
    "chameleon": Chameleon,
    "cogvlm": CogVlm,
    "talkie": Talkie,
}


def planned_bytes(question: BufferQuestion) -> tuple[int, ...] | None:
    """Bytes per device as the engine plans them, or None where this program has no graph for the model."""
    graph = built(question)
    if graph is None:
        return None
    return plan(graph, _is_pipelined(question), METAL_RULES if question.backend is Backend.METAL else CUDA_RULES)


def built(question: BufferQuestion) -> ModelGraph | None:
    """The engine's graph, or None where this program has none for the model."""
    traits = ARCHITECTURES.get(question.architecture)
    if traits is None:
        return None
    try:
        graph = ModelGraph(question, traits)
        _BUILDERS[traits.family](graph).build()
    except UnknownGraphError:
        return None
    return graph


def copied_weights(question: BufferQuestion) -> list[tuple[int, str, int, int]]:
    """The largest weights that a split copies to a GPU: (first layer that has it, name, row length, elements)."""
    graph = built(question)
    if graph is None:
        return []
    found: dict[tuple[str, int, int], int] = {}
    for (layer, name, _), weight in graph.host_weights.items():
        found.setdefault((name, weight.ne[0], weight.elements), layer)
    largest = sorted(found, key=lambda key: (-key[2], key[0]))[:LARGEST]
    return [(found[key], *key) for key in largest]


def _is_pipelined(question: BufferQuestion) -> bool:
    """Several GPUs work on several micro-batches at once if nothing lies on the host."""
    devices = question.layer_devices
    return max(devices, default=HOST) > 1 and HOST not in devices and not question.cpu_expert_layers
