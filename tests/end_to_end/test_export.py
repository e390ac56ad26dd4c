"""`python -m lcbench.export`: a model that needs no lcbench, or a refusal with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import lcbench

TEXTS = ["a short text", "The temperature divides the attention logits. " * 9]

PLAIN = """
import json, sys
sys.modules["lcbench"] = None  # importing it would fail
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))
"""


def test_the_exported_model_needs_no_lcbench(run, tmp_path: Path, minilm_folder: Path) -> None:
    done = run("model=minilm", "tau=0.8", "out=exported", module="lcbench.export")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "exported"), json.dumps(TEXTS)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    got = np.array(json.loads(shown.stdout))
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    plain = model.encode(TEXTS)
    with lcbench.inject(model, 0.8):
        expected = model.encode(TEXTS)
    assert np.abs(got - expected).max() / np.abs(expected).max() <= 1e-5
    assert np.abs(got - plain).max() > 1e-3
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2" in card
    assert "τ = 0.8" in card
    assert {path.name for path in tmp_path.iterdir()} == {"exported"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tau={query: 0.8}", "out=x"], "would have to differ for queries and documents"),
        (["tau={length: {0: 1.0, 99: 0.8}}", "out=x"], "do not know how long a text is"),
        (["tau=1", "out=x"], "leaves sentence-transformers/all-MiniLM-L6-v2 as it is"),
        (["tau={layers: {6: 0.8}}", "out=x"], "the model has no layer 6"),
        (["tau=0.8"], "out has no value yet"),
        (["tau=0.8", "out=."], "out=. exists already"),
        (["tau=0.8", "out=x", "model=bge"], "BAAI/bge-base-en-v1.5"),
    ],
    ids=str,
)
def test_what_cannot_be_exported(run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, module="lcbench.export")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
