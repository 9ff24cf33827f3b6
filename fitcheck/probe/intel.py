"""Intel: whether a GPU of theirs is here; only then is the rest read (fitcheck.probe.intel_cards)."""

from __future__ import annotations

from fitcheck.probe.display import has_display
from fitcheck.probe.host import Found, Host


def probe_intel(host: Host) -> Found:
    """Intel's GPUs, each with the driver that runs it."""
    if not has_display(host, "8086"):
        return Found()
    from fitcheck.probe.intel_cards import find_cards

    return find_cards(host)
