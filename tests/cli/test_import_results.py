"""Public results as baselines: what is read, what is refused, and the paper's raw rows from it."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mteb
import pytest
from composed import composed, hydra_at_hand
from mteb.models.model_meta import ModelMeta
from screens import shown

from lcbench.cli.import_results import prepare
from lcbench.errors import RequestError
from lcbench.repair.repair import Repair
from lcbench.reporting.select import Extent, report_folder
from lcbench.results.cell import Cell, Protocol
from lcbench.results.folder import Finished, Results
from lcbench.results.imported import Imported, ImportRequest, import_results
from lcbench.settings import read
from lcbench.tempscale.policy import BASELINE, Constant, Policy

MODEL = "org/model"
COMMIT = "a" * 40
BGE, BGE_COMMIT = "BAAI/bge-base-en-v1.5", "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"


def write(
    root: Path,
    task: str,
    scores: Mapping[str, Mapping[str, Any]],
    model: str = MODEL,
    revision: str = COMMIT,
    mteb_version: str | None = "1.18.0",
    metric: str = "main_score",
) -> Path:
    """Write a result as mteb's repository has it: scores by split and subset, a number or None."""
    entries = {
        split: [
            {metric: score, "main_score": score, "hf_subset": subset, "languages": ["eng-Latn"]}
            for subset, score in subsets.items()
        ]
        for split, subsets in scores.items()
    }
    content = {
        "dataset_revision": "b" * 40,
        "task_name": task,
        "mteb_version": mteb_version,
        "scores": entries,
        "evaluation_time": 1.5,
        "kg_co2_emissions": None,
    }
    path = root / "results" / model.replace("/", "__") / revision / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    meta = {"name": model, "revision": revision}
    path.with_name("model_meta.json").write_text(json.dumps(meta))
    return path


def write_raw(root: Path, task: str, content: Any) -> Path:
    path = root / "results" / "org__model" / COMMIT / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def request(path: Path, *overrides: str, results_dir: Path) -> ImportRequest:
    arguments = prepare([str(path.absolute()), f"results_dir={results_dir}", *overrides])
    config = composed(*arguments, config="import_results")
    with hydra_at_hand():
        return read.read_import(config)


def take(path: Path, *overrides: str, runs: Path | None = None) -> tuple[Imported, list[str]]:
    """Import a folder into `runs` beside it; return what was done and what was complained of."""
    told: list[str] = []
    asked = request(path, *overrides, results_dir=runs or path.parent / "runs")
    return import_results(asked, told.append), told


def report(runs: Path, *overrides: str) -> str:
    """Write the report of a folder, and return what it prints."""
    config = composed(f"results_dir={runs}", *overrides, config="report")
    with hydra_at_hand():
        asked = read.read_report(config)
    extent = Extent(asked.resamples, asked.seed, asked.models, asked.against)
    folder = asked.report_dir
    return shown(partial(report_folder, Results(runs), asked.tasks, folder, pytest.fail, extent))


def values(runs: Path, name: str = "table1.csv") -> list[dict[str, str]]:
    with (runs / "report" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def provenance(done: Imported, task: str, revision: str = COMMIT, model: str = MODEL) -> Any:
    folder = done.folder / "results" / model.replace("/", "__") / revision
    return json.loads((folder / f"{task}.provenance.jsonl").read_text())


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A repository of one result."""
    write(tmp_path / "public", "STS12", {"test": {"default": 0.75}}, metric="cosine_spearman")
    return tmp_path / "public"


@pytest.mark.mirror
def test_public_scores_give_the_papers_raw_rows(facts: Path, tmp_path: Path) -> None:
    scores: dict[tuple[str, ...], dict[str, dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    with (facts / "published_scores.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["task"], row["model"], row["revision"], row["mteb_version"], row["metric"])
            scores[key][row["split"]][row["subset"]] = float(row["score"])
    for (task, model, revision, version, metric), by_split in scores.items():
        write(tmp_path / "public", task, by_split, model, revision, version or None, metric)
    done, told = take(tmp_path / "public")
    assert (done.taken, done.refused, told) == (len(scores), 0, [])

    runs = tmp_path / "runs"
    printed = report(runs, "tasks=paper")
    rows = values(runs)
    assert {(row["row"], row["policy"], row["window"]) for row in rows} == {("raw", "1", "")}
    assert {row["group"].partition(":")[0] for row in rows} == {"imported"}
    found = {(row["model"], row["column"]): row["value"] for row in rows}
    expected = {
        (BGE, "Clust"): (45.80, 0.1),
        (BGE, "Summ"): (31.03, 0.05),
        (BGE, "STS"): (75.88, 0.05),
        (BGE, "Rerank"): (58.87, 0.05),
        ("dwzhu/e5-base-4k", "LongEmbRetr"): (56.01, 0.01),
    }
    for key, (paper, tolerance) in expected.items():
        assert float(found[key]) == pytest.approx(paper, abs=tolerance), key
    # Tasks that were not published are missing values.
    assert found["dwzhu/e5-base-4k", "Clust"] == ""

    lines = [line.strip() for line in printed.splitlines()]
    columns = ("Class", "Clust", "Summ", "STS", "BeirRetr", "Rerank", "LongEmbRetr", "Avg")
    shown = [f"{float(found[BGE, column]):.2f}" for column in columns]
    assert lines[lines.index("bge-base-en-v1.5") + 1].split() == ["raw,", "τ", "=", "1", *shown]
    # Two tasks of Class, one of STS and the four of LongEmbRetr are published for E5.
    e5 = " ".join(lines[lines.index("e5-base-4k") + 1].split())
    assert e5 == "raw, τ = 1 2 of 8 – – 1 of 10 – – 56.01 –"
    assert "Window –" in lines
    # Nor are they measured by us, so that they are not compared with the paper's numbers.
    assert "Comparison with the paper" not in printed
    assert f"revisions {BGE_COMMIT} (26 tasks), external (14 tasks)" in printed
    markdown = (runs / "report" / "table1.md").read_text(encoding="utf-8")
    assert "| 45.81 | 31.07 | 75.88 | 55.86 | 58.86 | 40.02 |" in markdown


@pytest.mark.parametrize(
    "level", [".", "results", "results/org__model", f"results/org__model/{COMMIT}"]
)
def test_every_level_of_the_layout(public: Path, level: str) -> None:
    done, told = take(public / level, runs=public.parent / "runs")
    assert (done.taken, told) == (1, [])
    result = done.folder / "results" / "org__model" / COMMIT / "STS12.json"
    entry = json.loads(result.read_text())["scores"]["test"][0]
    assert (entry["main_score"], entry["hf_subset"]) == (0.75, "default")
    relative = (public / "results" / "org__model" / COMMIT / "STS12.json").relative_to(
        public / level
    )
    assert provenance(done, "STS12")["source"]["path"] == str(relative)


def test_a_folder_is_known_by_its_own_names(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(public / "results" / "org__model" / COMMIT)
    asked = request(Path(), results_dir=public.parent / "runs")
    here = replace(asked, path=Path())
    done = import_results(here, pytest.fail)
    assert provenance(done, "STS12")["model"] == MODEL


def test_what_is_known_of_how_a_score_came_about(tmp_path: Path) -> None:
    public = tmp_path / "public"
    write(public, "SciFact", {"test": {"default": 0.75}}, BGE, BGE_COMMIT, metric="ndcg_at_10")
    write(public, "AskUbuntuDupQuestions", {"test": {"default": 0.5}}, BGE, "external", None, "map")
    done, _ = take(public)
    known = provenance(done, "SciFact", BGE_COMMIT, BGE)
    assert known["imported"] == "pinned"
    assert known["protocol"]["name"] == "imported"
    assert (known["protocol"]["prompts"], known["protocol"]["dtype"]) == ("unknown", "unknown")
    assert known["window"] is None
    assert known["versions"] == {"mteb": "1.18.0"}
    assert (known["metric"], known["metric_of_mteb"]) == ("ndcg_at_10", "ndcg_at_10")
    # What is meant for other tasks is not this one's.
    assert known["registry"]["prompts"] == {
        "query": "Represent this sentence for searching relevant passages: "
    }
    assert known["registry"]["revision"] == BGE_COMMIT
    other = provenance(done, "AskUbuntuDupQuestions", "external", BGE)
    assert other["imported"] == "external"
    assert other["versions"] == {"mteb": None}
    assert (other["metric"], other["metric_of_mteb"]) == ("map", "map_at_1000")


def test_a_model_that_mteb_does_not_know(public: Path) -> None:
    done, _ = take(public)
    known = provenance(done, "STS12")
    assert (known["registry"], known["imported"]) == (None, "revision")


def test_mteb_reads_what_was_imported(public: Path) -> None:
    write(public, "SciFact", {"test": {"default": 0.5}}, revision="external")
    (public / "results" / "org__model" / "external" / "model_meta.json").unlink()
    done, _ = take(public)
    cache = mteb.ResultCache(cache_path=done.folder)
    loaded = cache.load_results(include_remote=False, load_experiments="match_name")
    found = {
        (one.model_name, one.model_revision, result.task_name): result.get_score()
        for one in loaded.model_results
        for result in one.task_results
    }
    assert found == {(MODEL, COMMIT, "STS12"): 0.75, (MODEL, "external", "SciFact"): 0.5}


def test_only_the_splits_of_the_protocol(tmp_path: Path) -> None:
    public = tmp_path / "public"
    languages = mteb.get_task("MassiveIntentClassification").hf_subsets
    both = {
        split: dict.fromkeys(languages, score)
        for split, score in (("test", 0.5), ("validation", 0.7))
    }
    write(public, "MassiveIntentClassification", both)
    write(public, "EmotionClassification", {"validation": {"default": 0.9}})
    write(public, "LEMBSummScreenFDRetrieval", {"validation": {"default": 0.6}})
    done, told = take(public)
    assert (done.taken, done.unused, told) == (2, 1, [])
    intent = provenance(done, "MassiveIntentClassification")
    assert intent["left_out"] == {"validation": languages}
    assert (intent["kept"], intent["missing"]) == ({"test": languages}, {})
    report(tmp_path / "runs")
    scores = {row["task"]: float(row["value"]) for row in values(tmp_path / "runs", "tasks.csv")}
    assert scores == pytest.approx(
        {"MassiveIntentClassification": 50, "LEMBSummScreenFDRetrieval": 60}
    )


def test_a_task_that_lacks_subsets_is_a_missing_value(tmp_path: Path) -> None:
    public = tmp_path / "public"
    write(public, "STS12", {"test": {"default": 0.75}})
    write(public, "STS17", {"test": {"en-en": 0.8, "no-such": 0.1}}, revision="external")
    done, _ = take(public)
    missing = provenance(done, "STS17", "external")["missing"]["test"]
    assert (len(missing), "en-en" in missing) == (10, False)
    printed = report(tmp_path / "runs")
    assert f"{MODEL}: no score where subsets are missing: STS17 (10 of 11)" in printed
    scores = {row["task"]: row["value"] for row in values(tmp_path / "runs", "tasks.csv")}
    assert scores == {"STS12": "75.0", "STS17": ""}
    # A benchmark that takes only that subset has its score.
    write(public, "MassiveIntentClassification", {"test": {"en": 0.5}})
    take(public)
    report(tmp_path / "runs", 'tasks=["MTEB(eng, v1)"]')
    scores = {row["task"]: row["value"] for row in values(tmp_path / "runs", "tasks.csv")}
    assert (scores["STS17"], scores["MassiveIntentClassification"]) == ("80.0", "50.0")


CHOICES = {
    # By revision: the version of mteb and the score.
    "complete first": ({COMMIT: ("1.18.0", None), "external": (None, 0.2)}, 0.2),
    "the pinned one": ({BGE_COMMIT: ("1.12.0", 0.1), "f" * 40: ("2.1.0", 0.2)}, 0.1),
    "a known version": ({"f" * 40: (None, 0.1), "no_revision_available": ("1.6.0", 0.2)}, 0.2),
    "a name": ({"no_revision_available": ("1.18.0", 0.1), "f" * 40: ("1.6.0", 0.2)}, 0.2),
    "the newest mteb": ({"e" * 40: ("1.9.0", 0.1), "f" * 40: ("1.18.0", 0.2)}, 0.2),
    "a range of versions": ({"e" * 40: ("1.9.0-1.38.2", 0.1), "f" * 40: ("1.18.0", 0.2)}, 0.2),
    "the first by name": ({"no_revision_available": (None, 0.1), "external": (None, 0.2)}, 0.2),
}


@pytest.mark.parametrize(("revisions", "expected"), CHOICES.values(), ids=CHOICES)
def test_which_revision_a_task_is_taken_from(
    tmp_path: Path, revisions: dict[str, tuple[str | None, float | None]], expected: float
) -> None:
    for revision, (version, score) in revisions.items():
        scores = dict.fromkeys(mteb.get_task("STS17").hf_subsets, score)
        if score is None:
            scores = {"en-en": 0.9}
        write(tmp_path / "public", "STS17", {"test": scores}, BGE, revision, version)
        # So that each is one of several that make up the row.
        own = {"test": {"default": 0.5}}
        write(tmp_path / "public", f"STS1{2 + list(revisions).index(revision)}", own, BGE, revision)
    take(tmp_path / "public")
    printed = report(tmp_path / "runs")
    (found,) = (row for row in values(tmp_path / "runs", "tasks.csv") if row["task"] == "STS17")
    assert float(found["value"]) == pytest.approx(100 * expected)
    winner = next(name for name, (_, score) in revisions.items() if score == expected)
    (other,) = set(revisions) - {winner}
    assert found["revision"] == f"{winner} + {other}"
    assert f"joined from the revisions {winner} (2 tasks), {other} (1 task)" in printed


def test_files_that_cannot_be_read_are_reported_one_by_one(public: Path) -> None:
    write_raw(public, "STS13", "{")
    write_raw(public, "STS14", {"task_name": "STS14", "mteb_version": "1.18.0"})
    write_raw(public, "STS15", "[]")
    write(public, "NoSuchTask", {"test": {"default": 0.5}}, mteb_version="2.1.0")
    write(public, "STS16", {"test": {"default": None}})
    write(public, "SICK-R", {"test": {"default": math.nan}})
    twice = write(public, "BIOSSES", {"test": {"default": 0.5}})
    content = json.loads(twice.read_text())
    content["scores"]["test"] *= 2
    twice.write_text(json.dumps(content))
    done, told = take(public)
    assert (done.taken, done.refused) == (1, 7)
    folder = f"results/org__model/{COMMIT}"
    said = dict(line.split(": ", maxsplit=1) for line in told)
    assert list(said) == [
        f"{folder}/{name}.json"
        for name in ("BIOSSES", "NoSuchTask", "SICK-R", "STS13", "STS14", "STS15", "STS16")
    ]
    assert said[f"{folder}/STS13.json"].startswith("it cannot be read: JSONDecodeError")
    assert said[f"{folder}/NoSuchTask.json"] == "mteb has no task NoSuchTask"
    assert said[f"{folder}/STS16.json"] == "it has no main score; mteb's is cosine_spearman"
    assert said[f"{folder}/BIOSSES.json"] == "its split test has default twice"
    assert all("\n" not in line for line in told)


@pytest.mark.parametrize(
    ("task", "score", "told"),
    [
        # In per cent, as some public files have them.
        ("BIOSSES", 81.2, "81.2, not a number from -1 to 1 (cosine_spearman)"),
        ("Banking77Classification", 75.3, "75.3, not a number from 0 to 1 (accuracy)"),
        ("NFCorpus", -0.1, "-0.1, not a number from 0 to 1 (ndcg_at_10)"),
        ("BIOSSES", -7, "-7, not a number"),
        ("BIOSSES", True, "True, not a number"),
        ("BIOSSES", "0.5", "0.5, not a number"),
        ("BIOSSES", 1e308, "1e+308, not a number"),
        ("BIOSSES", 10**400, "10000000000000000000…, not a number"),
        ("BIOSSES", math.nan, "nan, not a number"),
        ("BIOSSES", -math.inf, "-inf, not a number"),
        ("BIOSSES", [0.5], "[0.5], not a number"),
    ],
)
def test_what_is_no_score_is_refused_and_the_rest_goes_on(
    public: Path, task: str, score: Any, told: str
) -> None:
    write(public, task, {"test": {"default": score}}, mteb_version="2.1.0")
    # After it in the order of files.
    write(public, "TwentyNewsgroupsClustering", {"test": {"default": 0.25}})
    done, said = take(public)
    assert (done.taken, done.refused) == (2, 1)
    where = f"results/org__model/{COMMIT}/{task}.json"
    assert len(said) == 1
    assert said[0].startswith(f"{where}: its split test, subset default: main_score is {told}")
    report(public.parent / "runs")
    found = {row["task"]: row["value"] for row in values(public.parent / "runs", "tasks.csv")}
    assert found == {"STS12": "75.0", "TwentyNewsgroupsClustering": "25.0"}


def test_a_correlation_of_one_as_it_is_computed_is_taken(public: Path) -> None:
    write(public, "STS13", {"test": {"default": 1.0000000000000002}})
    write(public, "STS14", {"test": {"default": -0.3}})
    assert take(public)[0].taken == 3


def test_the_format_from_before_1_11(tmp_path: Path) -> None:
    public = tmp_path / "public"
    head = {"mteb_version": "1.0.2", "dataset_revision": "c" * 40}
    scores = {"cos_sim": {"pearson": 0.6, "spearman": 0.7}, "evaluation_time": 2.0}
    write_raw(public, "STS12", {**head, "mteb_dataset_name": "STS12", "test": scores})
    scores = {"map": 0.62, "mrr": 0.71, "evaluation_time": 2.0}
    named = {"mteb_dataset_name": "AskUbuntuDupQuestions", "test": scores}
    write_raw(public, "AskUbuntuDupQuestions", {**head, **named})
    done, told = take(public)
    assert (done.taken, told) == (2, [])
    report(tmp_path / "runs")
    found = {row["task"]: float(row["value"]) for row in values(tmp_path / "runs", "tasks.csv")}
    assert found == pytest.approx({"STS12": 70, "AskUbuntuDupQuestions": 62})
    assert provenance(done, "STS12")["metric"] == "cosine_spearman"
    assert provenance(done, "AskUbuntuDupQuestions")["metric"] == "map"
    assert provenance(done, "STS12")["versions"] == {"mteb": "1.0.2"}


def test_experiments_are_no_baselines(public: Path) -> None:
    experiment = public / "results" / "org__model" / COMMIT / "experiments" / "dim_64"
    experiment.mkdir(parents=True)
    for name in ("STS13.json", "STS14.json", "model_meta.json"):
        (experiment / name).write_text("{}")
    for level in (".", "results", "results/org__model", f"results/org__model/{COMMIT}"):
        done, told = take(public / level, runs=public.parent / "runs")
        assert (done.taken + done.known, done.experiments, told) == (1, 2, [])
    assert not list(done.folder.rglob("experiments"))
    for folder in (experiment, experiment.parent):
        with pytest.raises(RequestError, match="holds experiments, which are not baselines"):
            take(folder, runs=public.parent / "runs")


def test_nothing_is_imported_twice(public: Path) -> None:
    first, _ = take(public)
    path = first.folder / "results" / "org__model" / COMMIT / "STS12.json"
    written = path.stat().st_mtime_ns
    done, told = take(public)
    assert (done.taken, done.known, told) == (0, 1, [])
    assert path.stat().st_mtime_ns == written


def test_a_file_that_has_changed_is_refused_until_it_is_asked_for(public: Path) -> None:
    first, _ = take(public)
    write(public, "STS12", {"test": {"default": 0.5}})
    path = first.folder / "results" / "org__model" / COMMIT / "STS12.json"
    before = path.read_text()
    done, told = take(public)
    assert (done.taken, done.known, done.refused) == (0, 0, 1)
    assert "it differs from what was imported before, which is kept; replace=true" in told[0]
    assert path.read_text() == before
    done, told = take(public, "replace=true")
    assert (done.taken, told) == (1, [])
    assert json.loads(path.read_text())["scores"]["test"][0]["main_score"] == 0.5


def test_only_some_models_and_tasks(tmp_path: Path) -> None:
    public = tmp_path / "public"
    for model in (MODEL, BGE, "org/other"):
        for task in ("STS12", "STS13"):
            write(public, task, {"test": {"default": 0.5}}, model)
    done, _ = take(public, "models=[bge,org/other]", "tasks=STS13")
    files = {path.relative_to(done.folder / "results") for path in done.folder.rglob("STS*.json")}
    assert files == {
        Path(model.replace("/", "__"), COMMIT, "STS13.json") for model in (BGE, "org/other")
    }
    with pytest.raises(
        RequestError, match=r"models=org/modle: .* has no results of it. Did you mean org/model"
    ):
        take(public, "models=org/modle")
    with pytest.raises(RequestError, match=r"tasks=STS14: .* has no results of these"):
        take(public, "tasks=STS14")


def test_an_empty_or_wrong_path(tmp_path: Path, public: Path) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="empty: there are no results in mteb's layout"):
        take(tmp_path / "empty")
    with pytest.raises(RequestError, match=r"there is no such folder\. Did you mean public"):
        take(tmp_path / "publik")
    file = public / "results" / "org__model" / COMMIT / "STS12.json"
    with pytest.raises(RequestError, match="is a file; give its folder"):
        take(file, runs=runs)
    # Nothing is left behind.
    assert not runs.exists()
    done, _ = take(public)
    with pytest.raises(RequestError, match="already are lcbench's results"):
        take(done.folder, runs=runs)
    file.rename(file.with_suffix(".txt"))
    (file.parent / "experiments" / "x").mkdir(parents=True)
    (file.parent / "experiments" / "x" / "STS12.json").write_text("{}")
    with pytest.raises(RequestError, match="only 1 results of experiments"):
        take(public)


@pytest.mark.parametrize("key", ["path=''", "path=null", "path=[a]", "replace=1", "models=[]"])
def test_what_cannot_be_is_refused_by_its_key(key: str) -> None:
    config = composed("path=x", key, config="import_results")
    with pytest.raises(RequestError, match=key.partition("=")[0]):
        read.read_import(config)


STRANGE = (
    "with space",
    "a=b",
    "[x]{y}(z)",
    "it's",
    'say "so"',
    "back\\slash\\",
    "comma, colon: #hash",
    "${oc.env:HOME}",
    "\\${x}",
    "τ ∈ (0, ∞)",
    "null",
    "12",
    "~tilde",
    "+plus",
    "%percent$dollar",
)


@pytest.mark.parametrize("name", STRANGE)
def test_a_path_is_taken_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name, "STS12", {"test": {"default": 0.75}})
    monkeypatch.chdir(tmp_path)
    for given in (name, f"./{name}", str(tmp_path / name)):
        config = composed(*prepare([given]), config="import_results")
        assert read.read_import(config).path.samefile(tmp_path / name)
    done, _ = take(tmp_path / name)
    assert done.taken == 1


def test_the_path_among_other_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results_dir=x").mkdir()
    rest = ["results_dir=x", "--cfg", "job", "+tasks=[STS12]", "hydra.job.chdir=false"]
    assert prepare(["public", *rest]) == ["path='public'", *rest]
    assert prepare([*rest, "public"]) == [*rest, "path='public'"]
    assert prepare(["path=a b", "replace=true"]) == ["path=a b", "replace=true"]
    assert prepare(["./results_dir=x"]) == ["path='./results_dir=x'"]
    with pytest.raises(RequestError, match="one PATH at a time, not a and b"):
        prepare(["a", "b"])


def own_cell(results: Results, policy: Policy) -> None:
    """Write a cell of ours of the very model, revision and task that were imported."""
    protocol = Protocol("paper", "none", "float32", "test", subsets=None, window=None, texts=None)
    cell = Cell(MODEL, COMMIT, Repair(policy), "STS12", protocol)
    scores = {"test": {"default": {"main_score": 0.8}}}
    result = mteb.results.TaskResult.from_task_results(mteb.get_task("STS12"), scores, 1.0)
    meta = ModelMeta.create_empty(overwrites={"name": MODEL, "revision": COMMIT}).to_dict()
    record = {"protocol": {"name": "paper"}, "window": 512, "task_type": "STS", "versions": {}}
    results.write(cell, Finished(result.to_disk, meta, record, None))


def test_no_imported_score_stands_in_for_a_baseline_of_ours(public: Path) -> None:
    runs = public.parent / "runs"
    take(public, runs=runs)
    own_cell(Results(runs), Constant(0.8))
    printed = report(runs)
    assert "model: no baseline (τ = 1), so nothing can be compared" in printed
    rows = [row for row in values(runs) if row["column"] == "STS"]
    imported = next(row["group"] for row in rows if row["group"].startswith("imported: "))
    found = {(row["group"], row["row"], row["policy"]): row["value"] for row in rows}
    assert found == {
        ("paper", "raw", "1"): "",
        ("paper", "ours", "0.8"): "",
        ("paper", "relative", "0.8"): "",
        ("paper", "low", "0.8"): "",
        ("paper", "high", "0.8"): "",
        (imported, "raw", "1"): "75.0",
    }
    # With a baseline of ours that one is compared with, and not the imported one.
    own_cell(Results(runs), BASELINE)
    report(runs)
    found = {
        (row["group"], row["row"]): row["value"] for row in values(runs) if row["column"] == "STS"
    }
    assert found == {
        ("paper", "raw"): "80.0",
        ("paper", "ours"): "80.0",
        ("paper", "relative"): "0.0",
        # How sure that is, is not known: these cells kept no items.
        ("paper", "low"): "",
        ("paper", "high"): "",
        (imported, "raw"): "75.0",
    }
