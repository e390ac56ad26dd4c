"""Which texts go through the model together: by token length, under a budget of tokens."""

from collections.abc import Iterator, Sequence


def plan_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield batches of indices, longest texts first, each at most `budget` tokens with padding.

    A text longer than the budget is a batch of its own. The order depends on the lengths alone
    (equal lengths keep their order), so that the same texts always make the same batches.

    Args:
        lengths: tokens of each text.
        budget: tokens of one batch, padding included.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        # The first text of a batch is its longest, to which the others are padded.
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
