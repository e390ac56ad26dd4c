"""The choice of τ: the paper's rule, on the test data, compared with one with tasks held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    Block,
    ScoreTable,
    relative_improvement,
    temperature,
)
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, improvement, interval
from lcbench.reporting.text import HOLE, group_heading, two_decimals
from lcbench.tasks.suites import averaged_columns

USUAL = "0.8"
"""The τ of three of the five models in the paper's Table 1: what one would take untried."""


@dataclass(frozen=True)
class ModelChoice:
    """How a model's τ is chosen, and what that gains; gains are relative improvements of `Avg`, %.

    Attributes:
        label: of the block.
        candidates: the constant policies that have all tasks, the baseline among them.
        tau: the best of them over all tasks: the paper's rule.
        gain: at that τ.
        held_out: for each task the τ that is best over the others.
        honest_gain: with each task at its own τ of `held_out`: the cross-validated gain. It has no
            interval: one that takes the choices as they are excludes zero twice as often as it
            should.
        gains: at each candidate.
        usual_regret: what τ = 0.8 loses against the best τ; None where it was not tried.
        sure: how sure the gains at each candidate are, where that is known: bands over all of them.
    """

    label: str
    candidates: tuple[str, ...]
    tau: str
    gain: float
    held_out: Mapping[str, str]
    honest_gain: float
    gains: Mapping[str, float]
    usual_regret: float | None
    sure: Mapping[str, Uncertainty] = field(default_factory=dict)

    @property
    def optimism(self) -> float:
        """By how much the paper's rule overstates the gain, in percentage points."""
        return self.gain - self.honest_gain


@dataclass(frozen=True)
class Choice:
    """The choices of all models of a table.

    Attributes:
        models: those of which two temperatures or more other than τ = 1 have all tasks.
        one_tau: the best τ for all of them: that of the highest mean gain; None: none in common.
        one_gain: that mean gain, %.
        notes: which models are left out, and why.
    """

    models: tuple[ModelChoice, ...]
    one_tau: str | None
    one_gain: float | None
    notes: tuple[str, ...] = ()


def choose(table: ScoreTable, statistics: TableStatistics = NOTHING) -> Choice | None:
    """Return how τ is chosen in a table; None where no model has a choice.

    The paper's rule takes the τ of the highest `Avg`, of equals the one nearest to 1, and reports
    that `Avg`: the best of several noisy numbers, which is too high even where τ does nothing. Here
    each task gets the τ that is best over the other tasks, by the same rule, of which those that
    share items with it are left out (`Draws.families`), and so is a column that has no other. What
    the tasks so chosen gain is the cross-validated gain. Unlike the table, which shows some τ as
    "ours", both rules may choose τ = 1.

    Args:
        table: of `table1.build_tables`.
        statistics: of that table.
    """
    models, notes = [], []
    for block in table.blocks:
        made = _of_block(table, block, statistics)
        if isinstance(made, str):
            notes.append(f"{block.label}: {made}")
        else:
            models.append(made)
    if not models:
        return None
    shared = [
        policy
        for policy in models[0].candidates
        if all(policy in model.candidates for model in models)
    ]
    means = {policy: fmean(model.gains[policy] for model in models) for policy in shared}
    one = _best(means) if len(means) > 1 else None
    return Choice(
        tuple(models),
        one_tau=one,
        one_gain=None if one is None else means[one],
        notes=tuple(notes),
    )


def choice_table(group: str, choice: Choice) -> Table:
    """Return the choices as a table: one row a model, and one for all models together.

    Args:
        group: of the table that was chosen in.
        choice: of `choose`.
    """
    rows = [_row(model) for model in choice.models]
    if choice.one_tau is not None and choice.one_gain is not None and len(choice.models) > 1:
        rows.append(
            (
                Entry("one τ for all", "one τ for all"),
                _tau(choice.one_tau),
                improvement(choice.one_gain),
                *[Entry(HOLE)] * 6,
            )
        )
    return Table(
        name="choice",
        title=f"Choosing τ: {group_heading(group)}",
        header=(
            "Model",
            "τ",
            "Gain (%)",
            "95 % interval",
            "Held-out gain (%)",
            "Optimism",
            "τ held out",
            f"At {USUAL} (%)",
            f"Regret of {USUAL}",
        ),
        labels=1,
        sections=(Section("", tuple(rows)),),
        scores=group,
        notes=(
            "The paper takes the τ that is best over all tasks on the test data and reports its "
            "gain, which is too high even where τ does nothing.",
            "The held-out gain gives each task the τ that is best over the other tasks, without "
            "those that share items with it; the optimism is what the paper's rule has more, in "
            "percentage points.",
            "The 95 % interval is that of the gain: a band over all τ tried, which holds for the "
            "chosen one.",
            f"The regret of {USUAL} is what it loses against that best τ. Gains are relative "
            "improvements of Avg.",
            *choice.notes,
        ),
    )


def _of_block(table: ScoreTable, block: Block, statistics: TableStatistics) -> ModelChoice | str:
    """Return the choice of a model, or why it has none."""
    averaged = averaged_columns([column.name for column in table.columns])
    tasks = {task.task: task for task in block.tasks if task.column in averaged}
    columns = {column.name: column.tasks for column in table.columns if column.name in averaged}
    scores: dict[str, dict[str, float]] = {}
    for policy in block.policies:
        own = {name: task.scores[policy] for name, task in tasks.items()}
        known = {name: score for name, score in own.items() if score is not None}
        if temperature(policy) is not None and len(known) == len(tasks):
            scores[policy] = known
    # With one temperature besides the baseline nothing was chosen.
    if BASELINE not in scores or len(scores) < 3:
        return "fewer than two temperatures other than τ = 1 have all tasks"
    if len(tasks) < 2:
        return "a single task leaves none to choose τ on"
    raw = _average(scores[BASELINE], columns)
    averages = {policy: _average(of, columns) for policy, of in scores.items()}
    gains = {}
    for policy, average in averages.items():
        gain = relative_improvement(average, raw)
        if gain is None:
            return "no relative improvement over a raw of 0 or less"
        gains[policy] = gain
    families = {} if statistics.draws is None else statistics.draws.families
    held_out = {}
    for left_out in tasks:
        # What shares items with a task has seen it.
        family = families.get(left_out, left_out)
        others = {
            name: [task for task in of if families.get(task, task) != family]
            for name, of in columns.items()
        }
        rest = {name: of for name, of in others.items() if of}
        if not rest:
            return "all tasks share items: none is left to choose τ on"
        held_out[left_out] = _best({policy: _average(of, rest) for policy, of in scores.items()})
    honest = {task: scores[policy][task] for task, policy in held_out.items()}
    tau = _best(averages)
    return ModelChoice(
        label=block.label,
        candidates=tuple(scores),
        tau=tau,
        gain=gains[tau],
        held_out=held_out,
        honest_gain=100 * (_average(honest, columns) - raw) / raw,
        gains=gains,
        usual_regret=gains[tau] - gains[USUAL] if USUAL in gains else None,
        sure={
            policy: average_gain
            for policy in scores
            if (average_gain := statistics.means.get((block.label, policy, AVERAGE))) is not None
        },
    )


def _average(scores: Mapping[str, float], columns: Mapping[str, Sequence[str]]) -> float:
    """Return the mean over columns of the mean over their tasks."""
    return fmean(fmean(scores[task] for task in tasks) for tasks in columns.values())


def _best(averages: Mapping[str, float]) -> str:
    """Return the policy of the highest average, of equals the one nearest to τ = 1."""
    return max(averages, key=lambda policy: (averages[policy], -abs(float(policy) - 1)))


def _row(model: ModelChoice) -> tuple[Entry, ...]:
    regret = model.usual_regret
    usual = model.gains.get(USUAL)
    counted = _counted(model.held_out.values())
    known = model.sure.get(model.tau)
    source = (model.label, model.tau, AVERAGE)
    gains = ", ".join(f"{two_decimals(gain)} at {tau}" for tau, gain in model.gains.items())
    return (
        Entry(model.label, model.label),
        replace(_tau(model.tau), tooltip=f"gain at each τ, %: {gains}"),
        improvement(model.gain, known, None if model.tau == BASELINE else source),
        _interval(known),
        Entry(
            two_decimals(model.honest_gain),
            model.honest_gain,
            tooltip="; ".join(f"{task}: τ = {tau}" for task, tau in model.held_out.items()),
        ),
        Entry(f"{model.optimism:.2f}", model.optimism),
        Entry(counted, counted),
        Entry(HOLE) if usual is None else improvement(usual, model.sure.get(USUAL)),
        Entry(HOLE) if regret is None else Entry(f"{regret:.2f}", regret),
    )


def _tau(policy: str) -> Entry:
    return Entry(policy, float(policy))


def _interval(known: Uncertainty | None) -> Entry:
    if known is None:
        return Entry(HOLE)
    text = interval(known)
    return Entry(text, text)


def _counted(policies: Iterable[str]) -> str:
    """Return how often each was chosen, the most frequent first: "0.9 ×38, 0.8 ×2"."""
    return ", ".join(f"{policy} ×{count}" for policy, count in Counter(policies).most_common())
