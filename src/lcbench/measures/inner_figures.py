"""The paper's figures of what happens inside a model: 2, 4 and 5, and 10 and 11 of other models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcbench.measures.estimates import Estimate
from lcbench.measures.inside import Chosen, InsideOptions
from lcbench.measures.intervals import Line, Panel, Place, intervals, means_by_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.look import Traced

TEXTS_AN_INTERVAL, INTERVALS, INTERVAL_TOKENS = 100, 10, 50
"""Of Figure 5: [0, 50) to [450, 500)."""

# Lines of Figure 2: part, quantity and name.
_CURVES = (
    ("block", "block", "whole layer (the paper's curve)"),
    ("bound", "attention", "attention alone"),
    ("bound", "paper", "the paper's bound"),
    ("bound", "stacked", "a bound that must hold"),
)
# Random logits whose σ_a are averaged at each length.
_DRAWS = 4


def ratios_by_layer(
    traced: Traced, repairs: Sequence[str], texts: Sequence[str], resamples: int, seed: int
) -> tuple[Panel, ...]:
    """Return log ratios of each layer and the bounds, a panel a repair: Figure 2."""
    options = InsideOptions(("signal",), len(texts), None, resamples, seed)
    panels = []
    for repair in repairs:
        # Of texts within the window nothing is cut.
        inside = traced.look(repair, Chosen(tuple(texts), (traced.window,)), options)
        lines = []
        layers: list[int] = []
        for part, quantity, name in _CURVES:
            found = inside.of(part, quantity)
            if found:
                layers = list(found)
                values = tuple(by.values[0] for by in found.values())
                lines.append(Line(name, values, _difference(values)))
        places = tuple(Place(str(layer), 0.0, len(texts)) for layer in layers)
        panels.append(Panel(f"log ratio, {repair}", "layer", places, tuple(lines)))
    return tuple(panels)


def theorem_by_length(
    traced: Traced, repairs: Sequence[str], chosen: Chosen, resamples: int, seed: int
) -> tuple[Panel, ...]:
    """Return Theorem 3's bound at the model's own σ_s and σ_a, a panel a repair: Figure 4."""
    from lcbench.measures.attention import causal_sigma_a
    from lcbench.measures.bounds import of_independent_logits, simulate, theorem_3

    options = InsideOptions(("attention",), len(chosen.texts), None, resamples, seed)
    panels = []
    last = traced.last_layer
    for repair in repairs:
        inside = traced.look(repair, chosen, options, [last])
        spreads = [one.value for one in inside.of("attention", "sigma_s_in_rows")[last].values]
        pairs = list(zip(spreads, chosen.lengths, strict=True))
        masked = inside.is_masked
        random = [
            float(
                np.mean(
                    [
                        simulate(spread, n, causal=masked, seed=seed + k).sigma_a
                        for k in range(_DRAWS)
                    ]
                )
            )
            for spread, n in pairs
        ]
        measured = inside.of("attention", "sigma_a")[last]
        lines = (
            Line("measured, last layer", measured.values, measured.change),
            _exact("Theorem 3 at its σ_s", [theorem_3(*pair) for pair in pairs]),
            _exact("independent logits of its σ_s", random),
            _exact("a causal mask alone", list(map(causal_sigma_a, chosen.lengths)))
            if masked
            else _exact("their limit", [of_independent_logits(*pair) for pair in pairs]),
        )
        places = tuple(Place(str(n), n, len(chosen.texts)) for n in chosen.lengths)
        panels.append(Panel(f"σ_a, {repair}", "tokens", places, lines))
    return tuple(panels)


def sigmas_by_length(
    traced: Traced,
    repairs: Sequence[str],
    texts: Sequence[str],
    lengths: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> tuple[Panel, int]:
    """Return σ_a of the last layer by length, a line a repair, and how many texts: Figure 5."""
    parts = intervals(lengths, TEXTS_AN_INTERVAL, INTERVALS, INTERVAL_TOKENS)
    taken = np.sort(np.concatenate(list(parts.values())))
    some = [texts[at] for at in taken]
    sigmas = {repair: traced.sigma_a(repair, some) for repair in repairs}
    own = intervals(lengths[taken], TEXTS_AN_INTERVAL, INTERVALS, INTERVAL_TOKENS)
    return means_by_interval("σ_a", sigmas, lengths[taken], own, resamples, seed), len(some)


def _exact(name: str, values: Sequence[float]) -> Line:
    estimates = tuple(Estimate(value, value, value) for value in values)
    return Line(name, estimates, _difference(estimates))


def _difference(values: Sequence[Estimate]) -> Estimate:
    """Return the last minus the first, as a number without an interval."""
    change = values[-1].value - values[0].value
    return Estimate(change, change, change)
