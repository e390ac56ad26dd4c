"""Averaging of models that do not pool by the mean: weights of sentences, and the verdict."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from collapse_texts import COMMON, OPTIONS, SIZE, texts, vector, words
from numpy.typing import NDArray

from lcbench.errors import RequestError
from lcbench.measures.collapse import Collapse, Embeddings, Prepared, measure, prepare
from lcbench.measures.crowding import (
    CONDITIONS,
    Condition,
    Verdict,
    Weighted,
    averaged_cosine,
    crowding,
)
from lcbench.measures.sentences import sentences_of
from lcbench.measures.weighting import Weights, fit_weights, pools_by_mean, weights_of


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
    assert verdict.weighted is not None
    assert verdict.weighted.effective == pytest.approx(1, abs=0.05)
    assert verdict.weighted.explained > 0.99
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
    said = str(verdict)
    assert "weighted as the model weights them (it does not pool by the mean; as much as 1." in said
    assert verdict.weighted is not None
    assert f"explain {100 * verdict.weighted.explained:.0f} % of the embeddings' variance" in said


def told(
    cosine: float, seed: int = 0, own: float = 1.0, shares: tuple[float, ...] = (1 / 8,) * 8
) -> tuple[Verdict, Weighted]:
    """Return the verdict on 60 texts of 8 independent sentences with a mean cosine of 0.10.

    Args:
        cosine: mean cosine of the texts.
        seed: of the random numbers.
        own: share of the texts' variance that is of no sentence.
        shares: weights of the sentences in the rest.
    """
    random = np.random.default_rng(seed)
    common = np.eye(256)[0]

    def drawn(*shape: int) -> NDArray[np.float64]:
        rows = random.standard_normal((*shape, 255))
        rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
        return np.concatenate([np.zeros((*shape, 1)), rows], axis=-1)

    sentences = np.sqrt(0.1) * common + np.sqrt(0.9) * drawn(60, 8)
    held = np.einsum("i,tid->td", shares, sentences - np.sqrt(0.1) * common)
    held /= np.linalg.norm(held, axis=1, keepdims=True)
    held = np.sqrt(own) * drawn(60) + np.sqrt(1 - own) * held
    joined = np.sqrt(cosine) * common + np.sqrt(1 - cosine) * held
    whole: dict[Condition, dict[int, NDArray[np.float64]]] = {
        name: {8: joined} for name in CONDITIONS
    }
    means: dict[Condition, dict[int, NDArray[np.float64]]] = {
        name: {8: sentences.mean(axis=1)} for name in CONDITIONS
    }
    parts: dict[Condition, dict[int, NDArray[np.float64]]] = {
        name: {8: sentences} for name in CONDITIONS
    }
    verdict = crowding(sentences[:, 0], whole, means, 1_000, 0, parts).verdict
    assert verdict.weighted is not None
    return verdict, verdict.weighted


@pytest.mark.parametrize("seed", range(6))
def test_weights_that_explain_nothing_exclude_no_collapse(seed: int) -> None:
    """The cosine has doubled, and no sentence is in the texts: averaging cannot be why."""
    verdict, weighted = told(0.2, seed)
    assert weighted.explained < 0.01
    assert verdict.collapses == "cannot be told"
    # At the ends all sentences count alike, or one alone.
    equal = averaged_cosine(0.1, 8)
    assert weighted.lowest.value == pytest.approx(0.2 - equal, abs=0.01)
    assert weighted.highest.value == pytest.approx(0.1, abs=0.01)


def test_what_holds_whatever_the_weights_is_said_though_they_explain_little() -> None:
    last = (0.0,) * 7 + (1.0,)
    # By the weights alone length itself would be above 0.1.
    verdict, weighted = told(0.3, own=0.9, shares=last)
    assert verdict.length.low > 0.1
    assert weighted.explained == pytest.approx(0.1, abs=0.03)
    assert verdict.collapses == "cannot be told"
    # Closer than by averaging of all, and no closer than one sentence.
    assert told(0.7, own=0.9, shares=last)[0].collapses == "yes"
    assert told(0.08, own=0.9, shares=last)[0].collapses == "no"


@pytest.mark.parametrize("own", [0.2, 0.5])
def test_what_belongs_to_no_sentence_is_not_averaged(own: float) -> None:
    """Averages of such texts have so many fewer effective sentences, and no excess over that."""
    shares = (0.0,) * 4 + (0.25,) * 4
    verdict, weighted = told(averaged_cosine(0.1, 4 * (1 - own)), own=own, shares=shares)
    assert weighted.effective == pytest.approx(4, abs=0.2)
    assert weighted.explained == pytest.approx(1 - own, abs=0.05)
    assert weighted.highest.value == pytest.approx(0, abs=0.02)
    assert weighted.lowest.value < verdict.length.value < -0.02


def test_weights_are_those_of_each_sample() -> None:
    random = np.random.default_rng(2)
    parts = random.standard_normal((40, 3, 8)) + 2
    joined = np.einsum("i,tid->td", (0.1, 0.2, 0.7), parts) + random.standard_normal((40, 8))
    drawn = random.multinomial(40, np.full(40, 1 / 40), size=300).astype(np.float64)
    shares, explained = fit_weights(parts, joined, drawn)
    assert shares.shape == (300, 3)
    for place in (0, 255, 256, 299):
        taken = np.repeat(np.arange(40), drawn[place].astype(int))
        alone = weights_of(parts[taken], joined[taken])
        assert shares[place] == pytest.approx(alone.shares, abs=1e-9)
        assert explained[place] == pytest.approx(alone.explained, abs=1e-9)
    assert shares.std(axis=0).min() > 0.01


def test_sentences_that_do_not_match_are_refused() -> None:
    rows = np.random.default_rng(0).random((40, SIZE))
    whole: dict[Condition, dict[int, NDArray[np.float64]]] = {
        name: {2: rows} for name in CONDITIONS
    }
    parts = {name: {2: np.stack([rows, rows, rows], axis=1)} for name in CONDITIONS}
    with pytest.raises(RequestError, match=r"sentences\['sequential'\]\[2\] has the shape \(40, 3"):
        crowding(rows, whole, whole, sentences=parts)


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
