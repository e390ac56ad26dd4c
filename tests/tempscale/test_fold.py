"""A temperature in weights is the injected one; what weights cannot say is refused."""

import copy
from typing import Any

import pytest
import torch
from exactness import ARCHITECTURES, BY_HEAD, EVEN, heads_file, make, states
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import lcbench
from lcbench.errors import InjectionError, RequestError
from lcbench.tempscale.fold import fold, multiply_weight
from lcbench.tempscale.policy import parse

# Relative to the largest hidden state, in float64. Measured: 3e-15; 1e-7 where transformers takes
# the rotation of queries (ModernBERT) or the norms (Gemma) in float32 whatever the dtype.
TOLERANCE = 1e-10
GEMMA_3 = ("Gemma 3", "Gemma 3, both directions")
FLOAT32_INSIDE = dict.fromkeys(("ModernBERT", "Gemma 2", *GEMMA_3), 1e-6)
BY_LAYER = {"layers": {0: 0.9, 1: 0.7}}
OF_HEADS = {"heads": heads_file([BY_HEAD])}
# The same in both layers, which may share a position bias.
ALIKE = {"heads": heads_file([BY_HEAD[:1] * 2])}
# Layers that share what would have to be divided differently for each.
SHARED = {"T5": "share one position bias", "MPNet": "share one position bias"} | {
    "Gemma 2": "share one cap of their logits"
}
# Heads that share it.
SHARED_BY_HEADS = {"Gemma 2": "the heads of Gemma2Model share one cap"} | dict.fromkeys(
    ("Qwen3", *GEMMA_3), "normalises the queries of all heads with the same weights"
)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def tolerance_of(architecture: str) -> float:
    return FLOAT32_INSIDE.get(architecture, TOLERANCE)


def difference_from_injected(architecture: str, value: Any, *, kept: bool = False) -> float:
    """Return how far a folded model is from the injected one, and show that neither is a no-op."""
    # In float64, Gemma 2 itself is NaN beside padding: transformers takes its softmax in float32,
    # where float64's most negative number is infinite.
    dtype = torch.float32 if architecture == "Gemma 2" else torch.float64
    injected, folded = (make(architecture).to(dtype) for _ in range(2))
    untouched = states(injected)
    with lcbench.inject(injected, value, tau_bias="kept" if kept else "divided"):
        expected = states(injected)
    fold(folded, parse(value, keeps_bias=kept))
    assert float((untouched - expected).abs().max() / expected.abs().max()) > 1e-3
    return float((states(folded) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folded_constant_is_the_injected_one(architecture: str) -> None:
    assert difference_from_injected(architecture, 0.7) < tolerance_of(architecture)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in SHARED])
def test_folded_layers_are_the_injected_ones(architecture: str) -> None:
    assert difference_from_injected(architecture, BY_LAYER) < tolerance_of(architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_heads_are_the_injected_ones(architecture: str) -> None:
    if architecture in SHARED_BY_HEADS:
        with pytest.raises(RequestError, match=SHARED_BY_HEADS[architecture]):
            fold(make(architecture), parse(OF_HEADS))
        return
    value = ALIKE if architecture in SHARED else OF_HEADS
    assert difference_from_injected(architecture, value) < tolerance_of(architecture)


@pytest.mark.parametrize(("architecture", "reason"), SHARED.items())
def test_layers_that_share_a_bias_or_a_cap_are_refused(architecture: str, reason: str) -> None:
    model = make(architecture)
    before = weights(model)
    with pytest.raises(RequestError, match=reason):
        fold(model, parse(BY_LAYER))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


@pytest.mark.parametrize("value", [0.7, BY_LAYER, OF_HEADS], ids=str)
@pytest.mark.parametrize("architecture", ["T5", "MPNet"])
def test_a_kept_bias_can_be_folded(architecture: str, value: Any) -> None:
    assert difference_from_injected(architecture, value, kept=True) < TOLERANCE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"query": 0.8, "document": 0.9}, "would have to differ for queries and documents"),
        ({"length": {10: 0.8}}, "a length-dependent temperature cannot be stored in weights"),
        (
            {"heads": heads_file([BY_HEAD, EVEN], [4, 30])},
            "a length-dependent temperature cannot be stored in weights",
        ),
        ({"length": {"yarn": 8}}, "a length-dependent temperature cannot be stored in weights"),
    ],
)
def test_what_differs_by_text_is_refused(value: Any, reason: str) -> None:
    model = make("BERT")
    before = weights(model)
    with pytest.raises(RequestError, match=reason):
        fold(model, parse(value))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_a_model_whose_queries_are_not_known_is_refused_and_unchanged() -> None:
    model = make("BERT")
    for layer in model.encoder.layer:
        # A projection that is no plain linear layer.
        layer.attention.self.query = nn.Sequential(layer.attention.self.query)
    before = weights(model)
    with pytest.raises(RequestError, match=r"encoder\.layer\.0\.attention\.self \(.*is unknown"):
        fold(model, parse(0.7))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_a_model_under_injection_is_refused() -> None:
    model = make("BERT")
    with lcbench.inject(model, 0.7), pytest.raises(InjectionError, match="already runs at a temp"):
        fold(model, parse(0.7))


class PlusOneNorm(Gemma2RMSNorm):
    """Multiplies by 1 + weight, without saying so in its name."""


class GemmaNorm(LlamaRMSNorm):
    """Multiplies by its weight, whatever its name says."""


@pytest.mark.parametrize(
    "module",
    [
        *(kind(8) for kind in (nn.LayerNorm, LlamaRMSNorm, Gemma2RMSNorm, PlusOneNorm, GemmaNorm)),
        nn.Linear(8, 3),
        nn.Linear(8, 3, bias=False),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_a_weight_multiplies_is_seen_from_the_computation(module: Any) -> None:
    module = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(0)
    values, example = (
        torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        before = module(values)
        multiply_weight(module, 0.7, example)
        bias = 0.0 if getattr(module, "bias", None) is None else module.bias
        expected = 0.7 * (before - bias) + bias
        assert torch.allclose(module(values), expected, atol=1e-6)
        assert not torch.allclose(before, expected)
