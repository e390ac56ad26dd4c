"""Chunking as it is written, named and refused."""

import json
from typing import Any

import pytest

from lcbench.errors import RequestError
from lcbench.repair.chunks import Chunks, parse
from lcbench.repair.repair import Repair, label_of, parse_all, parts_of
from lcbench.repair.repair import parse as parse_repair
from lcbench.tempscale.policy import ModelShape

SHAPE = ModelShape(layers=6, window=256, position_bias=False)


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("mean", "mean"),
        ({"mean": None}, "mean"),
        ({"mean": 128}, "mean=128"),
        ({"mean": {"size": 128, "overlap": 0, "normalise": "after"}}, "mean=128"),
        ({"mean": {"size": 128, "overlap": 16, "last": "rest"}}, "mean=128,overlap=16,last=rest"),
        (
            {"mean": {"normalise": "before", "most": 4096, "queries": True}},
            "mean,normalise=before,most=4096,queries=true",
        ),
        ({"late": 64}, "late=64"),
        ({"first": 64}, "first=64"),
        ({"max": {"size": 64, "overlap": 8}}, "max=64,overlap=8"),
    ],
)
def test_a_chunking_has_one_name_and_can_be_written_again(value: Any, canonical: str) -> None:
    chunks = parse(value)
    assert chunks.canonical == canonical
    assert parse(json.loads(json.dumps(chunks.written()))) == chunks
    repair = parse_repair({"tau": 0.8, "chunks": value, "correct": "centre"})
    assert parts_of(repair.canonical) == {"tau": "0.8", "chunks": canonical, "correct": "centre"}
    assert label_of(repair.canonical) == f"τ = 0.8 + chunks {canonical} + centre"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("men", "men is not a chunking. Did you mean mean?"),
        ({"mean": 128, "max": 128}, "one chunking at a time, mean or max"),
        (3, "chunks=3 is not a chunking. chunks= takes mean, {mean: 256}"),
        ({}, "is not a chunking"),
        ({"mean": 0}, "size is not a whole number of at least 1"),
        ({"mean": True}, "size is not a whole number of at least 1"),
        ({"mean": {"overlap": -1}}, "overlap is not a whole number of at least 0"),
        ({"mean": {"size": 64, "overlap": 64}}, "chunks of 64 tokens cannot overlap by 64"),
        ({"mean": {"size": 64, "most": 32}}, "most is below the 64 tokens of one"),
        ({"mean": {"last": "short"}}, "last is full or rest"),
        ({"mean": {"normalise": True}}, "normalise is after or before"),
        ({"mean": {"queries": "yes"}}, "queries is true or false"),
        ({"mean": {"sise": 64}}, "Did you mean size?"),
        ({"max": {"normalise": "before"}}, "max takes size, overlap, last, most, not normalise"),
        ({"late": {"size": 8, "overlap": 1}}, "late takes size, normalise, queries, not overlap"),
        ("late", "late needs the tokens of a chunk"),
        ("first", "first needs the tokens of a chunk"),
        ({"first": {"size": 8, "most": 9}}, "first takes size, queries, not most"),
    ],
)
def test_what_is_no_chunking_is_refused_with_what_is(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(value)
    assert message in str(refused.value)


def test_chunks_are_of_the_window_if_no_size_is_named_and_no_longer() -> None:
    assert parse("mean").resolve(SHAPE) == Chunks("mean", 256)
    assert parse({"max": 256}).resolve(SHAPE) == Chunks("max", 256)
    with pytest.raises(RequestError, match="a chunk of 257 tokens is longer than the window of"):
        parse({"mean": 257}).resolve(SHAPE)
    with pytest.raises(RequestError, match="cannot overlap by 256"):
        parse({"mean": {"overlap": 256}}).resolve(SHAPE)
    without = ModelShape(layers=6, window=None, position_bias=False)
    assert parse({"mean": 512}).resolve(without) == Chunks("mean", 512)
    with pytest.raises(RequestError, match="this model has no window"):
        parse("mean").resolve(without)


@pytest.mark.parametrize(
    "value",
    [{"first": 256}, {"late": 256}, {"mean": {"size": 256, "most": 256}}, {"mean": {"most": 256}}],
)
def test_one_chunk_that_fills_the_window_is_no_chunking(value: Any) -> None:
    assert parse_repair({"chunks": value}).resolve(SHAPE) == Repair()


def test_queries_are_read_in_chunks_only_if_that_is_asked_for() -> None:
    repair = parse_repair({"tau": 0.8, "chunks": {"mean": 64}})
    assert repair.for_role("query") == parse_repair({"tau": 0.8})
    assert repair.for_role("document") == repair
    assert repair.depends_on_role
    asked = parse_repair({"chunks": {"mean": {"size": 64, "queries": True}}})
    assert asked.for_role("query") == asked
    assert not asked.depends_on_role


def test_chunking_is_combined_with_temperatures_and_corrections() -> None:
    found = parse_all({"tau": [1.0, 0.9], "chunks": [None, "mean"], "correct": "centre"})
    assert [str(one) for one in found] == [
        "τ = 1",
        "centre",
        "chunks mean + centre",
        "τ = 0.9 + centre",
        "τ = 0.9 + chunks mean + centre",
    ]
    last = found[-1]
    assert last.encoding == parse_repair({"tau": 0.9, "chunks": "mean"})
    assert last.of_model == Repair(last.policy)


def test_means_by_length_need_one_embedding_a_text() -> None:
    with pytest.raises(
        RequestError, match=r"correct={centre: {bins: 5}} with chunks={max: 64}: means"
    ):
        parse_repair({"chunks": {"max": 64}, "correct": {"centre": {"bins": 5}}})
