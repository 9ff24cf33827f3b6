"""All of NVIDIA's GPUs in one machine: with a driver, on a board of their own, or without any driver."""

from __future__ import annotations

from fitcheck.probe.display import display_devices
from fitcheck.probe.hardware import load_gpus
from fitcheck.probe.host import Found, Host
from fitcheck.probe.nvidia.cards import cards_with_driver
from fitcheck.probe.nvidia.driver import ask_driver, driver_is_loaded
from fitcheck.probe.nvidia.jetson import jetson, jetson_board
from fitcheck.probe.nvidia.undriven import is_driven, without_driver


def find_cards(host: Host) -> Found:
    """What the driver says, and what the bus says beyond it."""
    answer = ask_driver(host)
    board = jetson_board(host)
    undriven = [device for device in display_devices(host, "10de") if not is_driven(device, answer.cards)]
    if not (answer.cards or board or undriven):
        return Found(problems=answer.problems if driver_is_loaded(host) else ())
    rows = load_gpus()
    if board and not any(card.total_bytes for card in answer.cards):
        found = jetson(host, rows, board)
    else:
        found = cards_with_driver(host, rows, answer)
    rest = without_driver(host, rows, undriven, answer)
    return Found(
        accelerators=found.accelerators + rest.accelerators,
        problems=found.problems + rest.problems,
        evidence=found.evidence + rest.evidence,
    )
