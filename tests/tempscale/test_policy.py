"""Temperature policies and their canonical form."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbench.errors import RequestError
from lcbench.tempscale.policy import (
    BASELINE,
    ByFormula,
    ByLayer,
    ByLength,
    ByRole,
    Constant,
    ModelShape,
    Policy,
    parse,
    parse_all,
)

BERT = ModelShape(layers=12, window=512, position_bias=False, head_size=64)
T5 = ModelShape(layers=12, window=512, position_bias=True, head_size=64)
LONG = ModelShape(layers=12, window=8192, position_bias=False, head_size=64)
FORMULAS = ("logn", "infoscale", "yarn")
DOCS = Path(__file__).parents[2] / "docs" / "temperatures.md"


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (0.8, "0.8"),
        ("0.80", "0.8"),
        (1, "1"),
        (1.0, "1"),
        ("1.000", "1"),
        (10, "10"),
        (100.0, "100"),
        (0.05, "0.05"),
        (1e-5, "0.00001"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_canonical_form(value: object, canonical: str) -> None:
    assert parse(value).canonical == canonical
    assert parse(canonical) == parse(value)


def test_canonical_form_can_name_a_folder() -> None:
    assert not set(":/") & set(parse(123.456).canonical)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        0.0,
        10**400,
        float("nan"),
        float("inf"),
        "abc",
        ".nan",
        "nan",
        "-inf",
        True,
        None,
        [0.8],
    ],
)
def test_what_is_no_temperature_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="is not a temperature"):
        parse(value)


def test_the_baseline_comes_first_and_each_policy_once() -> None:
    assert parse_all([0.9, 1.0, "0.90", 0.7]) == (Constant(0.9), BASELINE, Constant(0.7))
    assert parse_all(0.8) == (Constant(0.8),)
    assert BASELINE.is_baseline
    assert not Constant(0.8).is_baseline


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(RequestError, match="is empty"):
        parse_all([])


POLICIES: list[tuple[Any, Policy, str]] = [
    ({"query": 0.8, "document": 1.0}, ByRole(0.8, 1.0), "query=0.8,document=1"),
    ({"document": "0.90"}, ByRole(1.0, 0.9), "query=1,document=0.9"),
    ({"query": 0.7}, ByRole(0.7, 1.0), "query=0.7,document=1"),
    ({"layers": {0: 1.0, 6: 0.8}}, ByLayer(((0, 1.0), (6, 0.8))), "layers_0=1,6=0.8"),
    ({"layers": {0: 0.9, 3: 1}}, ByLayer(((0, 0.9), (3, 1.0))), "layers_0=0.9,3=1"),
    (
        {"length": {0: 1.0, 256: 0.9, 512: 0.8}},
        ByLength(((0, 1.0), (256, 0.9), (512, 0.8))),
        "length_0=1,256=0.9,512=0.8",
    ),
    ({"length": "logn"}, ByFormula("logn", 512), "length_logn_512"),
    ({"length": {"logn": 128}}, ByFormula("logn", 128), "length_logn_128"),
    ({"length": {"infoscale": 256}}, ByFormula("infoscale", 256), "length_infoscale_256"),
    ({"length": "yarn"}, ByFormula("yarn", 512), "length_yarn_512"),
]


@pytest.mark.parametrize(("value", "policy", "canonical"), POLICIES)
def test_a_policy_and_its_canonical_form(value: Any, policy: Policy, canonical: str) -> None:
    assert parse(value) == policy
    assert parse(value).canonical == canonical
    assert not set(":/\\ {}") & set(canonical)
    kept = parse(value, keeps_bias=True)
    assert kept.keeps_bias
    assert kept.canonical == f"{canonical}_bias=kept"
    assert kept != policy


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"query": 0.8, "document": 0.9}, {"document": 0.90, "query": "0.80"}),
        ({"query": 0.8}, {"document": 1, "query": 0.8}),
        ({"layers": {6: 0.8}}, {"layers": {0: 1.0, 6: 0.8}}),
        ({"layers": {"6": "0.8", "0": 1}}, {"layers": {0: 1.0, 6: 0.8}}),
        ({"layers": {6: 0.8, 0: 0.9}}, {"layers": {0: 0.9, 6: 0.8}}),
        # A step that changes nothing is none.
        ({"layers": {0: 1.0, 3: 1.0, 6: 0.8, 9: 0.8}}, {"layers": {6: 0.8}}),
        ({"length": {512: 0.8, 256: 0.9}}, {"length": {0: 1, 256: 0.9, 300: 0.9, 512: 0.8}}),
        *(({"length": rule}, {"length": {rule: 512}}) for rule in FORMULAS),
    ],
)
def test_equal_policies_are_equal_however_they_are_written(one: Any, other: Any) -> None:
    assert parse(one) == parse(other)
    assert parse(one).canonical == parse(other).canonical
    assert parse_all([one, other]) == (parse(one),)


@pytest.mark.parametrize(
    "value",
    [
        {"query": 0.8, "document": "0.80"},
        {"layers": {0: 0.8}},
        {"layers": {0: 0.8, 6: 0.8}},
        {"length": {0: 0.8, 100: 0.80}},
    ],
)
def test_what_is_constant_in_effect_has_the_constants_identity(value: Any) -> None:
    assert parse(value) == Constant(0.8)
    assert parse(value).canonical == "0.8"
    assert parse(value, keeps_bias=True) == parse(0.8, keeps_bias=True)


@pytest.mark.parametrize(
    "value",
    [1.0, {"query": 1, "document": 1.0}, {"query": 1.0}, {"layers": {3: 1}}, {"length": {9: 1.0}}],
)
def test_what_is_1_everywhere_is_the_baseline(value: Any) -> None:
    assert parse(value, keeps_bias=True) == BASELINE
    assert parse(value, keeps_bias=True).canonical == "1"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"qury": 0.8}, r"tau=\{qury: 0.8\} is not a policy. Did you mean query\?"),
        ({"layer": {0: 0.8}}, "is not a policy. Did you mean layers"),
        ({}, r"tau=\{\} is not a policy"),
        ({"query": 0.8, "layers": {0: 0.8}}, "is not a policy"),
        ({"layers": {0: 0.8}, "length": {0: 0.8}}, "is not a policy"),
        ({"layers": {}}, "layers takes steps, such as"),
        ({"layers": 0.8}, "layers takes steps, such as"),
        ({"length": {}}, "length takes steps, such as"),
        ({"length": 0.8}, "length takes steps, such as"),
        ({"length": "log"}, r"one of logn, infoscale, yarn, .* Did you mean logn\?"),
        ({"length": "yarm"}, r"Did you mean yarn\?"),
        ({"layers": {-1: 0.8}}, "-1 is not a whole number of at least 0"),
        ({"layers": {1.5: 0.8}}, "1.5 is not a whole number of at least 0"),
        ({"layers": {True: 0.8}}, "True is not a whole number of at least 0"),
        ({"length": {"-3": 0.8}}, "-3 is not a whole number of at least 0"),
        ({"length": {"logn": 1}}, "logn takes a length of at least 2 tokens"),
        ({"length": {"logn": 2.5}}, "logn takes a length of at least 2 tokens"),
        ({"length": {"infoscale": True}}, r"tau={length: {infoscale: True}}: infoscale takes"),
        ({"length": {"yarn": "512"}}, "yarn takes a length of at least 2 tokens"),
        ({"length": {"logn": 512, 0: 1.0}}, "logn is not a whole number of at least 0"),
        ({"query": 0}, r"tau=\{query: 0\}: 0 is not a temperature"),
        ({"layers": {0: -0.8}}, "-0.8 is not a temperature"),
        ({"layers": {0: "high"}}, "high is not a temperature"),
        ({"length": {0: float("nan")}}, "nan is not a temperature"),
        ({"document": None}, "None is not a temperature"),
    ],
)
def test_what_is_no_policy_is_refused(value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(value)


def test_lengths_by_hand() -> None:
    steps = parse({"length": {0: 1.0, 256: 0.9, 512: 0.8}})
    found = [steps.of_length(n) for n in (1, 255, 256, 257, 511, 512, 4096)]
    assert found == [1.0, 1.0, 0.9, 0.9, 0.9, 0.8, 0.8]
    logn = parse({"length": "logn"})
    assert [logn.of_length(n) for n in (0, 1, 2, 511, 512)] == [1.0] * 5
    # log 512 / log 4096 = 9 log 2 / 12 log 2
    assert logn.of_length(4096) == pytest.approx(0.75)
    assert parse({"length": {"logn": 16}}).of_length(256) == pytest.approx(0.5)
    assert logn.of_length(1000) == pytest.approx(math.log(512) / math.log(1000))
    assert parse(0.8).of_length(7) is None


def test_layers_by_hand() -> None:
    policy = parse({"layers": {0: 1.0, 2: 0.9, 3: 0.7}})
    assert policy.of_layers(5) == (1.0, 1.0, 0.9, 0.7, 0.7)
    assert parse(0.8).of_layers(2) == (0.8, 0.8)


def test_roles_by_hand() -> None:
    policy = parse({"query": 0.8, "document": 0.9}, keeps_bias=True)
    assert policy.for_role("query") == Constant(0.8, keeps_bias=True)
    assert policy.for_role("document") == Constant(0.9, keeps_bias=True)
    assert parse({"layers": {1: 0.8}}).for_role("query") == parse({"layers": {1: 0.8}})


def test_a_layer_that_the_model_does_not_have_is_refused() -> None:
    assert parse({"layers": {11: 0.8}}).resolve(BERT) == ByLayer(((0, 1.0), (11, 0.8)))
    with pytest.raises(RequestError, match="the model has no layer 12; its layers are 0 to 11"):
        parse({"layers": {12: 0.8}}).resolve(BERT)


def test_a_step_beyond_the_window_is_refused() -> None:
    assert parse({"length": {512: 0.8}}).resolve(BERT) == ByLength(((0, 1.0), (512, 0.8)))
    with pytest.raises(RequestError, match="no text has 513 tokens, since the model reads at most"):
        parse({"length": {513: 0.8}}).resolve(BERT)
    unlimited = ModelShape(layers=12, window=None, position_bias=False)
    assert parse({"length": {9999: 0.8}}).resolve(unlimited).values() == (1.0, 0.8)


@pytest.mark.parametrize(
    ("formula", "at_1024", "at_4096"),
    [("logn", 0.900, 0.750), ("infoscale", 0.954, 0.880), ("yarn", 0.875, 0.685)],
)
def test_formulas_have_the_published_values(formula: str, at_1024: float, at_4096: float) -> None:
    policy = parse({"length": formula}).resolve(LONG)
    assert policy.of_length(1024) == pytest.approx(at_1024, abs=5e-4)
    assert policy.of_length(4096) == pytest.approx(at_4096, abs=5e-4)


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_the_documentation_has_the_values_of_formulas(tokens: int) -> None:
    taus = [parse({"length": formula}).resolve(LONG).of_length(tokens) for formula in FORMULAS]
    row = f"| {tokens:,} | {' | '.join(f'{tau:.3f}' for tau in taus)} |"
    assert row in DOCS.read_text(encoding="utf-8")


@given(
    formula=st.sampled_from(FORMULAS),
    base=st.integers(2, 8191),
    head_size=st.integers(1, 256),
    tokens=st.integers(0, 10**6),
)
def test_formulas_are_1_up_to_their_base_and_fall_beyond_it(
    formula: str, base: int, head_size: int, tokens: int
) -> None:
    shape = ModelShape(layers=2, window=8192, position_bias=False, head_size=head_size)
    policy = parse({"length": {formula: base}}).resolve(shape)
    tau = policy.of_length(tokens)
    assert tau is not None
    if tokens <= base:
        assert tau == 1.0
    else:
        following = policy.of_length(tokens + 1)
        assert following is not None
        # As heads grow, InfoScale's limit is 1 - log base / log n; of few dimensions it has its
        # least value soon, and then only rounding makes a difference.
        assert 0 < following <= tau <= 1.0


def test_infoscale_takes_the_size_of_heads_from_the_model() -> None:
    policy = parse({"length": {"infoscale": 256}})
    assert policy.by_length
    small = replace(LONG, head_size=8)
    assert policy.resolve(small) == ByFormula("infoscale", 256, 8)
    assert policy.resolve(small).canonical == policy.resolve(LONG).canonical == policy.canonical
    # √((1 - 256^(-1/4)) / (1 - 4096^(-1/4))) = √((3/4) / (7/8))
    assert policy.resolve(small).of_length(4096) == pytest.approx((6 / 7) ** 0.5)
    unknown = policy.resolve(replace(LONG, head_size=None))
    with pytest.raises(RequestError, match="the size of the attention heads, which the model's"):
        unknown.of_length(4096)
    assert parse({"length": {"yarn": 256}}).resolve(LONG) == ByFormula("yarn", 256)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_at_a_window_that_it_does_not_reach_beyond_is_the_baseline(formula: str) -> None:
    assert parse({"length": formula}).resolve(BERT) == BASELINE
    within = parse({"length": {formula: 511}})
    assert within.resolve(BERT).written() == within.written() == {"length": {formula: 511}}
    assert not within.resolve(BERT).is_baseline


def test_keeping_a_bias_counts_only_where_there_is_one() -> None:
    for value, policy, _ in POLICIES[:6]:
        kept = parse(value, keeps_bias=True)
        assert kept.resolve(BERT) == policy
        assert kept.resolve(T5) == kept


def test_what_comes_to_1_for_a_model_is_the_baseline() -> None:
    for shape in (BERT, T5):
        assert parse(1.0, keeps_bias=True).resolve(shape) == BASELINE
        assert ByRole(1.0, 1.0, keeps_bias=True).resolve(shape) == BASELINE
        assert ByLayer(((0, 1.0),)).resolve(shape).is_baseline
