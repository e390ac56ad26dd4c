"""The recommendation in worlds whose truth is known: 100 of one kind, 20 of the others; or 100."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lcbench.tuning.recommend import FOLDS, Advice, Part, recommend
from lcbench.uncertainty.clusters import numbered

SEEDS = 100
FEW = 20
REPAIRS = 6
RIGHT = 2
NOTHING = (0.0,) * REPAIRS
LOSSES = (-0.2, -0.5, -1.0, -2.0, -4.0, -8.0)


def world(
    seed: int,
    gains: Sequence[float] = NOTHING,
    *,
    count: int = 400,
    common: float = 0.8,
    noises: Sequence[float] = (20.0,),
    unequal: bool = False,
    changed: float = 1.0,
) -> list[Part]:
    """Return the differences of repairs from a baseline, in % of it.

    Args:
        seed: of the world.
        gains: true gain of each repair.
        count: number of independent units.
        common: correlation of the repairs' noise, such as that of neighbouring temperatures.
        noises: standard deviation of a unit, for each task.
        unequal: whether units have 1 to 11 items, with noise of their own.
        changed: share of the units that a repair changes at all.
    """
    random = np.random.default_rng(seed)
    units = numbered(count, "unit", seed)
    parts = []
    for noise in noises:
        sizes = random.integers(1, 12, count) if unequal else np.ones(count, dtype=int)
        shared, own = random.standard_normal((count, 1)), random.standard_normal((count, REPAIRS))
        apart = noise * (np.sqrt(common) * shared + np.sqrt(1 - common) * own)
        apart *= (random.random((count, 1)) < changed) / np.sqrt(changed)
        means = apart + np.array(gains) * (apart[:, :1] != 0) / changed
        sums = means * sizes[:, None]
        if unequal:
            sums += noise / 2 * np.sqrt(sizes)[:, None] * random.standard_normal(sums.shape)
        parts.append(Part(1 / len(noises), units, sizes.astype(float), sums))
    return parts


WORLDS = {
    "as many items in each unit": world,
    "unequal units": partial(world, unequal=True),
    "tasks of unequal noise": partial(world, count=200, noises=(20.0, 6.0, 40.0)),
    "independent repairs": partial(world, common=0.0),
    "a third of the units changes": partial(world, changed=0.3),
    "few units": partial(world, count=60),
}


@cache
def detectable(name: str) -> float:
    """The gain that is found in four of five such worlds."""
    found = [recommend(WORLDS[name](10_000 + seed)).detectable for seed in range(5)]
    return float(np.mean(found))


def advice_of(name: str, gains: Sequence[float], seeds: int = SEEDS) -> list[Advice]:
    return [recommend(WORLDS[name](seed, gains), resamples=600) for seed in range(seeds)]


OF_EACH = [
    ("as many items in each unit", SEEDS),
    *((name, FEW) for name in list(WORLDS)[1:]),
    *(pytest.param(name, SEEDS, marks=pytest.mark.exhaustive) for name in list(WORLDS)[1:]),
]


@pytest.mark.parametrize(("name", "seeds"), OF_EACH)
def test_the_right_repair_is_recommended_and_its_gain_covered(name: str, seeds: int) -> None:
    gains = np.zeros(REPAIRS)
    gains[RIGHT] = 2 * detectable(name)
    found = advice_of(name, tuple(gains), seeds)
    assert sum(one.chosen == RIGHT for one in found) >= 0.9 * seeds
    covered = sum(one.expected_low <= gains[RIGHT] <= one.expected_high for one in found)
    assert covered >= (0.93 if seeds == SEEDS else 0.85) * seeds
    # It neither over- nor understates the gain.
    values = np.array([one.expected for one in found])
    assert abs(values.mean() - gains[RIGHT]) < 3 * values.std() / np.sqrt(seeds)


@pytest.mark.parametrize("gains", [NOTHING, LOSSES], ids=["no effect", "losses"])
@pytest.mark.parametrize(("name", "seeds"), OF_EACH)
def test_none_is_recommended_where_none_is_right(
    name: str, seeds: int, gains: Sequence[float]
) -> None:
    found = advice_of(name, gains, seeds)
    assert sum(one.chosen is None for one in found) >= 0.95 * seeds
    # The truth, that of the baseline or of a repair without effect, is covered.
    assert sum(one.expected_low <= 0 <= one.expected_high for one in found) >= 0.93 * seeds


def test_the_gain_is_not_that_of_the_best_by_chance() -> None:
    found = advice_of("independent repairs", NOTHING, 60)
    best = np.array([one.gains[one.best] for one in found])
    expected = np.array([one.expected for one in found])
    error = expected.std() / np.sqrt(60)
    assert abs(expected.mean()) < 3 * error
    assert best.mean() > 5 * error


def test_an_uncertain_choice_counts() -> None:
    """Two equal repairs: either is right, and the interval is wider than that of one repair."""
    gains = np.zeros(REPAIRS)
    gains[[1, RIGHT]] = 2 * detectable("as many items in each unit")
    found = advice_of("as many items in each unit", tuple(gains), 60)
    assert all(one.chosen in (1, RIGHT) for one in found)
    assert {one.chosen for one in found} == {1, RIGHT}
    assert sum(one.expected_low <= gains[1] <= one.expected_high for one in found) >= 56


@pytest.mark.parametrize(
    ("count", "seeds"),
    [
        *((count, FEW) for count in (8, 40)),
        *(pytest.param(count, SEEDS, marks=pytest.mark.exhaustive) for count in (8, 12, 40)),
    ],
)
def test_tasks_as_units(count: int, seeds: int) -> None:
    """Two columns of tasks, whose gains differ by a standard deviation of 2 %."""

    def tasks(seed: int, gain: float) -> Advice:
        (part,) = world(seed, (0, 0, gain, 0, 0, 0), count=count, noises=(2.0,))
        half = [slice(0, count // 2), slice(count // 2, count)]
        columns = [Part(0.5, part.units[of], part.sizes[of], part.sums[of]) for of in half]
        return recommend(columns, resamples=600, few=True, changed=1)

    assert sum(tasks(seed, 0.0).chosen is None for seed in range(seeds)) >= 0.95 * seeds
    gain = 2 * np.mean([tasks(10_000 + seed, 0.0).detectable for seed in range(5)])
    found = [tasks(seed, float(gain)) for seed in range(seeds)]
    assert sum(one.chosen == RIGHT for one in found) >= 0.9 * seeds
    covered = sum(one.expected_low <= gain <= one.expected_high for one in found)
    assert covered >= (0.9 if seeds == SEEDS else 0.8) * seeds


def test_the_procedure_in_plain_loops() -> None:
    """Folds, choices and scores of three tasks that share some of their units."""
    parts = world(3, (0.0, 3.0, 4.0, 2.0, -1.0, 0.0), count=90, noises=(20.0, 10.0), unequal=True)
    kept = np.arange(0, 90, 2)
    last = parts[1]
    parts[1] = Part(0.5, last.units[kept], last.sizes[kept], last.sums[kept])
    found = recommend(parts, resamples=50)
    fold_of = folds_of(parts)

    def average(rows: list[NDArray[np.bool_]], repair: int) -> float:
        return sum(
            part.weight * part.sums[own, repair].sum() / part.sizes[own].sum()
            for part, own in zip(parts, rows, strict=True)
        )

    every = [np.ones(len(part.units), dtype=bool) for part in parts]
    assert found.gains == pytest.approx([average(every, one) for one in range(REPAIRS)])
    sums, picks = np.zeros(len(parts)), np.zeros(1 + REPAIRS, dtype=int)
    for fold in range(FOLDS):
        held_out = [np.array([fold_of[unit] == fold for unit in part.units]) for part in parts]
        others = [average([~own for own in held_out], repair) for repair in range(REPAIRS)]
        best = int(np.argmax(others))
        chosen = None if others[best] <= 0 else best
        picks[0 if chosen is None else 1 + best] += 1
        for place, (part, own) in enumerate(zip(parts, held_out, strict=True)):
            sums[place] += 0.0 if chosen is None else part.sums[own, chosen].sum()
    expected = sum(
        part.weight * total / part.sizes.sum() for part, total in zip(parts, sums, strict=True)
    )
    assert found.expected == pytest.approx(expected)
    assert list(found.picks) == list(picks)
    assert found.units == 90


def folds_of(parts: Sequence[Part]) -> dict[int, int]:
    """The folds that `recommend` makes; each has about its share of each part."""
    from lcbench.tuning import recommend as module

    units = np.unique(np.concatenate([one.units for one in parts]))
    places = [np.searchsorted(units, one.units) for one in parts]
    fold_of = module._folds(parts, places, len(units), FOLDS, 0)
    for part, place in zip(parts, places, strict=True):
        shares = np.bincount(fold_of[place], part.sizes) / part.sizes.sum()
        assert np.abs(shares - 1 / FOLDS).max() < 0.05
    return dict(zip(units.tolist(), fold_of.tolist(), strict=True))


def test_it_depends_on_nothing_but_its_arguments() -> None:
    parts = world(1, (0, 1, 3, 0, 0, 0), unequal=True)
    order = np.random.default_rng(0).permutation(400)
    mixed = [Part(one.weight, one.units[order], one.sizes[order], one.sums[order]) for one in parts]
    first, again = recommend(parts), recommend(mixed)
    assert (first.chosen, first.best) == (again.chosen, again.best)
    assert (first.expected_low, first.expected_high) == pytest.approx(
        (again.expected_low, again.expected_high)
    )
    other = recommend(parts, seed=1)
    assert other.expected_low != first.expected_low
    assert other.gains == pytest.approx(first.gains)


def test_repairs_without_any_effect() -> None:
    (part,) = world(0)
    found = recommend([replace(part, sums=np.zeros_like(part.sums))])
    assert found.chosen is None
    assert (found.expected, found.expected_low, found.expected_high) == (0.0, 0.0, 0.0)
    assert found.picks[0] == FOLDS
    assert not found.changed.any()


def test_of_equal_repairs_the_first_is_recommended() -> None:
    """Repairs are in the order of their distance from the baseline."""
    (part,) = world(0, (0, 0, 12, 0, 0, 0))
    found = recommend([replace(part, sums=part.sums[:, [0, 2, 2, 2]])])
    assert found.chosen == 1
    assert list(found.picks) == [0, 0, FOLDS, 0, 0]


def test_a_repair_that_changes_too_few_units_is_not_recommended() -> None:
    (part,) = world(0)
    sums = np.zeros((400, 1))
    sums[:9] = 500.0
    few = recommend([replace(part, sums=sums)])
    assert few.chosen is None
    assert few.changed[0] == 9
    sums[:40] = 500.0
    assert recommend([replace(part, sums=sums)]).chosen == 0


def test_the_noise_of_experiments_widens_all_intervals() -> None:
    (part,) = world(0, (0, 0, 9, 0, 0, 0))
    random = np.random.default_rng(0)
    noise = random.normal(0, 6, (10, REPAIRS))
    alone = recommend([part])
    both = recommend([replace(part, noise=noise - noise.mean(axis=0))])
    assert both.gains == pytest.approx(alone.gains)
    assert both.expected == pytest.approx(alone.expected)
    assert (both.high - both.low > 1.2 * (alone.high - alone.low)).all()
    assert both.expected_high - both.expected_low > 1.2 * (alone.expected_high - alone.expected_low)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", WORLDS)
def test_the_documented_rates(name: str) -> None:
    """Of docs/tuning.md, but for two worlds that another processor may decide otherwise."""
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {name} \| (.*) \|$", page, flags=re.MULTILINE)
    gains = np.zeros(REPAIRS)
    gains[RIGHT] = 2 * detectable(name)
    right = advice_of(name, tuple(gains))
    counts = [
        sum(one.chosen == RIGHT for one in right),
        sum(one.expected_low <= gains[RIGHT] <= one.expected_high for one in right),
        *(sum(one.chosen is None for one in advice_of(name, other)) for other in (NOTHING, LOSSES)),
    ]
    stated = [int(one) for one in row.split("|")]
    assert np.abs(np.array(counts) - stated).max() <= 2
