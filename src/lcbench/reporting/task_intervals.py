"""Intervals and p values of a task's cells against its baseline, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table import BASELINE
from lcbench.uncertainty.bootstrap import Resampled, generator, interval, resample
from lcbench.uncertainty.items import NO_ITEMS, ROUNDING, Samples, paired, read_samples, why_unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

MOST_LOST = -100.0
"""Where an interval ends at the latest, in %: a score that cannot be below 0 cannot lose more.

A confidence interval may be cut at what is possible without covering the truth less often; those of
few items, which are as wide as Student's t, would otherwise go far beyond."""


def possible(low: float, high: float) -> tuple[float, float]:
    """Return the part of an interval, of a score that is never below 0, that is possible."""
    return max(low, MOST_LOST), max(high, MOST_LOST)


@dataclass(frozen=True)
class TaskOutcome:
    """What was found of one task.

    Attributes:
        pairs: by label and policy.
        draws: of scores as fractions, by label and policy, shape (resamples,).
        units: by label and policy, what they are and how many.
        signed: whether the task's score can be below 0; None: nothing is known of its items.
        unknown: by label and policy, why there is nothing.
    """

    pairs: Mapping[tuple[str, str], Uncertainty]
    draws: Mapping[tuple[str, str], NDArray[np.float32]]
    units: Mapping[tuple[str, str], tuple[str, int]]
    unknown: Mapping[tuple[str, str], str]
    signed: bool | None = None


_NOT_ABOVE_ZERO = "the baseline is not above 0"
_SINGLE = "a single item says nothing of others"
_OTHER_SCORE = "the table's score is not that of all items, as where it takes some subsets only"
_OTHER_ITEMS = "the items are not those of the baseline"
_OTHER_EXPERIMENTS = "the experiments are not as many as the baseline's"
OF_BASELINE = "of the baseline, "

OVER_AS_IT_IS = "the baseline is not told from 0 and taken as it is"


def task_outcome(
    task: str,
    asked: Mapping[tuple[str, str], tuple[float, CellFiles]],
    resamples: int,
    seed: int,
) -> TaskOutcome:
    """Resample the cells of one task, those with the same items together."""
    places = list(asked)
    samples: list[Samples | None] = [read_samples(files) for _, files in asked.values()]
    pairs: dict[tuple[str, str], Uncertainty] = {}
    draws: dict[tuple[str, str], NDArray[np.float32]] = {}
    units: dict[tuple[str, str], tuple[str, int]] = {}
    # Of each cell why it has nothing.
    why = {
        place: "" if one is not None else why_unknown(files) or NO_ITEMS
        for place, one, (_, files) in zip(places, samples, asked.values(), strict=True)
    }
    unknown: dict[tuple[str, str], str] = {}
    signed: bool | None = None
    for group in paired(samples):
        cells = [one for one in (samples[number] for number in group) if one is not None]
        drawn = resample(cells, resamples, generator(seed, task, identity_of(cells[0])))
        if drawn is None:
            why.update({places[number]: _SINGLE for number in group})
            continue
        signed = bool(signed) or drawn.signed
        right = {}
        for place, number in enumerate(group):
            # A table of some of the subsets has other scores than the whole.
            if abs(drawn.scores[place] - asked[places[number]][0]) <= 2 * ROUNDING:
                right[places[number]] = place
            else:
                why[places[number]] = _OTHER_SCORE
        for (label, policy), place in right.items():
            draws[label, policy] = np.ascontiguousarray(drawn.draws[:, place])
            units[label, policy] = drawn.units, drawn.count
            if policy != BASELINE and (label, BASELINE) in right:
                found = of_pair(drawn, right[label, BASELINE], place)
                if found is None:
                    unknown[label, policy] = _NOT_ABOVE_ZERO
                else:
                    pairs[label, policy] = found
    of = dict(zip(places, samples, strict=True))
    for cell in places:
        if cell[1] != BASELINE and cell not in pairs and cell not in unknown:
            raw = cell[0], BASELINE
            unknown[cell] = why[cell] or _unlike_baseline(
                of[cell], of.get(raw), why.get(raw, NO_ITEMS)
            )
    return TaskOutcome(pairs, draws, units, unknown, signed)


def _unlike_baseline(own: Samples | None, baseline: Samples | None, why: str) -> str:
    """Return why a cell cannot be paired with its baseline, which itself may have nothing."""
    if why or own is None or baseline is None:
        return OF_BASELINE + (why or NO_ITEMS)
    same = own.keys() == baseline.keys() and all(
        own[part].keys == baseline[part].keys for part in own
    )
    return _OTHER_EXPERIMENTS if same else _OTHER_ITEMS


def identity_of(samples: Samples) -> str:
    """Return what the random numbers of a task go by beside its name: its items."""
    return repr(sorted((part, sample.keys) for part, sample in samples.items()))


def of_pair(drawn: Resampled, raw: int, ours: int) -> Uncertainty | None:
    """Return how sure an improvement is; None where the baseline is not above 0."""
    before, after = float(drawn.scores[raw]), float(drawn.scores[ours])
    if before <= 0:
        return None
    draws = drawn.draws[:, [raw, ours]].astype(np.float64).T
    value, notes = 100 * (after - before) / before, []
    for fixed in (False, True):
        gradient = np.zeros(len(drawn.scores))
        gradient[raw] = -100 / before if fixed else -100 * after / before**2
        gradient[ours] = 100 / before
        improvements = relative_changes(draws[0], draws[1], over=before if fixed else None)
        reaching, deviation = drawn.stretch(gradient)[0], drawn.deviation(gradient)
        low, high = interval(improvements, reaching, value, deviation)
        if np.isfinite([low, high]).all():
            break
        notes.append(OVER_AS_IT_IS)
    if drawn.still:
        each = "each of a single item" if len(drawn.still) > 1 else "of a single item"
        notes.append(f"without the noise of {listed(drawn.still)}, {each}")
    if not drawn.signed:
        low, high = possible(low, high)
    p = drawn.p_value(raw, ours)
    return Uncertainty(low, high, p=p, units=drawn.units, count=drawn.count, note="; ".join(notes))


def relative_changes(
    raw: NDArray[np.float64], ours: NDArray[np.float64], over: float | None = None
) -> NDArray[np.float64]:
    """Return relative improvements in %; infinity over a raw that is not above 0.

    Args:
        raw: shape (resamples,).
        ours: the same.
        over: what the difference is divided by; None: by raw.
    """
    if over is not None:
        return 100 * (ours - raw) / over
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 100 * (ours - raw) / raw
    return np.where(raw > 0, found, np.copysign(np.inf, ours - raw))


def listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
