"""`lcbench.tune`: it writes a file of temperatures that runs take and a model can hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import lcbench
from lcbench.errors import RequestError
from lcbench.tempscale.heads import read_temperatures
from lcbench.tempscale.policy import ByHead, parse
from lcbench.tuning.pairs import pairs_of

QUIET: dict[str, Any] = {"offline": True, "progress": False}
TEXTS = ["A short text.", "The temperature divides the attention logits. " * 30]
SENTENCE = "The sentence of number {} asks for the rest of its text."


def own_texts(folder: Path, count: int) -> Path:
    """Write texts of nine sentences; the first is the query of a task of such texts."""
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(200)]
    rows = []
    for number in range(count):
        rest = " ".join(f"It has {' '.join(random.choice(words, 8))}." for _ in range(8))
        rows.append(json.dumps({"text": f"{SENTENCE.format(number)} {rest}"}))
    path = folder / "corpus.jsonl"
    path.write_text("\n".join(rows))
    return path


def test_entropies_are_matched_and_the_file_is_a_policy(tmp_path: Path, make_model) -> None:
    folder, out = make_model("bert-of-512"), tmp_path / "new" / "entropy.json"
    asked = {"texts": 30, "traced_lengths": [16, 32], **QUIET}
    tuned = lcbench.tune(folder, out, "entropy", **asked)
    assert tuned.path == out
    assert tuned.temperatures == read_temperatures(out)
    content = json.loads(out.read_text())
    assert content["model"] == f"local/{folder.name}"
    assert content["revision"].startswith("sha256-")
    assert content["lengths"] == [16, 32]
    assert (content["layers"], content["heads"]) == (2, 4)
    assert content["made"]["method"] == "entropy"
    assert content["made"]["texts"] == 30
    assert content["made"]["texts_of"].startswith("docstrings-")
    assert "Entropies of 8 heads at 32 tokens are those at 16 tokens, over 30 texts" in str(tuned)
    # Longer texts have more keys to attend to.
    assert np.median(np.array(content["tau"][1])) < 1
    again = lcbench.tune(folder, tmp_path / "again.json", "entropy", **asked)
    assert again.temperatures == tuned.temperatures
    model = SentenceTransformer(str(folder), device="cpu")
    plain = model.encode(TEXTS)
    with lcbench.inject(model, {"heads": out}):
        found = model.encode(TEXTS)
    assert np.abs(found[0] - plain[0]).max() < 1e-6
    assert np.abs(found[1] - plain[1]).max() > 1e-4
    with pytest.raises(RequestError, match="a length-dependent temperature cannot be stored"):
        lcbench.export(folder, {"heads": out}, tmp_path / "exported", offline=True)


def test_a_search_says_what_it_gains_and_can_be_exported(tmp_path: Path, make_model) -> None:
    folder, out = make_model("bert-of-512"), tmp_path / "searched.json"
    asked = {"texts": 36, "trials": 6, "folds": 2, "by_length": False, "seed": 3, **QUIET}
    tuned = lcbench.tune(folder, out, "search", own_texts(tmp_path, 40), **asked)
    made = tuned.temperatures.made
    assert (made["pairs"], made["trials"], made["folds"]) == (36, 4 + 3 * 2, 2)
    assert "corpus" in made["texts_of"]
    assert made["gain"]["low"] <= made["gain"]["value"] <= made["gain"]["high"]
    assert 0 < made["ndcg_at_10"] < 1
    assert tuned.temperatures.lengths == ()
    policy = parse({"heads": out})
    if made["gain"]["low"] > 0:
        assert isinstance(policy, ByHead)
        assert "τ is from" in str(tuned)
    else:
        assert policy.is_baseline
        assert made["best_on_all"] is not None
        assert "That is no significant gain: all temperatures are 1" in str(tuned)
    again = lcbench.tune(folder, tmp_path / "x.json", "search", own_texts(tmp_path, 40), **asked)
    assert again.temperatures == tuned.temperatures
    assert again.temperatures.made == tuned.temperatures.made


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"method": "entropi"},
            r"method=entropi is not one of: choose, entropy, search. Did you mean",
        ),
        ({"limit": 30}, "limit=30 is not a key of method=entropy"),
        ({"trials": 9}, "trials=9 is a key of method=search"),
        ({"heads": True}, "heads=True is a key of method=search"),
        ({"method": "search", "trials": 3}, "trials=3"),
        ({"method": "search", "folds": 1}, "folds=1"),
        ({"traced_lengths": [64]}, r"traced_lengths=\[64\] is not a list of at least two rising"),
        ({"traced_lengths": [64, 32]}, r"traced_lengths=\[64, 32\] is not a list of at least two"),
        ({"traced_lengths": [16, 9999]}, r"traced_lengths=\[16, 9999\]: lengths are from"),
        ({"method": "search", "traced_lengths": [16, 9999]}, "the model reads at most 256 tokens"),
        (
            {"method": "search", "traced_lengths": [16, 32], "by_length": False},
            r"traced_lengths=\[16, 32\]: with by_length=false",
        ),
        ({"tasks": "DocstringRetrievl"}, "DocstringRetrieval"),
        ({"texts": 0}, "texts=0"),
        ({"seed": -1}, "seed=-1"),
        ({"device": "gpu"}, "device=gpu is not a device"),
    ],
)
def test_a_wrong_request_is_refused(
    tmp_path: Path, make_model, keys: dict[str, Any], message: str
) -> None:
    out = tmp_path / "never.json"
    with pytest.raises(RequestError, match=message):
        lcbench.tune(make_model("bert-of-512"), out, **{"method": "entropy", **QUIET, **keys})
    assert not out.exists()


def test_a_search_goes_no_further_than_its_documents(tmp_path: Path, make_model) -> None:
    folder, texts = make_model("bert-of-512"), own_texts(tmp_path, 40)
    keys = {"texts": 40, "trials": 4, "folds": 2, **QUIET}
    tuned = lcbench.tune(folder, tmp_path / "x.json", "search", texts, **keys)
    model = SentenceTransformer(str(folder), device="cpu")
    # The task has the first sentences as its queries; the search those that follow.
    of_task = [pair.document for pair in pairs_of(map(text_of, texts.read_text().splitlines()))]
    documents = [pair.document for pair in pairs_of(of_task)]
    lengths = sorted(len(ids) for ids in model.tokenizer(documents)["input_ids"])
    assert 64 < lengths[37] < 256
    assert f"τ may depend on length from 64 to {lengths[37]} tokens" in str(tuned)
    assert tuned.temperatures.lengths in ((), (64, lengths[37]))


def text_of(line: str) -> str:
    return str(json.loads(line)["text"])


@pytest.mark.parametrize("method", ["entropy", "search"])
def test_layers_that_share_weights_are_refused(tmp_path: Path, make_model, method: str) -> None:
    out = tmp_path / "never.json"
    with pytest.raises(RequestError, match="its layers cannot have temperatures of their own"):
        lcbench.tune(make_model("albert"), out, method, **QUIET)
    assert not out.exists()


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, make_model) -> None:
    out = tmp_path / "there.json"
    out.write_text("mine")
    with pytest.raises(RequestError, match=r"there.json already exists; choose another file"):
        lcbench.tune(make_model("bert"), out, "entropy", **QUIET)
    assert out.read_text() == "mine"


def test_texts_that_are_too_few_or_short_are_refused(tmp_path: Path, make_model) -> None:
    few = own_texts(tmp_path, 20)
    with pytest.raises(RequestError, match="20 of the texts have a title or first sentence"):
        lcbench.tune(make_model("bert-of-512"), tmp_path / "x.json", "search", few, **QUIET)
    with pytest.raises(RequestError, match="20 of 20 texts have 16 tokens, and at least 30"):
        lcbench.tune(
            *(make_model("bert-of-512"), tmp_path / "x.json", "entropy", few),
            traced_lengths=[16, 200],
            **QUIET,
        )
