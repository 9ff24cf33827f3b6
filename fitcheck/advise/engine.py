"""Which engine runs a quantisation: those that load it, and of them the one that runs on the machine."""

from __future__ import annotations

from fitcheck.errors import FitcheckError
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.runtimes import LLAMA_CPP, Runtimes
from fitcheck.types import Backend, Machine, Request

_PLAIN_CACHES = {"f16", "bf16", "f32"}


def loads(runtime: str, quant: str, quantizations: Quantizations, runtimes: Runtimes) -> bool:
    """Whether an engine reads files of a quantisation."""
    if runtimes.row(runtime).memory == LLAMA_CPP:
        return quantizations.is_gguf(quant)
    form = quantizations.formats.get(quant)
    return form is not None and runtime in form.runtimes


def loadable(runtime: str, names: tuple[str, ...], quantizations: Quantizations, runtimes: Runtimes) -> str:
    """The first of some quantisations that an engine reads. Raises FitcheckError ``bad_option`` where it reads none,
    unless no table knows them."""
    found = next((name for name in names if loads(runtime, name, quantizations, runtimes)), None)
    if found is not None:
        return found
    if not any(quantizations.is_gguf(name) or name in quantizations.formats for name in names):
        return names[0]
    able = [row for row in runtimes.runtimes if loads(row, names[0], quantizations, runtimes)]
    raise FitcheckError(
        "bad_option",
        f"{runtime} does not load {names[0]}",
        f"{', '.join(able)} {'do' if len(able) > 1 else 'does'}: --runtime {able[0]}"
        if able
        else "try another --quant",
    )


def runtime_of(quant: str, machine: Machine, quantizations: Quantizations, runtimes: Runtimes) -> str:
    """The engine for a format outside GGUF: of those that load it the first that runs on the machine, else the first.

    Raises FitcheckError ``unknown_runtime`` where only engines load it that fitcheck does not know.
    """
    form = quantizations.formats[quant]
    known = [name for name in form.runtimes if name in runtimes.runtimes]
    if not known:
        who = " and ".join(form.runtimes)
        raise FitcheckError(
            "unknown_runtime", f"{quant} runs with {who}, which fitcheck does not know", "use a GGUF file"
        )
    here = {backend for card in machine.accelerators if card.usable for backend in card.backends} | {Backend.CPU}
    possible = here if form.backends is None else here.intersection(form.backends)
    return next((name for name in known if possible.intersection(runtimes.runtimes[name].backends)), known[0])


def refuse_cache(request: Request, runtimes: Runtimes) -> None:
    """Raise FitcheckError ``bad_option`` for a quantised cache on an engine that has none of llama.cpp's types."""
    types = {request.kv_type_k, request.kv_type_v} - _PLAIN_CACHES
    if request.runtime and types and runtimes.row(request.runtime).memory != LLAMA_CPP:
        message = f"{request.runtime} has no cache of type {min(types)}"
        raise FitcheckError("bad_option", message, "leave --kv out, or use --runtime llama.cpp")
