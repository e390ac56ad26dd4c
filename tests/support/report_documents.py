"""Reports as the page gets them, with chosen names and made-up numbers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report_tables import tables_of

from lcbench.reporting.figures import interactive
from lcbench.reporting.figures.by_length import all_panels
from lcbench.reporting.figures.panels import (
    Curves,
    Forest,
    HeatScale,
    Line,
    Point,
    Series,
    certainty,
)
from lcbench.reporting.tables.by_length import Bucket, LengthBuckets
from lcbench.reporting.tables.changes import NOT_DEFINED, Change

TAUS = ("1", "0.95", "0.9", "0.8", "0.7", "0.6", "0.5")
COLUMNS = {
    "Class": 8,
    "PairClass": 3,
    "Clust": 6,
    "Summ": 1,
    "STS": 8,
    "BeirRetr": 8,
    "Rerank": 2,
    "LongEmbRetr": 4,
}
MODELS = (
    ("ANCE", "sentence-transformers/msmarco-roberta-base-ance-firstp", 512),
    ("GTR", "sentence-transformers/gtr-t5-base", 512),
    ("GIST", "avsolatorio/GIST-small-Embedding-v0", 512),
    ("BGE", "BAAI/bge-base-en-v1.5", 512),
    ("E5-4K", "dwzhu/e5-base-4k", 4096),
)
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b> %{y} </script><script>alert(1)</script>'


def document(
    models: Sequence[tuple[str, str, int]] = MODELS,
    columns: Mapping[str, int] = COLUMNS,
    taus: Sequence[str] = TAUS,
    mark: str = "",
) -> dict[str, Any]:
    """Return a report of all these; `mark` is put before every name. The same each time."""
    draw = random.Random(0)
    tasks = {
        mark + name: [f"{mark}{name}Task{place:02d}" for place in range(count)]
        for name, count in columns.items()
    }
    blocks = [_model(draw, mark, *model, tasks, taus) for model in models]
    labels = [block["label"] for block in blocks]
    names = [*tasks, "Avg"]
    first = next(iter(tasks.values()))[0]
    report: dict[str, Any] = {
        "title": f"{mark}Attention temperature over {len(models)} models",
        "made": "2025-11-02T10:00:00+00:00",
        "version": "0.1.0",
        "resamples": 10_000,
        "seed": 0,
        "score_tables": [
            {
                "group": f"{mark}paper (no prompts, float32)",
                "columns": [{"name": name, "tasks": those} for name, those in tasks.items()],
                "averaged": list(tasks),
                "models": blocks,
                "average_improvement": {name: _improvement(draw, 0.2) for name in names},
                "choice": {
                    "models": [_choice(draw, block, tasks, taus) for block in blocks],
                    "common_tau": taus[-1],
                    "common_gain": 0.31,
                    "notes": [f"{mark}one model is left out: it has missing values."],
                },
                "notes": [f"{mark}{first}: missing for one model."],
                "footnotes": ["Avg is the unweighted mean of the columns, not of the tasks."],
            }
        ],
        "tables": [_shown_table(draw, mark, labels)],
        "figures": figures(
            blocks,
            list(tasks),
            [by_length(draw, mark, label, first, taus) for label in labels],
            [
                Grid(
                    labels[0],
                    f"{mark}relative improvement of Avg, %",
                    (1.0, 0.8, 0.6),
                    (1.0, 0.9, 0.8, 0.6),
                    [[draw.gauss(0, 1) for _ in range(4)] for _ in range(2)]
                    + [[None, 0.5, -0.25, 1.5]],
                )
            ],
        ),
        "paper": {
            "summary": "Of 45 numbers 40 lie within our noise; of 5 it cannot be said.",
            "rows": [
                {
                    "table": "Table 1",
                    "model": label,
                    "policy": taus[-1],
                    "row": "ours",
                    "column": name,
                    "paper": 50.25,
                    "ours": 50.5,
                    "difference": 0.25,
                    "noise": 0.5 if name != "Avg" else None,
                    "within": "yes" if name != "Avg" else "unknown",
                    "note": mark,
                }
                for label in labels
                for name in names
            ],
        },
        "provenance": {
            f"{label}/{policy}/{task}": _provenance(draw, mark, label, policy)
            for label in labels
            for policy in taus
            for those in tasks.values()
            for task in those
        },
    }
    made = [one for table in report["score_tables"] for one in tables_of(table)]
    return {**report, "tables": [*made, *report["tables"]]}


def _model(
    draw: random.Random,
    mark: str,
    label: str,
    model: str,
    window: int,
    tasks: Mapping[str, Sequence[str]],
    taus: Sequence[str],
) -> dict[str, Any]:
    label = mark + label
    cells = []
    for column, those in tasks.items():
        for task in those:
            raw = draw.uniform(20, 90)
            for policy in taus:
                improvement = None
                score = raw
                if policy != "1":
                    improvement = {
                        **_improvement(draw, 0.3),
                        "p": draw.random() ** 3,
                        "adjusted": draw.random(),
                        "units": "queries",
                        "count": 500,
                    }
                    score = raw * (1 + improvement["value"] / 100)
                cells.append(
                    {
                        "task": task,
                        "column": column,
                        "policy": policy,
                        "score": score,
                        "improvement": improvement,
                        "subsets": {"test/default": score, f"test/{mark}en": score},
                        "provenance": f"{label}/{policy}/{task}",
                    }
                )
    names = [*tasks, "Avg"]
    raws = {name: draw.uniform(30, 70) for name in names}
    improvements = {
        policy: {name: _improvement(draw, 0.4) for name in names}
        for policy in taus
        if policy != "1"
    }
    scores = {"1": raws}
    for policy, of_policy in improvements.items():
        scores[policy] = {name: raws[name] * (1 + of_policy[name]["value"] / 100) for name in names}
    return {
        "label": label,
        "model": mark + model,
        "revision": "0123456789abcdef" * 2,
        "window": window,
        "policies": list(taus),
        "best": taus[-1] if len(taus) > 1 else None,
        "scores": scores,
        "partial": {},
        "improvements": improvements,
        "cells": cells,
    }


def _improvement(draw: random.Random, centre: float) -> dict[str, float]:
    value = draw.gauss(centre, 0.5)
    half = draw.uniform(0.1, 0.9)
    return {"value": value, "low": value - half, "high": value + half}


def _choice(
    draw: random.Random,
    block: Mapping[str, Any],
    tasks: Mapping[str, Sequence[str]],
    taus: Sequence[str],
) -> dict[str, Any]:
    gain = block["improvements"][taus[-1]]["Avg"]["value"]
    return {
        "label": block["label"],
        "candidates": list(taus),
        "tau": taus[-1],
        "gain": gain,
        "held_out": {task: draw.choice(taus) for those in tasks.values() for task in those},
        "held_out_gain": gain - 0.25,
        "optimism": 0.25,
        "gains": {tau: 0.0 if tau == "1" else draw.uniform(-1, gain) for tau in taus},
        "default_regret": draw.uniform(0, 0.3),
    }


def _shown_table(draw: random.Random, mark: str, labels: Sequence[str]) -> dict[str, Any]:
    def entry(value: float, style: str) -> dict[str, Any]:
        tooltip = f"{mark}95 %: 0 to 1"
        return {"text": f"{value:.2f}", "value": value, "style": style, "tooltip": tooltip}

    def name(text: str) -> dict[str, Any]:
        return {"text": text, "value": text, "style": "neutral", "tooltip": ""}

    return {
        "name": "table2",
        "title": f"{mark}Table 2: by role",
        "header": ["Model", "", "BeirRetr", "LongEmbRetr"],
        "labels": 2,
        "sections": [
            {
                "heading": f"{mark}Window 512",
                "rows": [
                    [
                        name(label),
                        name(role),
                        entry(draw.uniform(40, 60), style),
                        entry(draw.uniform(40, 60), "neutral"),
                    ]
                    for label in labels
                    for role, style in (("TempScale", "best"), ("w/o query", "neutral"))
                ],
            }
        ],
        "notes": [f"{mark}The paper does not state its τ."],
    }


@dataclass(frozen=True)
class Grid:
    """Improvements by the temperatures of queries and of documents."""

    label: str = "ANCE"
    what: str = "Avg"
    query_temperatures: Sequence[float] = (1.0, 0.8)
    document_temperatures: Sequence[float] = (1.0, 0.8)
    values: Sequence[Sequence[float | None]] = ((0.0, 0.1), (0.2, 0.3))


def figures(
    blocks: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    lengths: Sequence[LengthBuckets],
    grids: Sequence[Grid],
) -> dict[str, Any]:
    """Return the charts of a report, in which every improvement has its interval."""
    charts = interactive.Charts()
    names = ["Avg", *columns]
    # A policy by role has no place on an axis of τ.
    constants = [policy for policy in blocks[0]["policies"] if "{" not in policy]

    def curve(block: Mapping[str, Any], column: str, order: int | None, name: str) -> Series:
        points = []
        for policy in constants:
            one = block["improvements"].get(policy, {}).get(column)
            points.append(Point(f"τ = {policy}", 0.0) if one is None else point(policy, one))
        taus = tuple(map(float, constants))
        return Series(name, taus, tuple(points), order, block["label"])

    def point(policy: str, one: Mapping[str, Any]) -> Point:
        ends = None if one["low"] is None else (one["low"], one["high"])
        return Point(f"τ = {policy}", one["value"], ends, certainty(ends))

    def line(name: str, one: Mapping[str, Any], kind: str = "task") -> Line:
        ends = None if one["low"] is None else (one["low"], one["high"])
        return Line(kind, name, one["value"], ends)  # type: ignore[arg-type]

    ticks = tuple((float(policy), policy) for policy in constants)
    across = [
        *(
            [curve(block, name, order, block["label"]) for order, block in enumerate(blocks)]
            for name in names
        ),
        *(
            [
                curve(block, name, None if name == "Avg" else order, name)
                for order, name in enumerate([*columns, "Avg"])
            ]
            for block in blocks
        ),
    ]
    options = [
        {"group": "By column", "options": names},
        {"group": "By model", "options": [block["label"] for block in blocks]},
    ]
    improved = [block for block in blocks if block["best"] is not None]
    forests = [
        Forest(
            "all",
            tuple(line(one["label"], one["improvements"][one["best"]]["Avg"]) for one in improved),
        ),
        *(
            Forest(
                one["label"],
                tuple(
                    line(name, one["improvements"][one["best"]][name]) for name in [*columns, "Avg"]
                ),
            )
            for one in improved
        ),
    ]
    both = []
    if improved:
        curves = (
            Curves("", tuple(series), "temperature τ", ticks, is_reversed=True, aside=0.01)
            for series in across
        )
        both = [
            charts.add(
                "Relative improvement over τ",
                map(interactive.curves_view, curves),
                [("Show", options)],
            ),
            charts.add(
                "Intervals at the best τ",
                map(interactive.forest_view, forests),
                [("Show", ["Avg of all models", *(one["label"] for one in improved)])],
            ),
        ]
    scale = HeatScale.of(grids)
    return {
        "tables": [both],
        "by_length": interactive.length_chart(charts, all_panels([], lengths)),
        "heat": [
            charts.add(f"{grid.label}: {grid.what}", [interactive.heat_view(grid, scale)])
            for grid in grids
        ],
        "note": interactive.heat_note(scale),
        "template": interactive.TEMPLATE,
        "dark": interactive.DARK,
        "views": charts.views,
    }


def by_length(
    draw: random.Random, mark: str, label: str, task: str, taus: Sequence[str]
) -> LengthBuckets:
    """Return scores of a model on a task in four buckets of lengths, of which the last is small."""
    buckets = tuple(
        Bucket(low, high, count)
        for low, high, count in ((1, 64, 120), (65, 128, 240), (129, 256, 90), (257, 512, 12))
    )
    policies = [policy for policy in taus if policy != "1"]
    changes = {policy: [_improvement(draw, 0.3 * at) for at in range(3)] for policy in policies}
    return LengthBuckets(
        group="paper",
        column="BeirRetr",
        task=f"{mark}{task}",
        label=label,
        by="document",
        metric="nDCG@10",
        policies=tuple(taus),
        buckets=buckets,
        scores={policy: tuple(draw.uniform(50, 60) - 4 * at for at in range(4)) for policy in taus},
        changes={
            policy: (
                *(Change(one["value"], (one["low"], one["high"])) for one in own),
                NOT_DEFINED,
            )
            for policy, own in changes.items()
        },
    )


def _provenance(draw: random.Random, mark: str, label: str, policy: str) -> dict[str, Any]:
    return {
        "revision": "0123456789abcdef" * 2,
        "protocol": {"name": f"{mark}paper", "prompts": "none", "dtype": "float32", "window": None},
        "proof": {"layers": 12, "largest_difference": 2.1e-07, "obeyed": True, "policy": policy},
        "dataset": {"path": f"{mark}mteb/nfcorpus", "revision": "fedcba9876543210" * 2},
        "versions": {"mteb": "2.26.24", "torch": "2.9.0", "transformers": "5.10.1", "lcbench": "0"},
        "hardware": {"device": "cpu", "processor": "x86_64", "cores": 2, "memory_gib": 15.6},
        "seconds": {"encode": draw.uniform(1, 90), "score": draw.uniform(0.1, 2)},
        "texts": [{"role": "query", "count": 323}, {"role": "document", "count": 3633}],
    }
