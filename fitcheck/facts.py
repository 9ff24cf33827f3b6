"""The tables of ``fitcheck/data``, read when first asked for.

Estimates are pure: they get a table as an argument. This is the one place, beside the catalog and the probe, that reads
files of the package.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from fitcheck.estimate.buffers import BufferTable
    from fitcheck.estimate.encoders import EncoderTable
    from fitcheck.estimate.quantizations import Quantizations
    from fitcheck.estimate.runtimes import Runtimes
    from fitcheck.estimate.speed_model import SpeedModel
    from fitcheck.estimate.stored import WeightsTable
    from fitcheck.types import Measurement

DATA = Path(__file__).parent / "data"
BUFFERS = "buffers.json"
ENCODERS = "encoders.json"
WEIGHTS = "weights.msgpack.zlib"
T = TypeVar("T")


def _read(name: str, kind: type[T]) -> T:
    return msgspec.json.decode((DATA / name).read_bytes(), type=kind)


class Facts:
    """All tables of one run; each is read once, on first use."""

    def read(self) -> None:
        """Read now what every estimate needs."""
        self.quantizations, self.weights, self.buffers, self.runtimes, self.speed_model  # noqa: B018 - to have them

    @cached_property
    def quantizations(self) -> Quantizations:
        """Block formats, file-type mixes, other formats, cache types, quality rows."""
        from fitcheck.estimate.quantizations import Quantizations

        return _read("quantizations.json", Quantizations)

    @cached_property
    def weights(self) -> WeightsTable:
        """The catalog's models in their usual quantisations, worked out before."""
        import zlib

        from fitcheck.estimate.stored import WeightsTable

        return msgspec.msgpack.decode(zlib.decompress((DATA / WEIGHTS).read_bytes()), type=WeightsTable)

    @cached_property
    def buffers(self) -> BufferTable | None:
        """Compute buffers of the catalog's models, planned before; None where they have not been."""
        from fitcheck.estimate.buffers import BufferTable

        return _read(BUFFERS, BufferTable) if (DATA / BUFFERS).exists() else None

    @cached_property
    def encoders(self) -> EncoderTable | None:
        """Encoders of images of the catalog's models, planned before; None where they have not been."""
        from fitcheck.estimate.encoders import EncoderTable

        return _read(ENCODERS, EncoderTable) if (DATA / ENCODERS).exists() else None

    @cached_property
    def runtimes(self) -> Runtimes:
        """Engines: defaults, formats, backends, overheads, commands."""
        from fitcheck.estimate.runtimes import Runtimes

        return _read("runtimes.json", Runtimes)

    @cached_property
    def speed_model(self) -> SpeedModel:
        """Fitted parameters of the speed model."""
        from fitcheck.estimate.speed_model import SpeedModel

        return _read("speed_model.json", SpeedModel)

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Published speeds, about 20 ms: only where the nearest ones are shown."""
        from fitcheck.estimate.speed_nearest import read

        return read((DATA / "measurements.csv").read_text(encoding="utf-8"))


def load() -> Facts:
    """The tables of this installation; nothing is read before it is asked for."""
    return Facts()
