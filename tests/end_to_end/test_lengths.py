"""Tasks whose splits are lengths: LongEmbed's from a mirror, and ours from docstrings."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from end_to_end_support import json_results
from hub_server import Repository, serving

from lcbench.tasks.registry import registry

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
# Of models of two layers that stand in for all-MiniLM-L6-v2.
Maker = Callable[[str], Path]
TOWNS = ("Oslo", "Lima", "Cairo", "Delhi")


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    pq.write_table(pa.Table.from_pylist(rows), path)


def describe(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    """Write a dataset's card: its configurations, and the file of each of their splits."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def text_of(town: str, length: int) -> str:
    return f"It rains in {town}. " + "The grass grows. " * (length // 512)


def make_needle(mirror: Path, suffix: str) -> None:
    """As `dwzhu/LongEmbed` has it: three splits of unlike columns, with all lengths in each."""
    folder = mirror / "dwzhu" / "LongEmbed"
    corpus, queries, qrels = [], [], []
    for length in LENGTHS:
        for i, town in enumerate(TOWNS):
            document, query = f"{length}_{i}", f"q{length}_{i}"
            text = text_of(town, length)
            corpus.append({"doc_id": document, "text": text, "context_length": length})
            if i < 2:
                question = f"Where in {town} does it rain?"
                queries.append({"qid": query, "text": question, "context_length": length})
                qrels.append({"qid": query, "doc_id": document, "context_length": length})
    parts = {"corpus": corpus, "queries": queries, "qrels": qrels}
    for name, rows in parts.items():
        write(folder / f"needle/{name}.{suffix}", rows)
    describe(folder, {"needle": {name: f"needle/{name}.{suffix}" for name in parts}})


def make_passkey(mirror: Path) -> None:
    """As `mteb/LEMBPasskeyRetrieval` has it: a configuration a part, a split a length."""
    folder = mirror / "mteb" / "LEMBPasskeyRetrieval"
    configs: dict[str, dict[str, str]] = {"corpus": {}, "queries": {}, "qrels": {}}
    for length in LENGTHS:
        parts = {
            "corpus": [
                {"_id": f"d{i}", "title": "", "text": text_of(town, length)}
                for i, town in enumerate(TOWNS)
            ],
            "queries": [
                {"_id": f"q{i}", "text": f"rain in {town}"} for i, town in enumerate(TOWNS[:2])
            ],
            "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(2)],
        }
        for name, rows in parts.items():
            path = f"{name}/test_{length}-00000-of-00001.parquet"
            write(folder / path, rows)
            configs[name][f"test_{length}"] = path
    describe(folder, configs)


def lengths_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "report" / "lengths.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_longembed_is_fetched_before_it_is_read(run, make_model: Maker, tmp_path: Path) -> None:
    """From a hub: `datasets` itself cannot read splits whose columns differ from there."""
    make_needle(tmp_path / "made", "jsonl")
    entry = registry().tasks["LEMBNeedleRetrieval"]
    folder = tmp_path / "made" / entry.dataset
    request = ["tasks=[LEMBNeedleRetrieval]", "results_dir=runs", "engine.scoring=0"]
    request.append(f"model={make_model('bert')}")
    nowhere = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    with serving(Repository.of_folder("dataset", entry.dataset, entry.revision, folder)) as hub:
        done = run(*request, "tau=1.0", f"mirror={hub.address}", **nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "dataset dwzhu/LongEmbed" in done.stdout
    (file,) = json_results(tmp_path / "runs")
    assert set(json.loads(file.read_text())["scores"]) == {f"test_{length}" for length in LENGTHS}
    record = json.loads(file.with_suffix(".provenance.jsonl").read_text())
    assert record["data"]["origin"] == "hub"
    # What was fetched is enough from then on.
    again = run(*request, "tau=0.9", "offline=true", **nowhere)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
def test_longembeds_needle_and_passkey(run, tmp_path: Path) -> None:
    make_needle(tmp_path / "mirror", "jsonl")
    make_passkey(tmp_path / "mirror")
    tasks = "tasks=[LEMBNeedleRetrieval,LEMBPasskeyRetrieval]"
    request = [tasks, "tau=0.8", "mirror=mirror", "unverified_data=true", "results_dir=runs"]
    done = run(*request, "engine.scoring=0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Further tables, in tables.md: scores, matrix" in done.stdout
    assert "lengths" in done.stdout
    files = json_results(tmp_path / "runs")
    assert len(files) == 4
    for path in files:
        scores = json.loads(path.read_text())["scores"]
        assert set(scores) == {f"test_{length}" for length in LENGTHS}
        items = pq.read_table(path.with_name(f"{path.stem}.items.parquet")).to_pylist()
        assert len(items) == 2 * len(LENGTHS)
        for split, (entry,) in scores.items():
            own = [item for item in items if item["split"] == split]
            mean = sum(item["score"] for item in own) / len(own)
            assert mean == pytest.approx(entry["ndcg_at_1"], abs=1e-5)
            assert entry["main_score"] == entry["ndcg_at_1"]
            for item in own:
                (relevant,) = item["relevant"]
                assert item["score"] == (relevant["rank"] == 1)
                # The window of the model, however long the document.
                assert relevant["tokens"] <= 256
        # At the shortest length the right town is found.
        assert scores["test_256"][0]["main_score"] == 1
    rows = lengths_of(tmp_path / "runs")
    assert len(rows) == 2 * 2 * len(LENGTHS)
    assert [int(row["length"]) for row in rows[: len(LENGTHS)]] == list(LENGTHS)
    table = (tmp_path / "runs" / "report" / "table1.md").read_text()
    assert "| Model | Needle (1) | Passkey (1) | Avg |" in table
    tables = (tmp_path / "runs" / "report" / "tables.md").read_text()
    assert "## Needle and passkey by the documents' length in tokens" in tables
    assert "| **LEMBPasskeyRetrieval** |" in tables


@pytest.mark.slow
def test_synthetic_lengths_go_by_the_window_or_by_request(
    run, make_model: Maker, tmp_path: Path
) -> None:
    tasks = "tasks=[DocstringPasskeyRetrieval,DocstringNeedleRetrieval]"
    small = [tasks, "docs.synthetic_documents=4", "results_dir=runs", "engine.scoring=0"]
    small.append(f"model={make_model('bert-of-512')}")
    own = run(*small, "tau=0.8")
    assert own.returncode == 0, own.stderr
    assert {row["length"] for row in lengths_of(tmp_path / "runs")} == {"64", "128", "256"}
    assert len(json_results(tmp_path / "runs")) == 4

    # Two windows are one report; lengths that a window does not have stay empty.
    half = run(*small, "tau=1.0", "model.window=128")
    assert half.returncode == 0, half.stderr
    report = run("results_dir=runs", command="report")
    assert report.returncode == 0, report.stderr
    found = {(row["group"], row["window"], row["length"]) for row in lengths_of(tmp_path / "runs")}
    assert found == {
        *(("paper", "256", length) for length in ("64", "128", "256")),
        *(("paper", "128", length) for length in ("64", "128")),
    }
    table = (tmp_path / "runs" / "report" / "tables.md").read_text()
    rows = [line for line in table.splitlines() if "| 128 | 1 |" in line]
    assert [row.split("|")[6].strip() for row in rows] == ["", ""]

    # Beyond the window is allowed if asked for; another size is another draw, and the whole
    # folder's report keeps it apart.
    beyond = run(*small, "tau=1.0", "docs.synthetic_lengths=[512]")
    assert beyond.returncode == 0, beyond.stderr
    # The report of a part does not take the place of the whole folder's.
    assert {row["length"] for row in lengths_of(tmp_path / "runs")} == {"64", "128", "256"}
    parts = []
    for path in (tmp_path / "runs" / "report").glob("run-*/lengths.csv"):
        with path.open(newline="") as file:
            parts.append({row["length"] for row in csv.DictReader(file)})
    assert {"512"} in parts
    run("results_dir=runs", command="report")
    groups = {row["group"]: row["window"] for row in lengths_of(tmp_path / "runs")}
    assert sorted(groups.values()) == ["128", "256", "256"]
    assert sum(group.startswith("paper, docs ") for group in groups) == 2


@pytest.mark.slow
def test_a_report_without_lengths_leaves_no_older_one(
    run, make_model: Maker, tmp_path: Path
) -> None:
    sizes = ["tau=1.0", "docs.synthetic_documents=2", "docs.synthetic_lengths=[64]"]
    more = ["docs.documents=40", "docs.documents_per_module=8", "engine.scoring=0"]
    more += ["results_dir=runs", f"model={make_model('bert-of-512')}"]
    assert run("tasks=[DocstringNeedleRetrieval]", *sizes, *more).returncode == 0
    assert (tmp_path / "runs" / "report" / "lengths.csv").is_file()
    assert run("tasks=[DocstringReranking]", *sizes, *more).returncode == 0
    assert (tmp_path / "runs" / "report" / "lengths.csv").is_file()
    (part,) = (tmp_path / "runs" / "report").glob("run-*")
    assert (part / "table1.csv").is_file()
    assert not (part / "lengths.csv").exists()
    reported = run("results_dir=runs", "tasks=[DocstringReranking]", command="report")
    assert reported.returncode == 0, reported.stderr
    assert not (tmp_path / "runs" / "report" / "lengths.csv").exists()
