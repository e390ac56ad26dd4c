"""An embedding does not depend on the texts that share its batch, or the model is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exactness
import numpy as np
import pytest
import torch
import transformers
from engines import encoder_of, settings

from lcbench.encode.forward import Forward
from lcbench.encode.invariance import TOLERANCE
from lcbench.encode.load import load
from lcbench.errors import InjectionError, RequestError
from lcbench.hub.models import locate

SHORT, LONG = "a short text", "Return the least-squares solution to a linear matrix equation. " * 4
SIZES = {
    "vocab_size": 30522,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
}


def folder_of(
    transformer: Any, folder: Path, tokenizer: Path, *, side: str = "right", pooling: str = "mean"
) -> Path:
    """Save a transformer with MiniLM's tokenizer as a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    inner = folder / "transformer"
    transformer.save_pretrained(inner)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / name, inner / name)
    config = json.loads((inner / "tokenizer_config.json").read_text())
    (inner / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": side}))
    module = Transformer(str(inner), max_seq_length=48)
    model = SentenceTransformer(
        modules=[module, Pooling(module.get_embedding_dimension(), pooling)], device="cpu"
    )
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def spread(transformer: Any) -> Any:
    """Make random weights large enough for positions and attention to matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in transformer.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.3)
    return transformer.eval()


def gpt2() -> Any:
    return spread(transformers.GPT2Model(transformers.GPT2Config(**SIZES)))


def embeddings(folder: Path, batch_tokens: int | None) -> Any:
    encoder = encoder_of(folder, batch_tokens=batch_tokens)
    return encoder.embed([SHORT, LONG])


def relative(left: Any, right: Any) -> float:
    return float(np.abs(left - right).max() / np.abs(right).max())


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_left_padding_with_absolute_positions_is_given_positions(
    tmp_path: Path, minilm_folder: Path, pooling: str
) -> None:
    """Plain sentence-transformers is wrong in a batch, and right for a text alone."""
    from sentence_transformers import SentenceTransformer

    folder = folder_of(gpt2(), tmp_path, minilm_folder, side="left", pooling=pooling)
    plain = SentenceTransformer(str(folder), device="cpu")
    alone = plain.encode([SHORT, LONG], batch_size=1)
    assert relative(plain.encode([SHORT, LONG])[0], alone[0]) > 0.1
    for batch_tokens in (None, 1, 64):
        got = embeddings(folder, batch_tokens)
        assert relative(got[0], alone[0]) < 1e-5
        assert relative(got[1], alone[1]) < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta", "t5"])
def test_tiny_models(architecture: str, side: str, tmp_path: Path, minilm_folder: Path) -> None:
    from tiny_models import tiny_transformer

    folder = folder_of(tiny_transformer(architecture), tmp_path, minilm_folder, side=side)
    alone = embeddings(folder, 1)
    together = embeddings(folder, None)
    assert max(relative(one, other) for one, other in zip(together, alone, strict=True)) < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", sorted(exactness.ARCHITECTURES))
def test_every_architecture_is_accepted(
    architecture: str, side: str, tmp_path: Path, minilm_folder: Path
) -> None:
    """Causal and bidirectional; a forward pass that is refused would raise here."""
    transformer = exactness.make(architecture, vocab_size=30522)
    folder = folder_of(transformer, tmp_path, minilm_folder, side=side)
    alone = embeddings(folder, 1)
    together = embeddings(folder, None)
    assert max(relative(one, other) for one, other in zip(together, alone, strict=True)) < 1e-5


def test_a_model_that_ignores_its_mask_is_refused_unless_texts_are_alone(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(locate(settings(make_model("bert")), offline=True), device="cpu", dtype="float32")
    forward = model[0].auto_model.forward

    def blind(**given: Any) -> Any:
        return forward(**{**given, "attention_mask": torch.ones_like(given["input_ids"])})

    monkeypatch.setattr(model[0].auto_model, "forward", blind)
    refusal = r"BertModel: a text of \d+ tokens .*engine\.batch_tokens=1"
    with pytest.raises(RequestError, match=refusal):
        Forward(model)
    Forward(model, batch_tokens=1).close()


def test_an_overflow_is_the_models_own_at_any_temperature(
    make_model: Callable[[str], Path],
) -> None:
    import lcbench

    located = locate(settings(make_model("bert")), offline=True)
    model = load(located, device="cpu", dtype="float16")
    with torch.no_grad():
        for layer in model[0].auto_model.encoder.layer:
            layer.output.dense.weight.fill_(6e4)
            layer.intermediate.dense.weight.fill_(100.0)
    with pytest.raises(RequestError, match="not finite in float16, at any temperature"):
        Forward(model)
    with pytest.raises(InjectionError, match="not finite in float16, at any temperature"):
        lcbench.inject(model, 0.8)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_within_its_noise(dtype: str, minilm_folder: Path) -> None:
    from lcbench.encode.invariance import check_invariance

    model = load(locate(settings(minilm_folder), offline=True), device="cpu", dtype=dtype)
    forward = Forward(model)
    found = check_invariance(
        model,
        forward.tokenizer_for(None),
        lambda texts: torch.cat(
            [model(forward.tokenizer_for(None).pad(texts))["sentence_embedding"].float().detach()]
        ),
    )
    forward.close()
    assert 0 < found < TOLERANCE[getattr(torch, dtype)] / 4


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 2.0,
    "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 5.0],
}


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 32),
        (LONGROPE, 64),
    ],
)
def test_rotary_positions_that_go_by_the_longest_text_are_refused(
    rope: dict[str, Any], positions: int, tmp_path: Path, minilm_folder: Path
) -> None:
    transformer = exactness.make(
        "Llama", vocab_size=30522, max_position_embeddings=positions, rope_parameters=rope
    )
    folder = folder_of(transformer, tmp_path, minilm_folder)
    model = load(locate(settings(folder), offline=True), device="cpu", dtype="float32")
    model.max_seq_length = 48
    words = rf"\({rope['rope_type']}\) go by the longest text .* model\.window=32 keeps"
    # Alone in its batch, a text may be read beside another one in another lane.
    for batch_tokens in (None, 1):
        with pytest.raises(RequestError, match=words):
            Forward(model, batch_tokens=batch_tokens)
    model.max_seq_length = 32
    Forward(model).close()


def test_longrope_reads_a_text_differently_beside_a_long_one(
    tmp_path: Path, minilm_folder: Path
) -> None:
    """What the refusal is for; without it the proof's own texts might be too short to show it."""
    transformer = exactness.make(
        "Llama", vocab_size=30522, max_position_embeddings=64, rope_parameters=LONGROPE
    )
    plain: Any = load(
        locate(settings(folder_of(transformer, tmp_path, minilm_folder)), offline=True),
        device="cpu",
        dtype="float32",
    )
    alone = plain.encode([SHORT])[0]
    assert relative(plain.encode([SHORT, LONG])[0], alone) > 1e-3


@pytest.mark.parametrize(
    ("attention", "refused"), [("block_sparse", True), ("original_full", False)]
)
def test_attention_that_the_first_short_batch_changes_for_good_is_refused(
    attention: str, refused: bool, tmp_path: Path, minilm_folder: Path
) -> None:
    config = transformers.BigBirdConfig(
        **exactness.ARCHITECTURES["BERT"][2] | {"vocab_size": 30522},
        attention_type=attention,
        block_size=4,
    )
    transformer = transformers.BigBirdModel(config, add_pooling_layer=False)
    folder = folder_of(spread(transformer), tmp_path, minilm_folder)
    model = load(locate(settings(folder), offline=True), device="cpu", dtype="float32")
    if refused:
        for batch_tokens in (None, 1):
            with pytest.raises(RequestError, match="BigBirdModel: attention_type block_sparse"):
                Forward(model, batch_tokens=batch_tokens)
    else:
        Forward(model).close()


def test_the_proof_runs_on_one_thread_as_lanes_do(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others have the cores as well, two wait for each other at every operation."""
    model = load(locate(settings(make_model("bert")), offline=True), device="cpu", dtype="float32")
    forward, seen = model[0].auto_model.forward, []

    def counted(**given: Any) -> Any:
        seen.append((torch.get_num_threads(), given["input_ids"].shape[1]))
        return forward(**given)

    monkeypatch.setattr(model[0].auto_model, "forward", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Forward(model).close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {threads for threads, _ in seen} == {1}
    # A short text alone, a long one, and both.
    short, long, both = (length for _, length in seen)
    assert short < long / 3 < long == both <= 45
