"""A user's texts go through whole requests: with other tasks, frozen, reported, refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from composed import read
from observers import Recorded

import lcbench
from lcbench.api import report as api_report
from lcbench.api.evaluate import carry_out
from lcbench.errors import RequestError
from lcbench.plan.estimate import estimate
from lcbench.plan.freeze import freeze_sweep
from lcbench.plan.layout import grid_of
from lcbench.reporting.publish import publish
from lcbench.reporting.select import AskedCell, Extent, report_folder, report_run
from lcbench.results.folder import Results
from lcbench.settings import read as settings_module
from lcbench.settings.frozen import thaw
from lcbench.settings.schema import LaunchSettings, Settings
from lcbench.tasks.suites import shipped_suites

LABELLED = 'text,label\n"cats, and more",a\ndogs,b\nmice,a\nrats,b\n"",a\nbirds,a\nfrogs,b\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three of a user's files, and a task class."""
    rows = [
        {"text": f"This is the first sentence of number {i}. <b>And</b> ${i} & more of it."}
        for i in range(12)
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "letters & <b>.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "animals.csv").write_text(LABELLED, encoding="utf-8")
    pairs = "a\tb\tsimilarity\n" + "".join(f"cat {i}\tdog {i % 3}\t{i % 4}\n" for i in range(12))
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    return tmp_path


@pytest.fixture
def request_of(folder: Path, make_model: Callable[[str], Path]) -> Callable[..., Settings]:
    def made(*words: str) -> Settings:
        return read(
            "model=custom",
            f"model.name={make_model('bert')}",
            "tau=[1.0,0.5]",
            "engine.device=cpu",
            "engine.scoring=0",
            "store=none",
            "offline=true",
            f"results_dir={folder / 'runs'}",
            *words,
        )

    return made


def tasks(folder: Path) -> str:
    pairs = f"{{path: {folder}/pairs.tsv, text_a: a, text_b: b}}"
    return f'tasks=["{folder}/letters & <b>.jsonl",{folder}/animals.csv,{pairs}]'


def test_all_kinds_are_scored_and_reported(
    folder: Path, request_of: Callable[..., Settings]
) -> None:
    settings, observer = request_of(tasks(folder)), Recorded()
    names = [one.name for one in settings.tasks]
    assert names == [
        "own-letters-b-retrieval",
        "own-animals-classification",
        "own-animals-clustering",
        "own-pairs-sts",
    ]
    sized = estimate(settings)
    assert (sized.cells, sized.tasks, sized.unsized) == (8, 4, ())
    outcome = carry_out(settings, observer)
    assert (len(outcome.cells), outcome.failed, outcome.refused) == (8, {}, {})
    assert any("own-animals-classification: left out: rows without a text (1)." in line
               for line in observer.said)  # fmt: skip
    results = Results(settings.results_dir)
    digests = {one.name: one.digest for one in settings.own}
    for cell in outcome.cells:
        provenance = results.provenance(cell)
        assert provenance["data"]["revision"] == cell.protocol.texts == digests[cell.task]
        assert provenance["data"]["origin"] == "own texts"
        left_out = {"rows without a text": 1} if "animals" in cell.task else {}
        assert provenance["left_out"] == left_out
    assert carry_out(settings, observer).found == 8

    asked = [
        AskedCell(cell.model, cell.repair.canonical, results.files(cell).result)
        for cell in outcome.cells
    ]
    request = api_report.request_of(settings, asked)
    found = report_run(request, results, folder / "report", observer.warn, Extent(resamples=0))
    assert found is not None
    publish(found)
    table = (folder / "report" / "table1.md").read_text(encoding="utf-8")
    for column in ("Retr (own)", "Class (own)", "Clust (own)", "STS (own)"):
        assert column in table
    assert "own-animals-classification: left out of the texts: rows without a text (1)" in table
    # Nothing of a file's name or content reaches a page or LaTeX as code.
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "letters & <b>" not in page
    assert "<b>And</b> $" not in page
    latex = (folder / "report" / "table1.tex").read_text(encoding="utf-8")
    assert "<b>" not in latex
    # Reported by path, by name, and not at all mixed with what has other texts.
    chosen = settings_module.choices_of([str(folder / "animals.csv"), "own-pairs-sts"])
    assert {one.name for one in chosen} == set(names[1:])
    some = report_folder(results, chosen, folder / "some", observer.warn, Extent(resamples=0))
    publish(some)
    table = (folder / "some" / "table1.md").read_text(encoding="utf-8")
    assert "Retr (own)" not in table
    assert "STS (own)" in table


def test_a_frozen_sweep_knows_its_texts(folder: Path, request_of: Callable[..., Settings]) -> None:
    """As an array's element in another process does: from the manifest alone."""
    observer = Recorded()
    settings = request_of(f"tasks=[{folder}/animals.csv]", "tau=[1.0]")
    frozen = freeze_sweep(settings, LaunchSettings("local"), observer)
    again = thaw(json.loads(json.dumps(frozen.settings)), settings.results_dir)
    assert [cell.task for cell in grid_of(again, observer).cells] == [
        "own-animals-classification",
        "own-animals-clustering",
    ]
    (folder / "animals.csv").write_text(LABELLED + "newts,a\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"own-animals-classification: .*animals\.csv changed"):
        grid_of(again, observer)
    # Asked for anew, the texts are another dataset.
    (one, _) = request_of(f"tasks=[{folder}/animals.csv]").own
    assert one.digest != settings.own[0].digest


def test_python_evaluates_them(folder: Path, make_model: Callable[[str], Path]) -> None:
    results = lcbench.evaluate(
        make_model("bert"),
        [{"path": folder / "pairs.tsv", "text_a": "a", "text_b": "b"}],
        tau=0.5,
        limit=4,
        device="cpu",
        offline=True,
        results_dir=folder / "runs",
        progress=False,
        engine={"scoring": 0},
    )
    assert set(results.scores["task"]) == {"own-pairs-sts"}
    assert len(results.scores) == 2


CLASS = """
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

class MyTask(AbsTaskSTS):
    metadata = TaskMetadata(
        name="STSBenchmark", description="mine", dataset={"path": "mine", "revision": "1"},
        type="STS", main_score="cosine_spearman", eval_splits=["test"], eval_langs=["eng-Latn"],
        modalities=["text"], category="t2t",
    )

    def load_data(self, num_proc=None, **kwargs):
        first, second = ["a b", "c", "d e"], ["a", "b c", "d"]
        rows = {"sentence1": first, "sentence2": second, "score": [1, 2, 3]}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True
"""


def test_a_task_class_by_its_name(
    folder: Path, request_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own_module_of_a_test.py").write_text(CLASS, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings = request_of("tasks=[own_module_of_a_test:MyTask]")
    # It does not hide mteb's task of that name.
    assert [one.name for one in settings.tasks] == ["own-STSBenchmark"]
    outcome = carry_out(settings, Recorded())
    assert (len(outcome.cells), outcome.failed) == (2, {})
    provenance = Results(settings.results_dir).provenance(outcome.cells[0])
    assert provenance["own_class"] == "own_module_of_a_test:MyTask"
    assert provenance["data"]["origin"] == "own task class"

    with pytest.raises(RequestError, match="Other is not a task class of mteb"):
        request_of("tasks=[own_module_of_a_test:Other]")
    with pytest.raises(RequestError, match="no_such_module_here cannot be imported"):
        request_of("tasks=[no_such_module_here:MyTask]")


def test_a_dataset_of_the_hub_in_a_mirror(
    mirror: Path, request_of: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = request_of(
        "tasks=[{path: hf://mteb/stsbenchmark-sts, text_a: sentence1, text_b: sentence2}]",
        f"mirror={mirror}",
        "limit=20",
    )
    assert [one.name for one in settings.tasks] == ["own-stsbenchmark-sts-sts"]
    outcome = carry_out(settings, Recorded())
    assert (len(outcome.cells), outcome.failed) == (2, {})
    with pytest.raises(RequestError) as caught:
        request_of("tasks=[hf://nobody/nothing]", f"mirror={mirror}")
    assert "hf download --repo-type dataset nobody/nothing --local-dir" in str(caught.value)
    with pytest.raises(RequestError, match="there is no split dev; there are: "):
        request_of("tasks=[{path: hf://mteb/stsbenchmark-sts, part: dev}]", f"mirror={mirror}")


def test_no_suite_names_a_task_of_a_users() -> None:
    assert not [task for suite in shipped_suites() for task in suite.tasks if task[:4] == "own-"]
