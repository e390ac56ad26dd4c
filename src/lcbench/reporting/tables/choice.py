"""The choice of τ, or of a repair, by the paper's rule and with tasks held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    Block,
    ScoreTable,
    distance,
    has_several_kinds,
    is_candidate,
    relative_improvement,
    temperature,
    word_of,
)
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, formatted, improvement, interval, number
from lcbench.reporting.text import MISSING_VALUE, group_heading, two_decimals
from lcbench.tasks.suites import averaged_columns

DEFAULT_TAU = "0.8"
"""The τ of three of the five models in the paper's Table 1, used if there is no search."""


@dataclass(frozen=True)
class ModelChoice:
    """The choice of a model's τ and its gain; gains are relative improvements of `Avg` in %.

    Attributes:
        label: label of the block.
        candidates: candidates with scores of all tasks, including the baseline: constants, or all
            repairs where there are several kinds.
        tau: candidate with the highest average over all tasks, as the paper chooses it.
        gain: gain at `tau`.
        held_out: for each task, the τ that is best over the other tasks.
        held_out_gain: cross-validated gain, with each task at its τ of `held_out`. It has no
            interval: an interval that treats the choices as fixed would exclude zero twice as often
            as it should.
        gains: gain at each candidate.
        default_regret: difference of the gains at the best τ and at τ = 0.8; None if 0.8 was not
            tried.
        intervals: simultaneous confidence bands of the gains, where known.
    """

    label: str
    candidates: tuple[str, ...]
    tau: str
    gain: float
    held_out: Mapping[str, str]
    held_out_gain: float
    gains: Mapping[str, float]
    default_regret: float | None
    intervals: Mapping[str, Uncertainty] = field(default_factory=dict)

    @property
    def optimism(self) -> float:
        """The gain by the paper's rule minus the held-out gain, in percentage points."""
        return self.gain - self.held_out_gain


@dataclass(frozen=True)
class Choice:
    """How τ is chosen for all models of a table.

    Attributes:
        models: models with all tasks at two or more temperatures other than τ = 1.
        common_tau: τ of the highest mean gain over these models; None if they share no candidates.
        common_gain: mean gain at `common_tau`, %.
        notes: models that are left out, and why.
    """

    models: tuple[ModelChoice, ...]
    common_tau: str | None
    common_gain: float | None
    notes: tuple[str, ...] = ()


def choose(table: ScoreTable, statistics: TableStatistics) -> Choice | None:
    """Choose τ for each model of a table, by the paper's rule and with tasks held out.

    The paper's rule takes the τ with the highest `Avg` (among equals, the one closest to 1) and
    reports that `Avg`: the best of several noisy numbers, which is too high even if τ has no
    effect. With tasks held out, each task gets the τ that is best, by the same rule, over the tasks
    that share no items with it (`Draws.families`); a column without such tasks is left out. The
    resulting gain is cross-validated. Both rules may choose τ = 1, unlike TempScale's line of the
    table.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table.

    Returns:
        The choices; None if no model has two candidates to choose from.
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
        common_tau=one,
        common_gain=None if one is None else means[one],
        notes=tuple(notes),
    )


def choice_table(group: str, choice: Choice) -> Table:
    """Return the choices as a table with a row per model and one for all models together.

    Args:
        group: group of the table in which τ was chosen.
        choice: result of `choose`.
    """
    word, several = word_of(one for model in choice.models for one in model.candidates)
    no_effect = "τ has no effect" if word == "τ" else "no repair has an effect"
    rows = [_row(model, word) for model in choice.models]
    if choice.common_tau is not None and choice.common_gain is not None and len(choice.models) > 1:
        rows.append(
            (
                Entry(f"one {word} for all", f"one {word} for all"),
                _entry(choice.common_tau, word),
                improvement(choice.common_gain),
                *[Entry(MISSING_VALUE)] * 6,
            )
        )
    return Table(
        name="choice",
        title=f"Choosing {_a(word)}: {group_heading(group)}",
        header=(
            "Model",
            word if word == "τ" else word.capitalize(),
            "Gain (%)",
            "95 % interval",
            "Held-out gain (%)",
            "Optimism",
            f"{word if word == 'τ' else word.capitalize()} held out",
            f"At {DEFAULT_TAU} (%)",
            f"Regret of {DEFAULT_TAU}",
        ),
        labels=1,
        sections=(Section("", tuple(rows)),),
        scores=group,
        notes=(
            f"The paper takes the {word} that is best over all tasks on the test data and reports "
            f"its gain, which is too high even if {no_effect}.",
            f"The held-out gain gives each task the {word} that is best over the other tasks, "
            "without those that share items with it. The optimism is the gain minus the held-out "
            "gain, in percentage points.",
            f"The 95 % interval of the gain is a simultaneous band over all {several} tried, so it "
            "accounts for the choice.",
            f"The regret of {DEFAULT_TAU} is how much less it gains than the best {word}. Gains "
            "are relative improvements of Avg.",
            *choice.notes,
        ),
    )


def _of_block(table: ScoreTable, block: Block, statistics: TableStatistics) -> ModelChoice | str:
    """Return the choice of a model, or the reason why it has none."""
    averaged = averaged_columns([column.name for column in table.columns])
    tasks = {task.task: task for task in block.tasks if task.column in averaged}
    columns = {column.name: column.tasks for column in table.columns if column.name in averaged}
    scores: dict[str, dict[str, float]] = {}
    several_kinds = has_several_kinds(block.policies)
    for policy in block.policies:
        own = {name: task.scores[policy] for name, task in tasks.items()}
        known = {name: score for name, score in own.items() if score is not None}
        if (is_candidate(policy) or several_kinds) and len(known) == len(tasks):
            scores[policy] = known
    word, _ = word_of(block.policies)
    # With a single one other than the baseline there is nothing to choose.
    if BASELINE not in scores or len(scores) < 3:
        several = "temperatures" if word == "τ" else "repairs"
        return f"fewer than two {several} other than τ = 1 have all tasks"
    if len(tasks) < 2:
        return f"a single task leaves none to choose {_a(word)} on"
    raw = _average(scores[BASELINE], columns)
    averages = {policy: _average(of, columns) for policy, of in scores.items()}
    gains = {}
    for policy, average in averages.items():
        gain = relative_improvement(average, raw)
        if gain is None:
            return "no relative improvement over a baseline of 0 or less"
        gains[policy] = gain
    families = {} if statistics.draws is None else statistics.draws.families
    held_out = {}
    for left_out in tasks:
        # Tasks that share items are not independent of each other.
        family = families.get(left_out, left_out)
        others = {
            name: [task for task in of if families.get(task, task) != family]
            for name, of in columns.items()
        }
        rest = {name: of for name, of in others.items() if of}
        if not rest:
            return f"all tasks share items: none is left to choose {_a(word)} on"
        held_out[left_out] = _best({policy: _average(of, rest) for policy, of in scores.items()})
    chosen = {task: scores[policy][task] for task, policy in held_out.items()}
    tau = _best(averages)
    return ModelChoice(
        label=block.label,
        candidates=tuple(scores),
        tau=tau,
        gain=gains[tau],
        held_out=held_out,
        held_out_gain=100 * (_average(chosen, columns) - raw) / raw,
        gains=gains,
        default_regret=gains[tau] - gains[DEFAULT_TAU] if DEFAULT_TAU in gains else None,
        intervals={
            policy: average_gain
            for policy in scores
            if (average_gain := statistics.means.get((block.label, policy, AVERAGE))) is not None
        },
    )


def _average(scores: Mapping[str, float], columns: Mapping[str, Sequence[str]]) -> float:
    """Return the mean over columns of the mean over their tasks."""
    return fmean(fmean(scores[task] for task in tasks) for tasks in columns.values())


def _best(averages: Mapping[str, float]) -> str:
    """Return the policy of the highest average; among equals, the one closest to the baseline."""

    def merit(policy: str) -> tuple[float, int, float]:
        parts, tau = distance(policy)
        return averages[policy], -parts, -tau

    return max(averages, key=merit)


def _a(word: str) -> str:
    return word if word == "τ" else f"a {word}"


def _row(model: ModelChoice, word: str) -> tuple[Entry, ...]:
    default = model.gains.get(DEFAULT_TAU)
    show = str if word == "τ" else label_of
    counted = _counted(map(show, model.held_out.values()))
    known = model.intervals.get(model.tau)
    source = (model.label, model.tau, AVERAGE)
    gains = ", ".join(f"{two_decimals(gain)} at {show(tau)}" for tau, gain in model.gains.items())
    return (
        Entry(model.label, model.label),
        replace(_entry(model.tau, word), tooltip=f"gain at each {word}, %: {gains}"),
        improvement(model.gain, known, None if model.tau == BASELINE else source),
        _interval(known),
        number(
            model.held_out_gain,
            tooltip="; ".join(f"{task}: {label_of(tau)}" for task, tau in model.held_out.items()),
        ),
        formatted(model.optimism, ".2f"),
        Entry(counted, counted),
        improvement(default, model.intervals.get(DEFAULT_TAU)),
        formatted(model.default_regret, ".2f"),
    )


def _entry(policy: str, word: str) -> Entry:
    tau = temperature(policy)
    if word == "τ" and tau is not None:
        return Entry(policy, tau)
    return Entry(label_of(policy), label_of(policy))


def _interval(known: Uncertainty | None) -> Entry:
    if known is None:
        return Entry(MISSING_VALUE)
    text = interval(known)
    return Entry(text, text)


def _counted(policies: Iterable[str]) -> str:
    """Return how often each was chosen, the most frequent first: "0.9 ×38, 0.8 ×2"."""
    return ", ".join(f"{policy} ×{count}" for policy, count in Counter(policies).most_common())
