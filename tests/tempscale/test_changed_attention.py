"""AttnScale and position calibration against their formulas, on every architecture."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from exactness import (
    ARCHITECTURES,
    BACK_ENDS,
    LAYERS,
    LENGTHS,
    NEVER_UNPADDED,
    REFUSED_BY_TRANSFORMERS,
    UNPADDED,
    make,
    reference_attention,
    states,
    temperatures,
)
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import lcbench
from lcbench.errors import InjectionError
from lcbench.measures.attention import attention
from lcbench.measures.signal import signal
from lcbench.tempscale.attnscale import AttnScale
from lcbench.tempscale.calibrate import Calibration, calibrated
from lcbench.tempscale.change import ChangedAttention
from lcbench.tempscale.layer_change import AttentionChange, change_of

# They compute their own softmax.
REFUSED = ("MPNet", "DeBERTa-v2", "DeBERTa-v3")
RUN = [
    (architecture, back_end)
    for architecture in ARCHITECTURES
    for back_end in (*BACK_ENDS, UNPADDED)
    if architecture not in REFUSED
    and (architecture, back_end) not in REFUSED_BY_TRANSFORMERS
    and not (back_end == UNPADDED and architecture in NEVER_UNPADDED)
]
TOLERANCE = 1e-5
W = 0.7
# Of the texts of 24, 15 and 7 tokens: three full baskets, one and a shorter one, and less than one.
BASKET = 8
TAU = 0.7
AT_TEMPERATURES = [
    pytest.param(
        *(architecture, back_end, tau),
        # How a temperature comes to the logits does not go by what is done with the weights: in the
        # short run one back end has it, which then also runs without it.
        marks=[pytest.mark.exhaustive] if (tau == "constant") != (back_end == "sdpa") else [],
    )
    for architecture, back_end in RUN
    for tau in ("none", "constant")
]


def scaled(_: int, weights: Tensor, allowed: Tensor) -> Tensor:
    """A' = M + (1 + w) (A − M), with equal weights M for what is attended to."""
    keys = allowed.expand_as(weights).double()
    mean = keys / keys.sum(-1, keepdim=True).clamp(min=1)
    return mean + (1 + W) * (weights - mean)


@cache
def evened(strength: float, rows: str, first_layer: int) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Weights of position calibration, written out text by text and token by token."""

    def change(layer: int, weights: Tensor, allowed: Tensor) -> Tensor:
        allowed = allowed.expand_as(weights)
        changed = weights.clone()
        for text, length in enumerate(LENGTHS):
            if length <= BASKET or layer < first_layer:
                continue
            of_rows = {"all": range(length), "first": [0], "last": [length - 1]}[rows]
            for row in of_rows:
                count = allowed[text, :, row].sum(-1, keepdim=True)
                for start in range(0, length, BASKET):
                    keys = slice(start, min(start + BASKET, length))
                    share = allowed[text, :, row, keys].sum(-1, keepdim=True) / count
                    part = weights[text, :, row, keys]
                    if float(share.max()) > 0:
                        even = part * share / part.sum(-1, keepdim=True)
                        changed[text, :, row, keys] = strength * even + (1 - strength) * part
        return changed

    return change


@cache
def expected_of(
    architecture: str, by_the_formula: Callable[[int, Tensor, Tensor], Tensor], tau: str
) -> Tensor:
    """Return the states by the formula, in which no back end has a part."""
    exact = make(architecture).double()
    with reference_attention(exact, temperatures(tau, "document"), False, by_the_formula):
        return states(exact)


def compare(
    architecture: str,
    back_end: str,
    changes: list[AttentionChange | None],
    by_the_formula: Callable[[int, Tensor, Tensor], Tensor],
    tau: str,
) -> None:
    model, expected = make(architecture), expected_of(architecture, by_the_formula, tau)
    model.set_attn_implementation(back_end)
    untouched, largest = states(model), expected.abs().max()
    applied = ChangedAttention(model, "changed", lambda layers: changes)
    if tau == "none":
        got = states(model)
    else:
        with lcbench.inject(model, TAU) as injection:
            got = states(model)
            injection.check()
        # What remains is the change at τ = 1.
        assert float((states(model) - got).abs().max()) > 0
    error = float((got - expected).abs().max() / largest)
    effect = float((untouched - got).abs().max() / largest)
    assert error <= TOLERANCE
    assert effect >= 100 * error
    applied.remove()
    assert torch.equal(states(model), untouched)
    assert not any(change_of(module) for module in model.modules())


@pytest.mark.parametrize(("architecture", "back_end", "tau"), AT_TEMPERATURES)
def test_attnscale_is_the_formula(architecture: str, back_end: str, tau: str) -> None:
    compare(architecture, back_end, [AttnScale(W)] * LAYERS, scaled, tau)


@pytest.mark.parametrize(("architecture", "back_end", "tau"), AT_TEMPERATURES)
def test_calibration_is_the_formula(architecture: str, back_end: str, tau: str) -> None:
    change = Calibration(BASKET, 0.6, "all")
    compare(architecture, back_end, [None, change], evened(0.6, "all", 1), tau)


@pytest.mark.parametrize(
    ("architecture", "back_end", "rows"),
    [
        ("BERT", "sdpa", "first"),
        ("BERT", UNPADDED, "first"),
        ("BERT", "eager", "last"),
        ("Mistral", "sdpa", "last"),
        ("Mistral", UNPADDED, "last"),
    ],
)
def test_only_the_pooled_token_is_calibrated(architecture: str, back_end: str, rows: Any) -> None:
    change = Calibration(BASKET, 1.0, rows)
    compare(architecture, back_end, [change] * LAYERS, evened(1.0, rows, 0), "none")


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_own_softmax_is_refused_by_name(architecture: str) -> None:
    model = make(architecture)
    before = states(model)
    with pytest.raises(InjectionError, match=rf"attend=x: {type(model).__name__} computes its own"):
        ChangedAttention(model, "attend=x", lambda layers: [AttnScale(W)] * layers)
    assert torch.equal(states(model), before)


def layer(*, causal: bool = False) -> torch.nn.Module:
    module = torch.nn.Module()
    module.is_causal = causal
    module.config = transformers.BertConfig(attn_implementation="sdpa")
    return module


def projections(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, 4, tokens, 8)
    return tuple(torch.randn(shape, generator=generator))  # type: ignore[return-value]


@pytest.mark.parametrize("causal", [False, True])
def test_at_minus_one_every_token_gets_the_mean_of_the_values(causal: bool) -> None:
    query, key, value = projections(20)
    attend = AttnScale(-1.0).attend
    output, _ = attend(sdpa_attention_forward, layer(causal=causal), query, key, value, None)
    mean = value.mean(dim=2, keepdim=True).expand_as(value)
    if causal:
        mean = value.cumsum(dim=2) / torch.arange(1, 21)[:, None]
    assert torch.allclose(output.transpose(1, 2), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "causal", "asked"),
    [
        ("none", False, 1),
        ("none", True, 20),
        ("padding", False, 1),
        ("row", False, 1),
        ("window", False, 20),
        ("causal", True, 20),
    ],
)
def test_the_mean_is_taken_once_where_all_tokens_attend_to_the_same(
    mask: str, causal: bool, asked: int
) -> None:
    query, key, value = projections(20)
    places = torch.arange(20)
    padding = (places < 13).expand(1, 1, 20, 20)
    masks = {
        "none": None,
        "padding": padding,
        "row": padding[:, :, :1],
        "window": ((places[:, None] - places).abs() < 4)[None, None],
        "causal": torch.ones(1, 1, 20, 20, dtype=torch.bool).tril(),
    }
    tokens: list[int] = []

    def original(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        tokens.append(query.shape[2])
        return sdpa_attention_forward(module, query, *args, **kwargs)

    arguments = (layer(causal=causal), query, key, value, masks[mask])
    output, _ = AttnScale(-1.0).attend(original, *arguments)
    assert tokens == [20, asked]
    allowed = torch.ones(20, 20) if masks[mask] is None else masks[mask][0, 0].expand(20, 20)
    allowed = allowed.tril().float() if causal else allowed.float()
    mean = (allowed / allowed.sum(-1, keepdim=True)) @ value
    assert torch.allclose(output.transpose(1, 2), mean, atol=1e-6)


@pytest.mark.parametrize(("keys", "shares"), [(24, [1 / 3] * 3), (17, [8 / 17, 8 / 17, 1 / 17])])
def test_full_baskets_get_equal_sums(keys: int, shares: list[float]) -> None:
    logits = 40 * torch.randn(4, 5, keys, generator=torch.Generator().manual_seed(0))
    weights = calibrated(logits, None, BASKET)
    sums = [weights[..., start : start + BASKET].sum(-1) for start in range(0, keys, BASKET)]
    assert torch.allclose(torch.stack(sums, -1), torch.tensor(shares).expand(4, 5, -1))
    assert torch.allclose(weights.sum(-1), torch.ones(4, 5))
    # Within a basket weights keep their proportions.
    plain = logits.double().softmax(-1)[..., :BASKET]
    within = weights[..., :BASKET] / weights[..., :BASKET].sum(-1, keepdim=True)
    assert torch.allclose(within.double(), plain / plain.sum(-1, keepdim=True), atol=1e-6)


def test_a_basket_before_which_a_token_comes_has_no_share() -> None:
    allowed = torch.ones(1, 17, 17, dtype=torch.bool).tril()
    weights = calibrated(torch.zeros(1, 17, 17), allowed, BASKET)
    assert torch.allclose(weights, allowed / allowed.sum(-1, keepdim=True))


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = projections(20)
    change = Calibration(BASKET, 0.5, "all")
    arguments = (sdpa_attention_forward, layer(), query, key, value, None)
    whole, _ = change.attend(*arguments, scaling=0.3)
    monkeypatch.setattr("lcbench.tempscale.calibrate._TILE_BYTES", 4 * 4 * 20 * 3)
    tiled, _ = change.attend(*arguments, scaling=0.3)
    assert torch.allclose(tiled, whole, atol=1e-6)


def test_what_half_precision_rounds_is_proven() -> None:
    for change in (AttnScale(W), Calibration(BASKET, 0.5, "all")):
        model = make("BERT").bfloat16()
        model.set_attn_implementation("sdpa")
        applied = ChangedAttention(model, "changed", lambda layers, one=change: [one] * layers)
        assert 0 < applied.proof["largest_error"] < 4e-2


class Wrong(AttnScale):
    """Another attention than its formula says."""

    def attend(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        output, weights = super().attend(*args, **kwargs)
        return output * 1.001, weights


@pytest.mark.parametrize("back_end", ["eager", "sdpa", UNPADDED])
def test_what_is_not_the_formula_is_refused(back_end: str) -> None:
    model = make("BERT")
    model.set_attn_implementation(back_end)
    before = states(model)
    with pytest.raises(InjectionError, match=r"wrong: BertModel: the attention layer encoder\."):
        ChangedAttention(model, "wrong", lambda layers: [None, Wrong(W)])
    assert model.config._attn_implementation == back_end
    assert torch.equal(states(model), before)


def test_back_ends_without_logits_are_refused_by_name() -> None:
    model = make("BERT")
    model.set_attn_implementation("flex_attention")
    with pytest.raises(InjectionError, match="needs the attention eager or sdpa, and BertModel"):
        ChangedAttention(model, "x", lambda layers: [None] * layers, ("eager", "sdpa"))


def test_layers_that_share_their_attention_are_changed_together() -> None:
    torch.manual_seed(0)
    sizes = {**ARCHITECTURES["BERT"][2], "embedding_size": 16}
    model = transformers.AlbertModel(transformers.AlbertConfig(**sizes)).eval()
    change = AttnScale(W)
    applied = ChangedAttention(model, "x", lambda layers: [change] * layers)
    assert len(applied.proof["layers"]) == 1
    applied.remove()
    with pytest.raises(InjectionError, match="AlbertModel: its layers share their attention"):
        ChangedAttention(model, "x", lambda layers: [None, change])


def test_weights_that_are_changed_are_not_measured_as_if_they_were_not() -> None:
    model, texts = make("BERT"), [[*range(3, 20)]]
    model.set_attn_implementation("sdpa")
    plain = signal(model, texts, 0.9)["log_ratio"]
    applied = ChangedAttention(model, "changed", lambda layers: [AttnScale(W)] * layers)
    with pytest.raises(InjectionError, match="attend= changes attention weights after the softmax"):
        attention(model, texts, 0.9)
    assert signal(model, texts, 0.9)["log_ratio"].sub(plain).abs().max() > 1e-2
    applied.remove()
    assert signal(model, texts, 0.9)["log_ratio"].equals(plain)
