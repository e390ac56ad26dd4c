"""How often the intervals of a report cover the truth, in simulations; writes docs/simulations.md.

    python scripts/simulate.py [--runs 2000] [--seed 0] [--out docs/simulations.md]

Two thousand runs take about half an hour on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markdown_table import table as markdown_table
from numpy.typing import NDArray
from scipy import special

from lcbench.reporting import means
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, Column, ScoreTable, TaskScores
from lcbench.reporting.statistics import Draws
from lcbench.reporting.task_intervals import of_pair
from lcbench.tasks.suites import shipped_suites
from lcbench.uncertainty.bootstrap import resample
from lcbench.uncertainty.clusters import numbered
from lcbench.uncertainty.items import Sample
from lcbench.uncertainty.sums import Term, estimates
from lcbench.uncertainty.variation import Grouped

(_SUITE,) = (suite for suite in shipped_suites() if suite.name == "paper")
PAPER = {column: len(tasks) for column, tasks in _SUITE.columns.items()}
"""How many tasks each column of the paper's Table 1 has."""

TAUS = ("0.9", "0.8", "0.7", "0.6", "0.5", "0.1")
RESAMPLES = 500
ITEMS = 300
EXPERIMENTS = 10
_RAW = 0.5


@dataclass(frozen=True)
class Design:
    """What is simulated: effects and noise in % of the baseline.

    Attributes:
        columns: how many tasks each has.
        taus: how many τ are tried.
        correlation: of the items' noise at neighbouring τ.
        spread: standard deviation of the tasks' true effects, in those of the items' noise.
    """

    columns: Mapping[str, int]
    taus: int = 6
    correlation: float = 0.8
    spread: float = 0.0

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """Columns and tasks."""
        return [(name, f"{name}{n}") for name, size in self.columns.items() for n in range(size)]


@dataclass(frozen=True)
class Outcome:
    """One run: of each τ, of Avg, whether its interval and its band cover the truth, and so on.

    Attributes:
        alone: whether the interval of each τ by itself covers the truth.
        band: whether the band covers all of them.
        gain: whether a gain is claimed at the best τ: zero lies below the band.
        alone_gain: whether it is by the interval of that τ alone.
        either: whether zero lies outside the band at the best τ.
        width: of the interval of one τ, in the standard errors that are true.
    """

    alone: NDArray[np.bool_]
    band: bool
    gain: bool
    alone_gain: bool
    either: bool
    width: float


def run(design: Design, random: np.random.Generator) -> Outcome:
    """Return the outcome of one table in which no τ has an effect on average."""
    taus = TAUS[: design.taus]
    tasks = design.tasks
    true = design.spread * _correlated((len(tasks), len(taus)), design.correlation, random)
    seen = true + _correlated((len(tasks), len(taus)), design.correlation, random)
    noise = _correlated((RESAMPLES, len(tasks), len(taus)), design.correlation, random)
    table, draws = _made(design, taus, seen, seen + noise, random)
    # Over other tasks no τ has an effect; a column of one task is about that task.
    truth = np.mean(
        [
            true[[name == column for name, _ in tasks]].mean(axis=0) * (size == 1)
            for column, size in design.columns.items()
        ],
        axis=0,
    )
    found, _ = means.of_table(table, draws, {})
    own = [found["m", tau, AVERAGE] for tau in taus]
    values = [float(table.blocks[0].improvements[tau][AVERAGE] or 0.0) for tau in taus]
    alone = [one.alone or (one.low, one.high) for one in own]
    best = int(np.argmax(values))
    return Outcome(
        alone=np.array([low <= t <= high for (low, high), t in zip(alone, truth, strict=True)]),
        band=all(one.low <= t <= one.high for one, t in zip(own, truth, strict=True)),
        gain=own[best].low > 0,
        alone_gain=alone[best][0] > 0,
        either=own[best].low > 0 or own[best].high < 0,
        width=float(np.mean([high - low for low, high in alone])),
    )


def _correlated(
    shape: tuple[int, ...], correlation: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return standard normal values, correlated along the last axis as in an AR(1) process."""
    values = random.standard_normal(shape)
    for place in range(1, shape[-1]):
        values[..., place] *= np.sqrt(1 - correlation**2)
        values[..., place] += correlation * values[..., place - 1]
    return values


def _made(
    design: Design,
    taus: Sequence[str],
    seen: NDArray[np.float64],
    drawn: NDArray[np.float64],
    random: np.random.Generator,
) -> tuple[ScoreTable, Draws]:
    """Return a table of these effects, and the draws of its cells.

    Args:
        design: of the table.
        taus: the policies.
        seen: effects in %, shape (tasks, taus).
        drawn: over each sample, shape (resamples, tasks, taus).
        random: draws the tasks.
    """
    tasks, policies = design.tasks, (BASELINE, *taus)
    scores = {task: _scores(taus, seen[place]) for place, (_, task) in enumerate(tasks)}
    columns = tuple(
        Column(column, tuple(task for name, task in tasks if name == column))
        for column in design.columns
    )
    of_columns = {
        policy: {
            column.name: float(np.mean([scores[task][policy] for task in column.tasks]))
            for column in columns
        }
        for policy in policies
    }
    for row in of_columns.values():
        row[AVERAGE] = float(np.mean(list(row.values())))
    improvements = {
        tau: {
            name: 100 * (value / of_columns[BASELINE][name] - 1)
            for name, value in of_columns[tau].items()
        }
        for tau in taus
    }
    block = Block(
        window=512,
        model="m",
        revision="r",
        label="m",
        policies=policies,
        best=max(taus, key=lambda tau: improvements[tau][AVERAGE]),
        scores=of_columns,
        improvements=improvements,
        tasks=tuple(TaskScores(name, task, scores[task]) for name, task in tasks),
    )
    table = ScoreTable("g", columns, (block,), None, ())
    cells = {}
    for place, (_, task) in enumerate(tasks):
        cells["m", BASELINE, task] = np.full(len(drawn), _RAW, dtype=np.float32)
        for number, tau in enumerate(taus):
            values = _RAW * (1 + drawn[:, place, number] / 100)
            cells["m", tau, task] = values.astype(np.float32)
    shapes = {column.name: (len(drawn), len(column.tasks)) for column in columns}
    draws = Draws(
        scores=cells,
        cells=dict.fromkeys(cells, ("queries", ITEMS, ITEMS)),
        tasks={
            name: random.integers(0, shape[1], shape) if shape[1] > 1 else np.zeros(shape, int)
            for name, shape in shapes.items()
        },
        picks={
            name: random.integers(0, len(drawn), shape)
            if shape[1] > 1
            else np.arange(len(drawn))[:, None]
            for name, shape in shapes.items()
        },
    )
    return table, draws


def _scores(taus: Sequence[str], effects: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the scores × 100 of a task by policy."""
    found: dict[str, float | None] = {BASELINE: 100 * _RAW}
    for tau, effect in zip(taus, effects, strict=True):
        found[tau] = 100 * _RAW * (1 + float(effect) / 100)
    return found


def covers(
    raw: NDArray[np.float64],
    ours: NDArray[np.float64],
    truth: float,
    seed: int,
    clusters: NDArray[np.uint64] | None = None,
) -> tuple[bool, bool]:
    """Return whether the interval of one task's improvement covers the truth, and excludes zero.

    Args:
        raw: of each query, its score in the baseline.
        ours: the same queries' otherwise.
        truth: the improvement in %.
        seed: of the bootstrap.
        clusters: of each query; None: each is one by itself.
    """
    part = ("test", "default")
    cells = [{part: Sample(("queries",), values, units="queries")} for values in (raw, ours)]
    drawn = resample(cells, 1000, seed, "T", None if clusters is None else [clusters])
    known = None if drawn is None else of_pair(drawn, 0, 1)
    if known is None:
        return False, False
    return known.low <= truth <= known.high, known.low > 0 or known.high < 0


def table_of_items(runs: int, seed: int) -> str:
    """Return, as Markdown, how often the interval of one task covers, over queries."""
    rows = []
    for count in (24, 50, 100, 300):
        random = np.random.default_rng([seed, 1, count])
        found = []
        for number in range(runs):
            raw = random.choice([0.0, 0.39, 0.5, 0.63, 1.0], count, p=[0.3, 0.1, 0.1, 0.1, 0.4])
            moves = random.random(count) < 0.15
            other = random.choice([0.0, 0.39, 0.5, 0.63, 1.0], count, p=[0.3, 0.1, 0.1, 0.1, 0.4])
            found.append(covers(raw, np.where(moves, other, raw), 0.0, number))
        rows.append([str(count), f"{100 * np.mean([one for one, _ in found]):.1f}"])
    return "\n".join(markdown_table(["queries", "covers"], rows))


def table_of_clusters(runs: int, seed: int) -> str:
    """Return, as Markdown, how often it covers where queries are about one document."""
    rows = []
    for share in (0.0, 0.1, 0.3):
        random = np.random.default_rng([seed, 2, int(10 * share)])
        found = []
        for number in range(runs):
            sizes = random.integers(3, 13, 100)
            document = np.repeat(np.arange(100), sizes)
            raw = np.clip(0.5 + 0.2 * random.standard_normal(len(document)), 0, 1)
            effect = np.sqrt(share) * random.standard_normal(100)[document]
            effect += np.sqrt(1 - share) * random.standard_normal(len(document))
            ours = raw + 0.05 * effect
            clusters = numbered(100, "document")[document]
            found.append(
                (covers(raw, ours, 0.0, number)[1], covers(raw, ours, 0.0, number, clusters)[1])
            )
        by_query, by_document = 100 * np.mean(found, axis=0)
        rows.append([f"{share:g}", f"{by_query:.1f}", f"{by_document:.1f}"])
    header = ["correlation within a document", "by query", "by document"]
    return "\n".join(markdown_table(header, rows))


def table_of_columns(runs: int, seed: int) -> str:
    """Return, as Markdown, how often intervals of a single column cover, one τ being tried."""
    rows = []
    for size in (2, 4, 8, 11):
        row = [str(size)]
        for spread in (0.0, 1.0, 3.0):
            design = Design({"C": size}, taus=1, spread=spread)
            random = np.random.default_rng([seed, size, int(spread)])
            found = [run(design, random) for _ in range(runs)]
            covers = np.mean([one.alone[0] for one in found])
            row.append(f"{100 * covers:.1f} ({np.median([one.width for one in found]):.2f})")
        rows.append(row)
    header = ["tasks", "items' noise alone", "as much of tasks", "three times as much"]
    return "\n".join(markdown_table(header, rows))


def table_of_choice(runs: int, seed: int) -> str:
    """Return, as Markdown, what is claimed of the best of six τ where none has an effect."""
    rows = []
    for place, (correlation, spread) in enumerate(((0.0, 0.0), (0.8, 0.0), (0.0, 1.0), (0.8, 1.0))):
        design = Design(PAPER, correlation=correlation, spread=spread)
        random = np.random.default_rng([seed, 99, place])
        found = [run(design, random) for _ in range(runs)]

        def share(values: Sequence[bool] | NDArray[np.bool_]) -> str:
            return f"{100 * np.mean(values):.1f}"

        rows.append(
            [
                f"{correlation:g}",
                "equal" if spread == 0 else "different",
                share(np.concatenate([one.alone for one in found])),
                share([one.band for one in found]),
                share([one.alone_gain for one in found]),
                share([one.gain for one in found]),
                share([one.either for one in found]),
            ]
        )
    header = [
        *("ρ", "tasks", "interval of one τ covers", "band covers all"),
        *("gain claimed by the interval", "gain claimed by the band", "gain or loss by the band"),
    ]
    return "\n".join(markdown_table(header, rows))


def table_of_p(runs: int, seed: int) -> str:
    """Return, as Markdown, how often p is small where a classification has no effect."""
    rows = []
    for texts, swing in ((200, 0.0), (200, 0.1), (200, 0.3), (1000, 0.1)):
        random = np.random.default_rng([seed, 3, texts, int(10 * swing)])
        found = []
        for _ in range(runs):
            easy = random.normal(0.5, 1, (texts, 1))
            same = random.random((texts, EXPERIMENTS))
            # Each system has training draws that it does well with, and one text in five by chance.
            systems = [
                np.where(random.random(same.shape) < 0.2, random.random(same.shape), same)
                < special.ndtr(easy + swing * random.standard_normal((1, EXPERIMENTS)))
                for _ in range(2)
            ]
            drawn = resample([{("test", "default"): _texts(one)} for one in systems], 4, 0, "T")
            found.append(1.0 if drawn is None else drawn.p_value(0, 1))
        below = [f"{100 * np.mean(np.array(found) <= level):.2f}" for level in (0.05, 0.01, 0.001)]
        rows.append([f"{texts:,}", f"{swing:g}", *below])
    header = ["texts", "draws vary by", "p ≤ 0.05", "p ≤ 0.01", "p ≤ 0.001"]
    return "\n".join(markdown_table(header, rows))


def _texts(right: NDArray[np.bool_]) -> Sample:
    """Return a classification's texts, from what is right, shape (texts, experiments)."""
    bits = right @ (1 << np.arange(right.shape[1], dtype=np.uint16))
    values, draws = right.mean(axis=1), right.mean(axis=0)
    return Sample(("texts",), values, None, draws, "texts", bits.astype(np.uint16))


def table_of_lengths(runs: int, seed: int) -> str:
    """Return, as Markdown, how often intervals of the tables by length cover a slope and a mean."""

    def mean_and_slope(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        one, x, xx, y, xy = np.moveaxis(sums, -1, 0)
        return np.stack([y / one, (one * xy - x * y) / (one * xx - x**2)], axis=-1)

    rows = []
    for count, draws in ((30, 0), (200, 0), (60, EXPERIMENTS), (200, EXPERIMENTS)):
        random = np.random.default_rng([seed, 4, count, draws])
        covered = np.zeros(2)
        for number in range(runs):
            x = random.standard_normal(count)
            y = 0.3 * x + random.standard_normal(count) * (1 + 0.5 * np.abs(x))
            if draws:
                swings = 0.3 * random.standard_normal((2, draws))
                y = y[:, None] + swings[0] + swings[1] * x[:, None]
                y = y + random.standard_normal((count, draws))
            columns: list[NDArray[np.float64] | Term] = [np.ones(count), x, x**2, y, Term(y, x)]
            grouped = Grouped.of(numbered(count, "text", number))
            found = estimates(columns, grouped, (mean_and_slope,), resamples=500)
            covered += [
                ends is not None and ends[0] <= truth <= ends[1]
                for (_, ends), truth in zip(found, (0.0, 0.3), strict=True)
            ]
        shares = [f"{100 * one:.1f}" for one in covered / runs]
        rows.append([str(count), str(draws) if draws else "none", *shares])
    header = ["texts", "training draws", "mean", "slope over length"]
    return "\n".join(markdown_table(header, rows))


def report(runs: int, seed: int) -> str:
    """Return the whole document."""
    error = 100 * float(np.sqrt(0.05 * 0.95 / runs))
    return f"""# Simulations of the report's intervals

`python scripts/simulate.py --runs {runs} --seed {seed}`. All numbers are in %; of {runs:,} runs
their standard error is {error:.1f} where they are near 5 or 95.

## The best of six τ

The paper's design: 40 tasks in the columns of its Table 1, and six τ, none of which has an
effect on average. ρ is the correlation of the items' noise at neighbouring τ. The tasks have equal
true effects, or effects that differ as much as the noise of their items. The interval of the best τ
must account for the choice: the band over all τ tried covers all of them simultaneously in at least
95 of 100 runs, and claims a gain in at most 5. The interval of a single τ would claim a gain more
often.

{table_of_choice(runs, seed)}

## One task

Coverage of the 95 % interval if 15 % of the queries change to another value of nDCG@10, without an
effect on average. (If fewer than ten change, the report does not mark the change.)

{table_of_items(runs, seed)}

One hundred documents with 3 to 12 queries each, without an effect: how often the interval excludes
zero, which should be in 5 % of runs, if queries are resampled, and if documents are resampled, as
in the report.

{table_of_clusters(runs, seed)}

## The p-value of a classification

Texts classified by ten classifiers, each trained on a different draw, without an effect: how often
p is below each threshold, which should be in 5, 1 and 0.1 % of runs. The variation between draws is
in standard deviations of the texts' difficulty.

{table_of_p(runs, seed)}

## Tables by length

Coverage of the 95 % intervals of a mean, and of the slope of changes over length: from a bootstrap
without training draws, otherwise Student's t over texts crossed with training draws.

{table_of_lengths(runs, seed)}

## Columns of few tasks

The interval of a column covers other tasks like these. Coverage of the 95 % interval of one τ, and
in parentheses its median width in standard deviations of the items' noise.

{table_of_columns(runs, seed)}
"""


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/simulations.md"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report(arguments.runs, arguments.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
