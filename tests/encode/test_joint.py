"""Queries, keys and values in one product: the same numbers, and undone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import engine_of
from exactness import ARCHITECTURES, make, states
from torch.utils._python_dispatch import TorchDispatchMode

from lcbench.encode.joint import join_projections, separate_projections
from lcbench.repair.repair import Repair
from lcbench.tempscale.policy import parse

TEXTS = ["a text to embed", "and one more", "attention divides logits " * 5, "long " * 60]
# Those whose projections are one product already, or have names of their own.
ALONE = {"ModernBERT", "DeBERTa-v2", "DeBERTa-v3"}


class Products(TorchDispatchMode):
    """Counts matrix products with weights."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func.__name__.partition(".")[0] in ("addmm", "mm", "linear")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_product_gives_what_three_give(architecture: str) -> None:
    model = make(architecture)
    before = states(model)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    with Products() as apart:
        states(model)
    changed = join_projections(model)
    with Products() as together:
        joint = states(model)
    assert float((joint - before).abs().max() / before.abs().max()) < 1e-6
    layers = len(changed) // 3
    assert layers == (0 if architecture in ALONE else 2)
    # Two products fewer in each layer.
    assert apart.count - together.count == 2 * layers
    # The weights keep their names and values, and take no more memory than before.
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[name], one) for name, one in model.state_dict().items())
    separate_projections(changed)
    assert torch.equal(states(model), before)
    assert len({one.weight.untyped_storage().data_ptr() for one in changed}) == len(changed)


def test_projections_of_different_states_are_not_mixed_up() -> None:
    layer = torch.nn.Module()
    layer.query, layer.key, layer.value = (torch.nn.Linear(4, 4) for _ in range(3))
    one, other = torch.randn(2, 3, 4)
    order = [("query", one), ("key", other), ("value", one), ("key", one), ("value", other)]
    expected = [getattr(layer, name)(state) for name, state in order]
    assert len(join_projections(layer)) == 3
    for wanted, (name, state) in zip(expected, order, strict=True):
        assert torch.allclose(getattr(layer, name)(state), wanted, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_embeddings_are_the_same_at_every_policy(
    compiled: bool, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **given: real(f, backend="eager", **given))
    folder = make_model("bert")
    plain, _ = engine_of(folder, lanes=2)
    engine, (_, model) = engine_of(folder, lanes=2, joint=True, compiled=compiled)
    assert engine.arithmetic()["fused_qkv"] is True
    assert "fused_qkv" not in plain.arithmetic()
    before = plain.embed(Repair(parse(1.0)), TEXTS, None, "").embeddings
    for tau in (1.0, 0.7, {"layers": {1: 0.7}}, {"length": {0: 0.9, 12: 0.6}}):
        found = engine.embed(Repair(parse(tau)), TEXTS, None, "").embeddings
        expected = plain.embed(Repair(parse(tau)), TEXTS, None, "").embeddings
        assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-6
    for one in (engine, plain):
        one.close()
    attention = model[0].auto_model.encoder.layer[0].attention.self
    assert "forward" not in vars(attention.query)
    assert np.array_equal(model.encode(TEXTS), plain._forward._model.encode(TEXTS))
    assert np.abs(found - before).max() > 1e-3
