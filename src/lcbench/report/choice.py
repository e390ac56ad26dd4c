"""The choice of τ: the paper's rule, on the test data, and an honest one, with tasks held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lcbench.report.table1 import Table


@dataclass(frozen=True)
class ModelChoice:
    """How a model's τ is chosen, and what that gains; gains are relative improvements of `Avg`, %.

    Attributes:
        label: of the block.
        candidates: the constant policies that have all tasks, the baseline among them.
        tau: the best of them over all tasks: the paper's rule.
        gain: at that τ.
        held_out: for each task the τ that is best over the others.
        honest_gain: with each task at its own τ of `held_out`: the cross-validated gain.
        honest_low: lower end of its 95 % interval, the choices taken as they are; None: unknown.
        honest_high: upper end.
        gains: at each candidate.
        usual_regret: what τ = 0.8 loses against the best τ; None where it was not tried.
    """

    label: str
    candidates: tuple[str, ...]
    tau: str
    gain: float
    held_out: Mapping[str, str]
    honest_gain: float
    honest_low: float | None
    honest_high: float | None
    gains: Mapping[str, float]
    usual_regret: float | None

    @property
    def optimism(self) -> float:
        """By how much the paper's rule overstates the gain, in percentage points."""
        return self.gain - self.honest_gain


@dataclass(frozen=True)
class Choice:
    """The choices of all models of a table.

    Attributes:
        models: those of which two temperatures or more have all tasks.
        one_tau: the best τ for all of them: that of the highest mean gain; None: none in common.
        one_gain: that mean gain, %.
        notes: which models are left out, and why.
    """

    models: tuple[ModelChoice, ...]
    one_tau: str | None
    one_gain: float | None
    notes: tuple[str, ...] = ()


def choose(table: Table) -> Choice | None:
    """Return how τ is chosen in a table; None where no model has a choice."""
    return None
