"""The published measurements, and the question that each of them answers.

A row is asked as a user would ask: the machine from its name (as ``--on`` does), the model from the catalog, the
weights from the quantisation. Columns of fitcheck/data/measurements.csv: ``backend``, for an engine with kernels of
its own (exllama, hipfire, mlc, mlx, vllm) the engine, whose errors count apart; ``grade`` A llama-bench, B one
application, C rounded or unclear; ``usable`` fit (trains and scores), score (scores only: a rule of text, physics or
arithmetic found a problem with its label, named in ``reason``), no (several devices, partial offload, short prompts,
...); ``reason`` of a row that trains: which label was corrected, by what; ``published_quant`` where ``quant`` is the
nearest known mix, then ``file_gib`` scales the layers to the published size.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.errors import FitcheckError
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import weights
from fitcheck.estimate.speed_model import SpeedModel, Term
from fitcheck.estimate.speed_terms import Running, decode_terms, prefill_terms, running
from fitcheck.probe.pretend import pretend
from fitcheck.types import (
    Backend,
    DeviceUse,
    FlashAttention,
    LayerBytes,
    Machine,
    MixtureOfExperts,
    Model,
    Origin,
    Placement,
    PlacementKind,
    Rate,
    Request,
    Weights,
)

FILE = facts.DATA / "measurements.csv"
GIB = 1024**3
PRESENT = 2026  # builds of earlier years carry theirs
OLDEST = 2024  # builds before are nothing like those of today


class Measured(Struct, frozen=True):
    """One published speed and the question that it answers. ``cell``: rows that differ in prompt, depth or settings
    only. ``trains``: False where its label has a problem."""

    source: str
    hardware: str
    backend: str
    engine: str
    date: str
    grade: str
    cell: tuple[str, ...]
    test: str
    tokens: int  # of the prompt; 1 for decode
    depth: float
    tokens_per_s: float
    trains: bool
    stated: bool  # CPU: the bandwidth of the memory was stated
    model: Model
    weights: Weights
    machine: Machine
    placement: Placement
    request: Request
    runtime: str

    @property
    def seconds(self) -> float:
        """The measured time of one token, or of the prompt."""
        return self.tokens / self.tokens_per_s

    @property
    def on_cpu(self) -> bool:
        """Whether the processor computed it."""
        return self.backend == "cpu"

    @property
    def is_moe(self) -> bool:
        """Whether a token reads only some of the experts."""
        shape = self.model.shape
        return shape is not None and any(isinstance(kind.ffn, MixtureOfExperts) for kind in shape.kinds)

    def running(self, speed_model: SpeedModel) -> Running:
        """What ran where, as the estimator sees it."""
        return running(self.model, self.weights, self.placement, self.machine, self.request, self.runtime, speed_model)

    def terms(self, speed_model: SpeedModel) -> list[Term]:
        """The terms of the time, by the estimator's own functions."""
        run = self.running(speed_model)
        if self.test == "decode":
            return decode_terms(run, self.depth)
        return prefill_terms(run, self.tokens, int(self.depth))


def load(path: Path = FILE) -> tuple[Measured, ...]:
    """All rows that train or score."""
    return tuple(_rows(path, lambda row: row["usable"] != "no"))


def on_several_cards(path: Path = FILE) -> tuple[Measured, ...]:
    """Decoding on several cards: by llama.cpp, with the layers one after the other, and by vLLM of this year, with
    every layer shared. These rows neither train nor score elsewhere.
    """
    return tuple(_rows(path, _is_on_several_cards))


def _is_on_several_cards(row: dict[str, str]) -> bool:
    year = int(row["date"][:4] or 0)
    in_turn = row["engine"] == "llama.cpp" and row["split"] in ("", "layer") and year >= OLDEST
    shared = row["engine"] == "vllm" and year >= PRESENT
    return (in_turn or shared) and row["test"] == "decode" and row["reason"] == "multi-device"


def _rows(path: Path, is_wanted: Callable[[dict[str, str]], bool]) -> Iterator[Measured]:
    models = {model.id: model for model in catalog.load().models}
    table = facts.load().quantizations
    machines: dict[tuple[str, ...], Machine] = {}
    made: dict[tuple[str, ...], Weights | None] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            model = models.get(row["model"])
            if not is_wanted(row) or model is None or model.shape is None:
                continue
            several = f"{row['devices']}x " if int(row["devices"] or 1) > 1 else ""
            where = several + row["hardware"], row["backend"], row["ram_gb_per_s"], row["threads"]
            if where not in machines:
                machines[where] = _machine(*where)
            which = row["model"], row["quant"], row["file_gib"] if row["published_quant"] else ""
            if which not in made:
                made[which] = _weights(model, which[1], which[2], table)
            sized = made[which]
            if sized is not None:
                yield _measured(row, model, sized, machines[where])


def _machine(hardware: str, backend: str, ram_gb_per_s: str, threads: str) -> Machine:
    machine = pretend(hardware if backend != "cpu" else hardware.removesuffix("(CPU)") + " (CPU)")
    if backend != "cpu":
        own = Backend(backend) if backend in {item.value for item in Backend} else machine.accelerators[0].backends[0]
        return replace(machine, accelerators=tuple(replace(card, backends=(own,)) for card in machine.accelerators))
    cpu = machine.cpu
    if threads and cpu.sockets > 1 and int(threads) <= cpu.physical_cores // cpu.sockets:
        return _machine(hardware.removeprefix(f"{cpu.sockets}x "), backend, "", threads)  # it stays on one socket
    if ram_gb_per_s and cpu.sockets == 1:
        rate = Rate(float(ram_gb_per_s) * 1e9, Origin.USER, "stated with the measurement")
        machine = replace(machine, ram=replace(machine.ram, bandwidth=rate))
    if threads:
        machine = replace(machine, cpu=replace(machine.cpu, threads=int(threads)))
    return machine


def _weights(model: Model, quant: str, file_gib: str, table: Quantizations) -> Weights | None:
    try:
        sized = weights(model, quant, table)
    except FitcheckError:
        return None
    if not file_gib:
        return sized
    body = sum(layer.total for layer in sized.each_layer())
    scale = min(1.7, max(0.6, 1.0 + (float(file_gib) * GIB - sized.total) / body))
    kinds = tuple(
        LayerBytes(int(kind.mixer * scale), int(kind.ffn * scale), int(kind.experts * scale)) for kind in sized.kinds
    )
    return replace(sized, kinds=kinds, total=sized.total + int(body * (scale - 1.0)))


def _measured(row: dict[str, str], model: Model, sized: Weights, machine: Machine) -> Measured:
    assert model.shape is not None
    layers = model.shape.n_layers
    on_cpu = row["backend"] == "cpu"
    kind = PlacementKind.CPU if on_cpu else PlacementKind.GPU
    names = ["cpu"] if on_cpu else [f"gpu{card.index}" for card in machine.accelerators]
    stages = len(names) if row["engine"] == "llama.cpp" else 1  # others share every layer
    ends = [layers * stage // stages for stage in range(stages + 1)]
    uses = []
    for number, name in enumerate(names):
        stage = number * stages // len(names)
        first, last = ends[stage], ends[stage + 1]
        uses.append(DeviceUse(name, row["hardware"], 0, 0, first, last, last - first, last == layers))
    prompt, generated, depth = (int(row[name]) for name in ("prompt_tokens", "generated_tokens", "depth_tokens"))
    decode = row["test"] == "decode"
    kv_type = row["kv_type"] if row["kv_type"] in ("f16", "q8_0", "q4_0") else "f16"
    flash = FlashAttention.OFF if _without_flash(row) else FlashAttention.AUTO
    return Measured(
        source=row["source"],
        hardware=row["hardware"],
        backend=row["backend"],
        engine=row["engine"],
        date=row["date"],
        grade=row["grade"],
        cell=(row["source"], row["hardware"], row["model"], row["published_quant"] or row["quant"], row["backend"]),
        test=row["test"],
        tokens=1 if decode else prompt,
        depth=max(depth, prompt) + generated / 2 if decode else depth,
        tokens_per_s=float(row["tokens_per_s"]),
        trains=row["usable"] == "fit",
        stated=bool(row["ram_gb_per_s"]),
        model=model,
        weights=sized,
        machine=machine,
        placement=Placement(kind, tuple(uses)),
        request=Request(
            prompt_tokens=prompt,
            answer_tokens=generated,
            kv_type_k=kv_type,
            kv_type_v=kv_type,
            flash_attention=flash,
        ),
        runtime=_runtime(row),
    )


def _without_flash(row: dict[str, str]) -> bool:
    """Switched off, or before it was the default."""
    return row["flash_attention"] == "0" or (not row["flash_attention"] and row["date"] < "2025")


def _runtime(row: dict[str, str]) -> str:
    """The engine, with the year of a llama.cpp build that is not of the present."""
    year = int(row["date"][:4] or PRESENT)
    if row["engine"] != "llama.cpp" or year >= PRESENT:
        return row["engine"]
    return f"llama.cpp@{max(year, OLDEST)}"
