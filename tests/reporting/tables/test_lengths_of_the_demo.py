"""What the tables by length say of the recorded demo, recomputed from its items.

The recomputation is numpy and pandas on the files of items; of the package it takes only where they
lie. Numbers with two decimals are those of an independent audit, which had the lengths in tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.by_length import buckets_of
from lcbench.reporting.tables.interaction import gains_by_length
from lcbench.reporting.tables.items_by_length import Items, Place, items_of_tables
from lcbench.reporting.tables.paper_lengths import accuracy_of_intervals, ndcg_of_queries
from lcbench.reporting.tables.ranks import ranks_of
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of

TAUS = ("0.9", "0.8", "0.7")


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    cells = Path(__file__).parents[3] / "results" / "demo" / "cells"
    return Results(cells).read(partial(column_of, suites=()), pytest.fail)


@pytest.fixture(scope="module")
def found(scores: pd.DataFrame) -> dict[str, tuple[Place, Items]]:
    """Return the items of each task, their lengths in tokens."""
    return {
        place.task: (place, by_tokens(items))
        for place, items in items_of_tables(build_tables(scores), scores)
    }


def by_tokens(items: Items) -> Items:
    relevant = items.relevant and replace(items.relevant, characters=None)
    return replace(items, characters={}, relevant=relevant)


def recorded(scores: pd.DataFrame, task: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield τ and the items of a task, sorted by id."""
    for row in scores[scores["task"] == task].drop_duplicates("policy").itertuples():
        yield str(row.policy), pd.read_parquet(row.files.items).sort_values("id", ignore_index=True)


def documents(scores: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """Return by τ the items with their one document's tokens and rank."""
    items = {}
    for tau, rows in recorded(scores, task):
        assert rows["relevant"].map(len).eq(1).all()
        items[tau] = rows.assign(
            document_tokens=rows["relevant"].map(lambda one: one[0]["tokens"]),
            rank=rows["relevant"].map(lambda one: one[0]["rank"]),
        )
    return items


def test_by_length_a_classification_counts_its_training_draws(
    scores: pd.DataFrame, found: Mapping[str, tuple[Place, Items]]
) -> None:
    task = "DocstringLibraryClassification"
    right = {}
    for tau, rows in recorded(scores, task):
        right[tau] = np.stack(rows["predictions"]) == rows["gold"].to_numpy()[:, None]
        tokens = rows["tokens"].to_numpy()
    (buckets,) = buckets_of(*found[task])
    assert [bucket.label for bucket in buckets.buckets[-2:]] == ["257–511", "≥ 512"]
    for place, bucket in enumerate(buckets.buckets):
        inside = (tokens >= bucket.low) & (tokens <= (bucket.high or 9999))
        assert bucket.count == inside.sum()
        if inside.sum() < 30:
            assert buckets.scores["1"][place] is None
            continue
        raw = right["1"][inside].astype(float)
        for tau in TAUS:
            ours = right[tau][inside].astype(float)
            value = 100 * (ours.mean() / raw.mean() - 1)
            assert buckets.changes[tau][place].value == pytest.approx(value)
            low, high = two_way(100 * (ours / raw.mean() - raw * ours.mean() / raw.mean() ** 2))
            assert buckets.changes[tau][place].ends == pytest.approx(
                (value + low, value + high), abs=1e-4
            )
    assert tuple(one.ends for one in buckets.changes["0.9"][-2:]) == (
        pytest.approx((-3.08, 0.32), abs=0.02),
        pytest.approx((-1.06, 4.16), abs=0.02),
    )
    # Texts alone gave both a mark: -2.81 to 0.06 by Student's t, and 0.11 to 2.99.
    assert not any(
        known is not None and known.excludes_zero
        for known in (change.uncertainty for change in buckets.changes["0.9"])
    )


def two_way(effects: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval around the mean of texts × draws, their interaction counted once."""
    texts, draws = effects.shape
    rows, columns, grand = effects.mean(axis=1), effects.mean(axis=0), effects.mean()
    of_text = draws * ((rows - grand) ** 2).sum() / (texts - 1)
    of_draw = texts * ((columns - grand) ** 2).sum() / (draws - 1)
    rest = ((effects - rows[:, None] - columns + grand) ** 2).sum() / ((texts - 1) * (draws - 1))
    # A component of less than nothing is none.
    parts = {texts - 1: of_text, draws - 1: of_draw, (texts - 1) * (draws - 1): rest}
    if of_text <= rest:
        parts = {draws - 1: of_draw}
    elif of_draw <= rest:
        parts = {texts - 1: of_text}
    sign = {(texts - 1) * (draws - 1): -1}
    total = sum(sign.get(degrees, 1) * of for degrees, of in parts.items())
    degrees = total**2 / sum(of**2 / own for own, of in parts.items())
    half = t.ppf(0.975, degrees) * np.sqrt(total / (texts * draws))
    return -half, half


def test_the_longest_documents_rank_higher_and_it_is_no_noise(
    scores: pd.DataFrame, found: Mapping[str, tuple[Place, Items]]
) -> None:
    items = documents(scores, "DocstringRetrieval")
    ranks = ranks_of(*found["DocstringRetrieval"])
    assert ranks is not None
    assert ranks.share == "134 of 400 documents"
    long = items["1"]["document_tokens"] == items["1"]["document_tokens"].max()
    for tau, change, ends in zip(
        TAUS, (-0.28, -0.41, -0.60), ((-0.57, -0.04), (-0.84, -0.04), (-1.22, -0.07)), strict=True
    ):
        by_hand = (items[tau]["rank"] - items["1"]["rank"])[long]
        assert ranks.ranks[tau] == pytest.approx(items[tau]["rank"][long].mean())
        assert ranks.changes[tau].value == pytest.approx(by_hand.mean())
        assert by_hand.mean() == pytest.approx(change, abs=0.005)
        assert ranks.changes[tau].ends == pytest.approx(ends, abs=0.05)
        known = ranks.changes[tau].uncertainty
        assert known is not None
        assert known.excludes_zero
        assert known.changed == (by_hand != 0).sum()
    # All of its documents fill the window, and of these all of a length are alike.
    for task in ("DocstringLongRetrieval", "DocstringNeedleRetrieval", "DocstringPasskeyRetrieval"):
        assert ranks_of(*found[task]) == replace(ranks_of(*found[task]), ranks={})


@pytest.mark.parametrize(
    ("task", "by", "slope", "ends"),
    [
        ("DocstringRetrieval", "document", 0.75, (-0.24, 1.84)),
        ("DocstringRetrieval", "query", 1.95, (-0.19, 4.40)),
        ("DocstringReranking", "document", 0.10, None),
        ("DocstringReranking", "query", 1.65, None),
    ],
)
def test_the_gain_per_doubling_of_length(
    scores: pd.DataFrame,
    found: Mapping[str, tuple[Place, Items]],
    task: str,
    by: str,
    slope: float,
    ends: tuple[float, float] | None,
) -> None:
    items = documents(scores, task)
    (gain,) = (one for one in gains_by_length(*found[task]) if one.by == by)
    lengths = items["1"]["tokens" if by == "query" else "document_tokens"]
    for tau in TAUS:
        change = items[tau]["score"] - items["1"]["score"]
        by_hand, _ = np.polyfit(np.log2(lengths), change, 1)
        by_hand *= 100 / items["1"]["score"].mean()
        assert gain.slopes[tau].value == pytest.approx(by_hand)
        short = lengths <= np.sort(lengths)[79]
        long = lengths >= np.sort(lengths)[-80]
        gains = [
            100 * (items[tau]["score"][part].mean() / items["1"]["score"][part].mean() - 1)
            for part in (short, long)
        ]
        assert gain.contrasts[tau].value == pytest.approx(gains[1] - gains[0])
        assert (gain.shortest, gain.longest) == (short.sum(), long.sum())
    assert gain.slopes["0.9"].value == pytest.approx(slope, abs=0.005)
    if ends is not None:
        assert gain.slopes["0.9"].ends == pytest.approx(ends, abs=0.12)


def test_ndcg_at_100_of_the_longest_and_the_shortest_queries(
    scores: pd.DataFrame, found: Mapping[str, tuple[Place, Items]]
) -> None:
    items = documents(scores, "DocstringRetrieval")
    reading = ndcg_of_queries(*found["DocstringRetrieval"])
    assert reading is not None
    lengths = np.sort(items["1"]["tokens"])
    parts = items["1"]["tokens"] <= lengths[79], items["1"]["tokens"] >= lengths[-80]
    expected = ((75.74, 74.25, 72.90, 71.94), (77.51, 78.49, 77.45, 74.22))
    for number, (part, audited) in enumerate(zip(parts, expected, strict=True)):
        for tau, value in zip(("1", *TAUS), audited, strict=True):
            # One relevant document a query.
            gains = (items[tau]["rank"] <= 100) / np.log2(items[tau]["rank"] + 1)
            assert reading.scores[tau][number] == pytest.approx(100 * gains[part].mean())
            assert reading.scores[tau][number] == pytest.approx(value, abs=0.005)
    low, high = reading.changes["0.7"][0].ends or (0.0, 0.0)
    assert low < 100 * (71.94 / 75.74 - 1) < high < 0


def test_accuracy_in_intervals_of_100_tokens(
    scores: pd.DataFrame, found: Mapping[str, tuple[Place, Items]]
) -> None:
    task = "DocstringLibraryClassification"
    ((_, rows),) = ((tau, rows) for tau, rows in recorded(scores, task) if tau == "1")
    reading = accuracy_of_intervals(*found[task])
    assert reading is not None
    sizes = (rows["tokens"][rows["tokens"] < 512] // 100).value_counts().sort_index()
    enough = sizes[sizes >= 30]
    assert reading.lengths == tuple(f"{100 * at}–{100 * at + 99}" for at in enough.index)
    assert set(reading.counts) == {enough.min()}
    # The smallest has all of its texts.
    smallest = rows["tokens"] // 100 == enough.idxmin()
    place = list(enough.index).index(enough.idxmin())
    assert reading.scores["1"][place] == pytest.approx(100 * rows["score"][smallest].mean())


def test_lengths_are_the_characters_where_the_items_have_them(scores: pd.DataFrame) -> None:
    for _, items in items_of_tables(build_tables(scores), scores):
        assert items.unit == ("characters" if items.characters else "tokens")
        if items.relevant is not None and items.characters:
            longest: Any = pd.Series(items.relevant.lengths).groupby(items.relevant.items).max()
            assert (items.lengths["document"][longest.index] == longest).all()
