"""A source of tasks that nothing in lcbench knows runs through a whole request."""

import csv
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from composed import read
from observers import Recorded

from lcbench.api import report as api_report
from lcbench.api.evaluate import carry_out
from lcbench.cli.tasks import Row, list_tasks
from lcbench.errors import RequestError
from lcbench.hub.fetch import data_of
from lcbench.plan.estimate import estimate
from lcbench.plan.layout import grid_of
from lcbench.reporting.publish import publish
from lcbench.reporting.select import AskedCell, Extent, report_folder, report_run
from lcbench.results.folder import Results
from lcbench.settings.schema import Settings, TasksSettings
from lcbench.settings.sources import shipped_sources
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import Origin, Part, Source, Texts, source_of
from lcbench.tasks.suites import choose, column_of

QUERIES = {"q1": "how long may a text be", "q2": "what do cats drink"}
TEXTS = {
    "a": "A model reads texts up to its window. " * 3,
    "b": "Cats drink milk and water.",
    "c": "The sea is deep and cold.",
}


@dataclass(frozen=True)
class Corpus(Source):
    """A folder of the user's: a retrieval task, and a classification of the same texts."""

    path: Path

    origin = Origin("letters", "a folder", "your own")

    def names(self) -> Collection[str]:
        return ("LettersRetrieval", "LettersClassification")

    def kind(self, task: str) -> str:
        return task.removeprefix("Letters")

    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        return {"default": ("eng-Latn",)}

    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        return Part(choice.name, None, ("test",), subsets, rule, self)

    def make(self, part: Part) -> Any:
        from datasets import Dataset, DatasetDict
        from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval
        from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

        rows, kind = self._rows(), self.kind(part.name)
        texts = [row["text"] for row in rows]

        class Retrieval(AbsTaskRetrieval):
            metadata = _metadata(part.name, kind, self.digest(part.name), "ndcg_at_10")

            def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
                ids = [row["id"] for row in rows]
                split = RetrievalSplitData(
                    corpus=Dataset.from_dict({"id": ids, "text": texts}),
                    queries=Dataset.from_dict(
                        {"id": list(QUERIES), "text": list(QUERIES.values())}
                    ),
                    relevant_docs={"q1": {"a": 1}, "q2": {"b": 1}},
                    top_ranked=None,
                )
                self.dataset = {"default": {"test": split}}
                self.data_loaded = True

        class Classification(AbsTaskClassification):
            metadata = _metadata(part.name, kind, self.digest(part.name), "accuracy")

            def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
                split = Dataset.from_dict({"text": texts * 4, "label": [0, 1, 1] * 4})
                self.dataset = DatasetDict({"train": split, "test": split})
                self.data_loaded = True

        return Retrieval() if kind == "Retrieval" else Classification()

    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        if self.missing(part.name):
            return None
        texts = [row["text"] for row in self._rows()]
        documents = Texts("letters", len(texts), len(set(texts)), sum(map(len, texts)))
        if self.kind(part.name) == "Classification":
            return (documents,)
        asked = list(QUERIES.values())
        return Texts("asked", len(asked), len(asked), sum(map(len, asked)), "query"), documents

    def digest(self, task: str) -> str:
        return hashlib.sha256(self._file.read_bytes()).hexdigest()[:40]

    def depends_on_window(self, task: str) -> bool:
        return task == "LettersRetrieval"

    def missing(self, task: str) -> Sequence[str]:
        return () if self._file.is_file() else (f"{self._file}: there is no such file.",)

    @property
    def _file(self) -> Path:
        return self.path / "letters.csv"

    def _rows(self) -> list[dict[str, str]]:
        with self._file.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def _metadata(name: str, kind: Any, revision: str, score: str) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description="A few letters.",
        dataset={"path": "letters", "revision": revision},
        type=kind,
        main_score=score,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text"],
        category="t2t",
        domains=["Written"],
        annotations_creators="derived",
        sample_creation="found",
    )


@dataclass(frozen=True)
class WithCorpus(Settings):
    """A request whose settings name the folder."""

    # A manifest keeps the settings of a request as JSON.
    folder: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        return (*super().sources, Corpus(Path(self.folder)))


def write(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "letters.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(texts.items())


@pytest.fixture
def request_of(tmp_path: Path, make_model: Callable[[str], Path]) -> Callable[[], WithCorpus]:
    """Settings of two temperatures and the corpus's tasks beside one of the docstrings."""
    model = make_model("bert")
    write(tmp_path / "letters", TEXTS)
    folder = str(tmp_path / "letters")

    def made() -> WithCorpus:
        plain = read(
            "model=custom",
            f"model.name={model}",
            "tau=[1.0,0.5]",
            "docs.documents=24",
            "docs.documents_per_module=8",
            "docs.long_documents=4",
            "docs.clustering_sets=1",
            "engine.device=cpu",
            "engine.scoring=0",
            "store=none",
            "offline=true",
            f"results_dir={tmp_path / 'runs'}",
        )
        values = {field.name: getattr(plain, field.name) for field in fields(plain)}
        names = ["LettersRetrieval", "LettersClassification", "DocstringReranking"]
        bare = WithCorpus(**values, folder=folder)
        tasks, left_out = choose(names, plain.suites, bare.sources)
        assert not left_out
        return replace(bare, tasks=tuple(tasks))

    return made


def test_a_source_of_its_own_goes_through_a_whole_request(
    request_of: Callable[[], WithCorpus], tmp_path: Path
) -> None:
    settings, observer = request_of(), Recorded()
    sized = estimate(settings)
    assert (sized.cells, sized.done, sized.tasks, sized.unsized) == (6, 0, 3, ())
    assert not sized.other_languages
    grid = grid_of(settings, observer)
    assert data_of(grid.parts.values()) == []

    outcome = carry_out(settings, observer)
    assert (len(outcome.cells), outcome.failed, outcome.refused) == (6, {}, {})
    digest = Corpus(tmp_path / "letters").digest("LettersRetrieval")
    results = Results(settings.results_dir)
    cells = {cell for cell in grid.cells if cell.task.startswith("Letters")}
    assert {cell.protocol.texts for cell in cells} == {digest}
    for cell in cells:
        provenance = results.provenance(cell)
        assert provenance["data"] == {
            "dataset": "letters",
            "revision": digest,
            "origin": "a folder",
        }
        # What the report goes by, which knows no source.
        assert provenance["depends_on_window"] is (cell.task == "LettersRetrieval")
        items = pq.read_table(results.files(cell).items)
        assert items.num_rows == (2 if cell.task == "LettersRetrieval" else 12)
        if cell.task == "LettersRetrieval":
            assert set(items["id"].to_pylist()) == set(QUERIES)

    # Run again, nothing is left; planned again, all is done.
    assert carry_out(settings, observer).found == 6
    assert estimate(settings).done == 6

    asked = [
        AskedCell(cell.model, cell.repair.canonical, results.files(cell).result)
        for cell in grid.cells
    ]
    request = api_report.request_of(settings, asked)
    found = report_run(request, results, tmp_path / "report", observer.warn)
    assert found is not None
    publish(found)
    report = (tmp_path / "report" / "tables.md").read_text(encoding="utf-8")
    assert "LettersRetrieval" in report
    assert observer.warnings == []


def test_other_content_is_another_dataset(
    request_of: Callable[[], WithCorpus], tmp_path: Path
) -> None:
    observer = Recorded()
    carry_out(request_of(), observer)
    write(tmp_path / "letters", {**TEXTS, "c": "The sea is warm."})
    settings = request_of()
    outcome = carry_out(settings, observer)
    # The cell of docstrings is found; of the letters nothing is.
    assert (outcome.found, len(outcome.cells)) == (2, 6)

    results = Results(settings.results_dir)
    scores = results.read(partial(column_of, suites=settings.suites), observer.warn)
    groups = {
        (row["task"], row["group"]) for row in scores.to_dict("records") if row["policy"] == "1"
    }
    digests = {cell.protocol.texts for cell in outcome.cells if cell.task == "LettersRetrieval"}
    now = digests.pop() or ""
    assert ("LettersRetrieval", f"paper, letters {now[:8]}") in groups
    # Docstrings of one digest keep the plain heading, whatever else has several.
    assert ("DocstringReranking", "paper") in groups
    assert len([task for task, _ in groups if task == "LettersRetrieval"]) == 2
    columns = dict(zip(scores["task"], scores["column"], strict=True))
    assert columns["LettersRetrieval"] == "Retr"
    assert columns["LettersClassification"] == "Class"

    few = Extent(resamples=0)
    publish(report_folder(results, None, tmp_path / "report", observer.warn, few))
    report = (tmp_path / "report" / "table1.md").read_text(encoding="utf-8")
    assert f"letters {now[:8]}" in report


def test_a_file_that_is_missing_is_named_before_anything_runs(
    request_of: Callable[[], WithCorpus], tmp_path: Path
) -> None:
    settings = request_of()
    file = tmp_path / "letters" / "letters.csv"
    file.unlink()
    # Two tasks lack it: it is named once.
    said = re.escape(f"{file}: there is no such file.")
    with pytest.raises(RequestError, match=f"^{said}$"):
        grid_of(settings, Recorded())
    with pytest.raises(RequestError, match=f"^{said}$"):
        estimate(settings)


def test_a_listing_says_where_its_texts_are(tmp_path: Path) -> None:
    write(tmp_path / "letters", TEXTS)
    choices = (TaskChoice("LettersRetrieval"), TaskChoice("DocstringRetrieval"))
    sources = (*shipped_sources(), Corpus(tmp_path / "letters"))
    settings = TasksSettings({"all": choices}, (), None, sources, None, False, "csv", ())

    def listed() -> list[Row]:
        return list_tasks(settings)["all"]

    rows = listed()
    assert [(row.kind, row.subsets, row.data) for row in rows] == [
        ("Retrieval", 1, "your own"),
        ("Retrieval", 1, "made here"),
    ]
    assert (rows[0].texts, rows[0].unique) == (5, 5)
    (tmp_path / "letters" / "letters.csv").unlink()
    assert [(row.texts, row.data) for row in listed()] == [(None, None), (800, "made here")]


def test_no_task_of_an_unknown_name() -> None:
    with pytest.raises(RequestError, match="tasks=Letters: there is no such task"):
        source_of("Letters", shipped_sources())
    with pytest.raises(RequestError, match="there is no such task, suite or benchmark"):
        choose(["Letters"], (), shipped_sources())
