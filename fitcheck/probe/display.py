"""Display devices as the Linux kernel lists them: cards of the rendering manager, and the PCI bus behind them."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from fitcheck.probe.host import Host, to_int
from fitcheck.types import Link

_DRM = "/sys/class/drm"
_PCI = "/sys/bus/pci/devices"
_CARD = r"card\d{1,4}"
_PCIE_GENERATION = {"2.5": 1, "5": 2, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


class DisplayDevice(Struct, frozen=True):
    """A graphics chip on the bus. ``card`` is card0 …, empty without a kernel driver that draws; ``folder`` holds its
    attributes; ``pci_id`` is "1002:744c", ``revision`` "c8"."""

    card: str
    folder: str
    pci_id: str
    revision: str | None
    driver: str
    address: str


def display_devices(host: Host, vendor: str) -> tuple[DisplayDevice, ...]:
    """The devices of one maker ("1002"), those of the rendering manager first, each once."""
    cards = [name for name in host.list_dir(_DRM) if re.fullmatch(_CARD, name)]
    found = [_device(host, name, f"{_DRM}/{name}/device") for name in sorted(cards, key=len)[:64]]
    known = {device.address for device in found}
    for address in host.list_dir(_PCI)[:2048]:
        if address not in known and is_display(host, f"{_PCI}/{address}"):
            found.append(_device(host, "", f"{_PCI}/{address}"))
    return tuple(device for device in found if device.pci_id.startswith(f"{vendor}:"))


def has_display(host: Host, vendor: str) -> bool:
    """Whether a display device of this maker is on the bus."""
    folders = [f"{_DRM}/{name}/device" for name in host.list_dir(_DRM) if name.startswith("card") and "-" not in name]
    folders += [f"{_PCI}/{address}" for address in host.list_dir(_PCI)[:2048]]
    return any(
        _vendor(host, folder) == vendor and (folder.startswith(_DRM) or is_display(host, folder)) for folder in folders
    )


def _vendor(host: Host, folder: str) -> str:
    told = _hex(host.read_text(f"{folder}/vendor", 64))
    return told or _properties(host.read_text(f"{folder}/uevent", 4096)).get("PCI_ID", "")[:4].lower()


def parse_json(text: str | None) -> object:
    """A tool's JSON; None where it is none."""
    try:
        value: object = msgspec.json.decode(text) if text else None
    except (ValueError, RecursionError):
        return None
    return value


def is_display(host: Host, folder: str) -> bool:
    """Whether a PCI device is of class 03: VGA, 3D or other display controller."""
    return (host.read_text(f"{folder}/class", 64) or "").strip().startswith("0x03")


def _device(host: Host, card: str, folder: str) -> DisplayDevice:
    uevent = _properties(host.read_text(f"{folder}/uevent", 4096))
    vendor, _, product = uevent.get("PCI_ID", "").lower().partition(":")
    vendor = vendor or _hex(host.read_text(f"{folder}/vendor", 64))
    product = product or _hex(host.read_text(f"{folder}/device", 64))
    return DisplayDevice(
        card=card,
        folder=folder,
        pci_id=f"{vendor}:{product}",
        revision=_hex(host.read_text(f"{folder}/revision", 64))[-2:] or None,
        driver=uevent.get("DRIVER", ""),
        address=uevent.get("PCI_SLOT_NAME", "" if card else folder.rpartition("/")[2]),
    )


def _properties(text: str | None) -> dict[str, str]:
    pairs = (line.partition("=") for line in (text or "").splitlines()[:64])
    return {name.strip(): value.strip(" \0") for name, equals, value in pairs if equals}


def _hex(text: str | None) -> str:
    """``0x1002`` and a line end -> "1002"; empty where it is no hexadecimal number."""
    digits = (text or "").strip(" \t\r\n\0").lower().removeprefix("0x")
    return digits if re.fullmatch(r"[0-9a-f]{2,8}", digits) else ""


def link_of(host: Host, device: DisplayDevice) -> Link | None:
    """The widest PCIe link that the device reports."""
    for which in ("max", "current"):
        speed = (host.read_text(f"{device.folder}/{which}_link_speed", 64) or "").split(" ")[0]
        width = to_int(host.read_text(f"{device.folder}/{which}_link_width", 64))
        generation = _PCIE_GENERATION.get(speed)
        if generation and width and width <= 32:
            from fitcheck.probe.hardware import pcie_link

            return pcie_link(generation, width)
    return None


def refused_nodes(host: Host, *more: str) -> tuple[str, ...]:
    """The device files that this user may not open, of the render nodes and ``more``."""
    nodes = [f"/dev/dri/{name}" for name in host.list_dir("/dev/dri")[:64] if name.startswith("renderD")]
    paths = [path for path in (*more, *nodes) if host.exists(path)]
    for path in paths:
        host.read_bytes(path, 0)
    return tuple(path for path in paths if "permission" in host.denied.get(path, ""))


GROUPS_HINT = "add yourself to their groups: sudo usermod -aG render,video $USER, then log in again"


def problem_of_access(host: Host, device: DisplayDevice, wanted: tuple[str, ...]) -> str | None:
    """Why this process cannot use a card that the kernel shows, in words; None where it can or nothing tells.

    ``wanted`` are the kernel drivers that engines work with. Containers see the host's /sys, but only their own /dev.
    """
    if device.driver == "vfio-pci":
        return "is set aside for virtual machines (vfio-pci)"
    if device.driver and device.driver not in wanted:
        return f"runs with the driver {device.driver}, which no engine can use"
    if not device.card and not device.driver and host.exists(f"{device.folder}/uevent"):
        return "has no kernel driver"
    nodes = host.list_dir("/dev/dri")
    if host.exists("/dev/null") and not any(node.startswith("renderD") for node in nodes):
        return "is not passed into this container: there is no /dev/dri/renderD*"
    return None
