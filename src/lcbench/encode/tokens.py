"""Tokenises texts exactly as sentence-transformers does.

Most models do no more than call a fast tokenizer. There it is called directly, without the Python
objects and padded tensors that `preprocess` makes of each batch: it runs on as many threads as
there are, without the GIL. Every other model's tokens come from its `preprocess`.

Of a very long text only a beginning is tokenised that fills the window, where that gives the same
tokens.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcbench.encode.fast import (
    CHARACTERS_PER_TOKEN,
    WholeTexts,
    blocks,
    copy_of,
    encoder_of,
    ids_of,
    without_model,
)
from lcbench.encode.roles import input_module, lengths_by_role, task_of
from lcbench.encode.splitting import ACROSS_WORDS, WORD, leaves_spaces, splits_at_spaces
from lcbench.system.thirdparty import flattened_position_offset, is_fast_tokenizer_unchanged
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens of the texts that `preprocess` sees at once, padding included: the padded block stays small
# (1,024 texts × 512 tokens × 8 bytes × 3 tensors = 12 MiB).
_CHUNK_TOKENS = 512 * 1024
# A text that fills a larger window takes too long to make, and to see that it is cut alike.
_LARGEST_WINDOW = 2**16


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it.

    Attributes:
        ids: token ids after truncation, including special tokens: [n]; read-only.
        per_token: further features of each token that do not follow from the ids, each [n].
        others: features of the whole batch, like the length of the prompt; shared, read-only.
    """

    ids: NDArray[np.int32]
    per_token: Mapping[str, Tensor]
    others: Mapping[str, Any]

    @property
    def length(self) -> int:
        """The number of tokens that the model reads, including special tokens."""
        return len(self.ids)

    @property
    def ids_only(self) -> bool:
        """Whether a batch's features follow from the ids and the prompt alone."""
        return not self.per_token and all(
            value is None or isinstance(value, str | int | float) for value in self.others.values()
        )


@dataclass(frozen=True)
class _Frame:
    """The common properties of all texts with the same prompt.

    Attributes:
        names: features of each token, in the model's order.
        others: features of a batch.
        encode: returns the encodings of texts after the prompt, which were seen to be those of
            `preprocess`; None: they come from `preprocess` itself.
    """

    names: tuple[str, ...]
    others: Mapping[str, Any]
    encode: Callable[[list[str]], list[Any]] | None


class Tokenizer:
    """The tokenizer of a sentence-transformers model.

    The model's window and tokenizer must not change after it is created.

    Attributes:
        task: keywords that `SentenceTransformer.encode` passes to the model for these texts' role.
        first_position: position of the first token, if padded batches need `position_ids` that do
            not count padding on the left; None: the model computes positions itself. It is set for
            models with absolute positions that count padding (`invariance.check_invariance`).
    """

    def __init__(
        self, model: SentenceTransformer, role: Role | None = None, window: int | None = None
    ) -> None:
        """Take the tokenizer of a model whose window is set.

        Args:
            model: loaded.
            role: role of the texts, since a model may tokenise queries differently.
            window: most tokens to read of a text, where that is not the model's window.
        """
        self._model = model
        self._role = role
        self._asked_window = window
        self.task = task_of(role)
        # A Router has one for each of its routes.
        self._module = input_module(model, role)
        self._tokenizer: Any = self._module.tokenizer
        self._frames: dict[str, _Frame] = {}
        self._flattens = bool(getattr(self._module, "can_flatten_inputs", False))
        self.first_position: int | None = None

    def at(self, window: int) -> Tokenizer:
        """Return a tokenizer of the same texts that reads another number of tokens of each."""
        other = Tokenizer(self._model, self._role, window)
        other.first_position = self.first_position
        # Here, where nobody else tokenises: lanes that pad ask for it, and to find it changes the
        # window of the model for a moment.
        other._frame("")
        return other

    @property
    def pads_left(self) -> bool:
        """Whether padding comes before a text."""
        return bool(self._tokenizer.padding_side == "left")

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Return the tokens of each text after its prompt, in the same order, without padding.

        They are those of the model's own `preprocess`, so truncation, lower-casing and special
        tokens are those of `SentenceTransformer.encode`. Equal texts are tokenised once and share
        their tokens.
        """
        window = self.window
        found: dict[str, Tokens] = {}
        waiting = list(dict.fromkeys(texts))
        reach = None if window is None else CHARACTERS_PER_TOKEN * max(1, window)
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
        """Return the number of tokens of a prompt, including special ones, without truncation."""
        return len(self._tokenizer(prompt)["input_ids"])

    def width(self, longest: int, multiple: int) -> int:
        """Return the number of columns of a batch, given the length of its longest text.

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
        if self._flattens and all(one.ids_only for one in batch):
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

    def whole(self, prompt: str) -> WholeTexts | None:
        """Return the tokenizer of whole texts after a prompt; None: only `tokenize` is possible.

        Texts that fit into the window have the tokens of `tokenize`, without special tokens.
        """
        return None if self._frame(prompt).encode is None else self._whole

    def others(self, prompt: str) -> Mapping[str, Any]:
        """Return features of a batch after a prompt that are not of single tokens."""
        return self._frame(prompt).others

    @cached_property
    def window(self) -> int | None:
        """The window in tokens, including the prompt; None: no limit."""
        if self._asked_window is not None:
            return self._asked_window
        window = getattr(self._module, "max_seq_length", None)
        own = lengths_by_role(self._model).get(self.task.get("task", ""))
        window = window if own is None else own
        # What transformers takes as no limit.
        return None if window is None or window > 1e20 else int(window)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether texts go through a fast tokenizer and nothing else."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer

        module = self._module
        return (
            type(self._model).preprocess is SentenceTransformer.preprocess
            and type(self._model[0]) is Transformer
            and module.processor is self._tokenizer
            # Messages are put into a template; a text that looks like the path of an image is one
            # only for models of images.
            and set(module.modality_config) == {"text"}
            # They may set another length, side or way of truncation.
            and not module.processing_kwargs
            and module.query_expansion is None
            and is_fast_tokenizer_unchanged(type(self._tokenizer))
        )

    @cached_property
    def _encode(self) -> Callable[[list[str]], list[Any]] | None:
        """A function that encodes texts as `preprocess` does, without padding; None: there is none.

        Threads may share it.
        """
        if not self._is_plain or (self.window or 0) > _LARGEST_WINDOW:
            return None
        backend = self._backend()
        if backend is None:
            return None
        if self.window is not None:
            backend.enable_truncation(
                self.window, direction=self._tokenizer.truncation_side, strategy="longest_first"
            )
        return encoder_of(backend)

    def _backend(self) -> Any:
        """Return a copy of the fast tokenizer that neither pads nor truncates; None: there is none.

        Truncation and padding of the model's own are set by `preprocess` at every call.
        """
        backend = copy_of(self._tokenizer.backend_tokenizer)
        # Merges that are dropped at random: there is nothing to compare with.
        if backend is None or getattr(backend.model, "dropout", None):
            return None
        backend.encode_special_tokens = self._tokenizer.split_special_tokens
        backend.no_padding()
        backend.no_truncation()
        return backend

    @cached_property
    def _whole(self) -> WholeTexts | None:
        """The tokenizer of whole texts; None: there is none."""
        backend = self._backend() if self._encode is not None else None
        if backend is None:
            return None
        try:
            return WholeTexts(backend, self._beginning if self._may_be_cut else None)
        except ValueError:
            return None

    @cached_property
    def _may_be_cut(self) -> bool:
        """Whether the tokens of a text's beginning are those that the whole text begins with."""
        # Nor if a part of the tokenizer cannot be looked into, or drops merges at random.
        if self._encode is None or self._tokenizer.truncation_side != "right":
            return False
        backend = self._tokenizer.backend_tokenizer
        parts = json.loads(without_model(backend).to_str())
        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        if backend.normalizer is not None:
            added += [backend.normalizer.normalize_str(content) for content in added]
        return (
            splits_at_spaces(parts["pre_tokenizer"])
            and leaves_spaces(parts["normalizer"])
            and not any(ACROSS_WORDS.search(content) for content in added)
        )

    def _beginning(self, text: str, reach: int) -> str:
        """Return a beginning of a text whose tokens are those that the whole text begins with.

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
        """Return whether a space separates the letters or digits on both sides of it."""
        if len(around) != 3 or not all(
            unicodedata.category(character) in WORD for character in (around[0], around[2])
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
        frame = self._frame(prompt)
        if frame.encode is None:
            return self._tokenize_preprocessed(texts, prompt)
        tokens: list[Tokens] = []
        for block in blocks(texts):
            ids, starts = ids_of(
                frame.encode([prompt + text for text in block] if prompt else block)
            )
            tokens += [Tokens(ids[start:end], {}, frame.others) for start, end in pairwise(starts)]
        return tokens

    def _tokenize_preprocessed(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        """Return the tokens of each text, from `preprocess`."""
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
        own = module.max_seq_length if self._asked_window is not None else None
        if self._flattens:
            # Concatenated texts could not be separated again.
            module.can_flatten_inputs = False
        try:
            if self._asked_window is not None:
                module.max_seq_length = self._asked_window
            return dict(self._model.preprocess(texts, prompt=prompt or None, **self.task))
        finally:
            if self._asked_window is not None:
                module.max_seq_length = own
            if self._flattens:
                module.can_flatten_inputs = True

    def _flatten(self, batch: Sequence[Tokens]) -> dict[str, Any]:
        """Return a batch's features without padding, one text after the other, as one row.

        This is the format of sentence-transformers for flash attention, with boundaries of texts.
        """
        module = self._module
        rows = [{"input_ids": one.ids.tolist()} for one in batch]
        features = dict(module.data_collator(rows))
        features.pop("labels", None)
        if offset := flattened_position_offset(module):
            features["position_ids"] = features["position_ids"] + offset
        return {**features, **batch[0].others}

    def _frame(self, prompt: str) -> _Frame:
        """Return the common properties of all texts with a prompt."""
        if prompt not in self._frames:
            probes = self._probes() if self._encode is not None else [_PROBE]
            features = self._preprocess(probes, prompt)
            shape = features["attention_mask"].shape
            names = tuple(
                name
                for name, value in features.items()
                if isinstance(value, Tensor) and value.shape[:2] == shape
            )
            others = {name: value for name, value in features.items() if name not in names}
            encode = self._encode
            if encode is not None and not (
                set(names) <= {"input_ids", "attention_mask", "token_type_ids"}
                and not any(isinstance(value, Tensor) for value in others.values())
                and _agree(encode([prompt + probe for probe in probes]), features)
            ):
                encode = None
            self._frames[prompt] = _Frame(names, others, encode)
        return self._frames[prompt]

    def _probes(self) -> list[str]:
        """Return texts of many kinds, to compare both ways to tokenise them."""
        special = self._tokenizer.all_special_tokens
        # Its beginning and its end differ: that shows which side is cut off.
        long = " ".join(map(str, range(0 if self.window is None else self.window + 8)))
        return [_PROBE, *_PROBES, f"a {' '.join(special)} b{''.join(special)}c", long]


# Texts that `preprocess` and the fast tokenizer have to agree on before the latter is called alone.
_PROBE = "a text"
_PROBES = (
    "",
    " ",
    "  Attention, TEMPERATURE\tand\r\nlines;  it's 1,234.5 \u00a0",
    "Über naïve e\u0301 ΛΌΓΟΣ Привет 漢字かな 한국어 العربية हिन्दी",
    "ﬁ İ \u200b\u3000\x00\x7f😀👩\u200d💻 \ufc5e",
    "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> <pad> <unk> <mask> <|endoftext|> <|im_end|>",
)


def _agree(encodings: list[Any], features: Mapping[str, Any]) -> bool:
    """Return whether features are the ids of encodings, padded, and nothing more."""
    mask = features["attention_mask"].numpy().astype(bool)
    ids, starts = ids_of(encodings)
    segments = features.get("token_type_ids")
    return (
        np.array_equal(mask.sum(axis=1), np.diff(starts))
        and np.array_equal(features["input_ids"].numpy()[mask], ids)
        and (segments is None or _trivial("token_type_ids", segments, mask))
    )


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
