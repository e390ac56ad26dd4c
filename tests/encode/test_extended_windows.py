"""The encoder under extensions: one engine reads texts with several windows of one model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, encoder_of, engine_of, largest_difference, memory
from numpy.typing import NDArray

from lcbench.encode import forward
from lcbench.encode.encoder import Encoder
from lcbench.encode.tokens import Tokenizer
from lcbench.hub.windows import set_window
from lcbench.repair.extension import Extension
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results.provenance import model_facts, model_meta
from lcbench.tempscale.policy import parse

# Of the tiny models: they read 48 tokens, and have positions for 64 (RoBERTa for 63).
TEXTS = [f"{'river bank ' * (i % 70)} {i}" for i in range(120)]
LONG = Repair(extension=Extension("rp", 130))
REPAIRS = [
    NO_REPAIR,
    LONG,
    Repair(extension=Extension("window", 60)),
    Repair(extension=Extension("window", 60, step=8)),
    Repair(extension=Extension("pi", 100, kept=True)),
    Repair(parse(0.7), extension=Extension("gp", 130)),
    Repair(parse({"length": {0: 1.0, 90: 0.5}}), extension=Extension("pi", 130)),
]


def under(repair: Repair, engine: Any, located: Any, model: Any) -> Encoder:
    return Encoder(engine.at(repair), model_meta(model_facts(located, model), repair))


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_one_engine_serves_several_windows(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    """Whatever was encoded before, and under which repair, the embeddings are the same."""
    found: list[dict[Repair, NDArray[Any]]] = []
    for order in (REPAIRS, [LONG, *reversed(REPAIRS)]):
        engine, (located, model) = engine_of(make_model(architecture))
        encoders = {repair: under(repair, engine, located, model) for repair in order}
        found.append({repair: encoder.embed(TEXTS) for repair, encoder in encoders.items()})
    first, second = found
    for repair in REPAIRS:
        assert largest_difference(first[repair], second[repair]) < NOISE_FLOOR
        assert max(encoders[repair].lengths(TEXTS)) == repair.window(48)
    assert model.max_seq_length == 48
    # They differ where there is more to read, and nowhere else where short texts are kept.
    long = np.array(encoders[LONG].lengths(TEXTS)) > 48
    differ = np.abs(first[LONG] - first[NO_REPAIR]).max(axis=1) > 1e-4
    assert np.array_equal(differ, long)


def test_the_embeddings_are_those_of_a_model_with_a_longer_table(
    make_model: Callable[[str], Path],
) -> None:
    encoder: Any = encoder_of(make_model("bert"))
    found = Encoder(encoder.engine.at(LONG), encoder.mteb_model_meta).embed(TEXTS)
    _, (_, model) = engine_of(make_model("bert"))
    inner = model[0].auto_model
    table = inner.embeddings.position_embeddings
    rows = torch.arange(130) % 64
    table.weight = torch.nn.Parameter(table.weight[rows])
    inner.embeddings.register_buffer("position_ids", torch.arange(130)[None], persistent=False)
    zeros = torch.zeros(1, 130, dtype=torch.long)
    inner.embeddings.register_buffer("token_type_ids", zeros, persistent=False)
    set_window(model, 130)
    expected = model.encode(TEXTS, batch_size=7)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5


def test_batches_are_planned_for_what_a_repair_reads(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each, and with the model's own window again after it."""
    asked: list[int | None] = []

    def budget(model: Any, lanes: int, window: int | None) -> int:
        asked.append(window)
        return 256 if window == 48 else 512

    monkeypatch.setattr(forward, "batch_budget", budget)
    engine, (located, model) = engine_of(make_model("bert"))
    planned = []
    for repair in (NO_REPAIR, LONG, Repair(parse(0.7)), LONG):
        under(repair, engine, located, model).embed(TEXTS[60:63])
        engine.flush()
        planned.append(engine.arithmetic()["batch_tokens"])
    assert asked == [48, 130]
    # Under LONG a second time all of the texts were in the store.
    assert planned == [256, 512, 256, 256]


def test_the_store_keeps_extensions_apart(make_model: Callable[[str], Path]) -> None:
    store, folder = memory(), make_model("bert")
    _, (located, model) = engine_of(folder)
    longer = sum(one.length > 48 for one in Tokenizer(model).at(130).tokenize(TEXTS, ""))
    assert 0 < longer < 120
    for repair, encoded in ((NO_REPAIR, 120), (LONG, longer), (NO_REPAIR, 0), (LONG, 0)):
        engine, (located, model) = engine_of(folder, store)
        encoder = under(repair, engine, located, model)
        encoder.embed(TEXTS)
        assert encoder.counters.encoded_texts == encoded
    # A temperature that is 1 up to the window is another one beyond it.
    logn = Repair(parse({"length": {"logn": 64}}))
    shape = located.shape
    assert logn.resolve(shape) == NO_REPAIR
    assert Repair(logn.policy, extension=LONG.extension).resolve(shape).policy == logn.policy


@pytest.mark.parametrize("plain", [True, False])
def test_a_tokenizer_reads_another_number_of_tokens(
    plain: bool, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where texts go through the model's own preprocessing, whose window stays as it was."""
    _, (_, model) = engine_of(make_model("bert"))
    if not plain:
        monkeypatch.setattr(Tokenizer, "_encode", None)
    base = Tokenizer(model)
    longer = base.at(130)
    of_longer, of_base = longer.tokenize(TEXTS, "query: "), base.tokenize(TEXTS, "query: ")
    assert (longer.window, base.window, model.max_seq_length) == (130, 48, 48)
    assert max(one.length for one in of_longer) == 130
    assert longer.width(129, 8) == 130
    for one, other in zip(of_longer, of_base, strict=True):
        assert other.length == min(one.length, 48)
        assert np.array_equal(one.ids[: other.length - 1], other.ids[:-1])


def test_lanes_leave_the_window_of_the_model_alone(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find out what a model reads at another window changes it for a moment."""
    engine, (_, model) = engine_of(make_model("bert"), batch_tokens=256, lanes=4)
    asked: list[bool] = []
    preprocess = Tokenizer._preprocess

    def watched(self: Tokenizer, *arguments: Any) -> Any:
        asked.append(engine._tokenizing.locked())
        return preprocess(self, *arguments)

    monkeypatch.setattr(Tokenizer, "_preprocess", watched)
    engine.embed(LONG, TEXTS, None, "query: ")
    engine.embed(NO_REPAIR, TEXTS, None, "query: ")
    assert asked
    assert all(asked)
    assert model.max_seq_length == 48


def test_requests_under_other_windows_may_wait_for_each_other(
    make_model: Callable[[str], Path],
) -> None:
    """Several are on their way at once: the next is tokenised while one is encoded."""
    engine, (located, model) = engine_of(make_model("bert"))
    parts = [TEXTS[i::4] for i in range(4)]
    waiting = [
        (repair, part, engine.submit(repair, part, None, ""))
        for part in parts
        for repair in REPAIRS[:4]
    ]
    found: dict[Repair, list[NDArray[Any]]] = {}
    for repair, _, future in waiting:
        found.setdefault(repair, []).append(future.result().embeddings)
    fresh, (located, model) = engine_of(make_model("bert"))
    for repair, rows in found.items():
        encoder = under(repair, fresh, located, model)
        expected: Sequence[Any] = [encoder.embed(part) for part in parts]
        assert largest_difference(np.concatenate(rows), np.concatenate(expected)) < 1e-5
