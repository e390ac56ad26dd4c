"""The paper's five models by their real configurations, with random weights, from end to end."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

import lcbench
from lcbench.encode.load import load
from lcbench.hub.models import ModelSettings, locate
from lcbench.repair.repair import Repair
from lcbench.run.export import export
from lcbench.tempscale.policy import parse

# MiniLM's, whose tokenizer the models borrow.
VOCABULARY = 30522
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": VOCABULARY,
}
_SMALL = {**_BASE, "hidden_size": 384, "intermediate_size": 1536}
_T5 = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
# Name → class, configuration, window, pooling, dense layer (its bias; None: no layer), normalised.
MODELS: dict[str, tuple[str, dict[str, Any], int, str, bool | None, bool]] = {
    "bge-base": ("Bert", _BASE, 512, "cls", None, True),
    "GIST-small": ("Bert", _SMALL, 512, "cls", None, True),
    "ANCE": (
        "Roberta",
        {**_BASE, "max_position_embeddings": 514, "pad_token_id": 1},
        512,
        "cls",
        True,
        False,
    ),
    "GTR": ("T5", {**_T5, "vocab_size": VOCABULARY, "pad_token_id": 0}, 512, "mean", False, True),
    "E5-base-4k": ("Bert", {**_BASE, "max_position_embeddings": 4096}, 4096, "mean", None, True),
}
TEXTS = ["A short text.", "The temperature divides the logits. " * 12]


def build(name: str, folder: Path, tokenizer: Path) -> Path:
    """Save a model as a sentence-transformers folder."""
    kind, sizes, window, pooling, bias, normalised = MODELS[name]
    torch.manual_seed(0)
    model_kind = "T5EncoderModel" if kind == "T5" else f"{kind}Model"
    model = getattr(transformers, model_kind)(getattr(transformers, f"{kind}Config")(**sizes))
    with torch.no_grad():
        for parameter_name, weight in model.named_parameters():
            # As initialised, BERT's attention is nearly uniform, which no temperature changes.
            if kind != "T5" and set(parameter_name.split(".")) & {"query", "key"}:
                weight *= 5
    inner = folder / "transformer"
    model.save_pretrained(inner)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / file, inner / file)
    transformer = Transformer(str(inner), max_seq_length=window)
    width = transformer.get_embedding_dimension()
    modules: list[torch.nn.Module] = [transformer, Pooling(width, pooling_mode=pooling)]
    if bias is not None:
        modules.append(Dense(width, width, bias=bias, activation_function=torch.nn.Identity()))
    if normalised:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    shutil.rmtree(inner)
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        # The smallest; the others are of the same parts, which tiny models have in other tests.
        name if name == "GIST-small" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in MODELS
    ],
)
def test_a_model_of_the_paper(name: str, tmp_path: Path, minilm_folder: Path) -> None:
    folder = build(name, tmp_path, minilm_folder)
    asked = ModelSettings("custom", str(folder), "folder", None, None, None, False)
    located = locate(asked, offline=True)
    kind, _, window, _, _, _ = MODELS[name]
    assert located.shape.layers == 12
    assert located.own_window == window
    assert located.shape.position_bias == (kind == "T5")
    model = load(located, device="cpu", dtype="float32")
    plain = model.encode(TEXTS)
    runs: list[int] = []
    hook = model[0].auto_model.register_forward_hook(lambda *_: runs.append(1))
    with lcbench.inject(model, 0.8) as injection:
        # The proof's, of short texts: it is cheap on every model.
        assert 1 <= len(runs) <= 3
        hook.remove()
        expected = model.encode(TEXTS)
        injection.check()
    assert injection.proof.tau == ((0.8,),) * 12
    assert np.array_equal(model.encode(TEXTS), plain)
    largest = np.abs(expected).max()
    assert np.abs(expected - plain).max() / largest > 1e-3
    del model
    out = tmp_path / "exported"
    error = export(asked, Repair(parse(0.8)), out, offline=True)
    assert error < 1e-5
    shutil.rmtree(folder)
    reloaded = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    assert np.abs(reloaded.encode(TEXTS) - expected).max() / largest < 1e-5
