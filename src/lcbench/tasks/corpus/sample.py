"""Draws some of very many items in one pass, by digests: the same ones on any machine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

from lcbench.tasks.corpus.digests import number_of

T = TypeVar("T")


def draw(items: Iterable[T], count: int, key: Callable[[T], str], seed: str) -> list[T]:
    """Return `count` items in their order; those of a smaller count are among them.

    Args:
        items: any number; no more than `count` are in memory at once.
        count: how many.
        key: text that identifies an item.
        seed: of the order in which they are drawn.
    """
    kept = heapq.nsmallest(
        count,
        ((number_of(f"{seed}/{key(item)}"), place, item) for place, item in enumerate(items)),
        key=lambda one: one[:2],
    )
    return [item for _, _, item in sorted(kept, key=lambda one: one[1])]
