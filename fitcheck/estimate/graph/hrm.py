"""HRM-Text: a low and a high stack of layers, run in cycles over the same tokens, each pass with a cache of its own.

Source: llama.cpp 0c1e57098, src/models/hrm-text.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import attention
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import ModelGraph, UnknownGraphError, expect
from fitcheck.estimate.graph.tensors import HOST, Tensor
from fitcheck.types import Attention, DenseFeedForward

HIGH_CYCLES = 2  # of whatever number: one state more than a stack works on lies aside in any pass but the last


class HrmText:
    """All cycles. Every pass uses the weights of the first, so that layers have to be on one device."""

    def __init__(self, g: ModelGraph) -> None:
        if len({*g.layer_devices[:-1]}) > 1 or (g.gpus and HOST in g.layer_devices):
            raise UnknownGraphError("passes over several devices")
        self.g = g
        self.caches = g.cache_inputs()
        self.stack = len(g.layers) // (2 * g.shape.num_loops)
        self.passes = 0
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embedding, low passes and a high one in each cycle, head."""
        g = self.g
        high = g.embed()
        low: Tensor | None = None
        for _ in range(HIGH_CYCLES):
            for _ in range(g.shape.num_loops * 2 // HIGH_CYCLES - 1):
                low = self._pass(g.add(high, low) if low is not None else g.vector("ADD", 0, "hrm.z_l_init", high))
            high = self._pass(g.add(high, expect(low, Tensor)))
        g.logits(g.rows(high, self.output_rows))

    def _pass(self, x: Tensor) -> Tensor:
        """One stack, and a norm behind it."""
        g = self.g
        first = self.passes * self.stack
        self.passes += 1
        for il in range(first, first + self.stack):
            spec, ffn = expect(g.layers[il].mixer, Attention), expect(g.layers[il].ffn, DenseFeedForward)
            x = g.add(attention(g, il, g.norm(x, il, "attn_norm"), spec, self.caches), x)
            x = g.add(feed_forward(g, il, g.norm(x, il, "ffn_norm"), ffn), x)
        return g.norm(x, first, "stack_norm")
