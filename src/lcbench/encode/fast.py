"""Calls a fast tokenizer directly: copies of it, and the token ids of whole texts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import models

# Characters that the fast tokenizer sees at once: enough to keep its threads busy, while what it
# returns, which takes about 150 bytes a token until its ids are taken out, stays small.
CHARACTERS = 2**20
# Characters of a long text that are tokenised at first, for each token that is read. English
# documentation has four to five a token: this is enough at the first attempt. A text of 50,000
# characters then takes a fifteenth of the time with a window of 512 tokens, and half of it with
# 4,096 (results/bench/tokens.md).
CHARACTERS_PER_TOKEN = 6


def without_model(backend: Any) -> Any:
    """Return a fast tokenizer with the steps before and after the model of another."""
    bare = type(backend)(models.BPE())
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        setattr(bare, name, getattr(backend, name))
    return bare


def copy_of(backend: Any) -> Any:
    """Return a copy of a fast tokenizer; None: it cannot be copied.

    It shares the model. A copy of that too would go through JSON, which takes seconds and, for
    250,000 pieces, 700 MB; and the library reads JSON's numbers with an error in the last bit: two
    ways to divide "-----" by pieces of equal probability would change places.
    """
    try:
        made = copy.deepcopy(without_model(backend))
    except Exception:
        # A plain one is how the library says that a part is written in Python.
        return None
    made.model = backend.model
    added = backend.get_added_tokens_decoder()
    made.add_tokens([token for _, token in sorted(added.items())])
    # They are numbered as they come: gaps would close.
    return made if made.get_added_tokens_decoder() == added else None


def encoder_of(backend: Any) -> Callable[..., list[Any]]:
    """Return the function of a fast tokenizer that encodes texts, without places in the text."""
    encode: Callable[..., list[Any]] = getattr(backend, "encode_batch_fast", backend.encode_batch)
    return encode


def ids_of(encodings: list[Any]) -> tuple[NDArray[np.int32], list[int]]:
    """Return the concatenated ids of all texts, and the bounds of each text in them."""
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    ids = np.fromiter(chain.from_iterable(one.ids for one in encodings), np.int32, starts[-1])
    return ids, starts


def blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in blocks that the fast tokenizer encodes in one call."""
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if characters >= CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


class WholeTexts:
    """Tokenises whole texts, without truncation and without special tokens.

    Attributes:
        begin: special tokens before a text: [n].
        end: special tokens after it: [n].
    """

    def __init__(self, backend: Any, beginning: Callable[[str, int], str] | None) -> None:
        """Look at a tokenizer.

        Args:
            backend: fast tokenizer that neither pads nor truncates.
            beginning: returns a beginning of a text of at most about so many characters, the tokens
                of which are those that the text begins with; None: there is no such rule.

        Raises:
            ValueError: what it adds to a text depends on the text.
        """
        self._encode = encoder_of(backend)
        self._beginning = beginning
        probes = ["a text", "", "one, two 3 [SEP] </s>"]
        full, bare = (
            [
                np.array(one.ids, dtype=np.int32)
                for one in self._encode(probes, add_special_tokens=s)
            ]
            for s in (True, False)
        )
        added = len(full[1])
        for place in range(added + 1):
            begin, end = full[1][:place], full[1][place:]
            if all(
                np.array_equal(one, np.concatenate([begin, text, end]))
                for one, text in zip(full, bare, strict=True)
            ):
                self.begin, self.end = begin, end
                break
        else:
            raise ValueError("special tokens depend on the text")
        words = ["River", " cat", " 12", " 7", " über", " a"]
        joined, *apart = self._bare(["".join(words), *words])
        if not np.array_equal(joined, np.concatenate(apart)):
            self._beginning = None

    def ids(self, texts: Sequence[str], most: int | None = None) -> list[NDArray[np.int32]]:
        """Return the token ids of each text, or its first ones.

        Args:
            texts: any number, of any length. A long text is encoded in parts if it can be divided,
                so that little memory is used beyond the result.
            most: token ids returned of each text; None: all.
        """
        reach = CHARACTERS
        if most is not None:
            reach = min(reach, CHARACTERS_PER_TOKEN * max(1, most))
        is_long = [self._beginning is not None and len(text) > reach for text in texts]
        others = iter(
            self._bare([text for text, own in zip(texts, is_long, strict=True) if not own])
        )
        return [
            self._of_long(text, reach, most) if own else next(others)[:most]
            for text, own in zip(texts, is_long, strict=True)
        ]

    def _of_long(self, text: str, reach: int, most: int | None) -> NDArray[np.int32]:
        """Return the token ids of a text that is encoded in parts."""
        found: list[NDArray[np.int32]] = []
        start = count = 0
        while start < len(text) and (most is None or count < most):
            part = self._part(text, start, reach)
            (ids,) = self._bare([part])
            found.append(ids)
            start, count = start + len(part), count + len(ids)
        return np.concatenate(found)[:most]

    def _part(self, text: str, start: int, reach: int) -> str:
        """Return a part of a text, of about `reach` characters, that is tokenised like it alone."""
        while self._beginning is not None and start + 2 * reach < len(text):
            part = text[start : start + 2 * reach]
            cut = self._beginning(part, reach)
            if len(cut) < len(part):
                return cut
            reach *= 2
        return text[start:]

    def _bare(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        found: list[NDArray[np.int32]] = []
        for block in blocks(texts):
            ids, starts = ids_of(self._encode(block, add_special_tokens=False))
            found += [ids[start:stop] for start, stop in pairwise(starts)]
        return found
