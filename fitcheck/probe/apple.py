"""Apple: whether this is a Mac; only then is the rest read (fitcheck.probe.macs)."""

from __future__ import annotations

from fitcheck.probe.host import Found, Host


def probe_apple(host: Host) -> Found:
    """The whole Mac under macOS; under Linux only the GPU of an Apple chip."""
    if host.os == "darwin":
        from fitcheck.probe.macs import find_mac

        return find_mac(host)
    if "apple," not in (host.read_text("/proc/device-tree/compatible", 1024) or ""):
        return Found()
    from fitcheck.probe.macs import find_linux_gpu

    return find_linux_gpu(host)
