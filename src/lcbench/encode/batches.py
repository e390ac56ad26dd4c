"""Which texts go through the model together: by token length, under a budget of tokens."""

from collections.abc import Iterator, Sequence

# Once a batch has a quarter of its budget, a text that would bring its padding above this share
# begins the next one: smaller batches cost less than padding from there on.
_MOST_PADDING = 0.02


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
    read = 0
    for i in order:
        if batch:
            # The first text of a batch is its longest, to which the others are padded.
            padded = (len(batch) + 1) * lengths[batch[0]]
            wasteful = 1 - (read + lengths[i]) / padded > _MOST_PADDING
            if padded > budget or (wasteful and padded > budget // 4):
                yield batch
                batch, read = [], 0
        batch.append(i)
        read += lengths[i]
    if batch:
        yield batch
