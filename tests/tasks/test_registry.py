"""The index of mteb: what mteb has, without importing it; and which part of a task is scored."""

import subprocess
import sys

import mteb
import pytest
from mteb.get_tasks import TASK_LIST

from lcbench.tasks import registry as module
from lcbench.tasks.registry import TaskEntry, registry, splits_of, subsets_of


def test_every_task_and_benchmark_of_mteb_is_in_it() -> None:
    known = registry()
    assert set(known.tasks) == {kind.metadata.name for kind in TASK_LIST}
    assert set(known.benchmarks) == {one.name for one in mteb.get_benchmarks()}
    assert known.benchmark("MTEB(eng, classic)") == known.benchmarks["MTEB(eng, v1)"]
    assert known.benchmark("no such benchmark") is None


@pytest.mark.parametrize(
    "name", ["STS22", "MassiveIntentClassification", "LEMBNeedleRetrieval", "STSBenchmark"]
)
def test_an_entry_is_mtebs_metadata(name: str) -> None:
    entry, task = registry().tasks[name], mteb.get_task(name)
    data = task.metadata
    assert (entry.dataset, entry.revision) == (data.dataset["path"], data.revision)
    assert entry.config == data.dataset.get("name")
    assert (entry.main_score, entry.kind) == (data.main_score, data.type)
    assert entry.splits == tuple(data.eval_splits)
    assert dict(entry.subsets) == {
        subset: tuple(sorted(languages))
        for subset, languages in data.hf_subsets_to_langscripts.items()
    }
    assert (entry.divided, entry.merged) == (data.is_multilingual, task.fast_loading)
    assert entry.superseded_by == task.superseded_by


def test_a_benchmark_keeps_its_own_subsets_and_splits() -> None:
    choices = {one.name: one for one in registry().benchmarks["MTEB(eng, v2)"]}
    tasks = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    assert list(choices) == list(tasks)
    assert choices["STS17"].subsets == ("en-en",)
    assert choices["MassiveIntentClassification"].splits == ("test",)
    assert choices["STSBenchmark"].subsets is None
    for name, choice in choices.items():
        assert choice.subsets is None or set(choice.subsets) == set(tasks[name].hf_subsets)


def test_aggregates_have_parts() -> None:
    entry = registry().tasks["CQADupstackRetrieval"]
    assert len(entry.parts) == 12
    assert set(entry.parts) <= set(registry().tasks)


def test_mteb_is_imported_once_a_version() -> None:
    registry()
    code = (
        "import sys; from lcbench.tasks.registry import registry; "
        "print(len(registry().tasks)); sys.exit('mteb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(registry().tasks)


def test_a_cache_that_cannot_be_read_is_made_again(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = registry()
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path))
    registry.cache_clear()
    try:
        with monkeypatch.context() as patch:
            # What mteb says is asked for once, below.
            patch.setattr(module, "_ask_mteb", lambda: expected)
            assert registry() == expected
        (file,) = tmp_path.glob("mteb-*.json")
        whole = file.read_text()
        file.write_text(whole[:1000])
        registry.cache_clear()
        assert registry() == expected
        assert file.read_text() == whole
    finally:
        registry.cache_clear()


@pytest.mark.parametrize(
    ("task", "asked", "subsets"),
    [
        ("MassiveIntentClassification", ["en"], ("en",)),
        ("STS17", ["en"], ("en-en",)),
        ("STS17", ["eng"], ("en-en",)),
        ("STS17", ["en", "de"], ("en-de", "en-en")),
        ("STS17", ["en-de"], ("en-de",)),
        ("STS22", ["en"], ("en",)),
        # Its own name goes before the language, of which there is another subset.
        ("AmazonCounterfactualClassification", ["en"], ("en",)),
        ("AmazonCounterfactualClassification", ["eng"], ("en-ext", "en")),
        ("STSBenchmark", ["en"], ("default",)),
        ("STSBenchmark", ["default"], ("default",)),
        ("STSBenchmark", ["fr"], ()),
    ],
)
def test_subsets_by_name_or_language(task: str, asked: list[str], subsets: tuple[str, ...]) -> None:
    assert subsets_of(registry().tasks[task].subsets, asked, registry().languages) == subsets


@pytest.mark.parametrize(
    ("task", "chosen", "splits"),
    [
        ("MassiveIntentClassification", None, ("test",)),
        ("LEMBSummScreenFDRetrieval", None, ("validation",)),
        ("MassiveIntentClassification", ("validation",), ("validation",)),
    ],
)
def test_the_test_split_where_there_is_one(
    task: str, chosen: tuple[str, ...] | None, splits: tuple[str, ...]
) -> None:
    entry: TaskEntry = registry().tasks[task]
    assert splits_of(entry, "test", chosen) == splits
