"""Frames of scores as reports read them."""

from collections.abc import Mapping

import pandas as pd


def cell(
    policy: str,
    task: str,
    score: float | Mapping[str, float] | Mapping[tuple[str, str], float],
    column: str = "Class",
    model: str = "org/model",
    revision: str = "0123456789abcdef",
    window: int = 512,
    group: str = "paper, window 512",
    **conditions: str,
) -> list[dict[str, object]]:
    """The rows of one cell; `score` is a number or by subset or by (split, subset)."""
    parts = score if isinstance(score, Mapping) else {"default": score}
    rows = []
    for part, value in parts.items():
        split, subset = part if isinstance(part, tuple) else ("test", part)
        rows.append(
            {
                "group": group,
                "window": window,
                "model": model,
                "revision": revision,
                "policy": policy,
                "task": task,
                "column": column,
                "split": split,
                "subset": subset,
                "score": value,
                "conditions": {"mteb": "2.26.24", **conditions},
            }
        )
    return rows


def frame(*cells: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in cells for row in rows])
