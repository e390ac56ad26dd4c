"""A measurement says what a model that is made for it does; from any texts, and from a matrix."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from collapse_texts import COMMON, OPTIONS, SIZE, embed, judgments, texts, words
from numpy.typing import NDArray

from lcbench.errors import RequestError
from lcbench.measures import MEASURES
from lcbench.measures.collapse import (
    Collapse,
    Embeddings,
    Options,
    Prepared,
    measure,
    measure_matrix,
    prepare,
)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(texts(), words, 120, OPTIONS)


@pytest.fixture(scope="module")
def averages(prepared: Prepared) -> Embeddings:
    return Embeddings(prepared, embed)


@pytest.fixture(scope="module")
def measured(prepared: Prepared, averages: Embeddings) -> Collapse:
    return measure(prepared, averages)


@pytest.fixture(scope="module")
def collapsing(prepared: Prepared, averages: Embeddings) -> Collapse:
    return measure(prepared, Embeddings(prepared, lambda some: embed(some, 0.15)), averages)


def test_a_model_that_only_averages_does_not_collapse(measured: Collapse) -> None:
    assert measured.crowding is not None
    verdict = measured.crowding.verdict
    assert verdict.collapses == "no"
    assert verdict.length.value == pytest.approx(0, abs=0.005)
    assert verdict.rise.value > 0.3
    assert measured.change is None
    for part in measured.shift:
        assert part.agreement == pytest.approx(1, abs=1e-4)


def test_one_that_draws_long_texts_together_does(collapsing: Collapse) -> None:
    assert collapsing.crowding is not None
    assert collapsing.crowding.verdict.collapses == "yes"
    assert collapsing.crowding.verdict.repeated.low > 0.05
    change = collapsing.change
    assert change is not None
    # The sentences alone are as they were.
    assert change.single.value == pytest.approx(0, abs=1e-6)
    assert change.length.low > 0.05
    assert change.rise.value == pytest.approx(
        change.averaging.value + change.content.value + change.length.value, abs=1e-12
    )


def test_a_change_is_the_difference_of_two_verdicts(
    measured: Collapse, collapsing: Collapse
) -> None:
    assert measured.crowding is not None
    assert collapsing.crowding is not None
    assert collapsing.change is not None
    for name in ("joined", "rise", "length", "repeated", "random"):
        difference = (
            getattr(collapsing.crowding.verdict, name).value
            - getattr(measured.crowding.verdict, name).value
        )
        assert getattr(collapsing.change, name).value == pytest.approx(difference, abs=1e-9)


def test_shift_is_that_of_sentences(measured: Collapse) -> None:
    by = {(part.condition, part.sentences): part for part in measured.shift}
    assert set(by) == {(name, count) for name in ("sequential", "random") for count in (2, 8)}
    for (_, count), part in by.items():
        # Theorem 1 for the means, as all texts have nearly the same dispersion.
        expected = 1 - np.sqrt(1 - (count - 1) / count * part.dispersion)
        assert part.dilution == pytest.approx(expected, abs=0.01)
        assert part.local_sum == pytest.approx((count - 1) * part.local)
    longer = measured.causes[0].length
    assert measured.causes[0].outcome == "dilution"
    assert longer is not None
    assert longer.low > 0.5


def test_the_space_is_measured_in_bins_by_length(measured: Collapse) -> None:
    assert measured.by_length is not None
    assert len({one.texts for one in measured.space}) <= 2
    assert all(set(one.measures) == {each.name for each in MEASURES} for one in measured.space)
    assert measured.space[0].measures["isoscore"] is None
    for part, space in zip(measured.by_length.bins, measured.space, strict=True):
        assert (part.shortest, part.longest) == (space.shortest, space.longest)
        assert space.measures["mean_cosine"] == pytest.approx(part.cosine.value)
    # Texts beyond the window are read to its end; no more of them than fill a bin are taken.
    assert measured.space[-1].longest == 120
    assert [one.cut for one in measured.space][:-1] == [0] * (len(measured.space) - 1)
    longer = sum(len(one.split()) > 120 for one in texts())
    assert 0 < measured.space[-1].cut == min(longer, 40)


def test_longer_texts_are_found_more_often_by_a_model_that_collapses(
    measured: Collapse, collapsing: Collapse
) -> None:
    assert collapsing.hubs is not None
    assert collapsing.hubs.by_length is not None
    assert collapsing.hubs.by_length.low > 0.3
    occurrences = [one.occurrences for one in collapsing.space]
    assert occurrences == sorted(occurrences)
    assert np.mean(occurrences) == pytest.approx(10)


def test_each_text_is_embedded_once(prepared: Prepared) -> None:
    asked: list[str] = []

    def recorded(some: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(some)
        return embed(some)

    Embeddings(prepared, recorded)
    assert len(asked) == len(set(asked)) == len(prepared.texts)


def test_what_is_measured_has_the_same_name_only_if_it_is_the_same() -> None:
    some = texts(5)
    assert OPTIONS.digest(some) == OPTIONS.digest(list(some))
    others = [Options(), Options(seed=1), Options(bins=4), Options(passages=99)]
    assert len({one.digest(some) for one in others} | {Options().digest(some[:4])}) == 5


def test_as_many_sentences_as_fit_are_taken() -> None:
    options = Options(passages=60, documents=60)
    # As many as fit, and a quarter of it.
    for window, counts in ((400, [2, 8]), (40, [4]), (16, [2])):
        found = prepare(texts(), words, window, options)
        assert sorted(found.passages.joined["random"]) == counts
    with pytest.raises(RequestError, match="only 0 passages of 2 sentences fit into 9 tokens"):
        prepare(texts(), words, 9, options)


def test_queries_are_embedded_as_queries() -> None:
    prepared = prepare(texts(), words, 120, OPTIONS, judgments())
    asked: dict[str, list[str]] = {"documents": [], "queries": []}

    def of(role: str) -> Any:
        def recorded(some: Sequence[str]) -> NDArray[np.float32]:
            asked[role] += some
            return embed(some)

        return recorded

    found = measure(prepared, Embeddings(prepared, of("documents"), of("queries")))
    assert found.retrieval is not None
    assert found.without_retrieval == ""
    assert prepared.search is not None
    assert sorted(asked["queries"]) == sorted(judgments().queries)
    assert set(prepared.search.documents) <= set(asked["documents"])
    for number, chunks in prepared.search.chunks.items():
        assert set(chunks) <= set(asked["documents"])
        read = prepared.search.documents[number].split()[:120]
        assert " ".join(chunks).split() == read
    # Documents whose first sentence is the query are found better than by chance.
    assert found.retrieval.queries == found.retrieval.documents == 120
    assert found.retrieval.overall.reciprocal_rank.low > 0.2
    without = measure(prepare(texts(), words, 120, OPTIONS), Embeddings(prepared, embed))
    assert without.retrieval is None
    assert without.crowding == found.crowding


def test_too_few_relevant_documents_are_said_and_the_rest_is_measured() -> None:
    some = judgments()
    few = replace(some, queries=some.queries[:29], relevant=some.relevant[:29])
    prepared = prepare(texts(), words, 120, OPTIONS, few)
    found = measure(prepared, Embeddings(prepared, embed))
    assert found.retrieval is None
    assert found.without_retrieval.startswith("its queries have 29 relevant documents")
    assert found.crowding is not None


def test_whole_texts_of_one_length_are_not_compared(prepared: Prepared) -> None:
    alike = Prepared(
        prepared.passages,
        prepared.documents,
        np.full(len(prepared.documents), 7),
        np.zeros(len(prepared.documents), dtype=bool),
        OPTIONS,
    )
    found = measure(alike, Embeddings(alike, embed))
    assert found.by_length is None
    assert found.space == ()
    assert found.notes == (
        f"whole texts are not compared by length: all {len(alike.documents)} texts are of one "
        "length",
    )


def test_fewer_bins_where_there_are_fewer_texts() -> None:
    options = Options(passages=30, counts=(2,), documents=300, resamples=1_000)
    few = prepare(texts(65), words, 120, options)
    found = measure(few, Embeddings(few, embed))
    assert len(found.space) == 2
    assert found.notes[0].startswith("65 whole texts in 2 bins by length instead of 3")


@pytest.mark.parametrize(
    ("some", "message"),
    [
        ([], "there are no texts"),
        (["A text.", "  \n"], "text 1 is empty"),
        (["One sentence only is in this text."] * 50, "no text of 1 has 2 sentences"),
    ],
)
def test_texts_that_cannot_be_measured(some: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prepare(some, words, 100, Options(passages=30))


def test_a_matrix_of_a_model_that_collapses() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(10, 400, 300)
    rows = random.standard_normal((300, SIZE)) / 7 + (lengths / 150)[:, None] * COMMON
    found = measure_matrix(rows, lengths, Options(bins=5, resamples=1_000))
    assert found.crowding is None
    assert found.by_length is not None
    assert found.by_length.beyond_averaging == "yes"
    assert len(found.space) == 5


def matrix(**changes: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.random.default_rng(0).standard_normal((200, 8))
    if changes.get("nan"):
        rows[17, 3] = np.nan
    lengths = np.arange(1.0, 201)
    if changes.get("equal"):
        lengths[:] = 5
    if changes.get("empty"):
        lengths[0] = 0
    if changes.get("short"):
        lengths = lengths[:-1]
    return rows[: changes.get("rows", 200)], lengths[: changes.get("rows", 200)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nan": True}, "not finite, first in row 17"),
        ({"equal": True}, "all texts are of one length, 5"),
        ({"empty": True}, "above 0"),
        ({"short": True}, "one length a row"),
        ({"rows": 100}, "100 texts in 5 bins: at least 2 bins of 30"),
    ],
)
def test_matrices_that_cannot_be_measured(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        measure_matrix(*matrix(**changes), Options(bins=5))


def test_whole_texts_are_those_that_are_searched_as_far_as_there_are_any() -> None:
    """So that they are embedded once; which they are says nothing of their lengths."""
    options = replace(OPTIONS, queries=30, corpus=50, documents=70)
    found = prepare(texts(), words, 400, options, judgments())
    assert found.search is not None
    assert len(found.search.documents) == 50
    assert set(found.search.documents) < set(found.documents)
    assert len(found.documents) == 70
