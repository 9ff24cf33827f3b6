"""Memory along the context, and what a licence lets one do."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.estimate.fit import Estimator
from fitcheck.types import ContextPoint, Fit, Machine, Model, Openness, Request, Verdict

_CURVE = tuple(1024 * 2**power for power in range(1, 11))  # 2k … 1M

_PLAIN_WORDS = {
    Openness.FULLY_OPEN: "use, change and sell freely; training data and code are published",
    Openness.PERMISSIVE: "use, change and sell freely",
    Openness.RESTRICTED: "free weights with conditions of use: read the licence before commercial use",
    Openness.UNKNOWN: "terms unknown: read the model's page",
}


def context_curve(
    model: Model, fit: Fit, machine: Machine, request: Request, estimator: Estimator
) -> tuple[ContextPoint, ...]:
    """Need of the fit's quantisation, and speed once the context is full, at contexts from 2k up to the model's own
    maximum, the asked one among them. Pure."""
    most = model.longest_context_tokens or fit.context_tokens
    lengths = sorted({length for length in _CURVE if length <= most} | {fit.context_tokens})
    points = []
    for length in lengths:
        full = max(1, length - request.answer_tokens // 2)
        at_length = replace(request, context_tokens=length, quant=fit.quant, prompt_tokens=full)
        quick = estimator.quick(model, fit.quant, machine, at_length, planned=True)
        points.append(
            ContextPoint(
                length,
                quick.need_bytes,
                quick.have_bytes,
                quick.verdict is not Verdict.NO,
                request.kv_type_k,
                quick.decode_per_s,
                quick.kind,
            )
        )
    return tuple(points)


def licence_in_plain_words(model: Model) -> str:
    """``Apache-2.0: use, change and sell freely``; says when the weights need an account."""
    gated = "; download needs an account on the Hub and consent" if model.gated else ""
    return f"{model.licence or 'licence not stated'}: {_PLAIN_WORDS[model.openness]}{gated}"
