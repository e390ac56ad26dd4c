"""The encoder: the embeddings of sentence-transformers, each text once, batches that fit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lcbench
from lcbench.encode.forward import Counters, EmbeddingError, Encoder
from lcbench.encode.tokens import Tokens
from lcbench.models import ModelSettings, load, locate
from lcbench.provenance import model_meta
from lcbench.tempscale.policy import BASELINE

# Largest difference of an embedding's component between two ways of batching it, in fp32 on a CPU.
# Measured: 2.0e-7 (MiniLM, against sentence-transformers' own batches).
NOISE_FLOOR = 2e-6

TEXTS = [
    "A short text.",
    "Return the least-squares solution to a linear matrix equation. " * 60,
    "",
    "A short text.",
    "The temperature divides the attention logits before the softmax. " * 7,
    "Ünïcödé, and a number: 12345.",
]


def settings(folder: Path, **changes: Any) -> ModelSettings:
    values: dict[str, Any] = {
        "config": "custom",
        "name": str(folder),
        "source": "folder",
        "package": None,
        "revision": None,
        "window": None,
        "trust_remote_code": False,
    }
    return ModelSettings(**{**values, **changes})


def encoder_of(folder: Path, **options: Any) -> Encoder:
    located = locate(settings(folder), offline=True)
    model = load(located, device="cpu", dtype="float32")
    return Encoder(model, model_meta(located, model, BASELINE), injection=None, **options)


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Encoder:
    return encoder_of(minilm_folder)


def test_embeddings_are_those_of_sentence_transformers(minilm: Encoder) -> None:
    expected = minilm._model.encode(TEXTS, batch_size=3, convert_to_numpy=True)
    assert np.abs(minilm.embed(TEXTS) - expected).max() < NOISE_FLOOR


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5"])
def test_other_architectures_too(architecture: str, make_model: Callable[[str], Path]) -> None:
    encoder = encoder_of(make_model(architecture))
    expected = encoder._model.encode(TEXTS, batch_size=2, convert_to_numpy=True)
    found = encoder.embed(TEXTS)
    # The weights of these models are large, and so are their embeddings and rounding errors.
    assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5


def test_batching_changes_nothing_beyond_the_noise_floor(minilm_folder: Path) -> None:
    small, large = (
        encoder_of(minilm_folder, batch_tokens=size).embed(TEXTS) for size in (64, 9999)
    )
    assert np.abs(small - large).max() < NOISE_FLOOR


def test_the_same_texts_give_the_same_bits(minilm_folder: Path) -> None:
    first, second = (encoder_of(minilm_folder).embed(TEXTS) for _ in range(2))
    assert np.array_equal(first, second)


def test_equal_texts_are_encoded_once(minilm_folder: Path) -> None:
    encoder = encoder_of(minilm_folder)
    found = encoder.embed(["a", "b", "a", "a"])
    assert encoder.counters.texts == 4
    assert encoder.counters.encoded_texts == 2
    assert np.array_equal(found[0], found[3])
    encoder.counters = Counters()
    encoder.embed(["b", "c"])
    assert encoder.counters.encoded_texts == 1


def test_memory_is_bounded_and_a_full_one_changes_no_embedding(minilm_folder: Path) -> None:
    texts = [f"text number {i}" for i in range(30)]
    expected = encoder_of(minilm_folder).embed(texts)
    encoder = encoder_of(minilm_folder, memory_gib=20_000 / 2**30)
    for start in range(0, 30, 5):
        part = encoder.embed(texts[start : start + 5])
        assert np.abs(part - expected[start : start + 5]).max() < NOISE_FLOOR
        assert encoder._memory._bytes <= 20_000
    assert 0 < len(encoder._memory._kept) < 30


def test_lengths_are_the_tokens_that_are_read(minilm: Encoder) -> None:
    lengths = minilm.lengths(["hello world", "word " * 1000, "hello world"])
    # [CLS] hello world [SEP]; the model's own window.
    assert lengths == [4, 256, 4]
    minilm.embed(["hello world"])
    assert minilm.lengths(["hello world"]) == [4]


def test_little_is_padded(minilm_folder: Path) -> None:
    encoder = encoder_of(minilm_folder)
    encoder.embed([f"{'word ' * (i % 200)} {i}" for i in range(800)])
    waste = 1 - encoder.counters.encoded_tokens / encoder.counters.padded_tokens
    assert waste < 0.03


def test_running_out_of_memory_halves_the_batches_and_loses_no_text(
    minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'word ' * (i % 40)} {i}" for i in range(60)]
    expected = encoder_of(minilm_folder).embed(texts)
    encoder = encoder_of(minilm_folder, batch_tokens=4096)
    forward, sizes = encoder._forward, []

    def little_memory(batch: Sequence[Tokens]) -> NDArray[np.float32]:
        sizes.append(sum(one.length for one in batch))
        if sizes[-1] > 150:
            raise torch.OutOfMemoryError
        return forward(batch)

    monkeypatch.setattr(encoder, "_forward", little_memory)
    assert np.abs(encoder.embed(texts) - expected).max() < NOISE_FLOOR
    assert max(sizes) > 150
    assert encoder._batch_tokens < 4096


def test_a_text_that_does_not_fit_alone_is_an_error(
    minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(minilm_folder)

    def no_memory(batch: Sequence[Tokens]) -> NDArray[np.float32]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(encoder, "_forward", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        encoder.embed(["a text"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_what_is_no_embedding_is_an_error_that_names_the_text(
    minilm_folder: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    encoder = encoder_of(minilm_folder)
    forward = encoder._forward

    def broken(batch: Sequence[Tokens]) -> NDArray[np.float32]:
        found = forward(batch)
        for row, one in enumerate(batch):
            if one.length == 5:
                found[row] = bad
        return found

    monkeypatch.setattr(encoder, "_forward", broken)
    with pytest.raises(EmbeddingError, match=r"text 1 of 3 \(5 tokens\)"):
        encoder.embed(["hello world", "hello big world", "hello"])


def test_embeddings_at_a_temperature_are_those_of_the_injected_model(minilm_folder: Path) -> None:
    located = locate(settings(minilm_folder), offline=True)
    model = load(located, device="cpu", dtype="float32")
    plain = model.encode(TEXTS)
    with lcbench.inject(model, 0.5) as injection:
        encoder = Encoder(model, model_meta(located, model, BASELINE), injection=injection)
        scaled = encoder.embed(TEXTS)
        assert np.abs(scaled - model.encode(TEXTS)).max() < NOISE_FLOOR
    assert np.abs(scaled - plain).max() > 0.01
