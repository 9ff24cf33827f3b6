"""Encoders as the engine plans them: bytes of their weights, and of their working memory on each device."""

from __future__ import annotations

from collections.abc import Callable

from fitcheck.estimate.graph.image import PATCHES, ImageGraph, bytes_of
from fitcheck.estimate.graph.image_kinds import BATCH_TOKENS, KINDS
from fitcheck.estimate.graph.planner import CUDA_RULES, HOST_RULES, METAL_RULES, Device, plan
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Backend, MediaEncoder

FRAMES = 3000  # of sound: clip.cpp, warmup_audio_size
GRAPHS = frozenset(KINDS)
"""Kinds of encoders that have a graph here."""


def weight_bytes(encoder: MediaEncoder, gpu: Device | None) -> int:
    """Bytes of the weights in one buffer."""
    return _bytes(weights(encoder), gpu)


def _bytes(found: dict[str, Tensor], gpu: Device | None) -> int:
    alignment = (gpu or HOST_RULES).alignment
    return sum(bytes_of(weight, alignment) for weight in found.values())


def weights(encoder: MediaEncoder) -> dict[str, Tensor]:
    """The weights in the encoder's file, by name."""
    return _graph(encoder, loaded_image(encoder), flash=True, gpus=0).weights


def buffer_bytes(
    encoder: MediaEncoder,
    image: tuple[int, int],
    flash: bool,
    gpu: Device | None = None,
    has_kernel: bool = True,
    images: int = 1,
) -> tuple[int, ...]:
    """Working memory for so many images of some pixels, on the host and on the GPU if there is one."""
    return plan(_graph(encoder, image, flash, int(gpu is not None), has_kernel, images), False, gpu)


def planned(
    encoders: tuple[MediaEncoder, ...], backend: Backend | None, flash: bool | None, has_kernel: Callable[[int], bool]
) -> tuple[int, int, int]:
    """Bytes of the weights, of the buffers on the host and on the GPU, for the largest image that the engine accepts.

    ``backend`` None: all on the host. ``flash`` None: as the engine resolves it.
    """
    gpu = None if backend is None else METAL_RULES if backend is Backend.METAL else CUDA_RULES
    stored = sum(weight_bytes(encoder, gpu) for encoder in encoders) + _loaded_twice(encoders, gpu)
    buffers = [_buffers(encoder, gpu, flash, gpu is None or has_kernel(head_size(encoder))) for encoder in encoders]
    host, on_gpu = (sum(sizes) for sizes in zip(*buffers, strict=True))
    return stored, host, on_gpu


def _buffers(encoder: MediaEncoder, gpu: Device | None, flash: bool | None, has_kernel: bool) -> tuple[int, int]:
    """The engine plans with flash attention when it loads the file, and then without where the GPU has no kernel for
    that; buffers only grow.
    """
    later = has_kernel if flash is None else flash
    plans = (
        buffer_bytes(encoder, loaded_image(encoder), flash is not False, gpu, has_kernel),
        buffer_bytes(encoder, largest_image(encoder), later, gpu, has_kernel, images_at_once(encoder)),
    )
    host, *rest = (max(sizes) for sizes in zip(*plans, strict=True))
    return host, sum(rest)


def _loaded_twice(encoders: tuple[MediaEncoder, ...], gpu: Device | None) -> int:
    """What the engine loads for an encoder of sound too, though only that of images beside it reads it."""
    if not any(KINDS[encoder.kind].bins for encoder in encoders):
        return 0
    images = (weights(encoder) for encoder in encoders if not KINDS[encoder.kind].bins)
    return sum(
        _bytes({name: weight for name, weight in found.items() if name.startswith(PATCHES)}, gpu) for found in images
    )


def head_size(encoder: MediaEncoder) -> int:
    """Elements of one attention head."""
    return encoder.head_size or (encoder.hidden_size // encoder.heads if encoder.heads else 0)


def loaded_image(encoder: MediaEncoder) -> tuple[int, int]:
    """Pixels of the image that the engine plans for when it loads the file."""
    kind = KINDS[encoder.kind]
    if kind.loaded_side:
        return (kind.loaded_side * _token_side(encoder),) * 2
    return (encoder.image_size, encoder.image_size) if kind.rounded else largest_image(encoder)


def largest_image(encoder: MediaEncoder) -> tuple[int, int]:
    """Pixels of the largest image that the encoder is given, as nearly square as its number of tokens allows.

    Of sound, frames and bins: half a minute, for which the engine plans.
    """
    kind = KINDS[encoder.kind]
    if kind.bins:
        return FRAMES, kind.bins
    tokens = encoder.tokens or kind.tokens
    if not tokens:
        return encoder.image_size + kind.rounded * encoder.patch_size, encoder.image_size
    wide = next(side for side in range(int(tokens**0.5), 0, -1) if tokens % side == 0)
    return wide * _token_side(encoder), tokens // wide * _token_side(encoder)


def images_at_once(encoder: MediaEncoder) -> int:
    """How many tiles of one image are encoded together."""
    if not KINDS[encoder.kind].at_once:
        return 1
    tokens_per_side = encoder.image_size // _token_side(encoder)
    return max(BATCH_TOKENS // max(tokens_per_side, 1) ** 2, 1)


def _token_side(encoder: MediaEncoder) -> int:
    return encoder.patch_size * encoder.merge


def _graph(
    encoder: MediaEncoder, image: tuple[int, int], flash: bool, gpus: int, has_kernel: bool = True, images: int = 1
) -> ImageGraph:
    graph = ImageGraph(encoder, *image, flash, gpus, has_kernel, images)
    graph.expand(KINDS[encoder.kind].build(graph))
    return graph
