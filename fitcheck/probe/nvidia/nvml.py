"""Ask NVIDIA's management library about its cards. Imported only where an NVIDIA driver is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

_LIBRARY_NOT_FOUND = 12
_MOST_CARDS = 64
_MOST_INSTANCES = 8

#: Where the library lies when it is not on the loader's path (WSL2 in a container, old Windows drivers).
_OTHER_PLACES = ("/usr/lib/wsl/lib/libnvidia-ml.so.1", "/usr/lib/aarch64-linux-gnu/nvidia/libnvidia-ml.so.1")


def query_nvml() -> dict[str, object]:
    """Every card with what the probe needs, as JSON-able values; ``{"error": code, "message": text}`` where the
    library or the driver refuses. A field that a card does not support is left out."""
    if not _load_library():
        return {"error": _LIBRARY_NOT_FOUND, "message": "the driver's library libnvidia-ml is not installed"}
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"error": int(error.value), "message": str(error)}
    try:
        count = min(pynvml.nvmlDeviceGetCount(), _MOST_CARDS)
        return {
            "driver": _ask(pynvml.nvmlSystemGetDriverVersion),
            "cards": [card for index in range(count) if (card := _card(index)) is not None],
        }
    except pynvml.NVMLError as error:
        return {"error": int(error.value), "message": str(error)}
    finally:
        pynvml.nvmlShutdown()


def _load_library() -> bool:
    """Whether the library can be loaded; a miss costs 0.03 ms, importing its Python module 20 ms."""
    import ctypes
    import os

    if os.name == "nt":
        return True  # the Python module knows both places
    for name in ("libnvidia-ml.so.1", *_OTHER_PLACES):
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def _ask(call: Callable[..., object], *args: object) -> object:
    """The answer, text decoded; None where the card, the driver or the Python module does not know the question."""
    import pynvml

    try:
        answer = call(*args)
    except (pynvml.NVMLError, AttributeError, TypeError, ValueError):
        return None
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _card(index: int) -> dict[str, object] | None:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        return {"index": index, "error": str(error)}
    fields = {"index": index, **_identity(handle), **_memory(handle), **_speed(handle), **_modes(handle)}
    if fields.get("mig") == 1:
        fields["instances"] = list(_instances(handle))
    return {name: value for name, value in fields.items() if value is not None}


def _identity(handle: object) -> dict[str, object]:
    import pynvml

    pci = _ask(pynvml.nvmlDeviceGetPciInfo, handle)
    capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    device = getattr(pci, "pciDeviceId", None)
    address = getattr(pci, "busId", None)
    return {
        "name": _ask(pynvml.nvmlDeviceGetName, handle),
        "uuid": _ask(pynvml.nvmlDeviceGetUUID, handle),
        "pci_device_id": device if isinstance(device, int) else None,
        "pci_address": address.decode("ascii", "replace") if isinstance(address, bytes) else address,
        "compute_capability": list(capability) if isinstance(capability, (tuple, list)) else None,
    }


def _memory(handle: object) -> dict[str, object]:
    """Bytes. Version 2 of the call tells what driver and firmware reserve; version 1 counts it as used."""
    import pynvml

    version = getattr(pynvml, "nvmlMemory_v2", None)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle, version) if version is not None else None
    memory = memory or _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return {f"{name}_bytes": getattr(memory, name, None) for name in ("total", "free", "used", "reserved")}


def _speed(handle: object) -> dict[str, object]:
    import pynvml

    return {
        "bus_bits": _ask(pynvml.nvmlDeviceGetMemoryBusWidth, handle),
        "memory_mhz": _ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        "pcie_generation": _ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "pcie_width": _ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    }


def _modes(handle: object) -> dict[str, object]:
    import pynvml

    mig = _ask(pynvml.nvmlDeviceGetMigMode, handle)
    virtual = _ask(pynvml.nvmlDeviceGetVirtualizationMode, handle)
    return {
        "mig": mig[0] if isinstance(mig, (tuple, list)) and mig else None,
        "vgpu": virtual == getattr(pynvml, "NVML_GPU_VIRTUALIZATION_MODE_VGPU", 2) or None,
    }


def _instances(handle: object) -> Iterator[dict[str, object]]:
    """The MIG instances of a card."""
    import pynvml

    for number in range(_MOST_INSTANCES):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except (pynvml.NVMLError, AttributeError):
            continue
        attributes = _ask(pynvml.nvmlDeviceGetAttributes, instance)
        fields = {
            "name": _ask(pynvml.nvmlDeviceGetName, instance),
            "uuid": _ask(pynvml.nvmlDeviceGetUUID, instance),
            "multiprocessors": getattr(attributes, "multiprocessorCount", None),
            **_memory(instance),
        }
        yield {name: value for name, value in fields.items() if value is not None}
