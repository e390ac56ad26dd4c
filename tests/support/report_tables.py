"""Tables as the page gets them, of a made-up report's scores."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = dict[str, Any]


def tables_of(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield Table 1, the choice of τ, and the scores and improvements per task and τ."""
    group, models = table["group"], table["models"]
    columns = [*(column["name"] for column in table["columns"]), "Avg"]
    counts = [f" ({len(column['tasks'])})" for column in table["columns"]] + [""]
    sections = [
        {
            "heading": model["label"],
            "group": f"Window {model['window']}",
            "rows": list(_lines(model, columns)),
        }
        for model in models
    ]
    average = [_improvement(table["average_improvement"][name]) for name in columns]
    sections.append({"heading": "", "group": "", "rows": [[_name("Avg Improv."), *average]]})
    header = ["Model", *(name + count for name, count in zip(columns, counts, strict=True))]
    yield _table("table1", "Scores", header, 1, sections, group, "table1.csv", table)
    rows = [
        [_name(one["label"]), _number(float(one["tau"])), _number(one["held_out_gain"])]
        for one in table["choice"]["models"]
    ]
    one = {"heading": "", "group": "", "rows": rows}
    yield _table("choice", "Choosing τ", ["Model", "τ", "Held-out gain (%)"], 1, [one], group)
    for name, title, policies in (
        ("scores", "Scores per task and τ", models[0]["policies"]),
        ("matrix", "Relative improvements per task and τ", models[0]["policies"][1:]),
    ):
        header = ["Column", "Task", *(f"τ = {policy}" for policy in policies)]
        per_task = [_per_task(model, name, policies) for model in models]
        yield _table(name, title, header, 2, per_task, group, "tasks.csv")


def _table(
    name: str,
    title: str,
    header: Sequence[str],
    labels: int,
    sections: Sequence[Mapping[str, Any]],
    group: str,
    data: str = "",
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        **{"name": name, "title": title, "header": header, "labels": labels},
        **{"sections": sections, "scores": group, "data": data},
        "notes": [] if notes is None else notes["notes"],
        "footnotes": [] if notes is None else notes["footnotes"],
    }


def _lines(model: Mapping[str, Any], columns: Sequence[str]) -> Iterator[list[Entry]]:
    for row, policy in (("raw", "1"), ("ours", model["best"])):
        if policy is not None:
            scores = model["scores"][policy]
            yield [
                _name(f"{row}, τ = {policy}"),
                *(_number(scores[name], (model["label"], policy, name)) for name in columns),
            ]
    if model["best"] is not None:
        gains = model["improvements"][model["best"]]
        yield [
            _name("Relative Improv."),
            *(_improvement(gains[one], (model["label"], model["best"], one)) for one in columns),
        ]


def _per_task(model: Mapping[str, Any], kind: str, policies: Sequence[str]) -> dict[str, Any]:
    rows: dict[str, list[Entry]] = {}
    for cell in model["cells"]:
        source = (model["label"], cell["policy"], cell["task"])
        row = rows.setdefault(cell["task"], [_name(cell["column"]), _name(cell["task"])])
        if cell["policy"] in policies:
            row.append(
                _number(cell["score"], source)
                if kind == "scores"
                else _improvement(cell["improvement"], source)
            )
    return {"heading": model["label"], "group": "", "rows": list(rows.values())}


def _name(text: str) -> Entry:
    return {"text": text, "value": text, "style": "neutral", "tooltip": ""}


def _number(value: float, source: Sequence[str] | None = None) -> Entry:
    text = f"{round(value, 2) + 0.0:.2f}"
    entry = {"text": text, "value": value, "style": "neutral", "tooltip": ""}
    return entry | ({} if source is None else {"source": list(source)})


def _improvement(one: Mapping[str, Any], source: Sequence[str] | None = None) -> Entry:
    """Return an improvement as `table.improvement` marks it."""
    value, low, high = one["value"], one["low"], one["high"]
    entry = _number(value, source)
    size = f"{abs(round(value, 2)):.2f}"
    if low is None:
        arrow, entry["style"] = "▲▼"[value < 0], "neutral"
    elif low > 0 or high < 0:
        arrow, entry["style"] = "▲▼"[value < 0], "gain" if value > 0 else "loss"
    else:
        arrow, entry["style"] = "△▽"[value < 0], "inconclusive"
    is_zero = size == "0.00" and entry["style"] not in ("gain", "loss")
    return entry | {"text": size if is_zero else f"{arrow} {size}", "low": low, "high": high}
