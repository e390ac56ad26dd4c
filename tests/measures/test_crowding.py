"""The verdict on a collapse is right of models that are made to collapse, or not to."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from lcbench.errors import RequestError
from lcbench.measures import crowding as module
from lcbench.measures.collapse import Options
from lcbench.measures.crowding import CONDITIONS, Condition, Crowding, averaged_cosine
from lcbench.measures.estimates import Estimate

SIZE = 64
COUNTS = (2, 4, 8, 16)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def made(
    excess: float,
    texts: int = 200,
    cosine: float = 0.2,
    seed: int = 0,
    averages: bool = True,
    compared: int | None = None,
) -> Crowding:
    """Measure a model that pools sentences and then moves texts of 16 by `excess` of cosine.

    One that does not average embeds a text as its first sentence.
    """
    random = np.random.default_rng(seed)
    common = unit(random.standard_normal(SIZE))

    def drawn(*shape: int) -> NDArray[np.float64]:
        rows = unit(random.standard_normal((*shape, SIZE)))
        rows -= (rows @ common)[..., None] * common
        return np.sqrt(cosine) * common + np.sqrt(1 - cosine) * unit(rows)

    first = drawn(texts)
    joined: dict[Condition, dict[int, NDArray[np.float64]]] = {name: {} for name in CONDITIONS}
    means: dict[Condition, dict[int, NDArray[np.float64]]] = {name: {} for name in CONDITIONS}
    for count in COUNTS:
        others = drawn(texts, count - 1)
        # Sentences of one text are alike.
        alike = 0.7 * first[:, None] + 0.3 * others
        rests: dict[Condition, NDArray[np.float64]] = {
            "repeated": np.repeat(first[:, None], count - 1, axis=1),
            "sequential": unit(alike),
            "random": others,
        }
        for name, rest in rests.items():
            means[name][count] = (first + rest.sum(axis=1)) / count
            pooled = unit(means[name][count]) if averages else first
            # Towards the common direction, so that the mean cosine c becomes c + the excess.
            along = pooled @ common
            now = float(np.mean(along) ** 2)
            target = np.sqrt(min(now + excess * np.log2(count) / 4, 0.99))
            across = unit(pooled - along[:, None] * common)
            moved = np.clip(along + target - np.mean(along), -1, 1)[:, None]
            joined[name][count] = moved * common + np.sqrt(1 - moved**2) * across
    for by_condition in (joined, means):
        for name in ("repeated", "random"):
            by_condition[name] = {k: rows[:compared] for k, rows in by_condition[name].items()}
    return module.crowding(first, joined, means)


@pytest.mark.parametrize(
    ("count", "expected"), [(2, 0.530), (4, 0.692), (8, 0.818), (16, 0.900), (32, 0.947)]
)
def test_averaging_alone_makes_cosines_rise(count: int, expected: float) -> None:
    assert averaged_cosine(0.36, count) == pytest.approx(expected, abs=0.001)
    random = np.random.default_rng(0)
    rows = unit(random.standard_normal((300, count, 512)))
    rows = np.sqrt(0.36) * np.eye(512)[0] + np.sqrt(0.64) * rows
    means = unit(rows.mean(axis=1))
    total = means.sum(axis=0)
    assert (total @ total - 300) / (300 * 299) == pytest.approx(expected, abs=0.01)


def test_averaging_of_one_is_the_cosine_itself() -> None:
    assert averaged_cosine(0.3, 1) == pytest.approx(0.3)
    assert averaged_cosine(0.0, 50) == 0
    assert averaged_cosine(1.0, 50) == 1


def test_what_the_rise_is_made_of_adds_up() -> None:
    verdict = made(0.05).verdict
    parts = verdict.averaging.value + verdict.content.value + verdict.length.value
    assert parts == pytest.approx(verdict.rise.value, abs=1e-12)
    assert verdict.joined.value - verdict.single.value == pytest.approx(verdict.rise.value)
    assert verdict.length.value == pytest.approx(0.05, abs=0.02)


def test_the_interval_is_that_of_a_bootstrap_over_texts() -> None:
    random = np.random.default_rng(5)
    rows = unit(random.standard_normal((80, 16)) + 0.5)
    joined = {name: {2: rows} for name in CONDITIONS}
    single = module.crowding(rows, joined, joined).verdict.single

    def mean(members: NDArray[np.int64]) -> float:
        cosines = rows[members] @ rows[members].T
        return float(cosines[members[:, None] != members].mean())

    assert single.value == pytest.approx(mean(np.arange(80)), abs=1e-12)
    drawn = [mean(random.integers(0, 80, 80)) for _ in range(2_000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    width = high - low
    assert single.low == pytest.approx(low, abs=0.1 * width)
    assert single.high == pytest.approx(high, abs=0.1 * width)


def test_a_repeated_sentence_is_no_crowding_where_the_model_averages() -> None:
    verdict = made(0.0).verdict
    assert verdict.repeated.value == pytest.approx(0, abs=1e-9)
    assert verdict.averaging.value > 0.3
    # Sentences that are alike gain less by averaging.
    assert verdict.content.value < -0.2


def test_averages_of_random_sentences_are_those_of_independent_ones() -> None:
    measured = made(0.0)
    for pooled, independent in zip(measured.averaging["random"], measured.independent, strict=True):
        assert pooled.value == pytest.approx(independent.value, abs=0.02)
    assert measured.averaging["repeated"] == (measured.verdict.single,) * 5


def test_fewer_texts_may_be_repeated_or_random() -> None:
    whole, some = made(0.05, texts=60), made(0.05, texts=60, compared=30)
    for name in ("collapses", "single", "joined", "rise", "averaging", "content", "length"):
        assert getattr(some.verdict, name) == getattr(whole.verdict, name)
    # Of these texts alone, with their own first sentences.
    alone = some.cosines["repeated"][0]
    assert alone == some.averaging["random"][0] != some.cosines["sequential"][0]
    assert some.verdict.repeated.value == pytest.approx(whole.verdict.repeated.value, abs=0.02)
    before, after = (one.verdict.random for one in (whole, some))
    assert after.high - after.low >= before.high - before.low


def _answers(excess: float, seeds: int, averages: bool = True) -> Counter[str]:
    """Return the verdicts at the default sizes."""
    sizes = {"texts": Options().passages, "compared": Options().compared}
    return Counter(
        made(excess, seed=seed, averages=averages, **sizes).verdict.collapses
        for seed in range(seeds)
    )


@pytest.mark.parametrize(
    ("excess", "averages", "right"),
    [(0.05, True, "yes"), (0.0, True, "no"), (0.0, False, "no")],
    ids=["collapses", "only averages", "does neither"],
)
@pytest.mark.parametrize("seeds", [10, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_the_verdict_is_right(excess: float, averages: bool, right: str, seeds: int) -> None:
    assert _answers(excess, seeds, averages)[right] >= 0.95 * seeds


@pytest.mark.parametrize("seeds", [10, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_small_excess_is_no_collapse(seeds: int) -> None:
    assert _answers(0.01, seeds)["yes"] <= 0.05 * seeds


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.05, 0.01, 0.09), "yes"),
        (Estimate(0.05, -0.01, 0.09), "cannot be told"),
        (Estimate(0.015, 0.005, 0.025), "cannot be told"),
        (Estimate(0.01, 0.005, 0.015), "no"),
        (Estimate(-0.05, -0.09, -0.01), "no"),
    ],
)
def test_an_answer(estimate: Estimate, expected: str) -> None:
    assert module.answer(estimate) == expected


def test_the_verdict_in_words() -> None:
    estimate = Estimate(0.25, 0.2, 0.3)
    verdict = module.Verdict(
        collapses="yes",
        sentences=16,
        single=estimate,
        joined=Estimate(0.4, 0.35, 0.45),
        rise=Estimate(0.15, 0.1, 0.2),
        averaging=Estimate(0.12, 0.1, 0.14),
        content=Estimate(-0.04, -0.05, -0.03),
        length=Estimate(0.07, 0.052, 0.09),
        repeated=Estimate(0.05, 0.03, 0.07),
        random=Estimate(-0.01, -0.03, 0.01),
    )
    assert str(verdict) == (
        "Collapses: yes. From 1 to 16 sentences the mean cosine rises from 0.25 to 0.40: averaging "
        "of independent sentences explains +0.12, that sentences of a text are alike -0.04, length "
        "itself +0.070 (+0.052 to +0.090). Beyond averaging, a repeated sentence adds +0.050 "
        "(+0.030 to +0.070), sentences at random -0.010 (-0.030 to +0.010)."
    )


def test_cosines_by_length_of_texts_that_only_average() -> None:
    random = np.random.default_rng(0)
    counts = np.repeat([1, 2, 4, 8], 100)
    rows = np.array(
        [
            unit(0.6 * np.eye(SIZE)[0] + 0.8 * unit(random.standard_normal((k, SIZE)))).mean(axis=0)
            for k in counts
        ]
    )
    found = module.cosine_by_length(rows, counts, bins=4)
    assert [one.texts for one in found.bins] == [100] * 4
    assert [(one.shortest, one.longest) for one in found.bins] == [(k, k) for k in (1, 2, 4, 8)]
    assert found.bins[0].excess == Estimate(0, 0, 0)
    for one in found.bins[1:]:
        assert one.excess.low < 0 < one.excess.high
    assert found.change.low > 0.3
    assert found.beyond_averaging == "no"


def test_cosines_by_length_of_texts_that_collapse() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(10, 400, 500)
    rows = unit(random.standard_normal((500, SIZE))) + (lengths / 100)[:, None] * np.eye(SIZE)[0]
    found = module.cosine_by_length(rows, lengths)
    assert found.beyond_averaging == "yes"
    assert [one.texts for one in found.bins] == [100] * 5
    assert [one.cosine.value for one in found.bins] == sorted(
        one.cosine.value for one in found.bins
    )


@pytest.mark.parametrize(
    ("texts", "lengths", "bins", "message"),
    [
        (90, np.full(90, 7), 3, "all texts are of one length, 7"),
        (90, np.arange(1, 90), 3, r"lengths has the shape \(89,\), and embeddings 90 rows"),
        (90, np.arange(90), 3, "above 0"),
        (89, np.arange(1, 90), 3, "89 texts in 3 bins: at least 2 bins of 30"),
        (90, np.arange(1, 91), 1, "at least 2 bins"),
    ],
)
def test_lengths_that_cannot_be_compared(
    texts: int, lengths: NDArray[np.int64], bins: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        module.cosine_by_length(np.random.default_rng(0).random((texts, 4)), lengths, bins)


def test_texts_that_do_not_match() -> None:
    rows = np.random.default_rng(0).random((40, 4))
    whole: dict[Condition, dict[int, NDArray[np.float64]]] = {
        name: {2: rows, 4: rows} for name in CONDITIONS
    }
    short = whole | {"random": {2: rows, 4: rows[:-1]}}
    with pytest.raises(RequestError, match=r"joined\['random'\] has texts of \[\] sentences"):
        module.crowding(rows, {name: whole[name] for name in CONDITIONS[:2]}, whole)
    with pytest.raises(RequestError, match=r"joined\['random'\]\[4\] has the shape \(39, 4\)"):
        module.crowding(rows, short, whole)
    with pytest.raises(RequestError, match=r"pooled\['random'\]\[4\] has the shape \(39, 4\)"):
        module.crowding(rows, whole, short)
    with pytest.raises(RequestError, match=r"pooled\['sequential'\] has texts of \[2\] sentences"):
        module.crowding(rows, whole, whole | {"sequential": {2: rows}})
    with pytest.raises(RequestError, match="20 rows: at least 30"):
        module.crowding(rows[:20], whole, whole)
    with pytest.raises(RequestError, match="needs texts of 2 sentences or more"):
        module.crowding(rows, {name: {1: rows, 2: rows} for name in CONDITIONS}, whole)
