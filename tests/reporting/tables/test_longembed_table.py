"""LongEmbed's published scores, and where the report shows them."""

import csv
import tomllib
from pathlib import Path
from typing import Any

import pytest
from report_cells import write_cell

from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.longembed import AVERAGE, COLUMNS, longembed_table, published
from lcbench.results.folder import Results
from lcbench.tasks.suites import shipped_suites
from lcbench.tempscale.policy import parse

ROOT = Path(__file__).parents[3]
BGE = "BAAI/bge-base-en-v1.5"


def test_the_average_is_the_mean_of_what_is_printed() -> None:
    # Each is printed with one decimal: six of them leave ± 0.05 of the mean, and its own rounding.
    whole = [one for one in published() if None not in one.scores.values()]
    assert len(whole) == 18
    for one in whole:
        mean = sum(one.scores[task] or 0 for task in COLUMNS) / len(COLUMNS)
        assert abs(mean - (one.scores[AVERAGE] or 0)) <= 0.1 + 1e-9, one


def test_the_numbers_are_those_that_are_printed() -> None:
    by_hand = {
        ("dwzhu/e5-base-4k", "fine-tuned for 4k", "paper"): (67.3, 41.5, 30.4, 35.7, 95.2, 69.2),
        ("dwzhu/e5rope-base", "PCW", "paper"): (42.5, 50.8, 25.1, 34.9, 94.9, 69.3),
        ("facebook/contriever", "", "repository"): (38.5, 29.0, 26.7, 25.5, 73.5, 47.2),
        ("nomic-ai/nomic-embed-text-v1", "rotary factor 16", "repository"): (
            *(60.8, 39.5, 41.2),
            *(36.7, 93.0, 73.8),
        ),
    }
    for (model, method, source), expected in by_hand.items():
        (one,) = (
            one
            for one in published()
            if (one.model, one.method, one.source) == (model, method, source)
        )
        assert tuple(one.scores[task] for task in COLUMNS) == expected


def test_columns_are_the_tasks_of_the_suite_and_of_the_file() -> None:
    (suite,) = (one for one in shipped_suites() if one.name == "longembed")
    assert set(COLUMNS) == set(suite.tasks)
    with (ROOT / "results" / "longembed" / "scores.csv").open(encoding="utf-8") as file:
        assert {*COLUMNS, AVERAGE} < set(csv.DictReader(file).fieldnames or ())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    included = build["build"]["targets"]["wheel"]["force-include"]
    assert included["results/longembed"] == "lcbench/longembed"


def test_published_scores_are_beside_those_of_the_same_model(tmp_path: Path) -> None:
    results = Results(tmp_path)
    written: dict[str, Any] = {"model": BGE, "window": 512}
    for place, task in enumerate(COLUMNS):
        write_cell(results, task, 0.3 + place / 100, None, **written)
    write_cell(results, "LEMBQMSumRetrieval", 0.4, None, policy=parse(0.9), **written)
    table = longembed_table(build_tables(results.read(lambda task, _: "Retr", pytest.fail)))
    assert table is not None
    (section,) = table.sections
    texts = [[entry.text for entry in row] for row in section.rows]
    assert texts[0][0] == "LongEmbed, window 512"
    assert texts[0][-1] == "33.9"
    assert texts[1][0] == "LongEmbed (repository), window 512"
    assert texts[1][1:] == ["18.0", "25.3", "25.6", "22.4", "60.3", "51.7", "33.9"]
    assert texts[2][1:] == ["30.0", "31.0", "32.0", "33.0", "34.0", "35.0", "32.5"]
    assert texts[2][0] == "lcbench, τ = 1"
    assert texts[3][0] == "lcbench, τ = 0.9"
    # Not all six: no average.
    assert texts[3][4] == "40.0"
    assert texts[3][-1] == texts[3][1] != "40.0"


def test_other_models_and_tasks_have_no_such_table(tmp_path: Path) -> None:
    results = Results(tmp_path)
    write_cell(results, "LEMBQMSumRetrieval", 0.4, None, model="an/other", window=512)
    write_cell(results, "NFCorpus", 0.4, None, model=BGE, window=512)
    assert longembed_table(build_tables(results.read(lambda task, _: "Retr", pytest.fail))) is None
