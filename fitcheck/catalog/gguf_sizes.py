"""The numbers of a GGUF header by the names that llama.cpp gives them (src/llama-arch.cpp, 0c1e570)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
POOLING = {1: "mean", 2: "cls", 3: "last"}  # llama_pooling_type


class Sizes:
    """The whole numbers of one architecture's metadata; a per-layer array answers for its layer."""

    def __init__(self, architecture: str, metadata: Mapping[str, Any]) -> None:
        self._prefix = architecture + "."
        self._metadata = metadata

    def get(self, key: str, default: int = 0, layer: int = 0) -> int:
        """A whole number, or ``default`` where the file has none for this layer."""
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, (tuple, list)):
            value = value[layer] if layer < len(value) else None
        return int(value) if isinstance(value, int) and value >= 0 else default

    def array(self, key: str) -> Sequence[int] | None:
        """A per-layer array, or None."""
        value = self._metadata.get(self._prefix + key)
        return value if isinstance(value, (tuple, list)) else None

    def number(self, key: str) -> float:
        """A number, 0 where the file has none."""
        value = self._metadata.get(self._prefix + key)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return self._prefix + key in self._metadata

    @property
    def depth(self) -> int:
        """Layers that run; prediction heads behind them do not. HRM-Text counts each pass through its two stacks."""
        stack = self.get("hrm.layers_per_stack")
        return 2 * stack if stack else self.get("block_count") - self.get("nextn_predict_layers")

    @property
    def loops(self) -> int:
        """How many times the layers run."""
        if self.get("hrm.layers_per_stack"):
            return max(1, self.get("block_count") // self.depth)
        return max(1, self.get("num_loops", 1))
