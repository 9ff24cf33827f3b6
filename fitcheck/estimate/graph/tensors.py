"""Tensors of a compute graph, and the builder that makes them: sizes only, no data.

The operations are ggml's, named and shaped as there (``ne`` is the shape, fastest dimension first). A graph is what the
planner needs: nodes in the order in which the engine runs them, and inputs in the order in which it meets them.
Source: llama.cpp 0c1e57098, ggml/src/ggml.c.
"""

from __future__ import annotations

from collections.abc import Callable

Dims = tuple[int, int, int, int]

BLOCKS = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "i32": (1, 4), "i64": (1, 8),
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34), "iq4_nl": (32, 18),
    "mxfp4": (32, 17), "nvfp4": (64, 36), "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176),
    "q6_k": (256, 210), "iq1_s": (256, 50), "iq1_m": (256, 56), "iq2_xxs": (256, 66), "iq2_xs": (256, 74),
    "iq2_s": (256, 82), "iq3_xxs": (256, 98), "iq3_s": (256, 110), "iq4_xs": (256, 136), "tq1_0": (256, 54),
    "tq2_0": (256, 66),
}  # fmt: skip
"""ggml type: elements per block, bytes per block."""

OFFLOAD_BATCH = 32  # from this many rows on, an operation on a host weight runs on the GPU (GGML_OP_OFFLOAD_MIN_BATCH)
HOST = 0  # device number of the host; GPUs count from 1


def row_bytes(type_: str, elements: int) -> int:
    """Bytes of ``elements`` consecutive elements."""
    block, size = BLOCKS[type_]
    return elements // block * size


class Tensor:
    """One tensor. ``root`` is what a view looks into, else the tensor itself; ``strides`` (bytes) only for views that
    are not laid out contiguously. ``home`` is the device that a weight or a cache ties it to, None where neighbours
    decide. ``stored``: lives outside the compute buffer (weights, caches). ``host_only``: the GPU cannot run it.
    ``kept``: what a GPU reads for this result besides its sources, because one kernel makes it from them.
    """

    __slots__ = (
        "address", "device", "experts", "home", "host_only", "input", "kept", "ne", "op", "output", "pool", "reads",
        "root", "seen", "size", "sources", "stored", "strides", "type",
    )  # fmt: skip

    def __init__(self, type_: str, ne: Dims, op: str, sources: tuple[Tensor, ...] = ()) -> None:
        self.type = type_
        self.ne = ne
        self.op = op
        self.sources = sources
        self.root = self
        self.strides: Dims | None = None
        self.home: int | None = None
        self.device = -1
        self.stored = self.input = self.output = self.seen = self.host_only = False
        self.reads = 0
        self.pool = -1  # device whose buffer holds it now, -1 when it holds no memory
        self.address = self.size = 0
        self.kept: tuple[Tensor, ...] = ()
        self.experts = 0  # matrices that a MUL_MAT_ID chooses from

    @property
    def bytes(self) -> int:
        """Bytes from the first to the last element."""
        ne = self.ne
        if not self.strides:
            return row_bytes(self.type, ne[0]) * ne[1] * ne[2] * ne[3]
        if 0 in ne:
            return 0
        block, size = BLOCKS[self.type]
        stride = self.strides
        row = ne[0] // block * stride[0] if block > 1 else size + (ne[0] - 1) * stride[0]
        return row + (ne[1] - 1) * stride[1] + (ne[2] - 1) * stride[2] + (ne[3] - 1) * stride[3]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        ne = self.ne
        return ne[0] * ne[1] * ne[2] * ne[3]

    def nb(self) -> Dims:
        """Strides in bytes."""
        return self.strides or contiguous_strides(self.type, self.ne)


def contiguous_strides(type_: str, ne: Dims) -> Dims:
    """Strides of a tensor without gaps."""
    row = row_bytes(type_, ne[0])
    return (BLOCKS[type_][1], row, row * ne[1], row * ne[1] * ne[2])


def is_contiguous(type_: str, ne: Dims, strides: Dims) -> bool:
    """Without gaps, as ggml_is_contiguous sees it: strides of dimensions of length 1 do not count."""
    block, expected = BLOCKS[type_]
    if ne[0] != block and strides[0] != expected:
        return False
    expected = expected * ne[0] // block
    for i in (1, 2, 3):
        if ne[i] != 1:
            if strides[i] != expected:
                return False
            expected *= ne[i]
    return True


def has_contiguous_rows(x: Tensor) -> bool:
    """What the GPU's norm and sum kernels ask for."""
    return x.strides is None or x.ne[0] == 1 or x.strides[0] == BLOCKS[x.type][1]


def is_contiguous_above(x: Tensor, n: int) -> bool:
    """Without gaps, the strides of dimensions 1 to ``n`` left out (ggml_is_contiguous_n)."""
    if x.strides is None:
        return True
    ne, strides = x.ne, x.strides
    block, expected = BLOCKS[x.type]
    if ne[0] != block and strides[0] != expected:
        return False
    expected = expected * ne[0] // block
    for i in (1, 2, 3):
        if ne[i] != 1:
            if i > n:
                if strides[i] != expected:
                    return False
                expected *= ne[i]
            else:
                expected = ne[i] * strides[i]
    return True


def dims(ne: tuple[int, ...]) -> Dims:
    """A shape of up to four dimensions, filled up with ones."""
    return (*ne, 1, 1, 1)[:4]  # type: ignore[return-value]


WeightType = Callable[[int, str], str]


class Graph:
    """Builds a graph. ``layer_devices``: device of each layer, and of the output matrix at the end.

    Weights take no room in a compute buffer, so they only leave their device behind (``Tensor.home``) - unless they
    lie on the host beside a GPU: then large batches run on the GPU with a copy of the weight, and the weight becomes a
    source of the node. ``weight_type(layer, name)`` tells the size of that copy.
    """

    def __init__(self, layer_devices: tuple[int, ...], gpus: int, weight_type: WeightType) -> None:
        self.layer_devices = layer_devices
        self.gpus = gpus
        self.weight_type = weight_type
        self.copies_weights = gpus > 0 and HOST in layer_devices
        self.nodes: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.host_weights: dict[tuple[int, str, str], Tensor] = {}

    # ---- order

    def expand(self, tensor: Tensor) -> Tensor:
        """Put ``tensor`` and all that it needs into the execution order: depth first, sources left to right."""
        if not tensor.seen:
            tensor.seen = True
            for source in tensor.sources:
                if not source.seen:
                    self.expand(source)
            if tensor.root is not tensor:
                if tensor.op != "VIEW":  # writes into a cache
                    self.nodes.append(tensor)
            elif tensor.input or tensor.op == "SCRATCH":
                self.inputs.append(tensor)
            elif not tensor.stored:
                self.nodes.append(tensor)
        return tensor

    # ---- leaves

    def input(self, type_: str, *ne: int) -> Tensor:
        """A tensor that the caller fills before each run."""
        tensor = Tensor(type_, dims(ne), "NONE")
        tensor.input = True
        tensor.home = HOST
        return tensor

    def stored(self, type_: str, device: int, *ne: int) -> Tensor:
        """A cache or state outside the compute buffer."""
        tensor = Tensor(type_, dims(ne), "NONE")
        tensor.stored = True
        tensor.home = tensor.device = device
        return tensor

    def scratch(self, type_: str, *ne: int) -> Tensor:
        """A tensor that a node fills; the engine allocates it before the first node runs."""
        return Tensor(type_, dims(ne), "SCRATCH")

    # ---- operations with a weight

    def weighted(self, node: Tensor, layer: int, name: str, ne: Dims, rows: int, type_: str = "") -> Tensor:
        """Tie ``node`` to the weight ``name`` of ``layer``. ``rows``: the batch size that decides on copying it.

        Matrices stand before the activations among the sources, vectors behind, as in ggml.
        """
        return self.tied(node, self.layer_devices[layer], layer, name, ne, rows, type_)

    def tied(
        self,
        node: Tensor,
        device: int,
        layer: int,
        name: str,
        ne: Dims,
        rows: int,
        type_: str = "",
        copied: bool = True,
    ) -> Tensor:
        """Tie ``node`` to a weight on ``device``; a host weight is copied to the GPU for ``rows`` >= 32."""
        node.home = device
        if device == HOST and self.gpus and copied:
            weight = self.host_weight((layer, name, node.op), ne, type_)
            first = node.op in ("MUL_MAT", "MUL_MAT_ID", "GET_ROWS")
            node.sources = (weight, *node.sources) if first else (*node.sources, weight)
            if rows >= OFFLOAD_BATCH and not node.host_only:
                node.home = 1
        return node

    def host_weight(self, key: tuple[int, str, str], ne: Dims, type_: str) -> Tensor:
        """The weight that ``key`` (layer, name, operation) names: the same tensor each time it is used."""
        if key not in self.host_weights:
            self.host_weights[key] = self.stored(type_ or self.weight_type(key[0], key[1]), HOST, *ne)
        return self.host_weights[key]

    def matmul(self, layer: int, name: str, width: int, x: Tensor, type_: str = "") -> Tensor:
        """``weight [x.ne0, width] @ x``."""
        ne = x.ne
        node = Tensor("f32", (width, ne[1], ne[2], ne[3]), "MUL_MAT", (x,))
        return self.weighted(node, layer, name, (ne[0], width, 1, 1), ne[1], type_)

    def matmul_heads(self, layer: int, name: str, width: int, heads: int, x: Tensor) -> Tensor:
        """One matrix per head: ``weight [x.ne0, width, heads] @ x [.., tokens, heads]``."""
        ne = x.ne
        node = Tensor("f32", (width, ne[1], ne[2], ne[3]), "MUL_MAT", (x,))
        return self.weighted(node, layer, name, (ne[0], width, heads, 1), ne[1])

    def weight_rows(self, layer: int, name: str, width: int, ids: Tensor, type_: str = "f32") -> Tensor:
        """Rows that ``ids`` names of a table of a layer; gathered where the table is."""
        node = Tensor(type_, (width, ids.ne[0], 1, 1), "GET_ROWS", (ids,))
        node.home = self.layer_devices[layer]
        return node

    def vector(self, op: str, layer: int, name: str, x: Tensor, *ne: int) -> Tensor:
        """``x op weight`` with an f32 weight of shape ``ne`` (the first dimension of ``x`` if empty)."""
        node = Tensor(x.type, x.ne, op, (x,))
        shape = dims(ne) if ne else (x.ne[0], 1, 1, 1)
        return self.weighted(node, layer, name, shape, x.ne[1] * x.ne[2] * x.ne[3], "f32")

    # ---- operations on activations

    def same(self, op: str, x: Tensor, *more: Tensor) -> Tensor:
        """A result of the shape of ``x``: ADD, MUL, SCALE, UNARY, ROPE, SOFT_MAX, …"""
        node = Tensor(x.type, x.ne, op, (x, *more))
        if x.strides is not None:
            if op == "UNARY":
                node.host_only = True
            elif op in ("RMS_NORM", "NORM", "L2_NORM"):
                node.host_only = not has_contiguous_rows(x)
            elif op == "ROPE":
                node.host_only = not is_contiguous_above(x, 2)
        return node

    def op(self, op: str, type_: str, ne: tuple[int, ...], *sources: Tensor) -> Tensor:
        """Any other operation."""
        return Tensor(type_, dims(ne), op, sources)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum."""
        return self.same("ADD", a, b)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """Product, element by element."""
        return self.same("MUL", a, b)

    def scale(self, x: Tensor) -> Tensor:
        """Multiplied by a constant."""
        return self.same("SCALE", x)

    def unary(self, x: Tensor) -> Tensor:
        """An activation function."""
        return self.same("UNARY", x)

    def rms(self, x: Tensor) -> Tensor:
        """RMS norm without a weight."""
        return self.same("RMS_NORM", x)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix product of two activations."""
        return Tensor("f32", (a.ne[1], b.ne[1], b.ne[2], b.ne[3]), "MUL_MAT", (a, b))

    def cont(self, x: Tensor, *ne: int) -> Tensor:
        """A contiguous copy, reshaped to ``ne``."""
        return Tensor(x.type, dims(ne) if ne else x.ne, "CONT", (x,))

    def rows(self, x: Tensor, ids: Tensor) -> Tensor:
        """Rows of ``x`` that ``ids`` names."""
        type_ = "i32" if x.type == "i32" else "f32"
        return Tensor(type_, (x.ne[0], ids.ne[0], ids.ne[1], ids.ne[2]), "GET_ROWS", (x, ids))

    def glu(self, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """A gated unit over two tensors, or over the two halves of one."""
        ne = gate.ne if up is not None else (gate.ne[0] // 2, *gate.ne[1:])
        node = Tensor(gate.type, ne, "GLU", (gate, up) if up is not None else (gate,))
        node.host_only = not is_contiguous_above(gate, 1)
        return node

    def concat(self, a: Tensor, b: Tensor, axis: int) -> Tensor:
        """Two tensors behind each other along ``axis``."""
        ne = list(a.ne)
        ne[axis] += b.ne[axis]
        return Tensor(a.type, dims(tuple(ne)), "CONCAT", (a, b))

    def repeat(self, x: Tensor, *ne: int) -> Tensor:
        """Copies side by side until the shape is ``ne``."""
        return Tensor(x.type, dims(ne), "REPEAT", (x,))

    def sum_rows(self, x: Tensor, op: str = "SUM_ROWS") -> Tensor:
        """Sum (or mean) of each row."""
        node = Tensor(x.type, (1, *x.ne[1:]), op, (x,))
        node.host_only = not has_contiguous_rows(x)
        return node

    # ---- views

    def view(self, x: Tensor, ne: tuple[int, ...], strides: tuple[int, ...] = ()) -> Tensor:
        """A look into ``x``: ``strides`` are those of dimensions 1, 2, 3; missing ones follow without gaps."""
        shape = dims(ne)
        block, size = BLOCKS[x.type]
        s0 = x.strides[0] if x.strides else size
        s1 = strides[0] if strides else s0 * (shape[0] // block)
        s2 = strides[1] if len(strides) > 1 else s1 * shape[1]
        s3 = strides[2] if len(strides) > 2 else s2 * shape[2]
        return self._view(x, shape, (s0, s1, s2, s3))

    def reshape(self, x: Tensor, *ne: int) -> Tensor:
        """The same elements under another shape."""
        tensor = Tensor(x.type, dims(ne), "VIEW", (x,))
        tensor.root = x.root
        return tensor

    def permute(self, x: Tensor, a: int, b: int, c: int, d: int) -> Tensor:
        """Dimension i becomes dimension ``abcd[i]``."""
        ne, strides, nb = [0] * 4, [0] * 4, x.nb()
        for i, axis in enumerate((a, b, c, d)):
            ne[axis], strides[axis] = x.ne[i], nb[i]
        return self._view(x, dims(tuple(ne)), dims(tuple(strides)))

    def transpose(self, x: Tensor) -> Tensor:
        """Rows become columns."""
        return self.permute(x, 1, 0, 2, 3)

    def _view(self, x: Tensor, ne: Dims, strides: Dims) -> Tensor:
        tensor = Tensor(x.type, ne, "VIEW", (x,))
        tensor.root = x.root
        if not is_contiguous(x.type, ne, strides):
            tensor.strides = strides
        return tensor

    def write(self, op: str, target: Tensor, *sources: Tensor) -> Tensor:
        """SET_ROWS, CPY, …: an operation whose result is its ``target``."""
        tensor = Tensor(target.type, target.ne, op, sources)
        tensor.root = target.root
        tensor.home = target.root.home
        return tensor
