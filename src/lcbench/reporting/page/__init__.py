"""Builds the page: a whole report as one HTML file that makes no network request.

It embeds the dictionary of the report (`report.json`) and computes nothing. The template, style
sheet and scripts that show it are in `page/`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from lcbench.errors import LcbenchError
from lcbench.reporting.summary import findings
from lcbench.reporting.text import one_line

# Each uses definitions of the ones before it.
_SCRIPTS = (
    "parts.js",
    "cells.js",
    "charts.js",
    "tables.js",
    "page.js",
)


def build(document: Mapping[str, Any]) -> str:
    """Return the page of a report.

    Args:
        document: the report as values for JSON; names in it are never read as markup.

    Raises:
        LcbenchError: plotly is not installed.
        ValueError: a number of the report is not finite, which JSON does not allow.
    """
    whole = dict(document)
    provenance = whole.pop("provenance", None) or {}
    figures = dict(whole.get("figures") or {})
    # Embedded separately, so that they are parsed only when needed.
    views = figures.pop("views", [])
    if "figures" in whole:
        whole["figures"] = figures
    # All in one scope, so that they define no global names.
    script = '(() => {\n"use strict";\n' + "\n".join(map(_read, _SCRIPTS)) + "})();\n"
    plotly = _inside_script(_plotly())
    return Template(_read("page.html")).substitute(
        title=_text(whole.get("title") or "lcbench report"),
        policy=_content_policy(script, plotly),
        style=_read("page.css"),
        findings=_findings_html(whole),
        document=_inside_json(whole),
        provenance=_inside_json(provenance),
        views=_inside_json(views),
        plotly=plotly,
        script=script,
    )


def _findings_html(document: Mapping[str, Any]) -> str:
    """Return the findings as HTML, which is visible without scripts."""
    lines = [f"<p>{_unbroken(_text(line))}</p>" for line in document.get("findings") or ()]
    for table in document.get("score_tables") or ():
        sentences, models = findings(table, (document.get("paper") or {}).get("rows") or ())
        heading = table.get("heading") or table["group"]
        lines.append(f"<h3>{_text(heading)}</h3>")
        for place, sentence in enumerate(sentences):
            look = "" if place else ' class="lead"'
            lines.append(f"<p{look}>{_unbroken(_text(sentence))}</p>")
        lines.append('<ul class="findings">')
        for label, text in models:
            lines.append(f"<li><strong>{_text(label)}</strong>: {_unbroken(_text(text))}</li>")
        lines.append("</ul>")
    return "\n".join(lines) or "<p>There are no results in this report.</p>"


def _text(value: object) -> str:
    """Return a value as escaped text for HTML, without control characters."""
    return html.escape(one_line(str(value)))


def _unbroken(text: str) -> str:
    """Return a text without line breaks between a number and its sign."""
    return text.replace(" %", "\u00a0%").replace("τ = ", "τ\u00a0=\u00a0")


def _inside_json(value: object) -> str:
    """Return a value as JSON that cannot close its HTML element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _inside_script(source: str) -> str:
    """Return JavaScript that cannot close its HTML element, with the same meaning."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", source, flags=re.IGNORECASE)


def _content_policy(*scripts: str) -> str:
    """Return a content security policy that allows these scripts only, and no requests."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; "
        # Plotly inserts its own styles.
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return files("lcbench.reporting.page").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    """Return the source of plotly.js, without importing plotly."""
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise LcbenchError("The page needs plotly.js, which `pip install plotly` brings.")
