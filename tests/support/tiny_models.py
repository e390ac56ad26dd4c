"""Transformers of two layers with random weights, one of each architecture that tests need."""

from copy import deepcopy
from functools import cache


def tiny_transformer(architecture: str):
    """Return a transformer of two layers and 32 dimensions with random weights."""
    import torch

    model = deepcopy(_made(architecture))
    # As random numbers go on from here, whether it was made before or not.
    torch.manual_seed(0)
    return model


@cache
def _made(architecture: str):
    import torch
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 30522,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    makers = {
        "bert": lambda: transformers.BertModel(transformers.BertConfig(**sizes)),
        # Its layers are one that is used twice.
        "albert": lambda: transformers.AlbertModel(
            transformers.AlbertConfig(**sizes, embedding_size=32)
        ),
        "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**sizes)),
        "mpnet": lambda: transformers.MPNetModel(transformers.MPNetConfig(**sizes)),
        "deberta": lambda: transformers.DebertaV2Model(transformers.DebertaV2Config(**sizes)),
        "t5": lambda: transformers.T5EncoderModel(
            transformers.T5Config(**t5, vocab_size=30522, pad_token_id=0)
        ),
    }
    # Rotary positions, in one direction and in both.
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    makers["qwen3"] = lambda: transformers.Qwen3Model(transformers.Qwen3Config(**sizes, **grouped))
    makers["modernbert"] = lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(
            **sizes, global_attn_every_n_layers=2, reference_compile=False
        )
    )
    # As many tokens as all-MiniLM-L6-v2 has room for, in whose place it can be.
    long = {**sizes, "max_position_embeddings": 512}
    makers["bert-of-512"] = lambda: transformers.BertModel(transformers.BertConfig(**long))
    makers["canine"] = lambda: transformers.CanineModel(
        transformers.CanineConfig(**{**sizes, "upsampling_kernel_size": 3, "num_hash_buckets": 64})
    )
    torch.manual_seed(0)
    model = makers[architecture]().eval()
    # Initial weights of 0.02 make attention nearly uniform, which no temperature changes.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.4)
    return model
