"""The engine: encodes different texts, using the store of embeddings."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.encoder import Embedded, EmbeddingError, Work
from lcbench.encode.forward import Forward
from lcbench.encode.prompts import PromptOf, no_prompt
from lcbench.encode.store.segments import Context, digests
from lcbench.encode.store.shelf import Store
from lcbench.encode.tokens import Tokens
from lcbench.system.versions import versions
from lcbench.tempscale.policy import Policy, Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

# Texts, and characters of them, that are tokenised ahead of the forward pass.
_TEXTS_AHEAD = 4096
_CHARACTERS_AHEAD = 2 * 2**20
# Part of the store's key: raised by hand whenever a change of the code changes embeddings. The test
# of the golden embeddings fails if they change and this does not.
EMBEDDING_VERSION = 1


@dataclass(frozen=True)
class Identity:
    """The part of the store's key that identifies the model and its settings.

    Attributes:
        model: name, `<organisation>/<model>`.
        revision: the digest of the model's files, or what else tells its weights from others.
        window: tokens that are read of a text; None: not limited.
        dtype: of weights and activations.
        pooling: the one that was asked for in the place of the model's; None: the model's.
    """

    model: str
    revision: str
    window: int | None
    dtype: str
    pooling: str | None = None


class Engine:
    """Encodes with one model, and stores the embeddings.

    One thread at a time may use it.

    Attributes:
        prompt_of: which prompt the texts of a task get.
        is_stuck: whether a thread that uses it does not come back, so that none is waited for.
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
            forward: the model.
            store: where embeddings are kept.
            identity: what its embeddings are kept under.
            prompt_of: which prompt the texts of a task get.
            on_progress: called after each batch with its numbers of texts and tokens.
        """
        self.prompt_of = prompt_of
        self.is_stuck = False
        self._forward = forward
        self._store = store
        self._identity = identity
        self._on_progress = on_progress
        self._ahead = ThreadPoolExecutor(1, "tokens")

    def at(self, policy: Policy) -> LocalBackend:
        """Return the encoder at a policy."""
        return LocalBackend(self, policy)

    def embed(
        self, policy: Policy, texts: Sequence[str], role: Role | None, prompt: str
    ) -> Embedded:
        """Return the embeddings of texts that all differ.

        Args:
            policy: which temperature they get.
            texts: any number.
            role: queries, documents, or None: neither; a policy by role counts these as documents.
            prompt: put before each of them.

        Raises:
            EmbeddingError: one is not finite, or zero.
            InjectionError: the policy cannot be set on the model.
        """
        started = time.perf_counter()
        policy = policy.for_role(role or "document")
        keys, rows, work = digests(texts), np.arange(len(texts)), Work()
        embeddings = np.empty((len(texts), self._forward.dimensions), dtype=np.float32)
        shelf = self._store.shelf(self._context(policy, prompt, role))
        found = shelf.read(keys, embeddings, rows)
        # What no model may give is not taken from the store either.
        found &= ~_unusable(embeddings)
        missing = rows[~found]
        if len(missing):
            self._forward.use(policy)
        for block, tokens in self._tokenized(texts, missing, prompt, role):
            lengths = np.array([one.length for one in tokens], dtype=np.int32)
            for batch in self._forward.run(tokens, role):
                where, read = block[batch.texts], lengths[batch.texts]
                _check(batch.embeddings, where, read, len(texts))
                embeddings[where] = batch.embeddings
                work.texts += len(where)
                work.tokens += int(read.sum())
                work.padded += batch.padded
                if self._on_progress is not None:
                    self._on_progress(len(where), int(read.sum()))
            shelf.add(keys[block], lengths, embeddings[block])
        work.seconds = time.perf_counter() - started
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
            self._ahead.shutdown(wait=not self.is_stuck, cancel_futures=True)
            self._forward.close(wait=not self.is_stuck)
        self._store.flush()

    def stop(self) -> None:
        """Make the present encoding end soon, with an error."""
        self._forward.stop()

    def go_on(self) -> None:
        """Allow encoding again after `stop`."""
        self._forward.go_on()

    def _tokenized(
        self, texts: Sequence[str], which: NDArray[np.int64], prompt: str, role: Role | None
    ) -> Iterator[tuple[NDArray[np.int64], list[Tokens]]]:
        """Yield some of the texts in blocks; the next is tokenised while one is encoded."""
        blocks = _blocks(texts, which)
        waiting = [self._ahead.submit(self._tokens, texts, one, prompt, role) for one in blocks[:1]]
        for number, block in enumerate(blocks, start=1):
            tokens = waiting.pop().result()
            waiting += [
                self._ahead.submit(self._tokens, texts, one, prompt, role)
                for one in blocks[number : number + 1]
            ]
            yield block, tokens

    def _tokens(
        self, texts: Sequence[str], which: NDArray[np.intp], prompt: str, role: Role | None
    ) -> list[Tokens]:
        """Return the tokens of some of the texts.

        They are not kept: making them again takes less than a hundredth of the time of the forward
        pass on a CPU, and runs in parallel with it.
        """
        tokenizer = self._forward.tokenizer_for(role)
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

    def embed(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool = False
    ) -> Embedded:
        """Return the embeddings of texts that all differ."""
        return self._engine.embed(self._policy, texts, role, prompt)

    def lengths(
        self, texts: Sequence[str], prompt: str, role: Role | None
    ) -> tuple[NDArray[np.int32], float]:
        """Return the tokens that the model reads of each text, and the seconds that it took."""
        return self._engine.lengths(self._policy, texts, prompt, role)

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        """Return the prompt that texts of a task get."""
        return self._engine.prompt_of(task, prompt_type)


def _blocks(texts: Sequence[str], which: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    blocks = []
    start = characters = 0
    for end, i in enumerate(which):
        if end - start == _TEXTS_AHEAD or characters > _CHARACTERS_AHEAD:
            blocks.append(which[start:end])
            start, characters = end, 0
        characters += len(texts[i])
    return [*blocks, which[start:]] if start < len(which) else blocks


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
