"""Sentence-transformers models of unusual but valid make-up, with random weights, as folders."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


# Fewer keys than queries, of other widths.
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_OF_OTHER_KINDS: dict[str, Callable[[Any], Any]] = {
    "gemma3": lambda t: t.Gemma3TextConfig(
        **SIZES,
        **_GROUPED,
        use_bidirectional_attention=True,
        sliding_window=16,
        query_pre_attn_scalar=8,
    ),
    "gemma2": lambda t: t.Gemma2Config(
        **SIZES, **_GROUPED, sliding_window=16, query_pre_attn_scalar=8
    ),
    "mistral": lambda t: t.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8),
    "gpt2": lambda t: t.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=30522, n_positions=64
    ),
    "bloom": lambda t: t.BloomConfig(
        vocab_size=30522, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0
    ),
    "roformer": lambda t: t.RoFormerConfig(**SIZES),
    "esm": lambda t: t.EsmConfig(**SIZES, position_embedding_type="rotary", mask_token_id=103),
    "longformer": lambda t: t.LongformerConfig(**SIZES, attention_window=8),
    "mobilebert": lambda t: t.MobileBertConfig(
        **SIZES, embedding_size=32, true_hidden_size=32, intra_bottleneck_size=32
    ),
    "squeezebert": lambda t: t.SqueezeBertConfig(**SIZES, embedding_size=32),
    "xmod": lambda t: t.XmodConfig(**SIZES, languages=["en_XX"], default_language="en_XX"),
    "bart": lambda t: t.BartConfig(
        vocab_size=30522,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        pad_token_id=0,
    ),
    "bigbird": lambda t: t.BigBirdConfig(**SIZES),
    "convbert": lambda t: t.ConvBertConfig(**SIZES, embedding_size=32),
    "nystromformer": lambda t: t.NystromformerConfig(
        **SIZES, num_landmarks=8, segment_means_seq_len=64
    ),
    "mamba": lambda t: t.MambaConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, state_size=8, pad_token_id=0
    ),
}


def _config(architecture: str) -> Any:
    import transformers

    if architecture == "distilbert":
        return transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
        )
    if architecture == "albert":
        return transformers.AlbertConfig(**SIZES, embedding_size=16)
    if architecture == "electra":
        return transformers.ElectraConfig(**SIZES, embedding_size=16)
    if architecture == "qwen3":
        return transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)
    if architecture == "modernbert":
        return transformers.ModernBertConfig(
            **SIZES, global_attn_every_n_layers=2, reference_compile=False
        )
    if architecture == "xlm-roberta":
        return transformers.XLMRobertaConfig(**SIZES)
    if architecture in _OF_OTHER_KINDS:
        return _OF_OTHER_KINDS[architecture](transformers)
    return transformers.BertConfig(**SIZES)


def _transformer(
    folder: Path,
    tokenizer: Path,
    architecture: str = "bert",
    window: int | None = 48,
    **options: Any,
) -> Any:
    """A transformer module with random weights; the tokenizer is MiniLM's."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModel

    inner = folder / "transformer"
    torch.manual_seed(0)
    model = AutoModel.from_config(_config(architecture))
    # Initial weights of 0.02 make attention nearly uniform.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.4)
    model.save_pretrained(inner)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, inner / name)
    return Transformer(str(inner), max_seq_length=window, **options)


def _save(folder: Path, modules: list[Any], **options: Any) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(1)
    model = SentenceTransformer(modules=modules, device="cpu", **options)
    # Its card takes most of the time that saving does, and nothing reads it.
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def _pooled(architecture: str, mode: Any, *more: str, **options: Any) -> Callable[..., Path]:
    """A maker: a transformer, a pooling, and further modules by name."""

    def make(folder: Path, tokenizer: Path) -> Path:
        from sentence_transformers.sentence_transformer import modules

        transformer = _transformer(folder, tokenizer, architecture)
        pooling = modules.Pooling(transformer.get_embedding_dimension(), mode)
        made = [transformer, pooling]
        width = pooling.get_embedding_dimension()
        for name in more:
            if name == "Normalize":
                made.append(modules.Normalize())
            elif name == "LayerNorm":
                made.append(modules.LayerNorm(width))
            elif name == "Dropout":
                made.append(modules.Dropout(0.5))
            else:
                made.append(modules.Dense(width, int(name)))
                width = int(name)
        return _save(folder, made, **options)

    return make


def _layers(folder: Path, tokenizer: Path) -> Path:
    """All hidden states, weighted."""
    from sentence_transformers.sentence_transformer import modules

    transformer = _transformer(folder, tokenizer, config_kwargs={"output_hidden_states": True})
    return _save(
        folder,
        [
            transformer,
            modules.WeightedLayerPooling(32, num_hidden_layers=2, layer_start=1),
            modules.Pooling(32, "mean"),
        ],
    )


def _routed(folder: Path, tokenizer: Path) -> Path:
    """Queries and documents through dense layers of their own."""
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer import modules

    router = Router.for_query_document(
        [modules.Dense(32, 32)], [modules.Dense(32, 32)], default_route="document"
    )
    transformer = _transformer(folder, tokenizer)
    return _save(folder, [transformer, modules.Pooling(32, "mean"), router])


def _convolved(folder: Path, tokenizer: Path) -> Path:
    """Convolutions over the token embeddings, which see padding beyond a text's end."""
    from sentence_transformers.sentence_transformer import modules

    return _save(
        folder,
        [_transformer(folder, tokenizer), modules.CNN(32, 8, [1, 3]), modules.Pooling(16, "mean")],
    )


def _cut_on_the_left(folder: Path, tokenizer: Path) -> Path:
    """Of a long text the end is read."""
    from sentence_transformers.sentence_transformer import modules

    transformer = _transformer(folder, tokenizer, window=16)
    transformer.tokenizer.truncation_side = "left"
    return _save(folder, [transformer, modules.Pooling(32, "mean")])


def _lower_cased(folder: Path, tokenizer: Path) -> Path:
    from sentence_transformers.sentence_transformer import modules

    transformer = _transformer(folder, tokenizer, do_lower_case=True)
    return _save(folder, [transformer, modules.Pooling(32, "mean")])


def _window_in_its_processing(folder: Path, tokenizer: Path) -> Path:
    """Texts are cut at 12 tokens by the module's processing settings, not by its window."""
    from sentence_transformers.sentence_transformer import modules

    transformer = _transformer(
        folder,
        tokenizer,
        processing_kwargs={"text": {"truncation": True, "max_length": 12}},
    )
    return _save(folder, [transformer, modules.Pooling(32, "mean")])


def _words(folder: Path, tokenizer: Path) -> Path:
    """Word vectors, without attention."""
    import numpy as np
    from sentence_transformers.sentence_transformer import modules
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    vocabulary = ["apples", "pears", "plums", "the"]
    words = modules.WordEmbeddings(
        WhitespaceTokenizer(vocabulary), np.eye(4, dtype=np.float32), max_seq_length=16
    )
    return _save(folder, [words, modules.Pooling(4, "mean")])


def _static(folder: Path, tokenizer: Path) -> Path:
    """Token vectors, without attention."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    static = StaticEmbedding(
        Tokenizer.from_file(str(tokenizer / "tokenizer.json")), embedding_dim=8
    )
    return _save(folder, [static])


def _fourier(folder: Path, tokenizer: Path) -> Path:
    """FNet: Fourier transforms in the place of attention."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import FNetConfig, FNetModel

    inner = folder / "transformer"
    config = FNetConfig(**{k: v for k, v in SIZES.items() if k != "num_attention_heads"})
    FNetModel(config).save_pretrained(inner)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, inner / name)
    return _save(folder, [Transformer(str(inner), max_seq_length=48), modules.Pooling(32, "mean")])


SCORED: dict[str, Callable[[Path, Path], Path]] = {
    "first token, normalised": _pooled("bert", "cls", "Normalize"),
    "weighted mean": _pooled("bert", "weightedmean"),
    "routes of queries and documents": _routed,
    "last token of a causal model": _pooled("qwen3", "lasttoken", "Normalize"),
    "mean and max": _pooled("bert", ("mean", "max")),
    "square-root mean, two dense layers": _pooled("electra", "mean_sqrt_len_tokens", "24", "12"),
    "layer norm and dropout": _pooled("distilbert", "mean", "LayerNorm", "Dropout"),
    "one layer used twice": _pooled("albert", "mean"),
    "alternating attention": _pooled("modernbert", "cls"),
    "truncated dimensions": _pooled("bert", "mean", truncate_dim=8),
    "dot product": _pooled("xlm-roberta", "max", similarity_fn_name="dot"),
    "weighted layers": _layers,
    "cut on the left": _cut_on_the_left,
    "lower-cased": _lower_cased,
    "processing settings": _window_in_its_processing,
    "both directions, near ones in every other layer": _pooled("gemma3", "mean"),
    "logits with a soft cap": _pooled("gemma2", "lasttoken"),
    "a window of attention that slides": _pooled("mistral", "mean"),
    "positions counted from the padding on": _pooled("gpt2", "mean"),
    "biases in the place of positions": _pooled("bloom", "weightedmean"),
    "rotated queries and keys of an encoder": _pooled("roformer", "cls"),
    "masked tokens that rescale": _pooled("esm", "mean"),
    "padded to whole windows by itself": _pooled("longformer", "cls"),
    "bottlenecks": _pooled("mobilebert", "cls", "16"),
    "convolutions in the place of projections": _pooled("squeezebert", "mean", "Normalize"),
    "an adapter for each language": _pooled("xmod", "mean"),
    "an encoder and a decoder": _pooled("bart", "mean"),
    "a state space, without attention": _pooled("mamba", "lasttoken"),
}
# What the refusal says of each.
REFUSED: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "word vectors": (_words, "attention|transformer"),
    "token vectors": (_static, "attention|transformer"),
    "convolutions that see padding": (_convolved, "padd"),
    "Fourier transforms that see padding": (_fourier, "padd"),
    "attention in blocks, of long texts alone": (_pooled("bigbird", "cls"), "block_sparse"),
    "convolutions beside attention": (_pooled("convbert", "mean"), "ConvBertModel: .* padding"),
    "landmarks of a fixed length": (
        _pooled("nystromformer", "mean"),
        "NystromformerModel cannot embed a simple sentence: RuntimeError: shape",
    ),
}
