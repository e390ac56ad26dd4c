"""The encoder that mteb calls; it encodes each different text of a call once.

It delegates to an engine in this or another process (`Engine`, `score/pool.py`), and puts the
embeddings in order.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.multivector import MultiVectors, MultiVectorsBuilder, max_similarity
from lcbench.encode.store.segments import digests
from lcbench.errors import StorageError
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    import torch
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta

    from lcbench.repair.fit import Fitted

# A request: texts enough to fill many batches, few enough that what is in flight stays small
# compared with a model, whatever the size of a corpus.
_TEXTS_AT_ONCE = 4096
_CHARACTERS_AT_ONCE = 2 * 2**20
# Requests on their way: while the texts of one are encoded, the next are tokenised, and the answer
# to a former one travels.
REQUESTS_AHEAD = 3
# Requests of an engine whose batches are in the model or wait for it. Where each is a single batch,
# one is computed, one is next, and the embeddings of a third are taken out of the model.
ENCODED_AT_ONCE = 3
# The same, with those that are looked up and tokenised.
REQUESTS_AT_ONCE = ENCODED_AT_ONCE + 2
# An array larger than this lies in a file that has no name, and is mapped.
_IN_MEMORY = 64 * 2**20


class Stopped(Exception):
    """Encoding was stopped."""


class EmbeddingError(Exception):
    """The model returned an invalid embedding.

    Attributes:
        position: index of the text among those of the request.
        length: number of its tokens that the model read.
        count: number of texts of the request.
    """

    def __init__(self, position: int, length: int, count: int) -> None:
        super().__init__(position, length, count)
        self.position = position
        self.length = length
        self.count = count

    def __str__(self) -> str:
        return (
            f"The embedding of text {self.position} of {self.count} ({self.length} tokens) is "
            "zero or not finite."
        )


@dataclass
class Work:
    """The work of an engine for one request.

    Attributes:
        texts: number of texts that went through the model.
        chunks: number of different chunks that some of them went through it in.
        tokens: number of their tokens, those of all chunks.
        padded: the same, including padding.
        seconds: time that the engine spent on them; no second counts for two requests.
    """

    texts: int = 0
    chunks: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """An engine's answer.

    Attributes:
        embeddings: of the texts, [texts, dimensions]; or of their chunks, text after text.
        work: work for them.
        counts: chunks of each text, if each has an embedding of its own: [texts].
    """

    embeddings: NDArray[np.float32]
    work: Work
    counts: NDArray[np.int64] | None = None


class Pending(Protocol):
    """An answer that may not be there yet."""

    def result(self) -> Embedded:
        """Wait for the answer.

        Raises:
            EmbeddingError: an embedding is not finite, or zero.
        """


class Backend(Protocol):
    """The interface of an encoder: one model under one repair."""

    def submit(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool
    ) -> Pending:
        """Begin to embed distinct texts, and return at once.

        The caller takes all answers, in the order of the requests, before it asks for anything
        else.

        Args:
            texts: as many as the engine handles in one request.
            role: see `Encoder.embed`.
            prompt: text put before each of them.
            more: whether further requests of the same call follow.
        """

    def lengths(
        self, texts: Sequence[str], prompt: str, role: Role | None
    ) -> tuple[NDArray[np.int32], float]:
        """Return the tokens that the model reads of each text, and the seconds that it took.

        Its prompt is among them.
        """

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        """Return the prompt of a task's texts."""


@dataclass
class Counters:
    """The work for an encoder since the counters were last reset.

    Attributes:
        texts: number of requested texts.
        unique_texts: number of distinct texts among them.
        encoded_texts: number of these that were not in the store and went through the model.
        encoded_tokens: number of their tokens.
        padded_tokens: the same, including padding.
        encoded_chunks: number of different chunks that some of these texts went through it in.
        vectors: vectors of texts that have one for each chunk.
        vectors_of: number of these texts.
        seconds: time that the engine spent on them.
        seconds_wait: further time until the answers were there, spent on other requests.
        prompts: prompts by kind of text (`query`, `document`, `text`).
    """

    texts: int = 0
    unique_texts: int = 0
    encoded_texts: int = 0
    encoded_tokens: int = 0
    padded_tokens: int = 0
    encoded_chunks: int = 0
    vectors: int = 0
    vectors_of: int = 0
    seconds: float = 0.0
    seconds_wait: float = 0.0
    prompts: dict[str, str] = field(default_factory=dict)
    seen: NDArray[np.bytes_] = field(
        default_factory=lambda: np.empty(0, dtype="S16"), repr=False, compare=False
    )


class Encoder:
    """A model under a repair as an encoder for mteb (`EncoderProtocol`).

    Attributes:
        counters: work done for it.
        mteb_model_meta: mteb's description of the model.
        correction: map that embeddings go through, if any.
    """

    def __init__(self, backend: Backend, meta: ModelMeta) -> None:
        """Wrap a backend.

        Args:
            backend: encoder of texts.
            meta: mteb's description of the model; its similarity is the one that scores are
                computed with.
        """
        self.mteb_model_meta = meta
        self.counters = Counters()
        self.correction: Fitted | None = None
        self._backend = backend

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        """Return the prompt of a task's queries, documents, or other texts."""
        return self._backend.prompt_of(task, prompt_type)

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: Any = None, **_: Any
    ) -> Any:
        """Return the embeddings of a data loader's texts, in order (mteb's `EncoderProtocol`).

        Args:
            inputs: one of mteb's data loaders.
            task_metadata: metadata of the task of the texts, which may determine the prompt.
            prompt_type: `query`, `document`, or None: neither.

        Returns:
            As `vectors`.
        """
        role = role_of(prompt_type)
        prompt = self.prompt_of(task_metadata, prompt_type)
        self.counters.prompts[getattr(prompt_type, "value", None) or "text"] = prompt
        return self.vectors(_texts(inputs), role, prompt)

    def embed(
        self, texts: Sequence[str], role: Role | None = None, prompt: str = ""
    ) -> NDArray[np.float32]:
        """Return the embeddings of texts, in order.

        Args:
            texts: any number of texts; some may be equal.
            role: queries or documents, which some models and policies by role encode differently;
                None: neither; a policy by role treats these as documents.
            prompt: text put before each of them.

        Returns:
            [texts, dimensions]; mapped from a file where it is large, so that a corpus need not
            fit into memory.

        Raises:
            EmbeddingError: an embedding is zero or not finite; the message has its index and
                length.
            StorageError: there is no room for a large array in the folder for temporary files.
        """
        embeddings = self.vectors(texts, role, prompt)
        if isinstance(embeddings, MultiVectors):
            raise ValueError("each chunk has a vector of its own")
        return embeddings

    def vectors(
        self, texts: Sequence[str], role: Role | None = None, prompt: str = ""
    ) -> NDArray[np.float32] | MultiVectors:
        """Return the embeddings of texts as `embed`, or those of their chunks: `MultiVectors`."""
        embeddings = self._embed(texts, role, prompt)
        correction = self.correction
        if correction is None or not len(embeddings):
            return embeddings
        if isinstance(embeddings, MultiVectors):
            return MultiVectors(_corrected(embeddings.rows, correction), embeddings.bounds)
        lengths = self.lengths(texts, prompt, role) if correction.by_length else None
        return _corrected(embeddings, correction, lengths)

    def _embed(
        self, texts: Sequence[str], role: Role | None, prompt: str
    ) -> NDArray[np.float32] | MultiVectors:
        """Return embeddings as the model returns them."""
        counters = self.counters
        places = _Places(texts)
        counters.texts += len(texts)
        counters.unique_texts += self._count_new(places.keys)
        embeddings: NDArray[np.float32] | None = None
        several: MultiVectorsBuilder | None = None
        bounds = np.zeros((len(texts), 2), dtype=np.int64)
        waiting: deque[tuple[NDArray[np.int64], Pending]] = deque()
        requests = places.requests(texts)
        asked = 0
        began, waited, busy = time.perf_counter(), 0.0, 0.0
        try:
            while True:
                while len(waiting) < REQUESTS_AHEAD and (which := next(requests, None)) is not None:
                    asked += len(which)
                    more = asked < len(places.keys)
                    part = [texts[i] for i in which]
                    waiting.append((which, self._backend.submit(part, role, prompt, more=more)))
                if not waiting:
                    break
                started = time.perf_counter()
                which, pending = waiting.popleft()
                try:
                    found = pending.result()
                except EmbeddingError as error:
                    position = int(which[error.position])
                    raise EmbeddingError(position, error.length, len(texts)) from None
                waited += time.perf_counter() - started
                work = found.work
                counters.encoded_texts += work.texts
                counters.encoded_tokens += work.tokens
                counters.padded_tokens += work.padded
                counters.encoded_chunks += work.chunks
                busy += work.seconds
                if found.counts is not None:
                    counters.vectors += len(found.embeddings)
                    counters.vectors_of += len(which)
                    several = several or MultiVectorsBuilder()
                    places.put(which, several.add(found.embeddings, found.counts), bounds)
                    continue
                if embeddings is None:
                    embeddings = large_array(len(texts), found.embeddings.shape[1])
                places.put(which, found.embeddings, embeddings)
        except Exception:
            # Nothing may be left on its way: it would be taken for the answer to something else.
            for _, pending in waiting:
                with suppress(Exception):
                    pending.result()
            raise
        # Of all together: the engine is busy with some while others are put in their places.
        busy = min(busy, time.perf_counter() - began)
        counters.seconds += busy
        counters.seconds_wait += max(0.0, waited - busy)
        if several is not None:
            return several.finish(bounds)
        return np.empty((0, 0), dtype=np.float32) if embeddings is None else embeddings

    def lengths(
        self, texts: Sequence[str], prompt: str = "", role: Role | None = None
    ) -> list[int]:
        """Return the tokens that the model reads of each text, its prompt among them."""
        places = _Places(texts)
        lengths = np.zeros((len(texts), 1), dtype=np.int32)
        for which in places.requests(texts):
            started = time.perf_counter()
            found, seconds = self._backend.lengths([texts[i] for i in which], prompt, role)
            self.counters.seconds += seconds
            self.counters.seconds_wait += max(0.0, time.perf_counter() - started - seconds)
            places.put(which, found[:, None], lengths)
        return [int(length) for length in lengths[:, 0]]

    def similarity(self, left: Any, right: Any) -> torch.Tensor:
        """Return the model's own similarity of every pair (cosine unless it says otherwise).

        Args:
            left: embeddings, [left, dimensions].
            right: the same; or several vectors for each text, of which the most similar counts
                (`MultiVectors`, or a list of arrays).

        Returns:
            [left, right]
        """
        if isinstance(right, MultiVectors | list):
            return max_similarity(self._similarities()[0], left, right)
        result: torch.Tensor = self._similarities()[0](left, right)
        return result

    def similarity_pairwise(self, left: Any, right: Any) -> torch.Tensor:
        """Return the model's own similarity of row with row.

        Returns:
            [rows]
        """
        result: torch.Tensor = self._similarities()[1](left, right)
        return result

    def _similarities(self) -> tuple[Any, Any]:
        from sentence_transformers import SimilarityFunction

        name = self.mteb_model_meta.similarity_fn_name
        value = "cosine" if name is None else getattr(name, "value", name)
        return (
            SimilarityFunction.to_similarity_fn(value),
            SimilarityFunction.to_similarity_pairwise_fn(value),
        )

    def _count_new(self, keys: NDArray[np.bytes_]) -> int:
        """Return how many of the keys were not requested since the counters were last reset."""
        before = self.counters.seen
        self.counters.seen = np.union1d(before, keys)
        return len(self.counters.seen) - len(before)


class _Places:
    """The positions of each distinct text in a list.

    Attributes:
        keys: keys of the distinct texts, sorted: [distinct texts].
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.keys, self._first, inverse = np.unique(
            digests(texts), return_index=True, return_inverse=True
        )
        # Indices into `texts`, those of equal texts next to each other.
        self._every = np.argsort(inverse, kind="stable")
        self._start = np.concatenate([[0], np.cumsum(np.bincount(inverse))])
        self._unique = np.empty(len(texts), dtype=np.int64)
        self._unique[self._first] = np.arange(len(self._first))

    def requests(self, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
        """Yield the indices of the distinct texts of each request, longest texts first."""
        sizes = np.fromiter((len(texts[i]) for i in self._first), np.int64, len(self._first))
        order = self._first[np.lexsort((self._first, -sizes))]
        start = characters = 0
        for end, i in enumerate(order):
            if end - start == _TEXTS_AT_ONCE or characters > _CHARACTERS_AT_ONCE:
                yield order[start:end]
                start, characters = end, 0
            characters += len(texts[i])
        if start < len(order):
            yield order[start:]

    def put(self, which: NDArray[np.int64], rows: NDArray[Any], into: NDArray[Any]) -> None:
        """Copy the rows of a request's texts to the positions of equal texts."""
        if len(into) == len(self.keys):
            into[which] = rows
            return
        numbers = self._unique[which]
        counts = self._start[numbers + 1] - self._start[numbers]
        everywhere = np.concatenate(
            [self._every[self._start[one] : self._start[one + 1]] for one in numbers]
        )
        into[everywhere] = rows[np.repeat(np.arange(len(which)), counts)]


def _corrected(
    rows: NDArray[np.float32], correction: Fitted, lengths: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Return corrected vectors, in the place of the given ones if there is room."""
    has_room = correction.dimensions == rows.shape[1]
    into = rows if has_room else large_array(len(rows), correction.dimensions)
    return correction.apply(rows, lengths, into)


def large_array(rows: int, columns: int) -> NDArray[np.float32]:
    """Return an array to be filled, in memory or, where it is large, mapped from a nameless file.

    Raises:
        StorageError: there is no room for it.
    """
    size = rows * columns * 4
    if size <= _IN_MEMORY:
        return np.empty((rows, columns), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="lcbench-") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                # Room is taken at once: running out of it later would kill the process.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise StorageError(
                f"{rows} embeddings of {columns} numbers need {size / 2**30:.1f} GiB in "
                f"{tempfile.gettempdir()}: {os.strerror(error.errno or 0)}. Free some space, or "
                "choose another folder: TMPDIR=PATH."
            ) from error
        mapped = np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, columns))
        return np.asarray(mapped)


def role_of(prompt_type: Any) -> Role | None:
    """Return the role of texts of one of mteb's types of prompt."""
    value = getattr(prompt_type, "value", prompt_type)
    return value if value in ("query", "document") else None


def _texts(inputs: Any) -> list[str]:
    """Return all texts of one of mteb's data loaders, which keep them in the column `text`."""
    return list(inputs.dataset["text"])
