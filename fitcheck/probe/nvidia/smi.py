"""Read what ``nvidia-smi`` prints, where its library cannot be asked: CSV, XML, and the lists of MIG instances.

Fields that a card does not support read ``N/A``, ``[N/A]``, ``[Not Supported]``, ``[GPU is lost]``, ``ERR!`` or an
excuse in a sentence: whatever is not a number is unknown.
"""

from __future__ import annotations

import re

from msgspec import Struct

from fitcheck.probe.host import Host, clean, to_int
from fitcheck.units import MIB

_MOST_CARDS = 64
_LARGEST_XML = 8 * MIB

#: One unknown field makes the whole query fail, so the drivers from before 470 are asked the short one.
_FIELDS = (
    "index,name,uuid,pci.bus_id,pci.device_id,memory.total,memory.reserved,memory.free,compute_cap,clocks.max.memory,"
    "pcie.link.gen.max,pcie.link.width.max,mig.mode.current,driver_version"
)
_OLD_FIELDS = "index,name,uuid,pci.bus_id,pci.device_id,memory.total,memory.free,clocks.max.memory,driver_version"


class Instance(Struct, frozen=True):
    """A MIG instance: its profile (``3g.40gb``), memory in bytes, and multiprocessors."""

    profile: str | None = None
    uuid: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    multiprocessors: int | None = None


class Card(Struct, frozen=True):
    """An NVIDIA card as its driver describes it. ``memory_mhz`` is the highest memory clock."""

    name: str
    uuid: str | None = None
    pci_id: str | None = None
    pci_address: str | None = None
    driver: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    reserved_bytes: int | None = None
    compute_capability: str | None = None
    bus_bits: int | None = None
    memory_mhz: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    mig: bool = False
    vgpu: bool = False
    instances: tuple[Instance, ...] = ()


def ask_nvidia_smi(host: Host) -> tuple[Card, ...]:
    """All cards, by the quickest question that the installed driver answers; empty if there is none."""
    for fields in (_FIELDS, _OLD_FIELDS):
        cards = read_csv(host.run(("nvidia-smi", f"--query-gpu={fields}", "--format=csv")) or "")
        if any(card.mig for card in cards):
            return _with_instances(host, cards)
        if cards:
            return cards
    return read_xml(host.run(("nvidia-smi", "-q", "-x")) or "")


def pci_id(device: str | int | None) -> str | None:
    """``0x268410DE`` or ``268410DE`` (device, then vendor) -> ``10de:2684``."""
    number = device if isinstance(device, int) else to_int((device or "").strip(), 16)
    if number is None or not 0 < number < 2**32:
        return None
    return f"{number & 0xFFFF:04x}:{number >> 16:04x}"


def number(text: str | None) -> int | None:
    """The whole number that a field starts with: ``16376 MiB`` -> 16376; None for ``N/A`` and kin."""
    match = re.match(r"\s*(\d{1,12})\b", text or "")
    return int(match[1]) if match else None


def _bytes(text: str | None) -> int | None:
    mebibytes = number(text)
    return None if mebibytes is None else mebibytes * MIB


def _known(text: str | None) -> str | None:
    """A text field; None for the ways in which the tool says that there is none."""
    word = clean(text or "")
    absent = not word or word.strip("[]").lower() in ("n/a", "not supported", "unknown error", "gpu is lost", "err!")
    return None if absent or word.startswith("[") else word


# --------------------------------------------------------------------------------------------------------------------
# CSV


def read_csv(text: str) -> tuple[Card, ...]:
    """``--format=csv``: a line of field names, then one line per card."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return ()
    names = [re.sub(r"\s*\[.*?\]\s*$", "", name.strip()) for name in lines[0].split(",")]
    if not any(name.startswith("memory.") or name == "name" for name in names):
        return ()
    rows = (dict(zip(names, (field.strip() for field in line.split(",")), strict=False)) for line in lines[1:])
    return tuple(_card_of_row(row) for row in rows)[:_MOST_CARDS]


def _card_of_row(row: dict[str, str]) -> Card:
    capability = re.fullmatch(r"\d{1,2}\.\d", row.get("compute_cap", ""))
    return Card(
        name=_known(row.get("name")) or "",
        uuid=_known(row.get("uuid")),
        pci_id=pci_id(row.get("pci.device_id")),
        pci_address=_known(row.get("pci.bus_id")),
        driver=_known(row.get("driver_version")),
        total_bytes=_bytes(row.get("memory.total")),
        free_bytes=_bytes(row.get("memory.free")),
        reserved_bytes=_bytes(row.get("memory.reserved")),
        compute_capability=capability[0] if capability else None,
        memory_mhz=number(row.get("clocks.max.memory")),
        pcie_generation=number(row.get("pcie.link.gen.max")),
        pcie_width=number(row.get("pcie.link.width.max")),
        mig=row.get("mig.mode.current") == "Enabled",
    )


# --------------------------------------------------------------------------------------------------------------------
# XML


def read_xml(text: str) -> tuple[Card, ...]:
    """``nvidia-smi -q -x`` of any driver; empty where it is not XML or defines entities of its own."""
    from xml.etree import ElementTree

    if "<!ENTITY" in text or len(text) > _LARGEST_XML or "<gpu" not in text:
        return ()
    try:
        root = ElementTree.fromstring(text.strip().encode("utf-8", "replace"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return ()
    driver = _known(root.findtext("driver_version"))
    return tuple(_card_of_element(element, driver) for element in root.findall("gpu")[:_MOST_CARDS])


def _card_of_element(gpu, driver: str | None) -> Card:  # type: ignore[no-untyped-def]
    def text(path: str) -> str | None:
        found = gpu.findtext(path)
        return found if found is None else str(found)

    links = "pci/pci_gpu_link_info"
    instances = tuple(_instance_of_element(element) for element in gpu.findall("mig_devices/mig_device")[:8])
    return Card(
        name=_known(text("product_name")) or "",
        uuid=_known(text("uuid")),
        pci_id=pci_id(text("pci/pci_device_id")),
        pci_address=_known(gpu.get("id")),
        driver=driver,
        total_bytes=_bytes(text("fb_memory_usage/total")),
        free_bytes=_bytes(text("fb_memory_usage/free")),
        reserved_bytes=_bytes(text("fb_memory_usage/reserved")),
        memory_mhz=number(text("max_clocks/mem_clock")),
        pcie_generation=number(text(f"{links}/pcie_gen/max_link_gen")),
        pcie_width=number((text(f"{links}/link_widths/max_link_width") or "").replace("x", " ")),
        mig=(text("mig_mode/current_mig") or "").strip() == "Enabled",
        vgpu=(text("gpu_virtualization_mode/virtualization_mode") or "").strip() == "VGPU",
        instances=instances,
    )


def _instance_of_element(element) -> Instance:  # type: ignore[no-untyped-def]
    return Instance(
        total_bytes=_bytes(element.findtext("fb_memory_usage/total")),
        free_bytes=_bytes(element.findtext("fb_memory_usage/free")),
        multiprocessors=number(element.findtext("device_attributes/shared/multiprocessor_count")),
    )


# --------------------------------------------------------------------------------------------------------------------
# MIG instances, where the CSV says that there are some

_LISTED = re.compile(r"^\s+MIG (\d+g\.\d+gb\S*)\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)")
_TABLED = re.compile(r"^\|\s+(\d+)\s+\d+\s+\d+\s+\d+\s+\|\s+(\d+)MiB /\s*(\d+)MiB\s+\|\s*(\d+)\s")


def _with_instances(host: Host, cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """The cards with their instances: profiles from ``-L``, memory from the table, both in the same order."""
    listed = read_list(host.run(("nvidia-smi", "-L")) or "")
    tabled = read_table(host.run(("nvidia-smi",)) or "")
    return tuple(
        _with(card, _merged(listed.get(index, ()), tabled.get(index, ()))) if card.mig else card
        for index, card in enumerate(cards)
    )


def _with(card: Card, instances: tuple[Instance, ...]) -> Card:
    from msgspec.structs import replace

    return replace(card, instances=instances)


def _merged(listed: tuple[Instance, ...], tabled: tuple[Instance, ...]) -> tuple[Instance, ...]:
    if not listed or len(listed) != len(tabled):
        return listed or tabled
    return tuple(
        Instance(one.profile, one.uuid, two.total_bytes, two.free_bytes, two.multiprocessors)
        for one, two in zip(listed, tabled, strict=True)
    )


def read_list(text: str) -> dict[int, tuple[Instance, ...]]:
    """``nvidia-smi -L``: the instances of each card by its index."""
    instances: dict[int, tuple[Instance, ...]] = {}
    current = -1
    for line in text.splitlines()[:1024]:
        card = re.match(r"GPU (\d{1,3}):", line)
        match = _LISTED.match(line)
        if card is not None:
            current = int(card[1])
        elif match is not None:
            instances[current] = (*instances.get(current, ()), Instance(profile=match[1], uuid=match[2]))
    return instances


def read_table(text: str) -> dict[int, tuple[Instance, ...]]:
    """The table "MIG devices" of plain ``nvidia-smi``."""
    instances: dict[int, tuple[Instance, ...]] = {}
    for line in text.partition("MIG devices:")[2].splitlines()[:1024]:
        match = _TABLED.match(line)
        if match is not None:
            index, used, total, multiprocessors = (int(group[:9]) for group in match.groups())
            found = Instance(
                total_bytes=total * MIB, free_bytes=max(0, total - used) * MIB, multiprocessors=multiprocessors
            )
            instances[index] = (*instances.get(index, ()), found)
    return instances
