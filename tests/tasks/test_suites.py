"""Suites, benchmarks and what of a task is scored; the paper's 40 tasks against mteb's metadata."""

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lcbench.errors import RequestError
from lcbench.settings.sources import shipped_sources
from lcbench.tasks import suites
from lcbench.tasks.docs.names import DOCS_TASKS
from lcbench.tasks.mteb_tasks import parts_of
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.source import Part
from lcbench.tasks.suites import check_pins, choose, resolve, resolve_all, shipped_suites

ROOT = Path(__file__).parents[2]
PAPER = next(suite for suite in shipped_suites() if suite.name == "paper")


def paper_tasks() -> list[dict[str, str]]:
    with (ROOT / "results" / "paper" / "tasks.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def made(part: Part) -> Any:
    return part.source.make(part)


def chosen(*names: str) -> dict[str, TaskChoice]:
    return {one.name: one for one in choose(names, shipped_suites(), shipped_sources())[0]}


def test_the_paper_suite_has_the_papers_tasks_and_columns() -> None:
    columns: dict[str, list[str]] = {}
    for row in paper_tasks():
        columns.setdefault(row["table1_column"], []).append(row["task"])
    assert {name: list(tasks) for name, tasks in PAPER.columns.items()} == columns
    assert [len(tasks) for tasks in PAPER.columns.values()] == [8, 11, 1, 10, 2, 4, 4]


@pytest.mark.parametrize("row", paper_tasks(), ids=lambda row: row["task"])
def test_a_task_of_the_paper_is_what_mteb_has(row: dict[str, str]) -> None:
    """Fails when mteb moves a dataset, a split or a metric that the paper's numbers depend on."""
    entry = registry().tasks[row["task"]]
    assert (entry.dataset, entry.revision) == (row["dataset"], row["revision"])
    assert PAPER.revisions[row["task"]] == row["revision"]
    assert (entry.config or "") == row["config"]
    assert entry.main_score == row["main_score_mteb_2_26"]
    assert len(entry.subsets) == int(row["n_subsets"])
    assert (entry.superseded_by or "") == row["superseded_by"]
    part = resolve(TaskChoice(row["task"]), "test", None, shipped_sources())
    assert part.splits == (row["split"],)
    assert part.subsets is None


def test_pins_that_mteb_has_left_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pins([*PAPER.tasks, "DocstringRetrieval"], shipped_suites())
    known = registry()
    moved = replace(known.tasks["STS12"], revision="f" * 40)
    monkeypatch.setattr(
        suites, "registry", lambda: replace(known, tasks={**known.tasks, "STS12": moved})
    )
    check_pins(["STS13"], shipped_suites())
    with pytest.raises(RequestError, match=r"STS12 \(f{40}, not a0d554a6"):
        check_pins(PAPER.tasks, shipped_suites())


def test_benchmarks_suites_and_tasks_by_name() -> None:
    assert len(chosen("MTEB(eng, v2)")) == 41
    assert chosen("MTEB(eng)") == chosen("MTEB(eng, v2)")
    assert next(iter(chosen("STS13", "paper", "STS13"))) == "STS13"
    assert len(chosen("STS13", "paper")) == 40
    assert set(chosen("docs")) == DOCS_TASKS
    for name in ("LongEmbed", "NanoBEIR", "BuiltBench(eng)", "ChemTEB", "HUME(v1)"):
        assert set(chosen(name)) == {one.name for one in registry().benchmark(name) or ()}
    assert list(chosen("LIMITRetrieval")) == ["LIMITRetrieval"]


def test_what_of_a_benchmark_cannot_be_run_is_named() -> None:
    choices, left_out = choose(["RTEB(eng, beta)"], shipped_suites(), shipped_sources())
    private = [one.name for one in registry().benchmarks["RTEB(eng, beta)"]]
    private = [name for name in private if not registry().tasks[name].public]
    assert private
    assert left_out == [f"{name} of RTEB(eng, beta): its data is not public" for name in private]
    assert not {one.name for one in choices} & set(private)
    with pytest.raises(RequestError, match="none of its tasks is public and text-only"):
        choose(["MIEB(Img)"], shipped_suites(), shipped_sources())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MTEB(eng, v3)", r"Did you mean MTEB\(eng, v2\)"),
        ("STSBenchmrk", "Did you mean STSBenchmark"),
        ("DocstringRetreival", "Did you mean DocstringRetrieval"),
        ("papers", "Did you mean paper"),
    ],
)
def test_a_name_that_is_none(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        choose([name], shipped_suites(), shipped_sources())


def test_two_parts_of_one_task_are_refused() -> None:
    with pytest.raises(RequestError, match="MassiveIntentClassification is requested twice"):
        choose(["paper", "MTEB(eng, v2)"], shipped_suites(), shipped_sources())


def test_what_a_benchmark_takes_is_part_of_the_protocol_unless_the_request_says_the_same() -> None:
    choice = chosen("MTEB(eng, v2)")["MassiveIntentClassification"]
    narrowed = resolve(choice, "test", None, shipped_sources())
    assert (narrowed.subsets, narrowed.asked_subsets) == (("en",), ("en",))
    # mteb's rule for the split is the protocol's own: no reason for another protocol.
    assert (narrowed.splits, narrowed.asked_splits) == (("test",), "test")
    same = resolve(TaskChoice(choice.name), "test", ("en",), shipped_sources())
    assert same == narrowed
    sts17 = resolve(chosen("MTEB(eng, v2)")["STS17"], "test", ("en",), shipped_sources())
    assert (sts17.subsets, sts17.asked_subsets) == (("en-en",), ("en",))
    other = resolve(
        TaskChoice(choice.name, splits=("validation",)), "test", None, shipped_sources()
    )
    assert (other.splits, other.asked_splits) == (("validation",), "validation")


def test_a_restriction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="subsets=fr: STSBenchmark has none of these; it has de"):
        resolve(TaskChoice("STSBenchmark"), "test", ("fr",), shipped_sources())
    with pytest.raises(RequestError, match="DocstringRetrieval has none of these"):
        resolve(TaskChoice("DocstringRetrieval"), "test", ("fr",), shipped_sources())
    assert resolve(
        TaskChoice("DocstringRetrieval"), "test", ("en",), shipped_sources()
    ).asked_subsets == ("en",)


def test_a_task_that_is_not_text_is_refused() -> None:
    with pytest.raises(RequestError, match="Caltech101 is not a text-only task"):
        resolve(TaskChoice("Caltech101"), "test", None, shipped_sources())


def test_tasks_are_restricted_to_what_is_scored() -> None:
    part = resolve(
        TaskChoice("MassiveIntentClassification"), "test", ("en", "de"), shipped_sources()
    )
    task: Any = made(part)
    assert task.hf_subsets == ["de", "en"]
    assert list(task.eval_splits) == ["test"]
    other: Any = made(resolve(TaskChoice(part.name), "test", None, shipped_sources()))
    assert len(other.hf_subsets) == 51
    whole = made(resolve(TaskChoice("CQADupstackRetrieval"), "test", None, shipped_sources()))
    assert len(parts_of(whole)) == 12
    assert parts_of(task) == []


def test_all_tasks_that_a_restriction_leaves_nothing_of_are_named() -> None:
    choices = list(chosen("paper").values())
    with pytest.raises(RequestError) as refused:
        resolve_all(choices, "test", ("de",), shipped_sources())
    lines = str(refused.value).splitlines()
    # Both Massive tasks and STS22 have German; STS17 has it only together with English.
    assert len(lines) == 40 - 3
    assert "subsets=de: STSBenchmark has none of these; it has default." in lines


def test_a_name_that_is_neither_a_subset_nor_a_language() -> None:
    massive = [TaskChoice("MassiveIntentClassification"), TaskChoice("DocstringRetrieval")]
    with pytest.raises(RequestError, match="subsets=zh-TX is neither a language nor a subset"):
        resolve_all(massive, "test", ("en", "zh-TX"), shipped_sources())
    # A language that no task here has is no mistake: a sweep over others may have it.
    parts = resolve_all(massive, "test", ("en", "fo"), shipped_sources())
    assert parts["MassiveIntentClassification"].subsets == ("en",)


def test_a_task_of_many_subsets_is_quick() -> None:
    started = time.perf_counter()
    part = resolve(TaskChoice("FloresBitextMining"), "test", None, shipped_sources())
    # Measured: below a second.
    assert time.perf_counter() - started < 30
    assert part.subsets is None
