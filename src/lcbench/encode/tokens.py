"""From texts to token ids: once each, exactly as sentence-transformers makes them.

Of a very long text only a beginning is tokenised that fills the window, where that gives the same
tokens. A text's tokens are compact, can be kept elsewhere as its ids, and are padded to a batch.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lcbench.encode.roles import depends_on_role, input_module, lengths_by_role, task_of
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts that the tokenizer sees at once: enough to keep its threads busy, little enough that the
# padded block stays small (1,024 texts × 512 tokens × 8 bytes × 3 tensors = 12 MiB).
_CHUNK_TOKENS = 512 * 1024
# Characters of a long text that are tokenised at first, for each token of the window. English
# documentation has four to five a token: this fills the window at the first attempt. Measured with
# MiniLM's tokenizer and a window of 512 on 200,000 characters of numpy's and scipy's docstrings:
# 3.4 ms, and 176 ms for the whole text.
_CHARACTERS = 6


@dataclass(frozen=True)
class Tokens:
    """One text as the model reads it.

    Attributes:
        ids: its token ids, after truncation, special tokens included: [n].
        per_token: what else the model takes of each token and its ids do not say, each [n].
        others: features of the whole batch, like the length of the prompt. Shared, not to change.
    """

    ids: NDArray[np.int32]
    per_token: Mapping[str, Tensor]
    others: Mapping[str, Any]

    @property
    def length(self) -> int:
        """Tokens that the model reads: after truncation, special tokens included."""
        return len(self.ids)

    @property
    def restorable(self) -> bool:
        """Whether the ids and the prompt are all there is: `Tokenizer.restore` gives the same."""
        return not self.per_token and all(
            value is None or isinstance(value, str | int | float) for value in self.others.values()
        )


@dataclass(frozen=True)
class _Frame:
    """What all texts with one prompt have in common.

    Attributes:
        names: features of each token, in the model's order.
        others: features of a batch.
    """

    names: tuple[str, ...]
    others: Mapping[str, Any]


class Tokenizer:
    """The tokens of a sentence-transformers model.

    The model's window and tokenizer must not change once it is made.

    Attributes:
        task: what `SentenceTransformer.encode` hands to the model for the role of these texts.
        first_position: of each text, where padded batches are to have `position_ids` that leave
            padding on the left out; None: the model counts for itself. For models with absolute
            positions that count padding (`invariance.check_invariance` finds out).
    """

    def __init__(self, model: SentenceTransformer, role: Role | None = None) -> None:
        """Take the tokenizer of a model whose window is set.

        Args:
            model: loaded.
            role: of the texts, which a model may tokenise by it.
        """
        self._model = model
        self.task = task_of(role)
        # A Router has one for each of its routes.
        self._module = input_module(model, role)
        self._tokenizer: Any = self._module.tokenizer
        self._frames: dict[str, _Frame] = {}
        self._flattens = bool(getattr(self._module, "can_flatten_inputs", False))
        self.first_position: int | None = None

    @property
    def pads_left(self) -> bool:
        """Whether padding comes before a text."""
        return bool(self._tokenizer.padding_side == "left")

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Return the tokens of each text after its prompt, in the same order, without padding.

        They come from the model's own `preprocess`, so truncation, lower-casing and special tokens
        are those of `SentenceTransformer.encode`; only the padding is cut off again. Equal texts
        are tokenised once and share their tokens.
        """
        window = self.window
        found: dict[str, Tokens] = {}
        waiting = list(dict.fromkeys(texts))
        reach = None if window is None else _CHARACTERS * max(1, window)
        # Looking into the tokenizer takes longer than reading a few short texts with it.
        if reach is not None and (
            max(map(len, waiting), default=0) <= reach or not self._may_be_cut
        ):
            reach = None
        while waiting:
            parts = [text if reach is None else self._beginning(text, reach) for text in waiting]
            short = []
            for text, part, tokens in zip(
                waiting, parts, self._tokenize(parts, prompt), strict=True
            ):
                # A beginning whose tokens fill the window has all that are read of the text.
                if len(part) == len(text) or tokens.length == window:
                    found[text] = tokens
                else:
                    short.append(text)
            waiting = short
            reach = None if reach is None else 2 * reach
        return [found[text] for text in texts]

    def has_room(self, prompt: str) -> bool:
        """Return whether a prompt leaves room in the window for a text."""
        one, other = self.tokenize(["river", "cat"], prompt)
        return one.length != self.window or not np.array_equal(one.ids, other.ids)

    def count(self, prompt: str) -> int:
        """Return the tokens of a prompt, special ones among them, however many the model reads."""
        return len(self._tokenizer(prompt)["input_ids"])

    def restore(self, ids: NDArray[np.int32], prompt: str = "") -> Tokens:
        """Return the tokens whose ids were kept; their text had this prompt.

        Args:
            ids: of tokens that were `restorable`: [n].
            prompt: that was put before the text.
        """
        return Tokens(ids, {}, self._frame(prompt).others)

    def knows(self, ids: NDArray[np.int32]) -> bool:
        """Whether all ids are in the vocabulary; an empty text has none."""
        return not len(ids) or (int(ids.min()) >= 0 and int(ids.max()) < self._vocabulary)

    @cached_property
    def _vocabulary(self) -> int:
        """One more than the largest id of a token; there may be gaps below it."""
        return max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def width(self, longest: int, multiple: int) -> int:
        """Return the columns of a batch whose longest text has so many tokens.

        Rounded up to a multiple, but not beyond the window: there may be no positions there.
        """
        rounded = -(-longest // multiple) * multiple
        return rounded if self.window is None else max(longest, min(rounded, self.window))

    def pad(
        self, batch: Sequence[Tokens], *, pin: bool = False, multiple: int = 1
    ) -> dict[str, Any]:
        """Return a batch's features on the CPU, padded to its longest text.

        They are those of `preprocess` for the same texts together: [texts, longest] int64 for each
        feature of a token, and the others as they are. A model on flash attention gets one row
        without padding.

        Args:
            batch: at least one, all with the same prompt.
            pin: put the tensors into page-locked memory, which a CUDA device reads by itself.
            multiple: pad on to such a length, see `width`.
        """
        if self._flattens and all(one.restorable for one in batch):
            return self._flatten(batch)
        lengths = np.array([one.length for one in batch])
        columns = np.arange(self.width(int(lengths.max()), multiple))
        # Where a token is, and no padding: [texts, longest].
        read = (
            columns >= len(columns) - lengths[:, None]
            if self.pads_left
            else columns < lengths[:, None]
        )
        padding = {
            "input_ids": self._tokenizer.pad_token_id or 0,
            "token_type_ids": self._tokenizer.pad_token_type_id,
        }
        features: dict[str, Any] = {}
        # Which features a token has does not depend on the prompt.
        for name in self._frame("").names:
            example = next((one.per_token[name] for one in batch if name in one.per_token), None)
            kind, rest = (
                (torch.int64, ()) if example is None else (example.dtype, example.shape[1:])
            )
            padded = torch.full(
                (*read.shape, *rest), padding.get(name, 0), dtype=kind, pin_memory=pin
            )
            # All rows at once: a batch of short texts has thousands.
            if name == "input_ids":
                padded.numpy()[read] = np.concatenate([one.ids for one in batch])
            elif example is None:
                padded.numpy()[read] = int(name == "attention_mask")
            else:
                none = example.new_zeros(()).expand(len(columns), *rest)
                padded[torch.from_numpy(read)] = torch.cat(
                    [one.per_token.get(name, none[: one.length]) for one in batch]
                )
            features[name] = padded
        if self.first_position is not None:
            counted = np.maximum(read.cumsum(axis=1) - 1, 0) + self.first_position
            positions = torch.from_numpy(counted)
            features["position_ids"] = positions.pin_memory() if pin else positions
        return {**features, **batch[0].others}

    @cached_property
    def digest(self) -> str | None:
        """Identity of how a text becomes ids: tokenizer, window, truncation, what prompts do.

        Models with equal ones share it. None where it cannot be known from the tokenizer's
        serialised form: a slow tokenizer, or a model with code of its own before it.
        """
        module = self._module
        if not self._is_plain:
            return None
        serialised = json.loads(self._tokenizer.backend_tokenizer.to_str())
        # Left there by the last call, and set anew by the next.
        del serialised["truncation"], serialised["padding"]
        parts = {
            "tokenizer": serialised,
            "class": type(self._tokenizer).__qualname__,
            "special_tokens": {
                name: str(token) for name, token in self._tokenizer.special_tokens_map.items()
            },
            "split_special_tokens": self._tokenizer.split_special_tokens,
            "truncation_side": self._tokenizer.truncation_side,
            "padding_side": self._tokenizer.padding_side,
            "model_input_names": list(self._tokenizer.model_input_names),
            "window": self.window,
            "do_lower_case": module.do_lower_case,
            "processing": repr(module.processing_kwargs),
            # What the module makes of the role, and, where it makes anything of it, the role.
            **(
                {
                    "role": self.task,
                    "lengths": lengths_by_role(self._model),
                    "expansion": repr(module.query_expansion),
                }
                if depends_on_role(self._model)
                else {}
            ),
            # A model that reads messages puts texts and prompts into its template.
            "template": self._tokenizer.chat_template if self._reads_messages else None,
            "version": tokenizers.__version__,
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def window(self) -> int | None:
        """The most tokens of a text, its prompt among them; None if there is no limit."""
        window = getattr(self._module, "max_seq_length", None)
        own = lengths_by_role(self._model).get(self.task.get("task", ""))
        window = window if own is None else own
        # What transformers takes as no limit.
        return None if window is None or window > 1e20 else int(window)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether texts go through a fast tokenizer and nothing else."""
        from sentence_transformers.base.modules import Transformer

        tokenizer = type(self._tokenizer)
        return (
            type(self._model[0]) is Transformer
            and issubclass(tokenizer, PreTrainedTokenizerFast)
            and tokenizer.__call__ is PreTrainedTokenizerFast.__call__
            and tokenizer._encode_plus is PreTrainedTokenizerFast._encode_plus
        )

    @cached_property
    def _reads_messages(self) -> bool:
        return "message" in getattr(self._module, "modality_config", {})

    @cached_property
    def _may_be_cut(self) -> bool:
        """Whether a text's beginning is known to have the tokens that the text begins with."""
        if not self._is_plain or self._reads_messages or self._tokenizer.truncation_side != "right":
            return False
        # They may set another length, side or way of truncation.
        if getattr(self._module, "processing_kwargs", None) or self._module.query_expansion:
            return False
        backend = self._tokenizer.backend_tokenizer
        parts = json.loads(backend.to_str())
        added = [token["content"] for token in parts["added_tokens"]]
        if backend.normalizer is not None:
            added += [backend.normalizer.normalize_str(content) for content in added]
        return (
            _splits_at_spaces(parts["pre_tokenizer"])
            and _leaves_spaces(parts["normalizer"])
            # Merges that are dropped at random give no tokens to compare with.
            and not parts["model"].get("dropout")
            and not any(_ACROSS_WORDS.search(content) for content in added)
        )

    def _beginning(self, text: str, reach: int) -> str:
        """Return a beginning of a text that has the tokens which the whole text begins with.

        It ends before a space between two words that the normaliser leaves apart. No normaliser,
        added token or pre-tokenizer that `_may_be_cut` lets through looks across such a space, and
        a model of sub-words sees one piece of the pre-tokenizer at a time: what comes before the
        space has the same tokens whatever comes after it. A text that has no such space in the
        latter half of its first `reach` characters, or of twice, four times … as many, is returned
        as it is.
        """
        # From nothing no doubling leads on.
        reach = max(1, reach)
        while reach < len(text):
            cut = text.rfind(" ", reach // 2, reach)
            while cut > 0:
                if self._parts(text[cut - 1 : cut + 2]):
                    return text[:cut]
                cut = text.rfind(" ", reach // 2, cut)
            reach *= 2
        return text

    def _parts(self, around: str) -> bool:
        """Return whether a space parts the letters or digits on both sides of it."""
        if len(around) != 3 or not all(
            unicodedata.category(character) in _WORD for character in (around[0], around[2])
        ):
            return False
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        if normalizer is None:
            return True
        before, after = (normalizer.normalize_str(one) for one in (around[0], around[2]))
        # A letter may become nothing, or begin or end with a space.
        return (
            bool(before and after)
            and not before[-1].isspace()
            and not after[0].isspace()
            and normalizer.normalize_str(around) == f"{before} {after}"
        )

    def _tokenize(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        """Return the tokens of each text."""
        window = self.window
        # Texts of like length together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
        frame = self._frame(prompt)
        tokens: list[Tokens | None] = [None] * len(texts)
        start = 0
        while start < len(order):
            # Hardly any text has more tokens than characters.
            longest = len(texts[order[start]]) + len(prompt) + 2
            width = longest if window is None else min(longest, window)
            chunk = order[start : start + max(1, _CHUNK_TOKENS // width)]
            start += len(chunk)
            block = [texts[i] for i in chunk]
            features = self._preprocess(block, prompt)
            mask = features["attention_mask"].numpy().astype(bool)
            per_token = {name: features.pop(name) for name in frame.names}
            others = frame.others if _equal(features, frame.others) else features
            ids = per_token["input_ids"].numpy()
            extra = {
                name: value for name, value in per_token.items() if not _trivial(name, value, mask)
            }
            for row, i in enumerate(chunk):
                # A boolean index cuts padding off at either side, and copies, so that the block of
                # the whole chunk is not kept alive by its rows.
                read = mask[row]
                tokens[i] = Tokens(
                    ids[row][read].astype(np.int32),
                    {name: value[row][torch.from_numpy(read)] for name, value in extra.items()},
                    others,
                )
        return [one for one in tokens if one is not None]

    def _preprocess(self, texts: list[str], prompt: str) -> dict[str, Any]:
        """Return the model's features of texts, padded."""
        module = self._module
        if self._flattens:
            # One text after the other, they could not be told apart.
            module.can_flatten_inputs = False
        try:
            return dict(self._model.preprocess(texts, prompt=prompt or None, **self.task))
        finally:
            if self._flattens:
                module.can_flatten_inputs = True

    def _flatten(self, batch: Sequence[Tokens]) -> dict[str, Any]:
        """Return a batch's features without padding, one text after the other, as one row.

        As sentence-transformers has it for flash attention, which is told where each text begins.
        """
        module = self._module
        rows = [{"input_ids": one.ids.tolist()} for one in batch]
        features = dict(module.data_collator(rows))
        features.pop("labels", None)
        if module._flatten_position_offset:
            features["position_ids"] = features["position_ids"] + module._flatten_position_offset
        return {**features, **batch[0].others}

    def _frame(self, prompt: str) -> _Frame:
        """Return what all texts with this prompt have in common."""
        if prompt not in self._frames:
            features = self._preprocess(["a text"], prompt)
            shape = features["attention_mask"].shape
            names = tuple(
                name
                for name, value in features.items()
                if isinstance(value, Tensor) and value.shape[:2] == shape
            )
            others = {name: value for name, value in features.items() if name not in names}
            self._frames[prompt] = _Frame(names, others)
        return self._frames[prompt]


# Unicode categories of the characters that a space is looked for between.
_WORD = {"Lu", "Ll", "Lo", "Nd"}
# An added token that could hold such a space.
_ACROSS_WORDS = re.compile(r"(?:^|[^\W_]) (?:$|[^\W_])")
# Pre-tokenizers that end a piece before every such space …
_SPLITTING = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
# … and those that look at one character, so that they may come before one of these.
_BY_CHARACTER = {"Digits", "Punctuation", "UnicodeScripts"}
# The expressions of GPT-4 (Llama 3 has the same) and Qwen 2: like GPT-2's, which `ByteLevel` has
# built in, none of their alternatives goes on from a letter or digit to a space.
_SPLITTING_EXPRESSIONS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}", r"\p{N}{1,3}")
}
# Normalisers that change a character by what it is, or by the marks that follow it; what they do
# to the characters at a cut is looked at there. Strip takes only what is at the ends.
_LEAVING = {
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Precompiled",
    "Strip",
    "StripAccents",
}
# Expressions that published tokenizers replace, and that match no single space.
_REPLACED_EXPRESSIONS = {r" {2,}", r"\s{2,}|[\n\r\t]", r"\s{2,}"}


def _splits_at_spaces(part: dict[str, Any] | None) -> bool:
    """Return whether a serialised pre-tokenizer ends a piece before a space between words."""
    if part is None:
        return False
    kind = part["type"]
    if kind == "Sequence":
        for inner in part["pretokenizers"]:
            # What comes after it sees one of its pieces at a time.
            if _splits_at_spaces(inner):
                return True
            if inner["type"] not in _BY_CHARACTER:
                return False
        return False
    if kind == "Split":
        matches = (part["behavior"], part["invert"]) in (("Isolated", False), ("Removed", True))
        return matches and part["pattern"].get("Regex") in _SPLITTING_EXPRESSIONS
    return (
        kind in _SPLITTING
        or (kind == "ByteLevel" and part.get("use_regex") is True)
        or (kind == "Metaspace" and part.get("split") is True)
    )


def _leaves_spaces(part: dict[str, Any] | None) -> bool:
    """Return whether a serialised normaliser never looks across a space between words."""
    if part is None:
        return True
    if part["type"] == "Sequence":
        return all(map(_leaves_spaces, part["normalizers"]))
    if part["type"] == "Replace":
        pattern = part["pattern"]
        if "Regex" in pattern:
            return pattern["Regex"] in _REPLACED_EXPRESSIONS
        return not any(map(str.isspace, pattern["String"])) and (
            part["content"] != "" and not any(map(str.isspace, part["content"]))
        )
    return part["type"] in _LEAVING


def _trivial(name: str, feature: Tensor, mask: NDArray[np.bool_]) -> bool:
    """Return whether a feature is the ids, the mask itself, or segments that are all zero."""
    if name == "token_type_ids":
        return not bool((feature.numpy() * mask).any())
    return name in ("input_ids", "attention_mask")


def _equal(features: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Return whether features of a batch are the same, and none is a tensor."""
    return features.keys() == others.keys() and all(
        not isinstance(value, Tensor) and value == others[name] for name, value in features.items()
    )
