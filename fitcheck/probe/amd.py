"""AMD: whether anything of theirs is here; only then is the rest read (fitcheck.probe.amd_cards)."""

from __future__ import annotations

from fitcheck.probe.display import has_display
from fitcheck.probe.host import Found, Host

_KFD = "/sys/class/kfd/kfd/topology/nodes"


def probe_amd(host: Host) -> Found:
    """AMD's GPUs: from the kernel, else, in captures, from what ROCm's tools said."""
    if host.live and not has_display(host, "1002") and not host.exists(_KFD):
        return Found()
    from fitcheck.probe.amd_cards import find_cards

    return find_cards(host)
