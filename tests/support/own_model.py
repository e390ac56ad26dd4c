"""The journey of docs/own-model.md: its commands, and a folder with the texts that they name."""

import json
import re
import shlex
import shutil
from pathlib import Path

import mteb
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
# Texts long enough for the lengths of the tiny model, and short passages.
TEXTS, SENTENCES = 130, 30


def command_lines() -> list[list[str]]:
    """Return the arguments of each command of the page, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(words[0] == "lcbench" for words in lines)
    return [words[1:] for words in lines]


def prepare(folder: Path, model: Path) -> None:
    """Copy the model to my-model, and write my-texts.jsonl: each text is about words of its own."""
    shutil.copytree(model, folder / "my-model")
    random = np.random.default_rng(0)
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet"]
    rows = []
    for number in range(TEXTS):
        own = [f"{random.choice(words)}{number}" for _ in range(6)]
        sentences = [
            f"Here {' '.join(random.choice(own + words, 6))} is what the text says."
            for _ in range(random.integers(4, SENTENCES))
        ]
        rows.append(json.dumps({"text": f"What about {' and '.join(own)}? {' '.join(sentences)}"}))
    (folder / "my-texts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def check(folder: Path) -> None:
    """Check what the commands have written: by the libraries that read it."""
    data = ModelCard.load(folder / "my-model-0.9" / "README.md").data
    (result,) = data.eval_results
    results = folder / "results" / "runs"
    table = pd.read_csv(results / "report" / "tables" / "differences.csv")
    average = table[table["Column"] == "Avg"].iloc[0]
    # The written model has the scores of the repair.
    assert 100 * result.metric_value == pytest.approx(average["b"], abs=0.005)
    assert average["from"] <= average["b − a"] <= average["to"]
    pack = mteb.ResultCache(folder / "my-pack")
    loaded = pack.load_results(include_remote=False, load_experiments="match_name")
    scores = [one.task_results[0].get_score() for one in loaded.model_results]
    # The baseline, two temperatures, and repairs of other kinds.
    assert len(scores) >= 5
    assert result.metric_value in scores
    model = SentenceTransformer(str(folder / "my-model-0.9"), device="cpu")
    assert model.encode(["a text"]).shape == (1, 32)
    assert (results / "report" / "index.html").is_file()
    assert (results / "report" / "collapse" / "index.html").is_file()
