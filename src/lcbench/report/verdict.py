"""What was found, in a sentence or two a model: how much, how sure, how τ was chosen, the paper's.

The numbers are those of the tables; here they are only put into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcbench.report.table1 import AVERAGE, Block

if TYPE_CHECKING:
    from lcbench.report.findings import TableFindings
    from lcbench.report.paper import Comparison


def verdicts(found: TableFindings, compared: Sequence[Comparison] = ()) -> tuple[str, ...]:
    """Return what a table says of each model that was measured at another τ than 1.

    Args:
        found: the table.
        compared: the paper's numbers beside ours.
    """
    return tuple(
        " ".join(_sentences(block, found, compared))
        for block in found.table.blocks
        if block.best is not None
    )


def _sentences(block: Block, found: TableFindings, compared: Sequence[Comparison]) -> list[str]:
    best = block.best
    assert best is not None  # noqa: S101
    gain = block.improvements[best][AVERAGE]
    if gain is None:
        return [f"{block.label}: {AVERAGE} has a hole at τ = {best}, so nothing is said of it."]
    sure = found.statistics.means.get((block.label, best, AVERAGE))
    if sure is None:
        certainty = "how sure that is is not known"
    else:
        told = "which excludes zero" if sure.excludes_zero else "which does not exclude zero"
        certainty = f"95 % interval {_span(sure.low, sure.high)}, {told}"
    sentences = [f"{block.label}: τ = {best} changes {AVERAGE} by {_signed(gain)} % ({certainty})."]
    ours = [one for one in found.choice.models if one.label == block.label] if found.choice else []
    if not ours:
        if len(block.policies) > 2:
            sentences.append("That τ was chosen on these very tasks.")
        return sentences + _of_paper(block, compared)
    (choice,) = ours
    honest = f"{_signed(choice.honest_gain)} %"
    if choice.honest_low is not None and choice.honest_high is not None:
        honest += f" ({_span(choice.honest_low, choice.honest_high)})"
    sentences.append(
        "That τ was chosen on these very tasks; chosen for each task on the others alone, it gains "
        f"{honest}."
    )
    return sentences + _of_paper(block, compared)


def _of_paper(block: Block, compared: Sequence[Comparison]) -> list[str]:
    return [
        f"The paper prints {_signed(one.paper)} % at τ = {one.policy}."
        for one in compared
        if (one.name, one.revision, one.window) == (block.model, block.revision, block.window)
        and (one.row, one.column) == ("relative", AVERAGE)
    ]


def _span(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    """Return a number with its sign, and 0.00 without."""
    shown = f"{round(value, 2) + 0.0:+.2f}"
    return "0.00" if shown in ("+0.00", "-0.00") else shown.replace("-", "−")
