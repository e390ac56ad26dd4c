"""`scripts/simulate.py`: what the report claims where there is nothing, in the paper's design."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import simulate


@pytest.mark.parametrize(
    ("runs", "correlation", "spread"),
    [
        (40, 0.0, 0.0),
        (40, 0.8, 1.0),
        *(
            pytest.param(400, correlation, spread, marks=pytest.mark.exhaustive)
            for correlation in (0.0, 0.8)
            # Equal tasks, and different ones.
            for spread in (0.0, 1.0)
        ),
    ],
)
def test_the_best_of_six_is_no_gain(runs: int, correlation: float, spread: float) -> None:
    design = simulate.Design(simulate.PAPER, correlation=correlation, spread=spread)
    random = np.random.default_rng([1, runs, int(10 * correlation), int(spread)])
    found = [simulate.run(design, random) for _ in range(runs)]
    error = np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([one.band for one in found]) >= 0.95 - 2.5 * error
    assert np.mean([one.gain for one in found]) <= 0.05 + 2 * error
    # A gain by the band is one by the interval of that τ alone, which is narrower.
    assert all(one.alone_gain for one in found if one.gain)


@pytest.mark.parametrize("tasks", [2, 4, 8, 11])
@pytest.mark.parametrize(
    "runs", [pytest.param(100), pytest.param(400, marks=pytest.mark.exhaustive)]
)
def test_a_column_of_few_tasks_is_covered(runs: int, tasks: int) -> None:
    for spread in (0.0, 1.0, 3.0):
        design = simulate.Design({"C": tasks}, taus=1, spread=spread)
        random = np.random.default_rng([2, runs, tasks, int(spread)])
        covered = np.mean([simulate.run(design, random).alone[0] for _ in range(runs)])
        assert covered >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)


def test_the_document_has_all_designs() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in simulate.report(runs=2, seed=0).splitlines()
        if line.startswith("|")
    ]
    assert [row[:2] for row in rows[2:6]] == [
        ["0", "equal"],
        ["0.8", "equal"],
        ["0", "different"],
        ["0.8", "different"],
    ]
    assert [row[0] for row in rows[8:12]] == ["24", "50", "100", "300"]
    assert [row[0] for row in rows[14:17]] == ["0", "0.1", "0.3"]
    assert [row[:2] for row in rows[19:23]] == [
        ["200", "0"],
        ["200", "0.1"],
        ["200", "0.3"],
        ["1,000", "0.1"],
    ]
    assert [row[:2] for row in rows[25:29]] == [
        ["30", "none"],
        ["200", "none"],
        ["60", "10"],
        ["200", "10"],
    ]
    assert [row[0] for row in rows[31:]] == ["2", "4", "8", "11"]


@pytest.mark.parametrize(
    "runs", [pytest.param(60), pytest.param(400, marks=pytest.mark.exhaustive)]
)
def test_queries_of_one_document_are_no_evidence_of_their_own(runs: int) -> None:
    table = simulate.table_of_clusters(runs, seed=3).splitlines()
    (alone, strong) = (
        [float(cell) for cell in line.strip("|").split("|")] for line in (table[2], table[4])
    )
    error = 100 * np.sqrt(0.05 * 0.95 / runs)
    assert abs(alone[2] - 5) <= 3 * error
    assert abs(strong[2] - 5) <= 3 * error
    # Drawn by query, zero is excluded far too often.
    assert strong[1] > 5 + 5 * error
