"""A glance at a model and a machine: whether it is worth an estimate at all.

Ranking asks about hundreds of models, most of which are far too large or too slow for the machine. The bounds here are
below what any engine needs and above what any reaches, so a model that is out of reach here fails every estimate.
"""

from __future__ import annotations

from fitcheck.estimate.quantizations import Quantizations
from fitcheck.types import Machine, Model

#: More than the largest efficiency of any engine, by which a measured bandwidth may be too low.
_MOST_EFFICIENT = 1.25


def least_bytes_per_weight(quant: str, quantizations: Quantizations) -> float:
    """Bytes per weight of the smallest type that a file-type mix may give a matrix; 0 for what is no mix."""
    mix = quantizations.mixes.get(quant)
    if mix is None:
        return 0.0
    types = {mix.base, mix.output, mix.embedding or mix.base, mix.stacked or mix.base}
    types.update(type_name for rules in mix.rules.values() for _, type_name in rules)
    return min(quantizations.blocks[name].bytes / quantizations.blocks[name].elements for name in types)


def is_too_large(model: Model, bytes_per_weight: float, machine: Machine, slack: float) -> bool:
    """Whether the weights alone need more than ``slack`` times all memory of the machine."""
    cards = (card.pool for card in machine.accelerators if card.usable and not card.unified)
    have = machine.ram.usable_bytes + sum(pool.usable_bytes for pool in cards)
    return model.params * bytes_per_weight > slack * have


def is_too_slow(model: Model, bytes_per_weight: float, machine: Machine, least_per_s: float) -> bool:
    """Whether all memories together read what a token needs more seldom than ``least_per_s``."""
    pools = (machine.ram, *(card.pool for card in machine.accelerators if card.usable and not card.unified))
    bandwidth = 0.0
    for pool in pools:
        if pool.bandwidth is None:
            return False
        bandwidth += pool.bandwidth.per_s
    shared = (card.pool.bandwidth for card in machine.accelerators if card.unified)
    bandwidth = max([bandwidth, *(rate.per_s for rate in shared if rate)])
    return model.params_active * bytes_per_weight * least_per_s > _MOST_EFFICIENT * bandwidth
