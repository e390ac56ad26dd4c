"""The paper's five models by their real configurations, with random weights: inject, prove, encode,
export, reload, equal."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import lcbench
from lcbench.export import export
from lcbench.models import load, locate
from lcbench.settings import ExportSettings
from lcbench.tempscale.policy import parse
from test_encoder import encoder_of, settings

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BASE |= {"intermediate_size": 3072}
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL |= {"intermediate_size": 1536}
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}

# Class, configuration, pooling, whether a dense layer follows, window, positions.
MODELS: dict[str, tuple[str, str, dict[str, Any], str, bool, int, int | None]] = {
    "bge": (
        "BertModel",
        "BertConfig",
        {**BASE, "vocab_size": 30522, "max_position_embeddings": 512},
        "cls",
        False,
        512,
        512,
    ),
    "gist": (
        "BertModel",
        "BertConfig",
        {**SMALL, "vocab_size": 30522, "max_position_embeddings": 512},
        "cls",
        False,
        512,
        512,
    ),
    "ance": (
        "RobertaModel",
        "RobertaConfig",
        {**BASE, "vocab_size": 50265, "max_position_embeddings": 514, "pad_token_id": 1},
        "cls",
        True,
        512,
        512,
    ),
    "gtr": (
        "T5EncoderModel",
        "T5Config",
        {**T5_BASE, "vocab_size": 32128},
        "mean",
        True,
        512,
        None,
    ),
    "e5": (
        "BertModel",
        "BertConfig",
        {**BASE, "vocab_size": 30522, "max_position_embeddings": 4096},
        "mean",
        False,
        4096,
        4096,
    ),
}
TEXTS = ["a short text", "a longer text about attention and its temperature " * 12, "another"]


def build(name: str, folder: Path, tokenizer: Path) -> Path:
    kind, config, sizes, pooling, dense, window, _ = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()
    inner = folder / "transformer"
    model.save_pretrained(inner)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / file, inner / file)
    transformer = Transformer(str(inner), max_seq_length=window)
    width = transformer.get_embedding_dimension()
    modules: list[Any] = [transformer, Pooling(width, pooling_mode=pooling)]
    if dense:
        modules.append(Dense(width, width, bias=False, activation_function=torch.nn.Identity()))
    modules.append(Normalize())
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_paper(name: str, tmp_path: Path, minilm_folder: Path) -> None:
    layers = MODELS[name][2].get("num_hidden_layers", 12)
    window, positions = MODELS[name][5:]
    folder = build(name, tmp_path, minilm_folder)
    located = locate(settings(folder), offline=True)
    assert (located.own_window, located.positions) == (window, positions)
    assert located.shape.layers == layers
    model = load(located, device="cpu", dtype="float32")
    plain = model.encode(TEXTS)
    with lcbench.inject(model, 0.5) as injection:
        assert len(injection.proof.layers) == layers
        assert injection.proof.tau == ((0.5,),) * layers
        # 0.2 s were measured, for 12 layers of 768 dimensions on two busy cores.
        assert injection.proof.seconds < 2
        injected = model.encode(TEXTS)
    assert np.array_equal(model.encode(TEXTS), plain)
    # Of these random weights attention is nearly uniform, so little changes; but it does.
    assert np.abs(injected - plain).max() > 1e-6
    encoded = encoder_of(folder).embed(TEXTS)
    assert np.abs(encoded - plain).max() < 2e-6
    out = tmp_path / "exported"
    error = export(ExportSettings(settings(folder), parse(0.5), out, offline=True))
    assert error <= 1e-5
    reloaded = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    assert reloaded.max_seq_length == window
    assert np.abs(reloaded.encode(TEXTS) - injected).max() / np.abs(injected).max() <= 1e-5
