"""Groups texts into batches by token length, under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def plan_batches(lengths: Sequence[int], budget: int, overhead: int) -> list[list[int]]:
    """Return batches of indices, longest texts first, each at most `budget` tokens with padding.

    Of all ways to cut the texts, sorted by length, into such batches, it is one that costs least:
    padded tokens + `overhead` × batches. A text longer than the budget is a batch of its own.
    Texts of one length are spread evenly over the batches that they need. The plan depends on the
    lengths alone (equal lengths keep their order): the same texts always make the same batches.

    Args:
        lengths: tokens of each text.
        budget: tokens of one batch, padding included.
        overhead: fixed cost of a batch, in tokens.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    # A text without any token still takes a row in its batch.
    ordered = np.maximum(np.asarray(lengths, dtype=np.int64)[order], 1)
    texts = len(ordered)
    positions = np.arange(texts + 1)
    # Where a new length begins, and the end.
    bounds = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), texts] if texts else [0]
    # least[i]: what the texts from position i on cost.
    least = np.zeros(texts + 1, dtype=np.int64)
    for start, end in zip(bounds[-2::-1], bounds[:0:-1], strict=True):
        length = int(ordered[start])
        most = max(1, budget // length)
        # A batch that begins within start…end costs `length` a text. If more than `most` texts are
        # left of this length, full batches of them come first, and only the last one takes shorter
        # texts too: it ends at one of these positions.
        ends = slice(end, min(end + most, texts + 1))
        costs = length * positions[ends] + least[ends]
        if end - start == 1:
            # What the lines below come to for a single text: with 4,096 lengths, in less than half
            # of the time.
            least[start] = overhead + costs.min() - length * start
            continue
        best = np.minimum.accumulate(costs)
        left = end - positions[start:end]
        full = (left - 1) // most
        room = np.minimum(most - (left - full * most), len(best) - 1)
        least[start:end] = (full + 1) * overhead + best[room] - length * positions[start:end]
    sizes: list[int] = []
    start = 0
    for end in bounds[1:]:
        if start >= end:
            continue
        length = int(ordered[start])
        most = max(1, budget // length)
        count = (end - start - 1) // most + 1
        ends = slice(end, min(start + count * most, texts) + 1)
        taken = end - start + int(np.argmin(length * positions[ends] + least[ends]))
        # The last of them holds all that are shorter: they are fewer than an even share, since full
        # batches of the longer ones left it at least one of those.
        sizes += [taken // count + (i < taken % count) for i in range(count)]
        start += taken
    edges = np.cumsum(sizes)[:-1]
    return [batch.tolist() for batch in np.split(order, edges)] if texts else []


def fill_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of indices, longest texts first, each of at most `budget` tokens.

    For texts without padding between them. A text longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each text.
        budget: tokens of one batch.
    """
    batches: list[list[int]] = []
    room = 0
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        if lengths[index] > room or not batches:
            batches.append([])
            room = budget
        batches[-1].append(index)
        room -= lengths[index]
    return batches
