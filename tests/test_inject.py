"""TempScale: exact in every layer, undone exactly, and refused where it cannot be proven."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lcbench
from lcbench.errors import InjectionError, RequestError
from tiny_models import tiny_transformer

ARCHITECTURES = ("bert", "roberta", "t5")
BACK_ENDS = ("eager", "sdpa")
# In float64, so that only the formula can make a difference. Measured: 3e-15 at most.
TOLERANCE = 1e-12


def ragged_batch() -> dict[str, Tensor]:
    ids = torch.randint(1000, 30000, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    mask[2, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def hidden(model: nn.Module) -> Tensor:
    """Return the last hidden states of the tokens that are not padding: [tokens, dimensions]."""
    batch = ragged_batch()
    states: Tensor = model(**batch).last_hidden_state
    return states[batch["attention_mask"].bool()]


def relative(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


def fold(model: nn.Module, tau: float) -> None:
    """Divide the logits by τ through the weights: an independent way to the same attention."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            parts = name.split(".")
            is_query = "query" in parts or (parts[-2] == "q" and "SelfAttention" in parts)
            if is_query or "relative_attention_bias" in parts:
                weight /= tau


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tau", [0.5, 0.7, 1.5])
def test_injection_equals_weights_divided_by_tau(
    architecture: str, back_end: str, tau: float
) -> None:
    model, folded = (tiny_transformer(architecture).double() for _ in range(2))
    model.set_attn_implementation(back_end)
    folded.set_attn_implementation(back_end)
    fold(folded, tau)
    untouched, expected = hidden(model), hidden(folded)
    with lcbench.inject(model, tau) as injection:
        injected = hidden(model)
        injection.check()
    assert relative(injected, expected) < TOLERANCE
    # A no-op could not pass.
    assert relative(untouched, expected) > 0.01
    assert injection.proof.tau == ((tau,), (tau,))
    assert injection.proof.largest_error < 1e-5


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tau_1_and_removal_are_bit_identical(architecture: str, back_end: str) -> None:
    model = tiny_transformer(architecture)
    model.set_attn_implementation(back_end)
    before = hidden(model)
    with lcbench.inject(model, 1.0):
        assert torch.equal(hidden(model), before)
    handle = lcbench.inject(model, 0.5)
    assert not torch.equal(hidden(model), before)
    handle.remove()
    handle.remove()
    assert torch.equal(hidden(model), before)
    assert model.config._attn_implementation == back_end


def test_an_exception_in_the_context_restores_the_model() -> None:
    model = tiny_transformer("bert")
    before = hidden(model)
    with pytest.raises(ZeroDivisionError), lcbench.inject(model, 0.5):
        raise ZeroDivisionError
    assert torch.equal(hidden(model), before)


def test_two_models_do_not_touch_each_other() -> None:
    one, other = tiny_transformer("bert"), tiny_transformer("bert")
    with lcbench.inject(one, 0.5):
        alone = hidden(one)
    with lcbench.inject(one, 0.5), lcbench.inject(other, 0.9):
        assert torch.equal(hidden(one), alone)
        assert not torch.equal(hidden(other), alone)


def test_injecting_twice_is_an_error_and_leaves_the_first_at_work() -> None:
    model = tiny_transformer("bert")
    with lcbench.inject(model, 0.5):
        scaled = hidden(model)
        with pytest.raises(InjectionError, match="already runs at a temperature"):
            lcbench.inject(model, 0.9)
        assert torch.equal(hidden(model), scaled)


def test_training_mode_is_kept_and_the_proof_runs_without_dropout() -> None:
    model = tiny_transformer("bert").train()
    with lcbench.inject(model, 0.5):
        assert model.training


def test_an_architecture_outside_the_interface_is_refused_by_name() -> None:
    model = tiny_transformer("canine")
    before = hidden(model)
    with pytest.raises(InjectionError, match="CanineModel neither uses the attention interface"):
        lcbench.inject(model, 0.8)
    assert torch.equal(hidden(model), before)


def test_what_is_no_temperature_is_refused() -> None:
    with pytest.raises(RequestError, match="is not a temperature"):
        lcbench.inject(tiny_transformer("bert"), 0)


def test_a_sentence_transformer_is_found_inside(
    make_model: Callable[[str], Path],
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(make_model("roberta")), device="cpu")
    before = model.encode(["a text to embed"])
    with lcbench.inject(model, 0.5) as injection:
        assert (model.encode(["a text to embed"]) != before).any()
        assert len(injection.proof.layers) == 2
    assert (model.encode(["a text to embed"]) == before).all()


def test_a_module_without_a_transformer_is_refused() -> None:
    with pytest.raises(InjectionError, match="holds 0 transformers"):
        lcbench.inject(nn.Linear(2, 2), 0.8)


class OwnSoftmax(nn.Module):
    """An attention layer that ignores every scaling: it computes its own softmax."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        shape = (*states.shape[:-1], 4, 8)
        query, key, value = (
            part(states).view(shape).transpose(1, 2)
            for part in (self.replaced.query, self.replaced.key, self.replaced.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, dim=-1)
        return (weights @ value).transpose(1, 2).reshape(states.shape), weights


class FusedOfItsOwn(OwnSoftmax):
    """As above, through the fused kernel."""

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        shape = (*states.shape[:-1], 4, 8)
        query, key, value = (
            part(states).view(shape).transpose(1, 2)
            for part in (self.replaced.query, self.replaced.key, self.replaced.value)
        )
        output = nn.functional.scaled_dot_product_attention(query, key, value)
        return output.transpose(1, 2).reshape(states.shape), output


class NoAttention(OwnSoftmax):
    """A layer that does not attend at all."""

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.replaced.value(states), states


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OwnSoftmax, r"encoder\.layer\.1\.attention\.self \(OwnSoftmax\) computes attention"),
        (FusedOfItsOwn, r"encoder\.layer\.1\.attention\.self \(FusedOfItsOwn\) computes attention"),
        (NoAttention, "1 attention layers were reached, but its configuration has 2"),
    ],
)
def test_a_layer_that_ignores_the_temperature_is_refused(
    kind: type[OwnSoftmax], message: str
) -> None:
    model = tiny_transformer("bert")
    attention = model.encoder.layer[1].attention
    attention.self = kind(attention.self)
    before = hidden(model)
    with pytest.raises(InjectionError, match=message):
        lcbench.inject(model, 0.8)
    assert torch.equal(hidden(model), before)


def test_a_layer_replaced_after_the_injection_is_found_at_the_next_check() -> None:
    model = tiny_transformer("bert")
    with lcbench.inject(model, 0.8) as injection:
        hidden(model)
        injection.check()
        attention = model.encoder.layer[1].attention
        original, attention.self = attention.self, OwnSoftmax(attention.self)
        hidden(model)
        with pytest.raises(InjectionError, match=r"encoder\.layer\.1\.attention\.self no longer"):
            injection.check()
        attention.self = original


def test_a_fresh_layer_without_a_temperature_is_found_at_the_next_check() -> None:
    model, donor = tiny_transformer("bert"), tiny_transformer("bert")
    with lcbench.inject(model, 0.8) as injection:
        attention = model.encoder.layer[0].attention
        original = attention.self
        attention.self = donor.encoder.layer[0].attention.self
        hidden(model)
        with pytest.raises(InjectionError, match=r"encoder\.layer\.0\.attention\.self no longer"):
            injection.check()
        attention.self = original


def test_the_proof_is_cheap(minilm_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm_folder), device="cpu")
    seconds = []
    for _ in range(3):
        with lcbench.inject(model, 0.8) as injection:
            seconds.append(injection.proof.seconds)
    # 0.06 s were measured on two cores.
    assert min(seconds) < 1.0
    assert len(injection.proof.layers) == 6
