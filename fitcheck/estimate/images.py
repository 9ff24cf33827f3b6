"""What images ask for beside the language model, in a placement: bytes of the encoders on the host and on a GPU.

llama.cpp keeps encoders (the ``mmproj`` file) in 16 bits on the first GPU, or on the host where there is none, and
plans their graphs apart from the language model's. The working memory is that of the largest image that the engine lets
through (``--image-max-tokens`` lowers it), so a photo never asks for more. Where the numbers come from:
``fitcheck.estimate.encoders``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from fitcheck.types import Backend, FlashAttention, Model

if TYPE_CHECKING:
    from fitcheck.estimate.encoders import EncoderTable


class EncoderBytes(Struct, frozen=True):
    """Bytes of encoders: weights; buffer on the host and on the GPU that they run on (0 where on the host).

    ``exact``: the engine's own arithmetic; ``note`` says what else they are where they are not even close to that.
    """

    weights: int = 0
    host: int = 0
    gpu: int = 0
    exact: bool = True
    note: str = ""


NO_ENCODER = EncoderBytes()


class Placed(Struct, frozen=True):
    """Encoders on the host alone, and on the first GPU."""

    on_host: EncoderBytes = NO_ENCODER
    on_gpu: EncoderBytes = NO_ENCODER

    def beside(self, on_gpus: bool) -> EncoderBytes:
        """Where the language model's placement puts them: on the first GPU of any that it uses."""
        return self.on_gpu if on_gpus else self.on_host


NO_ENCODERS = Placed()


def encoders_of(
    model: Model,
    flash_attention: FlashAttention,
    backend: Backend | None,
    flash_heads: tuple[int, ...] | None,
    table: EncoderTable | None,
) -> Placed:
    """The encoders of a model. ``backend``: of the first GPU, None where there is none.

    ``flash_heads``: head sizes that the GPU has flash attention for (None: any).
    """
    from fitcheck.estimate.encoders import bytes_on

    flash = None if flash_attention is FlashAttention.AUTO else flash_attention is FlashAttention.ON
    on_host = bytes_on(model, None, flash, None, table)
    return Placed(on_host, on_host if backend is None else bytes_on(model, backend, flash, flash_heads, table))


def in_16_bits(model: Model) -> Placed:
    """The weights of the encoders alone, for engines whose working memory for images is not known."""
    from fitcheck.estimate.encoders import tower_params

    weights = EncoderBytes(2 * tower_params(model), exact=False, note="working memory for images is not counted")
    return Placed(weights, weights)
