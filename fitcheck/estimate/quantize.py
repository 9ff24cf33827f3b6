"""A model in one quantisation, as exact bytes by role.

llama.cpp chooses a type per tensor from the file type (the mix), the tensor's name, the layer's index and a few facts
about the model; a type whose block does not divide the row falls back to another. The choices are data
(``data/quantizations.json``); this module applies them. Source: ``src/llama-quant.cpp`` of llama.cpp 0c1e570.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.errors import FitcheckError
from fitcheck.estimate import tensors
from fitcheck.estimate.quantizations import Format, Mix, Quantizations
from fitcheck.estimate.stored import NOTHING, Bytes, Stored, StoredLayer
from fitcheck.estimate.tensors import FLOAT32, KEPT, LayerTensors, Layout, Matrix, Part, vector
from fitcheck.types import (
    Attention,
    LatentAttention,
    LayerBytes,
    MixtureOfExperts,
    Model,
    NoFeedForward,
    ParallelMixers,
    Shape,
    Tensor,
    Weights,
)

_UNQUANTISED = ("F32", "F16", "BF16")
HOST_STEP = 32  # bytes to which tensors are padded in host memory
GPU_STEP = 128  # and on CUDA
CUDA_ROW_STEP = 512  # elements to which CUDA pads the last row of a quantised tensor (MATRIX_ROW_PADDING)
PREDICTION = "mtp"  # the tower of multi-token prediction
VOCABULARY_PADDING = 256  # entries that training may add to a vocabulary to round it


class _Place(Struct):
    """What the conditions of a mix may ask about one tensor."""

    layer: int
    n_layers: int
    value: int  # how many value-like tensors came before
    n_values: int
    gqa: int
    experts: int
    big_llama: bool


def _more_bits(i: int, n: int) -> bool:
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


_CONDITIONS: dict[str, Callable[[_Place], bool]] = {
    "always": lambda p: True,
    "more bits": lambda p: _more_bits(p.layer, p.n_layers),
    "more bits of values": lambda p: _more_bits(p.value, p.n_values),
    "first eighth": lambda p: p.layer < p.n_layers // 8,
    "first sixteenth": lambda p: p.layer < p.n_layers // 16,
    "middle": lambda p: p.n_layers // 8 <= p.layer < 7 * p.n_layers // 8,
    "first 2 values": lambda p: p.value < 2,
    "first 4 values": lambda p: p.value < 4,
    "gqa 4": lambda p: p.gqa >= 4,
    "8 experts": lambda p: p.experts == 8,
    "4 experts": lambda p: p.experts >= 4,
    "70B": lambda p: p.big_llama,
    "70B gqa 4": lambda p: p.big_llama and p.gqa >= 4,
    "8 experts more bits": lambda p: p.experts == 8 and _more_bits(p.layer, p.n_layers),
}

_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
_CATEGORIES = {"attn_qkv": "attn_v", "attn_kv_b": "attn_v"}
_FEED_FORWARD = ("ffn_up", "ffn_gate", "ffn_down")


def _category(name: str) -> str:
    """The rule that a tensor falls under; llama.cpp matches parts of the name."""
    part = next((p for p in _FEED_FORWARD if p in name), None)
    return part or _CATEGORIES.get(name, name)


class _Typist:
    """Chooses the type of every tensor of one model in one mix, and counts its bytes."""

    def __init__(
        self, quant: str, mix: Mix, layout: Layout, table: Quantizations, place: _Place, own: dict[str, str]
    ) -> None:
        self._mix = mix
        self._own = own
        self._layout = layout
        self._table = table
        self.place = place
        self._kept = quant if quant in _UNQUANTISED else "F16"
        self._made: dict[tuple[str, Matrix], Bytes] = {}
        self._asked = {condition for rules in mix.rules.values() for condition, _ in rules}

    def conditions(self) -> tuple[bool, ...]:
        """What the mix can see of the layer that ``place`` is at."""
        return tuple(_CONDITIONS[condition](self.place) for condition in self._asked)

    def part(self, part: Part) -> Bytes:
        """Bytes of some tensors of the layer that ``place`` is at."""
        total = NOTHING
        for matrix in part:
            total = total.plus(self.stored(self._type(matrix), matrix))
        return total

    def type_of(self, matrix: Matrix) -> str:
        """The type that a tensor ends up in, where ``place`` is at."""
        return self._table.fitting_type(self._type(matrix), matrix.columns)

    def stored(self, type_name: str, matrix: Matrix) -> Bytes:
        """Bytes of one tensor in ``type_name`` or what it falls back to."""
        found = self._made.get((type_name, matrix))
        if found is None:
            fitting = self._table.fitting_type(type_name, matrix.columns)
            found = self._made[type_name, matrix] = _stored(fitting, matrix, self._table)
        return found

    def chosen(self, matrix: Matrix, by_mix: str) -> str:
        """Type of a tensor outside layers to which the mix gives ``by_mix``."""
        return self._own.get(matrix.name) or ("F32" if matrix.precision == FLOAT32 else by_mix)

    def count_values(self, kind: LayerTensors) -> int:
        """Value-like tensors of a layer that the mix itself gives a type to."""
        return sum(1 for matrix in kind.mixer if matrix.name in _VALUES and matrix.name not in self._own)

    def _type(self, matrix: Matrix) -> str:
        if matrix.name in self._own:
            return self._own[matrix.name]
        if matrix.precision == FLOAT32:
            return "F32"
        if matrix.precision == KEPT or matrix.name in self._layout.kept:
            return self._kept
        mix = self._mix
        if mix.stacked is not None:
            experts = matrix.name.startswith(_FEED_FORWARD) or not self._layout.stacked_experts_only
            return mix.stacked if matrix.stack > 1 and experts else mix.base
        if matrix.name in self._layout.at_least_q8 and mix.base not in _UNQUANTISED:
            return "Q8_0"
        for condition, type_name in mix.rules.get(_category(matrix.name), ()):
            if _CONDITIONS[condition](self.place):
                return type_name
        return mix.base


def _stored(type_name: str, matrix: Matrix, table: Quantizations) -> Bytes:
    file = table.tensor_bytes(type_name, matrix.columns, matrix.rows * matrix.stack)
    gpu = file
    rest = matrix.columns % CUDA_ROW_STEP
    if rest and table.blocks[type_name].elements > 1:
        gpu += table.tensor_bytes(type_name, CUDA_ROW_STEP - rest, 1)
    return Bytes(file, -(-file // HOST_STEP) * HOST_STEP, -(-gpu // GPU_STEP) * GPU_STEP)


def _n_experts(shape: Shape) -> int:
    return max((kind.ffn.n_experts for kind in shape.kinds if isinstance(kind.ffn, MixtureOfExperts)), default=0)


def _gqa(shape: Shape, layout: Layout) -> int:
    """Query heads per KV head as the rules see it: of the first layer, or of the model."""
    for kind in shape.each_layer():
        mixer = kind.mixer
        heads = mixer.parts if isinstance(mixer, ParallelMixers) else (mixer,)
        for head in heads:
            if isinstance(head, Attention):
                return head.n_heads // head.n_kv_heads
            if isinstance(head, LatentAttention):
                return head.n_heads
        if layout.gqa_of_first_layer:
            return 0
    return 0


def _count_values(kind: LayerTensors) -> int:
    return sum(1 for matrix in kind.mixer if matrix.name in _VALUES)


def _place(shape: Shape, layout: Layout, prediction_layers: int, n_values: int = 0) -> _Place:
    gqa = _gqa(shape, layout)
    return _Place(
        layer=0,
        n_layers=shape.n_layers * shape.num_loops + prediction_layers,
        value=0,
        n_values=n_values + prediction_layers,
        gqa=gqa,
        experts=_n_experts(shape),
        big_llama=layout.layers_of_70b == shape.n_layers and not (layout.multi_head_is_65b and gqa == 1),
    )


def _before(shape: Shape, counts: list[int]) -> list[int]:
    """How many of what each kind of layer has so many of come before each layer; at the end, how many there are."""
    return list(accumulate((counts[ord(letter) - 97] for letter in shape.layers), initial=0))


def _layers(shape: Shape, kinds: list[LayerTensors], typist: _Typist) -> tuple[tuple[StoredLayer, ...], str]:
    """The kinds of layers by bytes, and one letter per layer. Layers that the mix treats alike are counted once."""
    found: dict[StoredLayer, str] = {}
    made: dict[tuple[object, ...], str] = {}
    letters = []
    place = typist.place
    feed_forwards = 0
    values = [typist.count_values(kind) for kind in kinds]
    for index, letter in enumerate(shape.layers):
        number = ord(letter) - 97
        kind = kinds[number]
        place.layer = index if place.experts else feed_forwards
        treated = (letter, *typist.conditions())
        if treated not in made:
            layer = StoredLayer(number, typist.part(kind.mixer), typist.part(kind.ffn), typist.part(kind.experts))
            made[treated] = found.setdefault(layer, chr(97 + len(found)))
        letters.append(made[treated])
        feed_forwards += bool(kind.ffn or kind.experts)
        place.value += values[number]
    return tuple(found), "".join(letters)


def _prediction_layers(model: Model, layout: Layout) -> int:
    """Multi-token prediction layers in the model's GGUF files."""
    return layout.prediction_layers if PREDICTION in model.tower_params else 0


def _prediction_bytes(shape: Shape, kinds: list[LayerTensors], count: int, typist: _Typist) -> int:
    """Bytes of the multi-token prediction layers of the file: the last kind of layer and what joins it to the rest."""
    if not count:
        return 0
    hidden = shape.hidden_size
    kind = kinds[ord(shape.layers[-1]) - 97]
    joint = (Matrix("nextn.eh_proj", 2 * hidden, hidden), *vector("nextn.norm", hidden) * 3)
    typist.place.layer = shape.n_layers
    layer = typist.part(kind.mixer + kind.ffn + kind.experts + joint).file
    return layer * count


def _of_mix(model: Model, shape: Shape, quant: str, mix: Mix, layout: Layout, table: Quantizations) -> Stored:
    kinds = [tensors.layer_tensors(kind, shape, layout) for kind in shape.kinds]
    outer = tensors.outer_tensors(shape, layout)
    prediction_layers = _prediction_layers(model, layout)
    n_values = _before(shape, [_count_values(kind) for kind in kinds])[-1]
    place = _place(shape, layout, prediction_layers, n_values)
    typist = _Typist(quant, mix, layout, table, place, _own_types(model, quant, table))
    stored_kinds, letters = _layers(shape, kinds, typist)
    output_type = layout.output or mix.output if mix.base not in _UNQUANTISED else mix.base
    if mix.base not in _UNQUANTISED and shape.hidden_size % table.blocks[mix.base].elements:
        output_type = "Q8_0"
    embedding_type = mix.embedding or mix.base if outer.head else output_type
    embedding = typist.stored(typist.chosen(outer.embedding, embedding_type), outer.embedding)
    tables = NOTHING
    for matrix in outer.tables:
        tables = tables.plus(typist.stored(typist.chosen(matrix, embedding_type), matrix))
    head = NOTHING
    for matrix in outer.head:
        head = head.plus(typist.stored(typist.chosen(matrix, output_type), matrix))
    return Stored(
        quant=table.like(quant),
        kinds=stored_kinds,
        layers=letters,
        embedding=embedding,
        head=head if outer.head else embedding if outer.tied else NOTHING,
        tables=tables,
        first_layer=typist.part(outer.first_layer),
        beside_output=typist.part(outer.output),
        each_device=typist.part(tensors.rope_factors(shape, layout, model.context_tokens)),
        tied=outer.tied,
        output_first=layout.output_first,
        prediction_layers=prediction_layers,
        unloaded=_prediction_bytes(shape, kinds, prediction_layers, typist),
        header=layout.header_bytes_per_token * shape.vocab_size,
    )


def weights_of(stored: Stored) -> Weights:
    """The file's side of a stored model, by role."""
    kinds = tuple([LayerBytes(kind.mixer.file, kind.ffn.file, kind.experts.file) for kind in stored.kinds])
    other = stored.first_layer.file + stored.beside_output.file + stored.each_device.file
    output = 0 if stored.tied else stored.head.file
    body = sum([kind.total * stored.layers.count(chr(97 + index)) for index, kind in enumerate(kinds)])
    total = body + stored.embedding.file + output + stored.tables.file + other + stored.unloaded
    return Weights(
        quant=stored.quant,
        kinds=kinds,
        layers=stored.layers,
        token_embedding=stored.embedding.file,
        output=output,
        lookup=stored.tables.file,
        other=other,
        tied=stored.tied,
        total=total,
        file_bytes=total + stored.header,
        exact=stored.exact,
        unloaded=stored.unloaded,
    )


def _of_format(shape: Shape, quant: str, form: Format, layout: Layout, own_bits: Mapping[str, float | None]) -> Stored:
    """A format outside GGUF: so many bits per weight of what it quantises, 16 bits for the rest."""

    def bits_of(matrix: Matrix, quantised: bool) -> float:
        if quantised and matrix.name in own_bits:
            return own_bits[matrix.name] or form.bits
        fills_groups = not form.group or matrix.columns % form.group == 0
        return form.bits if quantised and matrix.precision != FLOAT32 and fills_groups else 16

    def size(part: Part, quantised: bool) -> Bytes:
        return _plain(sum(matrix.elements * bits_of(matrix, quantised) for matrix in part) / 8)

    everywhere = form.quantised in ("linear", "all")
    parts = [tensors.layer_tensors(kind, shape, layout) for kind in shape.kinds]
    outer = tensors.outer_tensors(shape, layout)
    whole = form.quantised == "all"
    head_bits = form.output_bits or (own_bits.get("output") or form.bits if whole else 16)
    embedding = size((outer.embedding,), whole)
    own_head = _plain(sum(matrix.elements for matrix in outer.head) * head_bits / 8)
    return Stored(
        quant=quant,
        kinds=tuple(
            StoredLayer(number, size(part.mixer, everywhere), size(part.ffn, everywhere), size(part.experts, True))
            for number, part in enumerate(parts)
        ),
        layers=shape.layers,
        embedding=embedding,
        head=embedding if outer.tied else own_head,
        tables=size(outer.tables, whole),
        first_layer=size(outer.first_layer, everywhere),
        beside_output=size(outer.output, False),
        each_device=NOTHING,
        tied=outer.tied,
    )


def _plain(size: float) -> Bytes:
    whole = round(size)
    return Bytes(whole, whole, whole)


def _of_file(model: Model, shape: Shape, file: tuple[Tensor, ...], layout: Layout, table: Quantizations) -> Stored:
    """A real file: every tensor in its own type."""
    layers = [[NOTHING, NOTHING, NOTHING] for _ in range(shape.n_layers)]
    outer = dict.fromkeys(("embedding", "head", "tables", "first", "output", "each"), NOTHING)
    unloaded = predicting = 0
    with_first_norm = layout.embedding_norm or any(tensor.name == "output_norm.weight" for tensor in file)
    for tensor in file:
        matrix, type_name = _matrix(tensor), tensor.type
        if type_name not in table.blocks:
            raise FitcheckError("unknown_tensor_type", f"tensor {matrix.name} has type {type_name}", "update fitcheck")
        size = _stored(type_name, matrix, table)
        index, name = _place_in_file(tensor.name)
        if index is None:
            role = _OUTER_ROLES.get(name, "output")
            if role == "first" and not with_first_norm and name.startswith("token_embd_norm"):
                role = "output"  # LFM2's final norm
            outer[role] = outer[role].plus(size)
        elif index < shape.n_layers:
            part = 2 if name.startswith(_ROUTED) else 1 if name.startswith(("ffn_", "exp_probs")) else 0
            layers[index][part] = layers[index][part].plus(size)
        else:
            unloaded += size.file
            predicting = max(predicting, index + 1 - shape.n_layers)
    found: dict[StoredLayer, str] = {}
    letters = "".join(
        found.setdefault(StoredLayer(ord(letter) - 97, *layer), chr(97 + len(found)))
        for letter, layer in zip(shape.layers, layers, strict=True)
    )
    tied = outer["head"] == NOTHING and not shape.no_lm_head
    return Stored(
        quant=model.file_quant or "",
        kinds=tuple(found),
        layers=letters,
        embedding=outer["embedding"],
        head=outer["embedding"] if tied else outer["head"],
        tables=outer["tables"],
        first_layer=outer["first"],
        beside_output=outer["output"],
        each_device=outer["each"],
        tied=tied,
        output_first=layout.output_first,
        prediction_layers=predicting,
        unloaded=unloaded,
        header=layout.header_bytes_per_token * shape.vocab_size,
    )


# what --n-cpu-moe leaves on the host: experts, and those of chunks (GroveMoE)
_ROUTED = tuple(f"ffn_{part}_{kind}exps." for part in ("up", "down", "gate", "gate_up") for kind in ("", "ch"))

_OUTER_ROLES = {
    "token_embd.weight": "embedding",
    "output.weight": "head",
    "position_embd.weight": "tables",
    "token_types.weight": "tables",
    "per_layer_token_embd.weight": "tables",
    "per_layer_model_proj.weight": "first",
    "per_layer_proj_norm.weight": "first",
    "token_embd_norm.weight": "first",
    "token_embd_norm.bias": "first",
    "rope_freqs.weight": "each",
    "rope_factors_long.weight": "each",
    "rope_factors_short.weight": "each",
}


def _matrix(tensor: Tensor) -> Matrix:
    dims = (*tensor.dims, 1, 1, 1)
    return Matrix(tensor.name, dims[0], dims[1], dims[2] * dims[3])


def _place_in_file(name: str) -> tuple[int | None, str]:
    """(layer, name within the layer) of a tensor, layer None outside layers; T5 has two stacks of them."""
    parts = name.removeprefix("enc.").removeprefix("dec.").split(".", 2)
    if parts[0] == "blk" and len(parts) == 3 and parts[1].isdecimal():
        return int(parts[1]), parts[2]
    return None, name


def stored_shape(model: Model, table: Quantizations) -> Shape:
    """The model's shape as files of its architecture hold it: vocabularies padded for training lose the padding.

    Raises FitcheckError ``unknown_shape`` for a model without one.
    """
    shape = model.shape
    if shape is None:
        raise FitcheckError("unknown_shape", f"the shape of {model.id} is not known", "use a model file or hf: name")
    stored = table.layout(model.architecture).stored_vocabulary
    if not stored or shape.vocab_size == stored or model.tensors is not None:
        return shape
    return replace(shape, vocab_size=stored) if 0 < shape.vocab_size - stored < VOCABULARY_PADDING else shape


def count_rope_factors(model: Model, shape: Shape, table: Quantizations) -> int:
    """How many frequency factors a file of the model holds for a layer's rotary positions; 0: none."""
    found = tensors.rope_factors(shape, table.layout(model.architecture), model.context_tokens)
    return found[0].columns if found else 0


def tensors_of_kinds(shape: Shape, layout: Layout) -> Callable[[int], LayerTensors]:
    """The tensors of the layers of ``Shape.kinds`` by number, each worked out when first asked for."""
    return cache(lambda number: tensors.layer_tensors(shape.kinds[number], shape, layout))


def type_of(
    model: Model, quant: str, table: Quantizations, kinds: Callable[[int], LayerTensors] | None = None
) -> Callable[[int, str], str]:
    """A function that names the ggml type (lower case) of ``blk.<layer>.<name>.weight`` in a quantisation.

    ``kinds``: its ``tensors_of_kinds``, where they are at hand.
    """
    if model.tensors is not None:
        stacks = ("enc.", "dec.")  # of T5, whose decoder comes last
        types = {t.name[4 * t.name.startswith(stacks) :]: t.type.lower() for t in model.tensors}
        return lambda layer, name: types.get(f"blk.{layer}.{name}.weight", "f16")
    shape = stored_shape(model, table)
    layout = table.layout(model.architecture)
    mix = _mix(model, quant, table)
    if mix is None:
        return lambda layer, name: "f16"
    place = _place(shape, layout, _prediction_layers(model, layout))
    typist = _Typist(quant, mix, layout, table, place, _own_types(model, quant, table))
    numbers = [ord(letter) - 97 for letter in shape.layers]
    has_ffn = [not isinstance(kind.ffn, NoFeedForward) for kind in shape.kinds]
    kind_at = kinds or tensors_of_kinds(shape, layout)
    values: list[int] = []
    known: dict[tuple[int, str], str] = {}

    def found(layer: int, name: str) -> str:
        answer = known.get((layer, name))
        if answer is None:
            answer = known[layer, name] = chosen(layer, name)
        return answer

    def chosen(layer: int, name: str) -> str:
        layer %= shape.n_layers  # a stack that is run several times has its weights once
        if name in _VALUES and not values:
            all_kinds = [kind_at(number) for number in range(len(shape.kinds))]
            values.extend(_before(shape, [typist.count_values(kind) for kind in all_kinds]))
            place.n_values += _before(shape, [_count_values(kind) for kind in all_kinds])[-1]
        place.value = values[layer] if values else 0
        place.layer = layer if place.experts else sum([has_ffn[number] for number in numbers[:layer]])
        kind = kind_at(numbers[layer])
        for matrix in kind.experts + kind.ffn + kind.mixer:
            if matrix.name == name:
                return typist.type_of(matrix).lower()
        return "f16"

    return found


def _own_types(model: Model, quant: str, table: Quantizations) -> dict[str, str]:
    own = table.publisher_mixes.get(quant) or table.recipe(model, quant)
    return own.types if own is not None else {}


def _mix(model: Model, quant: str, table: Quantizations) -> Mix | None:
    quant = table.like(quant)
    mix = table.own_mixes.get(model.architecture or "", {}).get(quant) or table.mixes.get(quant)
    recipe = table.recipe(model, quant)
    return Mix(base=mix.base, output=mix.base) if mix is not None and recipe is not None and recipe.pure else mix


def store(model: Model, quant: str, table: Quantizations) -> Stored:
    """``model`` in ``quant`` as an engine stores it; exact for GGUF mixes of architectures that llama.cpp runs.

    Raises FitcheckError ``unknown_quant`` for a name that is in no table, ``unknown_shape`` for a model without one.
    """
    shape = stored_shape(model, table)
    layout = table.layout(model.architecture)
    if model.tensors is not None and quant in (model.file_quant, None):
        return _of_file(model, shape, model.tensors, layout, table)
    mix = _mix(model, quant, table)
    if mix is not None:
        stored = _of_mix(model, shape, quant, mix, layout, table)
        if quant not in table.publisher_mixes:
            return stored
        from fitcheck.estimate.publisher_mix import sized

        return sized(stored, model, quant, table)
    form = table.formats.get(quant)
    if form is not None:
        in_groups = form.quantised == "all" and form.group  # MLX
        own_bits = table.mlx_bits.get(model.architecture or "", {}) if in_groups else {}
        return _of_format(shape, quant, form, layout, own_bits)
    raise FitcheckError("unknown_quant", f"unknown quantisation {quant}", "try Q4_K_M, Q8_0 or F16")


def weights(model: Model, quant: str, quantizations: Quantizations) -> Weights:
    """Bytes of ``model`` in ``quant`` by role, as they lie in the file; raises as ``store`` does."""
    return weights_of(store(model, quant, quantizations))
