"""A user's texts as tasks: recognised, named, identified, counted, drawn."""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import read

from lcbench.errors import RequestError
from lcbench.settings.frozen import freeze, thaw
from lcbench.tasks.corpus.build import make_task
from lcbench.tasks.corpus.check import LeftOut, documents_of, first_sentence, queries_of
from lcbench.tasks.corpus.digests import Numbers
from lcbench.tasks.corpus.layout import tasks_of, with_unique_names
from lcbench.tasks.corpus.names import OWN, safe_name
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.sample import draw
from lcbench.tasks.corpus.source import CorpusSource
from lcbench.tasks.corpus.spec import read_spec
from lcbench.tasks.corpus.survey import survey
from lcbench.tasks.docs.names import DOCS_TYPES
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.suites import column_of, shipped_suites

SENTENCES = [f"This is the first sentence, of number {i}. The rest is of {i}." for i in range(40)]


def jsonl(path: Path, rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def made(path: Path, **columns: str) -> tuple[OwnTask, ...]:
    return tasks_of(read_spec({"path": str(path), **columns} if columns else str(path)))


@pytest.mark.parametrize(
    ("columns", "kinds", "roles"),
    [
        (("text",), ["retrieval"], ["text"]),
        (("Title", "Text"), ["retrieval"], ["title", "text"]),
        (("id", "query", "text"), ["retrieval"], ["query", "text"]),
        (("text", "label"), ["classification", "clustering"], ["text", "label"]),
        (("title", "text", "label"), ["classification", "clustering"], ["text", "label"]),
        (("text", "label", "split"), ["classification", "clustering"], ["text", "label", "split"]),
        (("sentence1", "sentence2", "score"), ["sts"], ["text_a", "text_b", "score"]),
        (("body", "topic"), ["classification", "clustering"], ["text", "label"]),
    ],
)
def test_columns_say_what_a_file_is(
    columns: tuple[str, ...], kinds: list[str], roles: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{','.join(columns)}\n{','.join('x' for _ in columns)}\n", encoding="utf-8")
    tasks = made(path)
    assert [one.kind for one in tasks] == kinds
    assert [role for role, _ in tasks[0].tables[0].columns] == roles
    assert [one.name for one in tasks] == [f"own-a-{kind}" for kind in kinds]


def test_a_map_goes_before_what_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,heading,body\na,b,c,d\n", encoding="utf-8")
    (task,) = made(path, title="heading", text="body")
    assert task.kind == "retrieval"
    assert dict(task.tables[0].columns) == {"title": "heading", "text": "body"}
    (task,) = made(path, kind="clustering", language="deu-Latn", name="Mein Korpus!")
    assert (task.kind, task.language, task.name) == (
        "clustering",
        "deu-Latn",
        "own-Mein-Korpus-clustering",
    )


def test_every_format_has_the_same_items(tmp_path: Path) -> None:
    """Texts with separators, quotes, line ends and other scripts."""
    rows = [
        {"query": f"which, {i}?", "text": f'a "quoted", text\nof two lines; {i} 日本語 ß'}
        for i in range(5)
    ]
    jsonl(tmp_path / "a.jsonl", rows)
    jsonl(tmp_path / "b.json", rows)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name, separator in (("e.csv", ","), ("f.tsv", "\t"), ("g.csv", ";")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["query", "text"], delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    found = []
    for path in sorted(tmp_path.iterdir()):
        (task,) = made(path)
        none = LeftOut()
        found.append(
            (
                [(one.id, one.text) for one in queries_of(task, none)],
                [(one.id, one.text) for one in documents_of(task, none)],
            )
        )
    assert len(found) == 7
    assert [text for _, text in found[0][0]] == [row["query"] for row in rows]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("text", "first", "rest"),
    [
        ("The first sentence ends here. A second.", "The first sentence ends here.", "A second."),
        ("Dr. A. Smith went to sea. It was cold.", "Dr. A. Smith went to sea.", "It was cold."),
        ("A heading without a point\n\nAnd a text.", "A heading without a point", "And a text."),
        ("これは最初の文ですので長く書いてあります。次の文。", "これは最初の文ですので長く書いてあります。", "次の文。"),  # noqa: E501
        ("Only one sentence is in this text.", "Only one sentence is in this text.", ""),
        ("short. text", "short. text", ""),
    ],
)  # fmt: skip
def test_the_first_sentence(text: str, first: str, rest: str) -> None:
    assert first_sentence(text) == (first, rest)


def test_repeated_texts_are_one_document_and_one_query(tmp_path: Path) -> None:
    rows = [
        {"title": "cats", "text": "They purr."},
        {"title": "cats", "text": "They sleep."},
        {"title": "dogs", "text": "They sleep."},
    ]
    (task,) = made(jsonl(tmp_path / "a.jsonl", rows))
    data: Any = make_task(task)
    data.load_data()
    split = data.dataset["default"]["test"]
    assert split["queries"]["text"] == ["cats", "dogs"]
    assert split["corpus"]["text"] == ["They purr.", "They sleep."]
    assert split["relevant_docs"] == {"q0": {"d0": 1, "d1": 1}, "q2": {"d1": 1}}


def test_labels_are_divided_by_turns(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i >= 30]} for i in range(40)]
    classification, clustering = made(jsonl(tmp_path / "a.jsonl", rows))
    data: Any = make_task(classification)
    data.load_data()
    assert [list(data.dataset[part]["label"]).count(0) for part in ("train", "test")] == [15, 15]
    assert [list(data.dataset[part]["label"]).count(1) for part in ("train", "test")] == [5, 5]
    assert data.dataset["train"]["text"][:2] == ["text 0", "text 2"]
    together: Any = make_task(clustering)
    together.load_data()
    assert len(together.dataset["test"]) == 40


def test_names_are_safe_and_nobody_elses(tmp_path: Path) -> None:
    assert safe_name("Mes données (v2)") == "Mes-donnees-v2"
    assert safe_name("日本語") == "texts"
    assert safe_name("../../etc") == "etc"
    assert safe_name('<script>$(rm -rf /)&"') == "script-rm-rf"
    names = {*registry().tasks, *registry().benchmarks, *registry().aliases, *DOCS_TYPES}
    names |= {one.name for one in shipped_suites()}
    assert not [name for name in names if name.startswith(OWN)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one,) = made(jsonl(tmp_path / "a" / "Banking77.jsonl", [{"text": text} for text in SENTENCES]))
    (two,) = made(jsonl(tmp_path / "b" / "Banking77.jsonl", [{"text": SENTENCES[0]}]))
    assert one.name == two.name == "own-Banking77-retrieval"
    assert [task.name for task in with_unique_names([one, two, one])] == [
        f"own-Banking77-{one.digest[:6]}-retrieval",
        f"own-Banking77-{two.digest[:6]}-retrieval",
    ]
    assert column_of(one.name, "Retrieval", shipped_suites()) == "Retr (own)"


def test_the_digest_is_of_the_content_and_of_what_is_read(tmp_path: Path) -> None:
    rows = [{"text": text} for text in SENTENCES]
    (task,) = made(jsonl(tmp_path / "a.jsonl", rows))
    (copy,) = made(jsonl(tmp_path / "copy.jsonl", rows))
    assert task.digest == copy.digest
    (other,) = made(jsonl(tmp_path / "c.jsonl", [*rows, {"text": "One more."}]))
    (german,) = made(tmp_path / "a.jsonl", language="deu-Latn")
    (lookups,) = made(jsonl(tmp_path / "d.jsonl", [{"text": t, "body": t} for t in SENTENCES]))
    (bodies,) = made(tmp_path / "d.jsonl", text="body")
    digests = {one.digest for one in (task, other, german, lookups, bodies)}
    assert len(digests) == 5


def test_a_file_that_is_changed_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": text} for text in SENTENCES])
    settings = read(f"tasks=[{path},DocstringReranking]", "offline=true")
    assert [one.name for one in settings.tasks] == ["own-a-retrieval", "DocstringReranking"]
    frozen = freeze(settings)
    again = thaw(json.loads(json.dumps(frozen)), tmp_path)
    assert again.own == settings.own
    source = again.sources[0]
    assert isinstance(source, CorpusSource)
    assert source.missing("own-a-retrieval") == ()
    task = source.make(source.resolve(again.tasks[0], "test", None))
    jsonl(path, [{"text": text} for text in SENTENCES[:-1]])
    said = f"own-a-retrieval: {path} changed since this was planned or begun"
    (line,) = source.missing("own-a-retrieval")
    assert line.startswith(said)
    assert source.texts(source.resolve(again.tasks[0], "test", None)) is None
    with pytest.raises(RequestError, match=said):
        task.load_data()
    # Without texts of one's own a manifest is what it was.
    assert "own" not in freeze(read("tasks=[DocstringReranking]"))
    path.unlink()
    (line,) = source.missing("own-a-retrieval")
    assert line == f"{path} cannot be read: No such file or directory."


def test_what_is_drawn_is_the_same_and_nested(tmp_path: Path) -> None:
    items = [f"item {i}" for i in range(1000)]

    def drawn(count: int) -> list[str]:
        return draw(iter(items), count, str, "seed")

    assert drawn(10) == drawn(10)
    assert set(drawn(10)) < set(drawn(50))
    assert drawn(50) == sorted(drawn(50), key=items.index)
    assert draw(items, 10, str, "another") != drawn(10)
    assert drawn(2000) == items

    (task,) = made(jsonl(tmp_path / "a.jsonl", [{"text": text} for text in SENTENCES]))
    queries = {}
    for limit in (2, 3):
        data: Any = make_task(task, limit)
        data.load_data()
        split = data.dataset["default"]["test"]
        queries[limit] = set(split["queries"]["id"])
        assert (len(split["queries"]), len(split["corpus"])) == (limit, 10 * limit)
        assert set(split["relevant_docs"]) == queries[limit]
        assert {f"d{one[1:]}" for one in queries[limit]} <= set(split["corpus"]["id"])
    assert queries[2] < queries[3]


def many(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            text = (
                f"The document of number {i} begins with this sentence. " + f"It is long {i}. " * 9
            )
            file.write(f'{{"id": "d{i}", "text": "{text}"}}\n')
    return path


@pytest.fixture
def peak() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_little_memory_is_needed(tmp_path: Path, peak: Any) -> None:
    """Texts of 20 MB are counted, and some of them drawn, in a quarter of that memory."""
    text = "It is long. " * 800
    rows = ({"text": f"This is the first sentence of {i}. {text}{i}"} for i in range(2_000))
    path = jsonl(tmp_path / "a.jsonl", rows)
    assert path.stat().st_size > 19e6
    (task,) = made(path)
    before = peak()
    found = survey(task)
    drawn = draw(documents_of(task, LeftOut()), 100, lambda one: one.id, "seed")
    assert (found.texts["queries"].count, len(drawn)) == (2_000, 100)
    assert peak() - before < 5e6


@pytest.mark.exhaustive
def test_a_million_lines(tmp_path: Path) -> None:
    path = many(tmp_path / "a.jsonl", 1_000_000)
    program = f"""
import time
start = time.process_time()
from lcbench.tasks.corpus.layout import tasks_of
from lcbench.tasks.corpus.spec import read_spec
from lcbench.tasks.corpus.survey import survey
from lcbench.tasks.corpus.check import LeftOut, documents_of
from lcbench.tasks.corpus.sample import draw
(task,) = tasks_of(read_spec({str(path)!r}))
found = survey(task)
drawn = draw(documents_of(task, LeftOut()), 1000, lambda one: one.id, "seed")
seconds = time.process_time() - start
# Of this program alone: getrusage also counts the process that it was forked from.
status = open("/proc/self/status").read()
memory = int(status.partition("VmHWM:")[2].split()[0])
print(found.texts["documents"].count, len(drawn), seconds, memory)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "LCBENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    count, drawn, seconds, kibibytes = done.stdout.split()
    assert (int(count), int(drawn)) == (1_000_000, 1000)
    assert float(seconds) < 60
    assert int(kibibytes) < 2**20


def test_numbers_are_a_set_that_knows_the_first_place() -> None:
    rng = random.Random(0)
    drawn = [
        rng.choice((0, 1, 2**64 - 1, rng.getrandbits(64), rng.getrandbits(11))) for _ in range(9000)
    ]
    numbers: Numbers = Numbers()
    first: dict[int, int] = {}
    for place, number in enumerate(drawn):
        # Of 64 bits, 0 counts as 1.
        assert numbers.add(number, place) == first.setdefault(number or 1, place)
    assert len(numbers) == len(first)
    assert all(number in numbers for number in drawn)
    assert 2**63 + 12345 not in numbers


def test_texts_that_are_counted(tmp_path: Path) -> None:
    rows = [{"text": f"text {i % 30}", "label": i % 3} for i in range(60)]
    classification, _ = made(jsonl(tmp_path / "a.jsonl", rows))
    source = CorpusSource.of(classification)
    part = source.resolve(TaskChoice(classification.name), "test", None)
    test, train = source.texts(part) or ()
    assert (test.count, test.unique, test.drawn_rows) == (30, 15, 0)
    # Ten draws of eight of the ten texts of each label take all of them.
    assert (train.count, train.drawn_rows, train.fitted_labels) == (30, 300, 30)
