"""Repairs that a model cannot have, which is known once it is loaded: left out, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_program
import pytest
from observers import Recorded

import lcbench
from lcbench.errors import RequestError

LATE, MEAN, LONGER = {"chunks": {"late": 24}}, {"chunks": {"mean": 24}}, {"extend": {"pi": 96}}


def pools_by_first_token(folder: Path) -> None:
    path = folder / "1_Pooling" / "config.json"
    content = {**json.loads(path.read_text()), "pooling_mode": "cls"}
    path.write_text(json.dumps(content))


def reads_queries_by_themselves(folder: Path) -> None:
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "query_length": 16}))


@pytest.mark.parametrize(
    ("change", "unsuited", "why"),
    [
        (pools_by_first_token, LATE, "late chunking takes means of tokens' states, and "),
        (reads_queries_by_themselves, LONGER, "has separate windows by role (query: 16 tokens)"),
    ],
)
def test_the_others_are_run(
    change: Callable[[Path], None],
    unsuited: dict[str, Any],
    why: str,
    make_model: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_model("bert"), folder)
    change(folder)
    asked = {**chaos_program.request_of(tmp_path, folder), "tasks": "STS12"}
    asked["repairs"] = [unsuited, MEAN, {"tau": 0.8}]
    progress = Recorded()
    found = lcbench.evaluate(**asked, leave_out_unsuited=True, progress=progress)
    assert not found.failed
    scores = found.scores.dropna(subset="score")
    assert set(scores["chunks"]) == {"", "mean=24"}
    assert set(scores["tau"]) == {1.0, 0.8}
    assert len(scores) == 3
    (warning,) = (one for one in progress.warnings if "left out" in one)
    assert why in warning
    with pytest.raises(RequestError, match=r"model was refused: ") as refused:
        lcbench.evaluate(
            **{**asked, "results_dir": tmp_path / "refused"},
            leave_out_unsuited=False,
            progress=progress,
        )
    assert why in str(refused.value)
