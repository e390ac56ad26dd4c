"""Batches without padding: the same embeddings, pooling in every mode, and models that keep it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import MADE, memory, settings
from numpy.typing import NDArray
from observers import Recorded

from lcbench.encode.batches import fill_batches
from lcbench.encode.embed import embed, pack
from lcbench.encode.encoder import EmbeddingError
from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import Forward
from lcbench.encode.load import load
from lcbench.encode.options import EngineSettings
from lcbench.encode.tokens import Tokenizer
from lcbench.encode.unpadded import pool_by_text, restore_pooling, use_unpadded
from lcbench.hub.models import locate
from lcbench.plan.machine import Machine
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.run.engines import load_for
from lcbench.tempscale.policy import parse

TEXTS = [
    "word",
    "a text to embed",
    "",
    "attention divides logits " * 5,
    "long " * 60,
    *(f"text number {number} of a few" for number in range(20)),
]
# In fp32 on a CPU; measured: 1.6e-7 of MiniLM's components.
NOISE_FLOOR = 2e-6
POLICIES = [1.0, 0.7, {"layers": {1: 0.7}}, {"length": {0: 0.9, 12: 0.6}}]


def loaded(folder: Path) -> Any:
    return load(locate(settings(folder), offline=True), device="cpu", dtype="float32")


def engine_with(model: Any, **options: Any) -> Engine:
    engine = Engine(Forward(model, **options), memory(), Identity("a/b", "c", 48, "float32"))
    MADE.append(engine)
    return engine


def embeddings(engine: Engine, tau: Any) -> NDArray[np.float32]:
    return engine.embed(Repair(parse(tau)), TEXTS, None, "").embeddings


def apart(left: NDArray[Any], right: NDArray[Any]) -> float:
    return float(np.abs(left - right).max() / np.abs(right).max())


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_embeddings_are_those_of_padded_batches(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    padded, model = (loaded(make_model(architecture)) for _ in range(2))
    assert use_unpadded(model) is None
    expecting, engine = engine_with(padded, lanes=1), engine_with(model, lanes=2, batch_tokens=96)
    found = {}
    for tau in POLICIES:
        name = parse(tau).canonical
        found[name] = embeddings(engine, tau)
        assert apart(found[name], embeddings(expecting, tau)) < NOISE_FLOOR
    baseline = found.pop("1")
    assert all(apart(one, baseline) > 1e-2 for one in found.values())
    # As it was, to the bit, after all temperatures.
    engine._store = memory()
    assert np.array_equal(embeddings(engine, 1.0), baseline)
    assert engine.arithmetic()["attention"] == "varlen"
    assert "attention_note" not in engine.arithmetic()
    # Without padding there are as many tokens as texts have.
    work = engine.embed(Repair(parse(0.9)), TEXTS, None, "").work
    assert work.padded == work.tokens > 0
    engine.close()
    pooling = model[1]
    assert "_forward_flattened" not in vars(pooling)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("t5", "T5Attention has a position_bias"),
        ("mpnet", "MPNetModel has no sdpa attention"),
        ("deberta", "DebertaV2Model has no sdpa attention"),
        ("canine", "CanineModel has no sdpa attention"),
    ],
)
def test_other_architectures_stay_as_they_are(
    architecture: str, reason: str, make_model: Callable[[str], Path]
) -> None:
    model = loaded(make_model(architecture))
    before = model.encode(["a text to embed"])
    implementation = model[0].auto_model.config._attn_implementation
    parameters = model[0].model_forward_params
    refusal = use_unpadded(model)
    assert refusal is not None
    assert reason in refusal
    assert model[0].auto_model.config._attn_implementation == implementation
    assert model[0].model_forward_params == parameters
    assert np.array_equal(model.encode(["a text to embed"]), before)
    arithmetic = Forward(model, notes={"attention_note": refusal}, batch_tokens=1).arithmetic()
    assert arithmetic["attention"] == implementation
    assert arithmetic["attention_note"] == refusal


@pytest.mark.parametrize(
    ("device", "attention", "compiled", "expected"),
    [
        ("cpu", None, False, "sdpa"),
        ("cuda:1", None, False, "lcbench_varlen"),
        ("cuda:1", None, True, "sdpa"),
        ("cuda:1", "sdpa", False, "sdpa"),
        ("cpu", "varlen", True, "lcbench_varlen"),
    ],
)
def test_by_default_texts_are_padded_on_a_cpu_only(
    device: str,
    attention: str | None,
    compiled: bool,
    expected: str,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on_the_cpu(
        located: Any, *, device: str, dtype: str, attention: str | None, spread: bool
    ) -> Any:
        assert not spread
        return load(located, device="cpu", dtype=dtype, attention=attention)

    monkeypatch.setattr("lcbench.encode.load.load", on_the_cpu)
    # Whose memory is asked for: this machine has no such GPU.
    here = Machine("a CPU", "cpu", 2, "float32")
    monkeypatch.setattr("lcbench.plan.machine.machine_of", lambda engine, dtype: here)
    options = EngineSettings(device, None, None, compiled, attention)
    for architecture, said in (("bert", 0), ("t5", int(attention == "varlen"))):
        observer = Recorded()
        model, notes = load_for(
            locate(settings(make_model(architecture)), offline=True),
            options,
            dtype="float32",
            device=device,
            observer=observer,
        )
        implementation = model[0].auto_model.config._attn_implementation
        assert implementation == ("sdpa" if architecture == "t5" else expected)
        # Who asks for it is told; who gets it by default finds the reason in the provenance.
        assert len(observer.warnings) == said
        is_noted = architecture == "t5" and expected == "lcbench_varlen"
        assert list(notes) == (["attention_note"] if is_noted else [])


def test_a_model_that_counts_positions_over_all_texts_stays_as_it_is(
    make_model: Callable[[str], Path],
) -> None:
    model = loaded(make_model("bert"))
    transformer = model[0].auto_model
    forward = transformer.forward

    def deaf(*args: Any, **kwargs: Any) -> Any:
        if "position_ids" in kwargs:
            tokens = kwargs["position_ids"].shape[1]
            kwargs["position_ids"] = torch.arange(tokens)[None] % 48
        return forward(*args, **kwargs)

    transformer.forward = deaf
    refusal = use_unpadded(model)
    assert refusal is not None
    assert "BertModel's embeddings would differ by" in refusal


def test_a_model_that_runs_out_of_memory_is_not_refused(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(make_model("bert"))

    def exhausted(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lcbench.tempscale.unpadded.attend_by_text", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        use_unpadded(model)


@pytest.mark.parametrize("texts", [["a river bank", "an apple", ""], [""]])
@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("mode", ["cls", "lasttoken"])
def test_a_text_without_any_token_is_an_error(
    mode: str, is_padded: bool, texts: list[str], make_model: Callable[[str], Path]
) -> None:
    """Rather than the embedding of the text before or after it in the row."""
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers.processors import Sequence

    model = loaded(make_model("qwen3"))
    model.tokenizer.backend_tokenizer.post_processor = Sequence([])
    model[1] = Pooling(32, pooling_mode=mode)
    assert is_padded or use_unpadded(model) is None
    engine = engine_with(model, lanes=1, batch_tokens=96)
    with pytest.raises(EmbeddingError, match=rf"text {len(texts) - 1} of {len(texts)} \(0 tokens"):
        engine.embed(NO_REPAIR, texts, None, "")
    assert engine.embed(NO_REPAIR, ["an apple"], None, "").work.tokens == 2


MODES = ("cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean")


@pytest.mark.parametrize("skipped", [None, 3])
def test_pooling_without_padding_is_that_of_padded_batches(
    skipped: int | None, make_model: Callable[[str], Path]
) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = loaded(make_model("bert"))
    assert use_unpadded(model) is None
    model[1] = pooling = Pooling(32, pooling_mode=MODES, include_prompt=skipped is None)
    lengths = [7, 40, 4, 1 if skipped is None else 5]
    longest = max(lengths)
    states = torch.randn(4, longest, 32, generator=torch.Generator().manual_seed(0))
    read = torch.arange(longest) < torch.tensor(lengths)[:, None]
    prompt = {} if skipped is None else {"prompt_length": skipped}
    padded = {"token_embeddings": states, "attention_mask": read.long(), **prompt}
    expected = pooling(padded)["sentence_embedding"]
    changed = pool_by_text(model)
    assert changed == [pooling]
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    found = pooling({"token_embeddings": states[read][None], "cu_seq_lens_q": starts, **prompt})
    assert found["sentence_embedding"].dtype == torch.float32
    assert torch.allclose(found["sentence_embedding"], expected, atol=1e-6, rtol=1e-6)
    restore_pooling(changed)
    assert "_forward_flattened" not in vars(pooling)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-7), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)]
)
def test_means_of_long_texts_are_exact(
    dtype: torch.dtype, limit: float, make_model: Callable[[str], Path]
) -> None:
    """Where a version of sentence-transformers would sum in half precision."""
    model = loaded(make_model("bert"))
    assert pool_by_text(model) == []
    model[0].can_flatten_inputs = True
    (pooling,) = pool_by_text(model)
    count = 4096
    tokens = 0.3 + torch.randn(1, count, 32, generator=torch.Generator().manual_seed(0)) / 8
    tokens = tokens.to(dtype)
    (pooled,) = pooling._forward_flattened(tokens, {"cu_seq_lens_q": torch.tensor([0, count])})
    assert pooled.dtype == dtype
    exact = tokens.double().mean(dim=1)
    assert float((pooled.double() - exact).abs().max() / exact.abs().max()) < limit


def test_a_row_tells_where_each_text_begins(make_model: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer(loaded(make_model("bert")))
    texts = tokenizer.tokenize(["one", "a text that is longer"])
    features = pack(texts, 2)
    first, second = (one.length for one in texts)
    assert features["input_ids"].tolist() == [[*texts[0].ids, *texts[1].ids]]
    assert features["position_ids"].tolist() == [[*range(2, 2 + first), *range(2, 2 + second)]]
    assert features["input_ids"].dtype == features["position_ids"].dtype == torch.int64
    for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
        assert features[name].dtype == torch.int32
        assert features[name].tolist() == [0, first, first + second]
    assert features["max_length_q"] == features["max_length_k"] == second
    assert "attention_mask" not in features


def test_batches_are_filled_from_the_longest_text_on() -> None:
    assert fill_batches([3, 9, 1, 4, 4, 20], 10) == [[5], [1], [3, 4], [0, 2]]
    assert fill_batches([], 10) == []
    lengths = np.random.default_rng(0).integers(0, 50, 300).tolist()
    batches = fill_batches(lengths, 512)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert all(sum(lengths[i] for i in batch) <= 512 for batch in batches)
    assert len(batches) <= 1.1 * sum(lengths) / 512 + 1


def test_each_text_alone_is_what_it_is_in_a_row(make_model: Callable[[str], Path]) -> None:
    """A text that no other shares a batch with has nothing to be kept apart from."""
    model = loaded(make_model("bert"))
    tokenizer = Tokenizer(model)
    texts = tokenizer.tokenize(["one", "a text that is longer", "word " * 99])
    alone = torch.cat([embed(model, tokenizer, [text])[0] for text in texts]).numpy()
    assert use_unpadded(model) is None
    together, tokens = embed(model, tokenizer, texts, packed_from=0)
    assert tokens == sum(one.length for one in texts)
    assert apart(together.numpy(), alone) < NOISE_FLOOR
