"""Batches by token length under a budget."""

from hypothesis import given
from hypothesis import strategies as st

from lcbench.encode.batches import plan_batches


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4096))
def test_every_text_once_and_every_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(plan_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 600), max_size=200))
def test_longest_first(lengths: list[int]) -> None:
    order = [lengths[i] for batch in plan_batches(lengths, 1024) for i in batch]
    assert order == sorted(lengths, reverse=True)


def test_a_batch_is_closed_by_the_budget() -> None:
    assert list(plan_batches([10, 10, 10, 10, 10], 20)) == [[0, 1], [2, 3], [4]]
    assert list(plan_batches([], 20)) == []


def test_a_batch_is_closed_by_padding_once_it_has_a_quarter_of_the_budget() -> None:
    assert list(plan_batches([100, 100, 99, 50], 1200)) == [[0, 1, 2], [3]]
    # Below a quarter, padding is cheaper than another pass.
    assert list(plan_batches([100, 50], 1200)) == [[0, 1]]
