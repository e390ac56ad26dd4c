"""The encoder: the embeddings of sentence-transformers, each text once, batches that fit."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, encoder_of, engine_of, largest_difference, memory

import lcbench
from lcbench.encode import encoder as encoder_module
from lcbench.encode.encoder import Counters, EmbeddingError, Encoder, Stopped, large_array
from lcbench.encode.engine import Engine
from lcbench.encode.forward import Forward
from lcbench.encode.store.shelf import Shelf, Store
from lcbench.encode.tokens import Tokens
from lcbench.errors import StorageError
from lcbench.repair.repair import Repair
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import parse
from lcbench.tempscale.prove import active_probe

TEXTS = [
    "A short text.",
    "Return the least-squares solution to a linear matrix equation. " * 60,
    "",
    "A short text.",
    "The temperature divides the attention logits before the softmax. " * 7,
    "Ünïcödé, and a number: 12345.",
]
MANY = [f"{'word ' * (i % 40)} {i}" for i in range(60)]


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Any:
    return encoder_of(minilm_folder)


def test_embeddings_are_those_of_sentence_transformers(minilm: Any) -> None:
    expected = minilm.model.encode(TEXTS, batch_size=3, convert_to_numpy=True)
    assert largest_difference(minilm.embed(TEXTS), expected) < NOISE_FLOOR


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5"])
def test_other_architectures_too(architecture: str, make_model: Callable[[str], Path]) -> None:
    encoder: Any = encoder_of(make_model(architecture))
    expected = encoder.model.encode(TEXTS, batch_size=2, convert_to_numpy=True)
    found = encoder.embed(TEXTS)
    # The weights of these models are large, and so are their embeddings and rounding errors.
    assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5


def test_batching_changes_nothing_beyond_the_noise_floor(minilm_folder: Path) -> None:
    small, large = (
        encoder_of(minilm_folder, batch_tokens=size).embed(TEXTS) for size in (64, 9999)
    )
    assert largest_difference(small, large) < NOISE_FLOOR


def test_the_same_texts_give_the_same_bits(minilm_folder: Path) -> None:
    first, second = (encoder_of(minilm_folder).embed(MANY) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("tau", [0.7, {"length": {0: 1.0, 12: 0.6}}], ids=str)
@pytest.mark.parametrize("architecture", ["bert", "t5", "mpnet", "deberta"])
def test_any_number_of_lanes_gives_the_same_bits(
    architecture: str, tau: Any, make_model: Callable[[str], Path]
) -> None:
    folder = make_model(architecture)
    one, three = (
        encoder_of(folder, tau, batch_tokens=128, lanes=lanes).embed(MANY) for lanes in (1, 3)
    )
    assert np.array_equal(one, three)
    assert largest_difference(one, encoder_of(folder).embed(MANY)) > 1e-3


def test_copies_on_several_devices_are_at_the_same_temperature(
    make_model: Callable[[str], Path],
) -> None:
    folder = make_model("bert")
    alone = encoder_of(folder, 0.6, batch_tokens=64, lanes=1).embed(MANY)
    encoder: Any = encoder_of(folder, 0.6, batch_tokens=64, lanes=1, devices=["cpu", "cpu"])
    assert np.array_equal(encoder.embed(MANY), alone)
    used = [replica._injection.policy for replica in encoder.engine._forward._replicas]
    assert used == [parse(0.6), parse(0.6)]


def test_lanes_leave_cores_to_others(make_model: Callable[[str], Path]) -> None:
    left = 1
    running: list[int] = []
    engine, _ = engine_of(make_model("bert"), batch_tokens=16, lanes=4, cores_left=lambda: left)
    forward = engine._forward
    run = forward._replicas[0].run

    def watched(*arguments: Any) -> Any:
        running.append(forward._running)
        time.sleep(0.002)
        return run(*arguments)

    forward._replicas[0].run = watched  # type: ignore[method-assign]
    engine.embed(Repair(parse(1.0)), MANY, "document", "")
    assert set(running) == {1}
    left = 3
    engine.embed(Repair(parse(1.0)), [f"another {text}" for text in MANY], "document", "")
    assert max(running) == 3


def test_equal_texts_are_encoded_once(minilm_folder: Path) -> None:
    encoder = encoder_of(minilm_folder)
    found = encoder.embed(["a", "b", "a", "a"])
    assert encoder.counters.texts == 4
    assert encoder.counters.unique_texts == 2
    assert encoder.counters.encoded_texts == 2
    assert np.array_equal(found[0], found[3])
    encoder.counters = Counters()
    encoder.embed(["b", "c"])
    assert encoder.counters.encoded_texts == 1
    # A prompt makes another text of it.
    encoder.embed(["b", "c"], prompt="query: ")
    assert encoder.counters.encoded_texts == 3


def test_what_is_in_the_store_is_not_encoded_again(minilm_folder: Path, tmp_path: Path) -> None:
    found = []
    for texts, encoded in ((MANY[:20], 20), (MANY, 40), (MANY, 0)):
        with Store(tmp_path, 2**30, warn=pytest.fail) as store:
            encoder = encoder_of(minilm_folder, 0.8, store)
            found.append(encoder.embed(texts))
            assert encoder.counters.encoded_texts == encoded
            assert encoder.lengths(texts) == encoder_of(minilm_folder).lengths(texts)
    assert np.array_equal(found[1], found[2])
    assert np.array_equal(found[0], found[1][:20])
    # Partly warm: other batches.
    assert largest_difference(found[1], encoder_of(minilm_folder, 0.8).embed(MANY)) < NOISE_FLOOR


@pytest.mark.parametrize("change", ["model", "window", "tau", "dtype", "prompt"])
def test_the_store_tells_apart_what_gives_other_embeddings(
    change: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    store = Store(tmp_path, 2**30, warn=pytest.fail)
    encoder_of(make_model("bert"), 0.8, store).embed(MANY)
    folder = make_model("roberta" if change == "model" else "bert")
    other: Any = encoder_of(folder, 0.9 if change == "tau" else 0.8, store)
    if change == "window":
        other.model.max_seq_length = 16
    identity = other.engine._identity
    if change in ("window", "dtype"):
        changed = {"window": 16} if change == "window" else {"dtype": "bfloat16"}
        other.engine._identity = type(identity)(**{**vars(identity), **changed})
    other.embed(MANY, prompt="x" if change == "prompt" else "")
    assert other.counters.encoded_texts == len(MANY)


def test_a_grid_of_roles_costs_the_sum_not_the_product(make_model: Callable[[str], Path]) -> None:
    queries, documents = MANY[:5], MANY[5:]
    engine, _ = engine_of(make_model("bert"))
    encoded = 0
    taus = (1.0, 0.9, 0.8)
    alone = {tau: encoder_of(make_model("bert"), tau).embed(MANY) for tau in taus}
    for query in taus:
        for document in taus:
            policy = parse({"query": query, "document": document})
            for texts, role, tau in ((queries, "query", query), (documents, "document", document)):
                found = engine.embed(Repair(policy), texts, role, "")
                encoded += found.work.texts
                expected = alone[tau][[MANY.index(text) for text in texts]]
                assert largest_difference(found.embeddings, expected) < 1e-4
    assert encoded == 3 * len(queries) + 3 * len(documents)


def test_a_full_memory_changes_no_embedding(minilm_folder: Path) -> None:
    expected = encoder_of(minilm_folder).embed(MANY)
    encoder = encoder_of(minilm_folder, store=memory(20_000))
    for start in range(0, 60, 5):
        part = encoder.embed(MANY[start : start + 5])
        assert largest_difference(part, expected[start : start + 5]) < NOISE_FLOOR


def test_lengths_are_the_tokens_that_are_read(minilm: Any) -> None:
    lengths = minilm.lengths(["hello world", "word " * 1000, "hello world"])
    # [CLS] hello world [SEP]; the model's own window.
    assert lengths == [4, 256, 4]
    minilm.embed(["hello world"])
    assert minilm.lengths(["hello world"]) == [4]
    # The words of a prompt are read as well.
    assert minilm.lengths(["hello world"], "query:") == [6]


def test_little_is_padded(minilm_folder: Path) -> None:
    encoder: Any = encoder_of(minilm_folder)
    # Its lengths and batches with a sixth of its layers.
    transformer = encoder.model[0].auto_model
    transformer.encoder.layer = transformer.encoder.layer[:1]
    encoder.embed([f"{'word ' * (i % 200)} {i}" for i in range(400)])
    waste = 1 - encoder.counters.encoded_tokens / encoder.counters.padded_tokens
    assert waste < 0.03


def test_running_out_of_memory_halves_the_batches_and_loses_no_text(
    minilm_folder: Path,
) -> None:
    expected = encoder_of(minilm_folder).embed(MANY)
    encoder: Any = encoder_of(minilm_folder, 1.0, batch_tokens=4096, lanes=2)
    forward: Forward = encoder.engine._forward
    run, sizes = forward._replicas[0].run, []

    def little_memory(tokenizer: Any, batch: Sequence[Tokens], *how: Any) -> Any:
        sizes.append(sum(one.length for one in batch))
        if sizes[-1] > 150:
            raise torch.OutOfMemoryError
        return run(tokenizer, batch, *how)

    forward._replicas[0].run = little_memory  # type: ignore[method-assign]
    assert largest_difference(encoder.embed(MANY), expected) < NOISE_FLOOR
    assert max(sizes) > 150
    assert forward.batch_tokens < 4096


def test_an_injected_model_goes_on_after_a_batch_that_broke_off(
    make_model: Callable[[str], Path],
) -> None:
    encoder: Any = encoder_of(make_model("bert"), 0.7, batch_tokens=512, lanes=1)
    last = list(encoder.model[0].auto_model.encoder.layer)[-1]
    broken: list[int] = []

    def once(*_: Any) -> None:
        if not broken and active_probe() is None:
            broken.append(1)
            raise torch.OutOfMemoryError

    last.register_forward_pre_hook(once)
    found = encoder.embed(MANY)
    assert broken
    assert largest_difference(found, encoder_of(make_model("bert"), 0.7).embed(MANY)) < 1e-4


def test_a_text_that_does_not_fit_alone_is_an_error(minilm_folder: Path) -> None:
    encoder: Any = encoder_of(minilm_folder)

    def no_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    encoder.engine._forward._replicas[0].run = no_memory
    with pytest.raises(torch.OutOfMemoryError):
        encoder.embed(["a text"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_what_is_no_embedding_is_an_error_that_names_the_text(
    minilm_folder: Path, bad: float
) -> None:
    encoder: Any = encoder_of(minilm_folder)
    replica = encoder.engine._forward._replicas[0]
    run = replica.run

    def broken(tokenizer: Any, batch: Sequence[Tokens], *how: Any) -> Any:
        found, padded = run(tokenizer, batch, *how)
        for row, one in enumerate(batch):
            if one.length == 5:
                found[row] = bad
        return found, padded

    replica.run = broken
    with pytest.raises(EmbeddingError, match=r"text 3 of 4 \(5 tokens\)"):
        encoder.embed(["hello world", "hello world", "hello", "hello big world"])


def test_a_run_that_is_told_to_end_does(make_model: Callable[[str], Path]) -> None:
    engine, _ = engine_of(make_model("bert"), batch_tokens=16, lanes=1)
    threading.Timer(0.05, engine.stop).start()
    texts = [f"{text} {number}" for text in MANY for number in range(100)]
    with pytest.raises(Stopped):
        engine.embed(Repair(parse(1.0)), texts, "document", "")


def test_embeddings_at_a_temperature_are_those_of_the_injected_model(minilm_folder: Path) -> None:
    encoder: Any = encoder_of(minilm_folder, 0.5)
    scaled = encoder.embed(TEXTS)
    encoder.engine.close()
    plain = encoder.model.encode(TEXTS)
    with lcbench.inject(encoder.model, 0.5):
        assert largest_difference(scaled, encoder.model.encode(TEXTS)) < NOISE_FLOOR
    assert largest_difference(scaled, plain) > 0.01


def test_a_large_array_is_mapped_and_one_without_room_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_module, "_IN_MEMORY", 1000)
    array = large_array(100, 10)
    array[:] = np.arange(1000, dtype=np.float32).reshape(100, 10)
    assert array.sum() == 499_500
    assert isinstance(array.base, np.memmap)
    assert not isinstance(large_array(10, 10).base, np.memmap)
    with pytest.raises(StorageError, match="Free some space, or choose another folder: TMPDIR"):
        large_array(2**40, 768)


def test_many_texts_are_asked_for_in_parts_and_come_back_in_place(
    minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*MANY, *reversed(MANY), "", ""]
    expected = encoder_of(minilm_folder).embed(texts)
    monkeypatch.setattr(encoder_module, "_TEXTS_AT_ONCE", 7)
    encoder: Any = encoder_of(minilm_folder)
    assert largest_difference(encoder.embed(texts), expected) < NOISE_FLOOR
    assert encoder.lengths(texts) == encoder_of(minilm_folder).lengths(texts)
    assert encoder.embed([]).shape == (0, 0)


def test_similarities_are_those_of_the_model(minilm: Encoder) -> None:
    model: Any = minilm.model  # type: ignore[attr-defined]
    one, two = minilm.embed(TEXTS[:3]), minilm.embed(TEXTS[3:])
    assert torch.equal(minilm.similarity(one, two), model.similarity(one, two))
    assert torch.equal(minilm.similarity_pairwise(one, two), model.similarity_pairwise(one, two))


# What torch makes of a model for a compiler, without the compiler; and all of it.
@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("inductor", marks=pytest.mark.exhaustive)]
)
@pytest.mark.slow
def test_a_compiled_model_gives_the_same_at_its_temperature(
    backend: str, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    folder = make_model("bert")
    expected = encoder_of(folder, 0.7).embed(TEXTS)
    encoder: Any = encoder_of(folder, 0.7, compiled=True, lanes=1)
    found = encoder.embed(TEXTS)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5
    transformer = encoder.model[0].auto_model
    assert "forward" in vars(transformer)
    encoder.engine.close()
    assert "forward" not in vars(transformer)
    assert np.array_equal(encoder.model.encode(TEXTS), encoder_of(folder).model.encode(TEXTS))


@pytest.mark.parametrize("tau", [1.0, 0.6, {"length": {0: 1.0, 12: 0.6}}], ids=str)
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_without_padding_each_text_attends_to_itself_at_its_temperature(
    architecture: str,
    tau: Any,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flash attention's place is taken by attention text by text, since no GPU is here."""
    import transformers.modeling_flash_attention_utils as flash
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    expected = encoder_of(make_model(architecture), tau).embed(TEXTS)
    seen: list[list[int]] = []

    def by_text(module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
        bounds = given.get("cu_seq_lens_q")
        if bounds is None:
            bounds = torch.tensor([0, query.shape[2]])
        seen.append(bounds.tolist())
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(one[:, :, start:end] for one in (query, key, value)), scale=given["scaling"]
            )
            for start, end in pairwise(bounds)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", by_text)
    available = ((None, by_text, None, None), None)
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *_: available)
    encoder: Any = encoder_of(make_model(architecture))
    module, transformer = encoder.model[0], encoder.model[0].auto_model
    transformer.config._attn_implementation_internal = "flash_attention_2"
    module.unpad_inputs = None
    assert module.can_flatten_inputs
    engine = encoder.engine
    forward = Forward(encoder.model, lanes=2)
    flat = Engine(forward, memory(), engine._identity)
    repair = Repair(parse(tau))
    unique = list(dict.fromkeys(TEXTS))
    # Proven on padded texts, for which this stand-in has no mask.
    monkeypatch.setattr(Injection, "_prove", lambda self, _: setattr(self, "role", "document"))
    work = flat.embed(repair, unique, "document", "")
    rows = work.embeddings[[unique.index(text) for text in TEXTS]]
    assert np.abs(rows - expected).max() / np.abs(expected).max() < 2e-5
    assert work.work.padded == work.work.tokens
    assert any(len(bounds) > 2 for bounds in seen)
    assert module.can_flatten_inputs


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_no_model_gives_is_not_taken_from_the_store(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    texts = ["a text", "another one", "a third"]
    engine, _ = engine_of(make_model("bert"))
    expected = engine.embed(Repair(parse(1.0)), texts, "query", "").embeddings
    read = Shelf.read

    def damaged(shelf: Shelf, keys: Any, out: Any, rows: Any) -> Any:
        found = read(shelf, keys, out, rows)
        out[rows[1]] = value
        return found

    monkeypatch.setattr(Shelf, "read", damaged)
    again = engine.embed(Repair(parse(1.0)), texts, "query", "")
    assert again.work.texts == 1
    assert largest_difference(again.embeddings, expected) < NOISE_FLOOR
    engine.close()
