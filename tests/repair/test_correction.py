"""Corrections as they are written, named and refused."""

import json
from typing import Any

import pytest

from lcbench.errors import RequestError
from lcbench.repair.correction import Correction, parse
from lcbench.tasks.reference import identified, texts_of

DOCSTRINGS = identified("docstrings")


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("centre", "centre"),
        ({"centre": None}, "centre"),
        ({"centre": {"bins": 5}}, "centre_bins=5"),
        ({"abtt": 3}, "abtt=3"),
        ({"abtt": {"components": 3}}, "abtt=3"),
        ("whiten", "whiten"),
        ({"whiten": 128}, "whiten=128"),
        ({"whiten": {"dimensions": 8, "on": "docstrings"}}, f"whiten=8,on={DOCSTRINGS}"),
        ({"centre": {"on": DOCSTRINGS}}, f"centre,on={DOCSTRINGS}"),
    ],
)
def test_a_correction_has_one_name_and_can_be_written_again(value: Any, canonical: str) -> None:
    correction = parse(value)
    assert correction.canonical == canonical
    assert not set(canonical) & set(":/")
    assert parse(json.loads(json.dumps(correction.written()))) == correction


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("center", "center is not a correction. Did you mean centre?"),
        ("abtt", "abtt needs the number of components to remove"),
        ({"abtt": 0}, "components is not a whole number of at least 1"),
        ({"abtt": True}, "components is not a whole number of at least 1"),
        ({"centre": 5}, "for means by length, {centre: {bins: 5}}"),
        ({"centre": {"bins": 1}}, "bins is not a whole number of at least 2"),
        ({"whiten": {"bins": 5}}, "whiten takes dimensions and on, not bins"),
        ({"abtt": {"component": 5}}, "Did you mean components?"),
        ({"abtt": 3, "centre": None}, "one correction at a time, abtt or centre"),
        ({"centre": {"on": "docstring"}}, "Did you mean docstrings?"),
        ({"centre": {"on": 3}}, "on takes the name of a set of texts, such as docstrings"),
        ({"centre": {"on": "docstrings-00000000"}}, "are others"),
        (3, "correct=3 is not a correction. Corrections are centre"),
        ({}, "is not a correction. Corrections are centre"),
    ],
)
def test_what_is_no_correction_is_refused_with_what_is(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(value)
    assert message in str(refused.value)


def test_components_must_be_there_to_be_removed_or_kept() -> None:
    Correction("abtt", 31).check(32)
    Correction("whiten", 32).check(32)
    with pytest.raises(RequestError, match=r"would leave nothing of .* 32 dimensions: name fewer"):
        Correction("abtt", 32).check(32)
    with pytest.raises(RequestError, match="32 dimensions have no more components than that"):
        Correction("whiten", 33).check(32)


def test_the_set_of_docstrings_is_of_distinct_texts() -> None:
    texts = texts_of(DOCSTRINGS)
    assert len(texts) == len(set(texts)) == 1000
