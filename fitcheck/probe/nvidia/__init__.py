"""NVIDIA: whether anything of theirs is here; only then is the rest read.

The driver's library is asked first, ``nvidia-smi`` where that fails, the PCI bus where there is no driver at all.
"""

from __future__ import annotations

from fitcheck.probe.display import has_display
from fitcheck.probe.host import Found, Host

#: One of these exists where an NVIDIA driver is loaded: natively, in WSL2, on Windows.
DRIVER_SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "C:/Windows/System32/nvml.dll")
_BOARD = "/proc/device-tree/compatible"


def probe_nvidia(host: Host) -> Found:
    """All NVIDIA GPUs of the machine."""
    signs = any(host.exists(sign) for sign in (*DRIVER_SIGNS, _BOARD))
    if host.live and not signs and not has_display(host, "10de"):
        return Found()
    from fitcheck.probe.nvidia.find import find_cards

    return find_cards(host)
