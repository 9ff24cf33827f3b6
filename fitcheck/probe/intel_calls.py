"""Ask Intel's kernel drivers how much memory a card has of its own, through its render node.

Both drivers list the memory regions of a card to whoever may open the node: i915 since Linux 5.19 or so, xe from the
start. Asked twice, first for the length of the list and then for the list. Layouts: the kernel's include/uapi/drm,
i915_drm.h (drm_i915_query, drm_i915_memory_region_info) and xe_drm.h (drm_xe_device_query, drm_xe_mem_region).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

_LARGEST_BYTES = 65536
_LOCAL = 1  # class of a region that is the card's own; 0 is the system's

_I915_QUERY = 0xC0106479  # DRM_IOWR(0x40 + 0x39, 16 bytes)
_I915_ITEM = struct.Struct("=QiIQ")  # query id, length (negative: an error), flags, pointer
_I915_MEMORY_REGIONS = 4
_I915_HEADER, _I915_REGION = struct.Struct("=I12x"), struct.Struct("=HHIQQ64x")  # class, instance, …, size, free

_XE_QUERY = 0xC0286440  # DRM_IOWR(0x40 + 0x00, 40 bytes)
_XE_CALL = struct.Struct("=QIIQ16x")  # extensions, query id, length, pointer
_XE_MEMORY_REGIONS = 1
_XE_HEADER, _XE_REGION = struct.Struct("=I4x"), struct.Struct("=HHIQ72x")  # class, instance, page size, size, …

Ioctl = Callable[[int, bytearray], None]  # (request, argument that the kernel changes); raises OSError


def query_local_memory(driver: str, node: str) -> dict[str, int] | None:
    """``{"bytes": …}`` of a card's own memory, None where it has none. Raises OSError where the node cannot be opened
    or the driver does not know the question."""
    import os
    from fcntl import ioctl

    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:

        def call(request: int, argument: bytearray) -> None:
            ioctl(descriptor, request, argument, True)

        total = sum(local_regions(driver, call))
    finally:
        os.close(descriptor)
    return {"bytes": total} if total else None


def local_regions(driver: str, ioctl: Ioctl) -> Iterator[int]:
    """Bytes of each region of a card's own memory. Raises OSError."""
    header, region = (_XE_HEADER, _XE_REGION) if driver == "xe" else (_I915_HEADER, _I915_REGION)
    listed = _xe_list(ioctl) if driver == "xe" else _i915_list(ioctl)
    if len(listed) < header.size:
        return
    (count,) = header.unpack_from(listed)
    fitting = (len(listed) - header.size) // region.size
    for number in range(min(count, fitting)):
        kind, _, _, size, *_ = region.unpack_from(listed, header.size + number * region.size)
        if kind == _LOCAL:
            yield size


def _xe_list(ioctl: Ioctl) -> bytearray:
    def ask(length: int, place: int) -> int:
        argument = bytearray(_XE_CALL.pack(0, _XE_MEMORY_REGIONS, length, place))
        ioctl(_XE_QUERY, argument)
        return int(_XE_CALL.unpack(argument)[2])

    return _twice(ask)


def _i915_list(ioctl: Ioctl) -> bytearray:
    def ask(length: int, place: int) -> int:
        item = bytearray(_I915_ITEM.pack(_I915_MEMORY_REGIONS, length, 0, place))
        argument = bytearray(struct.pack("=IIQ", 1, 0, _address_of(item)))
        ioctl(_I915_QUERY, argument)
        return int(_I915_ITEM.unpack(item)[1])

    return _twice(ask)


def _twice(ask: Callable[[int, int], int]) -> bytearray:
    """The list that ``ask(length, place)`` writes: first asked how long it is."""
    length = ask(0, 0)
    if not 0 < length <= _LARGEST_BYTES:
        return bytearray()
    listed = bytearray(length)
    return listed if ask(length, _address_of(listed)) > 0 else bytearray()


def _address_of(buffer: bytearray) -> int:
    import ctypes

    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
