"""What is wrong in a user's texts is said in one message: the file, the line, the remedy."""

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcbench.errors import RequestError
from lcbench.tasks.corpus.layout import tasks_of
from lcbench.tasks.corpus.source import CorpusSource
from lcbench.tasks.corpus.spec import read_spec
from lcbench.tasks.corpus.survey import survey

Files = dict[str, str | bytes]
_BEIR: Files = {
    "corpus.jsonl": '{"_id": "a", "text": "cats"}\n{"_id": "b", "text": "dogs"}\n',
    "queries.jsonl": '{"_id": "q", "text": "which?"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\ta\t1\n",
}


def beir(**changed: str | bytes) -> Files:
    """Return a valid BEIR folder with some files changed (`qrels` is that of its test split)."""
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"}
    return {**_BEIR, **{names[part]: content for part, content in changed.items()}}


LABELLED = "text,label\none,x\ntwo,y\nthree,x\nfour,y\n"
# Name, files, what is asked for in `tasks` (the folder where it is empty), the message.
CASES: list[tuple[str, Files, Any, str]] = [
    ("no file", {}, "a.csv", r"tasks=.*a\.csv: there is no file or folder .*a\.csv\."),
    (
        "an ending that is not known",
        {"a.docx": "text"},
        "a.docx",
        r"a\.docx: files of texts end in \.jsonl, .*\.parquet",
    ),
    (
        "an unknown folder",
        {"notes.txt": "text"},
        "",
        r"has no known layout; it has notes\.txt\. A folder has corpus\.jsonl, queries\.jsonl and "
        r"qrels/test\.tsv",
    ),
    (
        "not JSON",
        {"a.jsonl": '{"text": "one. two"}\n{"text": "thr\n'},
        "a.jsonl",
        r"a\.jsonl, line 2: it is not JSON at column 10 \(Unterminated string .*\)\. Each line is "
        r"one object\.",
    ),
    (
        "a JSON array",
        {"a.json": '[{"text": "one"},\n {"text": "two"}]\n'},
        "a.json",
        r"a\.json, line 1: it is a JSON array; one object per line is needed: jq -c '\.\[\]'",
    ),
    (
        "a line that is no object",
        {"a.jsonl": '{"text": "one. two"}\n\n"three"\n'},
        "a.jsonl",
        r'a\.jsonl, line 3: a str, not an object such as \{"text": "…"\}',
    ),
    (
        "Latin-1",
        {"a.csv": "text,label\none,x\ncaf\xe9,y\n".encode("latin-1")},
        "a.csv",
        r"a\.csv, line 3: byte 4 \(0xe9\) is not UTF-8\. If it is WINDOWS-1252: iconv -f",
    ),
    (
        "UTF-16",
        {"a.csv": LABELLED.encode("utf-16")},
        "a.csv",
        r"a\.csv, line 1: it is UTF-16\. If it is UTF-16: iconv -f UTF-16 -t UTF-8",
    ),
    (
        "no column that is known",
        {"a.csv": "headword,gloss\none,two\n"},
        "a.csv",
        r"a\.csv: there is no column text; there are: headword, gloss\..* Map the columns: "
        r"'tasks=\[\{path: PATH, text: COLUMN\}\]'",
    ),
    (
        "a mapped column that is not there",
        {"a.csv": LABELLED},
        {"path": "a.csv", "text": "txt"},
        r"a\.csv: there is no column txt; there are: text, label\. Did you mean text\?",
    ),
    (
        "a row of too many fields",
        {"a.csv": "text,label\none,x\ntwo, three,y\n"},
        "a.csv",
        r"a\.csv, line 3: 3 fields, and the header has 2\. A text with , in it needs quotes\.",
    ),
    (
        "a quote that is never closed",
        {"a.csv": 'text,label\none,x\n"two,y\nthree,x\n'},
        "a.csv",
        r"a\.csv, line 3: the row that begins here is not CSV \(unexpected end of data\)\.",
    ),
    (
        "two columns of one name",
        {"a.csv": "text,text,label\none,two,x\n"},
        "a.csv",
        r"a\.csv, line 1: two columns have the name text; rename one\.",
    ),
    ("no header", {"a.csv": ""}, "a.csv", r"a\.csv, line 1: there is no header"),
    ("no rows", {"a.jsonl": "\n"}, "a.jsonl", r"a\.jsonl: it has no rows\."),
    (
        "a number in the place of a text",
        {"a.jsonl": '{"text": "one", "label": "x"}\n{"text": 2, "label": "y"}\n'},
        "a.jsonl",
        r"a\.jsonl, line 2: the column text holds a number \(2\), not a text\. Write it in quotes",
    ),
    (
        "labels of two types",
        {"a.jsonl": '{"text": "one", "label": "x"}\n{"text": "two", "label": 1}\n'},
        "a.jsonl",
        r"a\.jsonl, line 2: the label 1 is a number, and that of line 1 is a text\.",
    ),
    (
        "a label that is a list",
        {"a.jsonl": '{"text": "one", "label": ["x", "y"]}\n'},
        "a.jsonl",
        r"line 1: the label \(column label\) is a list \(\['x', 'y'\]\), neither a text nor",
    ),
    (
        "a label of its own for each text",
        {"a.csv": "text,label\none,1\ntwo,2\nthree,3\n"},
        "a.csv",
        r"a\.csv: each of its 3 labels comes once: the column label does not group the texts\.",
    ),
    (
        "one label",
        {"a.csv": "text,label\none,x\ntwo,x\n"},
        "a.csv",
        r"a\.csv: 1 different labels, and classification needs at least 2\.",
    ),
    (
        "nothing but empty texts",
        {"a.csv": 'text,label\n"",x\n  ,y\n'},
        "a.csv",
        r"a\.csv: 0 labelled texts, and classification needs at least 2\. Left out: rows without "
        r"a text \(2\)\.",
    ),
    (
        "a split that is neither",
        {"a.csv": "text,label,split\none,x,train\ntwo,y,later\n"},
        "a.csv",
        r"a\.csv, line 3: the split 'later' \(column split\) is neither train nor test\.",
    ),
    (
        "a score that is no number",
        {"a.csv": "text_a,text_b,score\none,two,1\nthree,four,high\n"},
        "a.csv",
        r"a\.csv, line 3: the score 'high' \(column score\) is not a number\.",
    ),
    (
        "scores that are all the same",
        {"a.csv": "text_a,text_b,score\none,two,1\nthree,four,1\n"},
        "a.csv",
        r"a\.csv: 1 different scores, and sts needs at least 2\.",
    ),
    (
        "half a character",
        {"a.jsonl": '{"text": "a \\ud83d b. And more of it.", "label": "x"}\n'},
        "a.jsonl",
        r"a\.jsonl, line 1: the column text holds half a character",
    ),
    (
        "texts of one sentence",
        {"a.jsonl": '{"text": "one"}\n{"text": "two"}\n'},
        "a.jsonl",
        r"a\.jsonl: 0 queries with a relevant document, and retrieval needs at least 1\. Left out: "
        r"texts of one sentence \(2\)\.",
    ),
    (
        "an id that comes twice",
        beir(corpus='{"_id": "a", "text": "cats"}\n{"_id": "a", "text": "dogs"}\n'),
        "",
        r"corpus\.jsonl, line 2: the id 'a' is that of line 1 as well\. Ids are unique",
    ),
    (
        "a document without an id",
        beir(corpus='{"_id": "a", "text": "cats"}\n{"text": "dogs"}\n'),
        "",
        r"corpus\.jsonl, line 2: the column _id has no id \(None\)",
    ),
    (
        "a judgement of no document",
        beir(qrels="query-id\tcorpus-id\tscore\nq\ta\t1\nq\tc\t1\n"),
        "",
        r"test\.tsv, line 3: there is no document with the id 'c' in .*corpus\.jsonl\. Remove the "
        r"line, or add the document\.",
    ),
    (
        "a judgement of no query",
        beir(qrels="query-id\tcorpus-id\tscore\np\ta\t1\n"),
        "",
        r"test\.tsv, line 2: there is no query with the id 'p' in .*queries\.jsonl",
    ),
    (
        "a grade that is no number",
        beir(qrels="query-id\tcorpus-id\tscore\nq\ta\tyes\n"),
        "",
        r"test\.tsv, line 2: the grade 'yes' is not a whole number \(0: not relevant, 1: relevant",
    ),
    (
        "two judgements of one pair",
        beir(qrels="query-id\tcorpus-id\tscore\nq\ta\t1\nq\ta\t0\n"),
        "",
        r"test\.tsv, line 3: query 'q' and document 'a' were judged otherwise before \(1, now 0\)",
    ),
    (
        "judgements without a header",
        beir(qrels="q\ta\t1\n"),
        "",
        r"test\.tsv: there is no column query-id, corpus-id, score; there are: q, a, 1\. The first "
        r"line has the names",
    ),
    (
        "no queries",
        {"corpus.jsonl": _BEIR["corpus.jsonl"], "qrels/test.tsv": _BEIR["qrels/test.tsv"]},
        "",
        r"lacks queries\. A folder has",
    ),
    (
        "several judgements, none of them test",
        {
            **{name: text for name, text in _BEIR.items() if "qrels" not in name},
            "qrels/dev.tsv": _BEIR["qrels/test.tsv"],
            "qrels/train.tsv": _BEIR["qrels/test.tsv"],
        },
        "",
        r"which judgements are scored\? There are dev, train: 'tasks=\[\{path: .*, part: dev\}\]'",
    ),
    (
        "half a gzip file",
        {"a.csv.gz": gzip.compress(LABELLED.encode() * 100)[:-20]},
        "a.csv.gz",
        r"a\.csv\.gz: it is not a whole gzip file",
    ),
    (
        "no Parquet",
        {"a.parquet": "text"},
        "a.parquet",
        r"a\.parquet: it is not valid Parquet \(",
    ),
    (
        "a key that there is not",
        {"a.csv": LABELLED},
        {"path": "a.csv", "texts": "text"},
        r"tasks=\[\{path: .*, texts: text\}\]: texts is not a key\. Did you mean text",
    ),
    ("no path", {}, {"text": "body"}, r"tasks=\[\{text: body\}\] names no path:"),
    (
        "a column that is mapped twice",
        {"a.csv": LABELLED},
        {"path": "a.csv", "query": "text", "text": "text"},
        r"the column text is mapped twice\.",
    ),
    (
        "an unknown kind",
        {"a.csv": LABELLED},
        {"path": "a.csv", "kind": "classify"},
        r"kind is one of retrieval, classification, clustering, sts\. Did you mean classification",
    ),
    (
        "a kind that the columns do not allow",
        {"a.csv": LABELLED},
        {"path": "a.csv", "kind": "sts"},
        r"a\.csv: there is no column text_a, text_b, score; there are: text, label\..* kind: sts "
        r"needs it",
    ),
    ("an address", {}, "https://x.org/a.csv", r"a file is not fetched from an address"),
    ("a hub name without a name", {}, "hf://org", r"is written hf://organisation/name"),
]


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def asked_for(folder: Path, asked: Any) -> Any:
    """Return what a request asks for, with the folder before paths."""
    if isinstance(asked, dict):
        path = {"path": str(folder / asked["path"])} if "path" in asked else {}
        return {**asked, **path}
    return asked if "://" in asked else str(folder / asked)


def read_all(asked: Any) -> None:
    for task in tasks_of(read_spec(asked)):
        survey(task)


@pytest.mark.parametrize(
    ("files", "asked", "message"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_one_message_each(files: Files, asked: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(RequestError) as caught:
        read_all(asked_for(tmp_path, asked))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_there_are_at_least_twenty_five_of_them() -> None:
    assert len(CASES) >= 25
    assert len({case[0] for case in CASES}) == len(CASES)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "one", "label": "x", "split": "train"},
        {"text": "two", "label": "y", "split": "train"},
        {"text": None, "label": "y", "split": "train"},
        {"text": "four", "label": None, "split": "test"},
        {"text": " ", "label": "x", "split": "test"},
        {"text": "six", "label": "x", "split": "dev"},
        {"text": "seven", "label": "x", "split": "test"},
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    classification, clustering = tasks_of(read_spec(str(path)))
    said = {
        "rows without a text": 2,
        "rows without a label": 1,
        "rows of other splits than train and test": 1,
    }
    assert dict(survey(classification).left_out) == said
    source = CorpusSource.of(classification)
    assert source.record(classification.name)["left_out"] == said
    assert source.remark(classification.name, "model", 512) == (
        "own-a-classification: left out: rows without a text (2), rows without a label "
        "(1), rows of other splits than train and test (1)."
    )
    assert CorpusSource.of(clustering).kind(clustering.name) == "Clustering"


def test_nan_of_a_data_frame_is_a_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text_a": "one", "text_b": "two", "score": 1}\n'
        '{"text_a": "one", "text_b": "four", "score": 2}\n'
        '{"text_a": NaN, "text_b": "two", "score": 3}\n'
        '{"text_a": "six", "text_b": "two", "score": NaN}\n'
    )
    (task,) = tasks_of(read_spec(str(path)))
    assert dict(survey(task).left_out) == {"pairs without a text": 1, "pairs without a score": 1}


def test_judgements_of_empty_documents_are_left_out(tmp_path: Path) -> None:
    corpus = _BEIR["corpus.jsonl"]
    assert isinstance(corpus, str)
    write(
        tmp_path,
        beir(
            corpus=corpus + '{"_id": "c", "title": "", "text": ""}\n',
            qrels="query-id\tcorpus-id\tscore\nq\ta\t1\nq\tc\t1\n",
        ),
    )
    (task,) = tasks_of(read_spec(str(tmp_path)))
    assert dict(survey(task).left_out) == {
        "documents without a text": 1,
        "judgements of corpus without a text": 1,
    }
