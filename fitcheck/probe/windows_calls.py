"""Windows' own calls, through ctypes and winreg: no process is started, no rights are needed."""

from __future__ import annotations

import sys

_MOST_SUBKEYS = 64
_MOST_ADAPTERS = 16
_RAW_SMBIOS = 0x52534D42  # 'RSMB'
_CORE_RELATION = 0
_FEATURES = {39: "avx", 40: "avx2", 41: "avx512f", 43: "asimddp"}  # IsProcessorFeaturePresent


def query_registry(path: str, subkeys: str = "") -> object | None:
    """The values of a key of HKEY_LOCAL_MACHINE by name, or with ``subkeys`` = "*" those of each of its subkeys."""
    if sys.platform != "win32":
        return None
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
        if not subkeys:
            return _values(key)
        names = [winreg.EnumKey(key, index) for index in range(min(winreg.QueryInfoKey(key)[0], _MOST_SUBKEYS))]
    found = []
    for name in names:
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{path}\{name}") as key:
                found.append(_values(key))
        except OSError:  # the class has one subkey that only the system may open
            continue
    return found


def _values(key: object) -> dict[str, object]:
    """Texts and numbers of an open key; short binaries are numbers, lowest byte first."""
    if sys.platform != "win32":
        return {}
    import winreg

    values: dict[str, object] = {}
    for index in range(winreg.QueryInfoKey(key)[1]):
        name, value, _ = winreg.EnumValue(key, index)
        if isinstance(value, bytes):
            value = int.from_bytes(value, "little") if len(value) <= 8 else None
        if isinstance(value, (str, int)):
            values[name] = value
    return values


def query_dxgi() -> list[dict[str, object]] | None:
    """The adapters that are present: name, ids, memory of their own and shared memory in bytes."""
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    class Description(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_wchar * 128),
            ("vendor_id", wintypes.UINT),
            ("device_id", wintypes.UINT),
            ("subsystem_id", wintypes.UINT),
            ("revision", wintypes.UINT),
            ("dedicated_bytes", ctypes.c_size_t),
            ("dedicated_system_bytes", ctypes.c_size_t),
            ("shared_bytes", ctypes.c_size_t),
            ("luid", ctypes.c_int64),
            ("flags", wintypes.UINT),
        )

    def method(instance: ctypes.c_void_p, index: int, *types: type) -> object:
        table = ctypes.cast(instance, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
        return ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p, *types)(table[index])

    # IID_IDXGIFactory1 {770aae78-f26f-4dba-a829-253c83d1b387}
    interface = (ctypes.c_ubyte * 16)(*bytes.fromhex("78ae0a776ff2ba4da829253c83d1b387"))
    factory = ctypes.c_void_p()
    if ctypes.windll.dxgi.CreateDXGIFactory1(ctypes.byref(interface), ctypes.byref(factory)) != 0:
        return None
    release, enumerate_adapters, describe = 2, 12, 10
    adapters = []
    for index in range(_MOST_ADAPTERS):
        adapter = ctypes.c_void_p()
        enumerate_call = method(factory, enumerate_adapters, wintypes.UINT, ctypes.c_void_p)
        if enumerate_call(factory, index, ctypes.byref(adapter)) != 0:
            break
        described = Description()
        if method(adapter, describe, ctypes.c_void_p)(adapter, ctypes.byref(described)) == 0:
            adapters.append(
                {
                    "name": described.name,
                    "vendor_id": described.vendor_id,
                    "device_id": described.device_id,
                    "revision": described.revision,
                    "dedicated_bytes": described.dedicated_bytes,
                    "shared_bytes": described.shared_bytes,
                    "software": bool(described.flags & 2),
                }
            )
        method(adapter, release)(adapter)
    method(factory, release)(factory)
    return adapters


def query_processors() -> dict[str, object] | None:
    """Physical and logical counts, how many cores are of the fastest kind, and instruction sets."""
    if sys.platform != "win32":
        return None
    import ctypes
    import os

    kernel = ctypes.windll.kernel32
    size = ctypes.c_uint32(0)
    kernel.GetLogicalProcessorInformationEx(_CORE_RELATION, None, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    classes: list[int] = []
    if kernel.GetLogicalProcessorInformationEx(_CORE_RELATION, buffer, ctypes.byref(size)):
        classes = efficiency_classes(buffer.raw[: size.value])
    return {
        "physical": len(classes) or None,
        "logical": os.cpu_count(),
        "performance": classes.count(max(classes)) if classes else None,
        "features": [name for number, name in _FEATURES.items() if kernel.IsProcessorFeaturePresent(number)],
    }


def efficiency_classes(buffer: bytes) -> list[int]:
    """One number per core, larger for faster cores, from SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX records."""
    classes, offset = [], 0
    while offset + 10 <= len(buffer):
        relation = int.from_bytes(buffer[offset : offset + 4], "little")
        length = int.from_bytes(buffer[offset + 4 : offset + 8], "little")
        if length < 10:
            break
        if relation == _CORE_RELATION:
            classes.append(buffer[offset + 9])
        offset += length
    return classes


def query_smbios() -> dict[str, str] | None:
    """The memory modules that the firmware lists, under the names that udev gives them under Linux."""
    if sys.platform != "win32":
        return None
    import ctypes

    kernel = ctypes.windll.kernel32
    size = kernel.GetSystemFirmwareTable(_RAW_SMBIOS, 0, None, 0)
    buffer = ctypes.create_string_buffer(size)
    kernel.GetSystemFirmwareTable(_RAW_SMBIOS, 0, buffer, size)
    return memory_modules(buffer.raw[8:])


_MODULE_TYPES = {24: "DDR3", 26: "DDR4", 29: "LPDDR3", 30: "LPDDR4", 34: "DDR5", 35: "LPDDR5"}
_MEMORY_DEVICE, _END_OF_TABLE = 17, 127


def memory_modules(table: bytes) -> dict[str, str]:
    """Structures of type 17 of a raw SMBIOS table (without serial numbers): MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS, …"""
    properties: dict[str, str] = {}
    number, offset = 0, 0
    while offset + 4 <= len(table):
        kind, length = table[offset], table[offset + 1]
        end = table.find(b"\0\0", offset + max(length, 4))
        if length < 4 or end < 0 or kind == _END_OF_TABLE:
            break
        if kind == _MEMORY_DEVICE and number < 256:
            texts = table[offset + length : end].split(b"\0")
            properties.update(_module(number, table[offset : offset + length], texts))
            number += 1
        offset = end + 2
    return properties


def _module(number: int, fields: bytes, texts: list[bytes]) -> dict[str, str]:
    def word(offset: int) -> int:
        return int.from_bytes(fields[offset : offset + 2], "little")

    def text(offset: int) -> str:
        index = fields[offset] if offset < len(fields) else 0
        return texts[index - 1].decode("ascii", "replace")[:80] if 0 < index <= len(texts) else ""

    prefix = f"MEMORY_DEVICE_{number}_"
    return {
        f"{prefix}PRESENT": "1" if word(0x0C) else "0",
        f"{prefix}DATA_WIDTH": str(word(0x0A)),
        f"{prefix}LOCATOR": text(0x10),
        f"{prefix}BANK_LOCATOR": text(0x11),
        f"{prefix}TYPE": _MODULE_TYPES.get(fields[0x12] if len(fields) > 0x12 else 0, ""),
        f"{prefix}SPEED_MTS": str(word(0x15)),
        f"{prefix}CONFIGURED_SPEED_MTS": str(word(0x20)),
    }
