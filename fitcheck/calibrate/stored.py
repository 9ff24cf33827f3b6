"""Where measurements are kept: ``calibration.json`` in the user's own folder, for this hardware only."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import msgspec

from fitcheck.types import Calibration, Machine

FILE = "calibration.json"


def machine_key(machine: Machine) -> str:
    """What tells this hardware from another: processor, threads and accelerators."""
    cards = [f"{card.name}/{card.pool.total_bytes >> 30}" for card in machine.accelerators]
    text = "|".join([machine.cpu.name, str(machine.cpu.logical_cpus), *cards])
    return sha256(text.encode()).hexdigest()[:16]


def save(calibration: Calibration, folder: Path) -> Path:
    """Write it to the user's folder, which is made if need be: whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    unfinished = folder / f"{FILE}.{os.getpid()}"
    try:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load(machine: Machine, folder: Path | None) -> Calibration | None:
    """What was measured on this hardware; None where nothing was, or the file is another machine's or damaged."""
    if folder is None or machine.pretended:
        return None
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.machine_key == machine_key(machine) else None


def forget(folder: Path) -> bool:
    """Remove it; False if there was nothing."""
    try:
        (folder / FILE).unlink()
    except FileNotFoundError:
        return False
    return True
