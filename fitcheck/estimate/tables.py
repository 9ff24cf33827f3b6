"""The tables that estimates are made from, as arguments: who reads them from where is not the estimator's business."""

from __future__ import annotations

from typing import Protocol

from fitcheck.estimate.buffers import BufferTable
from fitcheck.estimate.encoders import EncoderTable
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.runtimes import Runtimes
from fitcheck.estimate.speed_model import SpeedModel
from fitcheck.estimate.stored import WeightsTable


class Tables(Protocol):
    """What ``fitcheck.facts.Facts`` offers: a table may be read when it is first asked for."""

    @property
    def quantizations(self) -> Quantizations:
        """Block formats, file-type mixes, other formats, cache types."""

    @property
    def weights(self) -> WeightsTable:
        """Weights worked out before."""

    @property
    def buffers(self) -> BufferTable | None:
        """Compute buffers planned before."""

    @property
    def encoders(self) -> EncoderTable | None:
        """Encoders of images planned before."""

    @property
    def runtimes(self) -> Runtimes:
        """Engines: defaults, formats, backends, overheads, commands."""

    @property
    def speed_model(self) -> SpeedModel:
        """Fitted parameters of the speed model."""
