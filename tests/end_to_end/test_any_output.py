"""A run on a terminal that has only ASCII: the same results, nothing that it cannot show."""

import json
import shutil
from pathlib import Path

from end_to_end_support import SMALL, json_results


def test_two_folders_of_one_name_on_an_ascii_terminal(run, make_model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(make_model("bert"), tmp_path / name / "final")
    # Another window makes it another model.
    window = tmp_path / "b" / "final" / "sentence_bert_config.json"
    window.write_text('{"max_seq_length": 40}', encoding="utf-8")
    models = "models=[a/final,./b/final,a/final/]"
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(models, "tasks=[DocstringReranking]", *SMALL, **c_locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "ours, tau = 0.8" in done.stdout
    revisions = {
        path.relative_to(tmp_path / "results" / "runs").parts[3]
        for path in json_results(tmp_path / "results")
        if path.stem == "DocstringReranking"
    }
    assert len(revisions) == 2
    # Each by the end of its path, whose place on this machine is in no file.
    page = (tmp_path / "results" / "runs" / "report" / "index.html").read_text(encoding="utf-8")
    assert "\u03c4" in page
    for label in ("a/final", "b/final"):
        assert label in done.stdout
        assert label in page
    told = [
        path.read_text(encoding="utf-8")
        for path in (tmp_path / "results").rglob("*.provenance.jsonl")
    ]
    assert {json.loads(one)["model_path"] for one in told} <= {"a/final", "./b/final", "a/final/"}
    assert len(told) >= 4
    assert not any(str(tmp_path) in one for one in (page, *told))
    for command in ("report", "status"):
        done = run(command=command, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
