"""Tokens: those of the model's own preprocessing, whatever is cut, kept, restored or padded."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
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

from lcbench.encode.tokens import Tokenizer, Tokens

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
    with mock.patch("lcbench.encode.tokens._CHARACTERS", 1):
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


def characters_read(tokenizer: Tokenizer, text: str) -> int:
    """Return how many characters of a text are tokenised, all attempts together."""
    with mock.patch.object(
        tokenizer._model, "preprocess", side_effect=tokenizer._model.preprocess
    ) as preprocess:
        tokenizer.tokenize([text])
    return sum(len(one) for call in preprocess.call_args_list for one in call.args[0])


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
    with mock.patch.object(
        tokenizer._model, "preprocess", side_effect=tokenizer._model.preprocess
    ) as preprocess:
        tokens = tokenizer.tokenize(texts)
    asked = [one for call in preprocess.call_args_list for one in call.args[0]]
    assert sorted(asked) == ["", "a", "b c"]
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
        assert all(one.restorable for one in tokens)
        restored = [Tokenizer(model).restore(one.ids.copy(), prompt) for one in tokens]
        assert_same(tokenizer.pad(restored), expected)


@pytest.mark.parametrize("prompt", ["", "a query: "])
@pytest.mark.parametrize("name", ["MiniLM", *CUT])
def test_what_is_kept_as_ids_is_restored(
    name: str, prompt: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers[name]
    texts = ["", "a", LONG, "tau and temperature"]
    for tokens in tokenizer.tokenize(texts, prompt):
        # Segments that are not zero are more than the ids say.
        assert tokens.restorable == ("token_type_ids" not in tokens.per_token)
        if tokens.restorable:
            row = np.frombuffer(tokens.ids.tobytes(), dtype=np.int32)
            restored = tokenizer.restore(row, prompt)
            assert np.array_equal(restored.ids, tokens.ids)
            assert restored.per_token == tokens.per_token == {}
            assert restored.others == tokens.others


def test_segments_that_are_not_zero_are_kept(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["WordPiece, segments"]
    empty, words = (tokenizer.tokenize([text])[0] for text in ("", "a tau"))
    assert empty.restorable
    assert not words.restorable
    assert words.per_token["token_type_ids"].tolist() == [0, 1, 1, 0]
    expected = dict(tokenizer._model.preprocess(["", "a tau"]))
    assert_same(tokenizer.pad([empty, words]), expected)


def test_a_feature_of_the_text_is_more_than_its_ids_say() -> None:
    ids = np.zeros(3, dtype=np.int32)
    assert Tokens(ids, {}, {"modality": "text", "prompt_length": 4}).restorable
    assert not Tokens(ids, {}, {"lengths": torch.ones(2)}).restorable
    assert not Tokens(ids, {"token_type_ids": torch.ones(3)}, {}).restorable


def changed(change: Callable[[SentenceTransformer], None], model: SentenceTransformer) -> str:
    change(model)
    digest = Tokenizer(model).digest
    assert digest is not None
    return digest


def test_the_digest_is_what_text_becomes_ids_by(make: Callable[..., SentenceTransformer]) -> None:
    digest = Tokenizer(make(None)).digest
    assert digest is not None
    assert len(digest) == 64
    # Another model, what tokenizing leaves behind, or another template that is never used.
    model = make(None)
    Tokenizer(model).tokenize(["some text", LONG])
    model.tokenizer.chat_template = "{{ messages }}"
    assert Tokenizer(model).digest == digest

    def lower(model: SentenceTransformer) -> None:
        backend = model.tokenizer.backend_tokenizer
        backend.normalizer = normalizers.BertNormalizer(lowercase=False)

    def template(model: SentenceTransformer) -> None:
        model[0].modality_config = {**model[0].modality_config, "message": {}}
        model.tokenizer.chat_template = "{{ messages }}"

    changes: list[Callable[[SentenceTransformer], None]] = [
        lower,
        template,
        lambda model: model.tokenizer.add_tokens(["tempscale"]),
        lambda model: setattr(model, "max_seq_length", WINDOW + 1),
        lambda model: setattr(model.tokenizer, "truncation_side", "left"),
        lambda model: setattr(model.tokenizer, "padding_side", "left"),
        lambda model: setattr(model.tokenizer, "split_special_tokens", True),
        lambda model: setattr(model[0], "do_lower_case", True),
        lambda model: setattr(model[0], "processing_kwargs", {"text": {"max_length": 5}}),
    ]
    digests = {changed(change, make(None)) for change in changes}
    assert len(digests | {digest}) == len(changes) + 1


def test_what_is_no_fast_tokenizer_has_no_digest(make: Callable[..., SentenceTransformer]) -> None:
    model = make(None)
    with mock.patch("lcbench.encode.tokens.PreTrainedTokenizerFast", type("Fast", (), {})):
        assert Tokenizer(model).digest is None

    class Own(type(model[0])):  # type: ignore[misc]
        """A module that may do anything to a text."""

    model[0].__class__ = Own
    assert Tokenizer(model).digest is None


@pytest.mark.gpu
def test_pinned_memory(tokenizers: dict[str, Tokenizer]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tokenizer = tokenizers["MiniLM"]
    tokens = tokenizer.tokenize(["a", "b c"])
    features = tokenizer.pad(tokens, pin=True)
    assert all(value.is_pinned() for value in features.values() if isinstance(value, Tensor))
    assert_same(features, tokenizer.pad(tokens))
