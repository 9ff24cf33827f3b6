"""What people type -> a model of the catalog.

Two names are the same when their words and numbers are (see ``spelling``); order, separators, the publisher and the
quantisation do not matter. The rules below go from strict to loose, and the first that finds anything decides: one
model is the answer, several are an error that lists them. Nothing is guessed from letters that differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import combinations

from msgspec import Struct

from fitcheck.catalog import Catalog
from fitcheck.catalog.spelling import DETAIL, SIZE, Spelling, spell
from fitcheck.errors import FitcheckError
from fitcheck.types import Model

MAX_SUGGESTIONS = 5
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LIKE = 0.6  # how much of the letters two names must share for one to be suggested for the other

_ANSWERS_AT_ONCE = frozenset({"instruct", "chat", "it"})
_ANSWERS_OTHERWISE = frozenset({"thinking", "think", "reasoning", "base"})


class Entry(Struct, frozen=True):
    """A model with one of its names, and the words of its publisher that this name does not hold.

    ``own``: the name is the model's own, which may be cut short; tags and aliases are taken whole.
    """

    model: Model
    spelling: Spelling
    publisher: frozenset[str]
    own: bool


def names_of(model: Model) -> Iterator[str]:
    """Every name a model goes by."""
    yield model.id
    yield model.name
    yield from model.ollama_tags
    yield from model.aliases
    yield from (repo for repo in (model.hub_repo, *model.gguf_repos) if repo)


def find(text: str, catalog: Catalog) -> Model:
    """The model that ``text`` names. Raises FitcheckError ``unknown_model`` or ``ambiguous_model`` with suggestions."""
    return _names(catalog.models).find(text)


_last: list[Names] = []  # those of the last catalog, for the next name


def _names(models: tuple[Model, ...]) -> Names:
    if not _last or _last[0].models is not models:
        _last[:] = [Names(models)]
    return _last[0]


def library(text: str, models: Iterable[Model]) -> list[tuple[str, Model]]:
    """The tags that a name without one has in Ollama's library (``llama3.1`` -> ``llama3.1:8b``, …), with their models:
    first ``latest``, which is what Ollama takes; without it all are alike."""
    name = f"{text.strip().casefold()}:"
    tags = [(tag, model) for model in models for tag in model.ollama_tags if tag.startswith(name)]
    return sorted(tags, key=lambda pair: pair[0] != f"{name}latest")


class Names:
    """The names of some models, ready to look many up."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(models)
        self._exact: dict[str, list[Model]] = {}
        for model in self.models:
            for name in names_of(model):
                self._exact.setdefault(name.casefold(), []).append(model)

    @cached_property
    def _entries(self) -> dict[str, list[Entry]]:
        """Every name as it is read, by the letters of its words in alphabetical order: all that may be the same."""
        entries: dict[str, list[Entry]] = {}
        for model in self.models:
            for entry in _entries(model):
                entries.setdefault(_letters(entry.spelling), []).append(entry)
        return entries

    @cached_property
    def _publishers(self) -> frozenset[str]:
        return frozenset(word for entries in self._entries.values() for entry in entries for word in entry.publisher)

    def find(self, text: str) -> Model:
        """The model that ``text`` names. Raises FitcheckError ``unknown_model`` or ``ambiguous_model``."""
        named = _unique(self._exact.get(text.strip().casefold(), ()))
        if len(named) == 1:
            return named[0]
        asked = spell(text.rsplit("/", 1)[-1])
        for reading in _readings(asked):
            entries = self._alike(reading)
            for rule in _RULES:
                found = _best([entry for entry in entries if rule(reading, entry)], reading, rule)
                if len(found) == 1:
                    return found[0]
                if found:
                    raise _ambiguous(text, found)
        raise _unknown(text, asked, self.models)

    def _alike(self, asked: Spelling) -> list[Entry]:
        """Names with the same letters, with and without the publishers that ``asked`` may hold."""
        publishers = [word for word in asked.words if word in self._publishers][:4]
        left_out = (words for size in range(len(publishers) + 1) for words in combinations(publishers, size))
        letters = dict.fromkeys(_letters(asked.without(words)) for words in left_out)
        return [entry for key in letters for entry in self._entries.get(key, ())]


def _letters(spelling: Spelling) -> str:
    return "".join(sorted("".join(spelling.plain().words)))


def _entries(model: Model) -> Iterator[Entry]:
    publisher = {*spell(model.developer).words, *spell((model.hub_repo or "").split("/", 1)[0]).words}
    own = _own_spellings(model)
    for spelling in own:
        yield Entry(model, spelling, frozenset(publisher.difference(spelling.words)), True)
    for name in (*model.ollama_tags, *model.aliases):
        spelling = spell(name)
        if spelling not in own:
            yield Entry(model, spelling, frozenset(publisher.difference(spelling.words)), False)


def _own_spellings(model: Model) -> list[Spelling]:
    """Id, name and Hub name as words and numbers; the names of GGUF repositories add nothing to them."""
    names = (model.id, model.name, (model.hub_repo or model.id).rsplit("/", 1)[-1])
    return [spell(name) for name in dict.fromkeys(name.casefold() for name in names)]


def _readings(asked: Spelling) -> Iterator[Spelling]:
    """The name as written, then with version numbers whose point was left out or written as a dash."""
    yield asked
    numbers = list(asked.numbers)
    for at in range(len(numbers) - 1):
        if numbers[at].isdigit() and len(numbers[at]) <= 2 and re.fullmatch(r"\d[bm]?", numbers[at + 1]):
            yield Spelling(asked.words, (*numbers[:at], f"{numbers[at]}.{numbers[at + 1]}", *numbers[at + 2 :]))
    if numbers and re.fullmatch(r"\d\d", numbers[0]):
        yield Spelling(asked.words, (f"{numbers[0][0]}.{numbers[0][1]}", *numbers[1:]))


def _same_words(one: Spelling, other: Spelling) -> bool:
    return "".join(one.words) == "".join(other.words) or sorted(one.words) == sorted(other.words)


def _same(asked: Spelling, entry: Entry) -> bool:
    """The same words and numbers."""
    mine, other = asked.without(entry.publisher), entry.spelling
    return sorted(mine.numbers) == sorted(other.numbers) and _same_words(mine, other)


def _same_but_for_use(asked: Spelling, entry: Entry) -> bool:
    """The same, whether or not one of them says instruct or chat."""
    mine, other = asked.without(entry.publisher).plain(), entry.spelling.plain()
    return _fits_use(asked, entry) and sorted(mine.numbers) == sorted(other.numbers) and _same_words(mine, other)


def _fits_use(asked: Spelling, entry: Entry) -> bool:
    """Who says instruct does not mean a base model, nor one that thinks first."""
    says_so = not _ANSWERS_AT_ONCE.isdisjoint(asked.words)
    return not says_so or _ANSWERS_OTHERWISE.isdisjoint(spell(entry.model.id).words)


def _same_but_for_units(asked: Spelling, entry: Entry) -> bool:
    """The same, with a size whose b was left out: ``gpt-oss 20``."""
    mine, other = asked.without(entry.publisher).plain(), entry.spelling.plain()
    if len(mine.numbers) != len(other.numbers) or not _same_words(mine, other) or not _fits_use(asked, entry):
        return False
    pairs = zip(mine.numbers, other.numbers, strict=True)
    return all(one == two or (one.isdecimal() and two in (one + "b", one + "m")) for one, two in pairs)


def _named_in_part(asked: Spelling, entry: Entry) -> bool:
    """The same words, with numbers left out that do not tell models apart: active size, revision, or the only size."""
    return entry.own and _part_of(asked.without(entry.publisher).plain(), entry.spelling.plain())


def _named_in_part_for_use(asked: Spelling, entry: Entry) -> bool:
    """The same, where both say instruct or chat."""
    says_so = not _ANSWERS_AT_ONCE.isdisjoint(asked.words)
    return says_so and entry.own and _part_of(asked.without(entry.publisher), entry.spelling)


def _part_of(mine: Spelling, other: Spelling) -> bool:
    if not _same_words(mine, other) or Counter(mine.numbers) - Counter(other.numbers):
        return False
    return all(DETAIL.fullmatch(number) or SIZE.fullmatch(number) for number in _left_out(mine, other))


_RULES: tuple[Callable[[Spelling, Entry], bool], ...] = (
    _same,
    _same_but_for_use,
    _same_but_for_units,
    _named_in_part_for_use,
    _named_in_part,
)


def _best(entries: list[Entry], asked: Spelling, rule: Callable[[Spelling, Entry], bool]) -> list[Model]:
    """The models that are meant where a rule finds these names: a model's own name goes before a tag of another."""
    own = _without_bases(_unique(entry.model for entry in entries if entry.own))
    if len(own) == 1:
        return own
    found = _without_bases(_unique(entry.model for entry in entries))
    return _least_left_out(asked, found) if rule in (_named_in_part, _named_in_part_for_use) else found


def _left_out(asked: Spelling, other: Spelling) -> list[str]:
    return list((Counter(other.numbers) - Counter(asked.numbers)).elements())


def _least_left_out(asked: Spelling, models: list[Model]) -> list[Model]:
    """Of models named in part, the one that the name says almost in full, if it gives a size and only one is so near.

    ``qwen3 235b`` is Qwen3-235B-A22B and not one of its later revisions; ``qwen3`` stays ambiguous.
    """
    if len(models) < 2 or not any(SIZE.fullmatch(number) for number in asked.numbers):
        return models
    gaps = [(_gap(asked, model), model) for model in models]
    least = min(gap for gap, _ in gaps)
    best = [model for gap, model in gaps if gap == least]
    return best if len(best) == 1 else models


def _gap(asked: Spelling, model: Model) -> int:
    """How many numbers of the model's nearest name are left out."""
    spellings = [
        spelling for spelling in _own_spellings(model) if not Counter(asked.numbers) - Counter(spelling.numbers)
    ]
    return min((len(_left_out(asked, spelling)) for spelling in spellings), default=len(asked.numbers))


def _without_bases(models: list[Model]) -> list[Model]:
    """Where a base model and its instructed sibling both answer to a name, the sibling is meant."""
    instructed = {model.params for model in models if "base" not in model.abilities}
    return [model for model in models if "base" not in model.abilities or model.params not in instructed]


def _unique(models: Iterable[Model]) -> list[Model]:
    return list({model.id: model for model in models}.values())


def _shown(text: str) -> str:
    """A name as it may be printed: one line, no control characters, not longer than a line."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[:80])
    return clean + ("…" if len(text) > 80 else "")


def _ambiguous(text: str, models: list[Model]) -> FitcheckError:
    ids = sorted((model.id for model in models), key=lambda name: (len(name), name))
    more = f" and {len(ids) - MAX_SUGGESTIONS} more" if len(ids) > MAX_SUGGESTIONS else ""
    listed = ", ".join(ids[:MAX_SUGGESTIONS])
    message = f"{_shown(text)!r} is more than one model: {listed}{more}"
    return FitcheckError("ambiguous_model", message, f"name one of them, like {ids[0]}")


def _unknown(text: str, asked: Spelling, models: Iterable[Model]) -> FitcheckError:
    hint = "list the known models with: fitcheck catalog list"
    close = suggestions(asked, models)
    if close:
        hint = f"did you mean {' or '.join([', '.join(close[:-1]), close[-1]] if len(close) > 1 else close)}?"
    if _HUB_ID.fullmatch(text.strip()):
        hint += f"; hf:{_shown(text.strip())} reads it from the Hub"
    return FitcheckError("unknown_model", f"unknown model {_shown(text)!r}", hint)


def suggestions(asked: Spelling, models: Iterable[Model]) -> list[str]:
    """Ids of the models whose names look most like ``asked``, best first; none when nothing does."""
    from difflib import SequenceMatcher

    asked = asked.plain()
    glued, words, numbers = "".join(asked.words), set(asked.words), Counter(asked.numbers)
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(glued)
    scored = []
    for model in models:
        spelling = spell(model.id).plain()
        matcher.set_seq1("".join(spelling.words))
        likeness = matcher.ratio() if matcher.quick_ratio() >= _LIKE else 0.0
        if likeness >= _LIKE or (spelling.words and words.issuperset(spelling.words)):
            shared = sum((numbers & Counter(spelling.numbers)).values())
            scored.append((-max(likeness, _LIKE) - 0.3 * shared, len(model.id), model.id))
    return [name for _, _, name in sorted(scored)[:MAX_SUGGESTIONS]]
