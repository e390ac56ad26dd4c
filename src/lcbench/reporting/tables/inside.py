"""Tables and sentences of what happens inside models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from lcbench.measures.estimates import Estimate
from lcbench.measures.inside import OF_HEADS, PAIRED, changes
from lcbench.repair.repair import NO_REPAIR
from lcbench.reporting.table import Entry, Section, Style, Table, name
from lcbench.reporting.tables.measurements import (
    heading_of,
    is_significant,
    ordered,
    repair_of,
    signed,
)
from lcbench.reporting.text import MISSING_VALUE

if TYPE_CHECKING:
    from lcbench.measures.files import InsideMeasurement
    from lcbench.measures.inside import ByTokens

_TITLES = {
    "sigma_a": "σ_a",
    "beyond_mask": "σ_a beyond\nthe mask",
    "sigma_s": "σ_s",
    "sigma_s_in_rows": "σ_s\nin rows",
    "entropy": "Entropy\n(nats)",
    "first": "First\ntoken",
}
_BOUNDS = {
    "attention": "Attention\nalone",
    "summed": "Bound,\nsummed",
    "stacked": "Bound,\nstacked",
    "paper": "The paper's\nline",
}
# By name, in the table of changes and in sentences.
_CHANGED = {
    "sigma_a": ("σ_a", "σ_a"),
    "entropy": ("Entropy\n(nats)", "entropy"),
    "first": ("First\ntoken", "the share of the first token"),
    "block": ("Log ratio\nof the layer", "the log ratio"),
}
# By whether a model's attention is masked.
_THEOREM = {
    False: "By the paper's Theorem 3 it falls.",
    True: "The paper's Theorem 3 is of attention without a mask.",
}
_ABOUT_CHANGES = (
    "Means over texts of the difference on the same text, with 95 % intervals from a bootstrap "
    "over texts; bold: significant. σ_a (of which the mask's part stays the same), entropy and the "
    "share of attention on the first token: means over heads."
)
_ABOUT_ATTENTION = (
    "Means over heads and texts; each text is cut to every length. σ_a: largest singular value of "
    "(I − 11ᵀ/n)A, 0 where all tokens attend alike; beyond the mask: less that of even attention "
    "to all tokens that a causal or windowed mask leaves, which cannot be alike. σ_s: standard "
    "deviation of the logits after the temperature, and within rows, which is all that softmax "
    "sees. Entropy: of the rows of A. First token: its share of attention; even attention gives it "
    "1/n, under a causal mask (1 + 1/2 + … + 1/n)/n. With 95 % intervals from a bootstrap over "
    "texts. By head: tables/heads.csv."
)
_ABOUT_SIGNAL = (
    "log(‖HC[X′]‖ / ‖HC[X]‖), mean over texts; HC[X] is X without the mean of its rows. Below 0: "
    "token vectors become more alike. The steps along the residual stream add up to the block."
)
_ABOUT_BOUNDS = (
    "Logs, means over texts. Attention alone: ‖HC[MSA]‖ / ‖HC[X]‖ after W_O. Summed: "
    "Σ_h σ_a^h ‖W_V^h W_O^h‖; stacked: ‖W_O‖ √Σ_h (σ_a^h ‖W_V^h‖)²: both must hold. The paper's "
    "line (Figure 2), mean σ_a times the largest ‖W_V^h‖ times heads, leaves out W_O and need not."
)


def inside_tables(measurements: Sequence[InsideMeasurement]) -> tuple[Table, ...]:
    """Return the tables by layer that have any row."""
    rows = ordered(measurements)
    tables = (_attention(rows), _changes(rows), _signal(rows), _bounds(rows))
    return tuple(table for table in tables if table.rows)


def head_table(measurements: Sequence[InsideMeasurement]) -> tuple[Table, ...]:
    """Return the table by head, which is too long to be shown; none without heads."""
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                *map(name, map(str, (head.layer, head.head, tokens))),
                *(_number(head.values.get(what), at) for what in OF_HEADS),
            ),
        )
        for one in ordered(measurements)
        for head in one.inside.heads
        for at, tokens in enumerate(one.inside.lengths)
    ]
    header = ("Repair", "Layer", "Head", "Tokens", *_TITLES.values())
    table = Table("heads", "Attention by head", header, 4, _sections(rows))
    return (table,) if rows else ()


def inside_headlines(measurements: Sequence[InsideMeasurement]) -> tuple[str, ...]:
    """Return sentences on each measurement, the baseline of each model first."""
    lines = []
    for one in ordered(measurements):
        inside = one.inside
        start = f"{heading_of(one)}, {repair_of(one)}"
        between = f"from {inside.lengths[0]} to {inside.lengths[-1]} tokens"
        masked = inside.is_masked
        sigmas = inside.of("attention", "beyond_mask" if masked else "sigma_a")
        if sigmas and len(inside.lengths) > 1:
            rising = sum(by.change.low > 0 for by in sigmas.values())
            falling = sum(by.change.high < 0 for by in sigmas.values())
            lines.append(
                f"{start}: {between} σ_a{' beyond the mask' if masked else ''} rises in {rising} "
                f"of {len(sigmas)} layers and falls in {falling}; of the last by "
                f"{signed(sigmas[max(sigmas)].change)}. {_THEOREM[masked]}"
            )
        firsts = inside.of("attention", "first")
        if masked and firsts:
            most = max(firsts, key=lambda layer: firsts[layer].values[-1].value)
            lines.append(
                f"{start}: at {inside.lengths[-1]} tokens the first one has most of the attention "
                f"in layer {most}, {firsts[most].values[-1].value:.0%}, and in the mean of the "
                f"layers {np.mean([by.values[-1].value for by in firsts.values()]):.0%}."
            )
        blocks = inside.of("block", "block")
        if blocks and len(inside.lengths) > 1:
            last = blocks[max(blocks)]
            lines.append(
                f"{start}: the last layer's log ratio is {last.values[-1].value:+.3f} at "
                f"{inside.lengths[-1]} tokens, and changes by {signed(last.change)} {between}."
            )
        if found := _changes_of(one, measurements):
            lines.append(_changed(f"{start} against the baseline", one, found))
        lines += [f"{heading_of(one)}: {note}." for note in inside.notes]
    return tuple(dict.fromkeys(lines))


def _attention(measurements: Sequence[InsideMeasurement]) -> Table:
    header = ("Repair", "Layer", "Tokens", *_TITLES.values())
    rows = _rows(measurements, [("attention", what) for what in _TITLES], is_signed=False)
    title = "Attention by layer and length"
    return Table("attention", title, header, 3, rows, footnotes=(_ABOUT_ATTENTION,))


def _changes_of(
    one: InsideMeasurement, measurements: Sequence[InsideMeasurement]
) -> tuple[ByTokens, ...]:
    """Return what a repair changes against its baseline; nothing if that is not among these."""
    if one.policy == NO_REPAIR.canonical:
        return ()
    for other in measurements:
        if other.policy == NO_REPAIR.canonical and _same(one) == _same(other):
            return changes(one.inside, other.inside, one.options)
    return ()


def _same(one: InsideMeasurement) -> tuple[object, ...]:
    """Return what a measurement and its baseline have in common."""
    return one.model, one.revision, one.task, one.protocol, one.data, one.options, one.inside.texts


def _changed(start: str, one: InsideMeasurement, found: Sequence[ByTokens]) -> str:
    """Return a sentence on what a repair changes at the longest texts."""
    parts = []
    for _, quantity in PAIRED:
        layers = [by for by in found if by.name == quantity]
        if layers:
            at_last = [by.values[-1] for by in layers]
            rising = sum(value.low > 0 for value in at_last)
            falling = sum(value.high < 0 for value in at_last)
            parts.append(
                f"{_CHANGED[quantity][1]} rises in {rising} of {len(layers)} layers and falls in "
                f"{falling}, in the last by {signed(at_last[-1])}"
            )
    return f"{start}, at {one.inside.lengths[-1]} tokens: {'; '.join(parts)}."


def _changes(measurements: Sequence[InsideMeasurement]) -> Table:
    rows = []
    for one in measurements:
        found = {(by.name, by.layer): by for by in _changes_of(one, measurements)}
        for layer in sorted({layer for _, layer in found}):
            for at, tokens in enumerate(one.inside.lengths):
                names = map(name, (repair_of(one), str(layer), str(tokens)))
                values = [_change(found.get((quantity, layer)), at) for quantity in _CHANGED]
                rows.append((one, (*names, *values)))
    header = ("Repair", "Layer", "Tokens", *(title for title, _ in _CHANGED.values()))
    title = "What the repair changes inside, against the baseline on the same texts"
    footnotes = (_ABOUT_CHANGES,)
    return Table("inside-changes", title, header, 3, _sections(rows), footnotes=footnotes)


def _change(by: ByTokens | None, at: int) -> Entry:
    if by is None:
        return Entry(MISSING_VALUE, None)
    value = by.values[at]
    style: Style = "best" if is_significant(value) else "neutral"
    return Entry(
        signed(value).replace("-", "−"), value.value, style, str(value), value.low, value.high
    )


def _signal(measurements: Sequence[InsideMeasurement]) -> Table:
    steps = dict.fromkeys(
        (by.part, by.name)
        for part in ("stream", "block", "branch")
        for one in measurements
        for by in one.inside.layers
        if by.part == part
    )
    titles = [
        f"{what} alone" if part == "branch" else what.replace(" ", "\n") for part, what in steps
    ]
    header = ("Repair", "Layer", "Tokens", *titles)
    rows = _rows(measurements, list(steps), is_signed=True)
    title = "What each layer and step leaves of the differences between token vectors"
    return Table("signal", title, header, 3, rows, footnotes=(_ABOUT_SIGNAL,))


def _bounds(measurements: Sequence[InsideMeasurement]) -> Table:
    header = ("Repair", "Layer", "Tokens", *_BOUNDS.values())
    rows = _rows(measurements, [("bound", what) for what in _BOUNDS], is_signed=True)
    title = "Attention alone, and its bounds"
    return Table("bounds", title, header, 3, rows, footnotes=(_ABOUT_BOUNDS,))


def _rows(
    measurements: Sequence[InsideMeasurement],
    columns: Sequence[tuple[str, str]],
    *,
    is_signed: bool,
) -> tuple[Section, ...]:
    rows = []
    for one in measurements:
        found = [one.inside.of(part, what) for part, what in columns]
        for layer in sorted({layer for column in found for layer in column}):
            for at, tokens in enumerate(one.inside.lengths):
                values = [_estimated(column.get(layer), at, is_signed) for column in found]
                names = map(name, (repair_of(one), str(layer), str(tokens)))
                rows.append((one, (*names, *values)))
    return _sections(rows)


def _sections(
    rows: Iterable[tuple[InsideMeasurement, tuple[Entry, ...]]],
) -> tuple[Section, ...]:
    return tuple(
        Section(heading, tuple(row for _, row in group))
        for heading, group in groupby(rows, key=lambda row: heading_of(row[0]))
    )


def _estimated(by: ByTokens | None, at: int, is_signed: bool) -> Entry:
    if by is None:
        return Entry(MISSING_VALUE, None)
    value: Estimate = by.values[at]
    text = f"{value.value:{'+' if is_signed else ''}.2f}".replace("-", "−")
    return Entry(text, value.value, tooltip=str(value), low=value.low, high=value.high)


def _number(values: Sequence[float] | None, at: int) -> Entry:
    """Return a head's value at a length; older measurements lack some."""
    return Entry(MISSING_VALUE, None) if values is None else Entry(f"{values[at]:.3f}", values[at])
