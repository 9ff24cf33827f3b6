"""macOS' own calls, through ctypes: no process is started, each takes microseconds."""

from __future__ import annotations

import sys

_MOST_BYTES = 1024
_TEXTS = ("hw.model", "machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")


def query_sysctl(*names: str) -> dict[str, str] | None:
    """Values of the kernel's state by name, as text; absent names are left out. None on other systems."""
    if sys.platform != "darwin":
        return None
    import ctypes

    library = ctypes.CDLL("/usr/lib/libSystem.dylib")
    values = {}
    for name in names:
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        size = ctypes.c_size_t(_MOST_BYTES)
        if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
            raw = buffer.raw[: size.value]
            is_text = name in _TEXTS or name.startswith("kern.os")
            values[name] = (
                raw.split(b"\0")[0].decode("utf-8", "replace") if is_text else str(int.from_bytes(raw, "little"))
            )
    return values


def query_metal() -> dict[str, object] | None:
    """The default Metal device: its name, recommendedMaxWorkingSetSize and currentAllocatedSize in bytes."""
    if sys.platform != "darwin":
        return None
    import ctypes

    metal = ctypes.CDLL("/System/Library/Frameworks/Metal.framework/Metal")
    runtime = ctypes.CDLL("/usr/lib/libobjc.dylib")
    metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    runtime.sel_registerName.restype = ctypes.c_void_p
    device = metal.MTLCreateSystemDefaultDevice()
    if not device:
        return None

    def send(receiver: int, selector: str, result: type) -> object:
        call = ctypes.CFUNCTYPE(result, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", runtime))
        answer: object = call(receiver, runtime.sel_registerName(selector.encode()))
        return answer

    name = send(device, "name", ctypes.c_void_p)
    text = send(name, "UTF8String", ctypes.c_char_p) if isinstance(name, int) else None
    return {
        "name": text.decode("utf-8", "replace") if isinstance(text, bytes) else None,
        "working_set_bytes": send(device, "recommendedMaxWorkingSetSize", ctypes.c_uint64),
        "allocated_bytes": send(device, "currentAllocatedSize", ctypes.c_uint64),
    }
