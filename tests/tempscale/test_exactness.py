"""Every architecture, back end, policy and dtype against attention written from the formula."""

import warnings
from functools import partial

import pytest
import torch
import transformers
from exactness import (
    ARCHITECTURES,
    BACK_ENDS,
    LIMITS,
    NEVER_UNPADDED,
    POLICIES,
    REFUSED_BY_TRANSFORMERS,
    UNPADDED,
    make,
    measure,
    reference_attention,
    states,
    temperatures,
)
from transformers.integrations.flex_attention import WrappedFlexAttention

import lcbench
from lcbench.tempscale.policy import parse

RUN = [
    (architecture, back_end)
    for architecture in ARCHITECTURES
    for back_end in BACK_ENDS
    if (architecture, back_end) not in REFUSED_BY_TRANSFORMERS
] + [
    (architecture, UNPADDED) for architecture in ARCHITECTURES if architecture not in NEVER_UNPADDED
]
# In half precision by one policy in the short run: what the others add does not go by the dtype.
# `infoscale` has other numbers by length than `logn`, and nothing else.
POLICIES_AND_DTYPES = [
    pytest.param(
        policy,
        dtype,
        marks=[pytest.mark.exhaustive]
        if policy == "infoscale" or (dtype != torch.float32 and policy != "constant")
        else [],
        id=f"{policy}-{dtype}",
    )
    for policy in POLICIES
    for dtype in LIMITS
]
# torch's flex kernel for CPUs is wrong (NaN without any lcbench) on texts below a block's 128.
FLEX_LENGTHS = (128, 90, 12)


@pytest.mark.parametrize(("policy", "dtype"), POLICIES_AND_DTYPES)
@pytest.mark.parametrize(("architecture", "back_end"), RUN)
def test_attention_is_the_formula(
    architecture: str, back_end: str, policy: str, dtype: torch.dtype
) -> None:
    found = measure(architecture, back_end, policy, dtype)
    assert found.error <= LIMITS[dtype]
    if dtype == torch.float32:
        # A no-op could not pass.
        assert found.effect >= 100 * found.error


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            dtype, marks=[pytest.mark.exhaustive] if dtype != torch.float32 else [], id=str(dtype)
        )
        for dtype in LIMITS
    ],
)
@pytest.mark.parametrize(("architecture", "back_end"), RUN)
def test_queries_have_their_own_temperature(
    architecture: str, back_end: str, dtype: torch.dtype
) -> None:
    query = measure(architecture, back_end, "role", dtype, role="query")
    assert query.error <= LIMITS[dtype]
    if dtype == torch.float32:
        assert query.effect >= 100 * query.error


@pytest.mark.parametrize(("policy", "dtype"), POLICIES_AND_DTYPES)
@pytest.mark.parametrize(
    ("architecture", "back_end"), [("T5", "eager"), ("T5", "sdpa"), ("MPNet", "eager")]
)
def test_a_position_bias_is_kept(
    architecture: str, back_end: str, policy: str, dtype: torch.dtype
) -> None:
    found = measure(architecture, back_end, policy, dtype, kept=True)
    assert found.error <= LIMITS[dtype]
    if dtype == torch.float32:
        assert found.effect >= 100 * found.error


@pytest.mark.parametrize("architecture", ["T5", "MPNet"])
def test_keeping_a_position_bias_is_another_model_than_dividing_it(architecture: str) -> None:
    exact = {}
    for kept in (True, False):
        model = make(architecture).double()
        with reference_attention(model, temperatures("constant", "document"), kept):
            exact[kept] = states(model)
    apart = (exact[True] - exact[False]).abs().max() / exact[False].abs().max()
    assert float(apart) > 100 * LIMITS[torch.float32]


def test_without_a_position_bias_kept_is_the_same_policy_as_divided() -> None:
    model = make("BERT")
    with lcbench.inject(model, 0.7, tau_bias="kept") as injection:
        assert injection.policy == parse(0.7)
        assert injection.policy.canonical == "0.7"
        kept = states(model)
    with lcbench.inject(model, 0.7):
        assert torch.equal(states(model), kept)


@pytest.mark.parametrize(("architecture", "back_end"), sorted(REFUSED_BY_TRANSFORMERS))
def test_transformers_itself_refuses(architecture: str, back_end: str) -> None:
    kind, config, sizes = ARCHITECTURES[architecture]
    settings = getattr(transformers, config)(**sizes)
    with pytest.raises(ValueError, match="does not support an attention implementation through"):
        getattr(transformers, kind)._from_config(settings, attn_implementation=back_end)


@pytest.mark.slow
# What torch makes of it for a compiler, without the compiler; and all of it.
@pytest.mark.parametrize(
    ("backend", "architecture", "policy"),
    [
        ("eager", "BERT", "steps"),
        ("eager", "Llama", "constant"),
        *(
            pytest.param("inductor", architecture, policy, marks=pytest.mark.exhaustive)
            for architecture in ("BERT", "Llama")
            for policy in ("constant", "steps")
        ),
    ],
)
def test_flex_attention(
    backend: str, architecture: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled code is kept by shape and scale, up to a number of them.
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    # Else the one that is compiled already.
    monkeypatch.setattr(WrappedFlexAttention, "_instance", None)
    sizes = {"max_position_embeddings": 256, "hidden_size": 64}
    if architecture == "Llama":
        sizes["head_dim"] = 16
    exact = make(architecture, **sizes).double()
    taus = temperatures(policy, "document", FLEX_LENGTHS)
    with reference_attention(exact, taus, kept=False):
        expected = states(exact, FLEX_LENGTHS)
    unscaled = make(architecture, **sizes).double()
    none = temperatures("none", "document", FLEX_LENGTHS)
    with reference_attention(unscaled, none, kept=False):
        expected_untouched = states(unscaled, FLEX_LENGTHS)
    model = make(architecture, **sizes)
    model.set_attn_implementation("flex_attention")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            untouched = states(model, FLEX_LENGTHS)
        except Exception as error:
            pytest.skip(f"flex_attention does not compile here: {type(error).__name__}: {error}")
        largest = expected.abs().max()
        if not (untouched - expected_untouched).abs().max() / largest <= 1e-5:
            pytest.skip("flex_attention is wrong here on the untouched model")
        with lcbench.inject(model, POLICIES[policy]) as injection:
            got = states(model, FLEX_LENGTHS)
            injection.check()
        error = float((got - expected).abs().max() / largest)
        assert error <= LIMITS[torch.float32]
        assert float((got - untouched).abs().max() / largest) >= 100 * error
        assert torch.equal(states(model, FLEX_LENGTHS), untouched)
