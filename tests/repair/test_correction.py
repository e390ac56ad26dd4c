"""Corrections as they are written, named and refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lcbench.errors import RequestError
from lcbench.repair.correction import Correction, parse
from lcbench.tasks.reference import read_reference, texts_of

DOCSTRINGS = str(read_reference("docstrings"))


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("centre", "centre"),
        ({"centre": None}, "centre"),
        ({"centre": {"bins": 5}}, "centre_bins=5"),
        ({"abtt": 3}, "abtt=3"),
        ({"abtt": {"components": 3}}, "abtt=3"),
        ("whiten", "whiten"),
        ({"whiten": 128}, "whiten=128"),
        ({"whiten": {"dimensions": 8, "on": "docstrings"}}, f"whiten=8,on={DOCSTRINGS}"),
        ({"centre": {"on": DOCSTRINGS}}, f"centre,on={DOCSTRINGS}"),
    ],
)
def test_a_correction_has_one_name_and_can_be_written_again(value: Any, canonical: str) -> None:
    correction = parse(value)
    assert correction.canonical == canonical
    assert not set(canonical) & set(":/")
    assert parse(json.loads(json.dumps(correction.written()))) == correction


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("center", "center is not a correction. Did you mean centre?"),
        ("abtt", "abtt needs the number of components to remove"),
        ({"abtt": 0}, "components is not a whole number of at least 1"),
        ({"abtt": True}, "components is not a whole number of at least 1"),
        ({"centre": 5}, "for means by length, {centre: {bins: 5}}"),
        ({"centre": {"bins": 1}}, "bins is not a whole number of at least 2"),
        ({"whiten": {"bins": 5}}, "whiten takes dimensions, on, not bins"),
        ({"abtt": {"component": 5}}, "Did you mean components?"),
        ({"abtt": 3, "centre": None}, "one correction at a time, abtt or centre"),
        ({"centre": {"on": "docstring"}}, "Did you mean docstrings?"),
        ({"centre": {"on": 3}}, "on takes docstrings, or a file or folder of your own texts"),
        ({"centre": {"on": "./nothing.jsonl"}}, "on: ./nothing.jsonl: there is no file or folder"),
        ({"centre": {"on": "letters"}}, "has a / in it (on: ./letters)"),
        ({"centre": {"on": "hf://a/b"}}, "are fitted on files, not on datasets of the hub"),
        ({"centre": {"on": {"path": "a.csv", "txt": "b"}}}, "txt is not a key"),
        ({"centre": {"on": "docstrings-00000000"}}, "are others"),
        (3, "correct=3 is not a correction. Corrections are centre"),
        ({}, "is not a correction. Corrections are centre"),
    ],
)
def test_what_is_no_correction_is_refused_with_what_is(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(value)
    assert message in str(refused.value)


def test_components_must_be_there_to_be_removed_or_kept() -> None:
    Correction("abtt", 31).check(32)
    Correction("whiten", 32).check(32)
    with pytest.raises(RequestError, match=r"would leave nothing of .* 32 dimensions: name fewer"):
        Correction("abtt", 32).check(32)
    with pytest.raises(RequestError, match="32 dimensions have no more components than that"):
        Correction("whiten", 33).check(32)


def test_the_set_of_docstrings_is_of_distinct_texts() -> None:
    texts = texts_of(read_reference("docstrings"))
    assert len(texts) == len(set(texts)) == 1000


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts_of_a_file_of_ones_own_are_read_whole_without_labels_and_queries(
    tmp_path: Path,
) -> None:
    two = "The first sentence of a text. And the second one."
    plain = written(tmp_path / "plain.jsonl", [{"text": two}, {"text": ""}, {"text": "b"}])
    assert texts_of(read_reference(str(plain))) == [two, "b"]
    asked = written(tmp_path / "asked.jsonl", [{"query": q, "text": q * 3} for q in "abc"])
    assert texts_of(read_reference(str(asked))) == ["aaa", "bbb", "ccc"]
    rows = [
        {"body": one, "topic": one, "split": part} for one, part in zip("abcd", PARTS, strict=True)
    ]
    labels = {"path": str(written(tmp_path / "l.jsonl", rows)), "text": "body", "label": "topic"}
    assert texts_of(read_reference(labels)) == ["a", "c", "d"]
    pairs = [{"text_a": one, "text_b": one * 2, "score": "1"} for one in "ab"]
    assert texts_of(read_reference(str(written(tmp_path / "p.jsonl", pairs)))) == [
        *("a", "aa", "b", "bb")
    ]
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    judged = "query-id\tcorpus-id\tscore\nq\ta\t1\n"
    (beir / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    written(beir / "queries.jsonl", [{"_id": "q", "text": "which"}])
    written(beir / "corpus.jsonl", [{"_id": i, "title": i * 2, "text": i} for i in "ab"])
    assert texts_of(read_reference(str(beir))) == ["aa a", "bb b"]


PARTS = ("train", "test", "train", "train")


def test_a_correction_on_texts_of_ones_own_is_named_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "my__letters.jsonl", [{"text": "a"}, {"text": "b"}])
    monkeypatch.chdir(tmp_path)
    correction = parse({"whiten": {"dimensions": 2, "on": "./my__letters.jsonl"}})
    name = correction.canonical
    assert name.startswith("whiten=2,on=own-my_letters-")
    assert not any(one in name for one in (":", "/", " ", "__"))
    # The same texts elsewhere are the same set.
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / path.name
    copy.write_bytes(path.read_bytes())
    assert parse({"whiten": {"dimensions": 2, "on": str(copy)}}) == correction
    # As a manifest and a scoring process get it, from another folder.
    kept = json.loads(json.dumps(correction.written()))
    monkeypatch.chdir("/")
    for again in (parse(kept), pickle.loads(pickle.dumps(correction))):
        assert again == correction
        assert again.on is not None
        assert texts_of(again.on) == ["a", "b"]
        assert again.on.files == (str(path),)
    written(path, [{"text": "a"}, {"text": "c"}])
    with pytest.raises(RequestError, match=r"on: .*my__letters.jsonl changed since this was plan"):
        parse(kept)
    assert correction.on is not None
    with pytest.raises(RequestError, match=r"on: .*my__letters.jsonl changed since this was plan"):
        texts_of(correction.on)
    assert parse({"whiten": {"dimensions": 2, "on": str(path)}}) != correction


@pytest.mark.parametrize(("rows", "message"), [(["", " "], "has no text"), (["a"], "has one text")])
def test_a_file_of_too_few_texts_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    path = written(tmp_path / "few.jsonl", [{"text": one} for one in rows])
    with pytest.raises(RequestError, match=message):
        parse({"centre": {"on": str(path)}})
