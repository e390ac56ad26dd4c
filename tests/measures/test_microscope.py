"""Attention, signal and bounds by layer: what must hold, on every architecture, and on MiniLM."""

import hashlib
import itertools
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from exactness import ARCHITECTURES, REFUSED_BY_TRANSFORMERS, make
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from lcbench.errors import InjectionError, RequestError
from lcbench.measures.attention import attention, causal_sigma_a, measure_heads, sigma_a
from lcbench.measures.bounds import (
    bounds,
    of_independent_logits,
    simulate,
    theorem_3,
    theorem_3_table,
)
from lcbench.measures.signal import signal
from lcbench.measures.trace import trace

DOCS = Path(__file__).parents[2] / "docs" / "microscope.md"
# Of scipy 1.17.1, as Python 3.11 has it; the anchors were computed on it.
ANCHOR_TEXT = "d0afeab933bb96ff48d71dbcbfd939fcd04108164b243bebcc470a47c43057a1"
# tokens, layer: mean σ_a, log attention-only ratio, log block ratio, log B1, log B2.
ANCHORS = {
    (32, 0): (0.75, -1.32, 0.16, 2.30, 2.25),
    (32, 4): (1.59, -1.17, -0.08, 3.72, 3.65),
    (32, 5): (0.94, -1.06, -0.56, 2.91, 2.62),
    (128, 0): (0.73, -1.32, 0.15, 2.23, 2.25),
    (128, 4): (2.75, -1.11, -0.20, 4.27, 4.19),
    (128, 5): (1.44, -1.13, -0.89, 3.34, 3.04),
    (512, 0): (0.66, -1.41, 0.12, 2.10, 2.18),
    (512, 4): (4.25, -1.23, -0.22, 4.75, 4.68),
    (512, 5): (1.58, -1.38, -0.90, 3.45, 3.17),
}
IDS = [list(range(3, 27)), list(range(40, 47)), [5]]
BACK_ENDS = [
    (name, back_end)
    for name in ARCHITECTURES
    for back_end in ("eager", "sdpa")
    if (name, back_end) not in REFUSED_BY_TRANSFORMERS
]


@st.composite
def attentions(draw: st.DrawFn) -> np.ndarray:
    """Row-stochastic matrices: full, causal or in a window, from even to one key a row."""
    tokens = draw(st.integers(1, 90))
    spread = draw(st.sampled_from([0.0, 0.5, 2.0, 20.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = spread * random.normal(size=(tokens, tokens))
    places = np.arange(tokens)
    behind = places[:, None] - places
    mask = draw(st.sampled_from(["full", "causal", "window"]))
    if mask == "causal":
        logits[behind < 0] = -np.inf
    if mask == "window":
        logits[np.abs(behind) > 3] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(attentions())
def test_sigma_a_is_the_norm_of_the_high_frequency_part_and_within_its_bounds(
    weights: np.ndarray,
) -> None:
    tokens = len(weights)
    high = weights - weights.mean(axis=0)
    got = float(sigma_a(weights))
    norm = float(np.linalg.norm(weights))
    assert got == pytest.approx(float(np.linalg.norm(high, 2)), rel=2e-6, abs=1e-12)
    assert np.abs(high @ np.ones(tokens)).max() < 1e-12
    assert got <= math.sqrt(tokens / 2) + 1e-12
    assert got**2 <= norm**2 - 1 + 1e-9
    assert 1 - 1e-12 <= norm <= math.sqrt(tokens) + 1e-12
    assert np.linalg.norm(weights, 2) >= 1 - 1e-12


@settings(max_examples=30, deadline=None)
@given(attentions(), st.integers(0, 2**32 - 1))
def test_one_head_passes_no_more_than_theorem_2_allows(weights: np.ndarray, seed: int) -> None:
    random = np.random.default_rng(seed)
    states, values = random.normal(size=(len(weights), 6)), random.normal(size=(6, 4))
    bias = 100 * random.normal(size=4)

    def high(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(matrix - matrix.mean(axis=0)))

    left = high(weights @ (states @ values + bias))
    right = float(sigma_a(weights)) * float(np.linalg.norm(values, 2)) * high(states)
    assert left <= right * (1 + 1e-5) + 1e-9
    mean = states.mean(axis=0)
    whole = float((states**2).sum())
    assert whole == pytest.approx(len(states) * float(mean @ mean) + high(states) ** 2)


@pytest.mark.parametrize("tokens", [2, 3, 47, 49, 130])
def test_sigma_a_at_its_extremes(tokens: int) -> None:
    random = np.random.default_rng(0)
    row = random.random(tokens)
    equal = np.tile(row / row.sum(), (tokens, 1))
    sink = np.zeros((tokens, tokens))
    sink[:, 1] = 1
    halves = np.zeros((tokens, tokens))
    halves[: tokens // 2, 0] = 1
    halves[tokens // 2 :, 1] = 1
    permutation = np.eye(tokens)[random.permutation(tokens)]
    found = sigma_a(np.stack([equal, sink, permutation, halves]))
    assert found[:2] == pytest.approx([0, 0], abs=1e-7)
    assert found[2] == pytest.approx(1, rel=1e-6)
    half = tokens // 2
    assert found[3] == pytest.approx(math.sqrt(2 * half * (tokens - half) / tokens), rel=1e-6)
    assert sigma_a([[1.0]]) == 0


def test_sigma_a_takes_square_matrices_alone() -> None:
    with pytest.raises(RequestError, match=r"shape \(2, 3\): expected \(…, n, n\)"):
        sigma_a(np.ones((2, 3)))


@pytest.mark.parametrize(("architecture", "back_end"), BACK_ENDS)
def test_attention_of_every_architecture(architecture: str, back_end: str) -> None:
    """Weights times values are what the layer returned, or `attention` raises."""
    model = make(architecture)
    model.set_attn_implementation(back_end)
    got = attention(model, IDS, [1.0, 0.7])
    assert len(got) == 2 * len(IDS) * 2 * 4
    assert not got.isna().any(axis=None)
    assert set(got[got["policy"] == "0.7"]["tau"]) == {0.7}
    alone = got[got["tokens"] == 1]
    assert (alone[["sigma_a", "entropy"]].abs() < 1e-6).all(axis=None)
    # The first layer's logits are the same at either temperature, divided by it.
    first = got[(got["layer"] == 0) & (got["tokens"] > 1)]
    spread = first.pivot(index=["text", "head"], columns="policy", values="sigma_s_in_rows")
    assert np.allclose(spread["0.7"] * 0.7, spread["1"], rtol=1e-4)
    assert (first["entropy"] <= np.log(first["tokens"]) + 1e-6).all()


@pytest.mark.parametrize("architecture", ["BERT", "MPNet", "DeBERTa-v2", "Mistral", "Gemma 2"])
def test_weights_are_those_of_the_formula(architecture: str) -> None:
    """Of eager layers, transformers returns them; windows, caps and biases included."""
    model = make(architecture)
    model.set_attn_implementation("eager")
    ids = torch.tensor(IDS[:1])
    with torch.no_grad():
        shown = model(ids, attention_mask=torch.ones_like(ids), output_attentions=True).attentions
    got = attention(model, IDS[:1])
    for layer, weights in enumerate(shown):
        exact = weights[0].double()
        rows = got[got["layer"] == layer]
        assert rows["sigma_a"].to_numpy() == pytest.approx(sigma_a(exact), rel=1e-4)
        entropy = -torch.special.xlogy(exact, exact).sum(-1).mean(-1)
        assert rows["entropy"].to_numpy() == pytest.approx(entropy.numpy(), rel=1e-4, abs=1e-5)
        first = exact[:, :, 0].mean(dim=1)
        assert rows["first"].to_numpy() == pytest.approx(first.numpy(), rel=1e-4)
        # Even attention to all tokens that get any.
        even = (exact > 0).double()
        of_mask = sigma_a(even / even.sum(dim=-1, keepdim=True))
        beyond = rows["sigma_a"] - rows["beyond_mask"]
        assert beyond.to_numpy() == pytest.approx(of_mask, abs=2e-5)
        norm = torch.linalg.matrix_norm(exact)
        assert rows["norm"].to_numpy() == pytest.approx(norm.numpy(), rel=1e-4)


def test_tiles_change_nothing() -> None:
    for architecture in ("BERT", "Mistral", "T5"):
        model = make(architecture)

        def both(attended: object) -> tuple[object, object, object]:
            observation = attended.observation  # type: ignore[attr-defined]
            size = observation.tokens**2 * 4
            return (
                measure_heads(observation),
                measure_heads(observation, weights_bytes=3 * size, tile_bytes=size // 3),
                measure_heads(observation, heads=[2, 0], weights_bytes=1, tile_bytes=1),
            )

        for one in trace(model, IDS[:2], 0.9, both):
            whole, tiled, few = one.measured
            for name in (field.name for field in fields(whole)):
                want = getattr(whole, name)
                assert getattr(tiled, name) == pytest.approx(want, rel=1e-5)
                assert getattr(few, name) == pytest.approx(want[[2, 0]], rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logs_of_steps_add_up_to_the_block(architecture: str) -> None:
    model = make(architecture)
    got = signal(model, IDS[:2], 0.8)
    by_part = got.groupby(["text", "layer", "part"])["log_ratio"].sum().unstack("part")
    assert by_part["stream"].to_numpy() == pytest.approx(by_part["block"].to_numpy(), abs=1e-9)
    # A model's own hidden states, of the embeddings and after the first layer.
    ids = torch.tensor(IDS[:1])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    sizes = [float((one[0] - one[0].mean(0)).double().norm()) for one in states[:2]]
    block = got[(got["part"] == "block") & (got["layer"] == 0) & (got["text"] == 0)]
    baseline = signal(model, IDS[:1], layers=[0])
    first = baseline[baseline["part"] == "block"]["log_ratio"].item()
    assert first == pytest.approx(math.log(sizes[1] / sizes[0]), abs=1e-4)
    assert block["log_ratio"].item() != pytest.approx(first, abs=1e-6)
    steps = got[(got["part"] == "stream") & (got["layer"] == 0) & (got["text"] == 0)]["step"]
    normalised = [step for step in steps if step.endswith("normalised")]
    pre = ("T5", "ModernBERT", "Qwen", "Mistral", "Llama", "Gemma")
    assert len(normalised) == (0 if architecture.startswith(pre) else 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bounds_that_must_hold_do(architecture: str) -> None:
    got = bounds(make(architecture), IDS[:2], [1.0, 0.5])
    assert len(got) == 2 * 2 * 2
    assert (got["attention"] <= got["summed"] + 1e-6).all()
    assert (got["attention"] <= got["stacked"] + 1e-6).all()


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder))


def anchor_texts(minilm: SentenceTransformer) -> list[list[int]]:
    text = scipy.stats.ttest_ind.__doc__
    if hashlib.sha256(text.encode()).hexdigest() != ANCHOR_TEXT:
        pytest.skip("this release of scipy documents ttest_ind in other words")
    ids = minilm.tokenizer(text, verbose=False)["input_ids"]
    return [[*ids[: tokens - 1], ids[-1]] for tokens in (32, 128, 512)]


def test_anchors_on_minilm(minilm: SentenceTransformer) -> None:
    texts = anchor_texts(minilm)
    got = bounds(minilm, texts, layers=[0, 4, 5])
    columns = ["sigma_a", "attention", "block", "summed", "stacked"]
    found = {(row["tokens"], row["layer"]): row[columns] for _, row in got.iterrows()}
    assert found.keys() == ANCHORS.keys()
    for place, want in ANCHORS.items():
        # Printed to two digits.
        assert found[place].to_list() == pytest.approx(want, abs=0.0051), place
    assert (got["stacked"] - got["attention"]).between(3.5, 6.1).all()


def table_of_docs(header: str) -> list[list[str]]:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith(header)) + 2 :]
    cells = [line.strip("|").split("|") for line in itertools.takewhile(str.strip, rows)]
    return [[cell.strip() for cell in row] for row in cells]


def test_the_docs_have_the_numbers_of_minilm(minilm: SentenceTransformer) -> None:
    texts = anchor_texts(minilm)
    measured = attention(minilm, texts, [1.0, 0.8, 0.5], layers=[5])
    means = measured.groupby(["policy", "tokens"])["sigma_a"].mean()
    for tau, *numbers in table_of_docs("| τ |"):
        assert [float(one) for one in numbers] == pytest.approx(means[tau].to_list(), abs=0.0051)
    logs = signal(minilm, texts[2:], layers=[0, 4, 5])
    for step, *numbers in table_of_docs("| step |"):
        part = {"block": "block", "attention alone": "branch"}.get(step, "stream")
        name = "attention" if part == "branch" else step
        want = logs[(logs["part"] == part) & (logs["step"] == name)]["log_ratio"]
        assert [float(one) for one in numbers] == pytest.approx(want.to_list(), abs=0.0051)
    table = theorem_3_table()
    columns = ["sigma_s", "tokens", "independent", "approached", "theorem_3", "products"]
    shown = np.array(table_of_docs("| σ_s | n |"), dtype=float)
    assert shown == pytest.approx(table[columns].to_numpy(dtype=float), abs=6e-4)


@pytest.mark.parametrize("tokens", [128, 1024])
def test_independent_logits_are_as_their_formula_says(tokens: int) -> None:
    found = [simulate(0.5, tokens, seed=seed) for seed in range(8)]
    mean = np.mean([one.sigma_a for one in found])
    # A single one is up to 7 % off at n = 128, where one ‖A‖_F² is up to 1 % off.
    assert mean == pytest.approx(of_independent_logits(0.5, tokens), rel=0.05)
    assert np.mean([one.norm**2 for one in found]) == pytest.approx(math.exp(0.25), rel=0.01)


def test_a_causal_mask_has_a_sigma_of_its_own() -> None:
    found = [causal_sigma_a(n) for n in (1, 2, 32, 128, 512, 1024)]
    assert found[:2] == pytest.approx([0, 0.5], abs=1e-6)
    # It rises, and keeps below the norm of Cesàro's operator.
    assert found[2:5] == pytest.approx([1.121, 1.333, 1.488], abs=1e-3)
    assert found == sorted(found)
    assert found[-1] < 2
    assert simulate(0.0, 128, causal=True).sigma_a == pytest.approx(causal_sigma_a(128), rel=1e-5)


def test_independent_logits_have_about_as_much_as_the_mask_or_more_on_average() -> None:
    for row in table_of_docs("| n | even attention |"):
        n, *shown = (float(cell.partition(" ")[0]) for cell in row)
        even = causal_sigma_a(int(n))
        assert shown[0] == pytest.approx(even, abs=0.0051)
        less = [int(cell.partition("(")[2].partition(" ")[0]) for cell in row[2:]]
        for spread, mean, below in zip((0.5, 1.0, 2.0), shown[1:], less, strict=True):
            drawn = [simulate(spread, int(n), causal=True, seed=one).sigma_a for one in range(20)]
            assert mean == pytest.approx(np.mean(drawn), abs=0.0051)
            assert mean > even + 0.05 * (spread - 0.5) - 0.01
            # A single draw of little spread may have less.
            assert below == sum(one < even for one in drawn)
            assert (below > 0) == (spread < 2)


def test_theorem_3_is_exceeded_as_its_table_says() -> None:
    table = theorem_3_table().set_index(["sigma_s", "tokens"])
    expected = {
        (0.5, 128): (0.188, False),
        (0.5, 1024): (0.111, False),
        (1.0, 128): (0.205, True),
        (1.0, 1024): (0.121, True),
        (2.0, 128): (0.211, True),
        (2.0, 1024): (0.125, True),
        (3.0, 128): (0.211, True),
        (3.0, 1024): (0.125, True),
    }
    got = {place: (round(row.theorem_3, 3), row.exceeded) for place, row in table.iterrows()}
    assert got == expected
    assert (table["norm"] >= 1).all()
    # Products of queries and keys fall to a floor only.
    assert (table["products"] > table["floor"]).all()
    assert theorem_3(1.0, 1024) < theorem_3(1.0, 128)
    with pytest.raises(RequestError, match="a standard deviation is at least 0"):
        theorem_3(-1.0, 10)


def test_bad_requests_are_refused_in_one_message() -> None:
    model = make("BERT")
    with pytest.raises(RequestError, match="layer 2 is not in the model, which has 2: choose"):
        attention(model, IDS, layers=[0, 2])
    with pytest.raises(RequestError, match="head 4 is not in the model, which has 4: choose"):
        attention(model, IDS, heads=[4])
    with pytest.raises(RequestError, match=r"layers=\[\] selects none"):
        signal(model, IDS, layers=[])
    with pytest.raises(RequestError, match="at least one text"):
        attention(model, [])
    with pytest.raises(RequestError, match="pass tokenizer=…, or token ids"):
        attention(model, ["a text"])
    with pytest.raises(RequestError, match=r"24 tokens need .* shorter texts"):
        attention(model, IDS, memory=1e-6)
    with pytest.raises(InjectionError, match=r"holds 0 transformers.*lcbench\.collapse measures"):
        attention(torch.nn.Linear(2, 2), IDS)
    with pytest.raises(InjectionError, match="is no loaded model"):
        attention("bert", IDS)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(InjectionError, match="load it with attn_implementation='sdpa' or 'eager'"):
        attention(model, IDS)


def test_a_model_is_left_as_it_was() -> None:
    model = make("Qwen3").train()
    names = set(vars(model)), {name: len(m._forward_hooks) for name, m in model.named_modules()}
    bounds(model, IDS[:1], {"length": "logn"})
    assert (set(vars(model)), {n: len(m._forward_hooks) for n, m in model.named_modules()}) == names
    assert model.training
    assert model.config.use_cache
