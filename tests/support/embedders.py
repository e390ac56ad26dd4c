"""Twins of the shipped embedders with random weights, in the form of their repositories.

Architecture, modules, pooling, prompts, tokenizer class and its post-processor, special tokens and
padding side are the models'; sizes, weights and vocabulary are not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HIDDEN = 32
WINDOW = 512
VOCABULARY = 600
_WORDS = ("the", "temperature", "attention", "query", "text", "river", "passage", "search", "of")

_SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": WINDOW,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}


@dataclass(frozen=True)
class Twin:
    """A twin of a shipped embedder.

    Attributes:
        model: class of transformers.
        config: class and values of its configuration.
        tokenizer: writes its tokenizer into a folder.
        pooling: pooling mode.
        architecture: `architectures` in its config.json; None: as transformers writes it.
        more: further modules: widths of dense layers, or "Normalize".
        prompts: of its config_sentence_transformers.json.
        window: of its sentence_bert_config.json; None: it has none.
        extra: what its config.json has besides.
    """

    model: str
    config: tuple[str, dict[str, Any]]
    tokenizer: Callable[[Path, Path], None]
    pooling: str
    architecture: str | None = None
    more: tuple[int | str, ...] = ("Normalize",)
    prompts: dict[str, str] | None = None
    window: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _merged(words: tuple[str, ...], first: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the tokens and merges that make each word, after a space, one token."""
    tokens: dict[str, None] = {}
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        left = first
        for letter in word:
            merges[left, letter] = None
            left += letter
            tokens[left] = None
    return list(tokens), list(merges)


def _qwen(ends: str | None) -> Callable[[Path, Path], None]:
    """Byte-level BPE; the post-processor of tokenizer.json appends `ends`, if anything."""

    def write(folder: Path, _: Path) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
        from tokenizers import pre_tokenizers as pre
        from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

        tokens, merges = _merged(_WORDS, "Ġ")
        pieces = [*sorted(pre.ByteLevel.alphabet()), *tokens]
        made = Tokenizer(models.BPE({one: i for i, one in enumerate(pieces)}, merges))
        made.normalizer = normalizers.NFC()
        from tokenizers import Regex

        made.pre_tokenizer = pre.Sequence(
            [
                pre.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
                pre.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.decoder = decoders.ByteLevel()
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        made.add_special_tokens([AddedToken(one, special=True) for one in special])
        level = processors.ByteLevel(trim_offsets=False)
        made.post_processor = (
            level
            if ends is None
            else processors.Sequence(
                [
                    level,
                    processors.TemplateProcessing(
                        single=f"$A {ends}",
                        pair=f"$A {ends} $B {ends}",
                        special_tokens=[(ends, made.token_to_id(ends))],
                    ),
                ]
            )
        )
        made.save(str(folder / "tokenizer.json"))
        _write(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "Qwen2Tokenizer",
                "add_prefix_space": False,
                "bos_token": None,
                "eos_token": "<|im_end|>" if ends else "<|endoftext|>",
                "pad_token": "<|endoftext|>",
                "unk_token": None,
                "model_max_length": 131072,
                # As gte-Qwen2's files have it, whose own tokenizer class follows it.
                **({} if ends else {"add_eos_token": True}),
            },
        )

    return write


def _bytes() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _mistral(folder: Path, _: Path) -> None:
    """BPE with a space before the text; tokenizer.json adds <s> alone, its settings say both."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from tokenizers import pre_tokenizers as pre

    tokens, merges = _merged(_WORDS, "▁")
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *_bytes(), "▁", *letters, *tokens]
    made = Tokenizer(
        models.BPE(
            {one: i for i, one in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(one, special=True) for one in pieces[:3]])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": True,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "legacy": True,
            "model_max_length": 1000000000000000019884624838656,
        },
    )


def _gemma(folder: Path, _: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from tokenizers import pre_tokenizers as pre

    tokens, merges = _merged(_WORDS, "▁")
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *_bytes(), "▁", *letters, *tokens]
    made = Tokenizer(
        models.BPE(
            {one: i for i, one in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(one, special=True) for one in pieces[:5]])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        pair="<bos> $A <eos> <bos> $B <eos>",
        special_tokens=[("<bos>", 2), ("<eos>", 1)],
    )
    made.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": True,
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "model_max_length": 2048,
        },
    )


def _xlm_roberta(folder: Path, _: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from tokenizers import pre_tokenizers as pre

    letters = [chr(code) for code in range(33, 127)]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [
        *((one, 0.0) for one in special),
        ("▁", -3.0),
        *((letter, -8.0) for letter in letters),
        *((f"▁{word}", -4.0) for word in _WORDS),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    made.pre_tokenizer = pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace()])
    made.decoder = decoders.Metaspace()
    made.add_special_tokens([AddedToken(one, special=True) for one in [*special, "<mask>"]])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    made.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "XLMRobertaTokenizer",
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "model_max_length": 512,
        },
    )


def _modernbert(folder: Path, _: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from tokenizers import pre_tokenizers as pre

    tokens, merges = _merged(_WORDS, "Ġ")
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    pieces = [*sorted(pre.ByteLevel.alphabet()), *tokens, *special]
    made = Tokenizer(models.BPE({one: i for i, one in enumerate(pieces)}, merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(one, special=True) for one in special])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(one, made.token_to_id(one)) for one in ("[CLS]", "[SEP]")],
    )
    made.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 8192,
        },
    )


def _bert(folder: Path, minilm: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(minilm / name, folder / name)
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
            "do_lower_case": True,
            "model_max_length": 8192,
        },
    )


_WEB = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
_GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "Classification": "task: classification | query: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "Reranking": "task: search result | query: ",
    "Retrieval": "task: search result | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
    "Summarization": "task: summarization | query: ",
}
_XLM = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "type_vocab_size": 1}
_QWEN3 = Twin(
    "Qwen3Model",
    ("Qwen3Config", {**_GROUPED, "tie_word_embeddings": True}),
    _qwen("<|endoftext|>"),
    "lasttoken",
    architecture="Qwen3ForCausalLM",
    prompts={"query": _WEB, "document": ""},
)
_E5 = Twin(
    "XLMRobertaModel",
    ("XLMRobertaConfig", {**_SIZES, **_XLM, "max_position_embeddings": WINDOW + 2}),
    _xlm_roberta,
    "mean",
    window=WINDOW,
)
# By the names of their configs in conf/model.
TWINS: dict[str, Twin] = {
    "qwen3-0.6b": _QWEN3,
    "qwen3-4b": _QWEN3,
    "qwen3-8b": _QWEN3,
    "embeddinggemma": Twin(
        "Gemma3TextModel",
        (
            "Gemma3TextConfig",
            {
                **_GROUPED,
                "use_bidirectional_attention": True,
                "sliding_window": 16,
                "query_pre_attn_scalar": 8,
                "pad_token_id": 0,
                "eos_token_id": 1,
                "bos_token_id": 2,
            },
        ),
        _gemma,
        "mean",
        more=(128, HIDDEN, "Normalize"),
        prompts=_GEMMA,
        window=WINDOW,
    ),
    "e5-mistral": Twin(
        "MistralModel",
        ("MistralConfig", {**_GROUPED, "sliding_window": 16}),
        _mistral,
        "lasttoken",
        window=WINDOW,
    ),
    "gte-qwen2-1.5b": Twin(
        "Qwen2Model",
        ("Qwen2Config", {k: v for k, v in _GROUPED.items() if k != "head_dim"}),
        _qwen(None),
        "lasttoken",
        architecture="Qwen2ForCausalLM",
        window=WINDOW,
        extra={"is_causal": False, "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}},
    ),
    "nomic": Twin(
        "NomicBertModel",
        ("NomicBertConfig", {**_SIZES, "vocab_size": 30528}),
        _bert,
        "mean",
        more=(),
        window=WINDOW,
        extra={"auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling.NomicBertModel"}},
    ),
    "modernbert-embed": Twin(
        "ModernBertModel",
        (
            "ModernBertConfig",
            {
                **_SIZES,
                "local_attention": 16,
                "global_attn_every_n_layers": 2,
                "reference_compile": False,
                **{f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep", "pad")},
            },
        ),
        _modernbert,
        "mean",
        window=WINDOW,
    ),
    "me5-small": Twin("BertModel", ("BertConfig", _SIZES), _xlm_roberta, "mean", window=WINDOW),
    "me5-base": _E5,
    "me5-large": _E5,
    "me5-instruct": _E5,
}
_KINDS = {
    "Transformer": "sentence_transformers.models.Transformer",
    "Pooling": "sentence_transformers.models.Pooling",
    "Dense": "sentence_transformers.models.Dense",
    "Normalize": "sentence_transformers.models.Normalize",
}
_POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_twin(config: str, folder: Path, minilm: Path) -> Path:
    """Write the twin of a shipped model into a folder, and return it.

    Args:
        config: name of its config in conf/model.
        folder: the folder, which need not exist.
        minilm: folder of MiniLM, whose tokenizer BERT's twins have.
    """
    import torch
    import transformers
    from safetensors.torch import save_file

    twin = TWINS[config]
    kind, values = twin.config
    torch.manual_seed(0)
    model = getattr(transformers, twin.model)(getattr(transformers, kind)(**values)).eval()
    # Initial weights of 0.02 make attention nearly uniform.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.25)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    own = json.loads((folder / "config.json").read_text())
    if twin.architecture is not None:
        own["architectures"] = [twin.architecture]
    _write(folder / "config.json", {**own, **twin.extra})
    twin.tokenizer(folder, minilm)
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": HIDDEN,
            **{key: mode == twin.pooling for mode, key in _POOLINGS.items()},
            "include_prompt": True,
        },
    )
    modules, width = [("Transformer", ""), ("Pooling", "1_Pooling")], HIDDEN
    for number, one in enumerate(twin.more, start=2):
        name = "Normalize" if one == "Normalize" else "Dense"
        modules.append((name, f"{number}_{name}"))
        if isinstance(one, int):
            _write(
                folder / f"{number}_Dense" / "config.json",
                {
                    "in_features": width,
                    "out_features": one,
                    "bias": False,
                    "activation_function": "torch.nn.modules.linear.Identity",
                },
            )
            weight = torch.randn(one, width) / width**0.5
            save_file({"linear.weight": weight}, folder / f"{number}_Dense" / "model.safetensors")
            width = one
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": _KINDS[name]}
            for i, (name, path) in enumerate(modules)
        ],
    )
    settings = {"prompts": twin.prompts or {}, "default_prompt_name": None}
    _write(
        folder / "config_sentence_transformers.json",
        {**settings, "similarity_fn_name": "cosine"},
    )
    if twin.window is not None:
        _write(
            folder / "sentence_bert_config.json",
            {"max_seq_length": twin.window, "do_lower_case": False},
        )
    return folder
