"""Scores over the length of a text, and how much each τ gains or loses there."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lcbench.reporting.figures.drawing import (
    DASHES,
    MARKERS,
    Certainty,
    certainty,
    certainty_handles,
    csv_text,
    improvement_axis,
    is_linear,
    mark,
    new_figure,
    pages,
    written,
)
from lcbench.reporting.score_table import BASELINE, ordered_policies
from lcbench.reporting.tables.by_length import LengthBuckets

_ROWS_PER_PAGE = 6
_WIDTH_INCHES = 10.0
_ROW_INCHES = 2.5
_LEGEND_INCHES = 0.7
# Points of different τ stand side by side within this share of a bucket's place.
_SIDE_BY_SIDE = 0.6

# One order of colours for one order of τ, also in grey, short of the yellow that is weak on white.
_COLOURS = "cividis"
_LIGHTEST = 0.75

_TOKENS = {
    "document": "tokens of the relevant document",
    "query": "tokens of the query",
    "text": "tokens of the text",
    "pair": "tokens of the longer text",
}


def by_length_figures(
    found: Sequence[LengthBuckets], policies: Mapping[str, Sequence[str]] | None = None
) -> list[Figure]:
    """A row a task, model and kind of length: scores, and improvements with their intervals.

    Args:
        found: of `by_length.by_length`; only those of two lengths or more are drawn.
        policies: to be drawn beside the baseline, by label of the model; by default all.
    """
    drawn = [one for one in found if one.tells_lengths_apart]
    figures = []
    for page in pages(len(drawn), _ROWS_PER_PAGE):
        of_page = [drawn[place] for place in page]
        asked = {
            one.label: tuple(one.policies) if policies is None else tuple(policies[one.label])
            for one in of_page
        }
        every = ordered_policies([BASELINE, *(policy for own in asked.values() for policy in own)])
        styles = _styles(every)
        figure = new_figure(_WIDTH_INCHES, len(of_page) * _ROW_INCHES + _LEGEND_INCHES)
        known: set[Certainty] = set()
        for row, one in enumerate(of_page):
            own = [policy for policy in one.policies if policy in (BASELINE, *asked[one.label])]
            left, right = (
                figure.add_subplot(len(of_page), 2, 2 * row + column) for column in (1, 2)
            )
            _scores(left, one, own, styles)
            known |= _improvements(right, one, own, styles)
            # Names are text: a dollar sign in one must not start a formula.
            for axes, title in ((left, one.task), (right, one.label)):
                axes.set_title(title, fontsize="medium", parse_math=False)
                _lengths(axes, one)
        handles = [Line2D([], [], label=f"τ = {policy}", **styles[policy]) for policy in every]
        figure.legend(
            handles=[*handles, *certainty_handles(known)],
            loc="outside upper center",
            ncols=min(5, len(handles) + 2),
            handlelength=4,
        )
        figures.append(figure)
    return figures


def plot_by_length(
    found: Sequence[LengthBuckets], stem: Path, policies: Mapping[str, Sequence[str]] | None = None
) -> list[Path]:
    """Write `by_length_figures` as PNG and SVG (`drawing.written`) and return the paths."""
    return written(lambda: by_length_figures(found, policies), stem)


def by_length_csv(found: Sequence[LengthBuckets]) -> str:
    """All buckets, those too small for a score among them, one a row and policy."""
    header = ("group", "column", "task", "model", "by", "metric", "low", "high", "items")
    return csv_text(
        (*header, "policy", "score", "improvement", "interval_low", "interval_high"),
        (
            (
                *(one.group, one.column, one.task, one.label, one.by, one.metric),
                *(bucket.low, bucket.high, bucket.count, policy),
                one.scores[policy][place],
                None if policy == BASELINE else one.improvements[policy][place],
                *((None if policy == BASELINE else one.intervals[policy][place]) or (None, None)),
            )
            for one in found
            for place, bucket in enumerate(one.buckets)
            for policy in one.policies
        ),
    )


def _styles(policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The look of each policy; the baseline is thick, black and below the others."""
    colours = matplotlib.colormaps[_COLOURS]
    others = [policy for policy in policies if policy != BASELINE]
    styles: dict[str, dict[str, Any]] = {
        BASELINE: {"color": "black", "linewidth": 3.2, "marker": "o", "markersize": 7, "zorder": 2}
    }
    for place, policy in enumerate(others):
        styles[policy] = {
            "color": colours(_LIGHTEST * place / max(1, len(others) - 1)),
            "marker": MARKERS[(place + 1) % len(MARKERS)],
            "linestyle": DASHES[place % len(DASHES)],
            "linewidth": 1.2,
            "markersize": 5,
            "zorder": 3,
        }
    return {policy: styles[policy] for policy in policies}


def _scores(
    axes: Axes, one: LengthBuckets, policies: Sequence[str], styles: Mapping[str, dict[str, Any]]
) -> None:
    for policy in policies:
        values = [math.nan if score is None else score for score in one.scores[policy]]
        axes.plot(range(len(values)), values, **styles[policy])
    axes.set_ylabel(f"{one.metric} × 100", fontsize="small", parse_math=False)


def _improvements(
    axes: Axes, one: LengthBuckets, policies: Sequence[str], styles: Mapping[str, dict[str, Any]]
) -> set[Certainty]:
    """Draw the improvements and return what is known of them."""
    others = [policy for policy in policies if policy != BASELINE]
    seen: set[Certainty] = set()
    every = []
    for number, policy in enumerate(others):
        aside = _SIDE_BY_SIDE * ((number + 0.5) / len(others) - 0.5)
        style = styles[policy]
        for place, change in enumerate(one.changes(policy)):
            value, ends, uncertainty = change.value, change.ends, change.uncertainty
            if value is None:
                continue
            known = certainty(ends, None if uncertainty is None else uncertainty.excludes_zero)
            seen.add(known)
            every += [value, *(ends or ())]
            at = place + aside
            if ends is not None:
                axes.plot([at, at], ends, color=style["color"], linewidth=1.2, zorder=2)
            axes.plot(
                [at],
                [value],
                **mark(known, style["color"], style["marker"]),
                markersize=style["markersize"],
                zorder=3,
            )
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_ylabel(improvement_axis(axes, "y", is_linear(every)), fontsize="small")
    return seen


def _lengths(axes: Axes, one: LengthBuckets) -> None:
    """The axis of lengths, with the number of items below each."""
    labels = [f"{bucket.label}\n{bucket.count:,}" for bucket in one.buckets]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.tick_params(labelsize="small")
    axes.set_xlabel(f"{_TOKENS[one.by]}, and number of items", fontsize="small")
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_axisbelow(True)
