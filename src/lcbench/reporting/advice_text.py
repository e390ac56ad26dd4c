"""Puts a recommendation (`advice`) into words, and into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lcbench.repair.repair import label_of, parts_of
from lcbench.reporting.notes import listed
from lcbench.reporting.score_table import AVERAGE, word_of
from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table import Section, Table, formatted, improvement, name
from lcbench.reporting.text import MISSING_VALUE, signed, two_decimals
from lcbench.tuning.recommend import LEAST_CHANGED
from lcbench.uncertainty import power

if TYPE_CHECKING:
    from lcbench.reporting.statistics import Recommendation
    from lcbench.reporting.tables.repairs import RepairRow
    from lcbench.tuning.recommend import Advice

_SHORT = "Short"
"""The third of the shortest texts (`tables.thirds`)."""


def sentences(found: Recommendation, row: RepairRow | None = None) -> tuple[str, ...]:
    """Return a recommendation in sentences, the first of which can stand by itself.

    Args:
        found: the recommendation.
        row: the recommended repair as it is compared with others, if known.
    """
    advice = found.advice
    if advice is None:
        return (f"{found.label}: no recommendation, since {found.why}.",)
    on, units = _WORDS[found.across]
    interval = f"95 % interval {signed(advice.expected_low)} to {signed(advice.expected_high)}"
    if len(found.policies) > 1:
        many = f"{len(found.policies)} {word_of(found.policies)[1]}"
        interval += f", counting the choice among {many}"
    best = label_of(found.policies[advice.best])
    rest = _without(found)
    if found.policy is not None:
        parts = [f"{AVERAGE} {signed(advice.expected)} % ({interval})"]
        parts += [] if row is None else _side_effects(row)
        folds = int(advice.picks.sum())
        return (
            f"{found.label}: ship {best}. To expect on {on}: {', '.join(parts)}.",
            f"It is the choice in {advice.picks[1 + advice.best]} of {folds} folds of "
            f"{advice.units:,} {units}.{rest}",
        )
    first = f"{found.label}: ship the model as it is."
    gain = float(advice.gains[advice.best])
    if gain <= 0:
        return (
            f"{first} Nothing tried improves {AVERAGE}; the best, {best}: {signed(gain)} %.{rest}",
        )
    return (
        f"{first} The best tried, {best}, is not known to help: {AVERAGE} "
        f"{signed(advice.expected)} % on {on} ({interval}).",
        f"{_power(advice, units)}{rest}",
    )


def _without(found: Recommendation) -> str:
    """Return which tasks are not in the average, as a further sentence, if there are any."""
    if not found.left_out:
        return ""
    return f" {AVERAGE} is without {listed(found.left_out)}, whose items are not known."


# What a gain is expected on, and what the units are.
_WORDS = {
    "texts": ("other texts like these", "independent texts or queries"),
    "tasks": ("other tasks like these", "independent tasks"),
}


def _power(advice: Advice, units: str) -> str:
    """Return which gain would have been found, and what it takes to find a small one."""
    found = (
        f"With {advice.units:,} {units}, a gain of {two_decimals(advice.detectable)} % would be "
        "significant in four of five cases"
    )
    if advice.detectable > power.CLAIMED:
        found += f"; for {power.CLAIMED} %, at least {_rounded(advice.needed):,} are needed"
    return f"{found}."


def _rounded(count: int) -> int:
    """Return a number with two digits that count."""
    digits = max(len(str(count)) - 2, 0)
    return int(-(-count // 10**digits) * 10**digits)


def _side_effects(row: RepairRow) -> list[str]:
    """Return the effect of a repair on short texts, and its cost, in words."""
    found = []
    short = row.improvements.get(_SHORT)
    if short is not None:
        known = row.known.get(_SHORT)
        interval = "" if known is None else f" ({signed(known.low)} to {signed(known.high)})"
        found.append(f"on the shortest third of texts {signed(short)} %{interval}")
    return [*found, cost_of(row)]


def cost_of(row: RepairRow) -> str:
    """Return what a repair costs, in words."""
    if row.vectors != "1":
        return "a vector for each chunk of a document"
    if row.exported == "yes" and "extend" not in parts_of(row.policy):
        return "at no cost: it becomes part of the model"
    if row.speed.ratio is not None:
        return f"encoding at {two_decimals(row.speed.ratio)} times the speed"
    return "at a cost that was not measured"


def tried_table(found: Recommendation, advice: Advice, rows: Mapping[str, RepairRow]) -> Table:
    """Return what was tried as a table, a row per repair.

    Args:
        found: the recommendation.
        advice: its advice.
        rows: the repairs as they are compared with others, by canonical name.
    """
    tried = []
    for place, policy in enumerate(found.policies):
        row = rows.get(policy)
        low, high = float(advice.low[place]), float(advice.high[place])
        few = advice.changed[place] < LEAST_CHANGED and found.across == "texts"
        known = Uncertainty(low, high, up=int(advice.changed[place]), down=0) if few else None
        gain = improvement(float(advice.gains[place]), known or Uncertainty(low, high))
        tried.append(
            (
                name(label_of(policy)),
                gain,
                name(f"{two_decimals(low)} to {two_decimals(high)}"),
                improvement(*((None,) if row is None else _short_of(row))),
                formatted(int(advice.picks[1 + place]), "d"),
                name(MISSING_VALUE if row is None else cost_of(row)),
            )
        )
    return Table(
        name="tune",
        title="Repairs tried",
        header=("Repair", f"{AVERAGE} (%)", "95 % band", f"{_SHORT} (%)", "Folds", "Cost"),
        labels=1,
        sections=(Section("", tuple(tried)),),
        notes=(
            f"Relative improvements of {AVERAGE} on all data, in a band over all repairs; ▲ ▼: "
            f"significant, △ ▽: not. {_SHORT}: the third of the shortest texts. Folds: in which "
            "it is the best of the other folds.",
        ),
    )


def _short_of(row: RepairRow) -> tuple[float | None, Uncertainty | None]:
    return row.improvements.get(_SHORT), row.known.get(_SHORT)


def content_of(found: Recommendation, rows: Mapping[str, RepairRow]) -> dict[str, Any]:
    """Return a recommendation for JSON. Gains are in % of the baseline's `Avg`.

    Args:
        found: the recommendation.
        rows: the repairs as they are compared with others, by canonical name.
    """
    advice = found.advice
    content: dict[str, Any] = {
        "model": found.model,
        "revision": found.revision,
        "window": found.window,
        "label": found.label,
        "tasks": list(found.tasks),
        **({"left_out": list(found.left_out)} if found.left_out else {}),
        "across": found.across,
        "repair": found.policy,
        "why": found.why,
        "text": list(sentences(found, rows.get(found.policy or ""))),
    }
    if advice is None:
        return content
    content |= {
        "best": found.policies[advice.best],
        "expected": _interval(advice.expected, advice.expected_low, advice.expected_high),
        "folds": int(advice.picks.sum()),
        "folds_of_baseline": int(advice.picks[0]),
        "units": advice.units,
        "detectable": advice.detectable,
        "needed": advice.needed,
        "resamples": advice.resamples,
        "seed": advice.seed,
    }
    content["tried"] = [
        {
            "repair": policy,
            "gain": _interval(
                *(float(one[place]) for one in (advice.gains, advice.low, advice.high))
            ),
            "folds": int(advice.picks[1 + place]),
            "changed": int(advice.changed[place]),
            **(_of_row(rows[policy]) if policy in rows else {}),
        }
        for place, policy in enumerate(found.policies)
    ]
    return content


def _of_row(row: RepairRow) -> dict[str, Any]:
    short, known = row.improvements.get(_SHORT), row.known.get(_SHORT)
    return {
        "short": None if short is None else _interval(short, *_ends(known)),
        "speed": row.speed.ratio,
        "vectors": row.vectors,
        "exported": row.exported,
        "cost": cost_of(row),
    }


def _ends(known: Uncertainty | None) -> tuple[float | None, float | None]:
    return (None, None) if known is None else (known.low, known.high)


def _interval(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}
