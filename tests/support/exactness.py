"""TempScale against the formula: every architecture, back end, policy and dtype.

The reference is the same model with attention written here from the formula alone,
softmax((scale · QKᵀ + bias) / τ): it calls no attention of transformers or torch, and no lcbench.
For float32 all of it runs in float64. For half precision the attention alone does, from each
layer's own queries, keys and values, and its result is rounded back: rounding everywhere else in
the model, which no temperature has a part in, is the same on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import torch
import transformers
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import lcbench
from lcbench.tempscale.unpadded import boundaries, first_position, register, runs_unpadded

LAYERS = 2
LENGTHS = (24, 15, 7)
VOCABULARY = 120

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}
_DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}

# Name → class, configuration. DeBERTa's position queries come in two kinds.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "BERT": ("BertModel", "BertConfig", _SIZES),
    "RoBERTa": ("RobertaModel", "RobertaConfig", _SIZES),
    "XLM-RoBERTa": ("XLMRobertaModel", "XLMRobertaConfig", _SIZES),
    "DistilBERT": (
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 32, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64, "vocab_size": VOCABULARY},
    ),
    "ELECTRA": ("ElectraModel", "ElectraConfig", _SIZES),
    "MPNet": ("MPNetModel", "MPNetConfig", _SIZES),
    "DeBERTa-v2": ("DebertaV2Model", "DebertaV2Config", {**_SIZES, **_DISENTANGLED}),
    "DeBERTa-v3": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**_SIZES, **_DISENTANGLED, "share_att_key": True, "position_buckets": 16},
    ),
    "T5": (
        "T5EncoderModel",
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": LAYERS,
            "num_heads": 4,
            "vocab_size": VOCABULARY,
        },
    ),
    "ModernBERT": (
        "ModernBertModel",
        "ModernBertConfig",
        {**_SIZES, **_SPECIAL, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "NomicBERT": ("NomicBertModel", "NomicBertConfig", _SIZES),
    "Qwen2": ("Qwen2Model", "Qwen2Config", {**_DECODER}),
    "Qwen3": ("Qwen3Model", "Qwen3Config", _DECODER),
    "Mistral": ("MistralModel", "MistralConfig", {**_DECODER, "sliding_window": 8}),
    "Llama": ("LlamaModel", "LlamaConfig", _DECODER),
    "Gemma 2": (
        "Gemma2Model",
        "Gemma2Config",
        {**_DECODER, "sliding_window": 8, "attn_logit_softcapping": 5.0},
    ),
    "Gemma 3": ("Gemma3TextModel", "Gemma3TextConfig", {**_DECODER, "sliding_window": 8}),
    # Decoders whose attention goes in both directions, as embedders have it.
    "Qwen2, both directions": ("Qwen2Model", "Qwen2Config", {**_DECODER, "is_causal": False}),
    "Gemma 3, both directions": (
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {**_DECODER, "sliding_window": 8, "use_bidirectional_attention": True},
    ),
}
# What the architectures call these projections (ModernBERT's is one for all three).
_QUERIES_AND_KEYS = {"query", "key", "q", "k", "q_lin", "k_lin", "q_proj", "k_proj", "Wqkv"} | {
    "query_proj",
    "key_proj",
    "pos_key_proj",
    "pos_query_proj",
}
_VALUES = {"value", "v", "v_lin", "v_proj", "value_proj"}
BACK_ENDS = ("eager", "sdpa")
# What transformers itself does not run. It raises where a model is made with that back end; MPNet
# and DeBERTa, asked later, stay on eager.
REFUSED_BY_TRANSFORMERS = {
    ("Gemma 2", "sdpa"),
    ("MPNet", "sdpa"),
    ("DeBERTa-v2", "sdpa"),
    ("DeBERTa-v3", "sdpa"),
}

# lcbench's own back end takes texts without padding, where nothing is added to the logits or they
# are capped, and sdpa would do.
UNPADDED = register()
NEVER_UNPADDED = {*(name for name, _ in REFUSED_BY_TRANSFORMERS), "T5"}

# Temperatures by layer and head.
BY_HEAD = [[0.5, 1.0, 1.4, 0.8], [1.2, 0.6, 0.9, 0.7]]
EVEN = [[0.7, 0.7, 0.9, 0.9], [1.1, 1.1, 0.6, 0.6]]


def heads_file(taus: Sequence[Any], lengths: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the content of a file of temperatures by head for the models here."""
    tau = list(taus) if lengths else taus[0]
    shape = {"layers": LAYERS, "heads": len(taus[0][0])}
    return {"model": "tiny", **shape, "lengths": lengths, "tau": tau}


POLICIES: dict[str, Any] = {
    "constant": 0.7,
    "role": {"query": 0.7, "document": 1.3},
    "layers": {"layers": {0: 1.0, 1: 0.7}},
    "steps": {"length": {0: 1.0, 10: 0.9, 16: 0.6}},
    "logn": {"length": {"logn": 4}},
    "infoscale": {"length": {"infoscale": 4}},
    "heads": {"heads": heads_file([BY_HEAD])},
    # At 24 tokens as given, at 15 between the two, at 7 as at the first length.
    "heads by length": {"heads": heads_file([BY_HEAD, EVEN], [9, 24])},
}
# Largest relative error, by dtype.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class Measured:
    """How far an injected model is from the formula, and from itself at τ = 1.

    Both are max |difference| / max |reference| of the last hidden states, padding left out.
    """

    error: float
    effect: float


def make(architecture: str, **changes: Any) -> Any:
    """Return a model with random weights, large enough for a temperature to matter.

    Args:
        architecture: a name of `ARCHITECTURES`.
        changes: what its configuration has differently.
    """
    kind, config, sizes = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(
        getattr(transformers, config)(**{**sizes, **changes})
    ).eval()
    # T5 does not divide its logits by the root of the head's size: its weights are smaller for it.
    spread = 0.25 * 8**-0.25 if architecture == "T5" else 0.25
    with torch.no_grad():
        for name, weight in model.named_parameters():
            parts = set(name.split("."))
            if parts & _QUERIES_AND_KEYS and weight.dim() == 2:
                nn.init.normal_(weight, std=spread)
            elif architecture == "T5" and "v" in parts:
                # As made, attention would outweigh the embeddings, and the rounding of T5's logits,
                # which are half precision up to the softmax, be nearly all there is in the result.
                nn.init.normal_(weight, std=0.09)
            elif parts & _VALUES and weight.dim() == 2 and "head_dim" not in sizes:
                # Decoders' hidden states are not normalised after they are added to.
                nn.init.normal_(weight, std=0.5)
            elif architecture.startswith("Gemma") and "embed_tokens" in parts:
                # As large as what the layers add to them, which Gemma normalises.
                nn.init.normal_(weight, std=0.2)
            elif "relative_attention_bias" in parts:
                nn.init.normal_(weight, std=1.0)
    return model


def batch(lengths: Sequence[int] = LENGTHS) -> dict[str, Tensor]:
    """Return texts of the given lengths, padded on the right: [texts, max(lengths)]."""
    shape = (len(lengths), max(lengths))
    ids = torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def states(model: Any, lengths: Sequence[int] = LENGTHS) -> Tensor:
    """Return the last hidden states of what is not padding: [tokens, dimensions], float64."""
    if runs_unpadded(model):
        unpadded: Tensor = model(**unpadded_batch(model, lengths)).last_hidden_state
        return unpadded[0].double()
    inputs = batch(lengths)
    found: Tensor = model(**inputs).last_hidden_state
    return found[inputs["attention_mask"].bool()].double()


def unpadded_batch(model: Any, lengths: Sequence[int] = LENGTHS) -> dict[str, Any]:
    """Return the texts of `batch` as one row, with the positions that a model counts for itself."""
    inputs = batch(lengths)
    read = inputs["attention_mask"].bool()
    positions = read.cumsum(dim=1) - 1 + first_position(model)
    return {
        "input_ids": inputs["input_ids"][read][None],
        "position_ids": positions[read][None],
        **boundaries(lengths),
    }


def token_ids(length: int) -> Tensor:
    """Return a text without special tokens, another for each length: [1, length]."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, VOCABULARY, (1, length), generator=generator)


@torch.no_grad()
def states_by_text(model: Any, *texts: Tensor, left: bool = False) -> list[Tensor]:
    """Return the last hidden states of each text of a batch: [tokens, dimensions].

    Args:
        model: a transformer whose padding has the id 0.
        texts: token ids, [1, tokens] each.
        left: whether padding comes first.
    """
    longest = max(text.shape[1] for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        read = slice(longest - text.shape[1], longest) if left else slice(0, text.shape[1])
        ids[row, read] = text
        mask[row, read] = 1
    found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return [found[row][mask[row].bool()] for row in range(len(texts))]


def temperatures(policy: str, role: str, lengths: Sequence[int] = LENGTHS) -> list[Any]:
    """Return τ by layer and text, and head where these differ, as the policy says, by hand."""
    texts = len(lengths)
    shares = [min(1.0, max(0.0, math.log(n / 9) / math.log(24 / 9))) for n in lengths]
    by_layer_and_text: dict[str, list[Any]] = {
        "none": [[1.0] * texts] * LAYERS,
        "constant": [[0.7] * texts] * LAYERS,
        "role": [[0.7 if role == "query" else 1.3] * texts] * LAYERS,
        "layers": [[1.0] * texts, [0.7] * texts],
        "steps": [[0.6 if n >= 16 else 0.9 if n >= 10 else 1.0 for n in lengths]] * LAYERS,
        "logn": [[math.log(4) / math.log(n) for n in lengths]] * LAYERS,
        # All heads have 8 dimensions.
        "heads": [[layer] * texts for layer in BY_HEAD],
        "heads by length": [
            [
                [a ** (1 - share) * b**share for a, b in zip(first, last, strict=True)]
                for share in shares
            ]
            for first, last in zip(BY_HEAD, EVEN, strict=True)
        ],
        "infoscale": [[((1 - 4**-0.25) / (1 - n**-0.25)) ** 0.5 for n in lengths]] * LAYERS,
    }
    return by_layer_and_text[policy]


def weights_of(logits: Tensor, tau: Tensor) -> Tensor:
    """Return softmax(logits / τ) by its definition; rows without any key are zero."""
    scaled = logits / tau
    powers = torch.exp(scaled - scaled.amax(dim=-1, keepdim=True).clamp(min=-1e300))
    total = powers.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, powers / total.clamp(min=1e-300), 0.0)


def is_masked(logits: Tensor) -> Tensor:
    """Return where a mask, or logits with a mask added, hold the most negative number."""
    return logits < torch.finfo(logits.dtype).min / 2


@contextmanager
def reference_attention(
    model: Any,
    taus: list[Any],
    kept: bool,
    change: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> Iterator[None]:
    """Let a model compute attention by the formula in float64, layer by layer.

    Args:
        model: of any dtype, which the results are rounded to.
        taus: by layer and text, and head where these differ.
        kept: whether a position bias is left undivided.
        change: returns other weights, given the layer, its weights [texts, heads, tokens, keys] and
            which keys are attended to, in the same shape.
    """
    calls = 0
    position_biases: list[Tensor] = []

    def next_tau() -> Tensor:
        nonlocal calls
        tau = torch.tensor(taus[calls % LAYERS], dtype=torch.float64)
        calls += 1
        return tau.view(len(tau), -1, 1, 1)

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        tau = next_tau()
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        groups = query.shape[1] // key.shape[1]
        keys, values = (part.double().repeat_interleave(groups, dim=1) for part in (key, value))
        logits = torch.einsum("bhqd,bhkd->bhqk", query.double(), keys) * scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        if position_bias is not None:
            logits = logits + position_bias.double() * (tau if kept else 1.0)
        if attention_mask is not None:
            logits = logits.masked_fill(is_masked(attention_mask), -math.inf)
        weights = weights_of(logits, tau)
        if change is not None:
            weights = change((calls - 1) % LAYERS, weights, logits > -math.inf)
        attended = torch.einsum("bhqk,bhkd->bqhd", weights, values)
        return attended.to(query.dtype), None

    def softmax(logits: Tensor, dim: int) -> Tensor:
        # MPNet and DeBERTa: the logits are whole, and what is masked is the most negative number.
        tau = next_tau()
        whole = logits.double()
        if kept:
            # They hold MPNet's bias once already.
            whole = whole + position_biases[-1].double() * (tau - 1.0)
        return weights_of(whole.masked_fill(is_masked(logits), -math.inf), tau).to(logits.dtype)

    def note_bias(*args: Any, **kwargs: Any) -> Tensor:
        position_biases.append(compute_position_bias(*args, **kwargs))
        return position_biases[-1]

    if type(model)._can_set_attn_implementation():
        ALL_ATTENTION_FUNCTIONS.register("by_the_formula", attend)
        ALL_MASK_ATTENTION_FUNCTIONS.register(
            "by_the_formula", ALL_MASK_ATTENTION_FUNCTIONS["eager"]
        )
        model.set_attn_implementation("by_the_formula")
        yield
    else:
        if kept:
            compute_position_bias = model.encoder.compute_position_bias
            model.encoder.compute_position_bias = note_bias
        with mock.patch("torch.nn.functional.softmax", softmax):
            yield
    assert calls == LAYERS, f"{calls} layers were run by the formula"


def measure(
    architecture: str,
    back_end: str,
    policy: str,
    dtype: torch.dtype,
    *,
    role: str = "document",
    kept: bool = False,
) -> Measured:
    """Compare an injected model with the formula, and with itself at τ = 1.

    Args:
        architecture: a name of `ARCHITECTURES`.
        back_end: the attention implementation.
        policy: a name of `POLICIES`.
        dtype: of the model.
        role: whose texts these are.
        kept: whether a position bias is left undivided.
    """
    model = make(architecture).to(dtype)
    model.set_attn_implementation(back_end)
    expected = _expected(architecture, policy, dtype, role, kept)
    untouched = states(model)
    bias = "kept" if kept else "divided"
    with lcbench.inject(model, POLICIES[policy], tau_bias=bias) as injection:
        injection.role = role  # type: ignore[assignment]
        got = states(model)
        injection.check()
    if not torch.equal(states(model), untouched):
        raise AssertionError("the model is not as it was before the injection")
    largest = expected.abs().max()
    return Measured(
        error=float((got - expected).abs().max() / largest),
        effect=float((untouched - got).abs().max() / largest),
    )


@cache
def _expected(architecture: str, policy: str, dtype: torch.dtype, role: str, kept: bool) -> Tensor:
    """Return the states by the formula, in which no back end has a part."""
    exact = make(architecture).to(dtype)
    if dtype == torch.float32:
        exact = exact.double()
    with reference_attention(exact, temperatures(policy, role), kept):
        return states(exact)


def table() -> Iterator[str]:
    """Yield the lines of a Markdown table of all combinations in fp32, bf16 and fp16."""
    names = [str(dtype).removeprefix("torch.") for dtype in LIMITS]
    yield f"| architecture | back end | policy | {' | '.join(names)} | effect of τ (float32) |"
    yield "| :-- | :-- | :-- |" + " --: |" * (len(names) + 1)
    for architecture in ARCHITECTURES:
        for back_end in BACK_ENDS:
            if (architecture, back_end) in REFUSED_BY_TRANSFORMERS:
                yield f"| {architecture} | {back_end} | all | transformers refuses this |  |  |  |"
                continue
            for policy in POLICIES:
                found = [measure(architecture, back_end, policy, dtype) for dtype in LIMITS]
                errors = " | ".join(f"{one.error:.1e}" for one in found)
                effect = f"{found[0].effect:.1e}"
                yield f"| {architecture} | {back_end} | {policy} | {errors} | {effect} |"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
