"""The search of temperatures: its gain is that of pairs that it has not seen."""

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lcbench.errors import RequestError
from lcbench.run import tune
from lcbench.tempscale.policy import BASELINE, ByHead, Policy, Role
from lcbench.tuning import entropy
from lcbench.tuning.options import METHODS, SearchOptions
from lcbench.tuning.pairs import Pair
from lcbench.tuning.search import (
    HIGHEST,
    LOWEST,
    SLOPES,
    Searched,
    Space,
    ndcg,
    search,
)

SPACE = Space(layers=2, heads=3, lengths=(64, 256), by_head=False)
PAIRS = [Pair(f"query {i}", f"document {i}") for i in range(60)]


class Encoder:
    """Embeds queries and documents the more alike, the nearer τ is to the best one.

    Attributes:
        calls: policy, role and texts of each call.
    """

    def __init__(self, best: float | None, noise: float = 3.0) -> None:
        self.calls: list[tuple[Policy, Role, tuple[str, ...]]] = []
        self._best = best
        self._noise = noise

    def __call__(self, policy: Policy, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        self.calls.append((policy, role, tuple(texts)))
        off = 0.0
        if self._best is not None:
            taus = np.array(policy.values())
            off = float(np.abs(np.log(taus / self._best)).mean())
        rows = []
        for text in texts:
            number = int(text.split()[1])
            random = np.random.default_rng([number, role == "query"])
            own = np.random.default_rng(number).normal(size=16)
            # Without a best temperature, noise of its own at each: chance alone chooses.
            if self._best is None:
                random = np.random.default_rng([number, zlib.crc32(policy.canonical.encode())])
            rows.append(own + (1 + 2 * off) * self._noise / 3 * random.normal(size=16))
        found = np.array(rows, dtype=np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_gain_that_is_there_is_found() -> None:
    encoder = Encoder(best=0.7)
    seen: list[tuple[int, int]] = []
    options = SearchOptions(trials=18, folds=3)
    found = search(encoder, PAIRS, SPACE, options, on_trial=lambda *at: seen.append(at))
    assert found.helps
    assert found.gain.low > 0
    assert found.matrices == found.tried
    taus = np.array(found.matrices)
    assert taus.shape == (2, 2, 3)
    assert np.abs(np.log(taus / 0.7)).mean() < np.abs(np.log(1 / 0.7)) / 2
    # Two thirds of 18 are shared; six more in each fold and on all pairs.
    assert seen == [(i + 1, 12 + 4 * 6) for i in range(36)]
    assert (found.trials, found.pairs, found.lengths) == (36, 60, (64, 256))


def test_without_a_gain_the_answer_is_1() -> None:
    found = search(Encoder(best=1.0), PAIRS, SPACE, SearchOptions(trials=9, folds=2))
    assert not found.helps
    assert {tau for one in found.matrices for layer in one for tau in layer} == {1.0}


def test_chance_alone_gives_no_gain() -> None:
    """The best of many trials looks better on the pairs that it was chosen on; not on others."""
    gains = [
        search(Encoder(best=None), PAIRS, SPACE, SearchOptions(trials=9, folds=3), seed).gain
        for seed in range(8)
    ]
    assert abs(np.mean([gain.value for gain in gains])) < 0.03
    assert sum(gain.low > 0 for gain in gains) <= 1


def test_the_same_seed_gives_the_same_temperatures() -> None:
    def searched(seed: int) -> Searched:
        return search(Encoder(0.7), PAIRS, SPACE, SearchOptions(trials=9, folds=2), seed)

    assert searched(1) == searched(1)
    assert searched(1) != searched(2)


def test_trials_that_go_by_scores_do_not_see_what_was_held_out() -> None:
    encoder = Encoder(0.7)
    search(encoder, PAIRS, SPACE, SearchOptions(trials=9, folds=3))
    sizes = [len(texts) for _, role, texts in encoder.calls if role == "document"]
    # Six shared trials, of all pairs; then each fold's three, of two thirds; then those of all.
    assert sizes[:9] == [60] * 6 + [40] * 3
    policies = [policy for policy, role, _ in encoder.calls if role == "document"]
    assert policies[0] == BASELINE
    assert [policy.values() for policy in policies[1:3]] == [(0.9,), (0.8,)]


@pytest.mark.parametrize(
    ("space", "parameters"),
    [
        (SPACE, ["tau_0", "tau_1"]),
        (Space(12, 12, (), False), [f"tau_{i}" for i in range(6)]),
        (Space(2, 2, (), True), ["tau_0_0", "tau_0_1", "tau_1_0", "tau_1_1"]),
    ],
)
def test_the_space_of_a_model(space: Space, parameters: list[str]) -> None:
    assert space.parameters == parameters
    names = np.array(space.names)
    assert names.shape == (space.layers, space.heads)
    assert list(dict.fromkeys(names.ravel())) == parameters
    assert space.policy(space.constant(1.0)) == BASELINE
    constant = space.policy(space.constant(0.8))
    assert isinstance(constant, ByHead)
    assert constant.values() == (0.8,)
    assert not constant.by_length
    assert LOWEST <= 0.8 <= HIGHEST
    assert SLOPES[0] <= 0 <= SLOPES[1]


def test_a_slope_makes_temperatures_fall_with_length() -> None:
    parameters = {"tau_0": 0.9, "tau_1": 1.0, "slope": -0.25}
    policy = SPACE.policy(parameters)
    assert isinstance(policy, ByHead)
    taus = policy.of_lengths(256)
    # τ · (n / 64)^(-1/4); 4^(-1/4) = 1/√2.
    assert taus[64] == pytest.approx(np.array([[0.9] * 3, [1.0] * 3]))
    assert taus[256] == pytest.approx(taus[64] / np.sqrt(2), abs=1e-4)
    assert taus[128] == pytest.approx(taus[64] * 2**-0.25, abs=1e-4)
    assert taus[5] == pytest.approx(taus[64])


def test_ndcg_by_hand() -> None:
    similarities = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.5, 0.5, 0.5]])
    # Ranks 1, 3, and 3 where all are alike.
    assert ndcg(similarities, np.arange(3)) == pytest.approx([1.0, 0.5, 0.5])
    many = np.arange(12.0)[None]
    assert ndcg(many, np.array([2])) == pytest.approx([1 / np.log2(11)])
    assert ndcg(many, np.array([1])) == pytest.approx([0.0])


def test_the_documentation_has_the_numbers() -> None:
    path = Path(__file__).parents[2] / "docs" / "temperatures.md"
    text = " ".join(path.read_text(encoding="utf-8").split())
    options = SearchOptions()
    shared = round(options.trials * 2 / 3)
    every = shared + (options.folds + 1) * (options.trials - shared)
    low, high = (f"{slope}".replace("-", "−") for slope in SLOPES)
    for part in (
        f"A trial has a temperature, from {LOWEST} to {HIGHEST}, for each layer",
        f"with s from {low} to {high}.",
        f"the `trials={options.trials}` do not depend",
        f"{every} trials in all",
        f"over {METHODS['entropy']} texts cut to that length",
        f"that at most {100 * (1 - tune._SHARE_IN_RANGE):.0f} % of the documents exceed",
        f"of each of {METHODS['search']} texts asks",
        f"to {entropy.TOLERANCE} nats",
        f"between {entropy.LOWEST:g} and {entropy.HIGHEST:g}; the command",
    ):
        assert part in text, part
    assert options.folds == 3  # "in each of three folds"
    assert Space(12, 1, (), by_head=False).parameters[-1] == "tau_5"  # "more than six"


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(RequestError, match="29 of the texts have a title or first sentence"):
        search(Encoder(0.7), PAIRS[:29], SPACE, SearchOptions())


def test_without_optuna_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = sys.modules  # type: ignore[assignment]
    monkeypatch.setitem(modules, "optuna", None)
    with pytest.raises(RequestError, match=r"pip install 'lcbench\[tune\]'; method=entropy does"):
        search(Encoder(0.7), PAIRS, SPACE, SearchOptions())
