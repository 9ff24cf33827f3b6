"""What runs on a machine, best first, and the one best answer for each task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.choose import Choice, Chooser
from fitcheck.advise.quality import Qualities
from fitcheck.advise.suit import licensed, suits
from fitcheck.estimate.fit import Estimator
from fitcheck.types import Answer, Fit, Machine, Model, Quality, Request, Task

#: The tasks that one scan answers.
EVERYDAY = (Task.CHAT, Task.CODING, Task.REASONING, Task.VISION)


#: How much more memory than there is a model may need to be worth a second look with less context.
_WITHIN_REACH = 1.3
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
    """Models of the request's task that fit and are fast enough, by quality, then speed, then name.

    Each model appears once, in the quantisation that ``Chooser`` takes. ``limit``: how many are worked out in full
    (None: all). Pure.
    """
    models = [model for model in models if model.shape is not None and licensed(model, request.licences)]
    chooser = Chooser(machine, request, estimator)
    choices = [chooser.choose(model) for model in models if suits(model, request.task)]
    passing = _by_quality((choice for choice in choices if choice.passes), request.task, qualities)
    shown = passing[:limit]
    fits = tuple(_judged(chooser, choice, quality) for quality, choice in shown)
    best = tuple(_best(models, chooser, qualities, request.task, passing))
    notes = tuple(_within_reach(choices, chooser, qualities, passing))
    return Ranking(fits, len(passing) - len(shown), len(choices) - len(passing), best, notes)


def _by_quality(choices: Iterable[Choice], task: Task, qualities: Qualities) -> list[tuple[Quality, Choice]]:
    judged = [(qualities.of(choice.model, choice.quant, task), choice) for choice in choices]
    return sorted(judged, key=lambda pair: (-round(pair[0].score, 1), -pair[1].low_per_s, pair[1].model.id))


def _judged(chooser: Chooser, choice: Choice, quality: Quality) -> Fit:
    return replace(chooser.estimate(choice), quality=quality)


def _best(
    models: list[Model], chooser: Chooser, qualities: Qualities, asked: Task, ranked: list[tuple[Quality, Choice]]
) -> Iterator[Answer]:
    """One answer for the task that was asked; after a question about chat, the other everyday tasks too."""
    for task in EVERYDAY if asked is Task.CHAT else (asked,):
        if task is not asked:
            choices = (chooser.choose(model, task) for model in models if suits(model, task))
            ranked = _by_quality((choice for choice in choices if choice.passes), task, qualities)
        if ranked:
            choice = ranked[0][1]
            fit = chooser.estimate(choice)
            yield Answer(task, fit.model, fit.quant, fit.command)


def _within_reach(
    choices: list[Choice], chooser: Chooser, qualities: Qualities, ranked: list[tuple[Quality, Choice]]
) -> Iterator[str]:
    """Better models than the best, that a smaller cache or less context would let in."""
    request = chooser.request
    lowest = ranked[0][0].score if ranked else 0.0
    near = [choice for choice in choices if not choice.fits and choice.need_share < _WITHIN_REACH]
    better = [pair[1] for pair in _by_quality(near, request.task, qualities) if pair[0].score > lowest]
    less = {}
    if request.kv_type_k == request.kv_type_v == "f16":
        less["--kv q8_0"] = replace(request, kv_type_k="q8_0", kv_type_v="q8_0")
    if (request.context_tokens or _LESS_CONTEXT_TOKENS + 1) > _LESS_CONTEXT_TOKENS:
        less["-c 4k"] = replace(request, context_tokens=_LESS_CONTEXT_TOKENS)
    for option, smaller in less.items():
        again = Chooser(chooser.machine, smaller, chooser.estimator)
        found = next((choice for choice in map(again.choose, (near.model for near in better)) if choice.passes), None)
        if found:
            yield f"with {option} also: {found.model.id} {found.quant}"
