"""Checks that a text's embedding does not depend on the other texts in its batch.

Padding must change nothing: which texts stand next to each other is left to chance and to the
batch budget, and no score may depend on it. What a text gets when it is alone is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.errors import LcbenchError, RequestError
from lcbench.system.transient import is_of_device, is_transient
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Largest difference between a text's embeddings alone and in a batch, relative to its largest
# component, by dtype. Measured on a CPU: float32 9.5e-7, bfloat16 8.7e-3, float16 1.5e-3 (MiniLM);
# 5.2e-7, 2.0e-2, 1.8e-3 at most (BERT, Qwen3, Gemma 3, ModernBERT of 24 layers, random weights).
# Padding that is attended to or that shifts positions changes embeddings by a tenth and more.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 1e-1, torch.float16: 2e-2}

# The second has about 40 tokens, four times as many: most of the first one's row is padding.
PROBE_TEXTS = (
    "A river runs through the old town.",
    "In 1923 a young clockmaker from the north bought the narrow house beside the bridge; she kept "
    "its doors green, fed two cats, and wrote down every evening how high the water stood.",
)


def check_invariance(
    model: SentenceTransformer,
    tokenizer: Tokenizer,
    embed: Callable[[Sequence[Tokens]], Tensor],
    *,
    batched: bool = True,
) -> float:
    """Compare embeddings of two texts encoded alone and together, and return the difference.

    Where a model pads on the left and counts its positions from the padding on (GPT-2), the
    tokenizer passes positions from here on that leave padding out. sentence-transformers does not:
    there every shorter text of a batch gets an embedding of other positions.

    Args:
        model: the model in evaluation mode, with its window set and without a temperature.
        tokenizer: the model's tokenizer; its `first_position` is set if needed.
        embed: returns the embeddings of texts that go through the model together, [texts,
            dimensions].
        batched: False where every text is encoded alone, so that only finite values are required.

    Returns:
        The largest difference of a component, relative to the text's largest component.

    Raises:
        RequestError: embeddings depend on the batch, or are not finite, or cannot be computed: the
            model's own code raises an error.
    """
    transformer: Any = find_transformer(model)
    name, dtype = type(transformer).__name__, transformer.dtype
    _refuse_lengths_of_others(transformer.config, model.max_seq_length, name)
    texts = tokenizer.tokenize(PROBE_TEXTS)
    try:
        alone = torch.cat([embed([text]) for text in texts])
    # Whatever its code raises. What is about a device or its memory is no fault of the model's.
    except Exception as problem:
        if isinstance(problem, LcbenchError) or is_of_device(problem) or is_transient(problem):
            raise
        said = f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"
        raise RequestError(
            f"{name} cannot embed a simple sentence: {said}. Its config.json, or the code that "
            "runs it, does not support texts of that length."
        ) from problem
    if not torch.isfinite(alone).all():
        raise RequestError(
            f"{name}: its embedding of a simple sentence is not finite in {_name(dtype)}, at any "
            f"temperature.{_other_dtypes(dtype)}"
        )
    if not batched:
        return 0.0

    def error() -> float:
        apart = (embed(texts) - alone).abs().amax(dim=1)
        return float((apart / alone.abs().amax(dim=1).clamp_min(1e-30)).max())

    found = error()
    # Written so that NaN counts as a difference.
    if not found <= TOLERANCE.get(dtype, 1e-5) and tokenizer.pads_left:
        for tokenizer.first_position in _first_positions(transformer):
            counted = error()
            if counted <= TOLERANCE.get(dtype, 1e-5):
                return counted
        tokenizer.first_position = None
    if not found <= TOLERANCE.get(dtype, 1e-5):
        side = "left" if tokenizer.pads_left else "right"
        raise RequestError(
            f"{name}: a text of {texts[0].length} tokens gets another embedding next to one of "
            f"{texts[1].length} than alone (they differ by {found:.1e} of its largest component), "
            "so that scores would depend on which texts share a batch. Its padding (on the "
            f"{side}) is not left out of what it computes. engine.batch_tokens=1 encodes each text "
            "alone, slowly."
        )
    return found


def _first_positions(transformer: torch.nn.Module) -> list[int]:
    """Return possible first positions: 0, or after the padding id (RoBERTa, MPNet)."""
    found = [0]
    for module in transformer.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and hasattr(module, "position_embeddings"):
            found.append(padding + 1)
    return found


def _refuse_lengths_of_others(config: Any, window: int | None, name: str) -> None:
    """Refuse models that compute a text differently after or next to a long one.

    Rotary positions of the kind `longrope` go by the longest text of a batch, and are kept in the
    module, which another batch may be read with at the same time: to encode each text alone does
    not help. Those of the kind `dynamic` go by the longest text before as well.

    Raises:
        RequestError: naming what does that.
    """
    if getattr(config, "attention_type", None) == "block_sparse":
        raise RequestError(
            f"{name}: attention_type block_sparse in its config.json becomes full attention after "
            "the first batch of short texts, so that embeddings depend on the order of texts. "
            "original_full is the same at any length."
        )
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        kind = str(rope.get("rope_type", ""))
        if kind in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "max_position_embeddings", 0
            )
            if original and (window is None or window > original):
                raise RequestError(
                    f"{name}: its rotary positions ({kind}) go by the longest text that is read "
                    f"together with a text or before it, once one has more than {original} tokens, "
                    "so that embeddings depend on other texts. "
                    f"model.window={original} keeps to what it was trained for."
                )


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the parameters of rotary positions: one for all layers, or one a kind of layer."""
    if isinstance(parameters, Mapping):
        if "rope_type" in parameters:
            yield parameters
        else:
            yield from (one for one in parameters.values() if isinstance(one, Mapping))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other_dtypes(dtype: torch.dtype) -> str:
    if dtype != torch.float16:
        return ""
    return " Its values exceed what float16 holds: use protocol.dtype=bfloat16 or float32."
