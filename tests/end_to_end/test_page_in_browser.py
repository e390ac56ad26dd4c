"""The page as a reader has it: in a browser, from a file, by mouse, by keyboard and on a phone."""

import csv
import importlib.util
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from collapse_texts import made_figures, made_inside, made_measurements
from report_cells import item_rows, write_cell
from report_documents import MARKUP, MODELS, Grid, by_length, document, figures

from lcbench.reporting import page
from lcbench.reporting.collapse import report as collapse_report
from lcbench.reporting.publish import publish
from lcbench.reporting.select import Extent, report_folder
from lcbench.reporting.tables.by_length import LengthBuckets
from lcbench.reporting.tables.changes import NOT_DEFINED
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, ByRole, Constant

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
NEEDED = importlib.util.find_spec("selenium") is not None
WIDE = (1280, 900)
PHONE = (360, 740)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (NEEDED and CHROMIUM.exists() and CHROMEDRIVER.exists()),
        reason="needs selenium and Debian's chromium and chromium-driver",
    ),
]


class Page:
    """A page in the browser, and what a reader does with it."""

    def __init__(self, driver: Any, path: Path, report: dict[str, Any], downloads: Path) -> None:
        self.driver = driver
        self.path = path
        self.report = report
        self.downloads = downloads

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all these, without what only screen readers get."""
        return self.js(
            """return [...document.querySelectorAll(arguments[0])].map((one) => {
                 const copy = one.cloneNode(true);
                 copy.querySelectorAll(".unseen").forEach((text) => text.remove());
                 return copy.textContent;
               });""",
            selector,
        )

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def focus(self, element: Any) -> None:
        # As with Tab: a focus that shows.
        self.js(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
            "arguments[0].focus({focusVisible: true})",
            element,
        )

    def choose(self, region: str, label: str, text: str) -> None:
        """Choose an entry of the list with this label within a section."""
        from selenium.webdriver.support.ui import Select

        (field,) = (
            one
            for one in self.all(f"{region} .field")
            if one.find_element("css selector", "label").text == label
        )
        Select(field.find_element("css selector", "select")).select_by_visible_text(text)

    def size(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def system_theme(self, name: str) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {
                "features": [
                    {"name": "prefers-color-scheme", "value": name},
                    # Scrolling is at once, so that what is clicked does not move.
                    {"name": "prefers-reduced-motion", "value": "reduce"},
                ]
            },
        )

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait until a condition holds; AssertionError where it does not in that time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not seen within {seconds:g} s: {what}"
            time.sleep(0.05)

    def draw_charts(self) -> None:
        self.js("document.querySelectorAll('figure.chart').forEach((one) => one.draw())")
        assert self.js("return document.querySelectorAll('.plot:not(:has(svg))').length") == 0

    def open_everything(self) -> None:
        """Draw all charts, and open their data and whatever else is folded."""
        self.draw_charts()
        self.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        self.wait(lambda: all(self.texts(".figure-data")), "the data of every figure")

    def show_last_options(self) -> None:
        """Choose the last entry of every list of the charts."""
        self.js(
            """document.querySelectorAll("figure.chart select").forEach((one) => {
                 one.selectedIndex = one.options.length - 1;
                 one.dispatchEvent(new Event("change"));
               });"""
        )

    def faults(self) -> list[str]:
        """What the browser complained of since the last time."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last time."""
        events = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        return [
            event["message"]["params"]["request"]["url"]
            for event in events
            if event["message"]["method"] == "Network.requestWillBeSent"
        ]

    def saved(self, button: Any, name: str) -> str:
        """What a button saves."""
        # With a reader's own hand: a browser asks before it saves much that a script starts.
        self.focus(button)
        self.press("\ue007")
        self.wait((self.downloads / name).exists, name)
        return (self.downloads / name).read_text(encoding="utf-8")

    def accessibility_faults(self) -> list[str]:
        """The violations that axe-core finds."""
        spec = importlib.util.find_spec("axe_core_python")
        assert spec is not None
        assert spec.origin is not None
        if self.js("return typeof window.axe") == "undefined":
            self.js((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0];axe.run(document).then(done, (error) => done(String(error)))"
        )
        assert not isinstance(found, str), found
        # A rule that axe-core cannot carry out is neither passed nor violated.
        checked = {one["id"]: len(one["nodes"]) for one in found["passes"]}
        assert checked["color-contrast"] > 50
        assert len(checked) > 20
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    # Not below the tests' own folder: there a snap or a profile of the browser may not write.
    with tempfile.TemporaryDirectory(prefix="lcbench-page-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def driver(folder: Path) -> Iterator[Any]:
    """One browser for all, for its start takes seconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder / "downloads")}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def visited(driver: Any, folder: Path, path: Path, report: dict[str, Any]) -> Page:
    one = Page(driver, path, report, folder / "downloads")
    one.size(*WIDE)
    one.system_theme("light")
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())
    return one


def opened(driver: Any, folder: Path, name: str, report: dict[str, Any]) -> Page:
    path = folder / f"{name}.html"
    if not path.exists():
        path.write_text(page.build(report), encoding="utf-8")
    return visited(driver, folder, path, report)


@cache
def report_of(name: str) -> dict[str, Any]:
    """Return a report that several tests read; none changes it."""
    if name == "paper":
        return document()
    if name == "small":
        columns = {"Class": 2, "STS": 3}
        return document(models=MODELS[:2], columns=columns, taus=("1", "0.9", "0.8"))
    return document(models=MODELS[:2], columns={"STS": 2}, taus=("1", "0.8"), mark=MARKUP)


@pytest.fixture
def paper(driver: Any, folder: Path) -> Page:
    """A report as large as the paper's: five models, seven τ and forty tasks, 1,400 cells."""
    return opened(driver, folder, "paper", report_of("paper"))


@pytest.fixture
def small(driver: Any, folder: Path) -> Page:
    return opened(driver, folder, "small", report_of("small"))


@pytest.fixture
def marked(driver: Any, folder: Path) -> Page:
    """A report in which every name is markup."""
    return opened(driver, folder, "marked", report_of("marked"))


@pytest.fixture
def of_results(driver: Any, folder: Path) -> Page:
    """The page that the report of a folder of results writes; its model has markup for a name."""
    there = folder / "runs" / "report"
    if not there.exists():
        write_report(folder / "runs", there)
    report = json.loads((there / "report.json").read_text(encoding="utf-8"))
    return visited(driver, folder, there / "index.html", report)


def write_report(runs: Path, report_dir: Path) -> None:
    results = Results(runs)
    draw = random.Random(0)
    raw = [draw.uniform(0.2, 0.7) for _ in range(80)]
    policies = (BASELINE, Constant(0.9), Constant(0.8), ByRole(0.8, 1.0), ByRole(1.0, 0.8))
    for task in ("NFCorpus", "ArguAna"):
        for place, policy in enumerate(policies):
            scores = [score + 0.005 * place + draw.gauss(0, 0.01) for score in raw]
            tokens = [20 if number < 40 else 100 for number in range(80)]
            write_cell(
                results,
                task,
                sum(scores) / len(scores),
                item_rows(scores, tokens=tokens),
                policy=policy,
                model="<b>bold",
            )
    fewer = Extent(resamples=1000)
    publish(report_folder(results, None, report_dir, print, fewer))


@pytest.fixture
def collapse(driver: Any, folder: Path) -> Page:
    """The page of measurements: a model at two temperatures, also inside, and a matrix."""
    there = folder / "collapse"
    if not (there / "collapse.json").exists():
        collapse_report(made_measurements(), there, made_figures(), made_inside())
    path = there / "index.html"
    report = json.loads((there / "collapse.json").read_text(encoding="utf-8"))
    return visited(driver, folder, path, report)


def cells_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**cell, "label": model["label"]}
        for model in report["score_tables"][0]["models"]
        for cell in model["cells"]
    ]


def header(one: Page, region: str, name: str) -> Any:
    (found,) = (th for th in one.all(f"{region} thead th") if th.text.strip(" ↑↓↕") == name)
    return found


def shown(value: float) -> str:
    return f"{value:.2f}"


def excludes_zero(improvement: dict[str, Any] | None) -> bool:
    return improvement is not None and (improvement["low"] > 0 or improvement["high"] < 0)


def test_cells_are_sorted_by_click_and_by_keyboard(paper: Page):
    scores = [cell["score"] for cell in cells_of(paper.report)]
    column = header(paper, "#cells", "Score")
    button = column.find_element("css selector", "button")
    values = "#cells tbody td:nth-child(5)"

    paper.focus(button)
    button.click()
    descending = paper.texts(values), column.get_attribute("aria-sort")
    paper.press("\ue007")  # Enter
    ascending = paper.texts(values), column.get_attribute("aria-sort")

    ordered = sorted(scores)
    assert descending == ([shown(score) for score in ordered[::-1][:50]], "descending")
    assert ascending == ([shown(score) for score in ordered[:50]], "ascending")


def test_missing_values_come_last_in_either_order(small: Page):
    button = header(small, "#cells", "p").find_element("css selector", "button")
    for _ in range(2):
        small.focus(button)
        small.press(" ")
        assert small.texts("#cells tbody td:nth-child(10)")[-10:] == ["–"] * 10


def test_temperatures_are_sorted_as_numbers(driver: Any, folder: Path):
    report = document(
        models=MODELS[:1], columns={"STS": 1}, taus=("1", "0.75", "0.8", "{query: 0.8}", "0.9")
    )
    one = opened(driver, folder, "taus", report)
    button = header(one, "#cells", "τ").find_element("css selector", "button")
    one.focus(button)
    one.press("\ue007")
    assert one.texts("#cells tbody td:nth-child(4)") == ["0.75", "0.8", "0.9", "1", "{query: 0.8}"]


def test_cells_are_filtered(paper: Page):
    def rows() -> str:
        return paper.texts("#cells .status")[0]

    assert rows() == "1,400 rows"
    paper.choose("#cells", "Model", "GTR")
    assert rows() == "280 of 1,400 rows"
    assert set(paper.texts("#cells tbody td:nth-child(3)")) == {"GTR"}
    paper.choose("#cells", "Column", "STS")
    assert rows() == "56 of 1,400 rows"
    paper.choose("#cells", "τ", "0.8")
    assert rows() == "8 of 1,400 rows"
    assert paper.texts("#cells tbody th") == [f"STSTask{place:02d}" for place in range(8)]
    paper.find("#cells input[type=search]").send_keys("ststask03")
    assert rows() == "1 of 1,400 rows"
    paper.find("#cells input[type=search]").clear()
    paper.find("#cells input[type=search]").send_keys(" ")
    paper.choose("#cells", "Task", "STSTask05")
    assert paper.texts("#cells tbody th") == ["STSTask05"]


def test_cells_whose_interval_excludes_zero(paper: Page):
    sure = sum(excludes_zero(cell["improvement"]) for cell in cells_of(paper.report))

    paper.focus(paper.find("#cells input[type=checkbox]"))
    paper.press(" ")

    assert paper.texts("#cells .status") == [f"{sure:,} of 1,400 rows"]
    assert 0 < sure < 1200
    assert all(text[0] in "▲▼" for text in paper.texts("#cells tbody td:nth-child(7)"))


def test_pages_of_cells(paper: Page):
    paper.js("document.querySelectorAll('#cells .pages button')[1].click()")
    assert paper.texts("#cells .pages > span") == ["51–100 of 1,400"]
    paper.choose("#cells", "Rows a page", "all")
    assert len(paper.all("#cells tbody tr")) == 1400


def test_the_arrow_of_an_improvement_says_whether_it_is_significant(paper: Page):
    (table,) = paper.report["score_tables"]
    block = table["models"][0]
    best = block["improvements"][block["best"]]

    looks = paper.js(
        "return [...document.querySelectorAll('.table-one tr.relative')[0]"
        ".querySelectorAll('.number')].map((one) => [one.querySelector('.arrow')?.textContent,"
        " getComputedStyle(one).fontWeight])"
    )

    def arrow(one: dict[str, Any]) -> str | None:
        gain, sure = one["value"] > 0, excludes_zero(one)
        shape = ("▲" if gain else "▼") if sure else ("△" if gain else "▽")
        return None if shown(abs(one["value"])) == "0.00" and not sure else shape

    columns = [*(column["name"] for column in table["columns"]), "Avg"]
    expected = [
        [arrow(best[name]), "700" if excludes_zero(best[name]) else "400"] for name in columns
    ]
    assert looks == expected
    assert {arrow for arrow, _ in looks} >= {"▲", "△"}


def test_a_number_has_six_digits_under_the_pointer_and_under_the_keyboard(paper: Page):
    from selenium.webdriver import ActionChains

    first = paper.report["score_tables"][0]["models"][0]
    score = first["scores"]["1"]["Class"]
    second = first["improvements"][first["best"]]["PairClass"]
    tip = paper.find("#tip")
    numbers = paper.all(".table-one .number")

    assert not tip.is_displayed()
    paper.focus(paper.find("#tools button"))
    paper.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", numbers[0])
    ActionChains(paper.driver).move_to_element(numbers[0]).perform()
    assert f"{score:.6g}" in tip.text
    assert numbers[0].get_attribute("aria-describedby") == "tip"

    # Two down, from raw to the improvement, and one to the right: by arrow keys.
    paper.focus(numbers[0])
    paper.press("\ue015")
    paper.press("\ue015")
    paper.press("\ue014")
    text = tip.text
    for part in (second["value"], second["low"], second["high"]):
        assert f"{part:.6g}".replace("-", "−") in text
    # Escape takes the tip away and leaves the focus.
    paper.press("\ue00c")
    assert not tip.is_displayed()
    assert paper.js("return document.activeElement.classList.contains('number')")


def test_one_number_of_a_table_is_a_tab_stop(paper: Page):
    assert (
        paper.js("return document.querySelectorAll('.table-one .number[tabindex=\"0\"]').length")
        == 1
    )
    paper.focus(paper.all(".table-one .number")[0])
    paper.press("\ue014")
    stops = paper.js(
        "return [...document.querySelectorAll('.table-one .number')].map((one) => one.tabIndex)"
    )
    assert stops[:3] == [-1, 0, -1]
    assert sum(stop == 0 for stop in stops) == 1


def test_a_number_leads_to_where_it_comes_from_and_back(paper: Page):
    dialog = paper.find("#detail")
    number = paper.find("#cells tbody tr:nth-child(2) .number")
    paper.focus(number)
    paper.press("\ue007")

    assert dialog.get_attribute("open") is not None
    text = dialog.text
    for part in ("2.1e-7", "fedcba9876543210", "transformers", "5.10.1", "x86_64", "float32"):
        assert part in text
    for key in ("revision", "protocol", "proof", "versions", "hardware", "seconds"):
        assert key in paper.texts("#detail .provenance dt")

    paper.press("\ue00c")
    assert dialog.get_attribute("open") is None
    assert paper.js("return document.activeElement === arguments[0]", number)


def test_the_page_of_a_folder_of_results(of_results: Page):
    of_results.draw_charts()
    assert of_results.js("return document.querySelectorAll('b').length") == 0
    assert of_results.texts(".table-one tr.heading th")[1] == "<b>bold"
    cells = cells_of(of_results.report)
    assert len(cells) == 10
    assert len(of_results.all("#cells tbody tr")) == 10

    of_results.focus(of_results.find("#cells tbody tr:nth-child(2) .number"))
    of_results.press("\ue007")
    # What all cells share is found for each.
    text = of_results.find("#detail").text
    assert "float32" in text
    assert "shared" not in of_results.texts("#detail .provenance dt")
    of_results.press("\ue00c")

    asked = [url for url in of_results.requests() if not url.startswith("data:")]
    assert asked == [of_results.path.as_uri()]
    assert of_results.faults() == []


def test_a_long_table_shows_a_page_of_its_rows_under_their_heading(driver: Any, folder: Path):
    def row(place: int) -> list[dict[str, Any]]:
        return [
            {"text": text, "value": value, "style": "neutral", "tooltip": ""}
            for text, value in ((f"t{place}", f"t{place}"), (f"{place % 7}.00", place % 7))
        ]

    shown = {"name": "long", "title": "Long", "header": ["a", "b"], "labels": 1, "notes": []}
    sections = [
        {"heading": heading, "rows": [row(place) for place in range(40)]} for heading in ("p", "q")
    ]
    report = document(models=MODELS[:1], columns={"STS": 1})
    report["tables"] = [{**shown, "sections": sections}]
    one = opened(driver, folder, "long", report)
    assert one.texts("#further-tables .status") == ["80 rows"]
    assert one.texts("#further-tables tr.heading") == ["p", "q"]
    assert len(one.all("#further-tables tbody tr")) == 52
    one.js("document.querySelectorAll('#further-tables .pages button')[1].click()")
    # The heading stands above the rows of the next page as well.
    assert one.texts("#further-tables tr.heading") == ["q"]
    assert len(one.all("#further-tables tbody tr")) == 31
    one.choose("#further-tables", "Part", "p")
    assert one.texts("#further-tables .status") == ["40 of 80 rows"]
    button = header(one, "#further-tables", "b").find_element("css selector", "button")
    one.focus(button)
    one.press("\ue007")
    assert one.texts("#further-tables tbody td")[:6] == ["6.00"] * 5 + ["5.00"]
    one.choose("#further-tables", "Part", "all")
    # Rows are sorted within their part.
    assert one.texts("#further-tables tr.heading") == ["p", "q"]
    assert one.faults() == []


def test_a_mean_leads_to_its_cells(paper: Page):
    number = paper.all(".table-one .number")[0]
    paper.focus(number)
    paper.press("\ue007")
    assert paper.texts("#detail tbody th") == [f"ClassTask{place:02d}" for place in range(8)]

    paper.js("document.querySelector('#detail tbody .number').click()")
    assert paper.texts("#detail-title") == ["ClassTask00: ANCE, τ = 1"]
    assert "transformers" in paper.find("#detail").text
    (back,) = (one for one in paper.all("#detail button") if one.text == "Back")
    back.click()
    assert paper.texts("#detail-title") == ["Class: ANCE, τ = 1"]
    paper.press("\ue00c")
    assert paper.js("return document.activeElement === arguments[0]", number)


def test_the_theme_switches_with_its_charts(small: Page):
    grounds = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('.plot .main-svg').style.backgroundColor]"
    )
    small.draw_charts()
    light = small.js(grounds)
    button = small.find("#theme")
    try:
        assert button.text == "Dark theme"
        button.click()
        dark = small.js(grounds)
        assert button.text == "Light theme"
        button.click()
        again = small.js(grounds)
    finally:
        small.js("localStorage.clear()")
    small.driver.get(small.path.as_uri())
    small.system_theme("dark")
    small.draw_charts()
    by_system = small.js(grounds)

    assert light == ["rgb(255, 255, 255)"] * 2
    assert dark == ["rgb(20, 22, 26)"] * 2
    assert again == light
    assert by_system == dark


def test_paper_is_white_and_has_all_charts(small: Page):
    ground = (
        "return [...document.querySelectorAll('.plot')].map("
        "(one) => one.querySelector('.main-svg')?.style.backgroundColor)"
    )
    small.system_theme("dark")
    small.js("window.dispatchEvent(new Event('beforeprint'))")
    printed = small.js(ground)
    small.js("window.dispatchEvent(new Event('afterprint'))")

    assert len(printed) == 4
    assert set(printed) == {"rgb(255, 255, 255)"}
    assert set(small.js(ground)) == {"rgb(20, 22, 26)"}


def test_numbers_are_rounded_as_in_the_other_tables(driver: Any, folder: Path):
    report = document(models=MODELS[:1], columns={"STS": 3}, taus=("1", "0.8"))
    (block,) = report["score_tables"][0]["models"]
    values = [62.125, 62.375, -0.001, 50.625, 8.875, 1.005]
    for cell, value in zip(block["cells"], values, strict=True):
        cell["score"] = value

    one = opened(driver, folder, "rounded", report)

    assert one.texts("#cells tbody td:nth-child(5)") == [
        f"{round(value, 2) + 0.0:.2f}" for value in values
    ]


def test_axe_does_find_faults(small: Page):
    small.js("document.querySelector('#cells .status').style.color = '#ccc'")
    small.js("document.querySelector('#theme').textContent = ''")
    found = " ".join(small.accessibility_faults())
    assert "color-contrast (serious)" in found
    assert "button-name (critical)" in found


def test_charts_are_drawn_when_they_come_into_view(small: Page):
    assert small.js("return typeof window.Plotly") == "undefined"
    small.js("document.querySelector('figure.chart').scrollIntoView({behavior: 'instant'})")
    small.wait(
        lambda: small.js("return document.querySelector('figure.chart svg') !== null"),
        "the first chart",
    )
    small.choose("#table-0 .chart:first-of-type", "Show", "GTR")
    assert small.js("return document.querySelector('.plot').data.map((one) => one.name)") == [
        "Class",
        "STS",
        "Avg",
    ]


def test_what_is_saved(small: Page):
    (everything,) = (one for one in small.all("#tools button") if one.text == "All cells (CSV)")
    (chart,) = small.all("figure.chart")[0].find_elements("css selector", ".figure-tools > button")[
        :1
    ]

    cells = list(csv.DictReader(small.saved(everything, "lcbench-cells.csv").splitlines()))
    lines = list(csv.DictReader(small.saved(chart, "relative-improvement-over.csv").splitlines()))

    expected = cells_of(small.report)
    assert [float(row["score"]) for row in cells] == [cell["score"] for cell in expected]
    assert [row["p"] and float(row["p"]) for row in cells] == [
        "" if cell["improvement"] is None else cell["improvement"]["p"] for cell in expected
    ]
    improvements = small.report["score_tables"][0]["models"][1]["improvements"]
    assert float(lines[4]["improvement"]) == improvements["0.9"]["Avg"]["value"]


def test_no_console_error_and_no_request(paper: Page):
    paper.draw_charts()
    paper.focus(paper.find("#cells .number"))
    paper.press("\ue007")
    paper.press("\ue00c")
    paper.find("#theme").click()
    paper.js("localStorage.clear()")

    requests = paper.requests()

    assert paper.path.as_uri() in requests
    assert [
        url for url in requests if url != paper.path.as_uri() and url[:5] not in ("data:", "blob:")
    ] == []
    assert paper.faults() == []


# Each size and each theme once in the short run.
@pytest.mark.parametrize(
    ("size", "theme"),
    [
        pytest.param(WIDE, "light", id="wide-light"),
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(WIDE, "dark", id="wide-dark", marks=pytest.mark.exhaustive),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.exhaustive),
    ],
)
def test_axe_finds_no_fault(small: Page, theme: str, size: tuple[int, int]):
    small.size(*size)
    small.system_theme(theme)
    small.open_everything()
    assert small.accessibility_faults() == []

    # The other charts and, of a number, its tooltip and what it comes from.
    small.show_last_options()
    number = small.find("#cells tbody tr:nth-child(2) .number")
    small.focus(number)
    assert small.find("#tip").is_displayed()
    assert small.accessibility_faults() == []
    number.send_keys("\ue007")
    assert small.accessibility_faults() == []


def test_axe_finds_no_fault_in_charts_of_lengths_and_roles(of_results: Page):
    of_results.open_everything()
    of_results.show_last_options()
    assert len(of_results.all("#figures .chart")) > 1
    assert of_results.accessibility_faults() == []


@pytest.mark.parametrize(
    ("size", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide-light", "phone-dark"]
)
def test_the_page_of_collapse(collapse: Page, size: tuple[int, int], theme: str):
    collapse.size(*size)
    collapse.system_theme(theme)
    collapse.driver.get(collapse.path.as_uri())
    collapse.open_everything()
    assert collapse.texts("#findings p")[0].startswith(
        "toy, τ\u00a0=\u00a01, 120 texts: Collapses: no."
    )
    assert [one.text for one in collapse.all("#charts h3")] == [
        "Mean cosine by number of sentences",
        "Mean cosine by length",
        "σ_a by layer and length",
        "Entropy of attention by layer and length",
        "Attention on the first token by layer and length",
        "What each layer leaves of the differences between token vectors",
        "Figure 1b: Three lengths of one text",
        "Figure 1c: Mean cosine by length and τ",
    ]
    said = collapse.texts("#charts figcaption p")
    assert [one.partition(",")[0] for one in said] == ["Figure 1b", "Figure 1c"]
    assert "The paper: longer texts have more similar embeddings" in said[1]
    assert {
        "Does the model collapse, and is it length?",
        "What the repair changes inside, against the baseline on the same texts",
    } <= set(collapse.texts("#further-tables h3"))
    # What is said of scores is not for this page.
    assert collapse.all("#reading, #cells") == []
    assert collapse.js("return document.documentElement.scrollWidth") <= size[0]
    assert collapse.accessibility_faults() == []
    requests = collapse.requests()
    own = collapse.path.as_uri()
    assert [url for url in requests if url != own and url[:5] not in ("data:", "blob:")] == []
    assert collapse.faults() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("size", "theme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide-light", "phone-dark"]
)
def test_axe_finds_no_fault_in_a_report_of_1400_cells(
    paper: Page, theme: str, size: tuple[int, int]
):
    # As it opens: the page of rows that is shown is like the others, which would take minutes.
    paper.driver.set_script_timeout(300)
    paper.size(*size)
    paper.system_theme(theme)
    assert paper.texts("#cells .status") == ["1,400 rows"]
    assert paper.accessibility_faults() == []


def test_names_with_markup_are_text(marked: Page):
    marked.draw_charts()
    marked.focus(marked.find("#cells tbody tr:nth-child(2) .number"))
    marked.press("\ue007")

    assert marked.driver.title == f"{MARKUP}Attention temperature over 2 models"
    assert marked.js("return document.querySelectorAll('img, b, main a').length") == 0
    assert marked.texts(".table-one tr.heading th")[1] == f"{MARKUP}ANCE"
    assert marked.texts("#cells tbody th")[0] == f"{MARKUP}STSTask00"
    assert MARKUP in marked.find("#detail").text
    assert any("<img src=x" in text for text in marked.texts("svg text"))
    assert marked.js("return document.querySelectorAll('svg a').length") == 0
    assert marked.faults() == []


@pytest.mark.parametrize("name", ["paper", "marked"])
def test_a_phone_does_not_scroll_sideways(name: str, request: pytest.FixtureRequest):
    one: Page = request.getfixturevalue(name)
    one.size(*PHONE)
    one.driver.get(one.path.as_uri())
    one.draw_charts()
    assert one.js("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    # The widest tables do, each within its own region, which a keyboard reaches.
    assert one.js(
        "const region = document.querySelector('.table-one').parentElement;"
        "return [region.scrollWidth > region.clientWidth, region.tabIndex, region.ariaLabel !== '']"
    ) == [True, 0, True]


HEAT_MAPS = (
    "return [...document.querySelectorAll('#figures .grid .plot')].map((one) => {"
    "  const [{zmin, zmax, zmid, zauto, z, text, colorscale}] = one._fullData;"
    "  return {zmin, zmax, zmid, zauto, z, text, colours: colorscale.map((step) => step[1])};"
    "})"
)


def with_charts(
    lengths: Sequence[LengthBuckets] = (), grids: Sequence[Grid] = ()
) -> dict[str, Any]:
    report = document(models=MODELS[:1], columns={"STS": 1}, taus=("1", "0.8"))
    report["figures"] = figures(report["score_tables"][0]["models"], ["STS"], lengths, grids)
    return report


def with_heat_maps(*grids: list[list[float | None]]) -> dict[str, Any]:
    return with_charts(grids=[Grid(values=values) for values in grids])


def test_a_heat_map_of_zeros_has_the_colour_of_neither_gain_nor_loss(driver: Any, folder: Path):
    one = opened(driver, folder, "zeros", with_heat_maps([[0.0, 0.0], [0.0, 0.0]]))
    one.draw_charts()
    (shown,) = one.js(HEAT_MAPS)
    assert shown["z"] == [[0, 0], [0, 0]]
    assert shown["text"] == [["0.00", "0.00"], ["0.00", "0.00"]]
    assert (shown["zmin"], shown["zmax"]) == (-1, 1)
    # Losses, zero, which is grey, and gains.
    assert shown["colours"] == ["#8a3500", "#c65a12", "#a9a9a9", "#8cc4ea", "#cfebff"]


def test_all_heat_maps_have_one_scale_of_which_zero_is_the_middle(driver: Any, folder: Path):
    grids = ([[0.0, 0.1], [0.2, 1.5]], [[0.0, -1.0], [-1.36, None]], [[0.0, -10.0], [-100.0, 3.0]])
    one = opened(driver, folder, "scales", with_heat_maps(*grids))
    for theme in ("light", "dark"):
        one.system_theme(theme)
        one.draw_charts()
        found = one.js(HEAT_MAPS)
        # Linear up to 1 % and then logarithmic: 3 is the place of 100 %.
        assert [(shown["zmin"], shown["zmax"]) for shown in found] == [(-3, 3)] * 3
        assert [shown["colours"][2] for shown in found] == ["#a9a9a9"] * 3
        assert [shown["z"][0] for shown in found] == [[0, 0.1], [0, -1], [0, -2]]
        assert found[1]["text"][1] == ["−1.36", "–"]
    # The numbers of a bar of colours do not cover one another.
    for bar in one.all("#figures .grid .plot"):
        ticks = one.js(
            "return [...arguments[0].querySelectorAll('.cbaxis text')].map((text) => {"
            "  const {top, bottom} = text.getBoundingClientRect();"
            "  return [text.textContent, top, bottom]; })",
            bar,
        )
        ticks.sort(key=lambda tick: tick[1])
        names = ["100 %", "10 %", "1 %", "0 %", "−1 %", "−10 %", "−100 %"]
        assert [name for name, _, _ in ticks] == names
        assert all(below[1] > above[2] - 4 for above, below in pairwise(ticks))
    assert one.faults() == []


@pytest.mark.parametrize(
    ("kept", "heading"),
    [
        (("by_length", "heat"), "Length and role"),
        (("by_length",), "Length"),
        (("heat",), "Role"),
        ((), None),
    ],
)
def test_charts_are_headed_by_what_there_is(
    kept: tuple[str, ...], heading: str | None, driver: Any, folder: Path
):
    lengths = [by_length(random.Random(0), "", "ANCE", "STSTask00", ("1", "0.8"))]
    report = with_charts(lengths if "by_length" in kept else (), [Grid()] if "heat" in kept else ())
    one = opened(driver, folder, "-".join(("headed", *kept)), report)
    assert one.texts("#figures > h2") == ([] if heading is None else [heading])
    contents = [text for text in one.texts("#contents a") if "Length" in text or "Role" in text]
    assert contents == ([] if heading is None else [heading])
    keys = [text for text in one.texts("#figures > .key") if "Relative improvement in %" in text]
    assert len(keys) == ("heat" in kept)
    assert all("blue is a gain, orange a loss" in text for text in keys)


def test_no_axes_are_drawn_around_nothing(driver: Any, folder: Path):
    known = by_length(random.Random(0), "", "ANCE", "STSTask00", ("1", "0.8"))
    scores = {"1": (None, 50.0, None, 49.0), "0.8": (None,) * 4}
    nothing = replace(known, scores=scores, changes={"0.8": (NOT_DEFINED,) * 4})
    one = opened(driver, folder, "nothing", with_charts([nothing]))
    one.draw_charts()
    texts = (
        "return [...document.querySelectorAll('#figures > .chart .plot svg text')]"
        ".map((text) => text.textContent)"
    )
    # The numbers of items are named with the buckets.
    assert "65–128240" in one.js(texts)
    assert "No values to show." not in one.js(texts)

    one.choose("#figures > .chart", "Show", "improvement, %")

    assert one.js(texts) == ["No values to show."]
    assert one.faults() == []


def test_zero_is_in_sight_of_all_intervals(driver: Any, folder: Path):
    report = document(models=MODELS[:1], columns={"STS": 1}, taus=("1", "0.8"))
    (block,) = report["score_tables"][0]["models"]
    for name, value in (("STS", 0.778), ("Avg", 0.792)):
        block["improvements"]["0.8"][name] = {"value": value, "low": None, "high": None}
    report["figures"] = figures([block], ["STS"], (), ())
    one = opened(driver, folder, "zero", report)
    one.draw_charts()
    low, high = one.js("return document.querySelectorAll('.plot')[1]._fullLayout.xaxis.range")
    assert low <= 0 < 0.792 < high < 1


def test_the_average_is_in_sight_on_a_phone(paper: Page):
    paper.size(375, 740)
    paper.driver.get(paper.path.as_uri())
    places = (
        "const region = document.querySelector('.table-one').parentElement;"
        "region.scrollLeft = arguments[0];"
        "return [region.scrollWidth > region.clientWidth,"
        " ...[...region.querySelectorAll('.average')].map("
        "   (one) => one.getBoundingClientRect().right)]"
    )
    for scrolled in (0, 100, 10_000):
        is_wider, *rights = paper.js(places, scrolled)
        assert is_wider
        # The column's head, three rows of each of five models, and the mean over the models.
        assert len(rights) == 17
        assert max(rights) <= 375
        assert min(rights) > 300


def test_people_see_six_digits(small: Page):
    (average,) = (
        one["improvements"]["0.8"]["Avg"]["value"]
        for one in small.report["score_tables"][0]["models"]
        if one["label"] == "GTR"
    )
    long = re.compile(r"\d\.\d{8}")

    small.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    small.js("document.querySelectorAll('.number')[3].click()")
    mean = small.find("#detail").text
    small.press("\ue00c")
    small.js("document.querySelectorAll('#cells .number')[1].click()")
    cell = small.find("#detail").text
    small.wait(lambda: bool(small.texts(".figure-data")[0]), "the data of the first figure")
    data = small.texts(".figure-data")[0]

    assert "Score × 100" in mean
    assert "seconds" in cell
    assert f"{average:.6g}".replace("-", "−") in data
    assert [long.findall(text) for text in (mean, cell, data)] == [[], [], []]


def test_one_page_of_rows_has_no_pager_and_does_not_scroll_within_the_page(
    small: Page, paper: Page
):
    scrolls = (
        "const region = document.querySelector('#cells .browser').parentElement;"
        "return [region.scrollHeight > region.clientHeight + 1,"
        " document.querySelector('#cells .pages').checkVisibility()]"
    )
    # Both are the one browser's pages: the last that was asked for is open.
    assert paper.js(scrolls) == [False, True]
    paper.choose("#cells", "Rows a page", "all")
    assert paper.js(scrolls) == [True, True]

    paper.driver.get(small.path.as_uri())
    assert small.texts("#cells .status") == ["30 rows"]
    assert small.js(scrolls) == [False, False]


@pytest.mark.parametrize(
    "most", [20, pytest.param(1, marks=[pytest.mark.alone, pytest.mark.exhaustive])]
)
def test_a_report_of_1400_cells_opens_in_a_second(paper: Page, most: float):
    """On a machine that does nothing else; on any other there is no gross fault."""
    milliseconds = paper.driver.execute_async_script(
        "const done = arguments[0];"
        "const measured = () => requestAnimationFrame(() => requestAnimationFrame(() => done("
        "  [performance.timing.loadEventEnd - performance.timing.navigationStart,"
        "   performance.now()])));"
        "measured();"
    )
    load, painted = milliseconds
    print(f"load event after {load} ms, a frame after it {painted:.0f} ms")
    assert len(paper.all("#cells tbody tr")) == 50
    assert paper.find(".table-one tbody tr").is_displayed()
    assert paper.texts("#cells .status") == ["1,400 rows"]
    assert 0 < load < 1000 * most
    assert painted < 1000 * most
