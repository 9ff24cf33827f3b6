"""An image encoder as the engine plans it: bytes of its weights, and of its working memory on each device."""

from __future__ import annotations

from collections.abc import Callable

from fitcheck.estimate.graph.image import ImageGraph, bytes_of
from fitcheck.estimate.graph.image_kinds import KINDS
from fitcheck.estimate.graph.planner import CUDA_RULES, HOST_RULES, METAL_RULES, Device, plan
from fitcheck.types import Backend, MediaEncoder

GRAPHS = frozenset(KINDS)
"""Kinds of encoders that have a graph here."""


def weight_bytes(encoder: MediaEncoder, gpu: Device | None) -> int:
    """Bytes of the weights in one buffer."""
    graph = _graph(encoder, loaded_image(encoder), flash=True, gpus=0)
    alignment = (gpu or HOST_RULES).alignment
    return sum(bytes_of(weight, alignment) for weight in graph.weights.values())


def count_params(encoder: MediaEncoder) -> int:
    """Weights in the encoder's file."""
    return sum(weight.elements for weight in _graph(encoder, loaded_image(encoder), True, 0).weights.values())


def buffer_bytes(
    encoder: MediaEncoder, image: tuple[int, int], flash: bool, gpu: Device | None = None, has_kernel: bool = True
) -> tuple[int, ...]:
    """Working memory for an image of some pixels, on the host and on the GPU if there is one."""
    return plan(_graph(encoder, image, flash, int(gpu is not None), has_kernel), False, gpu)


def planned(
    encoder: MediaEncoder, backend: Backend | None, flash: bool | None, has_kernel: Callable[[int], bool]
) -> tuple[int, int, int]:
    """Bytes of the weights, of the host's buffer and of the GPU's, for the largest image that the engine accepts.

    ``backend`` None: all on the host. ``flash`` None: as the engine resolves it. It plans with flash attention when it
    loads the file, and then without where the GPU has no kernel for that; buffers only grow.
    """
    gpu = None if backend is None else METAL_RULES if backend is Backend.METAL else CUDA_RULES
    kernel = gpu is None or has_kernel(head_size(encoder))
    settings = [
        (loaded_image(encoder), flash is not False),
        (largest_image(encoder), kernel if flash is None else flash),
    ]
    plans = [buffer_bytes(encoder, image, with_flash, gpu, kernel) for image, with_flash in settings]
    host, *rest = (max(sizes) for sizes in zip(*plans, strict=True))
    return weight_bytes(encoder, gpu), host, sum(rest)


def head_size(encoder: MediaEncoder) -> int:
    """Elements of one attention head."""
    return encoder.head_size or (encoder.hidden_size // encoder.heads if encoder.heads else 0)


def loaded_image(encoder: MediaEncoder) -> tuple[int, int]:
    """Pixels of the image that the engine plans for when it loads the file."""
    side = KINDS[encoder.kind].loaded_side
    return (side * _token_side(encoder),) * 2 if side else largest_image(encoder)


def largest_image(encoder: MediaEncoder) -> tuple[int, int]:
    """Pixels of the largest image that the encoder is given, as nearly square as its number of tokens allows."""
    tokens = encoder.tokens or KINDS[encoder.kind].tokens
    if not tokens:
        return (encoder.image_size, encoder.image_size)
    wide = next(side for side in range(int(tokens**0.5), 0, -1) if tokens % side == 0)
    return wide * _token_side(encoder), tokens // wide * _token_side(encoder)


def _token_side(encoder: MediaEncoder) -> int:
    return encoder.patch_size * encoder.merge


def _graph(
    encoder: MediaEncoder, image: tuple[int, int], flash: bool, gpus: int, has_kernel: bool = True
) -> ImageGraph:
    graph = ImageGraph(encoder, *image, flash, gpus, has_kernel)
    graph.expand(KINDS[encoder.kind].build(graph))
    return graph
