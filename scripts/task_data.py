"""Made-up data with the schema of every task of the paper and of LongEmbed.

    python scripts/task_data.py FOLDER

writes the data to FOLDER, laid out as the hub's cache: any run reads it with `mirror=FOLDER
unverified_data=true`, since its numbers of texts are not those that mteb counts. Each dataset is at
the commit that mteb's task asks for, with all its configurations, splits, columns and types of
values, and a few rows of random words in the scripts of its languages.

What a dataset holds follows from mteb's own metadata (type, splits, subsets, languages), from the
way in which mteb's class loads it, and from mteb's descriptive statistics (labels). The columns
that no task reads, and the names and formats of the files, are recalled, not compared with the hub.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lcbench.tasks.registry import TaskEntry, registry
from lcbench.tasks.suites import shipped_suites

SUITES = ("paper", "longembed")

Rows = list[dict[str, Any]]
# Of a configuration: the rows of each of its splits.
Splits = dict[str, Rows]

# First letter and number of code points of each script that a task's languages are written in.
_LETTERS = {
    "Latn": (0x61, 26),
    "Cyrl": (0x430, 32),
    "Grek": (0x3B1, 25),
    "Armn": (0x561, 38),
    "Hebr": (0x5D0, 27),
    "Arab": (0x628, 35),
    "Deva": (0x915, 37),
    "Beng": (0x995, 36),
    "Taml": (0xB95, 35),
    "Telu": (0xC15, 37),
    "Knda": (0xC95, 37),
    "Mlym": (0xD15, 37),
    "Thai": (0xE01, 46),
    "Mymr": (0x1000, 33),
    "Geor": (0x10D0, 33),
    "Ethi": (0x1200, 64),
    "Khmr": (0x1780, 33),
    "Jpan": (0x3042, 80),
    "Hans": (0x4E00, 400),
    "Hant": (0x4E00, 400),
    "Hang": (0xAC00, 400),
    "Kore": (0xAC00, 400),
}
# Words of a script that texts are made of.
_VOCABULARY = 300
# Short texts (titles, sentences) and long ones, some beyond a window of 512 tokens, in words.
_SHORT, _LONG = (4, 14), (20, 400)

# Of a classification: labels that are used of those that there are, and texts of each.
_LABELS, _TRAINED, _TESTED = 4, 5, 3
_PAIRS = 12
# Sets of a clustering, and texts of a set.
_SETS, _IN_SET = 2, 24
# Documents of a retrieval task, more than the 10 that its score goes by, and its queries.
_DOCUMENTS, _QUERIES = 30, 8
# Candidates of a query that is reranked, of which the first are relevant.
_CANDIDATES, _RELEVANT = 6, 2
_SUMMARISED, _MACHINE, _HUMAN = 4, 16, 11


class Words:
    """Random texts, no two alike."""

    def __init__(self, seed: str) -> None:
        """Begin with a seed."""
        self._draw = random.Random(seed)  # noqa: S311 - test data
        self._made: set[str] = set()

    def text(self, length: tuple[int, int] = _SHORT, script: str = "Latn") -> str:
        """Return a text of at least and at most so many words of a script.

        Every fourth word is Latin, as names are: to the vocabulary of an English model all words of
        some scripts are alike.
        """
        words, latin = _words(script), _words("Latn")
        while True:
            count = self._draw.randint(*length)
            found = [self._draw.choice(latin if i % 4 == 3 else words) for i in range(count)]
            if (text := " ".join(found)) not in self._made:
                self._made.add(text)
                return text

    def like(self, text: str, share: float, script: str = "Latn") -> str:
        """Return a text with about a share of another's words in their places, the rest new."""
        words = _words(script)
        found = [
            one if self._draw.random() < share else self._draw.choice(words) for one in text.split()
        ]
        return " ".join(found)

    def number(self, lowest: float, highest: float) -> float:
        """Return a number with two decimals."""
        return round(self._draw.uniform(lowest, highest), 2)


@cache
def _words(script: str) -> tuple[str, ...]:
    first, count = _LETTERS[script]
    letters = [chr(first + i) for i in range(count) if unicodedata.category(chr(first + i)) == "Lo"]
    letters = letters or [chr(first + i) for i in range(count)]
    draw = random.Random(script)  # noqa: S311 - test data
    return tuple("".join(draw.choices(letters, k=draw.randint(2, 6))) for _ in range(_VOCABULARY))


@dataclass
class Contents:
    """A dataset to be written.

    Attributes:
        configs: its configurations by name.
        form: of its files: `jsonl`, `jsonl.gz` or `parquet`.
        merged: whether the default configuration has the rows of all others.
    """

    configs: dict[str, Splits] = field(default_factory=dict)
    form: str = "jsonl.gz"
    merged: bool = False


def classification(task: TaskEntry, words: Words) -> Contents:
    """`text`, `label`, `label_text`; in several languages also `id` and `lang`.

    The last of the labels is not in the test split: so is one of MASSIVE's 60.
    """
    labels = _labels_of(task.name, task.splits[-1])[:_LABELS]
    contents = Contents(merged=task.merged)
    for subset, languages in task.subsets.items():
        splits: Splits = {}
        for split in dict.fromkeys(("train", *task.splits, *_UNSCORED.get(task.name, ()))):
            trains = split == "train"
            rows = [
                {
                    # A word that all texts of a label have.
                    "text": f"{words.text(script=_script(languages[0]))} {_words('Latn')[place]}",
                    "label": label,
                    "label_text": str(label),
                }
                for _ in range(_TRAINED if trains else _TESTED)
                for place, label in enumerate(labels if trains or len(labels) < 3 else labels[:-1])
            ]
            if task.divided:
                rows = [
                    {"id": str(number), **row, "lang": subset} for number, row in enumerate(rows)
                ]
            splits[split] = rows
        contents.configs[subset] = splits
    return contents


def clustering(task: TaskEntry, words: Words) -> Contents:
    """`sentences` and `labels`, each a list: a row is a set that is clustered by itself."""
    labels = _labels_of(task.name, task.splits[-1])[:_LABELS]
    length = _LONG if task.name.endswith("P2P") or task.name.startswith("Twenty") else _SHORT
    rows = []
    for number in range(_SETS):
        size = _IN_SET - 4 * number
        rows.append(
            {
                "sentences": [words.text(length) for _ in range(size)],
                "labels": [labels[i % (len(labels) - number)] for i in range(size)],
            }
        )
    return Contents({"default": dict.fromkeys(task.splits, rows)})


def pairs(task: TaskEntry, words: Words) -> Contents:
    """`sentence1`, `sentence2`, `score`, and what else a dataset has; several languages `lang`."""
    contents = Contents(merged=task.merged)
    extra = _EXTRA.get(task.name, {})
    grades = (1.0, 4.0) if task.name == "STS22" else (0.0, 5.0)
    length = _LONG if task.name == "STS22" else _SHORT
    for subset, languages in task.subsets.items():
        splits: Splits = {}
        for split in dict.fromkeys((*_UNSCORED.get(task.name, ()), *task.splits)):
            rows: Rows = []
            for number in range(_PAIRS):
                first, score = words.text(length, _script(languages[0])), words.number(*grades)
                # The higher its grade, the more a pair's sentences have in common.
                share = (score - grades[0]) / (grades[1] - grades[0])
                rows.append(
                    {
                        **{name: make(number, split) for name, make in extra.items()},
                        "sentence1": first,
                        "sentence2": words.like(first, share, _script(languages[-1])),
                        "score": score,
                        **({"lang": subset} if task.divided else {}),
                    }
                )
            if task.name == "STS22":
                # The pages of some of its articles were empty.
                rows[3]["sentence2"] = ""
            splits[split] = rows
        contents.configs[subset] = splits
    return contents


def summarization(task: TaskEntry, words: Words) -> Contents:
    """A text, its summaries by machines and people, and four grades of each of the former."""
    grades = ("relevance", "coherence", "fluency", "consistency")
    rows = [
        {
            "machine_summaries": [words.text((10, 40)) for _ in range(_MACHINE)],
            "human_summaries": [words.text((10, 40)) for _ in range(_HUMAN)],
            **{name: [words.number(1, 5) for _ in range(_MACHINE)] for name in grades},
            "text": words.text(_LONG),
            "id": f"cnn-test-{number}",
        }
        for number in range(_SUMMARISED)
    ]
    return Contents({"default": dict.fromkeys(task.splits, rows)})


def retrieval(task: TaskEntry, words: Words) -> Contents:
    """BEIR's form: `corpus` and `queries`, each of one split, and judgments by split.

    There are more queries than those that are scored, and splits of judgments that are not.
    """
    splits = dict.fromkeys((*_UNSCORED.get(task.name, ()), *task.splits))
    queries = {split: [f"{split}-{i}" for i in range(_QUERIES)] for split in splits}
    documents = [f"MED-{i}" for i in range(_DOCUMENTS)]
    corpus = [{"_id": one, "title": words.text(), "text": words.text(_LONG)} for one in documents]
    judged = {
        split: [
            {"query-id": query, "corpus-id": documents[(3 * i + j) % _DOCUMENTS], "score": 2 - j}
            for i, query in enumerate(own)
            for j in range(1 + i % 2)
        ]
        for split, own in queries.items()
    }
    asked = [{"_id": one, "text": words.text()} for own in queries.values() for one in own]
    return Contents(
        {"default": judged, "corpus": {"corpus": corpus}, "queries": {"queries": asked}},
        form="jsonl",
    )


def passkey(task: TaskEntry, words: Words) -> Contents:
    """mteb's own form of a retrieval task, in a split for each length."""
    contents = Contents({"corpus": {}, "queries": {}, "qrels": {}}, form="parquet")
    for split in task.splits:
        length = int(split.rpartition("_")[2])
        documents = [f"{split}_doc_{i}" for i in range(2 * _QUERIES)]
        queries = [f"{split}_query_{i}" for i in range(_QUERIES)]
        contents.configs["corpus"][split] = [
            {"id": one, "text": words.text((length // 4, length // 2)), "title": ""}
            for one in documents
        ]
        contents.configs["queries"][split] = [{"id": one, "text": words.text()} for one in queries]
        contents.configs["qrels"][split] = [
            {"query-id": query, "corpus-id": document, "score": 1}
            for query, document in zip(queries, documents, strict=False)
        ]
    return contents


def reranking(task: TaskEntry, words: Words) -> Contents:
    """mteb's own form, with the candidates of each query, all of them judged: 1 or 0."""
    contents = Contents({"corpus": {}, "queries": {}, "qrels": {}, "top_ranked": {}}, "parquet")
    for split in task.splits:
        corpus, queries, judged, ranked = [], [], [], []
        for i in range(_QUERIES):
            query, own = f"query_{i}", [f"document_{i}_{j}" for j in range(_CANDIDATES)]
            corpus += [{"id": one, "text": words.text(), "title": ""} for one in own]
            queries.append({"id": query, "text": words.text()})
            judged += _judged(query, own)
            ranked.append({"query-id": query, "corpus-ids": own})
        contents.configs["corpus"][split] = corpus
        contents.configs["queries"][split] = queries
        contents.configs["qrels"][split] = judged
        contents.configs["top_ranked"][split] = ranked
    return contents


def reranking_of_parts(task: TaskEntry, words: Words) -> Contents:
    """The same, of queries that are asked in parts: `<query>_<part>`, each with all candidates.

    Candidates are shared between queries.
    """
    contents = Contents({"corpus": {}, "queries": {}, "qrels": {}, "top_ranked": {}}, "parquet")
    for split in task.splits:
        documents = [f"N{i}" for i in range(_DOCUMENTS)]
        queries, judged, ranked = [], [], []
        for i in range(_QUERIES):
            own = [documents[(4 * i + j) % _DOCUMENTS] for j in range(_CANDIDATES)]
            for part in range(1 + i % 3):
                query = f"{i}_{part}"
                queries.append({"id": query, "text": words.text()})
                judged += _judged(query, own)
                ranked.append({"query-id": query, "corpus-ids": own})
        contents.configs["corpus"][split] = [
            {"id": one, "text": words.text(), "title": ""} for one in documents
        ]
        contents.configs["queries"][split] = queries
        contents.configs["qrels"][split] = judged
        contents.configs["top_ranked"][split] = ranked
    return contents


def _judged(query: str, documents: Sequence[str]) -> Rows:
    return [
        {"query-id": query, "corpus-id": one, "score": int(place < _RELEVANT)}
        for place, one in enumerate(documents)
    ]


def longembed(task: TaskEntry, words: Words) -> Contents:
    """A configuration whose splits (`corpus`, `queries`, `qrels`) have columns of their own."""
    queries = [f"{task.config}_query_{i}" for i in range(_QUERIES)]
    documents = [f"{task.config}_doc_{i}" for i in range(2 * _QUERIES)]
    splits: Splits = {
        "corpus": [{"doc_id": one, "text": words.text(_LONG)} for one in documents],
        "queries": [{"qid": one, "text": words.text()} for one in queries],
        # Several questions about a document.
        "qrels": [{"qid": query, "doc_id": documents[i // 2]} for i, query in enumerate(queries)],
    }
    return Contents({str(task.config): splits}, form="jsonl")


def needle(task: TaskEntry, words: Words) -> Contents:
    """The same, all lengths in one configuration: every row says of which it is."""
    splits: Splits = {"corpus": [], "queries": [], "qrels": []}
    for split in task.splits:
        length = int(split.rpartition("_")[2])
        known = {"context_length": length}
        for i in range(2 * _QUERIES):
            document, query = f"{length}_doc_{i}", f"{length}_query_{i}"
            text = words.text((length // 4, length // 2))
            splits["corpus"].append({"doc_id": document, "text": text, **known})
            if i < _QUERIES:
                splits["queries"].append({"qid": query, "text": words.text(), **known})
                splits["qrels"].append({"qid": query, "doc_id": document, **known})
    return Contents({str(task.config): splits}, form="jsonl")


Kind = Callable[[TaskEntry, Words], Contents]


def kind_of(task: TaskEntry) -> Kind:
    """Return what makes the data of a task, by what mteb says of it."""
    plain: Mapping[str, Kind] = {
        "Classification": classification,
        "Clustering": clustering,
        "STS": pairs,
        "Summarization": summarization,
    }
    if task.loading == "plain":
        return plain[task.kind]
    by_length = len(task.splits) > 1
    if task.loading == "own":
        return needle if by_length else longembed
    if task.kind == "Reranking":
        parts = task.main_score.startswith("max_over_subqueries")
        return reranking_of_parts if parts else reranking
    return passkey if by_length else retrieval


# Splits of the datasets that the paper's tasks do not score.
_UNSCORED: Mapping[str, Sequence[str]] = {
    "EmotionClassification": ("validation",),
    "STS12": ("train",),
    "STSBenchmark": ("train", "validation"),
    "NFCorpus": ("train", "dev"),
    "SciFact": ("train",),
}
# Columns of pairs that no task reads.
_EXTRA: Mapping[str, Mapping[str, Callable[[int, str], Any]]] = {
    "STSBenchmark": {
        "split": lambda number, split: split,
        "genre": lambda number, split: "main-captions",
        "dataset": lambda number, split: "MSRvid",
        "year": lambda number, split: "2012test",
        "sid": lambda number, split: f"{number:04}",
    },
    "STS22": {"id": lambda number, split: f"{1484188062 + number}_{1484110209 + number}"},
}


@cache
def _labels_of(task: str, split: str) -> list[Any]:
    """Return the labels that mteb's statistics have of a split, in the type that the data has.

    The statistics are JSON, whose keys are texts: labels that all look like numbers are such.
    """
    import mteb

    known: Any = mteb.get_task(task).metadata.descriptive_stats
    names = sorted(known[split]["label_statistics"]["labels"])
    return sorted(map(int, names)) if all(name.isdigit() for name in names) else names


def _script(language: str) -> str:
    return language.partition("-")[2]


def tasks() -> tuple[TaskEntry, ...]:
    """Return the tasks of the paper and of LongEmbed, each once."""
    suites = {suite.name: suite for suite in shipped_suites()}
    names = dict.fromkeys(task for name in SUITES for task in suites[name].tasks)
    return tuple(registry().tasks[name] for name in names)


def make(folder: Path, names: Collection[str] | None = None) -> tuple[TaskEntry, ...]:
    """Write the data of tasks to a folder, laid out as the hub's cache; return the tasks.

    Args:
        folder: where to.
        names: of the tasks; None: all of them.
    """
    datasets: dict[tuple[str, str], Contents] = {}
    chosen = tuple(one for one in tasks() if names is None or one.name in names)
    for task in chosen:
        made = kind_of(task)(task, Words(task.name))
        # LongEmbed's tasks are configurations of one dataset.
        kept = datasets.setdefault((task.dataset, task.revision), made)
        kept.configs.update(made.configs)
    for (name, revision), contents in datasets.items():
        repository = folder / f"datasets--{name.replace('/', '--')}"
        _write(repository / "snapshots" / revision, contents)
    return chosen


def _write(folder: Path, contents: Contents) -> None:
    """Write the files of a dataset, and its card, which says what is where."""
    card = []
    if contents.merged:
        splits = next(iter(contents.configs.values()))
        patterns = [{"split": split, "path": f"{split}/*.{contents.form}"} for split in splits]
        card.append({"config_name": "default", "data_files": patterns})
    for config, splits in contents.configs.items():
        files = []
        for split, rows in splits.items():
            if contents.merged:
                name = f"{split}/{config}"
            elif contents.form == "parquet":
                name = f"{config}/{split}-00000-of-00001"
            else:
                name = split if config == "default" else f"{config}/{split}"
            path = folder / f"{name}.{contents.form}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_rows(path, rows)
            files.append({"split": split, "path": str(path.relative_to(folder))})
        card.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(
        f"---\n{yaml.safe_dump({'configs': card})}---\n", encoding="utf-8"
    )


def _write_rows(path: Path, rows: Rows) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for made in make(Path(sys.argv[1])):
        print(f"{made.name}: {made.dataset} at {made.revision}")
