"""Clusters of items that are linked by common texts, within a task or across tasks.

Queries about one document are not independent observations of retrieval quality, nor is one text in
two tasks. The bootstrap draws clusters, and the permutation test flips their signs (Miller 2024,
arXiv 2411.00640; Field and Welsh 2007).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Two tasks are of one family if at least this share of the clusters of either is common to both. A
# text such as "Thank you" that two datasets happen to contain does not make a family.
_FAMILY = 0.01

# Clusterings of the titles and of the texts of the same papers or posts: the texts differ, the
# documents are the same.
_SAME_DOCUMENTS = re.compile("P2P|S2S")


@dataclass(frozen=True)
class Shared:
    """The texts that the items of a sample share with others.

    Attributes:
        owners: index of the item, for each text that it shares, shape (links,).
        texts: digest of each of these texts, shape (links,).
        alone: identifier of each item that shares nothing, shape (items,).
    """

    owners: NDArray[np.int64]
    texts: NDArray[np.uint64]
    alone: NDArray[np.uint64]


def nothing_shared(alone: NDArray[np.uint64]) -> Shared:
    """Return items that share nothing: each one is a cluster."""
    nothing = np.zeros(0, dtype=np.int64)
    return Shared(nothing, nothing.astype(np.uint64), alone)


def numbered(count: int, *names: object) -> NDArray[np.uint64]:
    """Return 64-bit numbers that depend on names and an index only, shape (count,)."""
    start = np.uint64(digest_of_names(*names))
    return mixed(start + np.arange(count, dtype=np.uint64))


def digest_of_names(*names: object) -> int:
    """Return a 64-bit number that depends on names only."""
    content = "\0".join(map(str, names)).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return hashes of numbers, computed in place with the finaliser of SplitMix64.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    shifted = np.empty_like(numbers)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None)):
        np.right_shift(numbers, np.uint64(shift), out=shifted)
        np.bitwise_xor(numbers, shifted, out=numbers)
        if factor is not None:
            np.multiply(numbers, np.uint64(factor), out=numbers)
    return numbers


def link(samples: Sequence[Shared]) -> list[NDArray[np.uint64]]:
    """Return the cluster of each item of each sample.

    Two items belong to one cluster if they share a text, directly or through further items. A
    cluster's number depends on its texts only, so it is the same in every table and next to any
    other tasks that share nothing with it.

    Args:
        samples: samples of all tasks that are drawn together.

    Returns:
        The clusters of each sample's items, shape (items,).
    """
    counts = [len(one.alone) for one in samples]
    starts = np.cumsum([0, *counts])
    if not samples:
        return []
    owners = np.concatenate(
        [one.owners + start for one, start in zip(samples, starts, strict=False)]
    )
    found, texts = np.unique(np.concatenate([one.texts for one in samples]), return_inverse=True)
    size = int(starts[-1]) + len(found)
    links = coo_array(
        (np.ones(len(owners), dtype=np.int8), (owners, starts[-1] + texts)), shape=(size, size)
    )
    number, component = connected_components(links, directed=False)
    # Digests are sorted, so the first text of a component has the smallest digest.
    least = np.zeros(number, dtype=np.uint64)
    least[component[starts[-1] :][::-1]] = found[::-1]
    linked = np.zeros(int(starts[-1]), dtype=bool)
    linked[owners] = True
    alone = np.concatenate([one.alone for one in samples])
    clusters = np.where(linked, least[component[: starts[-1]]], alone)
    return np.split(clusters, starts[1:-1])


def families(tasks: Mapping[str, Sequence[NDArray[np.uint64]]]) -> dict[str, str]:
    """Return the family of each task: the first of the tasks that share items with it.

    A choice made on one task of a family is not independent of the other ones.

    Args:
        tasks: clusters of the items of each task, by name; at least one array per task.
    """
    if not tasks:
        return {}
    known = [np.unique(np.concatenate(clusters)) for clusters in tasks.values()]
    found, rows = np.unique(np.concatenate(known), return_inverse=True)
    columns = np.repeat(np.arange(len(known)), [len(one) for one in known])
    has = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(found), len(known))).tocsr()
    in_both = (has.T @ has).toarray()
    sizes = np.diagonal(in_both)
    bases = np.array([_SAME_DOCUMENTS.sub("", task) for task in tasks])
    near = (in_both >= _FAMILY * np.minimum.outer(sizes, sizes)) | np.equal.outer(bases, bases)
    _, family = connected_components(near, directed=False)
    names = list(tasks)
    return {
        task: names[int(np.argmax(family == of))] for task, of in zip(names, family, strict=True)
    }
