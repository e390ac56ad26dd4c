"""Commands with texts of the user's own: what they list, and how they refuse."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_faults_end_with_two_and_one_message(run: Run, tmp_path: Path) -> None:
    """A line that is broken, columns that are unknown, and a path that is not there."""
    (tmp_path / "a.jsonl").write_text('{"text": "one. two"}\n{"text": "thr\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    (tmp_path / "c (1).csv").write_text("text\none\n", encoding="utf-8")
    for command, asked, message in (
        (None, "./a.jsonl", "line 2: it is not JSON"),
        ("tasks", "b.csv", "there is no column text; there are: x, y."),
        ("estimate", "./c", "there is no file or folder"),
        ("plan", "./c (1).csv", "'tasks=\"./c (1).csv\"'"),
    ):
        done = run(f"tasks={asked}", command=command)
        assert done.returncode == 2
        assert done.stderr.startswith("lcbench: error: ")
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_they_are_listed_next_to_other_tasks(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(8))
    (tmp_path / "b.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    done = run("tasks=[b.csv,DocstringRetrieval]", "format=csv", command="tasks")
    assert (done.returncode, done.stderr) == (0, "")
    listed = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(one["column"], one["task"], one["data"]) for one in listed] == [
        ("Class (own)", "own-b-classification", "your own"),
        ("Clust (own)", "own-b-clustering", "your own"),
        ("Retr", "DocstringRetrieval", "made here"),
    ]
    assert [one["texts"] for one in listed[:2]] == ["8", "8"]
