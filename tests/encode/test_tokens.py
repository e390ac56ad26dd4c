"""Tokens: those of the model's own preprocessing, whatever makes them, is cut or padded."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Backend
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lcbench.encode.fast import copy_of
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.tempscale.policy import Role

ROOT = Path(__file__).parents[2]

WINDOW = 12
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What may go wrong at a cut: white space of all kinds, marks that join what is before or after
# them, letters that normalise to several with a space, right next to spaces and words.
PARTS = [
    *["temperature", "of", "attention", "a", "Über", "naïve", "42", "1,234.5", "it's", "I'LL", "x"],
    *["Привет", "мир", "λόγος", "ΛΌΓΟΣ", "漢字", "かな", "한국어", "العربية", "עברית", "हिन्दी"],
    *["  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2003", "\u2028", "\u3000", "\u200b"],
    *[
        "e\u0301",
        "\u0301",
        "\u0308",
        "\u200d",
        "\u3099",
        "ﾞ",
        "ﬁ",
        "ŉ",
        "ſ",
        "İ",
        "ß",
        "Ⅷ",
        "²",
        "¼",
    ],
    *["\u0600", "\u0d4e", "ﷺ", "\ufc5e", "\u037a", "￼", "\x00", "\x7f", "😀", "👩\u200d💻", "ǆ"],
    *["▁", "▁a", "Ġ", "##a", ".", "...", "—", "``", "''", "'", '"', "-", "_", "<", "#!@"],
    *["<mask>", "<s>", "[MASK]", "[SEP]", "tau", "Tau", "taut", "<|x|>"],
]
# Mostly words with one space between them, where a text may be cut.
ENDS = [" "] * 8 + ["", "  ", "\n"]
TEXTS = st.lists(
    st.tuples(st.sampled_from(PARTS + PARTS[:11] * 4), st.sampled_from(ENDS)).map("".join),
    max_size=60,
).map("".join)
CORPUS = [*(ROOT / "README.md").read_text(encoding="utf-8").splitlines(), *PARTS, " ".join(PARTS)]

LONG = "The attention temperature divides the logits before the softmax, it's said. " * 40


def fast(backend: Backend, trainer: Any = None, **options: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer, trained if there is a trainer, with special tokens around each text."""
    if trainer is not None:
        backend.train_from_iterator(CORPUS, trainer)
    if backend.post_processor is None:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
        )
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False)])
    backend.add_tokens([AddedToken("tau", single_word=True), AddedToken("<|x|>", lstrip=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "model_input_names": ["input_ids", "attention_mask"],
            **options,
        },
    )


def bpe(pre_tokenizer: Any, normalizer: Any = None, **options: Any) -> PreTrainedTokenizerFast:
    backend = Backend(models.BPE(**options))
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return fast(backend, trainer)


def unigram(pre_tokenizer: Any, *normalizer: Any) -> PreTrainedTokenizerFast:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence(list(normalizer))
    backend.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=800, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return fast(backend, trainer)


def wordpiece(normalizer: Any, **options: Any) -> PreTrainedTokenizerFast:
    backend = Backend(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if "post_processor" in options:
        backend.post_processor = options.pop("post_processor")
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)
    return fast(backend, trainer, **options)


def gpt4() -> pre_tokenizers.PreTokenizer:
    expression = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def qwen() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SEGMENTS = processors.TemplateProcessing(
    single="<s>:0 $A:1 </s>:0", special_tokens=[("<s>", 2), ("</s>", 3)]
)
Replace, Metaspace = normalizers.Replace, pre_tokenizers.Metaspace
# Where a beginning is known to have the tokens that the text begins with.
CUT: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "WordPiece, cased": lambda: wordpiece(normalizers.BertNormalizer(lowercase=False)),
    "WordPiece, segments": lambda: wordpiece(
        normalizers.BertNormalizer(lowercase=True, strip_accents=True),
        post_processor=SEGMENTS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ),
    "byte-level": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte-level, prefixed": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "byte-level, digits": lambda: bpe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        normalizers.NFC(),
    ),
    "GPT-4": lambda: bpe(gpt4()),
    "Qwen 2": lambda: bpe(qwen(), normalizers.NFC()),
    "Unigram, words": lambda: unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), Metaspace()]),
        normalizers.NFKC(),
    ),
    "Unigram, Metaspace": lambda: unigram(
        Metaspace(prepend_scheme="first"),
        normalizers.Nmt(),
        normalizers.NFKC(),
        normalizers.Strip(left=False, right=True),
        Replace(Regex(" {2,}"), "▁"),
    ),
    "Unigram, lower case": lambda: unigram(
        Metaspace(),
        Replace("``", '"'),
        normalizers.NFKD(),
        normalizers.StripAccents(),
        normalizers.Lowercase(),
    ),
}
# Where it is not, or not known to.
WHOLE: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "no pre-tokenizer": lambda: bpe(None),
    "spaces replaced": lambda: bpe(
        None, normalizers.Sequence([normalizers.Prepend("▁"), Replace(" ", "▁")])
    ),
    "Metaspace in one piece": lambda: unigram(Metaspace(split=False), normalizers.NFKC()),
    "dropout": lambda: bpe(pre_tokenizers.ByteLevel(), dropout=0.1),
    "another expression": lambda: bpe(pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")),
    "another replacement": lambda: unigram(Metaspace(), Replace(Regex("a b"), "c")),
    "truncated on the left": lambda: with_side("truncation_side"),
    "an added token of two words": lambda: with_added("New York"),
    "an added space": lambda: with_added(" "),
}


def with_side(side: str) -> PreTrainedTokenizerFast:
    found = CUT["WordPiece, cased"]()
    setattr(found, side, "left")
    return found


def with_added(content: str) -> PreTrainedTokenizerFast:
    found = CUT["byte-level"]()
    found.add_tokens([AddedToken(content, normalized=False)])
    return found


@pytest.fixture(scope="module")
def base(make_model: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(str(make_model("bert")), device="cpu")


@pytest.fixture(scope="module")
def make(base: SentenceTransformer) -> Callable[..., SentenceTransformer]:
    """Return a maker of models with a given tokenizer; without one, it is MiniLM's."""

    def make(found: PreTrainedTokenizerFast | None, window: int = WINDOW) -> SentenceTransformer:
        module = copy.copy(base[0])
        module._modules = dict(module._modules)
        module.processor = copy.deepcopy(base.tokenizer) if found is None else found
        module._prompt_length_mapping = {}
        model = SentenceTransformer(modules=[module, base[1]], device="cpu")
        model.max_seq_length = window
        return model

    return make


@pytest.fixture(scope="module")
def tokenizers(make: Callable[..., SentenceTransformer]) -> dict[str, Tokenizer]:
    makers = {"MiniLM": lambda: None, **CUT, **WHOLE}
    return {name: Tokenizer(make(maker())) for name, maker in makers.items()}


def without_padding(features: dict[str, Any]) -> dict[str, Tensor]:
    mask = features["attention_mask"][0].bool()
    return {name: value[0][mask] for name, value in features.items() if isinstance(value, Tensor)}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value


def assert_tokens_are_those_of_the_model(
    tokenizer: Tokenizer, texts: Sequence[str], prompt: str = ""
) -> None:
    for text, tokens in zip(texts, tokenizer.tokenize(texts, prompt), strict=True):
        expected = without_padding(tokenizer._model.preprocess([text], prompt=prompt or None))
        assert tokens.ids.dtype == np.int32
        assert tokens.length == len(expected["input_ids"]) <= WINDOW
        assert tokens.ids.tolist() == expected["input_ids"].tolist()


@pytest.mark.parametrize("name", ["MiniLM", *CUT, *(name for name in WHOLE if name != "dropout")])
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), prompt=st.sampled_from(["", "a query: "]))
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_tokens_are_those_of_the_model(
    name: str, texts: list[str], prompt: str, tokenizers: dict[str, Tokenizer]
) -> None:
    # So that most of these texts are cut, and many beginnings do not fill the window.
    with mock.patch("lcbench.encode.tokens.CHARACTERS_PER_TOKEN", 1):
        assert_tokens_are_those_of_the_model(tokenizers[name], texts, prompt)


@pytest.mark.parametrize("name", ["MiniLM", *CUT])
@given(text=TEXTS)
@examples(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_wherever_a_text_may_be_cut_its_beginning_has_the_same_tokens(
    name: str, text: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers[name]
    backend = tokenizer._tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    whole = backend.encode(text, add_special_tokens=False).ids
    for cut in range(1, len(text)):
        if text[cut] == " " and tokenizer._parts(text[cut - 1 : cut + 2]):
            beginning = backend.encode(text[:cut], add_special_tokens=False).ids
            assert beginning == whole[: len(beginning)], text[:cut]


@pytest.mark.parametrize("name", ["MiniLM", *CUT])
@given(text=TEXTS, prompt=st.sampled_from(["", "a query: "]))
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_whole_text_has_the_same_ids_in_parts(
    name: str, text: str, prompt: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers[name]
    backend = tokenizer._tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    expected = backend.encode(prompt + text)
    whole = tokenizer.whole(prompt)
    if whole is None:
        # Only `preprocess` knows its segments.
        assert name == "WordPiece, segments"
        return
    with mock.patch("lcbench.encode.fast.CHARACTERS", 8):
        (ids,) = whole.ids([prompt + text])
        (few,) = whole.ids([prompt + text], 5)
    assert [*whole.begin, *ids, *whole.end] == expected.ids
    assert few.tolist() == ids[:5].tolist()
    (read,) = tokenizer.tokenize([text], prompt)
    if read.length < WINDOW:
        assert read.ids.tolist() == expected.ids


def test_long_texts_are_divided_where_the_tokenizer_allows_it(
    tokenizers: dict[str, Tokenizer],
) -> None:
    divided = set()
    for name in ("MiniLM", *CUT):
        whole = tokenizers[name].whole("")
        if whole is None:
            continue
        with (
            mock.patch("lcbench.encode.fast.CHARACTERS", 100),
            mock.patch.object(whole, "_bare", side_effect=whole._bare) as bare,
        ):
            whole.ids([LONG])
        pieces = [len(one) for call in bare.call_args_list for one in call.args[0]]
        assert sum(pieces) == len(LONG)
        divided |= {name} if max(pieces) <= 200 else set()
    assert {"MiniLM", "Unigram, words"} <= divided


def test_a_cut_is_between_words_that_the_normaliser_leaves_apart(
    tokenizers: dict[str, Tokenizer],
) -> None:
    compatible, chinese = tokenizers["Unigram, words"], tokenizers["MiniLM"]
    for around in ("a b", "5 Ü", "м 한"):
        assert compatible._parts(around)
    for around in ("a .", ". a", "a  ", "a", "a ", "a \u0301", "_ a", "² 2"):
        assert not compatible._parts(around)
    # NFKC makes this letter a space and two marks, and BERT's puts spaces around Chinese ones.
    assert not compatible._parts("a \ufc5e")
    assert compatible._parts("長 a")
    assert not chinese._parts("長 a")
    assert not chinese._parts("a 長")


def texts_read(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """Return what is tokenised to get the tokens of texts, all attempts together."""
    with mock.patch.object(tokenizer, "_tokenize", side_effect=tokenizer._tokenize) as made:
        tokenizer.tokenize(texts)
    return [one for call in made.call_args_list for one in call.args[0]]


def characters_read(tokenizer: Tokenizer, text: str) -> int:
    """Return how many characters of a text are tokenised, all attempts together."""
    return sum(map(len, texts_read(tokenizer, [text])))


@pytest.mark.parametrize("name", ["MiniLM", *CUT])
def test_only_what_the_window_can_use_is_tokenised(
    name: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizers[name].tokenize([LONG])
    assert len(LONG) > 2500
    assert WINDOW < characters_read(tokenizers[name], LONG) <= 6 * WINDOW
    # Without a space to cut at: base64, Chinese, and lines of one word.
    for unbroken in ("YWJj" * 700, "長長的文章" * 500, "word\n" * 600):
        assert characters_read(tokenizers[name], unbroken) == len(unbroken)


def test_a_reach_of_nothing_comes_to_an_end(tokenizers: dict[str, Tokenizer]) -> None:
    assert tokenizers["MiniLM"]._beginning("a b c", 0) == "a"


def test_a_beginning_that_does_not_fill_the_window_is_followed_by_a_longer_one(
    tokenizers: dict[str, Tokenizer],
) -> None:
    text = "attention" + "\n" * 50 + "scaled logits " * 100
    tokenizers["MiniLM"].tokenize([text])
    # "attention", 50 line ends and "scaled", which are two tokens; then about twice as much.
    assert 65 + 65 < characters_read(tokenizers["MiniLM"], text) <= 3 * 6 * WINDOW
    assert_tokens_are_those_of_the_model(tokenizers["MiniLM"], [text])


@pytest.mark.parametrize("name", list(WHOLE))
def test_where_a_cut_is_not_known_to_be_exact_the_whole_text_is_tokenised(
    name: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizers[name].tokenize([LONG])
    assert characters_read(tokenizers[name], LONG) == len(LONG)


def test_without_a_window_the_whole_text_is_tokenised(
    make: Callable[..., SentenceTransformer],
) -> None:
    tokenizer = Tokenizer(make(CUT["Unigram, words"](), window=int(1e30)))
    assert tokenizer.tokenize([LONG])[0].length > 400
    assert characters_read(tokenizer, LONG) == len(LONG)


def test_equal_texts_are_tokenised_once(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["MiniLM"]
    texts = ["a", "b c", "a", "", "b c"]
    assert sorted(texts_read(tokenizer, texts)) == ["", "a", "b c"]
    tokens = tokenizer.tokenize(texts)
    assert tokens[0] is tokens[2]
    # [CLS] and [SEP] alone, or around a letter.
    assert [one.length for one in tokens] == [3, 4, 3, 2, 4]
    assert tokenizer.tokenize([]) == []


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", ["", "a query: "])
@pytest.mark.parametrize("name", ["MiniLM", *CUT])
def test_a_batch_is_what_the_model_makes_of_its_texts(
    name: str, prompt: str, side: str, make: Callable[..., SentenceTransformer]
) -> None:
    found = None if name == "MiniLM" else CUT[name]()
    model = make(found)
    model.tokenizer.padding_side = side
    tokenizer = Tokenizer(model)
    texts = ["", "a", LONG, "tau and temperature", "naïve <mask> x"]
    tokens = tokenizer.tokenize(texts, prompt)
    expected = dict(model.preprocess(texts, prompt=prompt or None))
    assert expected["input_ids"].shape == (5, WINDOW)
    assert ("prompt_length" in expected) == bool(prompt)
    assert_same(tokenizer.pad(tokens, pin=False), expected)
    # Not the longest one.
    part = [texts[i] for i in (3, 0, 1)]
    again = dict(model.preprocess(part, prompt=prompt or None))
    assert_same(tokenizer.pad([tokens[3], tokens[0], tokens[1]]), again)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "mpnet", "deberta"])
def test_a_batch_of_every_architecture(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    model = SentenceTransformer(str(make_model(architecture)), device="cpu")
    tokenizer = Tokenizer(model)
    texts = ["", "a short text", LONG]
    for prompt in ("", "a query: "):
        tokens = tokenizer.tokenize(texts, prompt)
        expected = dict(model.preprocess(texts, prompt=prompt or None))
        assert_same(tokenizer.pad(tokens), expected)
        assert all(one.ids_only for one in tokens)


def test_segments_that_are_not_zero_are_kept(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["WordPiece, segments"]
    empty, words = (tokenizer.tokenize([text])[0] for text in ("", "a tau"))
    assert empty.ids_only
    assert not words.ids_only
    assert words.per_token["token_type_ids"].tolist() == [0, 1, 1, 0]
    expected = dict(tokenizer._model.preprocess(["", "a tau"]))
    assert_same(tokenizer.pad([empty, words]), expected)


def test_a_feature_of_the_text_is_more_than_its_ids_say() -> None:
    ids = np.zeros(3, dtype=np.int32)
    assert Tokens(ids, {}, {"modality": "text", "prompt_length": 4}).ids_only
    assert not Tokens(ids, {}, {"lengths": torch.ones(2)}).ids_only
    assert not Tokens(ids, {"token_type_ids": torch.ones(3)}, {}).ids_only


# Made as sentence-transformers loads them: the classes' own normalisers, pre-tokenizers, templates.
WORDPIECE = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *sorted(set("".join(CORPUS)))]


def byte_pairs() -> dict[str, Any]:
    """Return the vocabulary and merges of a byte-level tokenizer."""
    made = json.loads(
        bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)).backend_tokenizer.to_str()
    )
    vocabulary = dict(made["model"]["vocab"])
    for token in ("<mask>", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<|endoftext|>"):
        vocabulary.setdefault(token, len(vocabulary))
    return {"vocab": vocabulary, "merges": [tuple(pair) for pair in made["model"]["merges"]]}


def pieces(*first: str) -> list[tuple[str, float]]:
    """Return the vocabulary of a unigram tokenizer, after special tokens."""
    made = json.loads(unigram(Metaspace(), normalizers.NFKC()).backend_tokenizer.to_str())
    words = [(piece, score) for piece, score in made["model"]["vocab"] if piece not in SPECIAL]
    return [*((one, 0.0) for one in first), *words]


def byte_fallback(*first: str) -> dict[str, Any]:
    """Return the vocabulary and merges of byte pairs with "▁" for a space and a token a byte."""
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.normalizer = Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    made = json.loads(backend.to_str())["model"]
    # Some characters are left out, so that their bytes take their place.
    left_out = {piece for piece in made["vocab"] if any(letter in piece for letter in "漢日éе😀")}
    merges = [tuple(pair) for pair in made["merges"] if not left_out & {*pair, "".join(pair)}]
    tokens = [*first, *(f"<0x{byte:02X}>" for byte in range(256)), *made["vocab"]]
    kept = dict.fromkeys(token for token in tokens if token not in left_out)
    return {"vocab": {token: i for i, token in enumerate(kept)}, "merges": merges}


def words() -> dict[str, int]:
    """Return the vocabulary of a WordPiece tokenizer with the special tokens of BERT and MPNet."""
    made = wordpiece(normalizers.BertNormalizer(lowercase=True)).backend_tokenizer.get_vocab()
    return {
        token: i
        for i, token in enumerate(dict.fromkeys([*WORDPIECE, "<s>", "</s>", "<pad>", *made]))
    }


def last_token(found: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Let an end follow each text, as decoders that embed have it."""
    end = found.convert_tokens_to_ids("<|endoftext|>")
    found.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
            ),
        ]
    )
    found.pad_token, found.padding_side = "<|endoftext|>", "left"
    return found


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "BERT": lambda: transformers.BertTokenizer(vocab=words()),
    "BERT, cased": lambda: transformers.BertTokenizer(vocab=words(), do_lower_case=False),
    "MPNet": lambda: transformers.MPNetTokenizer(vocab=words()),
    "RoBERTa": lambda: transformers.RobertaTokenizer(**byte_pairs()),
    "ModernBERT": lambda: transformers.GPTNeoXTokenizer(
        **byte_pairs(), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ),
    "GPT-2, last token": lambda: last_token(transformers.GPT2Tokenizer(**byte_pairs())),
    "Qwen 2, last token": lambda: last_token(transformers.Qwen2Tokenizer(**byte_pairs())),
    "T5": lambda: transformers.T5Tokenizer(vocab=pieces("<pad>", "</s>", "<unk>")),
    "XLM-R": lambda: transformers.XLMRobertaTokenizer(
        vocab=pieces("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    ),
    "DeBERTa": lambda: transformers.DebertaV2Tokenizer(
        vocab=pieces("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
    ),
    "ALBERT": lambda: transformers.AlbertTokenizer(
        vocab=pieces("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    ),
    "Llama": lambda: transformers.LlamaTokenizer(
        **byte_fallback("<unk>", "<s>", "</s>"), pad_token="</s>", add_eos_token=True
    ),
    "Gemma": lambda: transformers.GemmaTokenizer(
        **byte_fallback("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), add_eos_token=True
    ),
    "CLIP": lambda: transformers.CLIPTokenizer(**byte_pairs()),
}
ODD = [
    *("", " ", "\n", "\x00", "\u200b", "a", "  leading and trailing \t", "\n\nlines\r\nof it\n"),
    *(
        "😀",
        "👩\u200d💻 e\u0301\u0301",
        "漢字かな한국어",
        "ﬁ İ ŉ Ⅷ \ufc5e",
        "http://a.b/c.png",
        "a.mp3",
    ),
    *("[SEP]", "</s>", "a [CLS] b[MASK]c </s><s> <pad>[PAD] <unk> <mask> <|endoftext|>", "tau TAU"),
    *("##a ▁a Ġa", " ".join(PARTS), "".join(PARTS), LONG, "YWJj" * 100, "é" * 300, " " * 300),
]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("window", [3, WINDOW, 64, 10**30], ids=["3", "12", "64", "none"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_is_tokenised_directly_and_as_by_preprocess(
    name: str, window: int, side: str, make: Callable[..., SentenceTransformer]
) -> None:
    model = make(FAMILIES[name](), window)
    model.tokenizer.truncation_side = side
    tokenizer = Tokenizer(model)
    for prompt in ("", "a query: ", "search_document:\n", "</s> [SEP]"):
        tokens = tokenizer.tokenize(ODD, prompt)
        assert tokenizer._frame(prompt).encode is not None
        expected = dict(model.preprocess(ODD, prompt=prompt or None))
        mask = expected["attention_mask"].bool()
        for one, ids, read in zip(tokens, expected["input_ids"], mask, strict=True):
            assert one.ids.dtype == np.int32
            assert one.ids.tolist() == ids[read].tolist()
        assert_same(tokenizer.pad(tokens), expected)


@pytest.mark.parametrize("characters", [100_000, pytest.param(10**6, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_text_of_a_million_characters(
    name: str, characters: int, make: Callable[..., SentenceTransformer]
) -> None:
    model = make(FAMILIES[name](), 64)
    tokenizer = Tokenizer(model)
    texts = ["attention is temperature " * (characters // 25), "\n\n.a" * (characters // 4)]
    tokens = tokenizer.tokenize(texts, "a query: ")
    expected = dict(model.preprocess(texts, prompt="a query: "))
    assert [one.ids.tolist() for one in tokens] == expected["input_ids"].tolist()


def test_pieces_of_equal_probability_stay_in_their_order(
    make: Callable[..., SentenceTransformer],
) -> None:
    """Sums of the same scores in another order differ in the last bit, which decides."""
    chance = random.Random(0)
    runs = [(letter * n, -10 * chance.random()) for letter in "abcdefghij" for n in range(2, 9)]
    singles = [(letter, -20.0) for letter in "abcdefghij▁"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *singles, *runs]
    model = make(transformers.T5Tokenizer(vocab=vocabulary), 64)
    texts = [letter * n for letter in "abcdefghij" for n in range(1, 200)]
    assert preprocessed(model, texts) == 0


def preprocessed(model: SentenceTransformer, texts: list[str], prompt: str = "") -> int:
    """Return how many texts go through `preprocess`, once it was seen how it treats them."""
    tokenizer = Tokenizer(model)
    tokenizer.tokenize(["a text"], prompt)
    with mock.patch.object(model, "preprocess", side_effect=model.preprocess) as preprocess:
        tokens = tokenizer.tokenize(texts, prompt)
    for text, one in zip(texts, tokens, strict=True):
        expected = without_padding(model.preprocess([text], prompt=prompt or None))
        assert one.ids.tolist() == expected["input_ids"].tolist()
    return sum(len(call.args[0]) for call in preprocess.call_args_list)


@pytest.mark.parametrize("name", ["MiniLM", *CUT, *WHOLE])
def test_only_what_the_ids_do_not_say_goes_through_preprocess(
    name: str, make: Callable[..., SentenceTransformer]
) -> None:
    if name == "dropout":
        assert Tokenizer(make(WHOLE[name]()))._encode is None
        return
    model = make(None if name == "MiniLM" else {**CUT, **WHOLE}[name]())
    through = preprocessed(model, ["a text", "another"], "a query: ")
    assert through == (2 if name == "WordPiece, segments" else 0)


def own_module(model: SentenceTransformer) -> None:
    model[0].__class__ = type("Own", (type(model[0]),), {})


def own_model(model: SentenceTransformer) -> None:
    def preprocess(self: Any, inputs: Any, **options: Any) -> Any:
        return SentenceTransformer.preprocess(self, [text[::-1] for text in inputs], **options)

    model.__class__ = type("Own", (SentenceTransformer,), {"preprocess": preprocess})


def own_tokenizer(model: SentenceTransformer) -> None:
    def encode(self: Any, text: Any, **options: Any) -> Any:
        return PreTrainedTokenizerFast._encode_plus(self, [one[:3] for one in text], **options)

    own = type("Own", (type(model.tokenizer),), {"_encode_plus": encode})
    model.tokenizer.__class__ = own


def own_normalizer(model: SentenceTransformer) -> None:
    class Upper:
        def normalize(self, text: Any) -> None:
            text.uppercase()

    model.tokenizer.backend_tokenizer.normalizer = normalizers.Normalizer.custom(Upper())


DEPARTURES: list[Callable[[SentenceTransformer], None]] = [
    own_module,
    own_model,
    own_tokenizer,
    own_normalizer,
    lambda model: setattr(model[0], "processing_kwargs", {"text": {"max_length": 5}}),
    lambda model: setattr(model[0], "processing_kwargs", {"text": {"add_special_tokens": False}}),
]


@pytest.mark.parametrize("depart", DEPARTURES)
def test_a_model_with_ways_of_its_own_keeps_them(
    depart: Callable[[SentenceTransformer], None], make: Callable[..., SentenceTransformer]
) -> None:
    model = make(None)
    depart(model)
    assert preprocessed(model, ["a text of some length", LONG, ""]) == 3


def test_messages_expansions_and_other_modalities_go_through_preprocess(
    make: Callable[..., SentenceTransformer],
) -> None:
    for changes in (
        {"modality_config": {"text": {}, "message": {}}},
        {"modality_config": {"text": {}, "image": {}}},
        {"_query_expansion": {"strategy": "fixed", "length": 8}},
    ):
        model = make(None)
        vars(model[0]).update(changes)
        assert Tokenizer(model)._encode is None


def test_where_the_two_ways_differ_preprocess_is_right(
    make: Callable[..., SentenceTransformer],
) -> None:
    def lie(backend: Any) -> Any:
        copied = copy_of(backend)
        copied.normalizer = normalizers.BertNormalizer(lowercase=False)
        return copied

    model = make(None)
    with mock.patch("lcbench.encode.tokens.copy_of", lie):
        assert preprocessed(model, ["a text", "Another TEXT"]) == 2


def test_the_copy_shares_the_model_and_has_all_added_tokens(
    make: Callable[..., SentenceTransformer],
) -> None:
    found = CUT["byte-level"]()
    found.add_tokens([AddedToken(" of ", normalized=False), AddedToken("ten", single_word=True)])
    found.add_special_tokens({"additional_special_tokens": ["<|y|>"]})
    own = found.backend_tokenizer
    copied = copy_of(own)
    assert json.loads(copied.to_str())["added_tokens"] == json.loads(own.to_str())["added_tokens"]
    own.model.dropout = 0.5
    assert copied.model.dropout == 0.5
    own.model.dropout = None
    texts = ["one of ten<|y|> of tens", "[ten] <|x|> of<mask> taut tau", "<|y|>"]
    assert preprocessed(make(found, 64), texts) == 0


def test_a_tokenizer_whose_added_tokens_cannot_be_copied_has_no_copy() -> None:
    class Gap:
        """A backend that numbers each added token after the last, and here began at 7."""

        normalizer = pre_tokenizer = post_processor = None

        def __init__(self, model: Any, first: int = 0) -> None:
            self.model, self.first, self.added = model, first, ["<a>"]

        def add_tokens(self, tokens: list[str]) -> None:
            self.added = tokens

        def get_added_tokens_decoder(self) -> dict[int, str]:
            return dict(enumerate(self.added, start=self.first))

    assert copy_of(Gap("a model", 7)) is None
    assert copy_of(Gap("a model")) is not None


@pytest.mark.parametrize("name", ["BERT", "Qwen 2, last token", "XLM-R", "Llama"])
def test_special_tokens_that_are_read_as_text(
    name: str, make: Callable[..., SentenceTransformer]
) -> None:
    model = make(FAMILIES[name](), 64)
    model.tokenizer.split_special_tokens = True
    assert preprocessed(model, ODD) == 0
    special = model.tokenizer.all_special_tokens[0]
    before = Tokenizer(model).tokenize([f"a {special} b"])[0].ids.tolist()
    model.tokenizer.split_special_tokens = False
    assert Tokenizer(model).tokenize([f"a {special} b"])[0].ids.tolist() != before


@pytest.mark.parametrize(("role", "longest"), [("query", 8), ("document", 20), (None, 64)])
def test_windows_by_role_are_read_directly(
    role: Role | None, longest: int, make: Callable[..., SentenceTransformer]
) -> None:
    model = make(None, 64)
    model[0].query_length, model[0].document_length = 8, 20
    tokenizer = Tokenizer(model, role)
    for prompt in ("", "a query: "):
        tokens = tokenizer.tokenize(ODD, prompt)
        assert tokenizer._frame(prompt).encode is not None
        expected = dict(model.preprocess(ODD, prompt=prompt or None, task=role))
        assert expected["input_ids"].shape[1] == longest
        assert_same(tokenizer.pad(tokens), expected)


def test_texts_are_lower_cased_where_the_modules_settings_say_so(
    make_model: Callable[[str], Path],
) -> None:
    upper = "ATTENTION Is TEMPERATURE"
    module = Transformer(str(make_model("roberta")), do_lower_case=True)
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension())])
    assert preprocessed(model, [upper, *ODD]) == 0
    one, other = Tokenizer(model).tokenize([upper, upper.lower()])
    assert one.ids.tolist() == other.ids.tolist()


def test_a_normaliser_that_came_after_the_added_tokens(
    make: Callable[..., SentenceTransformer],
) -> None:
    found = CUT["WordPiece, cased"]()
    found.add_tokens(["TEMPERature", AddedToken("OF", normalized=False)])
    found.backend_tokenizer.normalizer = normalizers.Lowercase()
    texts = ["a TEMPERature OF", "a temperature of it", "TEMPERATURE"]
    assert preprocessed(make(found, 64), texts) == 0


@pytest.mark.parametrize("window", [2**16 + 1, 10**12])
def test_a_window_that_no_probe_fills(
    window: int, make: Callable[..., SentenceTransformer]
) -> None:
    model = make(None, window)
    assert Tokenizer(model)._encode is None
    assert preprocessed(model, ["a text", LONG]) == 2


def test_a_tokenizer_without_the_fast_way_uses_the_plain_one(
    make: Callable[..., SentenceTransformer],
) -> None:
    class Plain:
        """A backend of earlier versions."""

        def __init__(self, backend: Any) -> None:
            self._backend = copy_of(backend)

        def __getattr__(self, name: str) -> Any:
            if name == "encode_batch_fast":
                raise AttributeError(name)
            return getattr(self._backend, name)

    model = make(None)
    with mock.patch("lcbench.encode.tokens.copy_of", Plain):
        assert preprocessed(model, ["a text", LONG]) == 0


def test_ids_lie_one_after_the_other_and_the_models_tokenizer_is_left_alone(
    make: Callable[..., SentenceTransformer],
) -> None:
    model = make(None)
    tokenizer = Tokenizer(model)
    tokenizer.tokenize(["a text"])
    own = model.tokenizer.backend_tokenizer
    own.no_truncation()
    own.no_padding()
    before = own.to_str()
    one, two, three = tokenizer.tokenize(["a text", "", LONG])
    assert one.ids.base is two.ids.base is three.ids.base is not None
    assert one.ids.base.dtype == np.int32
    assert one.ids.base.size == 4 + 2 + WINDOW
    assert own.to_str() == before


def test_texts_are_read_in_blocks_of_bounded_size(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["MiniLM"]
    texts = [f"{letter} b" for letter in "acdefghijklmnopqrstu"]
    expected = [one.ids.tolist() for one in tokenizer.tokenize(texts)]
    with mock.patch("lcbench.encode.fast.CHARACTERS", 22):
        found = tokenizer.tokenize(texts)
    assert [one.ids.tolist() for one in found] == expected
    # [CLS], [SEP] and two letters each: eight texts of three characters, and the last four.
    assert {one.ids.base.size for one in found} == {4 * 8, 4 * 4}


def test_threads_share_a_tokenizer(make: Callable[..., SentenceTransformer]) -> None:
    model = make(None)
    tokenizer = Tokenizer(model)
    texts = [f"Attention {i} {LONG[: i % 200]}" for i in range(400)]
    expected = [one.ids.tolist() for one in tokenizer.tokenize(texts)]

    def preprocess(_: int) -> Any:
        model.preprocess(texts[:50], prompt="a query: ")
        return expected

    def tokenize(_: int) -> Any:
        return [one.ids.tolist() for one in tokenizer.tokenize(texts)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: (preprocess if i % 4 == 0 else tokenize)(i), range(24)))
    assert all(one == expected for one in found)


def test_a_lone_surrogate_is_refused_as_by_preprocess(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["MiniLM"]
    for tokenize in (tokenizer.tokenize, tokenizer._model.preprocess):
        with pytest.raises(TypeError, match="TextEncodeInput must be"):
            tokenize(["a text", "\ud800"])


@pytest.mark.gpu
def test_pinned_memory(tokenizers: dict[str, Tokenizer]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tokenizer = tokenizers["MiniLM"]
    tokens = tokenizer.tokenize(["a", "b c"])
    features = tokenizer.pad(tokens, pin=True)
    assert all(value.is_pinned() for value in features.values() if isinstance(value, Tensor))
    assert_same(features, tokenizer.pad(tokens))
