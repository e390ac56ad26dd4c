"""An encoder that mteb can score: unique texts, batches by length, nothing encoded twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lcbench.encode.batches import plan_batches
from lcbench.encode.prompts import PromptOf, no_prompt
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from sentence_transformers import SentenceTransformer

# Tokens of one forward pass. On two cores MiniLM reads 5,200 tokens/s of 512-token texts at 4,096
# tokens a batch and 4,650 at 16,384: what is in flight no longer fits the cache.
_BUDGET = {"cpu": 4096, "cuda": 65536}
# What a batch costs beside its tokens, in tokens.
_OVERHEAD = 32
# Texts tokenised ahead of the forward pass.
_BLOCK = 4096


@dataclass
class Counters:
    """What an encoder has done since they were last reset."""

    texts: int = 0
    unique_texts: int = 0
    encoded_texts: int = 0
    encoded_tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    prompts: dict[str, str] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set, repr=False)


class EmbeddingError(Exception):
    """The model returned something that is no embedding."""


class Encoder:
    """A sentence-transformers model as mteb's `EncoderProtocol` has it.

    Embeddings are kept in memory up to a bound, so that a text which several tasks share is
    encoded once. An encoder belongs to one model at one policy.

    Attributes:
        counters: what it has done.
        prompt_of: which prompt the texts of a task get.
        mteb_model_meta: what mteb writes down about the model.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        meta: ModelMeta,
        *,
        injection: Injection | None,
        prompt_of: PromptOf = no_prompt,
        batch_tokens: int | None = None,
        memory_gib: float = 1.0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: in evaluation mode, its window set, on its device.
            meta: mteb's description of it.
            injection: the temperature at work in it; None for the baseline.
            prompt_of: which prompt the texts of a task get.
            batch_tokens: tokens of one forward pass, padding included; None: by device.
            memory_gib: embeddings kept, in GiB.
            on_progress: told after each batch how many texts it had, and how many tokens.
        """
        self.mteb_model_meta = meta
        self.counters = Counters()
        self.prompt_of = prompt_of
        self._model = model
        self._tokenizer = Tokenizer(model)
        self._injection = injection
        self._device = str(model.device)
        budget = _BUDGET.get(model.device.type, _BUDGET["cpu"])
        self._batch_tokens = batch_tokens if batch_tokens is not None else budget
        self._memory = _Memory(int(memory_gib * 2**30))
        self._on_progress = on_progress

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: Any = None, **_: Any
    ) -> NDArray[np.float32]:
        """Return the embeddings of a data loader's texts, in order (mteb's `EncoderProtocol`).

        Args:
            inputs: one of mteb's data loaders.
            task_metadata: of the task that they belong to; its prompt may depend on it.
            prompt_type: `query`; anything else counts as documents.

        Returns:
            [texts, dimensions]
        """
        role: Role = "query" if prompt_type is not None and prompt_type == "query" else "document"
        prompt = self.prompt_of(task_metadata, prompt_type)
        self.counters.prompts[getattr(prompt_type, "value", None) or "text"] = prompt
        return self.embed(_texts(inputs), role, prompt)

    def embed(
        self, texts: Sequence[str], role: Role = "document", prompt: str = ""
    ) -> NDArray[np.float32]:
        """Return the embeddings of texts, in order.

        Args:
            texts: any number, equal ones among them or not.
            role: which temperature a policy by role gives them.
            prompt: put before each of them.

        Returns:
            [texts, dimensions]

        Raises:
            EmbeddingError: one is not finite, or zero; the message has its index and length.
        """
        started = time.perf_counter()
        temperature = ""
        if self._injection is not None:
            self._injection.role = role
            temperature = self._injection.policy.for_role(role).canonical
        found: dict[str, _Embedded] = {}
        missing: list[str] = []
        for text in dict.fromkeys(texts):
            kept = self._memory.get(text, prompt, temperature)
            if kept is None:
                missing.append(text)
            else:
                found[text] = kept
        fresh = self._encode_missing(missing, prompt)
        found.update(fresh)
        self._memory.add(fresh, prompt, temperature)
        self.counters.texts += len(texts)
        self.counters.unique_texts += self._count_new(texts)
        self.counters.seconds += time.perf_counter() - started
        return np.stack([found[text].embedding for text in texts])

    def _count_new(self, texts: Sequence[str]) -> int:
        """Return how many of the texts were not asked for since the counters were last reset."""
        seen = self.counters.seen
        before = len(seen)
        seen.update(map(_digest, texts))
        return len(seen) - before

    def lengths(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Return the tokens that the model reads of each text, its prompt among them."""
        lengths = {
            text: length
            for text in dict.fromkeys(texts)
            if (length := self._memory.length(text, prompt)) is not None
        }
        missing = [text for text in dict.fromkeys(texts) if text not in lengths]
        tokens = self._tokenizer.tokenize(missing, prompt)
        lengths.update((text, one.length) for text, one in zip(missing, tokens, strict=True))
        return [lengths[text] for text in texts]

    def similarity(self, left: Any, right: Any) -> torch.Tensor:
        """Return the model's own similarity of every pair (cosine unless it says otherwise).

        Returns:
            [left, right]
        """
        result: torch.Tensor = self._model.similarity(left, right)
        return result

    def similarity_pairwise(self, left: Any, right: Any) -> torch.Tensor:
        """Return the model's own similarity of row with row.

        Returns:
            [rows]
        """
        result: torch.Tensor = self._model.similarity_pairwise(left, right)
        return result

    def _encode_missing(self, texts: Sequence[str], prompt: str) -> dict[str, _Embedded]:
        encoded: dict[str, _Embedded] = {}
        # Blocks of texts of like length, so that no block's batches are mostly padding, and the
        # tokens of a large corpus are never in memory all at once.
        ordered = sorted(texts, key=len, reverse=True)
        for start in range(0, len(ordered), _BLOCK):
            block = ordered[start : start + _BLOCK]
            tokens = self._tokenizer.tokenize(block, prompt)
            for batch, embeddings in self._run(tokens):
                for i, embedding in zip(batch, embeddings, strict=True):
                    if not np.isfinite(embedding).all() or not embedding.any():
                        raise EmbeddingError(
                            f"The embedding of text {texts.index(block[i])} of {len(texts)} "
                            f"({tokens[i].length} tokens) is zero or not finite."
                        )
                    encoded[block[i]] = _Embedded(embedding, tokens[i].length)
        return encoded

    def _run(self, tokens: Sequence[Tokens]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield batches of indices and their embeddings; halve the budget when memory runs out."""
        waiting = list(range(len(tokens)))
        while waiting:
            done: set[int] = set()
            try:
                lengths = [tokens[i].length for i in waiting]
                for plan in plan_batches(lengths, self._batch_tokens, _OVERHEAD):
                    batch = [waiting[i] for i in plan]
                    embeddings = self._forward([tokens[i] for i in batch])
                    done.update(batch)
                    yield batch, embeddings
            except torch.OutOfMemoryError:
                longest = max(tokens[i].length for i in waiting)
                if self._batch_tokens <= longest:
                    raise
                self._batch_tokens = max(longest, self._batch_tokens // 2)
                torch.cuda.empty_cache()
            waiting = [i for i in waiting if i not in done]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return the embeddings of one batch: [texts, dimensions]."""
        features = {
            name: value.to(self._device) if isinstance(value, torch.Tensor) else value
            for name, value in self._tokenizer.pad(batch).items()
        }
        read = sum(one.length for one in batch)
        padded = int(features["input_ids"].numel())
        embeddings = self._model(features)["sentence_embedding"].float().cpu().numpy()
        if self._injection is not None:
            self._injection.check()
        self.counters.encoded_texts += len(batch)
        self.counters.encoded_tokens += read
        self.counters.padded_tokens += padded
        if self._on_progress is not None:
            self._on_progress(len(batch), read)
        result: NDArray[np.float32] = embeddings
        return result


@dataclass(frozen=True)
class _Embedded:
    """A text's embedding [dimensions], and the tokens that were read of it."""

    embedding: NDArray[np.float32]
    length: int


class _Memory:
    """Embeddings by text, prompt and temperature, up to a number of bytes; emptied beyond it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: dict[tuple[bytes, str], _Embedded] = {}
        self._lengths: dict[bytes, int] = {}

    def get(self, text: str, prompt: str, temperature: str) -> _Embedded | None:
        return self._kept.get((_digest(text, prompt), temperature))

    def length(self, text: str, prompt: str) -> int | None:
        return self._lengths.get(_digest(text, prompt))

    def add(self, fresh: dict[str, _Embedded], prompt: str, temperature: str) -> None:
        # Beside the numbers: digests, objects and places in two tables.
        size = sum(one.embedding.nbytes + 400 for one in fresh.values())
        if self._bytes + size > self._limit:
            self._kept, self._lengths, self._bytes = {}, {}, 0
        if size <= self._limit:
            for text, one in fresh.items():
                digest = _digest(text, prompt)
                self._kept[digest, temperature] = one
                self._lengths[digest] = one.length
            self._bytes += size


def _digest(text: str, prompt: str = "") -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    # As a key of its own, since a prompt and a text are not what they are when joined: a model may
    # leave the prompt out of its pooling.
    return hashlib.blake2b(content, digest_size=16, key=_prompt_key(prompt)).digest()


@lru_cache(maxsize=64)
def _prompt_key(prompt: str) -> bytes:
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _texts(inputs: Any) -> list[str]:
    """Return all texts of one of mteb's data loaders, which keep them in the column `text`."""
    return list(inputs.dataset["text"])
