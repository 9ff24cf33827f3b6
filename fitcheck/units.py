"""Parse and print bytes, tokens and rates: the only place that knows 1024."""

from __future__ import annotations

import re

from fitcheck.errors import FitcheckError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_BYTE_UNITS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": TIB, "tib": TIB, "tb": 1000**4,
}  # fmt: skip
_RATE_UNITS = {"b": 1.0, "mb": 1e6, "gb": 1e9, "tb": 1e12, "mib": float(MIB), "gib": float(GIB), "tib": float(TIB)}
_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Z/]*)\s*")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise FitcheckError("bad_option", f"{what} is not a number with a unit: {text!r}", f"write it like {example}")
    return float(match[1]), match[2].lower()


def parse_bytes(text: str) -> int:
    """``"24GiB"``, ``"24g"`` (GiB), ``"24GB"`` (10^9) or plain bytes -> bytes. Raises FitcheckError."""
    number, unit = _split(text, "size", "24GiB")
    if unit not in _BYTE_UNITS:
        raise FitcheckError("bad_option", f"unknown unit in size: {text!r}", "write it like 24GiB or 24GB")
    return int(number * _BYTE_UNITS[unit])


def parse_tokens(text: str) -> int | None:
    """``"8192"``, ``"32k"`` (32 x 1024), ``"1m"`` -> tokens; ``"max"`` -> None. Raises FitcheckError."""
    if text.strip().lower() == "max":
        return None
    number, unit = _split(text, "context", "32k")
    if unit not in ("", "k", "m"):
        raise FitcheckError("bad_option", f"unknown unit in context: {text!r}", "write it like 8192, 32k or max")
    tokens = int(number * {"": 1, "k": KIB, "m": MIB}[unit])
    if tokens < 1:
        raise FitcheckError("bad_option", "context must be at least 1 token", "write it like 8192, 32k or max")
    return tokens


def parse_rate(text: str) -> float:
    """``"400GB/s"``, ``"1.2TB/s"`` or ``"400"`` (GB/s) -> bytes/s. Raises FitcheckError."""
    number, unit = _split(text, "bandwidth", "400GB/s")
    unit = unit.removesuffix("/s").removesuffix("ps") or "gb"
    if unit not in _RATE_UNITS or number <= 0:
        raise FitcheckError("bad_option", f"not a bandwidth: {text!r}", "write it like 400GB/s")
    return number * _RATE_UNITS[unit]


def format_bytes(count: int) -> str:
    """Bytes as people read them: ``10.4 GiB``, ``512 MiB``, ``87 KiB``; three figures, never rounded to nothing."""
    size = abs(count)
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            value = count / unit
            return f"{value:.1f} {name}" if abs(value) < 99.95 else f"{value:.0f} {name}"
    return f"{count} B"


def format_tokens(count: int) -> str:
    """Tokens: ``8k``, ``13k``, ``1M``, ``500``."""
    if count >= 1000 * KIB:
        return f"{count / MIB:.3g}M"
    if count >= KIB:
        return f"{count // KIB}k"
    return str(count)


def format_rate(per_s: float) -> str:
    """Bytes/s in decimal units, as vendors print them: ``504 GB/s``, ``3.35 TB/s``."""
    if per_s >= 1e12:
        return f"{per_s / 1e12:.2f} TB/s"
    return f"{per_s / 1e9:.0f} GB/s" if per_s >= 10e9 else f"{per_s / 1e9:.1f} GB/s"


def format_params(count: int) -> str:
    """Parameters: ``8.0B``, ``671B``, ``124M``."""
    if count >= 1e9:
        return f"{count / 1e9:.1f}B" if count < 99.95e9 else f"{count / 1e9:.0f}B"
    return f"{count / 1e6:.0f}M"


def format_speed(low: float, high: float) -> str:
    """A speed interval in tokens/s: ``31–44``, ``1.2–2.0``; equal ends print once."""
    digits = 0 if high >= 10 else 1
    left, right = f"{low:,.{digits}f}", f"{high:,.{digits}f}"
    return left if left == right else f"{left}–{right}"
