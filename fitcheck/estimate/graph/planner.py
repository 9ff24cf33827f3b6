"""From a graph to the bytes of each device's compute buffer: the engine's scheduler and its allocator, replayed.

Three steps, each as in llama.cpp 0c1e57098:

1. ``assign`` gives every node a device (ggml-backend.cpp, ggml_backend_sched_split_graph, passes 1 to 4).
2. ``split`` cuts the order into runs on one device and copies what crosses (passes 5 and 6).
3. ``allocate`` walks the result with a best-fit allocator that reuses what is no longer read (ggml-alloc.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fitcheck.estimate.buffers import PIPELINE_COPIES
from fitcheck.estimate.graph.tensors import BLOCKS, HOST, Graph, Tensor, row_bytes

GPU_ROW_PADDING = 512  # elements: CUDA pads the rows of quantised matrices (MATRIX_ROW_PADDING)
IN_PLACE = frozenset(
    (
        *("ADD", "ADD_ID", "SUB", "MUL", "DIV", "SCALE", "SQR", "SQRT", "LOG", "UNARY"),
        *("ROPE", "RMS_NORM", "CLAMP", "SOFT_MAX", "FILL"),
    )
)  # ggml_op_can_inplace

Size = Callable[[Tensor], int]


class Device(NamedTuple):
    """How a backend's buffers are laid out: alignment in bytes, and what a tensor needs."""

    alignment: int
    size_of: Size


def plan(graph: Graph, pipeline: bool, gpu: Device | None = None) -> tuple[int, ...]:
    """Bytes of the compute buffer on the host and on each GPU (CUDA's rules if ``gpu`` is None)."""
    host = _Pool(*HOST_RULES)
    if not graph.gpus:
        for tensor in (*graph.nodes, *graph.inputs):
            tensor.device = HOST
        allocate(graph.nodes, graph.inputs, (host,))
        return (host.peak,)
    assign(graph.nodes)
    steps, leaves = split(graph, PIPELINE_COPIES if pipeline else 1)
    pools = (host, *(_Pool(*(gpu or CUDA_RULES)) for _ in range(graph.gpus)))
    allocate(steps, leaves, pools)
    return tuple(pool.peak for pool in pools)


# ---- sizes


def host_bytes(tensor: Tensor) -> int:
    """What the host's buffer needs for a tensor."""
    return tensor.bytes


def cuda_bytes(tensor: Tensor) -> int:
    """What CUDA's buffer needs: padded rows of quantised matrices, and f16 copies beside flash attention's result."""
    size = tensor.bytes
    if tensor.op == "FLASH_ATTN":
        keys, values = tensor.sources[1], tensor.sources[2]
        if keys.type != "f16":
            size = _padded(size, 128) + 2 * keys.elements
        if values.type != "f16" and values.root is not keys.root:
            size = _padded(size, 128) + 2 * values.elements
    elif BLOCKS[tensor.type][0] > 1 and tensor.ne[0] % GPU_ROW_PADDING:
        size += row_bytes(tensor.type, GPU_ROW_PADDING - tensor.ne[0] % GPU_ROW_PADDING)
    return size


def metal_bytes(tensor: Tensor) -> int:
    """What Metal's buffer needs: scratch behind the results of flash attention, experts and sorting.

    Flash attention always keeps room for K and V as f16, for padding, block masks and partial results
    (ggml-metal-ops.cpp, ggml_metal_op_*_extra_*).
    """
    size = tensor.bytes
    if tensor.op == "FLASH_ATTN":
        return size + _metal_flash_bytes(tensor)
    if tensor.op == "MUL_MAT_ID":
        experts, tokens = tensor.experts, tensor.ne[2]
        return size + 4 * experts + 4 * experts * tokens + 8 + 4 * METAL_PARTS
    return 2 * size if tensor.op == "ARGSORT" else size


def _metal_flash_bytes(tensor: Tensor) -> int:
    q, k, v, mask = tensor.sources[:4]
    shares_k = v.root is k.root
    k_row, v_row = 2 * k.ne[0], 2 * (k.ne[0] if shares_k else v.ne[0])
    mask_rows = mask.ne[1] * mask.ne[2] * mask.ne[3]
    heads = k.ne[2] * k.ne[3]
    padding = METAL_CELLS * (k_row * heads + v_row * v.ne[2] * v.ne[3] + 2 * mask_rows)
    blocks = -(-q.ne[1] // METAL_QUERIES) * -(-mask.ne[0] // METAL_CELLS) * mask.ne[2] * mask.ne[3]
    partial = 4 * min(q.ne[1], 32) * q.ne[2] * q.ne[3] * METAL_GROUPS * (v.ne[0] + 2)
    copies = _padded(2 * k.elements, 16) + (0 if shares_k else _padded(2 * v.elements, 16))
    return padding + _padded(blocks, 32) + partial + copies


METAL_CELLS, METAL_QUERIES = 64, 8  # OP_FLASH_ATTN_EXT_NCPSG, OP_FLASH_ATTN_EXT_NQPSG
METAL_GROUPS = 32  # partial results of flash attention
METAL_PARTS = 256  # N_MM_NPART_AMAX
HOST_RULES = Device(32, host_bytes)
CUDA_RULES = Device(128, cuda_bytes)
METAL_RULES = Device(32, metal_bytes)


def padded_matrix_bytes(type_: str, row: int, elements: int) -> int:
    """Bytes of a matrix on a GPU, rows of ``row`` elements."""
    size = row_bytes(type_, row) * (elements // row)
    if BLOCKS[type_][0] > 1 and row % GPU_ROW_PADDING:
        size += row_bytes(type_, GPU_ROW_PADDING - row % GPU_ROW_PADDING)
    return _padded(size, 128)


# ---- devices


def assign(nodes: list[Tensor]) -> None:
    """Nodes with a weight stay with it; the others follow a GPU neighbour, else any neighbour."""
    for node in nodes:
        node.device = -1 if node.home is None or (node.host_only and node.home != HOST) else node.home
    _spread(nodes, gpus_only=True)
    _spread(reversed(nodes), gpus_only=True)
    _spread(nodes, gpus_only=False)
    _spread(reversed(nodes), gpus_only=False)
    for node in nodes:
        if node.device < 0:
            node.device = HOST
        for source in node.sources:
            if source.op == "SCRATCH":
                source.device = node.device


def _spread(nodes: Iterable[Tensor], gpus_only: bool) -> None:
    device = -1
    for node in nodes:
        if node.device >= 0:
            device = -1 if gpus_only and node.device == HOST else node.device
        elif device >= 0 and not (node.host_only and device != HOST):
            node.device = device


def split(graph: Graph, copies: int) -> tuple[list[Tensor], list[Tensor]]:
    """Steps in order (nodes, and copies of what crosses between devices), and what is allocated before the first."""
    crossing: dict[tuple[int, int], Tensor] = {}
    steps: list[Tensor] = []
    transfers: list[Tensor] = []  # every copy, for pipelining
    pending: list[Tensor] = []  # nodes of the run that is being collected
    device = graph.nodes[0].device
    has_inputs = False
    weights_on_host = bool(graph.host_weights)
    for node in graph.nodes:
        if node.device != device or (has_inputs and weights_on_host and _needs_host_weight(node, device)):
            steps += pending
            pending, has_inputs, device = [], False, node.device
        for i, source in enumerate(node.sources):
            root = source.root
            if (HOST if root.input else root.device) == device:
                continue
            key = (id(source), device)
            if key not in crossing:
                crossing[key] = copy = _copy_to(source, device)
                has_inputs = True
                steps.append(Tensor("i32", (0, 0, 0, 0), "KEEP", (source,)))
                steps.append(copy)
                if copies > 1:
                    transfers += _in_flight(copy, copies)
            node.sources = (*node.sources[:i], crossing[key], *node.sources[i + 1 :])
        pending.append(node)
        if node.kept and device != HOST:
            kept = tuple(crossing.get((id(source), device), source) for source in node.kept)
            pending.append(Tensor("i32", (0, 0, 0, 0), "KEEP", kept))
    steps += pending
    leaves = graph.inputs
    if copies > 1:
        given = [leaf for leaf in leaves if leaf.input]
        leaves = [copy for leaf in given for copy in _in_flight(leaf, copies)] + transfers
        leaves += [leaf for leaf in graph.inputs if not leaf.input]
    return steps, leaves


def _needs_host_weight(node: Tensor, device: int) -> bool:
    return any(source.stored and source.op == "NONE" and source.device != device for source in node.sources)


def _copy_to(source: Tensor, device: int) -> Tensor:
    copy = Tensor(source.type, source.ne, "COPY")
    copy.strides = source.strides
    copy.device = device
    return copy


def _in_flight(tensor: Tensor, copies: int) -> list[Tensor]:
    """``tensor`` and its further copies, none of them ever freed."""
    tensor.output = True
    more = [_copy_to(tensor, HOST if tensor.input else tensor.device) for _ in range(copies - 1)]
    for copy in more:
        copy.output = True
    return [tensor, *more]


# ---- memory


class _Pool:
    """Free memory of one device, as blocks [address, bytes] in order of address; the last one is endless."""

    def __init__(self, alignment: int, size_of: Size) -> None:
        self.alignment = alignment
        self.size_of = size_of
        self.free: list[list[int]] = [[0, 1 << 62]]
        self.peak = 0

    def take(self, tensor: Tensor) -> None:
        """Place ``tensor`` at the start of the smallest block that holds it (the later of equals), else at the end."""
        size = _padded(self.size_of(tensor), self.alignment)
        free = self.free
        best, best_size = len(free) - 1, 1 << 62
        for i in range(best):
            block_size = free[i][1]
            if size <= block_size <= best_size:
                best, best_size = i, block_size
        block = free[best]
        tensor.address = block[0]
        tensor.size = size
        block[0] += size
        block[1] -= size
        if not block[1]:
            del free[best]
        self.peak = max(self.peak, tensor.address + size)

    def give_back(self, start: int, size: int) -> None:
        """Free a block and merge it with one neighbour on each side.

        Blocks of no bytes are kept like others, as in the engine: they can keep two neighbours from merging, and stand
        before a block that grew down to a lower address. Hence every block is looked at.
        """
        free, end = self.free, start + size
        for i, block in enumerate(free):
            if block[0] + block[1] == start:
                block[1] += size
                if i + 1 < len(free) and block[0] + block[1] == free[i + 1][0]:
                    block[1] += free[i + 1][1]
                    del free[i + 1]
                return
            if end == block[0]:
                block[0] = start
                block[1] += size
                if i and free[i - 1][0] + free[i - 1][1] == start:
                    free[i - 1][1] += block[1]
                    del free[i]
                return
        free.insert(next((i for i, block in enumerate(free) if block[0] >= start), len(free)), [start, size])


def allocate(steps: list[Tensor], leaves: list[Tensor], pools: tuple[_Pool, ...]) -> None:
    """Run the allocator over ``steps``; the peaks of ``pools`` are the answer."""
    for leaf in leaves:
        pools[HOST if leaf.input else leaf.device].take(leaf)
        leaf.pool = HOST if leaf.input else leaf.device
    for step in steps:
        for source in step.sources:
            source.root.reads += 1
    for step in steps:
        if step.root is step and step.op != "KEEP" and step.pool < 0 and not _take_over(step):
            pools[step.device].take(step)
            step.pool = step.device
        for source in step.sources:
            root = source.root
            root.reads -= 1
            if not root.reads and not root.output and root.pool >= 0:
                pools[root.pool].give_back(root.address, root.size)
                root.pool = -1


def _take_over(node: Tensor) -> bool:
    """Whether the result stands where a source of the same shape stood that nobody else reads."""
    if node.op not in IN_PLACE:
        return False
    for source in node.sources:
        if (
            source.pool >= 0
            and source.reads == 1
            and source.ne == node.ne
            and source.type == node.type
            and source.strides is None
            and not source.output
        ):
            node.pool, node.address, node.size = source.pool, source.address, source.size
            source.pool = -1
            return True
    return False


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment
