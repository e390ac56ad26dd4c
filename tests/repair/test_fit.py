"""Fitted corrections: what must hold of them exactly, for any embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from lcbench.errors import RequestError
from lcbench.repair.correction import Correction
from lcbench.repair.fit import FitError, Fitted, fit

DIMENSIONS = 12
LENGTHS = [10, 500, 30, 200, 80, 30, 400, 60, 150, 20] * 30
ALL = [
    Correction("centre"),
    Correction("centre", 4),
    Correction("abtt", 3),
    Correction("whiten"),
    Correction("whiten", 5),
]


def embeddings(count: int = 300, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in a cone, wide in some directions and narrow in others."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, DIMENSIONS)) * np.linspace(0.05, 1.0, DIMENSIONS) + 0.8
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def fitted(correction: Correction) -> Fitted:
    return fit(correction, embeddings(), LENGTHS)


@pytest.mark.parametrize("correction", ALL, ids=str)
def test_what_is_corrected_has_length_one_and_is_the_same_alone_and_in_any_order(
    correction: Correction,
) -> None:
    made, others = fitted(correction), embeddings(50, seed=1)
    lengths = LENGTHS[:50]
    whole = made.apply(others, lengths)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, rtol=1e-6)
    order = np.random.default_rng(2).permutation(50)
    mixed = made.apply(others[order], [lengths[place] for place in order])
    alone = np.concatenate(
        [made.apply(others[place : place + 1], [lengths[place]]) for place in range(50)]
    )
    np.testing.assert_array_equal(mixed, whole[order])
    np.testing.assert_array_equal(alone, whole)


@pytest.mark.parametrize("correction", ALL, ids=str)
def test_a_correction_does_not_depend_on_the_order_of_the_texts_that_it_is_fitted_on(
    correction: Correction,
) -> None:
    order = np.random.default_rng(3).permutation(300)
    other = fit(correction, embeddings()[order], [LENGTHS[place] for place in order])
    rows, lengths = embeddings(50, seed=1), LENGTHS[:50]
    expected = fitted(correction).apply(rows, lengths)
    np.testing.assert_allclose(other.apply(rows, lengths), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dimensions", [12, 384, 770])
def test_a_product_is_to_the_bit_the_same_among_any_rows(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    rows, matrix = rng.normal(size=(300, dimensions)), rng.normal(size=(dimensions, dimensions))
    made = Fitted(np.zeros((1, dimensions)), np.empty(0, dtype=np.int64), matrix)
    whole = made.mapped(rows)
    np.testing.assert_allclose(whole, rows @ matrix, rtol=1e-9, atol=1e-9)
    order = rng.permutation(300)
    # Float64 values, which show what rounding to float32 would mostly hide.
    np.testing.assert_array_equal(made.mapped(rows[order]), whole[order])
    for some in (slice(0, 1), slice(299, 300), slice(7, 71), slice(100, 265)):
        np.testing.assert_array_equal(made.mapped(rows[some]), whole[some])


@pytest.mark.parametrize("kept", [None, 5])
def test_whitened_embeddings_have_the_identity_as_covariance_on_their_fit_set(
    kept: int | None,
) -> None:
    made = fitted(Correction("whiten", kept))
    values = made.mapped(embeddings())
    assert made.shrinkage == 0
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-8)
    expected = np.eye(kept or DIMENSIONS)
    np.testing.assert_allclose(np.cov(values.T, bias=True), expected, rtol=0, atol=1e-8)


def test_whitening_keeps_the_components_of_the_largest_variance() -> None:
    whole, some = fitted(Correction("whiten")), fitted(Correction("whiten", 5))
    np.testing.assert_allclose(
        some.mapped(embeddings()), whole.mapped(embeddings())[:, :5], atol=1e-9
    )


@pytest.mark.parametrize("count", [4, DIMENSIONS])
def test_with_fewer_texts_than_dimensions_the_covariance_is_shrunk(count: int) -> None:
    made = fit(Correction("whiten"), embeddings(count))
    assert 0 < made.shrinkage <= 1
    values = made.mapped(embeddings(50, seed=1))
    # Without it, directions that the few texts do not vary in would have no scale at all.
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 1e3


def test_a_direction_that_never_varies_is_shrunk_too() -> None:
    rows = embeddings()
    rows[:, 0] = 0.0
    made = fit(Correction("whiten"), rows)
    assert made.shrinkage > 0
    assert np.isfinite(made.apply(rows)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_centring_leaves_euclidean_neighbours(seed: int) -> None:
    rows = embeddings(40, seed).astype(np.float64)
    moved = fit(Correction("centre"), rows.astype(np.float32)).mapped(rows)
    before, after = (
        NearestNeighbors(n_neighbors=10).fit(one).kneighbors(one)[1] for one in (rows, moved)
    )
    np.testing.assert_array_equal(before, after)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_a_rotation_leaves_all_cosines(seed: int) -> None:
    rows = embeddings(40, seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIMENSIONS, DIMENSIONS)))
    turned = Fitted(np.zeros((1, DIMENSIONS)), np.empty(0, dtype=np.int64), rotation).apply(rows)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=0, atol=1e-6)
    # Whitening in the basis of the components, and turned back to that of the embeddings, is the
    # same up to a rotation.
    whitened = fit(Correction("whiten"), rows)
    assert whitened.matrix is not None
    _, components = np.linalg.eigh(np.cov(rows.astype(np.float64).T, bias=True))
    back = Fitted(whitened.means, whitened.begins, whitened.matrix @ components[:, ::-1].T)
    one, other = whitened.apply(rows), back.apply(rows)
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=0, atol=1e-6)


def test_centred_embeddings_have_the_mean_zero_by_length_too() -> None:
    rows = embeddings()
    values = fitted(Correction("centre")).mapped(rows)
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-8)
    made = fitted(Correction("centre", 4))
    bins = np.searchsorted(made.begins, LENGTHS, side="right")
    assert len(made.means) == 4
    assert list(np.unique(bins)) == [0, 1, 2, 3]
    values = made.mapped(rows, LENGTHS)
    for one in range(4):
        np.testing.assert_allclose(values[bins == one].mean(axis=0), 0.0, atol=1e-8)
    # A text shorter or longer than all is in the first or the last bin.
    ends = made.mapped(rows[:2], [1, 10**6])
    np.testing.assert_allclose(ends, rows[:2] - made.means[[0, 3]], atol=1e-12)


def test_texts_of_one_length_have_one_mean() -> None:
    made = fit(Correction("centre", 4), embeddings(), [7] * 300)
    assert not made.by_length
    assert len(made.begins) == 0


@pytest.mark.parametrize("removed", [1, 3, DIMENSIONS - 1])
def test_nothing_is_left_along_the_components_that_are_removed(removed: int) -> None:
    rows = embeddings()
    values = fitted(Correction("abtt", removed)).mapped(rows)
    top = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2]
    np.testing.assert_allclose(values @ top[:removed].T, 0.0, atol=1e-6)
    centred = (rows - rows.mean(axis=0)).astype(np.float64)
    np.testing.assert_allclose(values @ top[removed:].T, centred @ top[removed:].T, atol=1e-6)


def test_the_input_is_left_alone_unless_it_is_to_be_overwritten() -> None:
    rows, made = embeddings(20, seed=4), fitted(Correction("abtt", 3))
    before = rows.copy()
    found = made.apply(rows)
    np.testing.assert_array_equal(rows, before)
    assert made.apply(rows, into=rows) is rows
    np.testing.assert_array_equal(rows, found)


def test_a_text_of_which_nothing_remains_is_zero_not_nan() -> None:
    made = fitted(Correction("centre"))
    (found,) = made.apply(made.means.astype(np.float32))
    assert np.isfinite(found).all()
    exact = Fitted(np.zeros((1, 3)), np.empty(0, dtype=np.int64), None)
    np.testing.assert_array_equal(exact.apply(np.zeros((1, 3), dtype=np.float32)), [[0, 0, 0]])


@pytest.mark.parametrize(
    ("correction", "count", "message"),
    [
        (Correction("centre"), 0, "fitted on 0 distinct texts and needs at least 2"),
        (Correction("whiten", 5), 1, "fitted on 1 distinct texts and needs at least 2"),
        (Correction("abtt", 3), 4, "fitted on 4 distinct texts and needs at least 5"),
        (Correction("centre", 5), 9, "fitted on 9 distinct texts and needs at least 10"),
    ],
)
def test_too_few_texts_are_refused(correction: Correction, count: int, message: str) -> None:
    with pytest.raises(FitError, match=message):
        fit(correction, embeddings(count), LENGTHS[:count])


@pytest.mark.parametrize(
    ("correction", "count"),
    [(Correction("abtt", 3), 5), (Correction("centre", 5), 10), (Correction("whiten"), 3)],
    ids=str,
)
def test_of_as_few_texts_as_are_needed_something_is_left(
    correction: Correction, count: int
) -> None:
    rows, lengths = embeddings(count), list(range(1, count + 1))
    left = np.linalg.norm(fit(correction, rows, lengths).mapped(rows, lengths), axis=1)
    assert left.max() > 0.01
    if correction.by_length:
        assert left.min() > 0.01


def test_a_text_is_never_its_own_mean() -> None:
    """The first of ten texts is shorter than all others, which are of three lengths."""
    rows, lengths = embeddings(10), [5, *[20] * 3, *[30] * 3, *[40] * 3]
    made = fit(Correction("centre", 5), rows, lengths)
    counts = np.bincount(np.searchsorted(made.begins, lengths, side="right"))
    assert list(counts) == [4, 3, 3]
    assert np.linalg.norm(made.mapped(rows, lengths), axis=1).min() > 0.01


@pytest.mark.parametrize("correction", ALL, ids=str)
def test_embeddings_that_are_all_alike_cannot_be_corrected(correction: Correction) -> None:
    same = np.repeat(embeddings(1), 20, axis=0)
    rounded = same * np.linspace(1, 1 + 2e-7, 20, dtype=np.float32)[:, None]
    for rows in (same, rounded):
        with pytest.raises(FitError, match="would leave hardly anything of the embeddings that"):
            fit(correction, rows, LENGTHS[:20])


def test_two_texts_cannot_be_whitened_in_all_directions() -> None:
    """Their covariance is that of each of them, so nothing says how much to shrink it."""
    with pytest.raises(FitError, match=r"of the 2 texts .* differ in fewer than 12 directions"):
        fit(Correction("whiten"), embeddings(2))
    assert fit(Correction("whiten", 1), embeddings(2)).dimensions == 1


def test_components_that_are_all_there_is_cannot_be_removed() -> None:
    """These embeddings differ in two directions only."""
    rng = np.random.default_rng(5)
    rows = (1 + rng.normal(size=(40, 2)) @ rng.normal(size=(2, DIMENSIONS))).astype(np.float32)
    fit(Correction("abtt", 1), rows)
    with pytest.raises(FitError, match="would leave hardly anything"):
        fit(Correction("abtt", 2), rows)


def test_no_embedding_at_all_is_too_few() -> None:
    with pytest.raises(FitError, match="fitted on 0 distinct texts"):
        fit(Correction("centre"), np.empty((0, 0), dtype=np.float32))


def test_more_components_than_dimensions_are_refused() -> None:
    with pytest.raises(RequestError, match="would leave nothing"):
        fit(Correction("abtt", DIMENSIONS), embeddings())
