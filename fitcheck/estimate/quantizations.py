"""Quantisations as data: blocks, file types and their rules, formats of other engines (``data/quantizations.json``)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fitcheck.estimate.tensors import PLAIN, Layout
from fitcheck.types import Backend, Model


class Block(Struct, frozen=True):
    """``elements`` weights are stored in ``bytes`` bytes."""

    elements: int
    bytes: int

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row of ``elements``."""
        return -(-elements // self.elements) * self.bytes


class Mix(Struct, frozen=True):
    """A file type: the type of ordinary matrices, and rules (condition, type) per tensor category, first match wins.

    ``stacked`` is the type of stacked (expert) matrices where it differs; ``embedding`` that of an untied embedding.
    """

    base: str
    output: str
    embedding: str | None = None
    stacked: str | None = None
    needs_imatrix: bool = False
    rules: dict[str, tuple[tuple[str, str], ...]] = {}


class Recipe(Struct, frozen=True):
    """Types that a publisher gives to some tensors of its GGUF files instead of what the mix says.

    ``types``: tensor name -> type, as ``llama-quantize --tensor-type`` takes them; a tensor named here is not counted
    where a mix counts tensors. ``pure``: all others have the type of ordinary matrices. ``publisher``: the owner of
    the Hub repository.
    """

    publisher: str
    architectures: tuple[str, ...]
    quants: tuple[str, ...]
    types: dict[str, str]
    source: str
    pure: bool = False


class PublisherMix(Struct, frozen=True):
    """A mix of a publisher's own, by the llama.cpp mix that is nearest to it.

    ``types`` are those it gives to some tensors instead, as in ``Recipe``; then it is known in full. Where the
    publisher chooses types model by model, ``layers`` is how many bytes its layers take for one of ``like``'s, in the
    median of published files. ``also``: other names of it in this publisher's repositories.
    """

    like: str
    publisher: str
    source: str
    types: dict[str, str] = {}
    layers: float | None = None
    also: tuple[str, ...] = ()


class Ending(Struct, frozen=True):
    """The end of the name of a repository whose weights are in ``quant``. ``pattern``: a regular expression over lower
    case. ``runtime``: who it was made for, where the quantisation does not tell."""

    pattern: str
    quant: str
    runtime: str | None = None


class Format(Struct, frozen=True):
    """A format outside GGUF. ``bits`` per weight of what is quantised: linear matrices, experts only, or all.
    ``runtimes``: who loads it, the most used first. ``backends``: where they have kernels for it; None: wherever they
    run."""

    bits: float
    runtimes: tuple[str, ...] = ()
    source: str = ""
    group: int | None = None
    quantised: str = "linear"
    output_bits: float | None = None
    backends: tuple[Backend, ...] | None = None
    compute_dtype: str | None = None
    note: str = ""


class Quantizations(Struct, frozen=True):
    """The table ``data/quantizations.json``. ``aliases``: a name -> what it may mean, the most usual first.
    ``mlx_bits``: architecture -> tensor -> bits per weight where MLX treats it apart; None: as the others, though GGUF
    files keep it."""

    sources: dict[str, str]
    blocks: dict[str, Block]
    fallbacks: dict[str, str]
    conditions: dict[str, str]
    mixes: dict[str, Mix]
    formats: dict[str, Format]
    kv_types: dict[str, str]
    quality: tuple[dict[str, Any], ...]
    layouts: dict[str, Layout] = {}
    own_mixes: dict[str, dict[str, Mix]] = {}  # by architecture, where it has rules of its own
    recipes: tuple[Recipe, ...] = ()
    publisher_mixes: dict[str, PublisherMix] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    mlx_bits: dict[str, dict[str, float | None]] = {}
    endings: tuple[Ending, ...] = ()

    def tensor_bytes(self, type_name: str, columns: int, rows: int) -> int:
        """Bytes of ``rows`` rows of ``columns`` elements in a type whose block divides the row."""
        block = self.blocks[type_name]
        return columns * rows // block.elements * block.bytes

    def fitting_type(self, type_name: str, columns: int) -> str:
        """The type itself, or what llama.cpp stores where rows of ``columns`` elements do not fill its blocks."""
        if columns % self.blocks[type_name].elements == 0:
            return type_name
        fallback = self.fallbacks.get(type_name, type_name)
        return fallback if columns % self.blocks[fallback].elements == 0 else "F16"

    def kv_block(self, kv_type: str) -> Block:
        """What a cache type (``f16``, ``q8_0``, …) stores."""
        return self.blocks[self.kv_types[kv_type]]

    def layout(self, architecture: str | None) -> Layout:
        """How files and caches of an architecture differ from the usual."""
        return self.layouts.get(architecture or "", PLAIN)

    def is_gguf(self, quant: str) -> bool:
        """Whether a quantisation is one of GGUF files."""
        return quant in self.mixes or quant in self.publisher_mixes

    def like(self, quant: str) -> str:
        """The llama.cpp mix that stands for a quantisation: itself, unless a publisher made it up."""
        found = self.publisher_mixes.get(quant)
        return found.like if found is not None else quant

    def recipe(self, model: Model, quant: str) -> Recipe | None:
        """What the publisher of ``model``'s files does in ``quant`` beyond the mix of that name, where it is known."""
        if model.publisher is None:
            return None
        return next(
            (
                recipe
                for recipe in self.recipes
                if recipe.publisher == model.publisher
                and model.architecture in recipe.architectures
                and quant in recipe.quants
            ),
            None,
        )
