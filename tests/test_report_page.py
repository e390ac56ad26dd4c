import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from lcbench.report import page
from lcbench.report.verdict import findings
from report_documents import MARKUP, MODELS, document


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


def improvement(value: float, low: float | None, high: float | None) -> dict:
    return {"value": value, "low": low, "high": high}


def model(label: str, **avg) -> dict:
    return {"label": label, "best": "0.8", "improvements": {"0.8": {"Avg": avg}}, "scores": {}}


def choice(label: str, gain: float, honest: float) -> dict:
    return {
        "label": label,
        "gain": gain,
        "honest_gain": honest,
        "honest_low": -0.1,
        "honest_high": 0.5,
        "optimism": gain - honest,
    }


def test_a_report_comes_back_from_its_page_whole_whatever_its_names():
    report = small(MARKUP)

    scripts = Reader(page.build(report)).scripts()

    provenance = report.pop("provenance")
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
    report["tables"][0]["models"][0]["cells"][0]["score"] = float("nan")

    with pytest.raises(ValueError, match="not JSON compliant"):
        page.build(report)


def test_an_empty_report_says_so():
    assert "There are no results in this report." in page.build({"title": "Nothing"})


def test_the_page_is_made_without_importing_plotly_or_pandas():
    program = (
        "import sys; from lcbench.report import page; page.build({'title': 'x'}); "
        "print([name for name in ('plotly', 'pandas', 'torch', 'mteb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_findings_of_one_model():
    table = {
        "models": [model("MiniLM", **improvement(0.434, 0.1, 0.77))],
        "choice": {"models": [choice("MiniLM", 0.434, 0.2)]},
    }
    assert findings(table) == (
        (),
        (
            (
                "MiniLM",
                "+0.43 % on Avg at τ = 0.8, the best (95 % interval +0.10 to +0.77): larger than "
                "the noise. With each task's τ chosen on the other tasks +0.20 % (95 % interval "
                "−0.10 to +0.50), 0.23 points less than by the paper's rule, which chooses on "
                "the test data.",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (0.1, 0.5, "larger than the noise."),
        (-0.5, -0.1, "a loss larger than the noise."),
        (-0.1, 0.5, "it cannot be told from zero."),
        (0.0, 0.5, "it cannot be told from zero."),
        (None, None, "how sure this is, is not known."),
    ],
)
def test_a_finding_says_whether_the_interval_excludes_zero(low, high, meaning):
    ((_, text),) = findings({"models": [model("m", **improvement(0.2, low, high))]})[1]
    assert text.endswith(f": {meaning}")


def test_the_findings_of_several_models():
    table = {
        "models": [
            model("a", **improvement(0.5, 0.1, 0.9)),
            model("b", **improvement(-0.5, -0.9, -0.1)),
            model("c", **improvement(0.1, -0.1, 0.3)),
            model("d", **improvement(0.1, None, None)),
            {"label": "e", "best": None, "scores": {"1": {"Avg": 56.284}}},
            {**model("f"), "improvements": {"0.8": {"Avg": None}}},
        ],
        "average_improvement": {"Avg": improvement(0.05, -0.2, 0.3)},
        "choice": {"models": [choice("a", 0.5, 0.1), choice("c", 0.1, -0.1)]},
    }
    sentences, models = findings(table)
    assert sentences == (
        "Over 5 models, each at its best τ, Avg changes by +0.05 % (95 % interval −0.20 to +0.30), "
        "it cannot be told from zero.",
        "Of 5 models: 1 with a gain beyond the noise, 1 with a loss beyond it, 1 that cannot be "
        "told from zero, 2 of which it is not known.",
        "With each task's τ chosen on the other tasks: 0 with a gain beyond the noise, 0 with a "
        "loss beyond it, 2 that cannot be told from zero. The paper's rule, which chooses on the "
        "test data, overstates the gain by 0.30 points on average.",
    )
    assert dict(models)["e"] == "only the baseline was measured; its Avg is 56.28."
    assert dict(models)["f"] == "Avg has holes at τ = 0.8, so that its gain is unknown."
