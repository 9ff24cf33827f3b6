"""A device as the speed model sees it: its data-sheet rates, and the names of the parameters that apply to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from fitcheck.estimate.speed_model import Powers, SpeedModel, factor_of
from fitcheck.types import Accelerator, Machine, Origin

UNKNOWN_BANDWIDTH_PER_S = 40e9  # dual-channel DDR4-2666: the common PC whose memory says nothing
UNKNOWN_FLOP_PER_BYTE = 60.0  # FP16 peak / bandwidth of GPUs since 2018, roughly
UNKNOWN_LINK_PER_S = 12e9  # what PCIe 3.0 x16 gives
TOKEN_S = 1e-3  # what token_ms multiplies
DESKTOP_CORES = 8.0  # what the cost of an operation is stated for: all cores must finish it before the next

_DEFAULT_ENGINE = "llama.cpp"

# Which levels of parameters multiply a term on a device, by "test/term".
_LEVELS = {
    "decode/read": ("backend", "memory", "engine", "build", "bandwidth"),
    "decode/cache": ("backend",),
    "decode/operation_us": ("backend", "engine", "build", "runtime"),
    "decode/core": ("instructions", "virtual"),
    "decode/core_read_ns": ("backend",),
    "decode/compute_ns": ("backend",),
    "decode/token_ms": ("backend",),
    "decode/device": ("hardware", "chip"),
    "prefill/compute": ("backend", "target", "engine", "build"),
    "prefill/compute_ns": ("backend", "instructions"),
    "prefill/block": ("instructions", "year"),
    "prefill/expert": ("backend",),
    "prefill/attention": ("backend",),
    "prefill/read": ("backend",),
    "prefill/dequantise": ("backend",),
    "prefill/operation_us": ("backend", "engine"),
    "prefill/device": ("hardware", "chip", "runtime"),
}


class TokenKeys(NamedTuple):
    """The parameters that multiply each part of a token's time on a device: reading weights and states, reading caches,
    operations; of a processor its arithmetic and what its cores take in.
    """

    read: tuple[str, ...]
    cache: tuple[str, ...]
    operation: tuple[str, ...]
    crowd: Powers = ()  # of operations
    compute: tuple[str, ...] = ()
    core_read: tuple[str, ...] = ()


class TokenFactors(NamedTuple):
    """What ``TokenKeys`` come to."""

    read: float
    cache: float
    operation: float
    compute: float
    core_read: float
    token_s: float  # what a token costs beside all that, in seconds


class Device(Struct, frozen=True):
    """``names``: level of parameters -> this device's name in it. ``peak_per_s``: dense FP16 FLOP/s, of a CPU its
    cores x 10^9. ``link_per_s``: bytes/s to its neighbours. ``assumed``: inputs that nobody reported. ``seen``,
    ``engine_seen``: whether anyone measured this hardware, this engine on such hardware."""

    backend: str
    bandwidth_per_s: float
    peak_per_s: float
    names: Mapping[str, str]
    link_per_s: float = UNKNOWN_LINK_PER_S
    assumed: tuple[str, ...] = ()
    seen: bool = False
    engine_seen: bool = True
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what ``keys`` has answered
    factors: dict[tuple[str, ...], TokenFactors] = field(default_factory=dict)  # what ``token_factors`` has

    @property
    def is_cpu(self) -> bool:
        """Whether the processor's arithmetic is a term of its own."""
        return self.backend == "cpu"

    @property
    def cores(self) -> float:
        """Of a CPU: how many cores work."""
        return self.peak_per_s / 1e9

    @property
    def without_tiles(self) -> Device:
        """The same processor by its vector instructions alone: not every kernel uses matrix tiles (AMX)."""
        if self.names.get("instructions") != "amx":
            return self
        return replace(self, names={**self.names, "instructions": "avx512_bf16"}, known={}, factors={})

    @property
    def bandwidth_measured(self) -> bool:
        """Whether all cores together were seen to read this fast."""
        return "bandwidth" in self.names

    def keys(self, term: str) -> tuple[str, ...]:
        """The parameters that multiply ``term`` ("decode/read") here, from the general to the particular."""
        found = self.known.get(term)
        if found is None:
            names = self.names
            found = tuple([f"{term}/{level}/{names[level]}" for level in _LEVELS[term] if level in names])
            self.known[term] = found
        return found

    def token_keys(self, of_quant: tuple[str, ...]) -> TokenKeys:
        """The parameters of a token's time here. ``of_quant``: those of the arithmetic of a quantisation."""
        whole = self.keys("decode/device")
        read, operation = self.keys("decode/read") + whole, self.keys("decode/operation_us")
        cache = self.keys("decode/cache") + read
        if not self.is_cpu:
            return TokenKeys(read, cache, operation + whole)
        core = self.keys("decode/core") + whole
        crowd = (("decode/operation_us/cores", self.cores / DESKTOP_CORES),)
        compute = self.keys("decode/compute_ns") + of_quant + core
        return TokenKeys(read, cache, operation + core, crowd, compute, self.keys("decode/core_read_ns") + core)

    def token_factors(self, of_quant: tuple[str, ...], parameters: dict[str, float]) -> TokenFactors:
        """What ``token_keys`` come to."""
        found = self.factors.get(of_quant)
        if found is None:
            read, cache, operation, crowd, compute, core_read = self.token_keys(of_quant)
            found = self.factors[of_quant] = TokenFactors(
                factor_of(parameters, read),
                factor_of(parameters, cache),
                factor_of(parameters, operation, crowd),
                factor_of(parameters, compute),
                factor_of(parameters, core_read),
                factor_of(parameters, self.keys("decode/token_ms"), start=TOKEN_S),
            )
        return found


class Hardware:
    """A machine as the speed model sees it; what a device can do is worked out once.

    ``runtime`` is a row of runtimes.json; "llama.cpp@2024" means the builds of that year (in measurements). How
    much memory there is does not matter.
    """

    def __init__(self, machine: Machine, runtime: str, speed_model: SpeedModel) -> None:
        self.machine = machine
        self.speed_model = speed_model
        self._engine, _, self._year = runtime.partition("@")
        self._devices: dict[str, Device] = {}

    def device(self, name: str) -> Device:
        """The device that a placement names ("cpu", "gpu0", ...)."""
        found = self._devices.get(name)
        if found is None:
            if name == "cpu":
                found = _cpu(self.machine, self._engine, self._year, self.speed_model)
            else:
                found = _gpu(self.machine.accelerators[int(name[3:])], self._engine, self._year, self.speed_model)
            self._devices[name] = found
        return found


def _cpu(machine: Machine, engine: str, year: str, speed_model: SpeedModel) -> Device:
    bandwidth, cpu, calibration = machine.ram.bandwidth, machine.cpu, machine.calibration
    per_s = bandwidth.per_s if bandwidth else UNKNOWN_BANDWIDTH_PER_S
    measured = bandwidth is not None and bandwidth.origin is Origin.MEASURED
    if calibration is not None and calibration.ram_bandwidth_bytes_per_s:
        per_s, measured = calibration.ram_bandwidth_bytes_per_s, True
    known = measured or (bandwidth is not None and bandwidth.origin not in (Origin.ASSUMED, Origin.CATALOG))
    names = {"backend": "cpu", "chip": cpu.name, "instructions": _instructions(machine)}
    if measured:
        names["bandwidth"] = "measured"
    if "hypervisor" in cpu.features and cpu.physical_cores == cpu.logical_cpus:
        names["virtual"] = "yes"
    if engine != _DEFAULT_ENGINE:
        names["runtime"] = engine
    if year:
        names["year"] = year
    return Device(
        backend="cpu",
        bandwidth_per_s=per_s,
        peak_per_s=max(1, cpu.threads) * 1e9,
        names=names,
        assumed=() if known else ("memory bandwidth",),
        seen=f"decode/device/chip/{cpu.name}" in speed_model.parameters,
    )


def _instructions(machine: Machine) -> str:
    """What a core computes with, the newest that it has: that tells its generation, too. Apple's cores have no other
    instructions but twice the units.
    """
    features = machine.cpu.features
    if machine.arch.startswith(("arm", "aarch")):
        if machine.os == "darwin":
            return "apple"
        return "dotprod" if "asimddp" in features else "neon"
    if "amx_int8" in features:
        return "amx"
    if "avx512_bf16" in features:
        return "avx512_bf16"
    if "avx512f" in features:
        return "avx512"
    return next((name for name in ("avx_vnni", "avx2", "avx") if name in features), "sse")


def _gpu(card: Accelerator, engine: str, year: str, speed_model: SpeedModel) -> Device:
    own_backend = card.backends[0].value if card.backends else "vulkan"
    brought = speed_model.runtime_backends.get(engine)
    backend = brought or own_backend
    name = card.catalog_name or card.name
    target = card.compute_capability or card.gfx_target
    names = {"backend": backend, "hardware": name}
    if target:
        if not brought:  # vLLM and others bring kernels for each generation
            names["target"] = target
        memory = next((kind for kind, targets in speed_model.memories.items() if target in targets), None)
        if memory:
            names["memory"] = memory
    if engine != _DEFAULT_ENGINE and not brought:
        names["engine"] = f"{engine} {backend}"
    if year:
        names["build"] = f"{year} {backend}"
    bandwidth = card.pool.bandwidth
    per_s = bandwidth.per_s if bandwidth else UNKNOWN_BANDWIDTH_PER_S
    peak = max(card.compute.get("fp16", 0.0), card.compute.get("fp32", 0.0))
    parameters = speed_model.parameters
    assumed = []
    if bandwidth is None or bandwidth.origin is Origin.ASSUMED:
        assumed.append("memory bandwidth")
    if not peak:
        assumed.append("compute peak")
    return Device(
        backend=backend,
        bandwidth_per_s=per_s,
        peak_per_s=peak or per_s * UNKNOWN_FLOP_PER_BYTE,
        names=names,
        link_per_s=(card.link.bytes_per_s if card.link else None) or UNKNOWN_LINK_PER_S,
        assumed=tuple(assumed),
        seen=f"decode/device/hardware/{name}" in parameters,
        engine_seen="engine" not in names or f"decode/read/engine/{names['engine']}" in parameters,
    )
