"""Temperature policies and their canonical form."""

import pytest

from lcbench.errors import RequestError
from lcbench.tempscale.policy import BASELINE, Constant, parse, parse_all


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (0.8, "0.8"),
        ("0.80", "0.8"),
        (1, "1"),
        (1.0, "1"),
        ("1.000", "1"),
        (10, "10"),
        (100.0, "100"),
        (0.05, "0.05"),
        (1e-5, "0.00001"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_canonical_form(value: object, canonical: str) -> None:
    assert parse(value).canonical == canonical
    assert parse(canonical) == parse(value)


def test_canonical_form_can_name_a_folder() -> None:
    assert not set(":/") & set(parse(123.456).canonical)


@pytest.mark.parametrize(
    "value",
    [0, -1, 0.0, float("nan"), float("inf"), "abc", ".nan", "nan", "-inf", True, None, [0.8]],
)
def test_what_is_no_temperature_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="is not a temperature"):
        parse(value)


def test_the_baseline_comes_first_and_each_policy_once() -> None:
    assert parse_all([0.9, 1.0, "0.90", 0.7]) == (BASELINE, Constant(0.9), Constant(0.7))
    assert parse_all(0.8) == (BASELINE, Constant(0.8))
    assert BASELINE.is_baseline
    assert not Constant(0.8).is_baseline


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(RequestError, match="no temperature at all"):
        parse_all([])
