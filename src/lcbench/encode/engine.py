"""Encodes distinct texts with one model, and stores their embeddings.

Several threads may submit requests at the same time. Requests are processed in order, as in a
pipeline: while the model encodes the texts of one request, those of the next are looked up in the
store and tokenised, and its batches are queued behind the last ones of the previous request.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.chunks import Cut, cut
from lcbench.encode.encoder import (
    ENCODED_AT_ONCE,
    REQUESTS_AT_ONCE,
    Embedded,
    EmbeddingError,
    Work,
)
from lcbench.encode.forward import Forward
from lcbench.encode.missing import Missing, unusable, wanted
from lcbench.encode.prompts import PromptOf, no_prompt
from lcbench.encode.store.segments import Context, digests
from lcbench.encode.store.shelf import Shelf, Store
from lcbench.repair.repair import Repair
from lcbench.system.versions import versions
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

# Python's switch interval between threads, instead of 5 ms. A thread that runs a batch releases the
# interpreter at each operation, and should not wait 5 ms each time to get it back.
_SWITCH_SECONDS = 0.0005
# Part of the store's key, incremented by hand whenever a code change alters embeddings. A test of
# golden embeddings fails if they change and this does not.
EMBEDDING_VERSION = 1


@dataclass(frozen=True)
class Identity:
    """The part of the store's key that identifies the model and its settings.

    Attributes:
        model: name, `<organisation>/<model>`.
        revision: digest of the model's files, or another identifier of its weights.
        window: number of tokens read of a text; None: no limit.
        dtype: dtype of weights and activations.
        pooling: pooling requested instead of the model's own; None: the model's.
        changes: further requested changes of the model, such as fewer dimensions; None: none.
    """

    model: str
    revision: str
    window: int | None
    dtype: str
    pooling: str | None = None
    changes: str | None = None


@dataclass(eq=False)
class _Request:
    """A request that the engine is handling.

    Attributes:
        repair: what is applied while its texts are encoded.
        keys: keys of what has to be encoded, by context; empty until these are known.
        is_prepared: whether its texts were looked up and tokenised.
        is_encoded: whether the model is encoding them.
        is_queued: whether all its batches are queued or running.
        seconds: time that was spent on it; where several are encoded, the time since a batch of any
            of them was there, for each of its batches.
    """

    repair: Repair
    keys: dict[Context, frozenset[bytes]] = field(default_factory=dict)
    is_prepared: bool = False
    is_encoded: bool = False
    is_queued: bool = False
    seconds: float = 0.0

    def shares_texts(self, other: _Request) -> bool:
        """Return whether another request computes some of the same embeddings."""
        return any(
            not keys.isdisjoint(other.keys.get(context, ())) for context, keys in self.keys.items()
        )


class Engine:
    """Encodes with one model, and stores the embeddings.

    Attributes:
        prompt_of: returns the prompt of the texts of a task.
        is_stuck: whether a thread hangs, so that `close` does not wait for threads.
    """

    def __init__(
        self,
        forward: Forward,
        store: Store,
        identity: Identity,
        *,
        prompt_of: PromptOf = no_prompt,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Combine a forward pass and a store.

        Args:
            forward: forward pass of the model.
            store: store of embeddings.
            identity: identity of the model in the store.
            prompt_of: returns the prompt of the texts of a task.
            on_progress: called after each batch with its numbers of texts and tokens, by one thread
                at a time.
        """
        self.prompt_of = prompt_of
        self.is_stuck = False
        self._forward = forward
        self._store = store
        self._identity = identity
        self._on_progress = on_progress or (lambda texts, tokens: None)
        self._reporting = threading.Lock()
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, "request")
        # Some models reconfigure their tokenizer for each call.
        self._tokenizing = threading.Lock()
        self._submitting = threading.Lock()
        self._changed = threading.Condition()
        # In order of arrival.
        self._requests: list[_Request] = []
        # Repair applied to the model; None while it is being changed, or if unknown.
        self._repair: Repair | None = None
        # Until when time has been counted.
        self._counted = 0.0
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)

    def at(self, repair: Repair) -> LocalBackend:
        """Return the encoder under a repair; its correction is not applied."""
        return LocalBackend(self, repair)

    def submit(
        self, repair: Repair, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Future[Embedded]:
        """Start to embed texts as `embed` does, and return immediately."""
        # Log lines of the thread belong to the caller's cell.
        context = copy_context()
        # Enqueued here, since threads start in any order; and together with its job, since those
        # behind it in the line wait for it, and could have all threads.
        with self._submitting:
            request = self._enter(repair, role, prompt)
            return self._threads.submit(context.run, self._embed, request, texts, role, prompt)

    def embed(
        self, repair: Repair, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Embedded:
        """Return the embeddings of distinct texts.

        Args:
            repair: applied to them, except for its correction.
            texts: texts that are tokenised and grouped into batches together.
            role: queries, documents, or None: neither; a policy by role treats these as documents.
            prompt: text put before each of them.

        Raises:
            EmbeddingError: a text has no token, or an embedding is zero or not finite.
            InjectionError: the repair cannot be applied to the model.
        """
        return self._embed(self._enter(repair, role, prompt), texts, role, prompt)

    def _enter(self, repair: Repair, role: Role | None, prompt: str) -> _Request:
        """Put a request at the end of the line."""
        request = _Request(repair.encoding.for_role(role or "document"))
        with self._changed:
            self._requests.append(request)
        return request

    def _embed(
        self, request: _Request, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Embedded:
        started, work = time.perf_counter(), Work()
        repair = request.repair

        def open_shelf(kept: Repair) -> tuple[Context, Shelf]:
            context = self._context(kept, prompt, role)
            return context, self._store.shelf(context)

        try:
            self._wait_to_prepare(request)
            started = time.perf_counter()
            before = self._before(request)
            found = wanted(
                texts,
                self._forward.dimensions,
                repair,
                self._identity.window,
                open_shelf,
                lambda some: self._cut(repair, some, prompt, role),
            )
            request.keys = {
                one.context: frozenset(one.keys.tolist()) for one in found.missing if len(one.keys)
            }
            with self._changed:
                request.is_prepared = True
                self._changed.notify_all()
            if request.keys:
                with self._encoding(request):
                    # Texts that were being encoded during the lookup are stored by now.
                    if any(map(request.shares_texts, before)):
                        for one in found.missing:
                            one.look_up(found.embeddings)
                    left = [one for one in found.missing if len(one.keys)]
                    for one in left:
                        self._encode(
                            *(one, found.embeddings, role, request, work),
                            count=len(texts),
                            started=started,
                            is_last=one is left[-1],
                        )
        finally:
            with self._changed:
                self._requests.remove(request)
                self._changed.notify_all()
                if request.is_encoded:
                    self._spend(request, started)
                    work.seconds = request.seconds
                else:
                    work.seconds = time.perf_counter() - started
        return Embedded(found.answer(), work, found.counts)

    def _spend(self, request: _Request, started: float) -> None:
        """Count the time since a request began, or since time was last counted, as its own.

        The lock must be held.
        """
        now = time.perf_counter()
        request.seconds += max(0.0, now - max(started, self._counted))
        self._counted = now

    def _encode(
        self,
        missing: Missing,
        embeddings: NDArray[np.float32],
        role: Role | None,
        request: _Request,
        work: Work,
        *,
        count: int,
        started: float,
        is_last: bool,
    ) -> None:
        """Compute missing embeddings and store them.

        Args:
            missing: at least one.
            embeddings: array for them.
            role: role of the texts.
            request: what they are for.
            work: where the work is added.
            count: texts of the request, for errors.
            started: when it began.
            is_last: whether these are its last batches.
        """

        def queued() -> None:
            if is_last:
                with self._changed:
                    request.is_queued = True
                    self._changed.notify_all()

        tokens, unscaled = missing.inputs()
        read = np.array([one.length for one in tokens], dtype=np.int64)
        lengths = np.array([one.length for one in missing.cuts], dtype=np.int32)
        if not lengths.all():
            # Without padding it would get its neighbor's embedding.
            empty = int(lengths.argmin())
            raise EmbeddingError(int(missing.texts[empty]), 0, count)
        outputs: NDArray[np.float64] | None = None
        with closing(self._forward.run(tokens, role, queued, unscaled)) as batches:
            for batch in batches:
                if missing.chunks is None:
                    where = missing.rows[batch.texts]
                    _check(batch.embeddings, missing.texts[batch.texts], read[batch.texts], count)
                    embeddings[where] = batch.embeddings
                else:
                    if outputs is None:
                        outputs = np.empty((len(tokens), batch.embeddings.shape[1]))
                    outputs[batch.texts] = batch.embeddings
                done = int(read[batch.texts].sum())
                work.tokens += done
                work.padded += batch.padded
                with self._changed:
                    self._spend(request, started)
                with self._reporting:
                    self._on_progress(len(batch.texts), done)
        work.texts += len(np.unique(missing.texts))
        if outputs is not None:
            made = missing.outcome(outputs, self._forward.scales, self._forward.dimensions)
            _check(made, missing.texts, lengths, count)
            embeddings[missing.rows] = made
        if missing.is_cut:
            work.chunks += len(tokens)
        missing.shelf.add(missing.keys, lengths, embeddings[missing.rows])

    def lengths(
        self, repair: Repair, texts: Sequence[str], prompt: str, role: Role | None = None
    ) -> tuple[NDArray[np.int32], float]:
        """Return how many tokens the model reads of each text, and the seconds it took."""
        started = time.perf_counter()
        keys = digests(texts)
        lengths = np.full(len(texts), -1, dtype=np.int32)
        roles: tuple[Role, ...] = ("document", "query")
        encoding = repair.encoding
        own = encoding.for_role(role or "document")
        # Lengths of texts that were read in the same way under this repair are in the store.
        for of_role in dict.fromkeys(map(encoding.for_role, roles)):
            unknown = lengths < 0
            if unknown.any() and of_role.chunks == own.chunks:
                shelf = self._store.shelf(self._context(of_role, prompt, role))
                lengths[unknown] = shelf.lengths(keys[unknown])
        others = np.flatnonzero(lengths < 0)
        cuts = self._cut(own, [texts[i] for i in others.tolist()], prompt, role)
        lengths[others] = [text.length for text in cuts]
        return lengths, time.perf_counter() - started

    def arithmetic(self) -> dict[str, Any]:
        """Return how embeddings are computed, for a provenance file."""
        return self._forward.arithmetic()

    def flush(self) -> None:
        """Write all embeddings to the store, and wait until they are written."""
        self._store.flush()

    def close(self) -> None:
        """Flush the store, end all threads, and restore the model."""
        try:
            # Also before, since threads may take longer than the time left (`system.signals`).
            self.flush()
        finally:
            self._forward.stop()
            self._threads.shutdown(wait=not self.is_stuck, cancel_futures=True)
            self._forward.close(wait=not self.is_stuck)
            sys.setswitchinterval(self._switch_seconds)
        self._store.flush()

    def stop(self) -> None:
        """Make the current encoding end soon, with an error."""
        self._forward.stop()

    def go_on(self) -> None:
        """Allow encoding again after `stop`."""
        self._forward.go_on()

    def _before(self, request: _Request) -> list[_Request]:
        """Return the earlier requests that are not finished."""
        with self._changed:
            return self._requests[: self._requests.index(request)]

    def _wait_to_prepare(self, request: _Request) -> None:
        """Wait until the texts of all earlier requests are tokenised."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(earlier.is_prepared for earlier in self._before(request))
            )

    @contextmanager
    def _encoding(self, request: _Request) -> Iterator[None]:
        """Return a context in which a request is encoded under its repair, after earlier ones."""

        def may_begin() -> bool:
            encoded = [other for other in self._requests if other.is_encoded]
            return all(
                earlier.is_queued or not earlier.keys for earlier in self._before(request)
            ) and (
                not encoded
                or (
                    self._repair == request.repair.of_model
                    and len(encoded) < ENCODED_AT_ONCE
                    and not any(map(request.shares_texts, encoded))
                )
            )

        with self._changed:
            self._changed.wait_for(may_begin)
            request.is_encoded = True
            is_set = self._repair == request.repair.of_model
            self._repair = request.repair.of_model if is_set else None
            self._changed.notify_all()
        if not is_set:
            self._forward.use(request.repair.of_model)
            with self._changed:
                self._repair = request.repair.of_model
                self._changed.notify_all()
        yield

    def _cut(
        self, repair: Repair, texts: Sequence[str], prompt: str, role: Role | None
    ) -> list[Cut]:
        """Return the tokens of texts, in the chunks in which a repair reads them.

        They are not cached: tokenising takes less than a hundredth of the time of the forward pass
        on a CPU, and runs in parallel with it.
        """
        with self._tokenizing:
            tokenizer = self._forward.tokenizer_for(role, repair)
            if repair.chunks is not None:
                return cut(tokenizer, texts, prompt, repair.chunks)
            read = tokenizer.tokenize(texts, prompt)
        return [Cut([one], one.length, is_whole=True) for one in read]

    def _context(self, repair: Repair, prompt: str, role: Role | None) -> Context:
        identity = self._identity
        return Context(
            model=identity.model,
            revision=identity.revision,
            window=repair.window(identity.window),
            dtype=identity.dtype,
            temperature=repair.canonical,
            prompt=prompt,
            role=(role or "neither") if self._forward.depends_on_role else "",
            made_by=_made_by(),
            pooling=identity.pooling,
            changes=identity.changes,
        )


class LocalBackend:
    """An engine in this process, under a repair; see `Backend`."""

    def __init__(self, engine: Engine, repair: Repair) -> None:
        self._engine = engine
        self._repair = repair

    def submit(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool = False
    ) -> Future[Embedded]:
        """Start to embed distinct texts, and return immediately."""
        return self._engine.submit(self._repair, texts, role, prompt)

    def lengths(
        self, texts: Sequence[str], prompt: str, role: Role | None
    ) -> tuple[NDArray[np.int32], float]:
        """Return how many tokens the model reads of each text, and the seconds it took."""
        return self._engine.lengths(self._repair, texts, prompt, role)

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        """Return the prompt for texts of a task."""
        return self._engine.prompt_of(task, prompt_type)


def _check(
    embeddings: NDArray[np.float32], where: NDArray[np.int64], lengths: NDArray[Any], count: int
) -> None:
    wrong = unusable(embeddings)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise EmbeddingError(int(where[first]), int(lengths[first]), count)


@lru_cache(maxsize=1)
def _made_by() -> str:
    """Return a digest of the libraries' versions and of `EMBEDDING_VERSION`."""
    digest = hashlib.sha256(f"lcbench embeddings {EMBEDDING_VERSION}\n".encode())
    found = versions()
    for name in ("torch", "transformers", "sentence-transformers", "tokenizers"):
        digest.update(f"{name} {found[name]}\n".encode())
    return digest.hexdigest()[:16]
