"""NVIDIA's cards that no engine can use, and what to do about it."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.probe.display import DisplayDevice
from fitcheck.probe.hardware import GpuRow, find_gpu
from fitcheck.probe.host import Found, Host
from fitcheck.probe.nvidia.cards import own_pool
from fitcheck.probe.nvidia.driver import Answer
from fitcheck.probe.nvidia.smi import Card
from fitcheck.types import Accelerator, Evidence, Problem, Vendor


def is_driven(device: DisplayDevice, cards: tuple[Card, ...]) -> bool:
    """Whether one of the cards is this device; addresses differ in the length of their domain and in case."""
    known = [card.pci_address.lower() for card in cards if card.pci_address]
    if len(known) < len(cards):
        return bool(cards)
    return not device.address or any(address[-12:] == device.address.lower()[-12:] for address in known)


def without_driver(host: Host, rows: tuple[GpuRow, ...], devices: list[DisplayDevice], answer: Answer) -> Found:
    """Cards on the bus that no engine can use: shown, not counted."""
    if not devices:
        return Found()
    cards = [_unusable(device, find_gpu(rows, pci_id=device.pci_id)) for device in devices]
    problems = (
        ()
        if answer.problems
        else tuple(_missing_driver(host, device, card) for device, card in zip(devices, cards, strict=True))
    )
    evidence = tuple(
        Evidence("gpu.nvidia", card.name, f"PCI {device.address}") for device, card in zip(devices, cards, strict=True)
    )
    return Found(accelerators=tuple(cards), problems=problems, evidence=evidence)


def _unusable(device: DisplayDevice, row: GpuRow | None) -> Accelerator:
    card = Card(name=row.name if row else f"NVIDIA GPU {device.pci_id}", pci_id=device.pci_id)
    return Accelerator(
        index=0,
        name=card.name,
        vendor=Vendor.NVIDIA,
        pool=replace(own_pool(card, row), usable_bytes=0),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        compute_capability=row.compute_capability if row else None,
        pci_id=device.pci_id,
        catalog_name=row.name if row else None,
        usable=False,
    )


def _missing_driver(host: Host, device: DisplayDevice, card: Accelerator) -> Problem:
    if device.driver == "vfio-pci":
        return Problem("nvidia", f"{card.name} is set aside for virtual machines (vfio-pci)", "it is not counted")
    if device.driver in ("nouveau", "nova_core"):
        hint = "install NVIDIA's own driver: the open one cannot run models"
        return Problem("nvidia", f"{card.name} runs with {device.driver}", hint)
    if host.exists("/sys/module/nvidia") and not host.exists("/dev/nvidiactl"):
        hint = "start the container with --gpus all (Docker) or with the NVIDIA device plugin (Kubernetes)"
        return Problem("nvidia", f"{card.name} is not passed into this container", hint)
    if device.driver == "nvidia":
        return Problem("nvidia", f"the driver of {card.name} does not answer", "run nvidia-smi to see why")
    return Problem("nvidia", f"{card.name} has no driver", "install the NVIDIA driver, then run nvidia-smi to check")
