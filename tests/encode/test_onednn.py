"""Products by oneDNN on a CPU: the same but for rounding, undone, refused where they differ."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, engine_of
from exactness import ARCHITECTURES, make, states
from torch import nn
from transformers import DistilBertConfig, DistilBertModel

from lcbench.encode import onednn
from lcbench.encode.forward import Forward
from lcbench.encode.onednn import Product, use_onednn
from lcbench.encode.split import restore_products
from lcbench.repair.repair import Repair
from lcbench.tempscale.policy import parse

TEXTS = ["a text to embed", "and one more", "attention divides logits " * 5, "long " * 60]

pytestmark = pytest.mark.skipif(
    not onednn.is_used(torch.zeros(1)), reason="torch has no oneDNN for this processor"
)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 7, 40), (700, 40), (0, 40)])
def test_a_product_is_that_of_torch(shape: tuple[int, ...], is_copied: bool, gelu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(*shape, generator=generator)
    weight = torch.randn(96, 40, generator=generator)
    for bias in (torch.randn(96, generator=generator), None):
        expected = nn.functional.linear(states, weight, bias)
        if gelu:
            expected = nn.functional.gelu(expected)
        with torch.inference_mode():
            found = Product(weight, bias, gelu=gelu, is_copied=is_copied)(states)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_a_larger_tensor_and_other_dtypes() -> None:
    product = Product(torch.eye(8), None)
    rows = torch.arange(96.0).reshape(2, 6, 8)[:, ::2]
    assert torch.equal(product(rows), rows)
    product = Product(torch.eye(8, dtype=torch.float64), None, is_copied=False)
    assert product(rows.double()).dtype == torch.float64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_same(architecture: str) -> None:
    model = make(architecture)
    before = states(model)
    changed = use_onednn(model)
    linears = [module for module in changed if isinstance(module, nn.Linear)]
    assert len(linears) >= 4
    found = states(model)
    assert float((found - before).abs().max() / before.abs().max()) < 2e-6
    restore_products(changed)
    assert torch.equal(states(model), before)


def test_gelu_is_computed_with_the_product_that_it_follows() -> None:
    model = make("BERT")
    changed = use_onednn(model)
    activations = [module for module in changed if not isinstance(module, nn.Linear)]
    assert len(activations) == model.config.num_hidden_layers
    small = DistilBertConfig(dim=32, hidden_dim=64, n_heads=4, n_layers=2, vocab_size=50)
    other = DistilBertModel(small).eval()
    with torch.inference_mode():
        before = other(torch.arange(12)[None]).last_hidden_state
        changed = use_onednn(other)
        found = other(torch.arange(12)[None]).last_hidden_state
    assert sum(not isinstance(module, nn.Linear) for module in changed) == 2
    assert float((found - before).abs().max()) < 1e-5


def test_an_activation_of_another_kind_or_of_two_layers_stays() -> None:
    model = make("BERT")
    first, second = (layer.intermediate for layer in model.encoder.layer[:2])
    first.intermediate_act_fn = nn.ReLU()
    assert len(onednn._activations(model)) == model.config.num_hidden_layers - 1
    first.intermediate_act_fn = second.intermediate_act_fn
    assert len(onednn._activations(model)) == model.config.num_hidden_layers - 2
    before = states(model)
    changed = use_onednn(model)
    assert float((states(model) - before).abs().max()) < 1e-5
    assert first.dense in changed
    assert first.intermediate_act_fn not in changed


def test_a_product_that_differs_leaves_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("BERT")
    before = states(model)
    # Wrong in the last shape that comes: those before it are restored.
    real = onednn.onednn_linear
    width = model.config.intermediate_size

    def wrong(states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        factor = 1.001 if states.shape[-1] == width else 1.0
        return factor * real(states, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(onednn, "onednn_linear", wrong)
    assert use_onednn(model) == []
    assert torch.equal(states(model), before)

    def missing(*args: object, **kwargs: object) -> torch.Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(onednn, "onednn_linear", missing)
    assert use_onednn(model) == []
    assert torch.equal(states(model), before)


def test_large_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("BERT")
    copied: list[torch.Tensor] = []
    monkeypatch.setattr(onednn, "onednn_layout", lambda weight: copied.append(weight) or weight)
    before = states(model)
    restore_products(use_onednn(model))
    assert copied
    copied.clear()
    monkeypatch.setattr(onednn, "_LARGEST_COPY", 100)
    changed = use_onednn(model)
    assert changed
    assert not copied
    assert float((states(model) - before).abs().max()) < 1e-5


def test_half_precision_and_other_modules_stay() -> None:
    model = make("BERT").to(torch.bfloat16)
    assert use_onednn(model) == []
    assert use_onednn(nn.Sequential(nn.Conv1d(3, 4, 1))) == []


@pytest.mark.parametrize("joint", [False, True])
def test_embeddings_are_the_same_at_every_policy(
    joint: bool, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model("bert")
    with monkeypatch.context() as patch:
        patch.setattr("lcbench.encode.replica.use_onednn", lambda *arguments: [])
        plain, _ = engine_of(folder, lanes=2)
    engine, (_, model) = engine_of(folder, lanes=2, joint=joint)
    assert engine.arithmetic()["onednn"] is True
    assert "onednn" not in plain.arithmetic()
    for tau in (1.0, 0.5, {"layers": {0: 0.7}}, {"length": {0: 0.9, 12: 0.6}}):
        found, expected = (
            one.embed(Repair(parse(tau)), TEXTS, None, "").embeddings for one in (engine, plain)
        )
        assert np.abs(found - expected).max() < NOISE_FLOOR
    engine.close()
    assert not any("forward" in vars(module) for module in model.modules())


def test_not_in_compiled_code_nor_with_split_products(make_model: Callable[[str], Path]) -> None:
    engine, (_, model) = engine_of(make_model("bert"))
    engine.close()
    for options in ({"compiled": True}, {"split": True}):
        forward = Forward(model, **options)
        assert "onednn" not in forward.arithmetic()
        forward.close()
