"""How fast five models really run here, beside the estimate before and after ``fitcheck calibrate``.

    python tests/engine/bench.py --llama-cpp DIR --scratch DIR

``--llama-cpp`` names the folder of llama.cpp's programs (llama-bench, llama-quantize). The models have true shapes and
random weights; each is written to the scratch folder once (10 GB in all). A quiet machine needs about six minutes after
that. Decoding 64 tokens after none, reading 256. Exit 1 where fewer than four of five are inside before, or any is more
than 10 % off after.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gguf
from msgspec.structs import replace

import fitcheck
from fitcheck import catalog
from fitcheck.calibrate.engines import LlamaBench
from fitcheck.calibrate.measure import calibrate
from fitcheck.types import Interval, Machine, Model, Request

MODELS = (
    ("smollm2-135m-instruct", "Q8_0"),
    ("gemma-3-270m", "Q4_K_M"),
    ("llama-3.2-1b", "Q4_K_M"),
    ("olmoe-1b-7b-0125-instruct", "Q4_K_M"),
    ("llama-3.1-8b", "Q4_K_M"),
)
PROMPT, ANSWER = 256, 64
NEAR = 0.10
INSIDE = 4
TILE_BLOCKS = 1 << 14
TINY = b"\x00\x08"  # 2 ** -13 as FP16: scales of random codes that keep activations finite
SCALES = {  # where the FP16 scales of a block lie
    "Q4_0": (0,), "Q5_0": (0,), "Q8_0": (0,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
}  # fmt: skip


class Ran(NamedTuple):
    """Tokens/s of llama-bench: the best of its repetitions, what the machine can do undisturbed."""

    decode_per_s: float
    prefill_per_s: float


def main() -> int:
    """Write what is missing, run, print."""
    options = _options()
    bench = options.llama_cpp / "llama-bench"
    if not bench.exists():
        print(f"no llama-bench in {options.llama_cpp}")
        return 2
    os.environ["PATH"] = f"{options.llama_cpp}{os.pathsep}{os.environ['PATH']}"  # where calibrate looks for it
    options.scratch.mkdir(parents=True, exist_ok=True)
    files = [_file(name, quant, options.scratch, options.llama_cpp) for name, quant in MODELS]
    machine = fitcheck.probe()
    models = [fitcheck.find(str(path)) for path in files]
    before = {model.id: _said(model, machine) for model in models}
    calibration, outcome = calibrate(machine, models, (LlamaBench(),), _predict, lambda *_: None, options.seconds)
    for failure in outcome.failures:
        print(failure)
    after = {model.id: _said(model, replace(machine, calibration=calibration)) for model in models}
    ran = {model.id: _run(bench, model, options.repetitions) for model in models}
    return _print(models, ran, before, after)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3, help="of each test of llama-bench")
    parser.add_argument("--seconds", type=float, default=60.0, help="that calibrate may take")
    return parser.parse_args()


def _predict(model: Model, machine: Machine, request: Request) -> fitcheck.types.Fit:
    return fitcheck.estimate(model, machine, request)


def _said(model: Model, machine: Machine) -> tuple[Interval, Interval | None]:
    """Decode and prefill as estimated for what llama-bench does: an answer without a prompt, and a prompt."""
    quant = model.file_quant
    request = Request(context_tokens=2048, prompt_tokens=0, answer_tokens=ANSWER, quant=quant, runtime="llama.cpp")
    decode = fitcheck.estimate(model, machine, request).speed
    prefill = fitcheck.estimate(model, machine, replace(request, prompt_tokens=PROMPT)).speed
    assert decode is not None and prefill is not None
    return decode.decode_per_s, prefill.prefill_per_s


def _run(bench: Path, model: Model, repetitions: int) -> Ran:
    arguments = [str(bench), "-m", str(model.path), "-p", str(PROMPT), "-n", str(ANSWER), "-o", "jsonl"]
    printed = subprocess.run([*arguments, "-r", str(repetitions)], capture_output=True, check=True, text=True).stdout
    rows = [json.loads(line) for line in printed.splitlines() if line.strip()]
    decode, prefill = (max(row["samples_ts"]) for row in sorted(rows, key=lambda row: row["n_prompt"]))
    return Ran(decode, prefill)


def _print(
    models: list[Model],
    ran: dict[str, Ran],
    before: dict[str, tuple[Interval, Interval | None]],
    after: dict[str, tuple[Interval, Interval | None]],
) -> int:
    print(
        f"{'DECODE':34}  measured  before           inside  off    after  off      PREFILL  before   off    after  off"
    )
    inside = near = read_inside = read_inside_now = 0
    for model in models:
        decode, prefill = ran[model.id]
        was, is_now = before[model.id][0], after[model.id][0]
        holds = was.low <= decode <= was.high
        inside, near = inside + holds, near + (abs(is_now.likely / decode - 1.0) <= NEAR)
        read, read_now = (found[model.id][1] for found in (before, after))
        assert read is not None and read_now is not None
        read_inside += read.low <= prefill <= read.high
        read_inside_now += read_now.low <= prefill <= read_now.high
        name = Path(model.path or model.id).stem
        print(
            f"{name[:34]:34}{decode:9.1f}  {was.low:5.1f}-{was.high:<5.1f} {'yes' if holds else 'no ':>10}"
            f" {was.likely / decode - 1:+7.0%} {is_now.likely:7.1f} {is_now.likely / decode - 1:+5.0%}"
            f"    {prefill:9.1f} {read.likely:8.1f} {read.likely / prefill - 1:+6.0%}"
            f" {read_now.likely:8.1f} {read_now.likely / prefill - 1:+5.0%}"
        )
    print(f"before: {inside} of {len(models)} inside; after: {near} of {len(models)} within {NEAR:.0%}")
    print(f"prompts: {read_inside} inside before, {read_inside_now} after")
    return 0 if inside >= INSIDE and near == len(models) else 1


# --------------------------------------------------------------------------------------------------------------------
# Files


def _file(name: str, quant: str, scratch: Path, programs: Path) -> Path:
    """The model's file with random weights, written where it is not there yet: quantised from a sparse file of zeros,
    which takes no time, then filled."""
    path = scratch / f"{name}-{quant}.gguf"
    if path.exists():
        return path
    print(f"writing {path.name}", flush=True)
    model = next(model for model in catalog.load().models if model.id == name)
    sparse, unfilled = scratch / f"{name}.sparse", scratch / f"{name}.unfilled"
    _true_files().write(model, sparse)
    quantize = [str(programs / "llama-quantize"), str(sparse), str(unfilled), quant]
    subprocess.run(quantize, capture_output=True, check=True)
    sparse.unlink()
    _fill(unfilled)
    return unfilled.rename(path)


def _true_files() -> Any:
    spec = importlib.util.spec_from_file_location("true_files", Path(__file__).parent / "true_files.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fill(path: Path) -> None:
    """Random codes with small scales in place of zeros, so that routers choose different experts for each token."""
    tensors = gguf.GGUFReader(path).tensors
    where = [(int(each.data_offset), int(each.n_bytes), each.tensor_type.name) for each in tensors]
    tiles = {kind: _tile(kind) for kind in {kind for _, _, kind in where}}
    with path.open("r+b") as file:
        for offset, size, kind in where:
            tile = tiles[kind]
            file.seek(offset)
            for position in range(0, size, len(tile)):
                file.write(tile[: size - position])


def _tile(kind: str) -> bytes:
    chance = random.Random(kind)
    if kind == "F32":
        return b"".join(bytes((0, 0, chance.randrange(128), chance.choice((0x3D, 0xBD)))) for _ in range(TILE_BLOCKS))
    if kind in ("F16", "BF16"):
        return b"".join(bytes((chance.randrange(256), chance.choice((0x3C, 0xBC)))) for _ in range(TILE_BLOCKS))
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    tile = bytearray(chance.randbytes(size * TILE_BLOCKS))
    for block in range(0, len(tile), size):
        for scale in SCALES[kind]:
            tile[block + scale : block + scale + 2] = TINY
    return bytes(tile)


if __name__ == "__main__":
    sys.exit(main())
