"""Encodes distinct texts with one model, and stores their embeddings.

Several threads may ask at the same time. Their requests are handled in order, as in a pipeline:
while the model encodes the texts of a request, those of the next are looked up in the store and
tokenised, and its batches queue behind the last ones of the request before it.
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
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.encoder import (
    ENCODED_AT_ONCE,
    REQUESTS_AT_ONCE,
    Embedded,
    EmbeddingError,
    Work,
)
from lcbench.encode.forward import Forward
from lcbench.encode.prompts import PromptOf, no_prompt
from lcbench.encode.store.segments import Context, digests
from lcbench.encode.store.shelf import Store
from lcbench.encode.tokens import Tokens
from lcbench.system.versions import versions
from lcbench.tempscale.policy import Policy, Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

# Time after which a thread that runs Python hands over to another; Python's own is 5 ms. A thread
# that runs a batch gives way at each of its operations, and should not wait so long each time.
_SWITCH_SECONDS = 0.0005
# Part of the store's key: raised by hand whenever a change of the code changes embeddings. The test
# of the golden embeddings fails if they change and this does not.
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
    """

    model: str
    revision: str
    window: int | None
    dtype: str
    pooling: str | None = None


@dataclass(eq=False)
class _Request:
    """A request that the engine is handling.

    Attributes:
        policy: temperature policy of its texts.
        context: context that its embeddings are stored under.
        keys: keys of the texts that have to be encoded; empty until these are known.
        is_prepared: whether its texts were looked up and tokenised.
        is_encoded: whether the model encodes them at present.
        is_queued: whether its batches have begun or wait for the model.
    """

    policy: Policy
    context: Context
    keys: frozenset[bytes] = frozenset()
    is_prepared: bool = False
    is_encoded: bool = False
    is_queued: bool = False

    def shares_texts(self, other: _Request) -> bool:
        """Return whether another request computes some of the same embeddings."""
        return self.context == other.context and not self.keys.isdisjoint(other.keys)


class Engine:
    """Encodes with one model, and stores the embeddings.

    Attributes:
        prompt_of: returns the prompt of the texts of a task.
        is_stuck: whether a thread hangs in it, so that `close` waits for none.
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
        """Put a forward pass and a store together.

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
        # A tokenizer is set up anew for each call by some models.
        self._tokenizing = threading.Lock()
        self._changed = threading.Condition()
        # In the order in which they came.
        self._requests: list[_Request] = []
        # What the model is at; None: that is being changed, or not known.
        self._policy: Policy | None = None
        self._last_end = 0.0
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)

    def at(self, policy: Policy) -> LocalBackend:
        """Return the encoder at a policy."""
        return LocalBackend(self, policy)

    def submit(
        self, policy: Policy, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Future[Embedded]:
        """Begin to embed texts as `embed` does, and return at once."""
        # In order here: threads begin in any.
        request = self._enter(policy, role, prompt)
        # What a thread logs is about the cell of whoever asks.
        context = copy_context()
        return self._threads.submit(context.run, self._embed, request, texts, role, prompt)

    def embed(
        self, policy: Policy, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Embedded:
        """Return the embeddings of distinct texts.

        Args:
            policy: their temperature policy.
            texts: texts that are tokenised and grouped into batches together.
            role: queries, documents, or None: neither; a policy by role treats these as documents.
            prompt: text put before each of them.

        Raises:
            EmbeddingError: an embedding is zero or not finite.
            InjectionError: the policy cannot be set on the model.
        """
        return self._embed(self._enter(policy, role, prompt), texts, role, prompt)

    def _enter(self, policy: Policy, role: Role | None, prompt: str) -> _Request:
        """Put a request at the end of the line."""
        policy = policy.for_role(role or "document")
        request = _Request(policy, self._context(policy, prompt, role))
        with self._changed:
            self._requests.append(request)
        return request

    def _embed(
        self, request: _Request, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Embedded:
        started, work = time.perf_counter(), Work()

        def missing_of(which: NDArray[np.int64]) -> NDArray[np.int64]:
            found = shelf.read(keys[which], embeddings, which)
            # What no model may give is not taken from the store either.
            found[found] = ~_unusable(embeddings[which[found]])
            return which[~found]

        def queued() -> None:
            with self._changed:
                request.is_queued = True
                self._changed.notify_all()

        try:
            keys, rows = digests(texts), np.arange(len(texts))
            embeddings = np.empty((len(texts), self._forward.dimensions), dtype=np.float32)
            shelf = self._store.shelf(request.context)
            self._wait_to_prepare(request)
            started = time.perf_counter()
            before = self._before(request)
            missing = missing_of(rows)
            tokens = self._tokens(texts, missing, prompt, role)
            request.keys = frozenset(keys[missing].tolist())
            with self._changed:
                request.is_prepared = True
                self._changed.notify_all()
            if len(missing):
                with self._encoding(request):
                    # What was being encoded when this was looked up is in the store by now.
                    if any(request.shares_texts(one) for one in before):
                        known = dict(zip(missing.tolist(), tokens, strict=True))
                        missing = missing_of(missing)
                        tokens = [known[i] for i in missing.tolist()]
                    lengths = np.array([one.length for one in tokens], dtype=np.int32)
                    with closing(self._forward.run(tokens, role, queued)) as batches:
                        for batch in batches:
                            where, read = missing[batch.texts], lengths[batch.texts]
                            _check(batch.embeddings, where, read, len(texts))
                            embeddings[where] = batch.embeddings
                            work.texts += len(where)
                            work.tokens += int(read.sum())
                            work.padded += batch.padded
                            with self._reporting:
                                self._on_progress(len(where), int(read.sum()))
                    shelf.add(keys[missing], lengths, embeddings[missing])
        finally:
            with self._changed:
                self._requests.remove(request)
                self._changed.notify_all()
                ended = time.perf_counter()
                work.seconds = ended - started
                if request.is_encoded:
                    # No second counts for two requests that were in the model.
                    work.seconds = ended - max(started, self._last_end)
                    self._last_end = ended
        return Embedded(embeddings, work)

    def lengths(
        self, policy: Policy, texts: Sequence[str], prompt: str, role: Role | None = None
    ) -> tuple[NDArray[np.int32], float]:
        """Return the tokens that the model reads of each text, and the seconds that it took."""
        started = time.perf_counter()
        keys = digests(texts)
        lengths = np.full(len(texts), -1, dtype=np.int32)
        roles: tuple[Role, ...] = ("document", "query")
        # Where they were encoded the lengths are known, at whichever temperature that was.
        for one in dict.fromkeys(map(policy.for_role, roles)):
            unknown = lengths < 0
            if unknown.any():
                shelf = self._store.shelf(self._context(one, prompt, role))
                lengths[unknown] = shelf.lengths(keys[unknown])
        others = np.flatnonzero(lengths < 0)
        tokens = self._tokens(texts, others, prompt, role)
        lengths[others] = [one.length for one in tokens]
        return lengths, time.perf_counter() - started

    def arithmetic(self) -> dict[str, Any]:
        """Return how embeddings are computed, for a provenance file."""
        return self._forward.arithmetic()

    def flush(self) -> None:
        """Write all embeddings to the store, and wait until they are there."""
        self._store.flush()

    def close(self) -> None:
        """Flush the store, end all threads, and restore the model."""
        try:
            # Also first: the threads may take longer than there is time (`lcbench.system.signals`).
            self.flush()
        finally:
            self._forward.stop()
            self._threads.shutdown(wait=not self.is_stuck, cancel_futures=True)
            self._forward.close(wait=not self.is_stuck)
            sys.setswitchinterval(self._switch_seconds)
        self._store.flush()

    def stop(self) -> None:
        """Make the present encoding end soon, with an error."""
        self._forward.stop()

    def go_on(self) -> None:
        """Allow encoding again after `stop`."""
        self._forward.go_on()

    def _before(self, request: _Request) -> list[_Request]:
        """Return the requests that came earlier and are not answered yet."""
        with self._changed:
            return self._requests[: self._requests.index(request)]

    def _wait_to_prepare(self, request: _Request) -> None:
        """Wait until the texts of all earlier requests are tokenised."""
        with self._changed:
            self._changed.wait_for(lambda: all(one.is_prepared for one in self._before(request)))

    @contextmanager
    def _encoding(self, request: _Request) -> Iterator[None]:
        """Encode a request within this context, after earlier ones, at its policy."""

        def may_begin() -> bool:
            encoded = [one for one in self._requests if one.is_encoded]
            return all(one.is_queued or not one.keys for one in self._before(request)) and (
                not encoded
                or (
                    self._policy == request.policy
                    and len(encoded) < ENCODED_AT_ONCE
                    and not any(request.shares_texts(one) for one in encoded)
                )
            )

        with self._changed:
            self._changed.wait_for(may_begin)
            request.is_encoded = True
            is_set = self._policy == request.policy
            self._policy = request.policy if is_set else None
            self._changed.notify_all()
        if not is_set:
            self._forward.use(request.policy)
            with self._changed:
                self._policy = request.policy
                self._changed.notify_all()
        yield

    def _tokens(
        self, texts: Sequence[str], which: NDArray[np.intp], prompt: str, role: Role | None
    ) -> list[Tokens]:
        """Return the tokens of some of the texts.

        They are not kept: making them again takes less than a hundredth of the time of the forward
        pass on a CPU, and runs in parallel with it.
        """
        tokenizer = self._forward.tokenizer_for(role)
        with self._tokenizing:
            return tokenizer.tokenize([texts[i] for i in which], prompt)

    def _context(self, policy: Policy, prompt: str, role: Role | None) -> Context:
        one = self._identity
        return Context(
            model=one.model,
            revision=one.revision,
            window=one.window,
            dtype=one.dtype,
            temperature=policy.canonical,
            prompt=prompt,
            role=(role or "neither") if self._forward.depends_on_role else "",
            made_by=_made_by(),
            pooling=one.pooling,
        )


class LocalBackend:
    """An engine in this process, at a policy; see `Backend`."""

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self._engine = engine
        self._policy = policy

    def submit(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool = False
    ) -> Future[Embedded]:
        """Begin to embed distinct texts, and return at once."""
        return self._engine.submit(self._policy, texts, role, prompt)

    def lengths(
        self, texts: Sequence[str], prompt: str, role: Role | None
    ) -> tuple[NDArray[np.int32], float]:
        """Return the tokens that the model reads of each text, and the seconds that it took."""
        return self._engine.lengths(self._policy, texts, prompt, role)

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        """Return the prompt that texts of a task get."""
        return self._engine.prompt_of(task, prompt_type)


def _unusable(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of the embeddings are not finite, or zero: [n]."""
    unusable = ~np.isfinite(embeddings).all(axis=1) | ~embeddings.any(axis=1)
    return np.asarray(unusable)


def _check(
    embeddings: NDArray[np.float32], where: NDArray[np.int64], lengths: NDArray[Any], count: int
) -> None:
    wrong = _unusable(embeddings)
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
