"""NVIDIA cards in what other tools reported, where a capture holds nothing of the driver itself."""

from __future__ import annotations

import re

from fitcheck.probe.display import display_devices, parse_json
from fitcheck.probe.host import Host, clean, to_int
from fitcheck.probe.nvidia.smi import Card
from fitcheck.units import MIB


def cards_of_reports(host: Host) -> tuple[Card, ...]:
    """Cards in gpustack's ``detect.json``, or in ``additional-properties.json`` by their address on the bus."""
    return _cards_of_gpustack(parse_json(host.attached("detect.json"))) or _cards_of_properties(host)


def _cards_of_gpustack(entries: object) -> tuple[Card, ...]:
    """Memory is in MiB there."""
    listed = entries[:64] if isinstance(entries, list) else []
    return tuple(
        Card(
            name=clean(str(entry.get("name", ""))),
            uuid=_word(entry.get("uuid")),
            driver=_word(entry.get("driver_version")),
            total_bytes=_mebibytes(entry.get("memory")),
            free_bytes=_free(entry),
            compute_capability=_capability(entry.get("compute_capability")),
        )
        for entry in listed
        if isinstance(entry, dict) and entry.get("manufacturer") == "nvidia"
    )


def _cards_of_properties(host: Host) -> tuple[Card, ...]:
    """``{"0000:01:00.0": {"vram": "6439305216", "compute_capability": "8.9"}}``: what a driver told another tool."""
    told = parse_json(host.attached("additional-properties.json"))
    properties = told if isinstance(told, dict) else {}
    cards = []
    for device in display_devices(host, "10de") if properties else ():
        entry = properties.get(device.address)
        if isinstance(entry, dict) and to_int(entry.get("vram")):
            cards.append(
                Card(
                    name="",
                    pci_id=device.pci_id,
                    pci_address=device.address,
                    total_bytes=to_int(entry.get("vram")),
                    compute_capability=_capability(entry.get("compute_capability")),
                )
            )
    return tuple(cards)


def _word(value: object) -> str | None:
    return (clean(value) or None) if isinstance(value, str) else None


def _capability(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"\d{1,2}\.\d", value) else None


def _mebibytes(value: object) -> int | None:
    count = to_int(value)
    return None if count is None or count > 2**40 else count * MIB


def _free(entry: dict[str, object]) -> int | None:
    total, used = _mebibytes(entry.get("memory")), _mebibytes(entry.get("memory_used"))
    return None if total is None or used is None else max(0, total - used)
