"""What a token costs in a layer, from configurations, is what the modules multiply with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_transformer

from lcbench.hub.layers import Layer, layer_of, parameters_in

# Without embeddings, of the two layers: weights of all linear maps.
ARCHITECTURES = ["bert", "roberta", "mpnet", "deberta", "t5", "qwen3", "modernbert"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_those_of_the_linear_maps(architecture: str, tmp_path: Path) -> None:
    model = tiny_transformer(architecture)
    layer = layer_of(model.config.to_dict())
    assert layer is not None
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    ]
    assert 2 * layer.weights == sum(module.weight.numel() for _, module in linear)
    assert layer.causal is (architecture == "qwen3")
    assert layer.whole is (architecture in ("mpnet", "deberta", "t5"))
    assert layer.attended == 32
    model.save_pretrained(tmp_path)
    stored = sum(one.numel() for one in model.state_dict().values())
    shared = {one.data_ptr(): one.numel() for one in model.state_dict().values()}
    assert parameters_in(tmp_path) in (stored, sum(shared.values()))


@pytest.mark.parametrize(
    ("config", "weights", "causal"),
    [
        # Qwen3-Embedding-0.6B: heads wider together than the model, 8 heads of keys.
        (
            {
                **{"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16},
                **{"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072},
            },
            1024 * 128 * (2 * 16 + 2 * 8) + 3 * 1024 * 3072,
            True,
        ),
        # EmbeddingGemma attends both ways.
        (
            {
                **{"model_type": "gemma3_text", "hidden_size": 768, "num_attention_heads": 3},
                **{"num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 1152},
                **{"use_bidirectional_attention": True},
            },
            768 * 256 * (2 * 3 + 2 * 1) + 3 * 768 * 1152,
            False,
        ),
        (
            {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
            12 * 768**2,
            False,
        ),
    ],
)
def test_configurations_of_real_models(config: dict[str, Any], weights: int, causal: bool) -> None:
    layer = layer_of(config)
    assert layer is not None
    assert (layer.weights, layer.causal) == (weights, causal)


def config_of(kind: str, **values: Any) -> dict[str, Any]:
    """Return a configuration of ten layers as transformers writes it."""
    import transformers

    config = getattr(transformers, kind)(num_hidden_layers=10, **values)
    found: dict[str, Any] = config.to_dict()
    return found


WINDOWS = [
    ("ModernBertConfig", {}, 128, 0.4),
    ("ModernBertConfig", {"global_attn_every_n_layers": 2}, 128, 0.5),
    ("Gemma2Config", {"sliding_window": 64}, 64, 0.5),
    ("Gemma3TextConfig", {"sliding_window": 512}, 512, 0.1),
    ("Gemma3TextConfig", {"sliding_window": 512, "use_bidirectional_attention": True}, 512, 0.1),
    ("MistralConfig", {"sliding_window": 4096}, 4096, 0.0),
    ("MistralConfig", {"sliding_window": None}, None, 1.0),
    ("Qwen2Config", {"sliding_window": 32}, None, 1.0),
    (
        "Qwen2Config",
        {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 4},
        32,
        0.4,
    ),
    ("BertConfig", {}, None, 1.0),
]


@pytest.mark.parametrize(("kind", "values", "window", "full"), WINDOWS)
@pytest.mark.parametrize("older", [False, True])
def test_windows(
    kind: str, values: dict[str, Any], window: int | None, full: float, older: bool
) -> None:
    """Files of older versions have no type of each layer, and how often one is full instead."""
    config = config_of(kind, **values)
    if older:
        config.pop("layer_types", None)
        config.update(values)
    layer = layer_of(config)
    assert layer is not None
    assert (layer.window, layer.full) == (window, pytest.approx(full))


def test_the_tokens_that_one_attends_to() -> None:
    both = Layer(1, 1, 1, causal=False, heads=1, whole=False, window=100, full=0.25)
    assert both.reach(1000, windowed=False) == 1000
    assert both.reach(1000, windowed=True) == 0.25 * 1000 + 0.75 * 100
    assert both.reach(80, windowed=True) == 80
    causal = Layer(1, 1, 1, causal=True, heads=1, whole=False)
    assert causal.reach(1000, windowed=True) == 500


def test_what_files_do_not_say_is_unknown(tmp_path: Path) -> None:
    assert layer_of({"hidden_size": 768, "num_attention_heads": 12}) is None
    assert parameters_in(tmp_path) is None
    weights = {"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.zeros(())}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert parameters_in(tmp_path) == 13
    (tmp_path / "more.safetensors").write_bytes(b"nothing")
    assert parameters_in(tmp_path) == 13
