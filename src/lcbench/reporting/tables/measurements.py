"""How measurements of collapse are ordered, named and written in tables and figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from lcbench.measures.estimates import Estimate
from lcbench.repair.repair import NO_REPAIR, label_of
from lcbench.reporting.score_table import ordered_policies
from lcbench.reporting.table import Entry, Section
from lcbench.reporting.text import MISSING_VALUE

if TYPE_CHECKING:
    from lcbench.measures.files import Identified, InsideMeasurement, Measurement

Kind = TypeVar("Kind", "Measurement", "InsideMeasurement")


def ordered(measurements: Iterable[Kind]) -> list[Kind]:
    """Return measurements by task and model, the baseline first, then from large to small τ."""
    measurements = list(measurements)
    policies = ordered_policies({one.policy for one in measurements})
    groups = list(dict.fromkeys((one.task, one.model, one.revision) for one in measurements))
    return sorted(
        measurements,
        key=lambda one: (
            groups.index((one.task, one.model, one.revision)),
            one.policy != NO_REPAIR.canonical,
            policies.index(one.policy),
        ),
    )


def name_of(one: Identified) -> str:
    return one.label or one.model.rpartition("/")[2]


def with_distinct_labels(
    measurements: Iterable[Kind], others: Iterable[Identified] = ()
) -> list[Kind]:
    """Return measurements with a label for models that differ in nothing but their revision.

    Args:
        measurements: measurements of any models.
        others: further measurements in the same report.
    """
    measurements = list(measurements)
    revisions: dict[str, set[str]] = {}
    every: list[Identified] = [*measurements, *others]
    for one in every:
        revisions.setdefault(name_of(one), set()).add(one.revision)
    return [
        replace(one, label=f"{name_of(one)} ({one.revision.removeprefix('sha256-')[:7]})")
        if len(revisions[name_of(one)]) > 1
        else one
        for one in measurements
    ]


def repair_of(one: Measurement | InsideMeasurement) -> str:
    return label_of(one.policy) if one.policy else "as given"


def heading_of(one: Measurement | InsideMeasurement) -> str:
    return f"{name_of(one)}, {one.task}"


def sections(
    rows: Iterable[tuple[Measurement, tuple[Entry, ...]]],
) -> tuple[Section, ...]:
    return tuple(
        Section(heading, tuple(row for _, row in group))
        for heading, group in groupby(rows, key=lambda row: heading_of(row[0]))
    )


def estimated(
    estimate: Estimate | None, is_change: bool = False, has_interval: bool = True
) -> Entry:
    """Return an estimate, with its interval or only with that as a tooltip."""
    if estimate is None:
        return Entry(MISSING_VALUE)
    text = f"{estimate.value:+.3f}" if is_change else f"{estimate.value:.3f}"
    interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
    style = "best" if is_change and is_significant(estimate) else "neutral"
    return Entry(
        f"{text} ({interval})" if has_interval else text,
        estimate.value,
        style,  # type: ignore[arg-type]
        f"95 % interval {interval}",
        estimate.low,
        estimate.high,
    )


def measured(value: float | None) -> Entry:
    return Entry(MISSING_VALUE if value is None else f"{value:.3f}", value)


def is_significant(estimate: Estimate) -> bool:
    return estimate.low > 0 or estimate.high < 0


def signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def length_range(shortest: float, longest: float) -> str:
    return f"{shortest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
