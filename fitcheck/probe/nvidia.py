"""NVIDIA: cards as the driver tells, MIG instances, chips with unified memory (GB10, Jetson), and cards without driver.

The driver's library is asked first, ``nvidia-smi`` where that fails, the PCI bus where there is no driver at all. Peak
bandwidth needs no table: twice the highest memory clock times the width of the bus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.probe.display import DisplayDevice, display_devices
from fitcheck.probe.hardware import GpuRow, backends_of, find_gpu, load_gpus, pcie_link
from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.probe.nvidia_smi import Card, Instance, ask_nvidia_smi, number, pci_id
from fitcheck.types import Accelerator, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import MIB, format_bytes, format_rate

_MEMORY_SLICES = 8  # of a card that MIG divides; computing is divided by seven
_INSTANCE_OVERHEAD_BYTES = 512 * MIB
_PLAUSIBLE_FACTOR = 2.0  # between the bandwidth by clock and the one in the table

#: One of these exists where an NVIDIA driver is loaded: natively, in WSL2, on Windows.
_DRIVER_SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "C:/Windows/System32/nvml.dll")

#: What to do about the library's errors, by their number.
_REMEDIES = {
    4: ("access to the NVIDIA driver is denied", "add yourself to the groups video and render, then log in again"),
    9: ("the NVIDIA driver is not loaded", "run: sudo modprobe nvidia (after a kernel update: reinstall the driver)"),
    12: ("the NVIDIA driver's library is missing", "install it; in a container: --gpus all or the device plugin"),
    15: ("a GPU does not answer any more", "restart the machine; look into dmesg for Xid errors"),
    18: ("the NVIDIA driver was updated and the old one still runs", "restart the machine"),
}
#: The same errors in the words of nvidia-smi.
_SAYINGS = {"mismatch": 18, "communicate with the nvidia driver": 9, "permission": 4, "gpu is lost": 15}

_VGPU_NAME = re.compile(r"^(?:NVIDIA |GRID )*(?P<card>[A-Z0-9][\w ]*?)-(?P<profile>\d{1,3}(?:-\d+)?[ABCQ](?:ME)?)$")


class _Answer(Struct, frozen=True):
    """What the driver said: cards, where from, and what is wrong."""

    cards: tuple[Card, ...] = ()
    source: str = ""
    problems: tuple[Problem, ...] = ()


def probe_nvidia(host: Host) -> Found:
    """All NVIDIA GPUs of the machine."""
    answer = _ask_driver(host)
    board = _jetson_board(host)
    undriven = [device for device in display_devices(host, "10de") if not _is_driven(device, answer.cards)]
    if not (answer.cards or board or undriven):
        return Found(problems=answer.problems if _driver_is_loaded(host) else ())
    rows = load_gpus()
    if board and not any(card.total_bytes for card in answer.cards):
        found = _jetson(host, rows, board, answer)
    else:
        found = _cards(host, rows, answer)
    return _joined(found, _without_driver(host, rows, undriven, answer))


def _joined(first: Found, second: Found) -> Found:
    return Found(
        accelerators=first.accelerators + second.accelerators,
        problems=first.problems + second.problems,
        evidence=first.evidence + second.evidence,
    )


# --------------------------------------------------------------------------------------------------------------------
# Asking the driver


def _driver_is_loaded(host: Host) -> bool:
    return any(host.exists(sign) for sign in _DRIVER_SIGNS)


def _ask_driver(host: Host) -> _Answer:
    reply = host.query("nvml") if not host.live or _driver_is_loaded(host) else None
    told = reply if isinstance(reply, dict) else {}
    cards = tuple(_card_of_reply(card, told.get("driver")) for card in _dicts(told.get("cards")))
    if cards:
        return _Answer(cards, "NVML")
    by_tool = ask_nvidia_smi(host)
    if by_tool:
        return _Answer(_with_names(host, by_tool), "nvidia-smi")
    if not host.live:
        from fitcheck.probe.nvidia_reports import cards_of_reports

        reported = cards_of_reports(host)
        if reported:
            return _Answer(reported, "another tool's report")
    return _Answer(problems=tuple(_driver_problem(told, host.denied.get("nvidia-smi") or _recorded_failure(host))))


def _recorded_failure(host: Host) -> str:
    """What nvidia-smi printed on a recorded machine when it failed."""
    printed = (host.attached("nvidia-smi.txt") or "")[:400]
    return printed if re.search(r"failed|mismatch|couldn't communicate", printed, re.IGNORECASE) else ""


def _driver_problem(told: dict[str, object], said: str) -> Iterator[Problem]:
    """The problem behind an error of the library, or behind what nvidia-smi printed when it failed."""
    code = to_int(told.get("error"))
    if code is None:
        code = next((known for words, known in _SAYINGS.items() if words in said.lower()), None)
    if code is None and not said:
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


# --------------------------------------------------------------------------------------------------------------------
# Cards with a driver


def _cards(host: Host, rows: tuple[GpuRow, ...], answer: _Answer) -> Found:
    accelerators: list[Accelerator] = []
    problems = list(answer.problems)
    for card in answer.cards:
        row = _row_of(rows, card)
        whole = _accelerator(host, card, row)
        if card.mig:
            accelerators += [replace(whole, usable=False), *_instances(card, row, whole)]
        else:
            accelerators.append(whole)
        problems += _problems_of(card, row, whole)
    kept, hidden = _visible(host, accelerators)
    evidence = tuple(_evidence(card, answer.source) for card in kept)
    return Found(accelerators=tuple(kept), problems=(*problems, *hidden), evidence=evidence)


def _evidence(card: Accelerator, source: str) -> Evidence:
    rate = f", {format_rate(card.pool.bandwidth.per_s)}" if card.pool.bandwidth else ""
    driver = f" (driver {card.driver})" if card.driver else ""
    return Evidence("gpu.nvidia", f"{card.name}, {format_bytes(card.pool.total_bytes)}{rate}", f"{source}{driver}")


def _row_of(rows: tuple[GpuRow, ...], card: Card) -> GpuRow | None:
    virtual = _VGPU_NAME.match(card.name)
    return find_gpu(
        rows,
        pci_id=card.pci_id,
        name=f"NVIDIA {virtual['card']}" if virtual else card.name,
        memory_bytes=None if virtual or card.vgpu else card.total_bytes,
        bandwidth_per_s=_rate_by_clock(card.memory_mhz, card.bus_bits),
    )


def _accelerator(host: Host, card: Card, row: GpuRow | None) -> Accelerator:
    virtual = _VGPU_NAME.match(card.name)
    unified = row is not None and row.unified
    pool = _unified_pool(host, row) if row and unified else _own_pool(card, row)
    capability = card.compute_capability or (row.compute_capability if row else None)
    return Accelerator(
        index=0,
        name=card.name or (row.name if row else "NVIDIA GPU"),
        vendor=Vendor.NVIDIA,
        pool=pool,
        unified=unified,
        backends=backends_of(Vendor.NVIDIA, None, capability),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        compute_capability=capability,
        cores=row.cores if row else None,
        link=_link(card, row),
        partition=virtual["profile"] if virtual else None,
        driver=card.driver,
        pci_id=card.pci_id,
        uuid=card.uuid,
        catalog_name=row.name if row else None,
        usable=pool.total_bytes > 0,
    )


def _own_pool(card: Card, row: GpuRow | None) -> Pool:
    """Memory of the card's own; what the table says where the driver does not."""
    total = card.total_bytes or (row.memory_bytes if row else None) or 0
    free = None if card.free_bytes is None else min(card.free_bytes, total)
    usable = max(0, total - (card.reserved_bytes or 0)) if free is None else free
    return Pool(total, free, usable, _bandwidth(card, row))


def _unified_pool(host: Host, row: GpuRow) -> Pool:
    """The system's memory, at the speed at which the GPU reads it."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    memory = read_ram(host, read_confinement(host)).ram
    rate = _tabled(row)
    if memory is None:
        return Pool(0, None, 0, rate)
    return Pool(memory.total_bytes, memory.free_bytes, memory.usable_bytes, rate)


def _rate_by_clock(memory_mhz: int | None, bus_bits: int | None) -> float | None:
    """Bytes/s: every wire carries two bits per cycle of the clock that the driver reports, whatever the memory."""
    return memory_mhz * 1e6 * 2 * bus_bits / 8 if memory_mhz and bus_bits else None


def _bandwidth(card: Card, row: GpuRow | None) -> Rate | None:
    width = card.bus_bits or (row.bus_bits if row else None)
    by_clock = _rate_by_clock(card.memory_mhz, width)
    in_table = row.bandwidth_per_s if row else None
    if by_clock and (not in_table or 1 / _PLAUSIBLE_FACTOR < by_clock / in_table < _PLAUSIBLE_FACTOR):
        return Rate(by_clock, Origin.REPORTED, f"{card.memory_mhz} MHz x 2 x {width} bit")
    return _tabled(row) if row else None


def _tabled(row: GpuRow) -> Rate:
    return Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}")


def _link(card: Card, row: GpuRow | None) -> Link | None:
    if row is not None and row.unified:
        return Link("on-chip")
    if card.pcie_generation and card.pcie_width:
        return pcie_link(card.pcie_generation, card.pcie_width)
    return row.link if row else None


def _problems_of(card: Card, row: GpuRow | None, whole: Accelerator) -> Iterator[Problem]:
    if not card.name and not card.total_bytes:
        yield Problem("nvidia", "a GPU does not answer", "restart the machine; look into dmesg for Xid errors")
        return
    if row is None:
        yield Problem(
            "nvidia",
            f"{whole.name} is not in the table of GPUs: its computing speed is not known",
            "memory and bandwidth come from the driver; give --bandwidth if it is missing",
        )
    if card.total_bytes is None and not whole.unified:
        known = "the table's size is used" if whole.pool.total_bytes else "give --vram, such as --vram 24GiB"
        yield Problem("nvidia", f"the driver does not tell the memory of {whole.name}", known)


# --------------------------------------------------------------------------------------------------------------------
# MIG


def _instances(card: Card, row: GpuRow | None, whole: Accelerator) -> Iterator[Accelerator]:
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


# --------------------------------------------------------------------------------------------------------------------
# Which cards a program may see


def _visible(host: Host, cards: list[Accelerator]) -> tuple[list[Accelerator], list[Problem]]:
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


# --------------------------------------------------------------------------------------------------------------------
# Jetson


def _jetson_board(host: Host) -> str:
    """The board's name, such as ``NVIDIA Jetson AGX Orin Developer Kit``; empty on anything else."""
    compatible = host.read_text("/proc/device-tree/compatible", 4096) or ""
    board = clean((host.read_text("/proc/device-tree/model", 256) or "").replace("\0", " "))
    return (board or "NVIDIA Jetson") if "nvidia,tegra" in compatible or "Jetson" in board else ""


def _jetson(host: Host, rows: tuple[GpuRow, ...], board: str, answer: _Answer) -> Found:
    """The GPU of a Jetson: the row is the board's, told apart by the size of its memory."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    memory = read_ram(host, read_confinement(host)).ram
    row = _jetson_row(rows, board, memory.total_bytes if memory else 0)
    name = row.name if row else board
    if row is None:
        unknown = Problem("nvidia", f"{board} is not in the table of GPUs", "give --bandwidth, such as 102GB/s")
        return Found(problems=(unknown,))
    release = re.search(r"# R(\d{2})", host.read_text("/etc/nv_tegra_release", 1024) or "")
    card = Card(name=name, driver=f"L4T {release[1]}" if release else None)
    whole = _accelerator(host, card, row)
    return Found(accelerators=(whole,), evidence=(_evidence(whole, "/proc/device-tree/model"),))


def _jetson_row(rows: tuple[GpuRow, ...], board: str, ram_bytes: int) -> GpuRow | None:
    """The row whose name shares most words with the board's and whose memory is the nearest above what Linux sees."""
    words = set(re.findall(r"[a-z0-9]+", board.lower()))

    def distance(row: GpuRow) -> tuple[int, float]:
        shared = len(words & set(re.findall(r"[a-z]+|\d+(?!\d*gb)", row.name.lower())))
        sizes = [abs(size * 1024**3 - ram_bytes) for size in row.memory_options_gib] or [0.0]
        return -shared, min(sizes)

    boards = [row for row in rows if row.vendor is Vendor.NVIDIA and row.unified and row.name.startswith("Jetson")]
    return min(boards, key=distance, default=None)


# --------------------------------------------------------------------------------------------------------------------
# Cards without a driver


def _is_driven(device: DisplayDevice, cards: tuple[Card, ...]) -> bool:
    """Whether one of the cards is this device; addresses differ in the length of their domain and in case."""
    known = [card.pci_address.lower() for card in cards if card.pci_address]
    if len(known) < len(cards):
        return bool(cards)
    return not device.address or any(address[-12:] == device.address.lower()[-12:] for address in known)


def _without_driver(host: Host, rows: tuple[GpuRow, ...], devices: list[DisplayDevice], answer: _Answer) -> Found:
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
        pool=replace(_own_pool(card, row), usable_bytes=0),
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
