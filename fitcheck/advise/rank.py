"""What runs on a machine, best first, and the one best answer for each task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.choose import WITHIN_REACH, Choice, Chooser
from fitcheck.advise.command import is_at_hand
from fitcheck.advise.quality import Qualities
from fitcheck.advise.suit import COMFORT_PER_S, FLOOR_PER_S, licensed, suits, takes_context
from fitcheck.estimate.fit import Estimator
from fitcheck.types import Answer, Fit, Machine, Model, Quality, Request, Task

#: The tasks that one scan answers.
EVERYDAY = (Task.CHAT, Task.CODING, Task.REASONING, Task.VISION)


#: Half the speed counts like the loss of a tenth of the score: the larger model must be that much better.
SHARE_PER_HALVING = 0.1
#: Among so many of the best, the one answer is the first that a command can fetch.
_CLOSE = 5
_LESS_CONTEXT_TOKENS = 4096


class Ranking(Struct, frozen=True):
    """``fits`` in order; how many more fit and how many do not; the best answer per task; what less would allow."""

    fits: tuple[Fit, ...]
    hidden_fits: int
    hidden_not: int
    best: tuple[Answer, ...]
    notes: tuple[str, ...] = ()


def rank(
    models: Iterable[Model],
    machine: Machine,
    request: Request,
    estimator: Estimator,
    qualities: Qualities,
    limit: int | None,
) -> Ranking:
    """Models of the request's task that fit and are fast enough, by quality and speed (``_worth``), then name.

    Each model appears once, in the quantisation that ``Chooser`` takes. ``limit``: how many are worked out in full
    (None: all). Pure.
    """
    models = [model for model in models if model.shape is not None and _is_asked_for(model, request)]
    chooser = Chooser(machine, request, estimator)
    suitable = [model for model in models if suits(model, request.task)]
    passing = _by_quality(chooser, suitable, request.task, qualities)
    shown = passing[:limit]
    fits = tuple(replace(chooser.estimate(choice), quality=quality) for quality, choice in shown)
    best = tuple(_best(models, chooser, qualities, request.task, passing))
    notes = tuple(_within_reach(suitable, chooser, qualities, passing))
    return Ranking(fits, len(passing) - len(shown), len(suitable) - len(passing), best, notes)


def _is_asked_for(model: Model, request: Request) -> bool:
    return licensed(model, request.licences) and takes_context(model, request)


def _by_quality(
    chooser: Chooser, models: Iterable[Model], task: Task, qualities: Qualities
) -> list[tuple[Quality, Choice]]:
    """The models that pass, best answers first."""
    choices = filter(None, (chooser.offer(model, task) for model in models))
    judged = [(qualities.of(choice.model, choice.quant, task), choice) for choice in choices]
    return sorted(
        judged, key=lambda pair: (-round(_worth(pair[0], pair[1], task), 1), -pair[1].low_per_s, pair[1].model.id)
    )


def _worth(quality: Quality, choice: Choice, task: Task) -> float:
    """The score, less a share of it for every halving of the speed below what is comfortable."""
    if not FLOOR_PER_S[task] or choice.low_per_s >= COMFORT_PER_S:
        return quality.score
    halvings = math.log2(COMFORT_PER_S / max(choice.low_per_s, 0.01))
    return quality.score * math.exp(halvings * math.log(1 - SHARE_PER_HALVING))


def _best(
    models: list[Model], chooser: Chooser, qualities: Qualities, asked: Task, ranked: list[tuple[Quality, Choice]]
) -> Iterator[Answer]:
    """One answer for the task that was asked; after a question about chat, the other everyday tasks too."""
    for task in EVERYDAY if asked is Task.CHAT else (asked,):
        if task is not asked:
            ranked = _by_quality(chooser, (model for model in models if suits(model, task)), task, qualities)
        if ranked:
            choice = next((choice for _, choice in ranked[:_CLOSE] if is_at_hand(choice.model)), ranked[0][1])
            fit = chooser.estimate(choice)
            yield Answer(task, fit.model, fit.quant, fit.command)


def _within_reach(
    models: list[Model], chooser: Chooser, qualities: Qualities, ranked: list[tuple[Quality, Choice]]
) -> Iterator[str]:
    """Better models than the best, that a smaller cache or less context would let in."""
    best = _worth(ranked[0][0], ranked[0][1], chooser.request.task) if ranked else 0.0
    reachable = filter(chooser.is_within_reach, models)
    near = [choice.model for choice in map(chooser.smallest, reachable) if 1 < choice.need_share < WITHIN_REACH]
    for option, request in _smaller_requests(chooser.request):
        again = Chooser(chooser.machine, request, chooser.estimator)
        found = _by_quality(again, near, request.task, qualities)
        if found and _worth(found[0][0], found[0][1], request.task) > best:
            yield f"with {option} also: {found[0][1].model.id} {found[0][1].quant}"


def _smaller_requests(request: Request) -> Iterator[tuple[str, Request]]:
    """The option that takes less memory, and the request with it."""
    if request.kv_type_k == request.kv_type_v == "f16":
        yield "--kv q8_0", replace(request, kv_type_k="q8_0", kv_type_v="q8_0")
    if request.context_tokens is None or request.context_tokens > _LESS_CONTEXT_TOKENS:
        yield "-c 4k", replace(request, context_tokens=_LESS_CONTEXT_TOKENS)
