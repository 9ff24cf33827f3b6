"""A candidate placement in words: terms with their formula, the engine's flags, reasons why not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fitcheck.estimate.images import EncoderBytes
from fitcheck.estimate.placement import Candidate, Use
from fitcheck.estimate.runtimes import LLAMA_CPP, Runtime
from fitcheck.estimate.served import name_of
from fitcheck.estimate.site import Site
from fitcheck.estimate.subject import Setup
from fitcheck.types import FlashAttention, Model, PlacementKind, Request, Term, Verdict
from fitcheck.units import format_bytes, format_tokens

ENGINE = "llama.cpp 0c1e570"


def terms_of(found: Candidate, quant: str, model: Model, setup: Setup, row: Runtime) -> tuple[Term, ...]:
    """Every part of the need, by device, with formula and source."""
    return tuple(term for use in found.uses for term in _terms(use, quant, model, setup, row) if term.bytes)


def _terms(use: Use, quant: str, model: Model, setup: Setup, row: Runtime) -> Iterator[Term]:
    request, shape = setup.request, model.shape
    parts, name = use.parts, use.name
    engine, form, batch = ENGINE, "mix", request.ubatch_tokens
    if row.memory != LLAMA_CPP:
        engine, form, batch = row.memory, "format", min(row.batch_tokens or setup.context_tokens, setup.context_tokens)
    vocabulary = shape.vocab_size if shape else 0
    kv_types = "/".join(dict.fromkeys((request.kv_type_k, request.kv_type_v)))
    yield Term("weights", name, parts.weights, f"tensors of the {quant} file on this device", f"shape, {quant} {form}")
    yield Term("kv_cache", name, parts.kv, f"cells x K and V elements x {kv_types}, summed over layers", engine)
    yield Term("recurrent_state", name, parts.state, "convolution and state, 32-bit, per sequence", engine)
    yield Term("compute_buffer", name, parts.compute, f"graph of a batch of {batch} tokens", engine)
    yield Term("output_buffer", name, parts.output, f"{vocabulary} logits x 4 B x {request.parallel}", engine)
    yield Term("projector", name, parts.projector, "image encoder (mmproj) in 16 bits", "catalog")
    yield Term("projector_buffer", name, parts.projector_buffer, "graph of the largest image", ENGINE)
    yield Term("runtime_overhead", name, parts.overhead, "driver context and process", "observed")


def flags_of(found: Candidate, setup: Setup, site: Site) -> tuple[str, ...]:
    """The engine's flags that make this placement."""
    if site.row.memory == LLAMA_CPP:
        return tuple(_llama_cpp_flags(found, setup, site))
    if site.row.tensor_parallel:
        group, stages = found.split.group, len(found.uses) // found.split.group
        tensor = ("--tensor-parallel-size", str(group)) if group > 1 else ()
        pipeline = ("--pipeline-parallel-size", str(stages)) if stages > 1 else ()
        return ("--max-model-len", str(setup.context_tokens), *tensor, *pipeline)
    return ()


def _llama_cpp_flags(found: Candidate, setup: Setup, site: Site) -> list[str]:
    split, request = found.split, setup.request
    # without -np the server keeps caches and states of four sequences
    flags = ["-c", str(setup.caches.context_tokens), "-np", str(request.parallel)]
    flags += _device_flags(found, site)
    flags += ["-ngl", str(split.gpu_layers)]
    if split.cpu_expert_layers:
        flags += ["--n-cpu-moe", str(split.cpu_expert_layers)]
    if len(split.ends) > 2:
        counts = [end - start + (split.output == i) for i, (start, end) in enumerate(pairwise(split.ends), start=1)]
        flags += ["-ts", ",".join(map(str, counts))]
    if request.kv_type_k != "f16":
        flags += ["-ctk", request.kv_type_k]
    if request.kv_type_v != "f16":
        flags += ["-ctv", request.kv_type_v]
    if request.flash_attention is not FlashAttention.AUTO:
        flags += ["-fa", request.flash_attention.value]
    if request.ubatch_tokens != 512:
        flags += ["-ub", str(request.ubatch_tokens)]
    if request.swa_full:
        flags.append("--swa-full")
    return flags


def _device_flags(found: Candidate, site: Site) -> list[str]:
    """Which cards to use, where it is not all of them in their own order."""
    used = [use.name for use in found.uses if use.name != "cpu"]
    cards = [f"gpu{card.index}" for card in site.machine.accelerators if card.usable]
    if used == cards:
        return []
    if not used:
        return ["--device", "none"]  # with -ngl 0 alone a card still computes prompts, and needs buffers for that
    backend = name_of(site.backend)
    return ["--device", ",".join(f"{backend}{name.removeprefix('gpu')}" for name in used)]


def own_context_note(site: Site, context_tokens: int, longest: int) -> tuple[str, ...]:
    """Where the runtime by itself gives another context than the one that is counted."""
    by_itself = site.row.default_context(sum(gpu.card.pool.total_bytes for gpu in site.gpus))
    given = min(by_itself, longest or by_itself) if by_itself else context_tokens
    if given == context_tokens:
        return ()
    setting = site.row.context_setting.format(context=context_tokens)
    own = format_tokens(given)
    return (f"{site.runtime} by itself gives {own} of context here; {setting} is what is counted",)


def notes_of(
    found: Candidate, row: Runtime, context_tokens: int, request: Request, encoders: EncoderBytes
) -> tuple[str, ...]:
    """What else is worth knowing: what images may need; vLLM's pages; what the process will show as resident."""
    images = (encoders.note,) if encoders.note else ()
    return images if found.verdict is Verdict.NO else images + _running_notes(found, row, context_tokens, request)


def _running_notes(found: Candidate, row: Runtime, context_tokens: int, request: Request) -> tuple[str, ...]:
    if row.tensor_parallel and found.split.kind is PlacementKind.GPU:
        from fitcheck.estimate.engines import pages_note

        note = pages_note(found, context_tokens, request.parallel)
        return (note,) if note else ()
    if row.memory == LLAMA_CPP and request.mmap and found.split.kind is not PlacementKind.GPU:
        return (_resident_note(found),)
    return ()


def _resident_note(found: Candidate) -> str:
    from fitcheck.estimate.overhead import resident

    shown = resident(found.uses[0], mmap=True)
    low, high = format_bytes(shown.least), format_bytes(shown.most)
    pages = format_bytes(shown.reclaimable)
    return f"the process shows {low} to {high} of RAM; {pages} are pages of the file that the system can take back"


def reasons_of(found: Candidate) -> tuple[str, ...]:
    """What is missing on which device; empty where it fits."""
    if found.verdict is not Verdict.NO:
        return ()
    where = {"cpu": "RAM"}
    return tuple(
        f"memory: needs {format_bytes(use.need)} of {where.get(use.name, use.name)}, has {format_bytes(use.have)}"
        for use in found.uses
        if use.left < 0
    )
