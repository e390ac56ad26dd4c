"""Scores over the length of a text, and how much each τ gains or loses there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lcbench.repair.repair import label_of
from lcbench.reporting.figures.panels import (
    Curves,
    Point,
    Series,
    certainty,
    is_linear,
    pages,
)
from lcbench.reporting.figures.printed import (
    csv_text,
    draw_curves,
    legend_marks,
    new_figure,
    style,
)
from lcbench.reporting.score_table import BASELINE, ordered_policies, relative_improvement
from lcbench.reporting.tables.by_length import LengthBuckets
from lcbench.reporting.tables.splits_by_length import LengthRow, LengthTable

_ROWS_PER_PAGE = 6
_WIDTH_INCHES = 10.0
_ROW_INCHES = 2.5
_LEGEND_LINE_INCHES = 0.24
_LEGEND_COLUMNS = 5
# Around the panels of a row: their titles, and the axes with their labels.
_TITLE_INCHES, _BELOW_INCHES, _BESIDE_INCHES, _EDGE_INCHES = 0.4, 0.72, 0.78, 0.12
_LABEL_INCHES = 0.5
# With more buckets, their names are small so that they do not overlap.
_MOST_NAMES = 7
# Points of different τ stand side by side within this share of a bucket's place.
_SIDE_BY_SIDE = 0.6

# Documents and queries first, since collapse is expected there.
_ORDER = ("document", "query", "pair", "text")

_TOKENS = {
    "document": "tokens of the relevant document",
    "query": "tokens of the query",
    "text": "tokens of the text",
    "pair": "tokens of the longer text",
}


def by_length_panels(
    result: LengthBuckets, policies: Sequence[str], every: Sequence[str]
) -> tuple[Curves, Curves]:
    """Return the panels of the scores and of the improvements of a model on a task.

    Args:
        result: scores by length.
        policies: policies to show; the baseline has scores only.
        every: policies of the figure, in the order of their styles.
    """
    places = tuple(map(float, range(len(result.buckets))))
    names = [bucket.label for bucket in result.buckets]
    others = [policy for policy in every if policy != BASELINE]
    orders = {policy: place for place, policy in enumerate(others)}

    def series(policy: str, points: Sequence[Point]) -> Series:
        name = label_of(policy)
        of = f"{result.label}, {result.task}"
        return Series(name, places, tuple(points), orders.get(policy), of)

    scores = [
        series(policy, list(map(Point, names, result.scores[policy])))
        for policy in result.policies
        if policy in policies
    ]
    improvements = []
    for policy in result.policies:
        if policy not in policies or policy == BASELINE:
            continue
        points = []
        for name, change in zip(names, result.changes[policy], strict=True):
            known = None if change.uncertainty is None else change.uncertainty.excludes_zero
            points.append(
                Point(name, change.value, change.ends, certainty(change.ends, known))
                if change.value is not None
                else Point(name, None)
            )
        improvements.append(series(policy, points))
    counts = tuple(bucket.count for bucket in result.buckets)
    along = f"{_TOKENS[result.by]}, and number of items"
    ticks = tuple(
        (place, f"{bucket.label}\n{bucket.count:,}")
        for place, bucket in zip(places, result.buckets, strict=True)
    )
    return (
        Curves(result.task, tuple(scores), along, ticks, f"{result.metric} × 100", counts=counts),
        Curves(
            result.label,
            tuple(improvements),
            along,
            ticks,
            is_joined=False,
            aside=_SIDE_BY_SIDE,
            counts=counts,
        ),
    )


def all_panels(
    splits: Sequence[LengthTable], buckets: Sequence[LengthBuckets]
) -> list[tuple[str, Curves, Curves]]:
    """Return a name and the two panels of all scores by length, at all τ.

    Args:
        splits: scores of tasks whose splits are lengths, which come first.
        buckets: scores by length of `by_length.buckets_of`; those with one length are left out.
    """
    by_splits = [
        (" · ".join((label, table.task, "by document")), *_panels_of_splits(table, label, rows))
        for table in splits
        for label, rows in _by_model(table).items()
    ]
    by_items = [
        (
            " · ".join((result.label, result.task, f"by {result.by}")),
            *by_length_panels(result, result.policies, ordered_policies(result.policies)),
        )
        for result in sorted(buckets, key=lambda result: _ORDER.index(result.by))
        if result.tells_lengths_apart
    ]
    return by_splits + by_items


def _by_model(table: LengthTable) -> dict[str, list[LengthRow]]:
    """Return the rows of each model that has scores at two lengths or more."""
    rows: dict[str, list[LengthRow]] = {}
    for row in table.rows:
        label = row.label if row.window is None else f"{row.label}, window {row.window}"
        rows.setdefault(label, []).append(row)
    return {
        label: own
        for label, own in rows.items()
        if any(sum(score is not None for score in row.scores.values()) > 1 for row in own)
    }


def _panels_of_splits(
    table: LengthTable, label: str, rows: Sequence[LengthRow]
) -> tuple[Curves, Curves]:
    lengths = [length for length in table.lengths if length in rows[0].scores]
    places = tuple(map(float, range(len(lengths))))
    raw = next((row.scores for row in rows if row.policy == BASELINE), {})
    others = [row.policy for row in rows if row.policy != BASELINE]
    scores, improvements = [], []
    for row in rows:
        order = None if row.policy == BASELINE else others.index(row.policy)
        points = [Point(str(length), row.scores[length]) for length in lengths]
        series = Series(
            label_of(row.policy), places, tuple(points), order, f"{label}, {table.task}"
        )
        scores.append(series)
        if row.policy == BASELINE:
            continue
        gains = [
            Point(str(length), gain, known=None if gain is None else "unknown")
            for length in lengths
            for gain in [relative_improvement(row.scores[length], raw.get(length))]
        ]
        improvements.append(replace(series, points=tuple(gains)))
    along = "tokens of the relevant document"
    ticks = tuple((place, str(length)) for place, length in zip(places, lengths, strict=True))
    return (
        Curves(table.task, tuple(scores), along, ticks, "main score × 100"),
        Curves(label, tuple(improvements), along, ticks, is_joined=False, aside=_SIDE_BY_SIDE),
    )


def by_length_figures(
    buckets: Sequence[LengthBuckets], policies: Mapping[str, Sequence[str]]
) -> list[Figure]:
    """Draw a row for each task, model and kind of length: scores, and improvements.

    Args:
        buckets: results of `by_length.buckets_of`; only those with two lengths or more are drawn.
        policies: policies to draw besides the baseline, by label of the model.
    """
    drawn = [result for result in buckets if result.tells_lengths_apart]
    return [
        _figure([drawn[place] for place in page], policies)
        for page in pages(len(drawn), _ROWS_PER_PAGE)
    ]


def by_length_csv(buckets: Sequence[LengthBuckets]) -> str:
    """Return all buckets, including those too small for a score, with a row for each policy."""
    header = ("group", "column", "task", "model", "by", "metric", "low", "high", "items")
    return csv_text(
        (*header, "policy", "score", "improvement", "interval_low", "interval_high"),
        (
            (
                *(result.group, result.column, result.task, result.label, result.by, result.metric),
                *(bucket.low, bucket.high, bucket.count, policy),
                result.scores[policy][place],
                *(change.value, *(change.ends or (None, None))),
            )
            for result in buckets
            for place, bucket in enumerate(result.buckets)
            for policy in result.policies
            for change in [result.change(policy, place)]
        ),
    )


def _figure(buckets: Sequence[LengthBuckets], policies: Mapping[str, Sequence[str]]) -> Figure:
    """Draw a page.

    All positions are computed here, since matplotlib's layout engines draw each figure twice and
    there may be forty figures.
    """
    asked = {result.label: {BASELINE, *policies[result.label]} for result in buckets}
    every = ordered_policies(policy for own in asked.values() for policy in own)
    rows = [by_length_panels(result, sorted(asked[result.label]), every) for result in buckets]
    others = [policy for policy in every if policy != BASELINE]
    looks = {policy: style(place) for place, policy in enumerate(others)}
    handles = [
        Line2D([], [], label=label_of(policy), **looks.get(policy, style(None))) for policy in every
    ]
    known = {
        point.known
        for _, panel in rows
        for series in panel.series
        for point in series.points
        if point.known is not None
    }
    handles += legend_marks(known)
    columns = min(_LEGEND_COLUMNS, len(handles))
    legend_inches = 0.2 + _LEGEND_LINE_INCHES * math.ceil(len(handles) / columns)
    height = len(rows) * _ROW_INCHES + legend_inches
    figure = new_figure(_WIDTH_INCHES, height)
    # Set beforehand: changing the style of existing ticks takes as long as making them.
    several = max(len(panel.ticks) for panels in rows for panel in panels) > _MOST_NAMES
    with matplotlib.rc_context(
        {
            "xtick.labelsize": 6 if several else "small",
            "ytick.labelsize": "small",
            "axes.labelsize": "small",
        }
    ):
        _fill(figure, rows)
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.05 / height),
        borderaxespad=0,
        ncols=columns,
        handlelength=4,
    )
    return figure


def _fill(figure: Figure, rows: Sequence[Sequence[Curves]]) -> None:
    height = figure.get_figheight()
    for row, panels in enumerate(rows):
        bottom = (len(rows) - 1 - row) * _ROW_INCHES + _BELOW_INCHES
        for column, panel in enumerate(panels):
            left = column * _WIDTH_INCHES / 2 + _BESIDE_INCHES
            wide = _WIDTH_INCHES / 2 - _BESIDE_INCHES - _EDGE_INCHES
            high = _ROW_INCHES - _TITLE_INCHES - _BELOW_INCHES
            axes = figure.add_axes(
                (left / _WIDTH_INCHES, bottom / height, wide / _WIDTH_INCHES, high / height)
            )
            draw_curves(axes, panel, is_linear(panel.values))
            _label(axes, panel, wide, high)
            if any(below[column].along == panel.along for below in rows[row + 1 : row + 2]):
                axes.set_xlabel("")


def _label(axes: Axes, panel: Curves, wide: float, high: float) -> None:
    """Put the title and the labels at fixed positions, so that ticks need not be measured."""
    # Names are text: a dollar sign in one must not start a formula.
    axes.set_title(panel.title, fontsize="medium", y=1.0, parse_math=False)
    axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    axes.xaxis.set_label_coords(0.5, -_LABEL_INCHES / high)
    axes.yaxis.set_label_coords(-_LABEL_INCHES / wide, 0.5)
