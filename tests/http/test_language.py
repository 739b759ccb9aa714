"""The language of a page, and its texts."""

from __future__ import annotations

import string

import pytest

from pacsbridge.errors import PacsbridgeError
from pacsbridge.http.language import LANGUAGES, load_texts, preferred_language
from pacsbridge.jobs.job import Kind, Stage, State


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("id", "id"),
        ("id-ID,id;q=0.9,en-US;q=0.8,en;q=0.7", "id"),
        ("en-US,en;q=0.9,id;q=0.8", "en"),
        ("de,fr;q=0.9,id;q=0.1", "id"),
        ("en;q=0.3, ID-id;q=0.4", "id"),
        ("in-ID", "id"),
        ("id;q=0", "en"),
        ("id;q=0,*", "en"),
        ("en;q=0.5,id;q=0.5", "en"),
        ("id;q=0.5,en;q=0.5", "id"),
        ("id;q=nan,en;q=0.1", "en"),
        ("id;q=7,en;q=0.1", "en"),
        ("id;level=1", "id"),
        ("de", "en"),
        (";;,=,q=", "en"),
    ],
)
def test_the_language_is_the_one_that_the_reader_likes_best(header: str, language: str) -> None:
    assert preferred_language(header) == language


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_all_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    expected = {name: placeholders(text) for name, text in load_texts("en").flat().items()}
    assert len(expected) > 100
    for language in LANGUAGES:
        texts = load_texts(language).flat()
        assert {name: placeholders(text) for name, text in texts.items()} == expected
        assert all(text.strip() for text in texts.values())


def codes(error: type[PacsbridgeError]) -> set[str]:
    return {error.code}.union(*(codes(kind) for kind in error.__subclasses__()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_has_words_in_every_language(language: str) -> None:
    errors = load_texts(language).group("errors")
    assert set(errors) == codes(PacsbridgeError) | {"interrupted", "offline", "unknown"}
    assert all(set(words) == {"what", "do"} for words in errors.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_stage_and_end_of_a_job_has_words(language: str) -> None:
    script = load_texts(language).group("script")
    assert set(Kind) == set(script["kind"])
    assert set(Stage) <= set(script["stage"])
    assert {state for state in State if state.final} - {State.DONE} <= set(script["state"])


def test_a_text_that_is_not_there_is_an_error() -> None:
    texts = load_texts("en")
    for name in ("nothing", "form.nothing", "form"):
        with pytest.raises(KeyError):
            texts(name)
