"""Which layers, experts and caches go on which device.

The rule is llama.cpp's own (``common/fit.cpp``): everything on the GPUs when it fits with the margin; else, for a
mixture of experts, all layers on the GPUs and the routed experts of as few layers as possible in RAM; else as many
whole layers as fit; else the CPU alone. Several GPUs get layers in proportion to their free memory. A placement that
fits without the margin is tight, and taken before one that leaves more on the host.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import add
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.estimate.buffers import ComputeBuffers
from fitcheck.estimate.images import NO_ENCODER, Placed
from fitcheck.estimate.memory import Load, gpus_hold, need_of
from fitcheck.types import Accelerator, Backend, PlacementKind, Verdict


class Gpu(NamedTuple):
    """An accelerator that the runtime can use. ``overhead_bytes`` are taken before anything else."""

    name: str  # gpu0, gpu1, …
    have_bytes: int
    overhead_bytes: int
    backend: Backend
    card: Accelerator

    @property
    def room_bytes(self) -> int:
        """What is left for the model."""
        return max(self.have_bytes - self.overhead_bytes, 0)


class Split(Struct, frozen=True):
    """A placement in the engine's terms.

    ``gpu_layers``: how many layers, counted from the last, lie on GPUs (``-ngl``; one more than layers: the output
    matrix too); ``cpu_expert_layers``: so many layers from the first keep their experts in RAM (``--n-cpu-moe``);
    Device i (0 the host, 1 the first GPU, …) holds the layers from ``ends[i - 1]`` up to ``ends[i]``; ``output`` is
    the device of the output matrix. ``group``: so many GPUs share what one device is said to hold (vLLM).
    """

    kind: PlacementKind
    gpu_layers: int
    cpu_expert_layers: int
    ends: tuple[int, ...]
    output: int
    group: int = 1

    @property
    def layer_devices(self) -> tuple[int, ...]:
        """The device of each layer, and once more of the output."""
        devices: tuple[int, ...] = ()
        for device, end in enumerate(self.ends):
            devices += (device,) * (end - len(devices))
        return (*devices, self.output)


class Parts(NamedTuple):
    """What makes up the need of one device, in bytes."""

    weights: int
    kv: int
    state: int
    compute: int
    output: int
    overhead: int
    projector: int
    projector_buffer: int


class Use(Struct, frozen=True, gc=False):
    """What one device carries, by part and with the routed experts of so many layers, and what it has."""

    name: str
    have: int
    parts: Parts
    expert_layers: int

    @property
    def need(self) -> int:
        """All parts."""
        return sum(self.parts)

    @property
    def left(self) -> int:
        """What stays free; negative where it does not fit."""
        return self.have - sum(self.parts)


class Part(Struct, frozen=True, gc=False):
    """What one device carries, by number: layers [first, last), routed experts of so many layers, the output."""

    device: str
    first_layer: int
    last_layer: int
    expert_layers: int
    output: bool


class Candidate(Struct, frozen=True):
    """A placement, what it needs on each device, and what that means. ``exact``: the engine's own arithmetic."""

    split: Split
    uses: tuple[Use, ...]
    verdict: Verdict
    exact: bool = True

    @property
    def need(self) -> int:
        """Bytes over all devices."""
        return sum([use.need for use in self.uses])

    @property
    def have(self) -> int:
        """Usable bytes of all devices."""
        return sum([use.have for use in self.uses])

    @property
    def parts(self) -> list[Part]:
        """What each device carries, in the order of ``uses``; of host and GPU in one memory, the GPU."""
        split, found = self.split, []
        host = self.uses[0].name == "cpu"
        for number, use in enumerate(self.uses):
            device = number if host else number // split.group + 1
            first, last = split.ends[device - 1] if device else 0, split.ends[device]
            layers = (first, last) if last > first else (0, 0)
            found.append(Part(use.name, *layers, use.expert_layers, split.output == device))
        return found

    @property
    def share_on_gpu(self) -> float:
        """Share of the weights that lie on GPUs, the input embedding of a full offload left out."""
        if self.split.kind is PlacementKind.GPU:
            return 1.0
        total = sum([use.parts.weights for use in self.uses])
        return sum([use.parts.weights for use in self.uses if use.name != "cpu"]) / total if total else 0.0


class Ground(Struct, frozen=True):
    """Everything that a placement is chosen by.

    ``compute`` gives the compute buffers of a split, fast: where it has no plan of that very split, a bound that all
    splits of its kind share. ``plan`` walks the engine's graph for the split that was chosen (None: there is none).
    ``output_bytes``: the host's buffer for logits; ``encoders``: of images, on the first GPU if any.
    ``margin``: bytes that should stay free on every device.
    """

    load: Load
    gpus: tuple[Gpu, ...]
    host_have: int
    host_overhead: int
    output_bytes: int
    encoders: Placed
    margin: int
    compute: Callable[[Split], ComputeBuffers]
    plan: Callable[[Split], ComputeBuffers] | None
    allow: tuple[PlacementKind, ...]
    can_split: bool
    has_cpu: bool

    @property
    def unified(self) -> bool:
        """Whether GPU and host share one memory."""
        return bool(self.gpus) and self.gpus[0].card.unified


def gpus_of(
    cards: tuple[Accelerator, ...], backends: tuple[Backend, ...], overhead_of: Callable[[Backend, Accelerator], int]
) -> tuple[Gpu, ...]:
    """The accelerators that count: usable, with a backend of the runtime; the largest first. A GPU with unified memory
    counts where there is no other.
    """
    found = []
    for card in cards:
        backend = next((b for b in card.backends if b in backends), None)
        if card.usable and backend is not None:
            overhead = overhead_of(backend, card)
            found.append(Gpu(f"gpu{card.index}", card.pool.usable_bytes, overhead, backend, card))
    discrete = sorted((gpu for gpu in found if not gpu.card.unified), key=lambda gpu: -gpu.room_bytes)
    return tuple(discrete) or tuple(found[:1])


def verdict_of(uses: tuple[Use, ...], margin: int) -> Verdict:
    """fits: every device keeps the margin free; tight: every need is met; no: at least one is not."""
    least = min([use.have - use.need for use in uses])
    return Verdict.NO if least < 0 else Verdict.TIGHT if least < margin else Verdict.FITS


def split_ends(n_layers: int, gpu_layers: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    """Where each device's layers end, output counted as one more: llama.cpp's split of the last ``gpu_layers`` layers
    by ``shares``.
    """
    first = max(n_layers + 1 - gpu_layers, 0)
    on_gpu = n_layers + 1 - first
    total = sum(shares) or 1
    ends = [first]
    running = 0
    for share in shares[:-1]:
        running += share
        # the first layer whose position reaches this card's share belongs to the next card
        ends.append(first + min(-(-running * on_gpu // total), on_gpu))
    return (*ends, n_layers + 1)


def cpu_split(n_layers: int) -> Split:
    """Everything on the host."""
    return Split(PlacementKind.CPU, 0, 0, (n_layers,), 0)


def gpu_split(load: Load, gpus: tuple[Gpu, ...], gpu_layers: int | None = None, cpu_expert_layers: int = 0) -> Split:
    """The last ``gpu_layers`` layers (None: all, and the output) on the GPUs in proportion to what each can hold."""
    return split_by(load, tuple([gpu.room_bytes for gpu in gpus]), gpu_layers, cpu_expert_layers)


def split_by(load: Load, shares: tuple[int, ...], gpu_layers: int | None = None, cpu_expert_layers: int = 0) -> Split:
    """The same with given shares of the GPUs. Prediction layers are split like others, and are then not there."""
    shares = shares if len(shares) > 1 else (1,)  # one card takes all, whatever its size
    return _split(load.n_layers, load.prediction_layers, load.loops, shares, gpu_layers, cpu_expert_layers)


@lru_cache(maxsize=4096)
def _split(
    n_layers: int,
    prediction_layers: int,
    loops: int,
    shares: tuple[int, ...],
    gpu_layers: int | None,
    cpu_expert_layers: int,
) -> Split:
    n = n_layers + prediction_layers
    wanted = n + 1 if gpu_layers is None else gpu_layers
    ends = split_ends(n, wanted, shares)
    output = bisect_right(ends, n) if wanted else 0
    kind = PlacementKind.GPU if wanted > n and not cpu_expert_layers else PlacementKind.SPLIT
    if wanted > n:
        wanted += (loops - 1) * n_layers
    return Split(kind, wanted, cpu_expert_layers, tuple([min(end, n_layers) for end in ends]), output)


def candidate(ground: Ground, split: Split, compute: ComputeBuffers | None = None) -> Candidate:
    """What a split needs, per device; ``compute`` where the buffers are known better than by ``Ground.compute``."""
    need = need_of(ground.load, split.ends, split.output, split.cpu_expert_layers)
    compute = compute or ground.compute(split)
    devices = len(split.ends)
    buffers = compute.bytes + (0,) * (devices - len(compute.bytes))
    on_gpus = devices > 1
    encoders = ground.encoders.beside(on_gpus)
    projector = 0 if on_gpus else encoders.weights
    on_host = need.weights[0], need.kv[0], need.state[0], buffers[0], ground.output_bytes, ground.host_overhead
    uses = [Use("cpu", ground.host_have, Parts(*on_host, projector, encoders.host), need.expert_layers[0])]
    for index, gpu in enumerate(ground.gpus[: devices - 1], start=1):
        beside = encoders if index == 1 else NO_ENCODER
        of_model = need.weights[index], need.kv[index], need.state[index], buffers[index], 0, gpu.overhead_bytes
        parts = Parts(*of_model, beside.weights, beside.gpu)
        uses.append(Use(gpu.name, gpu.have_bytes, parts, need.expert_layers[index]))
    if on_gpus and ground.unified:
        uses = [_in_one_pool(*uses)]
    found = tuple(uses)
    return Candidate(split, found, verdict_of(found, ground.margin), compute.exact)


def _in_one_pool(host: Use, gpu: Use) -> Use:
    """Host and GPU parts in one unified memory, under the GPU's name and limit."""
    parts = Parts(*map(add, host.parts, gpu.parts))
    return Use(gpu.name, gpu.have, parts, host.expert_layers + gpu.expert_layers)


def best_candidate(ground: Ground) -> Candidate:
    """The placement that the engine would take; where nothing fits, the one that lacks least."""
    tried = []
    room = sum([gpu.room_bytes for gpu in ground.gpus])
    if ground.load.least > ground.host_have + room:
        ground = replace(ground, compute=no_buffers)  # too large by far: how large its buffers are does not matter
    on_gpu = ground.gpus and PlacementKind.GPU in ground.allow
    if on_gpu and ground.load.least_of_layers <= room:
        whole = _whole(ground)
        if whole.verdict is not Verdict.NO:
            return whole
        tried.append(whole)
    # a stack that is run again would read weights of another device
    divisible = ground.can_split and ground.load.loops == 1
    if ground.gpus and divisible and PlacementKind.SPLIT in ground.allow and not ground.unified:
        split = _best_split(ground)
        if split is not None:
            if split.verdict is not Verdict.NO:
                return split
            tried.append(split)
    if PlacementKind.CPU in ground.allow and ground.has_cpu:
        tried.append(candidate(ground, cpu_split(ground.load.n_layers)))
    if not tried:
        host = ground if ground.has_cpu else replace(ground, host_have=0)  # what does not run there has no use of it
        tried.append(_whole(ground) if on_gpu else candidate(host, cpu_split(ground.load.n_layers)))
    return max(tried, key=lambda found: (found.verdict is not Verdict.NO, min(use.left for use in found.uses)))


def no_buffers(split: Split) -> ComputeBuffers:
    """A split without its compute buffers."""
    return ComputeBuffers((0,) * len(split.ends), False)


def _whole(ground: Ground) -> Candidate:
    """Everything on GPUs: the fewest cards that keep the margin, else the fewest that hold it, else all."""
    found = _settled(ground, gpu_split(ground.load, ground.gpus[:1]))
    for count in range(2, len(ground.gpus) + 1):
        if found.verdict is Verdict.FITS or ground.load.loops > 1:
            break
        more = _settled(ground, gpu_split(ground.load, ground.gpus[:count]))
        found = more if more.verdict is Verdict.FITS or found.verdict is Verdict.NO else found
    return found


def _settled(ground: Ground, split: Split, compute: ComputeBuffers | None = None) -> Candidate:
    """The split by the fast arithmetic; where a bound does not fit and less might, as the engine plans it."""
    found = candidate(ground, split, compute)
    if found.exact or found.verdict is not Verdict.NO:
        return found
    hopeless = candidate(ground, split, no_buffers(split)).verdict is Verdict.NO
    return found if hopeless else planned(ground, found)


def planned(ground: Ground, found: Candidate) -> Candidate:
    """The candidate with the engine's own plan of its buffers, where there is one to be had."""
    return found if found.exact or ground.plan is None else candidate(ground, found.split, ground.plan(found.split))


def _best_split(ground: Ground) -> Candidate | None:
    """The split that leaves least on the host: experts first, whole layers where that is not enough.

    Where all splits of one kind share a bound of compute buffers, the first one that keeps the margin is taken; where
    each has its own, and the one found does not keep it after all, more is left on the host.
    """
    load = ground.load
    shares = tuple([gpu.room_bytes for gpu in ground.gpus])
    if load.least + ground.host_overhead > ground.host_have + sum(shares):
        return None
    whole, experts = load.running_on_gpus
    if load.has_experts:
        found = _least_left(ground, lambda count: split_by(load, shares, None, count), load.n_layers, experts)
        if found is not None:
            return found
    all_layers = load.n_layers + load.prediction_layers
    return _least_left(ground, lambda count: split_by(load, shares, all_layers + 1 - count), all_layers, whole)


def _least_left(
    ground: Ground, split_with: Callable[[int], Split], most: int, freed: Sequence[int]
) -> Candidate | None:
    """The split with the smallest number in [1, ``most``] whose GPUs keep the margin, None where none does.

    ``freed``: bytes that the GPUs together are rid of with the first n layers left on the host, by n.
    """
    load = ground.load
    compute = ground.compute(split_with(most))
    room = _room(ground, compute)
    # no fewer than if the cards were one memory, which of a single card is the answer
    surplus = load.running_on_gpus[0][-1] + load.weights.output.gpu - sum([max(each, 0) for each in room])
    least = max(1, bisect_left(freed, surplus))

    def hold(count: int) -> bool:
        split = split_with(count)
        return gpus_hold(load, split.ends, split.output, split.cpu_expert_layers, room)

    left = _first(hold, least, most)
    if left is None:
        return None
    found = _settled(ground, split_with(left), compute if compute.common else None)
    while not compute.common and left < most and min([use.left for use in found.uses[1:]]) < ground.margin:
        left += 1
        found = _settled(ground, split_with(left))
    return found


def _room(ground: Ground, compute: ComputeBuffers) -> tuple[int, ...]:
    """What each GPU has for weights and caches when it also keeps the margin free, and the first one the encoders."""
    buffers = compute.bytes + (0,) * len(ground.gpus)
    room = [gpu.room_bytes - ground.margin - buffers[index] for index, gpu in enumerate(ground.gpus, start=1)]
    encoders = ground.encoders.beside(True)
    room[0] -= encoders.weights + encoders.gpu
    return tuple(room)


def _first(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number in [low, high] that fits, where all larger ones do; None where none does. It is looked for
    near ``low``.
    """
    if low > high:
        return None
    tried, step = low, 1
    while not fits(tried):
        if tried == high:
            return None
        low, tried, step = tried + 1, min(tried + step, high), 2 * step
    return low + bisect_left(range(low, tried), True, key=fits)
