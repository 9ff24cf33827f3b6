"""Which of NVIDIA's cards a program that is started here may see."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.probe.host import Host, clean, to_int
from fitcheck.types import Accelerator, Problem


def visible(host: Host, cards: list[Accelerator]) -> tuple[list[Accelerator], list[Problem]]:
    """Mark what CUDA would not offer to a program started here: cards hidden by CUDA_VISIBLE_DEVICES, and all MIG
    instances but one."""
    problems: list[Problem] = []
    chosen = host.environ("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        shown = _chosen(chosen, cards, by_address=host.environ("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
        if any(card.usable and position not in shown for position, card in enumerate(cards)):
            word = clean(chosen, 60)
            problems.append(Problem("nvidia", f"CUDA_VISIBLE_DEVICES={word} hides some GPUs", "unset it to use them"))
        cards = [replace(card, usable=card.usable and position in shown) for position, card in enumerate(cards)]
    instances = [card for card in cards if card.usable and card.partition and card.uuid and "MIG" in card.name]
    spare = [card for card in cards if card.usable and "MIG" in card.name][1:]
    if spare:
        problems.append(
            Problem(
                "nvidia",
                f"a program can use one MIG instance: {len(spare)} more are not counted",
                f"choose one with CUDA_VISIBLE_DEVICES={instances[0].uuid if instances else 'MIG-…'}",
            )
        )
        cards = [replace(card, usable=False) if any(card is other for other in spare) else card for card in cards]
    return cards, problems


def _chosen(text: str, cards: list[Accelerator], by_address: bool) -> set[int]:
    """Positions of the cards that CUDA_VISIBLE_DEVICES names, by number or start of UUID, up to the first unknown
    one. Numbers count from the fastest card unless CUDA_DEVICE_ORDER says otherwise."""
    whole = [position for position, card in enumerate(cards) if card.usable]
    order = whole if by_address else sorted(whole, key=lambda position: -_quickness(cards[position]))
    shown: set[int] = set()
    for word in text.split(",")[:64]:
        token = word.strip()
        place = to_int(token)
        if place is not None and place < len(order):
            shown.add(order[place])
            continue
        named = [position for position in whole if token and (cards[position].uuid or "").startswith(token)]
        if len(named) != 1:
            break
        shown.update(named)
    return shown


def _quickness(card: Accelerator) -> float:
    return card.compute.get("fp16") or card.compute.get("fp32") or float(card.compute_capability or 0)
