"""Selects the docstrings of the docs suite by its sizes, and computes their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain, zip_longest

from lcbench.errors import RequestError
from lcbench.tasks.docs.docstrings import LIBRARIES, Docstring, collect

# A document is long if it has more words than this.
LONG_WORDS = 512
# The fewest documents of a selected module, so that each has at least three other candidates.
_FEWEST_OF_A_MODULE = 4
# The fewest documents of a cluster.
_FEWEST_OF_A_CLUSTER = 5


# The window assumed for a model without a limit (T5).
_WINDOW_WITHOUT_LIMIT = 512
# The fewest tokens of a synthetic document, of which the hidden fact is about a third.
SHORTEST = 64
# Longer default documents are worth a remark: they take most of a run's time.
_LONG_TOKENS = 2048


@dataclass(frozen=True)
class SyntheticSizes:
    """Sizes of the synthetic tasks (passkey and needle).

    Attributes:
        lengths: document lengths in tokens, ascending; None: a quarter, half and all of the window.
        documents: number of documents per length, each with a query.
    """

    lengths: tuple[int, ...] | None
    documents: int

    def at(self, window: int | None) -> SyntheticSizes:
        """Return the sizes for a model's window, with lengths as numbers, none if too short.

        Args:
            window: in tokens; None: not limited.
        """
        if self.lengths is not None:
            return self
        whole = window or _WINDOW_WITHOUT_LIMIT
        parts = (whole // 4, whole // 2, whole)
        return replace(self, lengths=tuple(part for part in parts if part >= SHORTEST))

    def describe_long(self, model: str, window: int | None) -> str | None:
        """Return a remark about long documents whose lengths depend on the window, or None.

        Args:
            model: its name.
            window: of the model, in tokens; None: not limited.

        Returns:
            The remark; None if they are not long, or the lengths were requested.
        """
        lengths = self.at(window).lengths or ()
        if self.lengths is not None or max(lengths, default=0) <= _LONG_TOKENS:
            return None
        listed = ", ".join(f"{length:,}" for length in lengths)
        return (
            f"docs.synthetic_lengths=auto: with the window of {model}, needle and passkey tasks "
            f"have documents of {listed} tokens; docs.synthetic_lengths=[512,1024,2048] is faster"
        )


@dataclass(frozen=True)
class DocsSizes:
    """Sizes of the docs suite; each is part of its identity.

    Attributes:
        documents: documents of the retrieval task, shared by classification, clustering and
            reranking.
        documents_per_module: most documents from one module.
        long_documents: documents of more than 512 words.
        clustering_sets: number of clusterings whose v-measures are averaged.
        clustering_share: share of the documents drawn for each clustering, in (0, 1].
        synthetic: sizes of the synthetic tasks.
    """

    documents: int
    documents_per_module: int
    long_documents: int
    clustering_sets: int
    clustering_share: float
    synthetic: SyntheticSizes

    def at(self, window: int | None) -> DocsSizes:
        """Return the sizes for a model's window (in tokens; None: not limited)."""
        return replace(self, synthetic=self.synthetic.at(window))


@dataclass(frozen=True)
class Selection:
    """The texts of the docs suite's tasks.

    Attributes:
        sizes: requested sizes.
        documents: documents, sorted by id.
        long_documents: long documents, sorted by id; some may also be in `documents`.
    """

    sizes: DocsSizes
    documents: tuple[Docstring, ...]
    long_documents: tuple[Docstring, ...]

    @property
    def digest(self) -> str:
        """40 hexadecimal digits over all texts and sizes: the datasets' revision."""
        sizes = asdict(self.sizes)
        # The synthetic tasks have their own digest, and these texts do not depend on them.
        del sizes["synthetic"]
        content = [
            sizes,
            [asdict(doc) for doc in self.documents],
            [asdict(doc) for doc in self.long_documents],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


@lru_cache(maxsize=1)
def collection() -> tuple[Docstring, ...]:
    """Return the collection of docstrings, read once a process."""
    return collect()


@lru_cache(maxsize=4)
def select(sizes: DocsSizes) -> Selection:
    """Draw the docs suite's texts from the collection, always the same ones.

    The order is that of a hash of the id, alternating between libraries, so that a larger size
    includes the selection of a smaller one.

    Raises:
        RequestError: more are requested than exist.
    """
    docstrings = collection()
    modules: dict[str, list[Docstring]] = {}
    for doc in docstrings:
        modules.setdefault(doc.module, []).append(doc)
    eligible = [name for name, docs in modules.items() if len(docs) >= _FEWEST_OF_A_MODULE]
    by_module = (
        sorted(modules[name], key=_hashed)[: sizes.documents_per_module]
        for name in _alternating(eligible, library_of=lambda name: name.partition(".")[0])
    )
    documents = list(chain.from_iterable(by_module))
    long = [doc for doc in docstrings if len(doc.body.split()) > LONG_WORDS]
    ids = {doc.id: doc for doc in long}
    long_ids = list(_alternating(list(ids), library_of=lambda name: ids[name].library))
    for key, wanted, there in (
        ("docs.documents", sizes.documents, len(documents)),
        ("docs.long_documents", sizes.long_documents, len(long_ids)),
    ):
        if wanted > there:
            raise RequestError(f"{key}={wanted} exceeds the number in the libraries: {there}.")
    return Selection(
        sizes=sizes,
        documents=_by_id(documents[: sizes.documents]),
        long_documents=_by_id(ids[name] for name in long_ids[: sizes.long_documents]),
    )


def clusterings(selection: Selection) -> list[list[Docstring]]:
    """Return the documents of each clustering: of the subpackages that have enough of them."""
    import numpy as np

    members: dict[str, list[Docstring]] = {}
    for doc in selection.documents:
        members.setdefault(doc.subpackage, []).append(doc)
    pool = [doc for docs in members.values() if len(docs) >= _FEWEST_OF_A_CLUSTER for doc in docs]
    drawn = round(len(pool) * selection.sizes.clustering_share)
    rng = np.random.default_rng(0)
    return [
        [pool[i] for i in rng.permutation(len(pool))[:drawn]]
        for _ in range(selection.sizes.clustering_sets)
    ]


def _by_id(docs: Iterable[Docstring]) -> tuple[Docstring, ...]:
    return tuple(sorted(docs, key=lambda doc: doc.id))


def _hashed(doc: Docstring) -> str:
    return hash_of(doc.id)


def hash_of(text: str) -> str:
    """Return a hash by which to order texts: the same everywhere, and unrelated to content."""
    return hashlib.sha256(text.encode()).hexdigest()


def _alternating(names: Sequence[str], library_of: Callable[[str], str]) -> Iterator[str]:
    """Yield names in the order of their hashes, one of each library in turn."""
    queues = [
        sorted((name for name in names if library_of(name) == library), key=hash_of)
        for library in LIBRARIES
    ]
    for row in zip_longest(*queues):
        yield from (name for name in row if name is not None)
