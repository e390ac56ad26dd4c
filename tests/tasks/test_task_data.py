"""Every task of the paper and of LongEmbed once: load, encode, score, items, report."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import mteb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from mteb.abstasks import AbsTaskClassification
from observers import Unwarned
from read_cells import samples_of
from screens import shown
from sentence_transformers import SentenceTransformer

from lcbench.api.evaluate import carry_out
from lcbench.hub import datasets as mirror
from lcbench.reporting.select import Extent, report_folder
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.settings import configs as settings_configs
from lcbench.settings import read
from lcbench.settings.sources import shipped_sources
from lcbench.tasks.registry import TaskChoice, TaskEntry
from lcbench.tasks.suites import choose, shipped_suites

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import task_data

pytestmark = pytest.mark.slow

TASKS = task_data.tasks()


def ways(task: TaskEntry) -> tuple[Any, ...]:
    """Return the ways in which a task's data is read and scored: schema, code of mteb, splits."""
    kind = type(mteb.get_task(task.name))
    own = tuple(name for name in ("load_data", "dataset_transform") if name in vars(kind))
    several = len(task.subsets) > 1
    return task_data.kind_of(task), kind.__base__, own, several, "test" in task.splits


# A task of each way; all of them are exhaustive.
SOME = tuple({ways(task): task for task in reversed(TASKS)}.values())
BOTH = ["some", pytest.param("all", marks=pytest.mark.exhaustive)]
# Of an average of 10: each is drawn from the data anew, for each language.
EXPERIMENTS = 2
# Of MASSIVE's 51, in five scripts: all of them take as long as all other tasks.
LANGUAGES = ("am", "de", "en", "ja", "ta", "zh-CN")


def with_few_languages(choices: Sequence[TaskChoice]) -> tuple[TaskChoice, ...]:
    return tuple(
        replace(one, subsets=LANGUAGES) if "Massive" in one.name else one for one in choices
    )


def subsets_of(task: TaskEntry) -> tuple[str, ...]:
    return LANGUAGES if "Massive" in task.name else task.subsets


@dataclass(frozen=True)
class Run:
    """All tasks at two temperatures.

    Attributes:
        data: the folder of the data.
        model: the folder of the model.
        results: the folder of the results.
        cells: the files of each cell, by task and temperature.
    """

    data: Path
    model: Path
    results: Path
    cells: dict[tuple[str, float], CellFiles]

    def scores(self, task: str, tau: float) -> dict[tuple[str, str], float]:
        """Return the main scores of a cell by split and subset."""
        result = json.loads(self.cells[task, tau].result.read_text())
        return {
            (split, entry["hf_subset"]): entry["main_score"]
            for split, entries in result["scores"].items()
            for entry in entries
        }


@pytest.fixture(scope="module", autouse=True)
def few_experiments() -> Iterator[None]:
    """Restrict classifications to fewer experiments, here and in plain mteb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbsTaskClassification, "n_experiments", EXPERIMENTS)
        yield


@pytest.fixture(scope="module")
def scored(
    tmp_path_factory: pytest.TempPathFactory, make_model: Callable[[str], Path]
) -> Iterator[Callable[[str], Run]]:
    """Return a maker of "some" of the tasks' scores, or of "all"."""
    work = tmp_path_factory.mktemp("tasks")
    with ExitStack() as stack:

        @cache
        def make(which: str) -> Run:
            (work / which).mkdir()
            names = [task.name for task in tasks_of(which)]
            task_data.make(work / which / "data", names)
            run = run_of(work / which, make_model("bert"), ",".join(names), with_few_languages)
            return stack.enter_context(run)

        yield make


def tasks_of(which: str) -> Sequence[TaskEntry]:
    return TASKS if which == "all" else SOME


@contextmanager
def run_of(
    work: Path,
    model: Path,
    tasks: str,
    narrow: Callable[[Sequence[TaskChoice]], tuple[TaskChoice, ...]] = tuple,
) -> Iterator[Run]:
    """Score tasks at two temperatures in this process."""
    overrides = [
        "model=custom",
        f"model.name={model}",
        "tau=[1.0,0.8]",
        f"tasks=[{tasks}]",
        "protocol=paper",
        f"mirror={work / 'data'}",
        # It is other data than mteb counts, and nothing says what files its snapshots should have.
        "unverified_data=true",
        "offline=true",
        "engine.device=cpu",
        "engine.scoring=0",
        "store=none",
        f"results_dir={work / 'runs'}",
    ]
    with initialize_config_dir(str(settings_configs.config_folder()), version_base="1.3"):
        request = read.read({"custom": compose("config", overrides=overrides)})
    request = replace(request, tasks=narrow(request.tasks))
    with pytest.MonkeyPatch.context() as patch:
        # A run in this process keeps all libraries off the network.
        import datasets
        from huggingface_hub import constants

        for module in (datasets.config, constants):
            patch.setattr(module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, os.environ.get(name, "0"))
        outcome = carry_out(request, Unwarned())
        assert (outcome.failed, outcome.refused) == ({}, {})
        results = Results(work / "runs")
        cells = {
            (cell.task, float(cell.repair.canonical)): results.files(cell) for cell in outcome.cells
        }
        yield Run(work / "data", model, work / "runs", cells)


def test_these_are_the_papers_40_tasks_and_longembeds_six() -> None:
    names = [task.name for task in TASKS]
    assert len(set(names)) == 42
    assert sum(name.startswith("LEMB") for name in names) == 6
    # Each kind of schema is that of some task.
    assert {task_data.kind_of(task).__name__ for task in TASKS} == {
        "classification",
        "clustering",
        "pairs",
        "summarization",
        "retrieval",
        "passkey",
        "reranking",
        "reranking_of_parts",
        "longembed",
        "needle",
    }


def test_each_way_is_that_of_some_task() -> None:
    assert set(map(ways, SOME)) == set(map(ways, TASKS))
    assert len(SOME) == 14


@pytest.mark.parametrize("which", BOTH)
def test_every_task_has_a_score_at_both_temperatures(
    scored: Callable[[str], Run], which: str
) -> None:
    tasks, run = tasks_of(which), scored(which)
    assert set(run.cells) == {(task.name, tau) for task in tasks for tau in (1.0, 0.8)}
    unchanged = []
    for task in tasks:
        splits = ("test",) if "test" in task.splits else task.splits
        expected = {(split, subset) for split in splits for subset in subsets_of(task)}
        before, after = run.scores(task.name, 1.0), run.scores(task.name, 0.8)
        assert set(before) == set(after) == expected, task.name
        assert all(map(math.isfinite, [*before.values(), *after.values()])), task.name
        unchanged += [task.name] if before == after else []
    # Of a few items, a score can be the same by chance.
    assert len(unchanged) <= 5


@pytest.mark.parametrize(
    ("task", "which"),
    [
        pytest.param(task, "some", id=task.name)
        if task in SOME
        else pytest.param(task, "all", id=task.name, marks=pytest.mark.exhaustive)
        for task in TASKS
    ],
)
def test_scores_are_those_of_plain_mteb(
    task: TaskEntry, which: str, scored: Callable[[str], Run]
) -> None:
    assert_as_in_plain_mteb(task, scored(which), subsets_of(task))


@pytest.mark.exhaustive
def test_all_of_massives_languages_score_as_in_plain_mteb(
    scored: Callable[[str], Run], tmp_path: Path
) -> None:
    run = scored("all")
    (tmp_path / "data").symlink_to(run.data)
    tasks = [task for task in TASKS if "Massive" in task.name]
    with run_of(tmp_path, run.model, ",".join(task.name for task in tasks)) as done:
        for task in tasks:
            assert len(task.subsets) == 51
            assert_as_in_plain_mteb(task, done, task.subsets)


def assert_as_in_plain_mteb(task: TaskEntry, scored: Run, subsets: Sequence[str]) -> None:
    model = SentenceTransformer(str(scored.model), device="cpu")
    plain = mteb.get_task(task.name, hf_subsets=None if subsets == task.subsets else subsets)
    mirror.point_at(plain, scored.data)
    if "test" in task.splits:
        plain.filter_eval_splits(["test"])
    outcome = mteb.evaluate(model, plain, cache=None, co2_tracker=False, show_progress_bar=False)
    expected = {
        (split, entry["hf_subset"]): entry["main_score"]
        for split, entries in outcome.task_results[0].scores.items()
        for entry in entries
    }
    assert scored.scores(task.name, 1.0) == pytest.approx(expected, abs=1e-6)


def items_of(task: Any) -> int:
    """Return how many items a task's data has: pairs, texts, queries or documents."""
    kind = task_data.kind_of(task)
    configs = kind(task, task_data.Words(task.name)).configs
    if "Massive" in task.name:
        configs = {name: configs[name] for name in subsets_of(task)}
    splits = ("test",) if "test" in task.splits else task.splits
    if kind in (task_data.classification, task_data.pairs, task_data.summarization):
        return sum(len(rows[split]) for rows in configs.values() for split in splits)
    if kind is task_data.clustering:
        return sum(len(row["sentences"]) for split in splits for row in configs["default"][split])
    if kind in (task_data.longembed, task_data.needle):
        return len({row["qid"] for row in configs[task.config]["qrels"]})
    judged = configs["default"] if kind is task_data.retrieval else configs["qrels"]
    queries = {(split, row["query-id"]) for split in splits for row in judged[split]}
    if kind is task_data.reranking_of_parts:
        queries = {(split, query.rpartition("_")[0]) for split, query in queries}
    return len(queries)


@pytest.mark.parametrize("which", BOTH)
def test_items_are_all_that_was_scored_and_give_the_score(
    scored: Callable[[str], Run], which: str
) -> None:
    run = scored(which)
    for (name, tau), files in run.cells.items():
        task = next(task for task in TASKS if task.name == name)
        assert pq.read_metadata(files.items).num_rows == items_of(task), (name, tau)
        samples = samples_of(files)
        assert samples is not None, (name, tau)
        assert fmean(sample.score for sample in samples.values()) == pytest.approx(
            fmean(run.scores(name, tau).values()), abs=1e-5
        )


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("suite", ["paper", "longembed"])
def test_the_report_has_every_column_and_nothing_is_missing(
    suite: str, which: str, scored: Callable[[str], Run], tmp_path: Path
) -> None:
    suites = shipped_suites()
    names = {task.name for task in tasks_of(which)}
    chosen = choose([suite], suites, shipped_sources())[0]
    choices = with_few_languages([one for one in chosen if one.name in names])
    results, folder, few = Results(scored(which).results), tmp_path / "report", Extent(resamples=50)
    warnings: list[str] = []
    find = partial(report_folder, results, choices, folder, warnings.append, few)
    text = shown(find, width=250)
    assert warnings == []
    columns = next(one for one in suites if one.name == suite).columns
    table = pd.read_csv(tmp_path / "report" / "table1.csv")
    rows = {
        row: table[table["row"] == row].set_index("column")["value"]
        for row in ("raw", "ours", "relative")
    }
    for row, values in rows.items():
        assert list(values.index) == [*columns, "Avg"], row
    assert rows["raw"].map(math.isfinite).all()
    assert rows["ours"].map(math.isfinite).all()
    # A model with random weights may be worse than chance, and nothing is relative to that.
    assert (rows["relative"].map(math.isfinite) == (rows["raw"] > 0)).all()
    assert "refused" not in text
    # But for what the footnote says of any table.
    assert "missing" not in text.replace("– is a missing value", "")
