"""What a model is for, and how fast it has to be for that."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.types import Licences, Model, Openness, Request, Speed, Task

#: Tokens/s at the low end of the range below which a model is not offered. People read at about 5 tokens/s.
FLOOR_PER_S = {Task.CHAT: 5.0, Task.CODING: 5.0, Task.VISION: 5.0, Task.REASONING: 10.0, Task.EMBEDDING: 0.0}
#: A model that thinks first writes some hundred tokens before its answer begins: twice the reading speed at least.
THINKING_FLOOR_PER_S = 10.0
#: Above this, more speed is worth less than a better quantisation.
COMFORT_PER_S = 20.0

#: Trained for one thing: never offered for chat.
_SPECIALISTS = frozenset(
    (
        "base",
        "coder",
        "guard",
        "translation",
        "math",
        "medical",
        "ocr",
        "function_calling",
        "user_simulation",
        "agent_world",
    )
)
DEFAULT_CONTEXT_TOKENS = Request().context_tokens or 0
_NEEDED = {Task.REASONING: "reasoning", Task.VISION: "vision"}


def suits(model: Model, task: Task) -> bool:
    """Whether a model is made for a task. Base models are for nobody who asks this; embedding models embed only."""
    abilities = set(model.abilities)
    if task is Task.EMBEDDING:
        return "embedding" in model.modalities
    if "embedding" in model.modalities or "base" in abilities:
        return False
    if task is Task.CODING:
        abilities.discard("coder")
    if abilities & _SPECIALISTS:
        return False
    needed = _NEEDED.get(task)
    return needed is None or needed in abilities or needed in model.modalities


def for_model(model: Model, request: Request) -> Request:
    """The request as it is meant for one model: of an embedding model nobody asks whether it chats."""
    if request.task is Task.CHAT and "embedding" in model.modalities:
        request = replace(request, task=Task.EMBEDDING)
    return for_task(request)


def for_task(request: Request) -> Request:
    """The request as it is meant for its task: an embedding model writes nothing, its speed is that at which it
    reads."""
    if request.task is not Task.EMBEDDING or request.min_decode_per_s is None:
        return request
    least = max(request.min_decode_per_s, request.min_prefill_per_s or 0.0)
    return replace(request, min_decode_per_s=None, min_prefill_per_s=least)


def reads_in_time(speed: Speed | None, request: Request) -> bool:
    """Whether prompts are read as fast as is asked for; a speed that is not known is not fast enough."""
    if request.min_prefill_per_s is None and request.max_first_token_s is None:
        return True
    prefill, first = (speed.prefill_per_s, speed.first_token_s) if speed else (None, None)
    fast = request.min_prefill_per_s is None or (prefill is not None and prefill.low >= request.min_prefill_per_s)
    soon = request.max_first_token_s is None or (first is not None and first.high <= request.max_first_token_s)
    return fast and soon


def takes_context(model: Model, request: Request) -> bool:
    """Whether the context that is asked for is not too long for the model. The default asks for no more than a model
    has: nobody named it."""
    asked, most = request.context_tokens, model.longest_context_tokens
    return asked is None or not most or asked <= max(most, DEFAULT_CONTEXT_TOKENS)


def floor_per_s(model: Model, task: Task) -> float:
    """The least decode speed (low end, tokens/s) at which a model is worth offering for a task."""
    floor = FLOOR_PER_S[task]
    return max(floor, THINKING_FLOOR_PER_S) if floor and "reasoning" in model.abilities else floor


def licensed(model: Model, licences: Licences) -> bool:
    """Whether the licence is one of those asked for; an unknown licence is only good enough for ``any``."""
    if licences is Licences.ANY:
        return True
    if licences is Licences.OPEN:
        return model.openness is Openness.FULLY_OPEN
    return model.openness in (Openness.FULLY_OPEN, Openness.PERMISSIVE)
