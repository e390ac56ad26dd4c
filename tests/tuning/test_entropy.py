"""Entropies of attention are matched: what is found holds when it is injected and measured."""

import numpy as np
import pytest
import torch
from exactness import ARCHITECTURES, make
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as entropy_of
from sentence_transformers import SentenceTransformer

from lcbench.errors import RequestError
from lcbench.measures.attention import attention, row_entropy
from lcbench.measures.inside import Chosen
from lcbench.measures.trace import trace
from lcbench.tempscale.heads import HeadTemperatures
from lcbench.tempscale.observe import Observation
from lcbench.tempscale.policy import ByHead
from lcbench.tuning.entropy import HIGHEST, LOWEST, TOLERANCE, match_entropy

LENGTHS = (8, 16, 40)
IDS = [list(range(3, 27)), list(range(40, 47)), [5]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_row_entropy_is_that_of_the_measures(architecture: str) -> None:
    """Also where tokens do not attend to all keys: decoders, sliding windows."""
    model = make(architecture)
    found = attention(model, IDS)
    own = [
        torch.cat([row_entropy(one, tile_bytes=size)[0] for size in (100, 2**20)])
        for one in (each.measured for each in trace(model, IDS, 1.0, lambda at: at.observation))
    ]
    tiled, whole = (torch.stack(own)[:, part].flatten() for part in (slice(0, 4), slice(4, 8)))
    assert tiled.numpy() == pytest.approx(found.entropy.to_numpy(), abs=1e-5)
    assert whole.numpy() == pytest.approx(found.entropy.to_numpy(), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5), st.floats(0.1, 8), st.integers(1, 20))
def test_row_entropy_and_its_slope_by_definition(
    seed: int, tau: float, spread: float, tokens: int
) -> None:
    logits = spread * np.random.default_rng(seed).normal(size=(2, tokens, tokens))
    tensor = torch.tensor(logits)
    observation = Observation(
        torch.nn.Identity(),
        1.0,
        2,
        tokens,
        lambda of, rows: tensor[of, rows].clone(),
        tensor,
        tensor,
    )

    def by_definition(at: float) -> np.ndarray:
        powers = np.exp(logits / at - (logits / at).max(axis=-1, keepdims=True))
        return np.asarray(entropy_of(powers, axis=-1).mean(axis=-1))

    found, slope = row_entropy(observation, torch.tensor([tau, tau], dtype=torch.float64))
    assert found.numpy() == pytest.approx(by_definition(tau), abs=1e-9)
    step = 1e-5
    change = by_definition(tau * np.exp(step)) - by_definition(tau * np.exp(-step))
    assert slope.numpy() == pytest.approx(change / (2 * step), abs=1e-4)
    assert (slope >= -1e-9).all()


@pytest.fixture(scope="module")
def chosen() -> Chosen:
    words = ["attention", "divides", "logits", "and", "a", "longer", "text", "has", "more"]
    random = np.random.default_rng(0)
    return Chosen(tuple(" ".join(random.choice(words, 60)) for _ in range(6)), LENGTHS)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "t5"])
def test_matched_entropies_are_those_of_short_texts(
    make_model, chosen: Chosen, architecture: str
) -> None:
    model = SentenceTransformer(str(make_model(architecture)), device="cpu")
    seen: list[tuple[int, int]] = []
    found = match_entropy(model, chosen, on_layer=lambda *at: seen.append(at))
    assert found.lengths == LENGTHS
    assert seen == [(tokens, layer) for tokens in LENGTHS[1:] for layer in (0, 1)]
    assert {tau for layer in found.matrices[0] for tau in layer} == {1.0}
    # Injected as one policy by length, which gives each text the temperatures of its own.
    policy = ByHead(HeadTemperatures("", None, found.matrices, found.lengths))
    entropies = {}
    for tokens in LENGTHS:
        model.max_seq_length = tokens
        for tau in (1.0, policy):
            rows = attention(model, list(chosen.texts), tau)
            assert set(rows.tokens) == {tokens}
            means = rows.groupby(["layer", "head"]).entropy.mean().to_numpy()
            entropies[tokens, tau == 1.0] = means
    target = entropies[LENGTHS[0], True]
    assert np.array_equal(entropies[LENGTHS[0], False], target)
    unmatched = 0
    for tokens, matrix in zip(LENGTHS[1:], found.matrices[1:], strict=True):
        taus = np.array(matrix).ravel()
        inside = (taus > 1.001 * LOWEST) & (taus < HIGHEST / 1.001)
        unmatched += int((~inside).sum())
        # T5 does not scale its logits: with random weights, most heads attend to one key alone.
        assert inside.mean() > (0.2 if architecture == "t5" else 0.8)
        apart = np.abs(entropies[tokens, False] - target)[inside]
        assert apart.max() <= 2 * TOLERANCE
        assert np.abs(entropies[tokens, True] - target).mean() > 20 * TOLERANCE
    assert found.unmatched == unmatched


def test_one_length_has_nothing_to_be_matched_to(make_model, chosen: Chosen) -> None:
    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    with pytest.raises(RequestError, match=r"traced_lengths=\[8\]: entropies are matched to"):
        match_entropy(model, Chosen(chosen.texts, (8,)))
