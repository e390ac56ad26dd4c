"""Short texts that a repair leaves as they are have the embeddings that they have without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import NOISE_FLOOR, encoder_of, largest_difference, memory

from lcbench.encode.encoder import Encoder
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.repair.repair import parse as parse_repair
from lcbench.tempscale.policy import ModelShape

# The tiny models read 48 tokens, and have positions for 64 (RoBERTa for 63).
TEXTS = [f"{'river bank ' * (i % 70)} {i}" for i in range(90)]
WINDOW = 48
SHAPE = ModelShape(layers=2, window=WINDOW, position_bias=False, head_size=8, positions=64)
# Each with the most tokens of a text that it leaves as it is.
SPARED = [
    ({"tau": {"length": {0: 1.0, 20: 0.7}}}, 19),
    ({"tau": {"length": {"logn": 16}}}, 16),
    ({"tau": {"length": {"infoscale": 16}}}, 16),
    ({"tau": {"length": {"yarn": 16}}}, 16),
    ({"attend": {"calibrate": {"basket": 16}}}, 16),
    ({"extend": {"window": 60}}, WINDOW),
    ({"extend": {"rp": 130}}, WINDOW),
    ({"extend": {"rp": 130, "from": 32}}, 32),
    ({"extend": {"pi": 130, "short": "kept"}}, WINDOW),
    ({"extend": {"rp": 130}, "tau": {"length": {"logn": 16}}}, 16),
    ({"chunks": {"mean": 32}, "tau": {"length": {"logn": 16}}}, 16),
]
CHANGED = [
    {"tau": 0.8},
    {"tau": {"length": {0: 0.9, 20: 0.7}}},
    {"tau": {"layers": {1: 0.8}}},
    {"attend": {"attnscale": 0.2}},
    {"gain": {"ffn": 0.9}},
    {"extend": {"pi": 130}},
    {"extend": {"gp": 130}},
    {"extend": {"window": 60, "short": 8}},
]


def repair_of(values: dict[str, Any]) -> Repair:
    return parse_repair(values).resolve(SHAPE)


def under(repair: Repair, plain: Any, store: Any) -> Any:
    """Return an encoder under a repair, with the engine of another."""
    plain.engine._store = store
    return Encoder(plain.engine.at(repair), plain.mteb_model_meta)


@pytest.mark.parametrize(("values", "most"), SPARED)
def test_a_short_text_is_not_encoded_again(
    values: dict[str, Any], most: int, make_model: Callable[[str], Path]
) -> None:
    repair, plain = repair_of(values), encoder_of(make_model("bert"))
    lengths = np.array(under(repair, plain, memory()).lengths(TEXTS))
    assert 0 < (lengths <= most).sum() < len(TEXTS)
    # On its own, without anything that could be taken from a store.
    alone = under(repair, plain, memory()).embed(TEXTS)
    store = memory()
    base = under(NO_REPAIR, plain, store).embed(TEXTS)
    encoder = under(repair, plain, store)
    found = encoder.embed(TEXTS)
    assert encoder.counters.encoded_texts == (lengths > most).sum()
    # To rounding, since texts are in other batches.
    assert largest_difference(found, alone) < NOISE_FLOOR
    short = lengths <= most
    assert np.array_equal(found[short], base[short])
    assert (np.abs(found - base).max(axis=1) > 0)[lengths > max(most, 34)].any()


def test_nor_is_one_where_each_chunk_has_an_embedding(make_model: Callable[[str], Path]) -> None:
    repair = repair_of({"chunks": {"max": 40}, "tau": {"length": {"logn": 16}}})
    engine = encoder_of(make_model("bert")).engine
    lengths, _ = engine.lengths(repair, TEXTS, "", "document")
    engine._store = memory()
    base = engine.embed(NO_REPAIR, TEXTS, "document", "")
    found = engine.embed(repair, TEXTS, "document", "")
    assert found.work.texts == (lengths > 16).sum()
    first = np.cumsum([0, *found.counts[:-1]])
    short = lengths <= 16
    assert np.array_equal(found.embeddings[first[short]], base.embeddings[short])


@pytest.mark.parametrize("values", CHANGED)
def test_a_repair_of_all_texts_takes_none_from_the_baseline(
    values: dict[str, Any], make_model: Callable[[str], Path]
) -> None:
    repair, plain, store = repair_of(values), encoder_of(make_model("bert")), memory()
    assert list(repair.simpler(WINDOW)) == []
    under(NO_REPAIR, plain, store).embed(TEXTS)
    encoder = under(repair, plain, store)
    encoder.embed(TEXTS)
    assert encoder.counters.encoded_texts == len(TEXTS)


def test_what_a_repair_computed_is_never_the_baseline_s(make_model: Callable[[str], Path]) -> None:
    plain, store = encoder_of(make_model("bert")), memory()
    repair = repair_of({"tau": {"length": {"logn": 16}}})
    under(repair, plain, store).embed(TEXTS)
    base = under(NO_REPAIR, plain, store)
    base.embed(TEXTS)
    assert base.counters.encoded_texts == len(TEXTS)


def test_parts_are_left_out_one_by_one() -> None:
    repair = repair_of(
        {
            "extend": {"rp": 130},
            "tau": {"length": {"logn": 64}},
            "chunks": {"mean": 100},
            "correct": "centre",
        }
    )
    found = [(most, simpler.canonical) for most, simpler in repair.simpler(WINDOW)]
    assert found == [(48, "1"), (48, "length_logn_64"), (64, "extend=rp=130")]
    assert list(NO_REPAIR.simpler(WINDOW)) == []
    # Of a model that reads whole texts, nothing is longer than its window.
    assert list(Repair(extension=repair.extension).simpler(None)) == []
