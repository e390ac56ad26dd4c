"""Section 6: made-up data of every task of the paper and of LongEmbed, from loading to the report.

Every kind of data that the whole sweep meets goes through the device once, at two temperatures.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from gpu_sections.check import Check

_TAUS = ("1.0", "0.8")
# A task of each type that takes a moment on a CPU.
_QUICK_TASKS = (
    *("AmazonPolarityClassification", "BiorxivClusteringS2S", "BIOSSES", "NFCorpus"),
    *("AskUbuntuDupQuestions", "MindSmallReranking", "LEMBQMSumRetrieval"),
)
_QUICK = ("model.window=32", "engine.scoring=0")


def run(check: Check) -> None:
    """Make the data, run all tasks on it, and look at each result and at the report."""
    import task_data

    from gpu_sections import runs

    chosen = _QUICK_TASKS if check.quick else tuple(one.name for one in task_data.tasks())
    task_data.make(check.folder / "data", chosen)
    results = check.folder / "results"
    overrides = [
        *("model=minilm", "protocol=paper", f"tau=[{','.join(_TAUS)}]"),
        *(f"tasks=[{','.join(chosen)}]", f"mirror={check.folder / 'data'}"),
        # Fewer texts than the public data has.
        "unverified_data=true",
        *("store=none", runs.engine_override(check), *(_QUICK if check.quick else ())),
    ]
    ended = runs.finish(check, "tasks", runs.start_run(check, "tasks", results, overrides))
    look_at_cells(check, results, len(chosen) * len(_TAUS))
    if ended:
        look_at_report(check, results / "report" / "table1.csv")


def look_at_cells(check: Check, results: Path, expected: int) -> None:
    """Require that there are so many results, each of finite scores and with its items.

    Also of a run that did not end: how far it came is worth knowing.
    """
    import pyarrow.parquet as pq

    cells = items = 0
    wanting: list[str] = []
    for path in sorted(results.glob("*/results/**/*.provenance.jsonl")):
        cells += 1
        task = path.name.removesuffix(".provenance.jsonl")
        policy = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["policy"]
        result = json.loads(path.with_name(f"{task}.json").read_text(encoding="utf-8"))
        scores = [row["main_score"] for rows in result["scores"].values() for row in rows]
        if not scores or not all(map(math.isfinite, scores)):
            wanting.append(f"{task} at τ = {policy}: scores {scores}")
        of_items = path.with_name(f"{task}.items.parquet")
        rows = pq.read_metadata(of_items).num_rows if of_items.is_file() else 0
        if not rows:
            wanting.append(f"{task} at τ = {policy}: no items")
        items += rows
    check.measure("results", cells)
    check.measure("items", items)
    check.require(cells == expected, f"{cells} results instead of {expected}")
    for one in wanting:
        check.require(False, one)


def look_at_report(check: Check, table: Path) -> None:
    """Require that Table 1 has a finite value in every column before and after."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = [one for one in csv.DictReader(file) if one["row"] in ("raw", "ours")]
    columns = list(dict.fromkeys(one["column"] for one in rows))
    missing = [f"{one['row']} {one['column']}" for one in rows if not _is_finite(one["value"])]
    check.measure("columns of Table 1", ", ".join(columns))
    check.require(len(rows) == 2 * len(columns) > 0, f"{len(rows)} values of {columns}")
    check.require(not missing, f"Table 1 has no {', '.join(missing)}")


def _is_finite(text: str) -> bool:
    return bool(text) and math.isfinite(float(text))
