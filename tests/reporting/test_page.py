import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from report_documents import MARKUP, MODELS, document

from lcbench.reporting import page


class Reader(HTMLParser):
    """What a browser makes of a page: its elements, and the text of those with a raw one."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within:
            self.texts[self.within][-1] += data

    def scripts(self) -> dict[str, str]:
        """The scripts by id; the one without is the page's own."""
        those = [attributes for tag, attributes in self.elements if tag == "script"]
        return {
            str(attributes.get("id", "page")): text
            for attributes, text in zip(those, self.texts["script"], strict=True)
        }


def small(mark: str = "") -> dict:
    return document(models=MODELS[:2], columns={"STS": 2}, taus=("1", "0.8"), mark=mark)


def test_a_report_comes_back_from_its_page_whole_whatever_its_names():
    report = small(MARKUP)

    scripts = Reader(page.build(report)).scripts()

    provenance = report.pop("provenance")
    assert json.loads(scripts["views"]) == report["figures"].pop("views")
    assert json.loads(scripts["document"]) == report
    assert json.loads(scripts["provenance"]) == provenance


def test_names_with_markup_make_no_element():
    plain = Reader(page.build(small()))
    marked = Reader(page.build(small(MARKUP)))

    assert [tag for tag, _ in marked.elements] == [tag for tag, _ in plain.elements]
    assert marked.texts["title"][0] == f"{MARKUP}Attention temperature over 2 models"


def test_the_page_names_no_address_outside_of_plotly():
    text = page.build(small())
    plotly = Reader(text).scripts()["plotly"]

    rest = text.replace(plotly, "")

    assert len(text) - len(rest) > 1_000_000
    assert not re.findall(r"https?:/|\burl\(|@import|\bsrc=", rest)
    assert re.findall(r'href="([^"#]*)"', rest) == ["data:,"]


def test_only_the_scripts_of_the_page_may_run():
    reader = Reader(page.build(small()))
    (content,) = (
        str(attributes["content"])
        for _, attributes in reader.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in content.split(";"))
    scripts = reader.scripts()

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [named(scripts["page"]), named(scripts["plotly"])]


def test_what_would_end_a_script_is_written_differently():
    assert page._inside_script('a = "</SCRIPT>", b = "<!--", c = "</b>"') == (
        'a = "\\x3c/SCRIPT>", b = "\\x3c!--", c = "</b>"'
    )


def test_a_number_that_is_not_finite_is_refused():
    report = small()
    report["score_tables"][0]["models"][0]["cells"][0]["score"] = float("nan")

    with pytest.raises(ValueError, match="not JSON compliant"):
        page.build(report)


def test_an_empty_report_says_so():
    assert "There are no results in this report." in page.build({"title": "Nothing"})


def test_the_page_is_made_without_importing_plotly_or_pandas():
    program = (
        "import sys; from lcbench.reporting import page; page.build({'title': 'x'}); "
        "print([name for name in ('plotly', 'pandas', 'torch', 'mteb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
