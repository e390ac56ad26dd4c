"""Gains of LayerNorms and feed-forward networks: against weights multiplied by hand, by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, engine_of, largest_difference
from exactness import (
    ARCHITECTURES,
    make,
    reference_attention,
    states,
    temperatures,
)

import lcbench
from lcbench.errors import InjectionError, RequestError
from lcbench.repair.gain import Gain, parse
from lcbench.repair.repair import NO_REPAIR, Repair, parse_all
from lcbench.tempscale.policy import ModelShape

SHAPE = ModelShape(layers=2, window=48, position_bias=False)
TEXTS = ["a short text", "another text that is a little longer than the first", "a third one"]
TOLERANCE = 1e-5

# Names of LayerNorms in layers, and of what returns the feed-forward branch.
_BERT = (r"\.attention\.output\.LayerNorm|\.\d\.output\.LayerNorm", r"\.\d\.output\.dense")
_DECODER = (r"\.(input|post_attention)_layernorm", r"\.mlp\.down_proj")
_GEMMA = (
    r"\.(input|post_attention|pre_feedforward|post_feedforward)_layernorm",
    r"\.post_feedforward_layernorm",
)
NAMES = {
    **dict.fromkeys(
        ("BERT", "RoBERTa", "XLM-RoBERTa", "ELECTRA", "DeBERTa-v2", "DeBERTa-v3"), _BERT
    ),
    "MPNet": (r"\.attention\.LayerNorm|\.\d\.output\.LayerNorm", r"\.\d\.output\.dense"),
    "DistilBERT": (r"\.(sa|output)_layer_norm", r"\.ffn\.lin2"),
    "T5": (r"\.layer\.[01]\.layer_norm", r"\.DenseReluDense\.wo"),
    "ModernBERT": (r"\.(attn|mlp)_norm", r"\.mlp\.Wo"),
    "NomicBERT": (r"\.post_(attention|mlp)_layernorm", r"\.mlp\.down_proj"),
    **dict.fromkeys(("Qwen2", "Qwen3", "Mistral", "Llama"), _DECODER),
    **dict.fromkeys(("Gemma 2", "Gemma 3"), _GEMMA),
}


def multiply(architecture: str, model: Any, gain: Gain) -> Any:
    """Multiply weights by hand; Gemma's norms multiply by 1 + weight."""
    norms, outputs = NAMES[architecture.partition(",")[0]]
    gemma = float(architecture.startswith("Gemma"))
    for name, module in model.named_modules():
        with torch.no_grad():
            if re.search(f"(?:{norms})$", name) and hasattr(module, "weight"):
                weight = module.weight
                weight.copy_(gain.layernorm * (weight + gemma) - gemma)
            if re.search(f"(?:{outputs})$", name):
                module.weight.copy_(gain.ffn * (module.weight + gemma) - gemma)
                if getattr(module, "bias", None) is not None:
                    module.bias *= gain.ffn
    return model


def by_the_formula(architecture: str, gain: Gain, tau: str) -> torch.Tensor:
    exact = multiply(architecture, make(architecture).double(), gain)
    with reference_attention(exact, temperatures(tau, "document"), False):
        return states(exact)


# One without the other in the short run only where modules differ: norms after the sum and before
# it, without biases, and of 1 + weight, also as what returns the branch.
GAINS = [
    pytest.param(
        *(architecture, gain),
        marks=[pytest.mark.exhaustive]
        if gain != Gain(1.2, 0.7) and architecture not in ("BERT", "T5", "Llama", "Gemma 2")
        else [],
    )
    for architecture in ARCHITECTURES
    for gain in (Gain(layernorm=1.3), Gain(ffn=0.6), Gain(1.2, 0.7))
]


@pytest.mark.parametrize(("architecture", "gain"), GAINS, ids=str)
def test_a_gain_is_weights_multiplied(architecture: str, gain: Gain) -> None:
    expected = by_the_formula(architecture, gain, "none")
    model = make(architecture)
    before, largest = states(model), expected.abs().max()
    applied = gain.apply(model)
    got = states(model)
    error = float((got - expected).abs().max() / largest)
    assert error <= TOLERANCE
    assert float((got - before).abs().max() / largest) >= 100 * error
    with lcbench.inject(model, 0.7):
        both = states(model) - by_the_formula(architecture, gain, "constant")
    assert float(both.abs().max() / largest) <= TOLERANCE
    applied.remove()
    assert torch.equal(states(model), before)

    folded = make(architecture)
    gain.fold(folded)
    assert float((states(folded) - expected).abs().max() / largest) <= TOLERANCE


@pytest.mark.parametrize(
    ("value", "gain", "canonical"),
    [
        ({"layernorm": 1.10}, Gain(layernorm=1.1), "layernorm=1.1"),
        ({"ffn": "0.9", "layernorm": 2}, Gain(2.0, 0.9), "layernorm=2,ffn=0.9"),
        ({"ffn": 0.9, "layernorm": 1}, Gain(ffn=0.9), "ffn=0.9"),
    ],
)
def test_a_gain_has_one_name_however_it_was_written(
    value: object, gain: Gain, canonical: str
) -> None:
    found = parse(value)
    assert (found, found.canonical) == (gain, canonical)
    assert parse(found.written()) == gain
    assert Repair(gain=gain).parts == {"gain": canonical}


def test_a_gain_of_one_is_the_baseline() -> None:
    (_, repair) = parse_all({"gain": {"layernorm": 1.0, "ffn": 1}})
    assert repair.resolve(SHAPE) == NO_REPAIR
    assert parse(Gain().written()) == Gain()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.1, "gain=1.1 is no gain. Use {layernorm: 1.1}, {ffn: 0.9}"),
        ({}, "gain={} is no gain"),
        ({"layernom": 1.1}, r"layernom has no gain. Did you mean layernorm\?"),
        ({"ffn": 0}, "gain={ffn: 0}: a gain is above 0"),
        ({"ffn": -1}, "a gain is above 0"),
        ({"ffn": "much"}, "ffn is a number, not much"),
        ({"layernorm": [1]}, "layernorm is a finite number"),
    ],
)
def test_what_is_no_gain_is_refused(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(value)


@pytest.mark.parametrize("joint", [False, True])
def test_embeddings_are_the_same_alone_and_in_a_batch_and_restored(
    make_model: Callable[[str], Path], joint: bool
) -> None:
    """With the encoder's own products, in the place of the model's."""
    repair = Repair(gain=Gain(1.2, 0.7))
    engine, _ = engine_of(make_model("bert"), joint=joint)
    before = engine.embed(NO_REPAIR, TEXTS, None, "").embeddings
    found = engine.embed(repair, TEXTS, None, "").embeddings
    assert largest_difference(found, before) > 1e-3
    alone, _ = engine_of(make_model("bert"), batch_tokens=1)
    reverse = alone.embed(repair, TEXTS[::-1], None, "").embeddings[::-1]
    assert largest_difference(found, reverse) <= NOISE_FLOOR
    assert np.array_equal(engine.embed(NO_REPAIR, ["x", *TEXTS], None, "").embeddings[1:], before)


def test_the_proof_names_what_is_scaled(make_model: Callable[[str], Path]) -> None:
    _, (_, model) = engine_of(make_model("bert"))
    applied = Gain(ffn=0.9).apply(model)
    assert applied.proof["modules"] == [f"encoder.layer.{n}.output.dense" for n in (0, 1)]
    assert 0 <= applied.proof["largest_error"] < TOLERANCE
    applied.remove()
    assert not any(module._forward_hooks for module in model[0].auto_model.encoder.modules())


def test_a_module_that_returns_something_else_is_refused() -> None:
    model = make("BERT")
    norm = model.encoder.layer[1].output.LayerNorm
    norm.register_forward_hook(lambda module, args, output: output * 1.001)
    before = states(model)
    with pytest.raises(InjectionError, match=r"BertModel: encoder\.layer\.1\.output\.LayerNorm"):
        Gain(layernorm=1.2).apply(model)
    assert len(norm._forward_hooks) == 1
    assert torch.equal(states(model), before)


@pytest.mark.parametrize(
    ("kind", "gain", "message"),
    [
        ("MobileBert", Gain(layernorm=1.1), "no LayerNorm is found in its layer encoder.layer.0"),
        ("MobileBert", Gain(ffn=1.1), "layer encoder.layer.0 is not an attention and a feed-"),
        ("Bart", Gain(ffn=1.1), "4 layers were found where its configuration has 2"),
    ],
)
def test_other_architectures_are_refused_by_name(kind: str, gain: Gain, message: str) -> None:
    import transformers

    sizes = {"vocab_size": 120, "hidden_size": 32, "num_attention_heads": 4, "pad_token_id": 0}
    sizes |= {"num_hidden_layers": 2, "intermediate_size": 64}
    if kind == "MobileBert":
        sizes |= {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32}
    else:
        sizes |= {"encoder_layers": 2, "decoder_layers": 2, "d_model": 32}
        sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with pytest.raises(InjectionError, match=rf"gain={{.*: {kind}Model: .*{message}"):
        gain.apply(model)
