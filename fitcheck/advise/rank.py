"""What runs on a machine, best first, and the one best answer for each task."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.choose import WITHIN_REACH, Choice, Chooser
from fitcheck.advise.command import is_at_hand
from fitcheck.advise.quality import Qualities
from fitcheck.advise.suit import COMFORT_PER_S, FLOOR_PER_S, licensed, suits, takes_context
from fitcheck.types import Answer, Fit, Model, Quality, Request, Task

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


class Ranked(NamedTuple):
    """A model that passes, in the quantisation that ``Chooser`` takes. ``place`` orders: by worth to a tenth, then
    speed, then name."""

    place: tuple[float, float, str, int]
    worth: float
    quality: Quality
    choice: Choice


class Ranker:
    """Ranks models on the machine and for the request of ``chooser``; keeps what it has ranked. Pure."""

    def __init__(self, models: Iterable[Model], chooser: Chooser, qualities: Qualities) -> None:
        self.request = chooser.request
        self.models = [model for model in models if model.shape is not None and _is_asked_for(model, self.request)]
        self.chooser = chooser
        self.qualities = qualities
        self._ranked: dict[Task, tuple[list[Ranked], Iterator[Ranked]]] = {}

    def suitable(self, task: Task) -> list[Model]:
        """The models that are made for a task."""
        return [model for model in self.models if suits(model, task)]

    def best(self, task: Task, count: int | None) -> list[Ranked]:
        """The first ``count`` (None: all) of the models that are made for a task and pass, best first."""
        if task not in self._ranked:
            self._ranked[task] = [], self._best_first(task)
        found, others = self._ranked[task]
        found += islice(others, None if count is None else max(count - len(found), 0))
        return found[:count]

    def _best_first(self, task: Task) -> Iterator[Ranked]:
        """A model is worth no more than its score, so that one is worked out only when the next best may be among those
        of its score."""
        waiting = [(round(self.qualities.standing(model, task).score, 1), model) for model in self.suitable(task)]
        waiting.sort(key=lambda pair: -pair[0])
        ready: list[Ranked] = []
        for number, (most, model) in enumerate(waiting):
            while ready and -ready[0].place[0] > most:
                yield ready.pop(0)
            if self.chooser.passes(model, task):
                insort(ready, self._placed(model, task, number))
        yield from ready

    def _placed(self, model: Model, task: Task, number: int) -> Ranked:
        choice = self.chooser.choose(model, task)
        quality = self.qualities.of(model, choice.quant, task)
        worth = _worth(quality, choice, task)
        return Ranked((-round(worth, 1), -choice.low_per_s, model.id, number), worth, quality, choice)

    def fit(self, ranked: Ranked) -> Fit:
        """The whole answer for a ranked model."""
        return replace(self.chooser.estimate(ranked.choice, most_context=False), quality=ranked.quality)

    def answer(self, task: Task) -> Answer | None:
        """The one answer for a task: among the best, one that a command can fetch."""
        if task is Task.VISION and self.request.task is not task:  # the image encoder needs memory as well
            return self._seeing().answer(task)
        close = self.best(task, _CLOSE)
        if not close:
            return None
        fit = self.fit(next((ranked for ranked in close if is_at_hand(ranked.choice.model)), close[0]))
        return Answer(task, fit.model, fit.quant, fit.command)

    def _seeing(self) -> Ranker:
        """The same question about images."""
        asked = replace(self.request, task=Task.VISION)
        return Ranker(self.models, Chooser(self.chooser.machine, asked, self.chooser.estimator), self.qualities)


def rank(ranker: Ranker, limit: int | None) -> Ranking:
    """Models of the request's task that fit and are fast enough, best first. ``limit``: how many are worked out (None:
    all); of the others it is only known whether they pass. Pure.
    """
    request = ranker.request
    suitable = ranker.suitable(request.task)
    passing = sum(map(ranker.chooser.passes, suitable))
    shown = ranker.best(request.task, limit)
    # one answer for the task that was asked; after a question about chat, for the other everyday tasks too
    answers = map(ranker.answer, EVERYDAY if request.task is Task.CHAT else (request.task,))
    return Ranking(
        fits=tuple(map(ranker.fit, shown)),
        hidden_fits=passing - len(shown),
        hidden_not=len(suitable) - passing,
        best=tuple(filter(None, answers)),
        notes=tuple(_within_reach(ranker, suitable)),
    )


def _is_asked_for(model: Model, request: Request) -> bool:
    return licensed(model, request.licences) and takes_context(model, request)


def _worth(quality: Quality, choice: Choice, task: Task) -> float:
    """The score, less a share of it for every halving of the speed below what is comfortable."""
    if not FLOOR_PER_S[task] or choice.low_per_s >= COMFORT_PER_S:
        return quality.score
    halvings = math.log2(COMFORT_PER_S / max(choice.low_per_s, 0.01))
    return quality.score * math.exp(halvings * math.log(1 - SHARE_PER_HALVING))


def _within_reach(ranker: Ranker, models: list[Model]) -> Iterator[str]:
    """Better models than the best, that a smaller cache or less context would let in."""
    request, chooser = ranker.request, ranker.chooser
    best = ranker.best(request.task, 1)
    reachable = filter(chooser.is_within_reach, models)
    near = [choice.model for choice in map(chooser.smallest, reachable) if 1 < choice.need_share < WITHIN_REACH]
    for option, smaller in _smaller_requests(request):
        again = Ranker(near, Chooser(chooser.machine, smaller, chooser.estimator), ranker.qualities)
        for found in again.best(request.task, 1):
            if not best or found.worth > best[0].worth:
                yield f"with {option} also: {found.choice.model.id} {found.choice.quant}"


def _smaller_requests(request: Request) -> Iterator[tuple[str, Request]]:
    """The option that takes less memory, and the request with it."""
    if request.kv_type_k == request.kv_type_v == "f16":
        yield "--kv q8_0", replace(request, kv_type_k="q8_0", kv_type_v="q8_0")
    if request.context_tokens is None or request.context_tokens > _LESS_CONTEXT_TOKENS:
        yield "-c 4k", replace(request, context_tokens=_LESS_CONTEXT_TOKENS)
