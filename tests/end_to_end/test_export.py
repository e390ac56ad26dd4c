"""`python -m lcbench export`: what it writes needs no lcbench, and what it cannot write it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lcbench
from lcbench.errors import RequestError

TEXTS = ["A short text.", "The temperature divides the attention logits. " * 30]

# Runs where importing lcbench is an error, however it is installed.
LOAD = """
import sys
sys.modules["lcbench"] = None
import numpy
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
numpy.save(sys.argv[2], model.encode(sys.argv[3:]))
try:
    import lcbench
except ImportError:
    print("lcbench cannot be imported")
"""


def test_what_is_exported_needs_no_lcbench(run, tmp_path: Path, minilm_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    done = run("model=minilm", "tau=0.8", "out=at-0.8", "offline=true", command="export")
    assert done.returncode == 0, done.stderr
    assert "Exported to at-0.8." in done.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "at-0.8", tmp_path / "found.npy", *TEXTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert "lcbench cannot be imported" in loaded.stdout
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    plain = model.encode(TEXTS)
    with lcbench.inject(model, 0.8):
        expected = model.encode(TEXTS)
    largest = np.abs(expected).max()
    assert np.abs(np.load(tmp_path / "found.npy") - expected).max() / largest < 1e-5
    assert np.abs(plain - expected).max() / largest > 1e-2
    card = (tmp_path / "at-0.8" / "README.md").read_text(encoding="utf-8")
    assert "# all-MiniLM-L6-v2 with τ = 0.8" in card
    assert "correct" not in card
    # Nothing is left beside it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-0.8", "found.npy"]


def test_temperatures_of_heads_are_exported(tmp_path: Path, make_model) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_model("bert")
    heads = {"model": f"local/{folder.name}", "layers": 2, "heads": 4}
    heads["tau"] = [[0.5, 1, 1.4, 0.8], [1, 0.6, 0.9, 0.7]]
    out = lcbench.export(folder, {"heads": heads}, tmp_path / "by-head", offline=True)
    found = SentenceTransformer(str(out), device="cpu").encode(TEXTS)
    model = SentenceTransformer(str(folder), device="cpu")
    with lcbench.inject(model, {"heads": heads}):
        expected = model.encode(TEXTS)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "its own temperature for each head of each layer" in " ".join(card.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tau={heads: none.json}", "out=new"], "none.json}: the file cannot be read"),
        (["tau={query: 0.8, document: 1.0}", "out=new"], "differ for queries and documents"),
        (
            ["tau={length: {0: 1.0, 128: 0.8}}", "out=new"],
            "a length-dependent temperature cannot be stored in weights",
        ),
        (["tau=1", "out=new"], "nothing to write"),
        (["tau=0.8", "out=there"], "out=there already exists"),
        (["tau=0.8"], "out has no value yet"),
    ],
)
def test_what_cannot_be_exported(typed, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "there").mkdir()
    done = typed("model=minilm", "offline=true", *arguments, command="export")
    assert done.returncode == 2
    assert message in done.stderr
    assert "lcbench: error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("tau", "correct", "dimensions", "kept"),
    [
        (1.0, {"centre": {"on": "docstrings"}}, None, 32),
        (0.8, {"abtt": {"components": 3, "on": "docstrings"}}, None, 32),
        (1.0, {"whiten": {"dimensions": 8, "on": "docstrings"}}, None, 8),
        # Of a model whose embeddings are cut, before they are corrected.
        (0.8, {"whiten": {"dimensions": 8, "on": "docstrings"}}, 16, 8),
    ],
)
def test_a_correction_is_exported_as_modules(
    tmp_path: Path,
    make_model,
    tau: float,
    correct: dict[str, Any],
    dimensions: int | None,
    kept: int,
) -> None:
    from sentence_transformers import SentenceTransformer

    from lcbench.repair.correction import parse
    from lcbench.repair.fit import fit
    from lcbench.tasks.reference import texts_of

    folder = make_model("bert")
    keys = {"correct": correct, "model.dimensions": dimensions, "offline": True}
    out = lcbench.export(folder, tau, tmp_path / "corrected", **keys)
    # It loads without lcbench, as the model of the test above.
    modules = json.loads((out / "modules.json").read_text(encoding="utf-8"))
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)
    found = SentenceTransformer(str(out), device="cpu", local_files_only=True).encode(TEXTS)
    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=dimensions)
    correction = parse(correct)
    with lcbench.inject(model, tau):
        assert correction.on is not None
        fitted = fit(correction, model.encode(texts_of(correction.on)))
        expected = fitted.apply(model.encode(TEXTS))
    assert found.shape == (len(TEXTS), kept)
    # A random model's embeddings are nearly alike: what little differs has float32's errors.
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"{correction.canonical}, fitted on 1,000 texts" in " ".join(card.split())
    assert ("softmax" in card) is (tau != 1)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_gains_are_exported_in_weights(tmp_path: Path, make_model, architecture: str) -> None:
    from sentence_transformers import SentenceTransformer

    from lcbench.repair.gain import parse

    folder, gain = make_model(architecture), {"layernorm": 1.2, "ffn": 0.7}
    out = lcbench.export(folder, 0.8, tmp_path / "gained", gain=gain, offline=True)
    model = SentenceTransformer(str(folder), device="cpu")
    plain = model.encode(TEXTS)
    applied = parse(gain).apply(model)
    with lcbench.inject(model, 0.8):
        expected = model.encode(TEXTS)
    applied.remove()
    found = SentenceTransformer(str(out), device="cpu").encode(TEXTS)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    assert np.abs(plain - expected).max() / np.abs(expected).max() > 1e-2
    card = " ".join((out / "README.md").read_text(encoding="utf-8").split())
    assert "weights of every layer: layernorm=1.2,ffn=0.7." in card


@pytest.mark.parametrize(
    ("correct", "message"),
    [
        ("centre", "Name the texts: 'correct={centre: {on: docstrings}}'"),
        ({"whiten": 8}, "Name the texts: 'correct={whiten: {dimensions: 8, on: docstrings}}'"),
        ({"centre": {"bins": 3, "on": "docstrings"}}, "a mean for each length cannot be stored"),
        ({"abtt": {"components": 32, "on": "docstrings"}}, "would leave nothing of embeddings"),
        (["centre"], "a model is exported with one value of correct"),
    ],
)
def test_corrections_that_cannot_be_exported(
    tmp_path: Path, make_model, correct: Any, message: str
) -> None:
    with pytest.raises(RequestError) as refused:
        lcbench.export(make_model("bert"), None, tmp_path / "new", correct=correct, offline=True)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "tau", "extend"),
    [
        ("bert", None, {"pi": 100}),
        ("roberta", 0.8, {"gp": 130}),
        ("mpnet", None, {"rp": 130}),
        ("bert", 0.8, {"window": 60}),
        ("qwen3", None, {"yarn": 128}),
        ("qwen3", 0.8, {"ntk": 128}),
        ("modernbert", None, {"linear": 128}),
    ],
)
def test_an_extension_is_exported(
    tmp_path: Path, make_model, architecture: str, tau: float | None, extend: dict[str, Any]
) -> None:
    """It loads without lcbench, reads more, and has the embeddings of the extended model."""
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.windows import set_window
    from lcbench.repair.extension import parse

    folder = make_model(architecture)
    out = lcbench.export(folder, tau, tmp_path / "longer", extend=extend, offline=True)
    exported = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    model = SentenceTransformer(str(folder), device="cpu")
    extension = parse(extend)
    assert (model.max_seq_length, exported.max_seq_length) == (48, extension.window)
    texts = [*TEXTS, "river " * 200]
    plain = model.encode(texts)
    extension.apply(model)
    set_window(model, extension.window)
    with lcbench.inject(model, tau or 1.0):
        expected = model.encode(texts)
    found = exported.encode(texts)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    assert np.abs(found - plain).max() / np.abs(expected).max() > 1e-3
    card = " ".join((out / "README.md").read_text(encoding="utf-8").split())
    assert f"reads {extension.window} tokens of a text instead of 48" in card


@pytest.mark.parametrize(
    ("architecture", "extend", "message"),
    [
        ("bert", {"pi": 100, "short": "kept"}, "depends on each text"),
        ("bert", {"window": 60, "short": 8}, "that short texts have other positions depends on"),
        ("qwen3", {"selfextend": 128}, "no configuration of transformers has SelfExtend"),
        ("qwen3", {"longrope": 60}, "embeddings would depend on the batch"),
        ("bert", {"ntk": 128}, "Suitable: extend={pi: 128}, {gp: 128} or {rp: 128}"),
    ],
)
def test_extensions_that_cannot_be_exported(
    tmp_path: Path, make_model, architecture: str, extend: dict[str, Any], message: str
) -> None:
    out = tmp_path / "new"
    with pytest.raises(RequestError) as refused:
        lcbench.export(make_model(architecture), None, out, extend=extend, offline=True)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []
