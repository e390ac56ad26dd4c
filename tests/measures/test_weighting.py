"""Averaging of models that do not pool by the mean: weights of sentences, and the verdict."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from collapse_texts import COMMON, OPTIONS, texts, vector, words
from numpy.typing import NDArray

from lcbench.measures.collapse import Collapse, Embeddings, Prepared, measure, prepare
from lcbench.measures.crowding import averaged_cosine
from lcbench.measures.sentences import sentences_of
from lcbench.measures.weighting import Weights, pools_by_mean, weights_of


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(texts(), words, 120, OPTIONS)


def measured(prepared: Prepared, power: float, pull: float = 0.0) -> Collapse:
    """Measure a model that counts sentence i of k as (i / k)^power, drawn together by `pull`."""

    def embed(some: Any) -> NDArray[np.float32]:
        rows = []
        for text in some:
            parts = sentences_of(text) or [text]
            shares = (np.arange(1, len(parts) + 1) / len(parts)) ** power
            mean = shares @ np.array([vector(one) for one in parts])
            rows.append(mean / np.linalg.norm(mean) + pull * np.log2(len(parts)) * COMMON)
        return np.array(rows, dtype=np.float32)

    return measure(prepared, Embeddings(prepared, embed, by_mean=False))


@pytest.mark.parametrize("shares", [(0.25,) * 4, (0.0, 0.0, 0.0, 1.0), (0.5, 0.1, 0.1, 0.3)])
def test_weights_are_found_and_give_the_cosine_of_their_averages(shares: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    parts = random.standard_normal((300, 4, 64))
    parts /= np.linalg.norm(parts, axis=-1, keepdims=True)
    parts = np.sqrt(0.3) * np.eye(65)[64] + np.sqrt(0.7) * np.pad(parts, ((0, 0), (0, 0), (0, 1)))
    means = np.einsum("i,tid->td", shares, parts)
    joined = means / np.linalg.norm(means, axis=1, keepdims=True)
    found = weights_of(parts, joined)
    assert found.shares == pytest.approx(shares, abs=0.02)
    assert found.explained > 0.99
    cosines = joined @ joined.T
    mean = (cosines.sum() - len(parts)) / (len(parts) * (len(parts) - 1))
    assert averaged_cosine(0.3, found.effective) == pytest.approx(mean, abs=0.01)
    # Of all weights equal ones average most.
    assert found.effective <= 4 + 1e-9


def test_a_common_direction_changes_no_weights_and_noise_has_none() -> None:
    random = np.random.default_rng(1)
    parts = random.standard_normal((100, 3, 32))
    joined = np.einsum("i,tid->td", (0.2, 0.3, 0.5), parts)
    plain = weights_of(parts, joined)
    assert weights_of(parts, joined + 50).shares == pytest.approx(plain.shares, abs=1e-9)
    assert plain.explained == pytest.approx(1, abs=1e-9)
    # The opposite of every sentence holds none of them: all count alike.
    against = weights_of(parts, -joined)
    assert against == Weights((1 / 3,) * 3, 0.0)


def test_a_model_of_the_last_sentence_does_not_average(prepared: Prepared) -> None:
    found = measured(prepared, 40.0)
    assert found.crowding is not None
    verdict = found.crowding.verdict
    assert verdict.effective == pytest.approx(1, abs=0.05)
    assert verdict.averaging.value == pytest.approx(0, abs=0.02)
    assert verdict.length.value == pytest.approx(0, abs=0.01)
    assert verdict.collapses == "no"
    (last,) = (
        one.weights for one in found.weights if (one.condition, one.sentences) == ("random", 8)
    )
    assert last.shares[-1] == pytest.approx(1, abs=0.05)


def test_a_collapse_is_seen_that_equal_weights_would_hide(prepared: Prepared) -> None:
    found = measured(prepared, 40.0, pull=0.15)
    assert found.crowding is not None
    verdict = found.crowding.verdict
    assert verdict.collapses == "yes"
    assert verdict.length.low > 0.05
    parts = verdict.averaging.value + verdict.content.value + verdict.length.value
    assert parts == pytest.approx(verdict.rise.value, abs=1e-12)
    equal = averaged_cosine(verdict.single.value, 8)
    assert verdict.joined.value < equal
    assert "weighted as the model weights them (it does not pool by the mean; as much as 1." in str(
        verdict
    )


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_model_that_only_averages_does_not_collapse(prepared: Prepared, power: float) -> None:
    found = measured(prepared, power)
    assert found.crowding is not None
    assert found.crowding.verdict.length.value == pytest.approx(0, abs=0.01)
    assert found.crowding.verdict.collapses == "no"


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["mean"], True),
        (["cls"], False),
        (["lasttoken"], False),
        ([], False),
        (["mean", "lasttoken"], False),
        ([("mean", "max")], False),
    ],
)
def test_which_models_pool_by_the_mean(modes: list[Any], expected: bool) -> None:
    parts = [SimpleNamespace(pooling_mode=mode) for mode in modes]
    model = SimpleNamespace(modules=lambda: iter([SimpleNamespace(), *parts]))
    assert pools_by_mean(model) is expected
