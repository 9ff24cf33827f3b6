"""What NVIDIA's driver says about its cards: asked through its library, else through ``nvidia-smi``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.probe.host import Host, clean, to_int
from fitcheck.probe.nvidia import DRIVER_SIGNS
from fitcheck.probe.nvidia.smi import Card, Instance, ask_nvidia_smi, pci_id
from fitcheck.types import Problem

#: What to do about the library's errors, by their number.
_REMEDIES = {
    4: ("access to the NVIDIA driver is denied", "add yourself to the groups video and render, then log in again"),
    9: ("the NVIDIA driver is not loaded", "run: sudo modprobe nvidia (after a kernel update: reinstall the driver)"),
    12: ("the NVIDIA driver's library is missing", "install it; in a container: --gpus all or the device plugin"),
    15: ("a GPU does not answer any more", "restart the machine; look into dmesg for Xid errors"),
    18: ("the NVIDIA driver was updated and the old one still runs", "restart the machine"),
}
_NO_LIBRARY = 12
#: The same errors in the words of nvidia-smi.
_SAYINGS = {"mismatch": 18, "communicate with the nvidia driver": 9, "permission": 4, "gpu is lost": 15}


class Answer(Struct, frozen=True):
    """What the driver said: cards, where from, and what is wrong."""

    cards: tuple[Card, ...] = ()
    source: str = ""
    problems: tuple[Problem, ...] = ()


def driver_is_loaded(host: Host) -> bool:
    """Whether an NVIDIA driver, or WSL2's way to one, is there."""
    return any(host.exists(sign) for sign in DRIVER_SIGNS)


def ask_driver(host: Host) -> Answer:
    """The library's answer, else that of nvidia-smi, else (in captures) other tools' reports, else the problem."""
    reply = host.query("nvml") if not host.live or driver_is_loaded(host) else None
    told = reply if isinstance(reply, dict) else {}
    cards = tuple(_card_of_reply(card, told.get("driver")) for card in _dicts(told.get("cards")))
    if cards:
        return Answer(cards, "NVML")
    by_tool = ask_nvidia_smi(host)
    if by_tool:
        return Answer(_with_names(host, by_tool), "nvidia-smi")
    if not host.live:
        from fitcheck.probe.nvidia.reports import cards_of_reports

        reported = cards_of_reports(host)
        if reported:
            return Answer(reported, "another tool's report")
    said = host.denied.get("nvidia-smi") or _recorded_failure(host)
    return Answer(problems=tuple(_driver_problem(host, told, said)))


def _recorded_failure(host: Host) -> str:
    """What nvidia-smi printed on a recorded machine when it failed."""
    printed = (host.attached("nvidia-smi.txt") or "")[:400]
    return printed if re.search(r"failed|mismatch|couldn't communicate", printed, re.IGNORECASE) else ""


def _driver_problem(host: Host, told: dict[str, object], said: str) -> Iterator[Problem]:
    """The problem behind an error of the library, or behind what nvidia-smi printed when it failed."""
    code = to_int(told.get("error"))
    if code is None:
        code = next((known for words, known in _SAYINGS.items() if words in said.lower()), None)
    if code is None and not said:
        return
    if code == _NO_LIBRARY and not host.exists("/proc/driver/nvidia") and host.exists("/dev/dxg"):
        hint = "if the card is NVIDIA's, update its driver in Windows"
        yield Problem("nvidia", "WSL2 offers a GPU, but NVIDIA's library is not there", hint)
        return
    message, hint = _REMEDIES.get(code or 0, ("the NVIDIA driver does not answer", "run nvidia-smi to see why"))
    detail = clean(str(told.get("message") or said), 160)
    yield Problem("nvidia", f"{message}: {detail}" if detail else message, hint)


def _dicts(value: object) -> list[dict[str, object]]:
    return [item for item in value[:64] if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return (clean(value) or None) if isinstance(value, str) else None


def _card_of_reply(reply: dict[str, object], driver: object) -> Card:
    """A card of the reply to ``Host.query("nvml")``."""
    capability = reply.get("compute_capability")
    pair = [to_int(part) for part in capability[:2]] if isinstance(capability, list) else []
    device = to_int(reply.get("pci_device_id"))
    return Card(
        name=_text(reply.get("name")) or "",
        uuid=_text(reply.get("uuid")),
        pci_id=pci_id(device),
        pci_address=_text(reply.get("pci_address")),
        driver=_text(driver),
        total_bytes=to_int(reply.get("total_bytes")) or None,
        free_bytes=to_int(reply.get("free_bytes")),
        reserved_bytes=to_int(reply.get("reserved_bytes")),
        compute_capability=f"{pair[0]}.{pair[1]}" if len(pair) == 2 and None not in pair else None,
        bus_bits=to_int(reply.get("bus_bits")),
        memory_mhz=to_int(reply.get("memory_mhz")),
        pcie_generation=to_int(reply.get("pcie_generation")),
        pcie_width=to_int(reply.get("pcie_width")),
        mig=to_int(reply.get("mig")) == 1,
        vgpu=reply.get("vgpu") is True,
        instances=tuple(_instance_of_reply(instance) for instance in _dicts(reply.get("instances"))),
    )


def _instance_of_reply(reply: dict[str, object]) -> Instance:
    profile = re.search(r"MIG (\d+g\.\d+gb\S*)", str(reply.get("name", ""))[:200])
    return Instance(
        profile=profile[1] if profile else None,
        uuid=_text(reply.get("uuid")),
        total_bytes=to_int(reply.get("total_bytes")),
        free_bytes=to_int(reply.get("free_bytes")),
        multiprocessors=to_int(reply.get("multiprocessors")),
    )


def _with_names(host: Host, cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """Name cards whose CSV was made without names, from the list that ``nvidia-smi -L`` or a log prints."""
    if all(card.name for card in cards):
        return cards
    listed = re.findall(r"^GPU \d{1,3}: (.+?) \(UUID", host.run(("nvidia-smi", "-L")) or "", re.MULTILINE)
    listed = listed or re.findall(r"^device\s*: (.+)$", host.attached("nvml.txt") or "", re.MULTILINE)
    names = [clean(name) for name in listed] + [""] * len(cards)
    return tuple(card if card.name else replace(card, name=name) for card, name in zip(cards, names, strict=False))
