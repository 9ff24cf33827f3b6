"""Intel GPUs under Linux: Arc cards and the GPUs of Intel's processors, by the drivers xe and i915.

Newer kernels tell in sysfs how much memory a card has, older ones who opens its render node; where neither does, the
table by PCI id says.
"""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.probe.display import (
    GROUPS_HINT,
    DisplayDevice,
    display_devices,
    link_of,
    parse_json,
    problem_of_access,
    refused_nodes,
)
from fitcheck.probe.hardware import TOO_SLOW, GpuRow, backends_of, find_gpu, load_gpus
from fitcheck.probe.host import Found, Host, to_int
from fitcheck.types import Accelerator, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes, format_rate

_VENDOR_ID = "8086"
_DRIVERS = ("xe", "i915")
_MOST_TILES = 8
_SMALL_BYTES = 4 * 1024**3


def find_cards(host: Host) -> Found:
    """Intel's GPUs, each with the driver that runs it."""
    devices = display_devices(host, _VENDOR_ID)
    if not devices:
        return Found()
    rows = load_gpus()
    accelerators: list[Accelerator] = []
    problems: list[Problem] = []
    evidence: list[Evidence] = []
    for device in devices:
        vram = _vram_bytes(host, device, find_gpu(rows, pci_id=device.pci_id))
        row = find_gpu(rows, pci_id=device.pci_id, memory_bytes=vram)
        card, source = _accelerator(host, device, row, vram)
        accelerators.append(card)
        problems += _problems_of(device, card, row, problem_of_access(host, device, _DRIVERS))
        rate = f", {format_rate(card.pool.bandwidth.per_s)}" if card.pool.bandwidth else ""
        evidence.append(Evidence("gpu.intel", f"{card.name}, {format_bytes(card.pool.total_bytes)}{rate}", source))
    refused = refused_nodes(host) if any(card.usable for card in accelerators) else ()
    if refused:
        problems.append(
            Problem("intel", f"you may not open {', '.join(refused)}: engines will not find it", GROUPS_HINT)
        )
    return Found(accelerators=tuple(accelerators), problems=tuple(problems), evidence=tuple(evidence))


def _accelerator(host: Host, device: DisplayDevice, row: GpuRow | None, vram: int | None) -> tuple[Accelerator, str]:
    unified = row.unified if row else vram is None
    trouble = problem_of_access(host, device, _DRIVERS) or (TOO_SLOW if row and not row.helps else None)
    pool, source = _shared_pool(host, row) if unified else _own_pool(host, row, vram)
    if trouble:
        pool = Pool(pool.total_bytes, pool.free_bytes, 0, pool.bandwidth)
    card = Accelerator(
        index=0,
        name=row.name if row else f"Intel GPU {device.pci_id}",
        vendor=Vendor.INTEL,
        pool=pool,
        unified=unified,
        backends=() if trouble else backends_of(Vendor.INTEL, None, None),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        cores=row.cores if row else None,
        link=Link("on-chip") if unified else (row.link if row else link_of(host, device)),
        driver=device.driver or None,
        pci_id=device.pci_id,
        catalog_name=row.name if row else None,
        usable=trouble is None,
    )
    return card, source or device.folder


def _vram_bytes(host: Host, device: DisplayDevice, row: GpuRow | None) -> int | None:
    """Local memory by the kernel: i915 in one file of the card, xe in one per tile; else by the render node of what is
    not known to be a part of a processor, since that wakes a card which sleeps."""
    total = to_int(host.read_text(f"/sys/class/drm/{device.card}/lmem_total_bytes", 64)) if device.card else None
    tiles = [name for name in host.list_dir(device.folder) if name.startswith("tile")][:_MOST_TILES]
    sizes = [to_int(host.read_text(f"{device.folder}/{tile}/physical_vram_size_bytes", 64)) for tile in tiles]
    told = total or sum(size for size in sizes if size) or None
    return told if told or (row is not None and row.unified) else _queried_bytes(host, device)


def _queried_bytes(host: Host, device: DisplayDevice) -> int | None:
    """Local memory as the driver tells who may open the card's render node (group render, no root)."""
    node = next((name for name in host.list_dir(f"{device.folder}/drm")[:16] if name.startswith("renderD")), None)
    if node is None or device.driver not in _DRIVERS:
        return None
    answer = host.query("local_memory", device.driver, f"/dev/dri/{node}")
    return to_int(answer.get("bytes")) or None if isinstance(answer, dict) else None


def _own_pool(host: Host, row: GpuRow | None, vram: int | None) -> tuple[Pool, str]:
    rate = Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}") if row else None
    if vram:
        return Pool(vram, None, vram, rate), ""
    if row is not None and row.memory_bytes:
        return Pool(row.memory_bytes, None, row.memory_bytes, rate), f"table of GPUs: {row.name}"
    total = _opencl_bytes(host) or 0
    return Pool(total, None, total, rate), "clinfo"


def _opencl_bytes(host: Host) -> int | None:
    """Memory of the largest device that ``clinfo`` lists."""
    text = host.run(("clinfo", "--json"))
    document = parse_json(text)
    sizes = [to_int(device.get("CL_DEVICE_GLOBAL_MEM_SIZE")) for device in _opencl_devices(document)]
    return max((size for size in sizes if size), default=None)


def _opencl_devices(document: object) -> Iterator[dict[str, object]]:
    platforms = document.get("devices") if isinstance(document, dict) else None
    for platform in platforms if isinstance(platforms, list) else []:
        online = platform.get("online") if isinstance(platform, dict) else None
        yield from (device for device in (online if isinstance(online, list) else []) if isinstance(device, dict))


def _shared_pool(host: Host, row: GpuRow | None) -> tuple[Pool, str]:
    """The part of the RAM that Mesa's driver offers: three quarters, one half up to 4 GiB."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    ram = read_ram(host, read_confinement(host)).ram
    rate = Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}") if row else None
    if ram is None:
        return Pool(0, None, 0, rate), ""
    heap = ram.total_bytes * 3 // 4 if ram.total_bytes > _SMALL_BYTES else ram.total_bytes // 2
    return Pool(heap, min(heap, ram.free_bytes or heap), min(heap, ram.usable_bytes), ram.bandwidth or rate), ""


def _problems_of(
    device: DisplayDevice, card: Accelerator, row: GpuRow | None, trouble: str | None
) -> Iterator[Problem]:
    if trouble:
        hint = (
            "start the container with --device /dev/dri" if device.driver in _DRIVERS else "load the driver xe or i915"
        )
        yield Problem("intel", f"{card.name} {trouble}", hint)
    elif row is None:
        yield Problem("intel", f"{card.name} is not in the table of GPUs", "give --vram and --bandwidth")
