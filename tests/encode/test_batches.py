"""Batches by token length: within the budget, and none cheaper."""

import time
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbench.encode.batches import plan_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
# As on a CPU.
BUDGET, OVERHEAD = 4096, 32


def padded(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


def cost(batches: Sequence[Sequence[int]], lengths: Sequence[int], overhead: int) -> int:
    return padded(batches, lengths) + overhead * len(batches)


def cheapest(lengths: Sequence[int], budget: int, overhead: int) -> int:
    """Return the least cost of all ways to cut the sorted texts into batches."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    costs = []
    for cuts in range(len(order)):
        for places in combinations(range(1, len(order)), cuts):
            edges = [0, *places, len(order)]
            batches = [order[a:b] for a, b in pairwise(edges)]
            if all(len(one) == 1 or padded([one], lengths) <= budget for one in batches):
                costs.append(cost(batches, lengths, overhead))
    return min(costs, default=0)


@given(LENGTHS, st.integers(1, 4096), st.integers(0, 5000))
def test_every_text_once_and_every_batch_within_the_budget(
    lengths: list[int], budget: int, overhead: int
) -> None:
    batches = plan_batches(lengths, budget, overhead)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert padded([batch], lengths) <= budget or len(batch) == 1


@given(LENGTHS, st.integers(0, 5000))
def test_longest_first_and_equal_lengths_in_their_order(lengths: list[int], overhead: int) -> None:
    order = [i for batch in plan_batches(lengths, 1024, overhead) for i in batch]
    assert order == sorted(range(len(lengths)), key=lambda i: -lengths[i])


@given(
    st.lists(st.integers(1, 12), max_size=10) | st.lists(st.sampled_from([3, 4, 9]), max_size=10),
    st.integers(1, 50),
    st.integers(0, 20),
)
def test_no_other_cut_is_cheaper(lengths: list[int], budget: int, overhead: int) -> None:
    batches = plan_batches(lengths, budget, overhead)
    assert cost(batches, lengths, overhead) == cheapest(lengths, budget, overhead)


def test_what_decides_where_a_batch_ends() -> None:
    assert plan_batches([], 20, 32) == []
    # The budget; a text beyond it is alone.
    assert plan_batches([10, 10, 30, 10], 20, 32) == [[2], [0, 1], [3]]
    # 50 tokens of padding against what another batch costs.
    assert plan_batches([100, 50], 1200, 51) == [[0, 1]]
    assert plan_batches([100, 50], 1200, 49) == [[0], [1]]
    # The sixth text of 10 tokens fits only beside the 12: 2 of padding instead of a batch.
    assert plan_batches([12, 10, 10, 10, 10, 10, 10], 50, 32) == [[0, 1], [2, 3, 4, 5, 6]]
    # A text of no token has a place all the same.
    assert plan_batches([0, 0, 5], 2, 0) == [[2], [0, 1]]


def test_texts_of_one_length_are_spread_evenly() -> None:
    assert [len(batch) for batch in plan_batches([10] * 10, 40, 32)] == [4, 3, 3]
    # Shorter ones at the end of the last of these batches count among them.
    sizes = [len(batch) for batch in plan_batches([10] * 9 + [9], 40, 32)]
    assert sizes == [4, 3, 3]


def docstrings() -> tuple[list[int], list[int]]:
    """Lengths like those of the suite `docs`: summary lines and what follows them."""
    random = np.random.default_rng(0)
    return random.integers(5, 61, 400).tolist(), random.integers(100, 513, 400).tolist()


def sentences(count: int) -> list[int]:
    """Lengths like those of sentences that are compared with one another, and of queries."""
    return np.random.default_rng(0).integers(8, 41, count).tolist()


@pytest.mark.parametrize(
    "lengths",
    [*docstrings(), [*docstrings()[0], *docstrings()[1]], sentences(2000), sentences(800)],
)
def test_less_than_three_per_cent_is_padding(lengths: list[int]) -> None:
    assert 1 - sum(lengths) / padded(plan_batches(lengths, BUDGET, OVERHEAD), lengths) < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_few_texts_pad_less_than_the_batches_cost_that_would_spare_it(seed: int) -> None:
    """24 queries have too few tokens for batches of one length: padding buys fewer batches.

    What is asserted: padding and batches together cost less than both one batch for all and a batch
    for each length, and less than a fifth of what is read is padding (measured: up to 16 %).
    """
    lengths = np.random.default_rng(seed).integers(8, 41, 24).tolist()
    batches = plan_batches(lengths, BUDGET, OVERHEAD)
    extra = cost(batches, lengths, OVERHEAD) - sum(lengths)
    assert extra < 24 * max(lengths) + OVERHEAD - sum(lengths)
    assert extra < OVERHEAD * len(set(lengths))
    assert 1 - sum(lengths) / padded(batches, lengths) < 0.2


def test_planning_takes_no_time_to_speak_of() -> None:
    # Measured: 0.02 to 0.04 s, by the budget.
    lengths = np.random.default_rng(0).permutation(np.arange(1, 4097)).tolist()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        plan_batches(lengths, 65536, 4000)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1
