"""Vulkan: the GPUs of any maker by their memory heaps, where no other part of the probe found one that works."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from fitcheck.probe.display import parse_json
from fitcheck.probe.hardware import GpuRow, find_gpu, load_gpus
from fitcheck.probe.host import Found, Host, clean, to_int
from fitcheck.types import Accelerator, Backend, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes

_VENDORS = {0x10DE: Vendor.NVIDIA, 0x1002: Vendor.AMD, 0x8086: Vendor.INTEL, 0x5143: Vendor.QUALCOMM}
_MOST_DEVICES = 32
_LOCAL = 1  # VK_MEMORY_HEAP_DEVICE_LOCAL_BIT


class Device(Struct, frozen=True):
    """A physical device as Vulkan lists it: sizes of its local heaps and of all heaps, in bytes."""

    name: str
    kind: str
    vendor_id: int
    device_id: int
    local_bytes: int
    all_bytes: int


def probe_vulkan(host: Host) -> Found:
    """GPUs by ``vulkaninfo``, software devices left out."""
    devices = [*_devices_of_text(host.run(("vulkaninfo",)) or "")] or [*_devices_of_json(host)]
    real = [device for device in devices if device.kind != "cpu"]
    if not real:
        return Found()
    rows = load_gpus()
    cards = tuple(_accelerator(index, device, rows) for index, device in enumerate(real))
    evidence = tuple(
        Evidence("gpu.vulkan", f"{card.name}, {format_bytes(card.pool.total_bytes)}", "vulkaninfo") for card in cards
    )
    problems = tuple(
        Problem("vulkan", f"the bandwidth of {card.name} is not known", "give --bandwidth, such as 256GB/s")
        for card in cards
        if card.pool.bandwidth is None
    )
    return Found(cards, problems, evidence)


def _accelerator(index: int, device: Device, rows: tuple[GpuRow, ...]) -> Accelerator:
    unified = device.kind == "integrated"
    total = device.all_bytes if unified else device.local_bytes
    row = find_gpu(
        rows,
        pci_id=f"{device.vendor_id:04x}:{device.device_id:04x}",
        name=re.sub(r"\s*\((?:RADV|DG2|BMG|LNL|MTL|ARL).*\)$", "", device.name),
        memory_bytes=None if unified else total,
    )
    rate = Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}") if row else None
    return Accelerator(
        index=index,
        name=device.name,
        vendor=_VENDORS.get(device.vendor_id, Vendor.OTHER),
        pool=Pool(total, None, total, rate),
        unified=unified,
        backends=(Backend.VULKAN,),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        gfx_target=row.gfx_target if row else None,
        cores=row.cores if row else None,
        link=Link("on-chip") if unified else (row.link if row else None),
        pci_id=f"{device.vendor_id:04x}:{device.device_id:04x}",
        catalog_name=row.name if row else None,
    )


def _devices_of_text(text: str) -> Iterator[Device]:
    """One block per GPU: its properties, then its heaps, of which each says whether it is local to the device."""
    for block in re.split(r"^GPU\d+:\s*$", text[: 4 * 1024**2], flags=re.MULTILINE)[1 : _MOST_DEVICES + 1]:
        values = dict(
            re.findall(r"^\s*(vendorID|deviceID|deviceType|deviceName)\s*=\s*(.{1,200})$", block, re.MULTILINE)
        )
        sizes = [0, 0]
        for size, flags in re.findall(
            r"memoryHeaps\[\d+\]:\s*\n\s*size\s*=\s*(\d{1,18})(.{0,400}?)(?=memoryHeaps\[|memoryTypes:|\Z)",
            block,
            re.DOTALL,
        ):
            sizes[0] += int(size) if "DEVICE_LOCAL" in flags else 0
            sizes[1] += int(size)
        if "deviceName" in values and sizes[1]:
            yield Device(
                name=clean(values["deviceName"], 120),
                kind=_kind(values.get("deviceType", "")),
                vendor_id=to_int(values.get("vendorID", ""), 16) or 0,
                device_id=to_int(values.get("deviceID", ""), 16) or 0,
                local_bytes=sizes[0],
                all_bytes=sizes[1],
            )


def _kind(device_type: str) -> str:
    words = ("integrated", "discrete", "virtual", "cpu")
    return next((word for word in words if word in device_type.lower()), "other")


def _devices_of_json(host: Host) -> Iterator[Device]:
    """The single device of ``vulkaninfo --json``, which writes a file: only a capture holds one."""
    document = parse_json(host.attached("vulkaninfo.json"))
    found = list(_sections(document, ("VkPhysicalDeviceProperties", "VkPhysicalDeviceMemoryProperties")))
    properties = next((value for name, value in found if name == "VkPhysicalDeviceProperties"), {})
    memory = next((value for name, value in found if name == "VkPhysicalDeviceMemoryProperties"), {})
    heaps = memory.get("memoryHeaps")
    sizes = [0, 0]
    for heap in heaps[:16] if isinstance(heaps, list) else []:
        size = to_int(heap.get("size")) if isinstance(heap, dict) else None
        flags = heap.get("flags") if isinstance(heap, dict) else 0
        is_local = flags & _LOCAL if isinstance(flags, int) else "DEVICE_LOCAL" in str(flags)
        sizes[0] += size if size and is_local else 0
        sizes[1] += size or 0
    if properties and sizes[1]:
        kinds = {1: "integrated", 2: "discrete", 3: "virtual", 4: "cpu"}
        told = properties.get("deviceType")
        yield Device(
            name=clean(str(properties.get("deviceName")), 120),
            kind=kinds.get(told, "other") if isinstance(told, int) else _kind(str(told)),
            vendor_id=to_int(properties.get("vendorID")) or 0,
            device_id=to_int(properties.get("deviceID")) or 0,
            local_bytes=sizes[0],
            all_bytes=sizes[1],
        )


def _sections(value: object, names: tuple[str, ...], depth: int = 0) -> Iterator[tuple[str, dict[str, object]]]:
    """Objects of these names anywhere in a document; the layout changed between versions."""
    if depth > 8:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if name in names and isinstance(item, dict):
                yield name, item
            yield from _sections(item, names, depth + 1)
    elif isinstance(value, list):
        for item in value[:64]:
            yield from _sections(item, names, depth + 1)
