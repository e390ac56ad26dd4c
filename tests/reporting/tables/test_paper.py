"""`tables.paper`: which of our numbers stand beside the paper's, and what is said there."""

import csv
import io
import json
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_cells import standard_error
from report_cells import BGE, PAPER_PROTOCOL, RELEVANT, item_rows, write_cell
from screens import shown

from lcbench.hub.models import shipped_models
from lcbench.reporting import formats
from lcbench.reporting.reading import read_items
from lcbench.reporting.select import WHOLE, report_folder
from lcbench.reporting.tables import paper
from lcbench.reporting.tables.paper import Comparison, asked_cells, compare, is_papers
from lcbench.reporting.tables.paper_comparison import comparison_tables
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of, shipped_suites
from lcbench.tempscale.policy import BASELINE, ByRole, Constant, Policy
from lcbench.uncertainty.covariance import HALF_WIDTH

GIST = "avsolatorio/GIST-small-Embedding-v0"
E5 = "dwzhu/e5-base-4k"
TAU = Constant(0.8)
SUITE = {suite.name: suite for suite in shipped_suites()}["paper"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


def frame(results: Results) -> Any:
    return results.read(lambda task, kind: column_of(task, kind, shipped_suites()), pytest.fail)


def compared(results: Results) -> tuple[Comparison, ...]:
    asked = asked_cells(frame(results))
    return compare(asked, read_items([], [], asked, resamples=0, seed=0).compared)


def the(comparisons: Sequence[Comparison], row: str, column: str, **more: Any) -> Comparison:
    (found,) = (
        one
        for one in comparisons
        if (one.row, one.column) == (row, column)
        and all(getattr(one, name) == value for name, value in more.items())
    )
    return found


def write_means(
    results: Results,
    scores: dict[str, float],
    policy: Policy = BASELINE,
    items: bool = True,
    **more: Any,
) -> None:
    """Write one cell a task whose two items lie 0.01 to either side of its score."""
    for task, score in scores.items():
        rows = item_rows([score - 0.01, score + 0.01]) if items else None
        write_cell(results, task, score, rows, policy=policy, **more)


# Of such a task: the two items' standard error of the mean.
ERROR = 0.01

# BGE's column BeirRetr is printed as 55.29 raw and 56.00 at τ = 0.8.
RAW = {"NFCorpus": 0.37, "SciFact": 0.736}
OURS = {"NFCorpus": 0.38, "SciFact": 0.77}


def test_every_model_of_the_paper_is_one_that_is_shipped() -> None:
    names = shipped_models()
    rows = paper._rows("Table 1")
    models = list(dict.fromkeys(row["model"] for row in rows if row["model"] != "ALL"))
    assert models == ["ANCE", "GTR", "GIST", "BGE", "E5"]
    assert names["bge"] == BGE
    assert {model.lower() for model in models} <= names.keys()
    assert "custom" not in names


def test_the_numbers_are_those_that_are_printed() -> None:
    (raw,) = (row for row in paper._rows("Table 1") if (row["model"], row["tau"]) == ("BGE", "1.0"))
    columns = [*SUITE.columns, "Avg"]
    printed = ["64.79", "45.80", "31.03", "75.88", "55.29", "58.87", "37.46", "52.73"]
    assert [raw[column] for column in columns] == printed
    assert [row["E5"] for row in paper._rows("Table 2")][:4] == ["34.11", "33.86", "31.58", "31.27"]
    assert [row["ANCE"] for row in paper._rows("Table 3")][:3] == ["1306.2", "1291.6", "1278.1"]


def test_the_tables_are_in_the_wheel() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    included = build["build"]["targets"]["wheel"]["force-include"]
    assert included["results/paper"] == "lcbench/paper"
    assert paper.data_folder() == ROOT / "results" / "paper"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"window": 512}, True),
        ({"subsets": ["en"]}, False),
        ({"prompts": "registry"}, False),
        ({"dtype": "float16"}, False),
        ({"splits": "all"}, False),
        ({"name": "leaderboard"}, False),
    ],
)
def test_whether_a_protocol_is_the_papers(changed: dict[str, Any], expected: bool) -> None:
    assert is_papers({**PAPER_PROTOCOL, **changed}) is expected


def test_a_protocol_that_says_nothing_of_subsets_has_all() -> None:
    assert is_papers({key: value for key, value in PAPER_PROTOCOL.items() if key != "subsets"})
    assert not is_papers({})


def test_a_column_of_table_1(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, OURS, TAU)
    # Not the paper's τ of this model, however good it may be.
    write_means(results, {"NFCorpus": 0.9, "SciFact": 0.9}, Constant(0.7))
    found = compared(results)
    assert [(one.row, one.policy, one.column) for one in found] == [
        ("raw", "1", "BeirRetr"),
        ("raw", "1", "Avg"),
        ("ours", "0.8", "BeirRetr"),
        ("ours", "0.8", "Avg"),
        ("relative", "0.8", "BeirRetr"),
        ("relative", "0.8", "Avg"),
    ]
    raw = the(found, "raw", "BeirRetr")
    assert (raw.table, raw.model, raw.name, raw.window) == ("Table 1", "BGE", BGE, 512)
    assert (raw.paper, raw.ours) == (55.29, pytest.approx(55.30))
    assert raw.difference == pytest.approx(0.01)
    # Two independent tasks of the same error.
    noise = HALF_WIDTH * 100 * ERROR / np.sqrt(2) + 0.005
    assert raw.noise == pytest.approx(noise)
    assert raw.within == "yes"
    ours = the(found, "ours", "BeirRetr")
    assert (ours.paper, ours.ours) == (56.00, pytest.approx(57.50))
    assert ours.noise == pytest.approx(noise)
    assert noise == pytest.approx(1.391, abs=1e-3)
    assert ours.within == "no"
    relative = the(found, "relative", "BeirRetr")
    assert (relative.paper, relative.ours) == (1.29, pytest.approx(100 * (57.5 - 55.3) / 55.3))
    # The items differ from the baseline's by the same amount, so that the difference is exact and
    # all that is left is the raw score below the line.
    assert relative.noise == pytest.approx(
        0.005 + HALF_WIDTH * (100 * 2.2 / 55.3**2) * 100 * ERROR / np.sqrt(2), rel=1e-6
    )
    assert relative.within == "no"


def test_the_noise_of_a_relative_improvement_is_that_of_paired_items(
    results: Results, random: np.random.Generator
) -> None:
    draws = {}
    for task in ("NFCorpus", "SciFact"):
        raw = np.clip(0.5 + 0.2 * random.standard_normal(400), 0, 1)
        ours = np.clip(raw + 0.02 + 0.05 * random.standard_normal(400), 0, 1)
        for policy, scores in ((BASELINE, raw), (TAU, ours)):
            write_cell(results, task, scores.mean(), item_rows(list(scores)), policy=policy)
        places = random.integers(0, 400, (4000, 400))
        draws[task] = raw[places].mean(axis=1), ours[places].mean(axis=1)
    raw, ours = (np.mean([draws[task][row] for task in draws], axis=0) for row in (0, 1))
    bootstrap = (100 * (ours - raw) / raw).std(ddof=1)
    noise = the(compared(results), "relative", "BeirRetr").noise
    assert noise == pytest.approx(HALF_WIDTH * bootstrap + 0.005, rel=0.05)


def test_relative_improvements_of_items_that_are_not_the_same_have_unknown_noise(
    results: Results,
) -> None:
    write_means(results, RAW)
    write_means(results, {"SciFact": OURS["SciFact"]}, TAU)
    score = OURS["NFCorpus"]
    rows = [{**row, "id": f"other {row['id']}"} for row in item_rows([score, score])]
    write_cell(results, "NFCorpus", score, rows, policy=TAU)
    found = compared(results)
    assert the(found, "ours", "BeirRetr").noise is not None
    relative = the(found, "relative", "BeirRetr")
    assert relative.ours == pytest.approx(100 * (57.5 - 55.3) / 55.3)
    assert (relative.noise, relative.within) == (None, "unknown")


def test_a_partial_column_is_no_number(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, {"STSBenchmark": 0.86, "STS13": 0.8})
    found = compared(results)
    sts = the(found, "raw", "STS")
    assert (sts.paper, sts.ours, sts.present) == (75.88, None, "2 of 10 tasks")
    assert (sts.difference, sts.within) == (None, "unknown")
    assert the(found, "raw", "Avg").present == "1 of 7 columns"
    # Nothing was measured at the paper's τ, so there is nothing to say of it.
    assert {one.row for one in found} == {"raw"}


def test_partial_columns_alone_are_nothing_in_common(results: Results) -> None:
    write_means(results, {"STSBenchmark": 0.86})
    assert compared(results) == ()


def test_a_task_without_items_has_unknown_noise(results: Results) -> None:
    write_means(results, {"SummEval": 0.3103}, items=False)
    summ = the(compared(results), "raw", "Summ")
    assert (summ.paper, summ.ours) == (31.03, pytest.approx(31.03))
    assert (summ.noise, summ.within) == (None, "unknown")


def test_one_task_of_unknown_noise_makes_that_of_the_column_unknown(results: Results) -> None:
    write_means(results, {"NFCorpus": RAW["NFCorpus"]}, items=False)
    write_means(results, {"SciFact": RAW["SciFact"]})
    raw = the(compared(results), "raw", "BeirRetr")
    assert raw.ours == pytest.approx(55.30)
    assert raw.noise is None


def test_all_columns_make_the_average(results: Results) -> None:
    scores = dict.fromkeys(SUITE.tasks, 0.5)
    write_means(results, scores)
    found = compared(results)
    assert {one.column for one in found if one.table == "Table 1"} == {*SUITE.columns, "Avg"}
    average = the(found, "raw", "Avg")
    assert (average.paper, average.ours) == (52.73, pytest.approx(50.0))
    columns = [ERROR / np.sqrt(len(tasks)) for tasks in SUITE.columns.values()]
    error = 100 * np.sqrt(np.sum(np.square(columns))) / 7
    assert average.noise == pytest.approx(HALF_WIDTH * error + 0.005)
    assert average.within == "no"


@pytest.mark.parametrize(
    "changed",
    [
        {"subsets": ["en"]},
        {"prompts": "registry"},
        {"dtype": "bfloat16"},
        {"name": "leaderboard"},
        {"window": 256},
        {"model": "sentence-transformers/all-MiniLM-L6-v2"},
        # Its window in the paper is 4,096.
        {"model": E5},
    ],
)
def test_nothing_of_other_protocols_windows_and_models(
    results: Results, changed: dict[str, Any]
) -> None:
    write_means(results, RAW, **changed)
    assert compared(results) == ()


def test_e5_reads_4096_tokens(results: Results) -> None:
    write_means(results, RAW, model=E5, window=4096)
    raw = the(compared(results), "raw", "BeirRetr")
    assert (raw.model, raw.window, raw.paper) == ("E5", 4096, 47.22)


def test_a_kept_position_bias_is_not_the_papers_temperature(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, OURS, Constant(0.8, keeps_bias=True))
    assert {one.row for one in compared(results)} == {"raw"}


def test_two_revisions_of_a_model_are_distinguished(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, OURS, revision="e" * 40)
    found = compared(results)
    values = {one.revision[0]: one.ours for one in found if one.column == "BeirRetr"}
    assert values == {"f": pytest.approx(55.3), "e": pytest.approx(57.5)}
    (table,) = comparison_tables(found)
    assert {section.group for section in table.sections} == {
        "BGE (ffffffff)",
        "BGE (eeeeeeee)",
    }


LONG = SUITE.columns["LongEmbRetr"]


def test_the_score_that_is_printed_twice_is_no_target(results: Results) -> None:
    write_means(results, dict.fromkeys(LONG, 0.37))
    write_means(results, dict.fromkeys(LONG, 0.5), TAU)
    found = compared(results)
    assert the(found, "raw", "LongEmbRetr").doubt == ""
    assert the(found, "raw", "LongEmbRetr").within == "yes"
    for row in ("ours", "relative"):
        one = the(found, row, "LongEmbRetr")
        assert "38.35 for both GIST and BGE" in one.doubt
        assert one.noise is not None
        assert one.within == "unknown"


def test_the_roles_of_table_2(results: Results) -> None:
    model = {"model": E5, "window": 4096}
    scores = {
        BASELINE: 0.3127,
        TAU: 0.36,
        ByRole(query=1.0, document=0.8): 0.3386,
        ByRole(query=0.8, document=1.0): 0.3158,
        ByRole(query=0.9, document=1.0): 0.5,
    }
    for policy, score in scores.items():
        write_means(results, {"LEMBQMSumRetrieval": score}, policy, **model)
    found = [one for one in compared(results) if one.table == "Table 2"]
    task = "LEMBQMSumRetrieval"
    assert [(one.row, one.policy, one.column, one.paper) for one in found] == [
        ("TempScale", "0.8", task, 34.11),
        ("w/o query", "query=1,document=0.8", task, 33.86),
        ("w/o doc", "query=0.8,document=1", task, 31.58),
        ("Raw", "1", task, 31.27),
    ]
    noise = pytest.approx(HALF_WIDTH * 100 * ERROR + 0.005)
    assert [one.noise for one in found] == [noise] * 4
    assert [one.ours for one in found] == [pytest.approx(v) for v in (36, 33.86, 31.58, 31.27)]
    assert [one.within for one in found] == ["yes"] * 4
    assert "does not state" in found[0].note
    assert found[3].note == ""


@pytest.mark.parametrize(("model", "raw"), [(BGE, 22.64), (GIST, 16.61)])
def test_the_exchanged_columns_of_table_2_are_no_targets(
    results: Results, model: str, raw: float
) -> None:
    write_means(results, {"LEMBQMSumRetrieval": raw / 100}, model=model)
    one = the(compared(results), "Raw", "LEMBQMSumRetrieval")
    assert (one.paper, one.ours) == (raw, pytest.approx(raw))
    assert "exchanged" in one.doubt
    assert one.within == "unknown"


def test_table_3(results: Results) -> None:
    for policy in (BASELINE, Constant(0.9), Constant(0.7)):
        rows = item_rows([0.5] * 5, relevant=RELEVANT)
        write_cell(results, "SciFact", 0.5, rows, policy=policy)
    found = [one for one in compared(results) if one.table == "Table 3"]
    assert [(one.row, one.policy, one.column) for one in found] == [
        ("rank", "1", "SciFact"),
        ("rank", "0.9", "SciFact"),
    ]
    assert [(one.paper, one.ours) for one in found] == [(13.3, 25.0), (12.3, 25.0)]
    error = np.sqrt(3 * np.array([-15, 10, 5]).var(ddof=1)) / 4
    assert found[0].noise == pytest.approx(HALF_WIDTH * error + 0.05)
    assert found[0].within == "no"


def write_all_models(results: Results, random: np.random.Generator, column: str) -> None:
    """Write a column of all five models at both temperatures, over the same items."""
    hard = random.random(50)
    for row in paper._rows("Table 1"):
        if row["row_kind"] not in ("raw", "ours"):
            continue
        for task in SUITE.columns[column]:
            scores = np.clip(float(row[column]) / 100 + 0.2 * (hard - hard.mean()), 0, 1)
            write_cell(
                results,
                task,
                scores.mean(),
                item_rows(list(scores)),
                policy=Constant(float(row["tau"])),
                model=shipped_models()[row["model"].lower()],
                window=4096 if row["window"] == "4k" else 512,
            )


def test_the_mean_improvement_over_the_models(
    results: Results, random: np.random.Generator
) -> None:
    write_all_models(results, random, "BeirRetr")
    found = compared(results)
    assert sum(one.row == "raw" and one.column == "BeirRetr" for one in found) == 5
    one = the(found, "avg_improv", "BeirRetr")
    assert (one.model, one.name, one.policy, one.paper) == ("ALL", "", "", 0.71)
    improvements = [one.ours for one in found if (one.row, one.column) == ("relative", "BeirRetr")]
    assert one.ours == pytest.approx(np.mean(improvements))
    assert one.ours == pytest.approx(0.71, abs=0.02)
    # The models share the items, so that their errors do not average out as independent ones do.
    rows = paper._rows("Table 1")
    raws, ours = (
        {row["model"]: float(row["BeirRetr"]) for row in rows if row["row_kind"] == kind}
        for kind in ("raw", "ours")
    )
    files = frame(results)
    (spread,) = {
        round((standard_error(one) or 0.0) ** 2, 12)
        for one in files[files["task"] == "SciFact"]["files"]
    }
    # Every item's score moves all ten cells alike: the derivative by that common movement.
    slope = np.mean([100 * 100 * (raws[name] - ours[name]) / raws[name] ** 2 for name in raws])
    error = abs(slope) * np.sqrt(spread / 2)
    assert one.noise == pytest.approx(HALF_WIDTH * error + 0.005, rel=1e-3)
    assert one.within == "yes"


def test_without_all_models_there_is_no_mean_over_them(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, OURS, TAU)
    assert "avg_improv" not in {one.row for one in compared(results)}


def report(results: Results, folder: Path) -> str:
    find = partial(report_folder, results, None, folder, pytest.fail, WHOLE)
    return shown(find, ["all"], width=110)


def test_the_report_has_the_section(results: Results, tmp_path: Path) -> None:
    write_means(results, RAW)
    write_means(results, OURS, TAU)
    write_means(results, {"STSBenchmark": 0.86})
    printed = report(results, tmp_path)
    section = printed[printed.index("Comparison with the paper: Table 1") :]
    lines = [line.split() for line in section.splitlines()]
    at = lines.index(["BGE"])
    assert lines[at + 1 : at + 4] == [
        ["raw,", "τ", "=", "1"],
        ["paper", "75.88", "55.29", "52.73"],
        ["lcbench", "1", "of", "10", "55.30", "1", "of", "7"],
    ]
    assert ["difference", "–", "+0.01", "✓", "–"] in lines
    assert ["difference", "–", "+1.50", "✗", "–"] in lines
    assert "Of 3 numbers 1 agree with the paper within the noise and 2 do not; 0" in section
    markdown = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "## Comparison with the paper: Table 1" in markdown
    assert "| **raw, τ = 1** |  |  |  |\n| paper | 75.88 | 55.29 | 52.73 |" in markdown
    rows = list(csv.DictReader(io.StringIO((tmp_path / "paper.csv").read_text("utf-8"))))
    row = next(row for row in rows if (row["row"], row["column"]) == ("ours", "BeirRetr"))
    assert {name: row[name] for name in ("table", "model", "window", "policy", "within")} == {
        "table": "Table 1",
        "model": BGE,
        "window": "512",
        "policy": "0.8",
        "within": "no",
    }
    assert float(row["paper"]) == 56.0
    assert float(row["difference"]) == pytest.approx(1.5)
    assert float(row["noise"]) == pytest.approx(1.391, abs=1e-3)
    partial = next(row for row in rows if (row["row"], row["column"]) == ("raw", "STS"))
    assert (partial["ours"], partial["note"]) == ("", "1 of 10 tasks")


def test_a_report_with_nothing_in_common_says_nothing(results: Results, tmp_path: Path) -> None:
    write_means(results, RAW, prompts="registry")
    (tmp_path / "paper.csv").write_text("of an earlier report")
    earlier = {"title": "", "version": "", "tables": [], "files": ["paper.csv"]}
    (tmp_path / "report.json").write_text(json.dumps(earlier))
    printed = report(results, tmp_path)
    assert "Table 1" not in printed
    assert "Comparison with the paper" not in printed
    assert not (tmp_path / "paper.csv").exists()
    assert "Comparison" not in (tmp_path / "tables.md").read_text(encoding="utf-8")


def test_doubtful_numbers_have_a_footnote(results: Results) -> None:
    write_means(results, {"LEMBQMSumRetrieval": 0.18})
    text = "".join(map(formats.markdown, comparison_tables(compared(results))))
    assert "| **Raw, τ = 1** |  |\n| paper | 22.64† |" in text
    assert "† Table 2: the paper's columns GIST and BGE look exchanged" in text
    # Table 1 has no number in common, and is left out with its footnotes.
    assert "Table 1" not in text.replace("the paper's Table 1", "")


def test_only_items_of_numbers_in_common_are_read(results: Results) -> None:
    write_means(results, RAW)
    write_means(results, OURS, Constant(0.7))
    write_means(results, {"STSBenchmark": 0.86})
    asked = asked_cells(frame(results))
    read = sorted(f"{cell.task} {cell.folder.name}" for cell in asked.with_samples)
    assert read == [f"NFCorpus {'f' * 40}", f"SciFact {'f' * 40}"]


def test_the_readme_names_what_is_in_doubt() -> None:
    text = (paper.data_folder() / "README.md").read_text(encoding="utf-8")
    assert "2410.24200v1" in text
    assert "38.35" in text
    assert "exchanged" in text
