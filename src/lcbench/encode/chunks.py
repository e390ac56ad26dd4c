"""Cuts texts into chunks of tokens, and combines the embeddings of chunks.

A chunk is what the model reads of it: special tokens, the prompt, and a part of the text's token
ids. Nothing is decoded and tokenised again, and no chunk is longer than asked. What is requested is
in `repair.chunks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lcbench.encode.encoder import role_of
from lcbench.encode.fast import WholeTexts
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.errors import RequestError
from lcbench.tempscale.unpadded import BOUNDARIES

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.prompts import PromptOf
    from lcbench.repair.chunks import Chunks
    from lcbench.repair.repair import Repair


def spans(count: int, room: int, overlap: int, *, full: bool) -> list[tuple[int, int]]:
    """Return where the chunks of a text begin and end, in tokens of the text.

    Args:
        count: tokens of the text.
        room: of them in a chunk, at least 1.
        overlap: tokens that a chunk repeats of the one before, fewer than `room`.
        full: whether the last chunk is filled with tokens before it.
    """
    if count <= room:
        return [(0, count)]
    step = room - overlap
    starts = [step * i for i in range(1 + -(-(count - room) // step))]
    if full:
        starts[-1] = count - room
    return [(start, min(start + room, count)) for start in starts]


@dataclass(frozen=True)
class Cut:
    """A text in chunks.

    Attributes:
        chunks: tokens of each chunk.
        length: tokens that are read of the text, prompt and special tokens counted once.
        is_whole: whether there is one chunk, with all that is read of the text without chunking.
    """

    chunks: Sequence[Tokens]
    length: int
    is_whole: bool


def cut(tokenizer: Tokenizer, texts: Sequence[str], prompt: str, chunks: Chunks) -> list[Cut]:
    """Return texts in chunks of their token ids, each after the prompt.

    Args:
        tokenizer: tokenizer of the model.
        texts: any number.
        prompt: text put before each of them, and before each chunk.
        chunks: chunks of a known size. Those of `late` are no inputs of the model: each text is
            returned as the model reads it at once.

    Raises:
        RequestError: the tokenizer cannot be asked for all tokens of a text, or a chunk has no room
            for them.
    """
    size = chunks.size
    if size is None:
        raise ValueError("chunks of unknown size")
    if chunks.kind == "late":
        read = tokenizer.tokenize(texts, prompt)
        return [Cut([one], one.length, is_whole=one.length <= size) for one in read]
    reader = _reader(tokenizer, prompt, chunks)
    begin, end, lead = reader.begin, reader.end, reader.ids([prompt.rstrip()])[0]
    framing = len(begin) + len(end)
    room = room_of(tokenizer, prompt, chunks)
    # One more, to see whether there are more.
    most = None if chunks.limit is None else chunks.limit - framing + 1
    others = tokenizer.others(prompt)
    found = []
    for ids in reader.ids([prompt + text for text in texts] if prompt else texts, most):
        is_all = most is None or len(ids) < most
        ids = ids if is_all else ids[:-1]
        length = framing + len(ids)
        if length <= size:
            parts = [ids]
        else:
            # The prompt's last tokens may be another one together with the text's first.
            shared = int(np.cumprod(lead == ids[: len(lead)]).sum())
            body = ids[shared:]
            where = spans(len(body), room, chunks.overlap, full=chunks.last == "full")
            parts = [
                np.concatenate([lead if start else ids[:shared], body[start:stop]])
                for start, stop in where
            ]
        whole = [Tokens(np.concatenate([begin, part, end]), {}, others) for part in parts]
        found.append(Cut(whole, length, is_whole=is_all and len(whole) == 1))
    return found


def room_of(tokenizer: Tokenizer, prompt: str, chunks: Chunks) -> int:
    """Return the tokens of a text that a chunk holds besides the prompt and special tokens.

    Raises:
        RequestError: none, or no more than chunks overlap.
    """
    reader = _reader(tokenizer, prompt, chunks)
    framing = len(reader.begin) + len(reader.end) + len(reader.ids([prompt.rstrip()])[0])
    room = (chunks.size or 0) - framing
    if room <= chunks.overlap:
        what = f"the prompt {prompt!r} and special tokens take" if prompt else "special tokens take"
        beside = f", and chunks overlap by {chunks.overlap}" if chunks.overlap else ""
        raise RequestError(
            f"chunks={chunks}: {what} {framing} of the {chunks.size} tokens of a chunk{beside}: no "
            "room is left for the text. Choose longer chunks."
        )
    return room


def _reader(tokenizer: Tokenizer, prompt: str, chunks: Chunks) -> WholeTexts:
    reader = tokenizer.whole(prompt)
    if reader is None:
        raise RequestError(
            f"chunks={chunks}: chunks are cut from the token ids of whole texts, which need a fast "
            "tokenizer that nothing else comes before or after. This model has none."
        )
    return reader


def unique(chunks: Sequence[Tokens]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of the first of equal chunks, and which of these each chunk equals.

    Returns:
        [different chunks], and [chunks].
    """
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(one.ids.tobytes(), len(numbers)) for one in chunks]
    _, first = np.unique(which, return_index=True)
    return first, np.array(which, dtype=np.int64)


def check_chunks(
    name: str,
    model: SentenceTransformer,
    repairs: Iterable[Repair],
    prompt_of: PromptOf,
    tasks: Iterable[tuple[TaskMetadata, PromptType | None]],
) -> None:
    """Check that the chunks of repairs suit a model and its prompts, before anything is encoded.

    Args:
        name: the model's name, for messages.
        model: loaded, its window set.
        repairs: any; those without chunks are ignored.
        prompt_of: returns the prompt of the texts of a task.
        tasks: and which of their texts: queries, documents, or (None) those that are neither.

    Raises:
        RequestError: chunks cannot be cut or combined, or a prompt leaves no room in them.
    """
    prompts = {(role_of(kind), prompt_of(task, kind)) for task, kind in tasks}
    for repair in dict.fromkeys(repairs):
        if repair.chunks is None:
            continue
        check_model(model, repair.chunks, name)
        for role, prompt in sorted(prompts, key=str):
            chunks = repair.chunks.for_role(role or "document")
            if chunks is not None and chunks.kind != "late":
                room_of(Tokenizer(model, role), prompt, chunks)


def check_model(model: SentenceTransformer, chunks: Chunks, name: str) -> None:
    """Check that chunks of a model's texts can be combined.

    Raises:
        RequestError: it pools or scales in a way for which this is not defined.
    """
    layers = list(model.children())
    written = f"chunks={chunks}"
    modules = _modules()
    kinds = [type(layer) for layer in layers]
    if kinds[:2] != [modules.Transformer, modules.Pooling] or not set(kinds[2:]) <= {
        modules.Dense,
        modules.Normalize,
        modules.Dropout,
        modules.LayerNorm,
    }:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise RequestError(
            f"{written}: chunks are combined between pooling and scaling, for models of a "
            f"Transformer, a Pooling, and then Dense or Normalize layers; {name} has {names}."
        )
    pooling: Any = layers[1]
    mode = pooling.pooling_mode
    if chunks.kind == "late" and mode not in ("mean", ("mean",), ["mean"]):
        shown = mode if isinstance(mode, str) else " and ".join(mode)
        raise RequestError(
            f"{written}: late chunking takes means of tokens' states, and {name} pools by {shown}: "
            f"chunks={{mean: {chunks.size}}} suits any model."
        )
    if (
        chunks.normalise == "before"
        and modules.Normalize not in kinds
        and str(model.similarity_fn_name) == "dot"
    ):
        raise RequestError(
            f"{written}: {name} compares embeddings by their dot product and does not scale them "
            "to length 1, so that texts of one chunk would differ in length from all others: "
            "normalise: after."
        )


@dataclass(frozen=True)
class Unscaled:
    """Takes embeddings out of a model before it scales them to length 1.

    Attributes:
        late: tokens of the chunks into which the tokens of a text are divided after the forward
            pass, whose means are combined; None: embeddings are pooled as the model pools.
        before: whether chunks are scaled to length 1 before they are combined.
    """

    late: int | None = None
    before: bool = False

    def __call__(
        self, model: SentenceTransformer, features: dict[str, Any], lengths: Sequence[int]
    ) -> Tensor:
        """Return the embeddings of a batch in float64: [texts, dimensions].

        Args:
            model: of a form that `check_model` lets through.
            features: output of the model for the batch.
            lengths: tokens of each text.
        """
        _, pooling, *others = model.children()
        if self.late is None:
            pooled = pooling(dict(features))["sentence_embedding"]
            return _after(others, pooled).double()
        pool: Any = pooling
        skipped = 0 if pool.include_prompt else int(features.get("prompt_length") or 0)
        where = [spans(length - skipped, self.late, 0, full=False) for length in lengths]
        sizes = [stop - start for own in where for start, stop in own]
        states = _states(features)
        if skipped:
            kept = torch.cat([torch.arange(length) >= skipped for length in lengths])
            states = states[kept.to(states.device)]
        means = torch.segment_reduce(
            states.double(), "mean", lengths=torch.tensor(sizes, device=states.device), unsafe=True
        )
        rows = _after(others, means.to(states.dtype)).double().cpu().numpy()
        return torch.from_numpy(combined(rows, list(map(len, where)), before=self.before))


def combined(rows: NDArray[Any], counts: Sequence[int], *, before: bool) -> NDArray[np.float64]:
    """Return the mean of the chunks of each text: [texts, dimensions].

    Chunks are added in their order: the result does not depend on other texts.

    Args:
        rows: embeddings of all chunks, text after text: [chunks, dimensions].
        counts: chunks of each text, at least one.
        before: whether they are scaled to length 1 before.
    """
    values = rows.astype(np.float64)
    if before:
        values = _scaled(values)
    starts = np.concatenate([[0], np.cumsum(counts)])
    means = [values[start:stop].sum(axis=0) / (stop - start) for start, stop in pairwise(starts)]
    return np.stack(means) if means else values[:0]


def finished(
    means: NDArray[np.float64], model_scales: bool, dimensions: int
) -> NDArray[np.float32]:
    """Return means as the model's last layers leave an embedding: scaled if it scales, and cut.

    Args:
        means: [texts, dimensions of the last layer].
        model_scales: whether the model scales embeddings to length 1.
        dimensions: kept dimensions (Matryoshka).
    """
    scaled = _scaled(means) if model_scales else means
    return scaled[:, :dimensions].astype(np.float32)


def scales(model: SentenceTransformer) -> bool:
    """Return whether a model scales its embeddings to length 1."""
    return any(type(layer) is _modules().Normalize for layer in model.children())


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1.0)


def _after(layers: Sequence[nn.Module], pooled: Tensor) -> Tensor:
    """Return what layers after the pooling make of vectors, except for scaling to length 1."""
    features = {"sentence_embedding": pooled}
    for layer in layers:
        if type(layer) is not _modules().Normalize:
            features = layer(features)
    return features["sentence_embedding"]


def _states(features: dict[str, Any]) -> Tensor:
    """Return the last states of all tokens of a batch, text after text: [tokens, dimensions]."""
    states: Tensor = features["token_embeddings"]
    if BOUNDARIES[0] in features:
        return states.squeeze(0)
    return states[features["attention_mask"].bool()]


def _modules() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules
