"""Extensions of rotary positions: frequencies and rotations, and what is refused and restored."""

import math
from typing import Any

import pytest
import torch
from exactness import make, states_by_text, token_ids

from lcbench.errors import InjectionError
from lcbench.repair.extension import Extension
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import parse

# 64 positions and, but for ModernBERT and Gemma 3, one set of rotations for all layers.
FLAT = ("Llama", "Qwen3", "Mistral", "NomicBERT")
NESTED = ("ModernBERT", "Gemma 3")
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.0, 1.0, 1.0],
    "long_factor": [1.0, 1.5, 2.0, 4.0],
    "original_max_position_embeddings": 16,
}


def made(architecture: str) -> Any:
    types = {"layer_types": ["sliding_attention", "full_attention"]}
    # A little further than its 64 positions.
    options = {"Gemma 3": types, "Mistral": {"sliding_window": 80}}
    return make(architecture, **options.get(architecture, {}))


def buffers(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.named_buffers()}


@pytest.mark.parametrize("architecture", [*FLAT, *NESTED])
@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_frequencies_are_those_of_float64_and_are_restored(architecture: str, method: str) -> None:
    model = made(architecture)
    before, config = buffers(model), model.config.to_dict()
    applied = Extension(method, 128).apply(model)
    assert applied.proof["largest_error"] < 1e-6
    assert applied.proof["largest_error_of_rotation"] < 1e-5
    assert applied.proof.get("layers") == ("full_attention" if architecture in NESTED else None)
    changed = {name for name, one in buffers(model).items() if not torch.equal(one, before[name])}
    prefix = "full_attention_" if architecture in NESTED else ""
    assert {name.rpartition(".")[2] for name in changed} == {
        f"{prefix}inv_freq",
        f"{prefix}original_inv_freq",
    }
    applied.remove()
    assert all(torch.equal(one, before[name]) for name, one in buffers(model).items())
    assert model.config.to_dict() == config


@pytest.mark.parametrize("architecture", ["Llama", "NomicBERT"])
def test_linear_is_dividing_positions(architecture: str) -> None:
    model, text = make(architecture).double(), token_ids(100)
    rotary = model.rotary_emb
    plain = rotary.forward

    def divided(x: torch.Tensor, position_ids: torch.Tensor, **kwargs: Any) -> Any:
        return plain(x, position_ids / 2, **kwargs)

    rotary.forward = divided
    expected = states_by_text(model, text)[0]
    del rotary.forward
    before = states_by_text(model, text)[0]
    Extension("linear", 128).apply(model)
    found = states_by_text(model, text)[0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert (before - expected).abs().max() > 1e-2


def test_ntk_multiplies_the_base() -> None:
    model = make("Llama")
    proof = Extension("ntk", 192).apply(model).proof
    theta = 10_000 * 3 ** (8 / 6)
    assert proof["lambda"] == pytest.approx(3 ** (8 / 6))
    assert proof["lambda_from"] == "s^(d/(d-2))"
    expected = torch.tensor([theta ** (-j / 8) for j in (0, 2, 4, 6)])
    assert torch.allclose(model.rotary_emb.inv_freq, expected, rtol=1e-6)
    assert model.config.rope_parameters["rope_theta"] == pytest.approx(theta)


def test_yarn_has_a_temperature_of_its_own_which_is_recorded() -> None:
    model = make("Llama")
    proof = Extension("yarn", 256).apply(model).proof
    assert proof["temperature"] == pytest.approx((0.1 * math.log(4) + 1) ** -2)
    assert proof["temperature"] == pytest.approx(0.771, abs=1e-3)
    # Another one is applied to what is left of it.
    with Injection(model, parse(0.8)) as injection:
        assert injection.proof.largest_error < 1e-5


def test_longrope_takes_the_factors_of_the_model_for_every_text() -> None:
    """The library takes them only for a batch with a long text."""
    model = make("Llama", rope_parameters=dict(LONGROPE))
    short, long = token_ids(10), token_ids(40)
    proof = Extension("longrope", 64).apply(model).proof
    assert proof["temperature"] == pytest.approx(1 / (1 + math.log(4) / math.log(16)))
    alone = states_by_text(model, short)[0]
    together = states_by_text(model, long, short)[1]
    after = states_by_text(model, short)[0]
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(after, alone)
    plain = make("Llama", rope_parameters=dict(LONGROPE))
    assert not torch.allclose(states_by_text(plain, short)[0], alone, atol=1e-3)
    expected = states_by_text(plain, long)[0]
    assert torch.allclose(states_by_text(model, long)[0], expected, atol=1e-5)


@pytest.mark.parametrize("architecture", [*FLAT, *NESTED])
@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_a_text_is_the_same_alone_and_in_any_batch(architecture: str, method: str) -> None:
    model = made(architecture)
    Extension(method, 128).apply(model)
    texts = [token_ids(n) for n in (120, 70, 9)]
    alone = [states_by_text(model, text)[0] for text in texts]
    for order in ([0, 1, 2], [2, 0]):
        for one, found in zip(
            order, states_by_text(model, *(texts[i] for i in order)), strict=True
        ):
            assert torch.allclose(found, alone[one], atol=2e-5)
    assert torch.equal(states_by_text(model, texts[2])[0], alone[2])


@pytest.mark.parametrize(
    ("architecture", "changes", "extension", "message"),
    [
        ("BERT", {}, Extension("ntk", 128), "0 rotary modules"),
        ("Llama", {}, Extension("longrope", 64), "longrope needs factors that were searched"),
        (
            "Llama",
            {"rope_parameters": LONGROPE},
            Extension("yarn", 128),
            "scaled already (longrope). extend={longrope: N} uses its factors",
        ),
        (
            "Llama",
            {"rope_parameters": LONGROPE},
            Extension("window", 40),
            "go by the longest text that is read together with a text or before it",
        ),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            Extension("selfextend", 128),
            "rotary positions (dynamic) go by the longest text",
        ),
        ("BERT", {}, Extension("selfextend", 128), "0 rotary modules"),
        ("Gemma 3", {}, Extension("ntk", 128), "no layers of full attention"),
        ("Mistral", {}, Extension("ntk", 128), "all layers have sliding_window=8"),
        ("Mistral", {}, Extension("linear", 32, start=8), "beyond the 8 positions"),
        ("Mistral", {}, Extension("selfextend", 128), "beyond the 64 positions"),
    ],
)
def test_what_cannot_be_applied_is_refused(
    architecture: str, changes: dict[str, Any], extension: Extension, message: str
) -> None:
    model = make(architecture, **{key: dict(value) for key, value in changes.items()})
    before = states_by_text(model, token_ids(12))[0]
    with pytest.raises(InjectionError) as refused:
        extension.apply(model)
    assert message in str(refused.value)
    assert torch.equal(states_by_text(model, token_ids(12))[0], before)
