"""Check the catalog by computation: what does not add up names itself, its field and the expected value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.catalog import DEFAULT_SOURCE, Catalog
from fitcheck.catalog.browse import MODALITIES
from fitcheck.catalog.names import names_of
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import weights
from fitcheck.estimate.tensors import parameters
from fitcheck.types import Attention, MixtureOfExperts, Model, Openness, PublishedFile, Shape, Weights

ABILITIES = {"reasoning", "coding", "tools", "vision", "multilingual"}
#: Abilities of models that are made for one purpose, or for none: they are not offered for chat.
PURPOSES = {
    "agent_world", "base", "coder", "function_calling", "guard", "math", "medical", "ocr", "reranking", "translation",
    "user_simulation",
}  # fmt: skip
GRADE_TOLERANCE = {"A": 0.0, "B": 0.007}  # of the published parameter count; grade C has none to hold to
FILE_TOLERANCE = 0.01
_DATE = re.compile(r"(?:20[12]\d)-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?")


class Defect(Struct, frozen=True):
    """One thing that does not add up."""

    model: str
    field: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.model}: {self.field} is {self.found}, expected {self.expected}"


class FileSize(Struct, frozen=True):
    """A published file and what the shape and the quantisation predict for it; both in bytes."""

    model: str
    file: PublishedFile
    predicted: int
    tolerance: float

    @property
    def error(self) -> float:
        """Predicted / published - 1."""
        return self.predicted / self.file.bytes - 1

    @property
    def agrees(self) -> bool:
        """Within the tolerance."""
        return abs(self.error) <= self.tolerance


def verify(catalog: Catalog, quantizations: Quantizations) -> tuple[Defect, ...]:
    """Everything that is wrong with the catalog; empty when all of it adds up."""
    defects = [*_shared_names(catalog), *_parents(catalog)]
    if DEFAULT_SOURCE not in catalog.sources:
        defects.append(Defect("catalog", "sources", f"no {DEFAULT_SOURCE}", "the source of facts that name no other"))
    for model in catalog.models:
        defects += _identity(model)
        defects += _licence(model, catalog)
        defects += _sources(model, catalog)
        if model.shape is not None:
            defects += _shape(model, model.shape)
            defects += _parameters(model, model.shape)
    defects += [
        Defect(size.model, f"files {size.file.quant}", f"{size.file.bytes}", f"{size.predicted} ({size.error:+.1%})")
        for size in file_sizes(catalog, quantizations)
        if not size.agrees and not size.file.note
    ]
    return tuple(defects)


def file_sizes(catalog: Catalog, quantizations: Quantizations) -> Iterator[FileSize]:
    """Every published file whose quantisation is a known mix, with its predicted size."""
    for model in catalog.models:
        for file in model.files:
            if model.shape is not None and file.quant in quantizations.mixes:
                predicted = predicted_bytes(model, file, quantizations)
                yield FileSize(model.id, file, predicted, FILE_TOLERANCE + rounding_bytes(file) / file.bytes)


def predicted_bytes(model: Model, file: PublishedFile, quantizations: Quantizations) -> int:
    """What a file should take: the text model in its quantisation and the other parts that the file holds."""
    model = replace(model, publisher=file.repo.partition("/")[0] or None)
    if "output" in file.parts and model.shape is not None:
        model = replace(model, shape=replace(model.shape, tie_word_embeddings=False))
    text = weights(model, file.quant, quantizations)
    total = text.total if file.tensors_only else text.file_bytes
    if "mxfp4_experts" in file.parts:
        total += _expert_bytes(weights(model, "MXFP4_MOE", quantizations)) - _expert_bytes(text)
    if "mtp_embeddings" in file.parts and model.shape is not None:
        base = quantizations.mixes[file.quant].base
        total += 2 * quantizations.tensor_bytes(base, model.shape.hidden_size, model.shape.vocab_size)
    for part in file.parts:
        params = model.tower_params.get(part, 0)
        # towers stay 16-bit; a prediction layer is quantised like the other layers
        total += params * text.total // model.params if part == "mtp" else params * 2
    return total


def _expert_bytes(found: Weights) -> int:
    return sum(layer.experts for layer in found.each_layer())


def rounding_bytes(file: PublishedFile) -> int:
    """Half a unit of the last figure of a rounded size."""
    if file.exact:
        return 0
    return 500_000_000 if file.bytes % 1_000_000_000 == 0 else 5_400_000


def _shared_names(catalog: Catalog) -> Iterator[Defect]:
    owners: dict[str, set[str]] = {}
    for model in catalog.models:
        for name in names_of(model):
            owners.setdefault(name.casefold(), set()).add(model.id)
    for name, ids in sorted(owners.items()):
        if len(ids) > 1:
            yield Defect(", ".join(sorted(ids)), "name", repr(name), "a name of one model")
    for name, count in Counter(model.id for model in catalog.models).items():
        if count > 1:
            yield Defect(name, "id", f"{count} rows", "one row")


def _identity(model: Model) -> Iterator[Defect]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", model.id):
        yield Defect(model.id, "id", repr(model.id), "lower-case letters, digits, dots and dashes")
    if model.released is not None and not _DATE.fullmatch(model.released):
        yield Defect(model.id, "released", repr(model.released), "YYYY-MM-DD or YYYY-MM")
    for word in set(model.modalities).difference(MODALITIES):
        yield Defect(model.id, "modalities", word, "one of " + ", ".join(MODALITIES))
    for word in {*model.abilities} - ABILITIES - PURPOSES:
        yield Defect(model.id, "abilities", word, "one of " + ", ".join(sorted(ABILITIES | PURPOSES)))
    if ("vision" in model.modalities) != ("vision" in model.abilities):
        yield Defect(model.id, "abilities", "vision in one of abilities and modalities", "in both or in none")
    if model.context_tokens < 1:
        yield Defect(model.id, "context_tokens", str(model.context_tokens), "at least 1")
    extended = model.context_extended_tokens
    if extended is not None and extended <= model.context_tokens:
        yield Defect(model.id, "context_extended_tokens", str(extended), f"more than {model.context_tokens}")


def _parents(catalog: Catalog) -> Iterator[Defect]:
    parents = {model.id: model.derived_from for model in catalog.models}
    for name, parent in parents.items():
        if parent is not None and (parent not in parents or parents[parent] is not None):
            yield Defect(name, "derived_from", parent, "a model of the catalog that is no fine-tune itself")


def _licence(model: Model, catalog: Catalog) -> Iterator[Defect]:
    licence = catalog.licences.get(model.licence or "")
    if model.licence is not None and licence is None:
        yield Defect(model.id, "licence", model.licence, "a key of the catalog's licences")
    permissive = licence is not None and licence.openness is Openness.PERMISSIVE
    allowed = (Openness.PERMISSIVE, Openness.FULLY_OPEN) if permissive else (Openness.RESTRICTED,)
    if model.licence is None:
        allowed = (Openness.UNKNOWN,)
    if model.openness not in allowed:
        yield Defect(model.id, "openness", model.openness.value, " or ".join(value.value for value in allowed))


def _sources(model: Model, catalog: Catalog) -> Iterator[Defect]:
    named = [(f"sources.{field}", key) for field, key in model.sources.items()]
    named += [(f"files {file.quant}", file.source) for file in model.files]
    named += [(f"benchmarks {score.index}", score.source) for score in model.benchmarks]
    for field, key in named:
        if key not in catalog.sources:
            yield Defect(model.id, field, repr(key), "a key of the catalog's sources")
    for field in model.sources.keys() - set(model.__struct_fields__):
        yield Defect(model.id, "sources", field, "a field of the model")
    for score in model.benchmarks:
        if score.index not in catalog.indices:
            yield Defect(model.id, "benchmarks", score.index, "a key of the catalog's indices")


def _shape(model: Model, shape: Shape) -> Iterator[Defect]:
    letters = {chr(97 + number) for number in range(len(shape.kinds))}
    if set(shape.layers) != letters:
        yield Defect(
            model.id, "shape.layers", "".join(sorted(set(shape.layers))), "every one of " + str(sorted(letters))
        )
    for kind in shape.kinds:
        mixer, ffn = kind.mixer, kind.ffn
        if isinstance(mixer, Attention):
            if mixer.n_heads % mixer.n_kv_heads:
                yield Defect(model.id, "shape n_kv_heads", str(mixer.n_kv_heads), f"a divisor of {mixer.n_heads}")
            if mixer.window is not None and mixer.window > model.context_tokens:
                yield Defect(model.id, "shape window", str(mixer.window), f"at most {model.context_tokens}")
        if isinstance(ffn, MixtureOfExperts) and ffn.experts_per_token > ffn.n_experts:
            yield Defect(model.id, "shape experts_per_token", str(ffn.experts_per_token), f"at most {ffn.n_experts}")


def _parameters(model: Model, shape: Shape) -> Iterator[Defect]:
    params, read = parameters(shape)
    active = read // shape.num_loops
    if model.params != params:
        yield Defect(model.id, "params", str(model.params), f"{params} from the shape")
    if model.params_active != active:
        yield Defect(model.id, "params_active", str(model.params_active), f"{active} from the shape")
    if model.params_active > model.params:
        yield Defect(model.id, "params_active", str(model.params_active), f"at most {model.params}")
    tolerance = GRADE_TOLERANCE.get(model.grade)
    if tolerance is None:
        return
    total = params + sum(model.tower_params.values())
    if model.published_params is None:
        yield Defect(model.id, "published_params", "missing", f"a published count, grade {model.grade} needs one")
    elif abs(total - model.published_params) > tolerance * model.published_params:
        yield Defect(model.id, "published_params", str(model.published_params), f"{total} from shape and towers")
