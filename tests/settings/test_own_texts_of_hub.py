"""Datasets of the hub among a user's own texts: where they are found, and what is read of them."""

import json
from pathlib import Path

import pytest

from lcbench.errors import RequestError
from lcbench.settings.own_texts import HubAccess, read_own
from lcbench.tasks.corpus.survey import survey

COMMIT = "0123456789" * 4


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A folder with the layout of the hub's cache, and a dataset with code of its own in it."""
    repository = tmp_path / "datasets--org--letters"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    for part in ("train", "test"):
        rows = [{"body": f"{part} {i}", "topic": "ab"[i % 2]} for i in range(6)]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (snapshot / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    (snapshot / "letters.py").write_text("raise SystemExit('code was run')", encoding="utf-8")
    return tmp_path


def test_a_dataset_of_a_cache_is_read_by_its_splits(cached: Path) -> None:
    asked = {"path": "hf://org/letters", "revision": COMMIT}
    for entry in ("hf://org/letters", asked):
        own = read_own([entry, "docs"], (), HubAccess(cached, offline=True))
        assert own.tasks == ["own-letters-classification", "own-letters-clustering", "docs"]
        classification, _ = own.texts
        assert [(one.part, one.rows.split) for one in classification.tables] == [
            ("train", "train"),
            ("test", "test"),
        ]
        found = survey(classification)
        assert {name: one.count for name, one in found.texts.items()} == {"train": 6, "test": 6}
        assert found.labels == {"a": 3, "b": 3}


def test_one_split_alone(cached: Path) -> None:
    asked = {"path": "hf://org/letters", "part": "train", "kind": "clustering"}
    (task,) = read_own([asked], (), HubAccess(cached, offline=True)).texts
    assert [one.rows.split for one in task.tables] == ["train"]
    assert survey(task).labels == {"a": 2, "b": 2}


def test_what_is_not_here_is_refused_with_the_command(cached: Path) -> None:
    asked = {"path": "hf://org/letters", "revision": "f" * 40}
    with pytest.raises(RequestError) as caught:
        read_own([asked], (), HubAccess(cached, offline=True))
    assert "offline=true forbids fetching it" in str(caught.value)
    assert (
        f"hf download --repo-type dataset org/letters --revision {'f' * 40} --local-dir "
        "my-mirror/org/letters" in str(caught.value)
    )
