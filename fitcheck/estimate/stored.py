"""A model in one quantisation as the engine stores it: bytes by role, and the table of the catalog's models."""

from __future__ import annotations

from msgspec import Raw, Struct
from msgspec.msgpack import decode

from fitcheck.types import Model


class Bytes(Struct, frozen=True, array_like=True):
    """Bytes of some tensors: in the file, in the host's memory, in a GPU's memory (each with its padding)."""

    file: int
    host: int
    gpu: int

    def plus(self, other: Bytes) -> Bytes:
        """Element-wise sum."""
        return Bytes(self.file + other.file, self.host + other.host, self.gpu + other.gpu)


NOTHING = Bytes(0, 0, 0)


class StoredLayer(Struct, frozen=True, array_like=True):
    """Bytes of one layer: what every token reads, and the routed experts. ``kind``: index in ``Shape.kinds``."""

    kind: int
    mixer: Bytes
    ffn: Bytes
    experts: Bytes


class Stored(Struct, frozen=True, array_like=True):
    """A model in one quantisation as the engine stores it.

    ``layers`` has one letter per layer, which names one of ``kinds``. ``head``: output matrix, ``embedding`` again
    where it is tied. ``first_layer`` lies beside layer 0, ``beside_output`` beside the output matrix, ``each_device``
    once on every device that holds layers. ``output_first``: a tied output is a copy of its own even on one device.
    ``prediction_layers`` count as layers when they are split over devices; they are not loaded, like all of
    ``unloaded`` (bytes in the file).
    """

    quant: str
    kinds: tuple[StoredLayer, ...]
    layers: str
    embedding: Bytes
    head: Bytes
    tables: Bytes
    first_layer: Bytes
    beside_output: Bytes
    each_device: Bytes
    tied: bool
    output_first: bool = False
    prediction_layers: int = 0
    unloaded: int = 0
    header: int = 0
    exact: bool = True


class StoredModel(Struct, frozen=True, array_like=True):
    """A model of the catalog in its usual quantisations. ``params``, ``layers`` (as in ``Shape``) and
    ``context_tokens`` tell whether it is still the same model.
    """

    params: int
    layers: str
    context_tokens: int
    stored: dict[str, Raw]  # of Stored, by quantisation; decoded when asked for

    def matches(self, model: Model) -> bool:
        """Whether this row was made of ``model``."""
        now = (model.params, model.shape.layers if model.shape else "", model.context_tokens)
        return now == (self.params, self.layers, self.context_tokens) and model.tensors is None


class WeightsTable(Struct, frozen=True):
    """``data/weights.msgpack``: what ``store`` says of the catalog's models, by model id."""

    models: dict[str, StoredModel]

    def find(self, model: Model, quant: str) -> Stored | None:
        """The model in a quantisation, None where it is unknown, has changed or was not worked out before.

        A publisher may have a recipe of its own, so its files are not in the table.
        """
        plain = model.publisher is None and self.knows(model)
        raw = self.models[model.id].stored.get(quant) if plain else None
        return decode(raw, type=Stored) if raw is not None else None

    def knows(self, model: Model) -> bool:
        """Whether ``model`` is the catalog's model of that id, not another one that bears its name."""
        row = self.models.get(model.id)
        return row is not None and row.matches(model)
