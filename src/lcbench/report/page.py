"""The page: a whole report as one HTML file that asks nothing of any other place.

Takes the dictionary of the report (`report.json`); computes nothing but the sentences that open it.
What is shown of it, and how, is in `page/`: a template, a style sheet and scripts.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any

from lcbench.errors import LcbenchError

_AVERAGE = "Avg"

# Each uses what those before it define.
_SCRIPTS = (
    "parts.js",
    "charts.js",
    "cells.js",
    "tables.js",
    "figures.js",
    "browser.js",
    "page.js",
)


def build(document: Mapping[str, Any]) -> str:
    """Return the page of a report.

    Args:
        document: the report as values for JSON; names in it are text, whatever they look like.

    Raises:
        LcbenchError: plotly is not installed.
        ValueError: a number of the report is not finite, so that it is not JSON.
    """
    whole = dict(document)
    provenance = whole.pop("provenance", None) or {}
    # In one scope, so that nothing of theirs is global.
    script = '(() => {\n"use strict";\n' + "\n".join(map(_read, _SCRIPTS)) + "})();\n"
    plotly = _inside_script(_plotly())
    return Template(_read("page.html")).substitute(
        title=html.escape(str(whole.get("title") or "lcbench report")),
        policy=_content_policy(script, plotly),
        style=_read("page.css"),
        findings=_findings_html(whole.get("tables") or ()),
        document=_inside_json(whole),
        provenance=_inside_json(provenance),
        plotly=plotly,
        script=script,
    )


def findings(table: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return what a table found, in words: sentences of all its models, and of each by its label.

    Of all there are none for a table of one model.
    """
    choices = {one["label"]: one for one in (table.get("choice") or {}).get("models") or ()}
    models = table.get("models") or ()
    return (
        _of_all(table, models) if len(models) > 1 else (),
        tuple(
            (model["label"], _of_model(model, choices.get(model["label"]), len(models) == 1))
            for model in models
        ),
    )


def _of_all(table: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    tried = [_best_average(model) for model in models if model.get("best") is not None]
    if not tried:
        return ("Only the baseline was measured.",)
    sentences = []
    average = (table.get("average_improvement") or {}).get(_AVERAGE)
    if average is not None:
        sentences.append(
            f"Over {len(tried)} models, each at its best τ, {_AVERAGE} changes by "
            f"{_signed(average['value'])} %{_interval(average)}, {_MEANINGS[_verdict(average)]}."
        )
    sentences.append(f"Of {len(tried)} models: {_counted(tried)}.")
    chosen = (table.get("choice") or {}).get("models") or ()
    if chosen:
        optimism = fmean(one["optimism"] for one in chosen)
        honest = _counted([_honest(one) for one in chosen])
        word = "understates" if optimism < 0 else "overstates"
        sentences.append(
            f"With each task's τ chosen on the other tasks: {honest}. The paper's rule, which "
            f"chooses on the test data, {word} the gain by {_two(abs(optimism))} points on average."
        )
    return tuple(sentences)


def _counted(improvements: Sequence[Mapping[str, Any] | None]) -> str:
    """How many of them are told from zero."""
    verdicts = [_verdict(one) for one in improvements]
    gains, losses, unsure, unknown = (verdicts.count(word) for word in _MEANINGS)
    text = (
        f"{gains} with a gain beyond the noise, {losses} with a loss beyond it, "
        f"{unsure} that cannot be told from zero"
    )
    return f"{text}, {unknown} of which it is not known" if unknown else text


def _of_model(model: Mapping[str, Any], choice: Mapping[str, Any] | None, is_alone: bool) -> str:
    best = model.get("best")
    if best is None:
        score = (model["scores"].get("1") or {}).get(_AVERAGE)
        known = "has holes" if score is None else f"is {score:.2f}"
        return f"only the baseline was measured; its {_AVERAGE} {known}."
    average = _best_average(model)
    if average is None:
        return f"{_AVERAGE} has holes at τ = {best}, so that its gain is unknown."
    text = (
        f"{_signed(average['value'])} % on {_AVERAGE} at τ = {best}, the best{_interval(average)}: "
        f"{_MEANINGS[_verdict(average)]}."
    )
    if choice is None:
        return text
    honest, optimism = _honest(choice), choice["optimism"]
    return (
        f"{text} With each task's τ chosen on the other tasks {_signed(honest['value'])} %"
        f"{_interval(honest)}, {_two(abs(optimism))} points {'more' if optimism < 0 else 'less'} "
        f"than by the paper's rule"
        f"{', which chooses on the test data' if is_alone else ''}."
    )


_MEANINGS = {
    "gain": "larger than the noise",
    "loss": "a loss larger than the noise",
    "unsure": "it cannot be told from zero",
    "unknown": "how sure this is, is not known",
}


def _honest(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {end: choice[f"honest_{name}"] for end, name in _ENDS.items()}


_ENDS = {"value": "gain", "low": "low", "high": "high"}


def _best_average(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    of_best: Mapping[str, Any] = (model.get("improvements") or {}).get(model["best"]) or {}
    return of_best.get(_AVERAGE)


def _verdict(one: Mapping[str, Any] | None) -> str:
    if one is None or one.get("low") is None or one.get("high") is None:
        return "unknown"
    if one["low"] > 0:
        return "gain"
    return "loss" if one["high"] < 0 else "unsure"


def _interval(one: Mapping[str, Any]) -> str:
    if one.get("low") is None or one.get("high") is None:
        return ""
    return f" (95 % interval {_signed(one['low'])} to {_signed(one['high'])})"


def _two(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    shown = _two(value)
    return shown if shown.startswith("−") or shown == "0.00" else f"+{shown}"


def _findings_html(tables: Sequence[Mapping[str, Any]]) -> str:
    """The opening sentences, which are there without any script as well."""
    lines = []
    for table in tables:
        sentences, models = findings(table)
        lines.append(f"<h3>{html.escape(str(table['group']))}</h3>")
        for place, sentence in enumerate(sentences):
            look = "" if place else ' class="lead"'
            lines.append(f"<p{look}>{_unbroken(html.escape(sentence))}</p>")
        lines.append('<ul class="findings">')
        for label, text in models:
            lines.append(
                f"<li><strong>{html.escape(str(label))}</strong>: "
                f"{_unbroken(html.escape(text))}</li>"
            )
        lines.append("</ul>")
    return "\n".join(lines) or "<p>There are no results in this report.</p>"


def _unbroken(text: str) -> str:
    """The text with no line break between a number and its sign."""
    return text.replace(" %", "\u00a0%").replace("τ = ", "τ\u00a0=\u00a0")


def _inside_json(value: object) -> str:
    """The value as JSON that cannot end the element it stands in, or open a comment there."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _inside_script(source: str) -> str:
    """The source with what would end its element written so that it is the same JavaScript."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", source, flags=re.IGNORECASE)


def _content_policy(*scripts: str) -> str:
    """A policy under which nothing is fetched and no script runs but these."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; "
        # Plotly writes styles of its own.
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return files("lcbench.report").joinpath("page", name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The source of plotly.js, without importing plotly for it."""
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise LcbenchError("The page needs plotly.js, which `pip install plotly` brings.")
