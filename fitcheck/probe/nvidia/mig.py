"""Cards that are divided into instances (MIG)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec.structs import replace

from fitcheck.probe.hardware import GpuRow
from fitcheck.probe.nvidia.smi import Card, Instance, number
from fitcheck.types import Accelerator, Pool
from fitcheck.units import MIB

_MEMORY_SLICES = 8  # of a card that MIG divides; computing is divided by seven
_INSTANCE_OVERHEAD_BYTES = 512 * MIB


def instances_of(card: Card, row: GpuRow | None, whole: Accelerator) -> Iterator[Accelerator]:
    """The instances of a divided card, largest first. Memory is divided by eighths, multiprocessors by sevenths."""
    ordered = sorted(card.instances, key=lambda instance: -(_instance_bytes(instance, card) or 0))
    for instance in ordered:
        total = _instance_bytes(instance, card) or 0
        whole_bytes = card.total_bytes or total or 1
        slices = max(1, min(_MEMORY_SLICES, round(_MEMORY_SLICES * total / whole_bytes)))
        compute = _compute_share(instance, row)
        rate = whole.pool.bandwidth
        yield replace(
            whole,
            name=f"{whole.name} MIG {instance.profile}" if instance.profile else f"{whole.name} MIG",
            pool=Pool(
                total,
                instance.free_bytes,
                total if instance.free_bytes is None else min(total, instance.free_bytes),
                replace(rate, per_s=rate.per_s * slices / _MEMORY_SLICES) if rate else None,
            ),
            compute={dtype: peak * compute for dtype, peak in whole.compute.items()},
            cores=instance.multiprocessors or whole.cores,
            partition=instance.profile or f"{slices}/{_MEMORY_SLICES} of the memory",
            uuid=instance.uuid,
        )


def _instance_bytes(instance: Instance, card: Card) -> int | None:
    """An instance's memory; from its profile (``3g.40gb``) where the driver's table is missing."""
    if instance.total_bytes is not None:
        return instance.total_bytes
    gigabytes = re.search(r"\.(\d{1,3})gb", instance.profile or "")
    if gigabytes is None or not card.total_bytes:
        return None
    nominal = card.total_bytes / 1024**3
    slices = max(1, min(_MEMORY_SLICES, round(_MEMORY_SLICES * int(gigabytes[1]) / nominal)))
    return max(0, card.total_bytes * slices // _MEMORY_SLICES - _INSTANCE_OVERHEAD_BYTES)


def _compute_share(instance: Instance, row: GpuRow | None) -> float:
    if instance.multiprocessors and row is not None and row.cores:
        return min(1.0, instance.multiprocessors / row.cores)
    sevenths = number((instance.profile or "").replace("g", " "))
    return min(1.0, sevenths / 7) if sevenths else 1.0
