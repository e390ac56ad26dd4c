"""Changes of attention as parts of a repair: how they are written, and what they do to a model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, engine_of, largest_difference

from lcbench.errors import InjectionError, RequestError
from lcbench.hub.shapes import shape_in_files
from lcbench.repair.attend import CalibratedAttention, ScaledAttention, _rows, parse
from lcbench.repair.extension import Extension
from lcbench.repair.repair import NO_REPAIR, Repair, canonical_of_folder, parse_all
from lcbench.tempscale.policy import ModelShape
from lcbench.tempscale.policy import parse as parse_policy
from lcbench.tempscale.softmax import computes_own_softmax

SHAPE = ModelShape(layers=12, window=512, position_bias=False)
WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
# Of 5, 14 and 40 tokens: less than a basket of 8, a full one and a shorter one, and several.
TEXTS = [" ".join((WORDS * 4)[:length]) for length in (3, 12, 38)]
SCALED = ScaledAttention(0.4)
CALIBRATED = CalibratedAttention(basket=8, strength=0.5, first_layer=0)


@pytest.mark.parametrize(
    ("value", "part", "canonical"),
    [
        ({"attnscale": 0.20}, ScaledAttention(0.2), "attnscale=0.2"),
        ({"attnscale": "-1"}, ScaledAttention(-1.0), "attnscale=-1"),
        ("calibrate", CalibratedAttention(), "calibrate=128,strength=0.5"),
        ({"calibrate": 64}, CalibratedAttention(64), "calibrate=64,strength=0.5"),
        (
            {"calibrate": {"strength": 1, "first_layer": 0}},
            CalibratedAttention(128, 1.0, 0),
            "calibrate=128,strength=1,first_layer=0",
        ),
    ],
)
def test_a_change_has_one_name_however_it_was_written(
    value: object, part: Any, canonical: str
) -> None:
    found = parse(value)
    assert (found, found.canonical) == (part, canonical)
    assert parse(found.written()) == part
    repair = Repair(parse_policy(0.9), attention=part)
    assert repair.canonical == f"0.9 + attend={canonical}"
    assert canonical_of_folder(f"attend_{canonical}__tau_0.9") == repair.canonical


def test_what_changes_nothing_is_the_baseline() -> None:
    for value in ({"attnscale": 0.0}, {"attnscale": -0.0}, {"calibrate": {"strength": 0}}):
        (_, repair) = parse_all({"attend": value})
        assert repair.resolve(SHAPE) == NO_REPAIR


def test_calibration_is_of_the_later_half_of_the_layers() -> None:
    assert CalibratedAttention().resolve(SHAPE) == CalibratedAttention(first_layer=6)
    assert CalibratedAttention(first_layer=11).resolve(SHAPE) == CalibratedAttention(first_layer=11)
    with pytest.raises(RequestError, match="first_layer=12, but the model has the layers 0 to 11"):
        CalibratedAttention(first_layer=12).resolve(SHAPE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.2, "attend=0.2 is not a change of attention. Use {attnscale: 0.2}, calibrate"),
        ({}, "attend={} is not a change of attention"),
        ("attnscale", "attend=attnscale: attnscale needs w: {attnscale: 0.2}"),
        ({"attnscal": 1}, r"attend={attnscal: 1}: attnscal is .* Did you mean attnscale\?"),
        ({"attnscale": "x"}, "attend={attnscale: x}: w is a number, not x"),
        ({"attnscale": float("inf")}, "w is a finite number, not inf"),
        ({"attnscale": 10**400}, "w is a finite number, not 1000"),
        ({"attnscale": True}, "w is a finite number, not true"),
        (
            {"attnscale": 1, "calibrate": 8},
            "one change of attention at a time, attnscale or cal",
        ),
        ({"calibrate": 0}, "basket is a number of tokens of at least 1, not 0"),
        ({"calibrate": {"basket": 1.5}}, "basket is a number of tokens of at least 1, not 1.5"),
        ({"calibrate": {"strength": 1.5}}, r"strength is in \[0, 1\]"),
        ({"calibrate": {"strength": -0.1}}, r"strength is in \[0, 1\]"),
        ({"calibrate": {"first_layer": -1}}, "first_layer is the number of a layer, from 0"),
        ({"calibrate": {"layers": 6}}, "calibrate takes basket, strength, first_layer, not layers"),
    ],
)
def test_what_is_no_change_is_refused(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(value)


@pytest.mark.parametrize("attention", [SCALED, CALIBRATED])
def test_an_embedding_is_the_same_alone_in_a_batch_and_in_any_order(
    make_model: Callable[[str], Path], attention: Any
) -> None:
    repair = Repair(attention=attention)
    one_by_one, _ = engine_of(make_model("bert"), batch_tokens=1)
    alone = one_by_one.embed(repair, TEXTS, None, "").embeddings
    plain = one_by_one.embed(NO_REPAIR, TEXTS, None, "").embeddings
    assert largest_difference(alone, plain) > 1e-3
    engine, _ = engine_of(make_model("bert"))
    together = engine.embed(repair, TEXTS, None, "").embeddings
    assert largest_difference(together, alone) <= NOISE_FLOOR
    reverse, _ = engine_of(make_model("bert"))
    others = reverse.embed(repair, [*TEXTS[::-1], "another text"], None, "").embeddings
    assert largest_difference(others[2::-1], alone) <= NOISE_FLOOR


def test_texts_of_one_basket_are_the_baseline_to_the_bit(
    make_model: Callable[[str], Path],
) -> None:
    engine, _ = engine_of(make_model("bert"))
    plain = engine.embed(NO_REPAIR, TEXTS, None, "").embeddings
    for basket, unchanged in ((8, 1), (14, 2), (40, 3)):
        calibrated = CalibratedAttention(basket, 1.0, 0)
        found = engine.embed(Repair(attention=calibrated), TEXTS, None, "").embeddings
        assert np.array_equal(found[:unchanged], plain[:unchanged])
        assert all(np.abs(found - plain).max(axis=1)[unchanged:] > 1e-4)


def test_the_model_is_restored_to_the_bit(make_model: Callable[[str], Path]) -> None:
    _, (_, model) = engine_of(make_model("bert"))
    before, weights = model.encode(TEXTS), {k: v.clone() for k, v in model.state_dict().items()}
    for attention in (SCALED, CALIBRATED):
        applied = attention.apply(model)
        assert not np.array_equal(model.encode(TEXTS), before)
        applied.remove()
        assert np.array_equal(model.encode(TEXTS), before)
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())


def test_a_basket_as_large_as_the_window_is_refused() -> None:
    repair = Repair(attention=CalibratedAttention(512))
    with pytest.raises(RequestError, match="the model reads at most 512 tokens of a text, so no"):
        repair.resolve(SHAPE)
    # What is read under an extension counts.
    longer = replace(repair, extension=Extension("window", 1024))
    assert longer.resolve(replace(SHAPE, positions=1024)).attention is not None


@pytest.mark.parametrize("attention", [SCALED, CALIBRATED])
def test_a_model_with_its_own_softmax_is_refused_by_its_files(attention: Any) -> None:
    """So that it is left out of a sweep, instead of failing in each cell."""
    with pytest.raises(RequestError, match=r"attend={.*: the model computes its own softmax"):
        Repair(attention=attention).resolve(replace(SHAPE, own_softmax=True))


@pytest.mark.parametrize("architecture", ["bert", "t5", "mpnet", "deberta"])
def test_files_and_layers_agree_on_the_softmax(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    folder = make_model(architecture)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = shape_in_files("m", "r", folder, config, None, None)
    _, (_, model) = engine_of(folder)
    assert shape.own_softmax is any(computes_own_softmax(one) for one in model.modules())
    assert shape.own_softmax is (architecture in ("mpnet", "deberta"))


def test_the_proof_names_the_changed_layers(make_model: Callable[[str], Path]) -> None:
    _, (_, model) = engine_of(make_model("bert"))
    applied = CalibratedAttention(8).apply(model)
    assert applied.proof["layers"] == ["encoder.layer.1.attention.self"]
    assert applied.proof["largest_error"] < 1e-5
    applied.remove()


def test_other_architectures_are_refused_by_name(make_model: Callable[[str], Path]) -> None:
    for architecture in ("mpnet", "deberta"):
        _, (_, model) = engine_of(make_model(architecture))
        name = type(model[0].auto_model).__name__
        with pytest.raises(InjectionError, match=f"attend={{attnscale: 0.4}}: {name} computes its"):
            SCALED.apply(model)


@pytest.mark.parametrize(
    ("modes", "include_prompt", "rows"),
    [
        ("mean", True, "all"),
        ("cls", True, "first"),
        ("lasttoken", True, "last"),
        (("cls", "mean"), True, "all"),
        ("cls", False, "all"),
    ],
)
def test_only_the_pooled_token_is_calibrated(modes: Any, include_prompt: bool, rows: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(8, modes, include_prompt=include_prompt)
    assert _rows(torch.nn.Sequential(pooling)) == rows  # type: ignore[arg-type]
