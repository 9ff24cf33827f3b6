"""Names that people type find the model they mean, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.catalog import Catalog
from fitcheck.catalog.names import MAX_SUGGESTIONS, Names, find
from fitcheck.catalog.spelling import MAX_NAME_LENGTH
from fitcheck.errors import FitcheckError

HERE = Path(__file__).parent


def lines(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


@pytest.fixture(scope="module")
def names(catalog: Catalog) -> Names:
    return Names(catalog.models)


def found(text: str, names: Names) -> str:
    try:
        return names.find(text).id
    except FitcheckError as error:
        return error.code


def test_spellings_find_the_model_that_is_meant(names: Names) -> None:
    pairs = [line.rsplit(" = ", 1) for line in lines("spellings.txt")]
    answers = [(typed, meant, found(typed, names)) for typed, meant in pairs]
    wrong = [answer for answer in answers if answer[2] not in (answer[1], "unknown_model", "ambiguous_model")]
    missed = [answer for answer in answers if answer[2] in ("unknown_model", "ambiguous_model")]
    assert len(pairs) >= 200
    assert not wrong
    assert len(missed) <= 0.03 * len(pairs), missed


@pytest.mark.parametrize("typed", lines("refused.txt"))
def test_a_name_of_none_or_many_is_refused(typed: str, names: Names) -> None:
    assert found(typed, names) in ("unknown_model", "ambiguous_model")


def test_every_model_answers_to_each_of_its_names(catalog: Catalog, names: Names) -> None:
    for model in catalog.models:
        for name in (model.id, model.hub_repo, *model.ollama_tags, *model.aliases, *model.gguf_repos):
            if name is not None:
                assert found(name.upper(), names) == model.id


def test_every_model_answers_to_its_hub_name_in_words(catalog: Catalog, names: Names) -> None:
    for model in catalog.models:
        if model.hub_repo and "base" not in model.abilities:
            assert found(model.hub_repo.rsplit("/", 1)[-1].replace("-", " ") + " Q4_K_M", names) == model.id


def test_an_ambiguous_name_lists_the_candidates(catalog: Catalog) -> None:
    with pytest.raises(FitcheckError) as refused:
        find("llama 3.1", catalog)
    assert refused.value.code == "ambiguous_model"
    for size in ("8b", "70b", "405b"):
        assert f"llama-3.1-{size}" in refused.value.message


def test_a_misspelt_name_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(FitcheckError) as refused:
        find("lama3.1:8b", catalog)
    assert refused.value.code == "unknown_model"
    assert refused.value.hint.startswith("did you mean llama-3.1-8b")
    assert refused.value.hint.count(",") < MAX_SUGGESTIONS


def test_hostile_names_are_refused_and_never_echoed(catalog: Catalog) -> None:
    for text in (
        "\x1b[2J\x1b]0;x\x07qwen",
        "a" * 10**6,
        "9" * 10**5,
        "qwen\u202e3",
        "\0",
        "  ",
        "(" * 5000,
        "8x" * 4000,
    ):
        with pytest.raises(FitcheckError) as refused:
            find(text, catalog)
        assert refused.value.message.isprintable()
        assert len(refused.value.message) < 2 * MAX_NAME_LENGTH
