"""`uncertainty.items`: what a cell's score is made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_cells import samples_of
from report_cells import item_rows, write_cell

from lcbench.results.cell_items import CellItems
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.tempscale.policy import Constant
from lcbench.uncertainty.items import (
    NO_ITEMS,
    Sample,
    independent_parts,
    paired,
    same_items,
    score_of,
    why_unknown,
)

PART = ("test", "default")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


def reason_of(files: CellFiles) -> str:
    return why_unknown(CellItems(files))


RELEVANT = [{"id": "d", "grade": 1, "tokens": 3, "rank": 1}]


@pytest.mark.parametrize(
    ("units", "more"),
    [
        ("queries", {"relevant": [RELEVANT, RELEVANT, []]}),
        ("texts", {"predictions": [["a"], ["b"], ["a"]], "gold": ["a", "a", "a"]}),
        ("documents", {"tokens": [4, 5, 6]}),
    ],
)
def test_items_are_called_by_what_they_are(
    results: Results, units: str, more: dict[str, Any]
) -> None:
    samples = samples_of(write_cell(results, "T", 0.5, item_rows([0.2, 0.4, 0.9], **more)))
    assert samples is not None
    assert samples[PART].units == units
    assert samples[PART].values.tolist() == [0.2, 0.4, 0.9]
    assert samples[PART].gold is None


def test_pairs_have_a_gold_standard(results: Results) -> None:
    rows = item_rows([0.9, 0.1, 0.5], gold=["4.5", "0", "5"], tokens_2=[3, 3, 3])
    samples = samples_of(write_cell(results, "STS13", 0.5, rows))
    assert samples is not None
    assert samples[PART].units == "pairs"
    assert samples[PART].gold is not None
    assert samples[PART].gold.tolist() == [4.5, 0, 5]
    assert samples[PART].score == pytest.approx(0.5)


def test_sets_come_from_the_result(results: Results) -> None:
    entry = {PART: {"main_score": 0.4, "v_measures": [0.3, 0.5]}}
    samples = samples_of(write_cell(results, "RedditClustering", entry))
    assert samples is not None
    assert (samples[PART].units, samples[PART].values.tolist()) == ("sets", [0.3, 0.5])


def test_the_order_of_rows_does_not_matter(results: Results) -> None:
    rows = item_rows([n / 20 for n in range(21)], gold=[str(n % 3) for n in range(21)])
    first = samples_of(write_cell(results, "T", 0.5, rows))
    other = samples_of(write_cell(results, "T", 0.5, rows[::-1], policy=Constant(0.8)))
    assert first is not None
    assert other is not None
    assert same_items(first, other)
    assert first[PART].values.tolist() == other[PART].values.tolist() == [n / 20 for n in range(21)]


def test_subsets_that_are_written_in_turns_are_distinguished(results: Results) -> None:
    de, fr = item_rows([0.1, 0.3], subset="de"), item_rows([0.6, 0.8], subset="fr")
    rows = [de[0], fr[0], de[1], fr[1]]
    entries = {("test", "de"): {"main_score": 0.2}, ("test", "fr"): {"main_score": 0.7}}
    samples = samples_of(write_cell(results, "T", entries, rows))
    assert samples is not None
    assert {part[1]: sample.values.tolist() for part, sample in samples.items()} == {
        "de": [0.1, 0.3],
        "fr": [0.6, 0.8],
    }


@pytest.mark.parametrize("what", ["id", "gold", "split of the text"])
def test_items_of_which_one_differs_are_others(results: Results, what: str) -> None:
    rows = item_rows([0.4, 0.6], gold=["ab", "c"])
    first = samples_of(write_cell(results, "T", 0.5, rows))
    if what == "id":
        rows[1]["id"] = "7"
    elif what == "gold":
        rows[1]["gold"] = None
    else:
        # The same characters in a row.
        rows[0]["gold"], rows[1]["gold"] = "a", "bc"
    other = samples_of(write_cell(results, "T", 0.5, rows, policy=Constant(0.8)))
    assert first is not None
    assert other is not None
    assert not same_items(first, other)
    assert paired([first, other, None, first]) == [[0, 3], [1]]


@pytest.mark.parametrize(
    "wrong", ["another score", "an item without a score", "no file", "a subset without items"]
)
def test_what_does_not_give_the_score_is_unknown(results: Results, wrong: str) -> None:
    rows: Any = item_rows([0.4, 0.6])
    score: Any = 0.5
    if wrong == "another score":
        score = 0.5001
    elif wrong == "an item without a score":
        rows[1]["score"] = None
    elif wrong == "no file":
        rows = None
    else:
        score = {PART: {"main_score": 0.5}, ("test", "de"): {"main_score": 0.5}}
    assert samples_of(write_cell(results, "T", score, rows)) is None


def test_a_subset_of_which_no_item_was_kept_is_unknown(results: Results) -> None:
    rows = item_rows([0.4, 0.6]) + item_rows([0.4, 0.6], "dev", "de")
    entries = {PART: {"main_score": 0.5}, ("test", "de"): {"main_score": 0.5}}
    files = write_cell(results, "T", entries, rows)
    assert samples_of(files) is None
    assert reason_of(files) == NO_ITEMS


def test_why_a_cell_is_unknown(results: Results) -> None:
    rows = item_rows([0.4, 0.6])
    assert reason_of(write_cell(results, "T", 0.5, rows)) == ""
    assert reason_of(write_cell(results, "T", 0.6, rows)) == "the items do not give the score"
    assert reason_of(write_cell(results, "U", 0.5)) == NO_ITEMS
    rows[0]["score"] = None
    assert reason_of(write_cell(results, "T", 0.5, rows)) == "some items have no score"


def test_cells_with_other_experiments_are_others() -> None:
    def of(draws: int | None) -> dict[tuple[str, str], Sample]:
        scores = None if draws is None else np.full(draws, 0.5)
        return {PART: Sample(("a",), np.array([0.0, 1.0]), draws=scores)}

    assert paired([of(10), of(None), of(10), of(5), of(None)]) == [[0, 2], [1, 4], [3]]


def test_parts_and_their_weights() -> None:
    def sample(key: str, gold: bool = False) -> Sample:
        return Sample((key,), np.array([0.0, 1.0]), gold=np.array([1.0, 2.0]) if gold else None)

    # Translations in one split, subsets of their own in the other.
    samples = {("test", "de"): sample("a"), ("test", "fr"): sample("a")}
    others = {("dev", "de"): sample("a"), ("dev", "fr"): sample("b")}
    assert independent_parts({**samples, **others}) == [
        ((("test", "de"), ("test", "fr")), 0.5),
        ((("dev", "de"),), 0.25),
        ((("dev", "fr"),), 0.25),
    ]
    # A correlation is no mean: pairs are never averaged over languages.
    pairs = {("test", "de"): sample("a", gold=True), ("test", "fr"): sample("a", gold=True)}
    assert independent_parts(pairs) == [((("test", "de"),), 0.5), ((("test", "fr"),), 0.5)]


def test_the_score_is_the_mean_over_splits_of_that_over_subsets() -> None:
    def sample(key: str, value: float) -> Sample:
        return Sample((key,), np.array([value, value]))

    samples = {("a", "x"): sample("1", 0.2), ("a", "y"): sample("2", 0.4)}
    assert score_of({**samples, ("b", "x"): sample("3", 0.9)}) == pytest.approx(0.6)
