"""Figures of what happens inside models: a line a length over the layers, a panel a temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcbench.reporting.figures.panels import Curves, Point, Series
from lcbench.reporting.tables.measurements import heading_of, ordered, repair_of

if TYPE_CHECKING:
    from lcbench.measures.files import InsideMeasurement

# Figures by the names of their files: part, quantity, and title of the axis.
_FIGURES = {
    "sigma_a": ("attention", "sigma_a", "σ_a, mean of the heads"),
    "sigma_s": ("attention", "sigma_s_in_rows", "σ_s in rows, mean of the heads"),
    "beyond-mask": ("attention", "beyond_mask", "σ_a beyond the mask, mean of the heads"),
    "entropy": ("attention", "entropy", "entropy of rows (nats)"),
    "first-token": ("attention", "first", "share of attention on the first token"),
    "signal": ("block", "block", "log ratio of the layer"),
    "attention-alone": ("bound", "attention", "log ratio of attention alone"),
}
TITLES = {
    "sigma_a": "σ_a by layer and length",
    "sigma_s": "σ_s by layer and length",
    "beyond-mask": "σ_a beyond that of the mask by layer and length",
    "entropy": "Entropy of attention by layer and length",
    "first-token": "Attention on the first token by layer and length",
    "signal": "What each layer leaves of the differences between token vectors",
    "attention-alone": "What attention alone leaves of them",
}


def inside_panels(measurements: Sequence[InsideMeasurement]) -> dict[str, list[Curves]]:
    """Return the panels of each figure by the name of its file, without empty ones."""
    found = {
        stem: [
            panel
            for one in ordered(measurements)
            if (panel := _by_layer(one, part, quantity, axis)) is not None
        ]
        for stem, (part, quantity, axis) in _FIGURES.items()
    }
    return {stem: panels for stem, panels in found.items() if panels}


def _by_layer(one: InsideMeasurement, part: str, quantity: str, axis: str) -> Curves | None:
    layers = one.inside.of(part, quantity)
    # Without a mask it is σ_a itself.
    if not layers or (quantity == "beyond_mask" and not one.inside.is_masked):
        return None
    heading = f"{heading_of(one)}, {repair_of(one)}"
    at = tuple(map(float, layers))
    series = tuple(
        Series(
            f"{tokens} tokens",
            at,
            tuple(
                Point(
                    f"layer {layer}",
                    by.values[place].value,
                    (by.values[place].low, by.values[place].high),
                )
                for layer, by in layers.items()
            ),
            place,
            heading,
        )
        for place, tokens in enumerate(one.inside.lengths)
    )
    ticks = tuple((float(layer), str(layer)) for layer in layers)
    return Curves(heading, series, "layer", ticks, axis, aside=0.2)
