"""Float32 products in half precision: as exact, undone, never beyond their range."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import engine_of
from exactness import ARCHITECTURES, make, states
from torch import nn

from lcbench.encode import split
from lcbench.encode.joint import join_projections, separate_projections
from lcbench.encode.split import (
    SplitProduct,
    exact_products,
    refusal_of,
    restore_products,
    split_products,
    split_states,
)
from lcbench.repair.repair import Repair
from lcbench.tempscale.policy import parse

TEXTS = ["a text to embed", "and one more", "attention divides logits " * 5, "long " * 60]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", [1e-3, 1.0, 3e3])
@pytest.mark.parametrize("weight_size", [1e-5, 0.03, 50.0])
def test_a_split_product_is_about_as_exact_as_float32(size: float, weight_size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    states = size * torch.randn(3, 40, 256, generator=generator)
    weight = weight_size * torch.randn(96, 256, generator=generator)
    bias = weight_size * size * torch.randn(96, generator=generator)
    exact = nn.functional.linear(states.double(), weight.double(), bias.double())
    for one in (bias, None):
        expected = exact if one is not None else exact - bias.double()
        found = SplitProduct(weight, one)(states)
        assert found.shape == (3, 40, 96)
        assert found.dtype == torch.float32
        assert error(found, expected) < 3e-7
        # One product in half precision is a thousand times as far off.
        assert error(states.half().float() @ weight.half().float().T, exact) > 1e-4


def test_large_and_small_states_and_weights_of_one_product_keep_their_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(64, 128, generator=generator)
    weight = torch.randn(32, 128, generator=generator)
    # Columns between a hundredth and a hundred.
    spread = torch.logspace(-2, 2, 128)
    expected = (states * spread).double() @ (weight / spread).double().T
    plain = (states * spread) @ (weight / spread).T
    found = SplitProduct(weight / spread, None)(states * spread)
    assert error(found, expected) < 2 * error(plain, expected)


def test_parts_add_up_to_what_was_split() -> None:
    states = torch.tensor([[1.0, -0.1, 3e-5, 1234.567, 65000.0, 0.0]])
    low, high, again = split_states(states).split(6, dim=1)
    assert torch.equal(high, again)
    assert torch.equal(high, states.half())
    assert (high.float() + low.float() / 2**11 - states).abs().max() / 65000 < 2**-22
    difference = (high.float() + low.float() / 2**11 - states).abs()
    assert torch.all(difference <= states.abs() * 2**-21)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_what_it_gives_in_float32(architecture: str) -> None:
    model = make(architecture)
    before = states(model)
    changed = split_products(model)
    # Six products of each of two layers, in one or another way of counting.
    assert len(changed) >= 4
    found = states(model)
    assert not torch.equal(found, before)
    assert float((found - before).abs().max() / before.abs().max()) < 2e-6
    with exact_products():
        assert torch.equal(states(model), before)
    restore_products(changed)
    assert torch.equal(states(model), before)


def test_joint_projections_are_split_too() -> None:
    model = make("BERT")
    before = states(model)
    joined = join_projections(model, SplitProduct)
    assert joined
    found = states(model)
    assert not torch.equal(found, before)
    assert float((found - before).abs().max() / before.abs().max()) < 2e-6
    rest = split_products(model, set(joined))
    assert not set(rest) & set(joined)
    restore_products(rest)
    separate_projections(joined)
    assert torch.equal(states(model), before)


@pytest.mark.parametrize("joint", [False, True])
def test_embeddings_are_the_same_at_every_policy(
    joint: bool, make_model: Callable[[str], Path]
) -> None:
    folder = make_model("bert")
    plain, _ = engine_of(folder, lanes=2)
    engine, (_, model) = engine_of(folder, lanes=2, split=True, joint=joint)
    assert engine.arithmetic()["float32_products"] == "fp16x3"
    assert plain.arithmetic()["float32_products"] == "ieee"
    for tau in (1.0, 0.7, {"layers": {1: 0.7}}, {"length": {0: 0.9, 12: 0.6}}):
        found = engine.embed(Repair(parse(tau)), TEXTS, None, "").embeddings
        expected = plain.embed(Repair(parse(tau)), TEXTS, None, "").embeddings
        assert not np.array_equal(found, expected)
        assert np.abs(found - expected).max() / np.abs(expected).max() < 3e-6
    for one in (engine, plain):
        one.close()
    assert np.array_equal(model.encode(TEXTS), plain._forward._model.encode(TEXTS))


def test_texts_beyond_the_range_of_half_precision_are_computed_in_float32(
    make_model: Callable[[str], Path],
) -> None:
    folder = make_model("bert")
    plain, (_, model) = engine_of(folder)
    engine, (_, other) = engine_of(folder, split=True)
    # The states of one word are far beyond what fp16 can hold, and the next LayerNorm scales them.
    word = model.tokenizer.encode("long", add_special_tokens=False)[0]
    for one in (model, other):
        transformer = one[0].auto_model
        with torch.no_grad():
            transformer.embeddings.LayerNorm.weight[0] = 1e6
            transformer.embeddings.word_embeddings.weight[word, 0] = 30.0
    expected = plain.embed(Repair(parse(0.8)), TEXTS, None, "").embeddings
    found = engine.embed(Repair(parse(0.8)), TEXTS, None, "").embeddings
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    for one in (engine, plain):
        one.close()


def test_a_model_that_it_does_not_suit_says_why(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, (_, model) = engine_of(make_model("bert"))
    engine.close()
    assert refusal_of(model) is None
    monkeypatch.setattr(split, "_TOLERANCE", 1e-12)
    assert "would differ by" in str(refusal_of(model))
    with torch.no_grad():
        model[0].auto_model.embeddings.LayerNorm.weight.fill_(1e6)
    assert refusal_of(model) == "its states exceed the range of half precision (65,504)."
    assert refusal_of(model.to(torch.bfloat16)) == "it has no layers that multiply in float32."


def test_on_a_gpu_the_product_sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class OnGpu:
        is_cuda = True

    def mm(left: Any, right: Any, **options: Any) -> str:
        asked.append((left, right, options))
        return "product"

    monkeypatch.setattr(torch, "mm", mm)
    left, right = OnGpu(), OnGpu()
    assert split._multiply(left, right) == "product"  # type: ignore[arg-type, comparison-overlap]
    assert asked == [(left, right, {"out_dtype": torch.float32})]
