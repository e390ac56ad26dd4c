"""Time the report of a table of the paper's size: 5 models × 7 temperatures × 40 tasks.

    python scripts/bench_report.py --folder FOLDER --out results/bench/report.md

Scores and items are drawn at random, as many as the tasks have (`results/paper/tasks.csv`); of each
cell that has them, queries, pairs or texts in a file of their own. They take some 2 GB and some
minutes to write; a folder that is there already is used again. What is measured is the whole
command, `python -m lcbench report`, in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from lcbench.results.cell import Protocol
from lcbench.results.items import ITEMS_SCHEMA

MODELS = {
    "sentence-transformers/msmarco-roberta-base-ance-firstp": 512,
    "sentence-transformers/gtr-t5-base": 512,
    "avsolatorio/GIST-small-Embedding-v0": 512,
    "BAAI/bge-base-en-v1.5": 512,
    "dwzhu/e5-base-4k": 4096,
}
TAUS = ("1", "0.9", "0.8", "0.7", "0.6", "0.5", "0.1")
# Queries of the retrieval and reranking tasks, which tasks.csv counts together with the documents.
QUERIES = {
    "NFCorpus": 323,
    "SciFact": 300,
    "AskUbuntuDupQuestions": 361,
    "MindSmallReranking": 70_938,
    "SciDocsRR": 3_978,
    "StackOverflowDupQuestions": 2_992,
    "LEMBNarrativeQARetrieval": 10_449,
    "LEMBQMSumRetrieval": 1_527,
    "LEMBSummScreenFDRetrieval": 336,
    "LEMBWikimQARetrieval": 300,
}
# Those of LongEmbed are about fewer documents.
QUERIES_OF_A_DOCUMENT = {"LEMBNarrativeQARetrieval": 29, "LEMBQMSumRetrieval": 8}
SETS, EXPERIMENTS = 20, 10
PROTOCOL = Protocol("paper", "none", "float32", "test", None, None, None)
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Make the cells, time the report, and write down what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the cells")
    parser.add_argument("--out", type=Path, help="a Markdown file; by default the screen")
    arguments = parser.parse_args()
    runs = arguments.folder / "runs"
    if not (runs / "whole").exists():
        make(runs)
    command = ["-m", "lcbench", "report", f"results_dir={runs}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    page = runs / "report" / "index.html"
    text = f"""# The report of a table of the paper's size

5 models × 7 temperatures × 40 tasks, 1,400 cells with items drawn at random, 10,000 resamples:
`python scripts/bench_report.py`, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()},
{os.cpu_count()} cores.

| | |
| :-- | --: |
| seconds, the whole command | {seconds:.0f} |
| of processor time | {processor:.0f} |
| memory at most, MiB | {used.ru_maxrss // 1024:,} |
| size of the page, MiB | {page.stat().st_size / 2**20:.1f} |
"""
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")


def make(runs: Path) -> None:
    """Write all cells."""
    with (ROOT / "results" / "paper" / "tasks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        random = np.random.default_rng(number)
        task = _Task(row, random)
        for place, (model, window) in enumerate(MODELS.items()):
            shift = task.noise(0.3)
            for tau in TAUS:
                task.write(runs, model, window, tau, shift + task.noise(0.05) + 0.02 * place)
        print(f"{number + 1}/{len(rows)} {row['task']}", flush=True)
    (runs / "whole").touch()


class _Task:
    """A task's items and what all cells share of them."""

    def __init__(self, row: dict[str, str], random: np.random.Generator) -> None:
        self.row, self.random = row, random
        self.kind = row["mteb_type"].removeprefix("AbsTask")
        self.subsets = [f"s{place}" for place in range(int(row["n_subsets"]))]
        if self.subsets == ["s0"]:
            self.subsets = ["default"]
        count = QUERIES.get(row["task"]) or int(row["num_samples_descriptive_stats"])
        if self.kind == "ClusteringLegacy":
            count = SETS
        self.count = max(1, count // len(self.subsets))
        self.latent = {subset: random.standard_normal(self.count) for subset in self.subsets}
        self.tokens = random.integers(8, 600, self.count).astype(np.int32)
        self.gold = np.round(2.5 + random.standard_normal(self.count), 1)
        self.ids = [str(place) for place in range(self.count)]
        self.bits = np.zeros(self.count, dtype=np.int64)
        grouped = QUERIES_OF_A_DOCUMENT.get(row["task"], 1)
        self.documents = [str(place // grouped) for place in range(self.count)]
        names = {"Retrieval": self.documents}.get(self.kind, self.ids)
        self.shares = [[digest(f"{row['task']}/{name}")] for name in names]

    def noise(self, size: float) -> Any:
        return size * self.random.standard_normal(self.count)

    def write(self, runs: Path, model: str, window: int, tau: str, shift: Any) -> None:
        folder = runs / PROTOCOL.key / "results" / model.replace("/", "__") / ("f" * 40)
        if tau != "1":
            folder = folder / "experiments" / f"tau_{tau}"
        folder.mkdir(parents=True, exist_ok=True)
        entries, tables = [], []
        for subset in self.subsets:
            entry, values = self._entry(self.latent[subset] + shift)
            entries.append({"hf_subset": subset, **entry})
            if self.kind != "ClusteringLegacy":
                tables.append(self._items(subset, values, window))
        name = self.row["task"]
        if tables:
            pq.write_table(pa.concat_tables(tables), folder / f"{name}.items.parquet")
        provenance = {
            "model": model,
            "policy": tau,
            "protocol": PROTOCOL.record,
            "window": window,
            "proof": {"layers": [f"layer.{place}" for place in range(12)], "largest_error": 5e-7},
            "data": {},
            "versions": {"mteb": "2.26.24", "torch": "2.13.0"},
            "hardware": {"device": "cpu"},
            "seconds": 1.0,
        }
        (folder / f"{name}.provenance.jsonl").write_text(json.dumps(provenance), encoding="utf-8")
        result = {
            "task_name": name,
            "dataset_revision": self.row["revision"],
            "mteb_version": "2.26.24",
            "scores": {self.row["split"]: entries},
        }
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")

    def _entry(self, values: Any) -> tuple[dict[str, Any], Any]:
        if self.kind == "STS":
            cosines = 1 / (1 + np.exp(-(self.gold + values) / 3))
            return {"main_score": float(spearmanr(self.gold, cosines)[0])}, cosines
        share = 1 / (1 + np.exp(-values))
        if self.kind == "Classification":
            times = np.round(share * EXPERIMENTS).astype(np.int64)
            # The experiments that are right about a text are neighbours, from a random one on.
            first = self.random.integers(0, EXPERIMENTS, self.count)
            right = (np.arange(EXPERIMENTS) - first[:, None]) % EXPERIMENTS < times[:, None]
            self.bits = right @ (1 << np.arange(EXPERIMENTS))
            experiments = [{"accuracy": float(one)} for one in right.mean(axis=0)]
            values = times / EXPERIMENTS
            return {
                "main_score": float(values.mean()),
                "scores_per_experiment": experiments,
            }, values
        if self.kind == "ClusteringLegacy":
            return {"main_score": float(share.mean()), "v_measures": share.tolist()}, share
        # Many queries have all of it or nothing.
        share = np.where(share < 0.35, 0.0, np.where(share > 0.75, 1.0, share))
        return {"main_score": float(share.mean())}, share

    def _items(self, subset: str, values: Any, window: int) -> pa.Table:
        count = self.count
        tokens = np.minimum(self.tokens * (8 if window > 512 else 1), window).astype(np.int32)
        pair = self.kind == "STS"
        relevant: Any = pa.nulls(count, _RELEVANT)
        if self.kind == "Retrieval":
            ranks = self.random.integers(1, 500, count).astype(np.int32)
            pairs = pa.StructArray.from_arrays(
                [
                    pa.array(self.documents),
                    pa.array(np.ones(count, np.int32)),
                    pa.array(tokens[::-1]),
                    pa.array(5 * tokens[::-1]),
                    pa.array(ranks),
                ],
                fields=list(_RELEVANT.value_type),
            )
            relevant = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), pairs)
        labels = (
            pa.array([str(one) for one in self.gold])
            if self.kind in ("STS", "Classification")
            else pa.nulls(count, pa.string())
        )
        return pa.table(
            {
                "split": pa.array([self.row["split"]] * count)
                .dictionary_encode()
                .cast(pa.string()),
                "subset": pa.array([subset] * count),
                "id": pa.array(self.ids),
                "tokens": pa.array(tokens),
                "tokens_2": pa.array(tokens) if pair else pa.nulls(count, pa.int32()),
                "characters": pa.array(5 * self.tokens),
                "characters_2": pa.array(5 * self.tokens) if pair else pa.nulls(count, pa.int32()),
                "score": pa.array(values),
                "gold": labels,
                "predictions": pa.nulls(count, pa.list_(pa.string())),
                "right": pa.array(self.bits)
                if self.kind == "Classification"
                else pa.nulls(count, pa.int64()),
                "shares": pa.array(self.shares),
                "relevant": relevant,
            },
            schema=ITEMS_SCHEMA,
        )


def digest(text: str) -> str:
    """Return what items have of a text that they share."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


_RELEVANT = ITEMS_SCHEMA.field("relevant").type


if __name__ == "__main__":
    main()
