"""Makes a model process batches without padding, if its embeddings do not change, and pools them.

The attention is in `tempscale.unpadded`. Whether the rest of an architecture supports batches
without padding (positions restart with each text, no mask) is determined by a test: the embeddings
of three texts in one row must equal those of each text alone.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lcbench.encode.embed import can_pack, embed
from lcbench.encode.invariance import PROBE_TEXTS, TOLERANCE
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.errors import InjectionError
from lcbench.system.thirdparty import (
    POOL_FLATTENED,
    attention_implementation,
    uses_attention_interface,
)
from lcbench.system.transient import is_of_device
from lcbench.tempscale.transformer import find_transformer
from lcbench.tempscale.unpadded import (
    BOUNDARIES,
    first_position,
    register,
    runs_unpadded,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

# Maximum attention window for which a text longer than the window is included in the test; with a
# larger window the test would take too long.
_LARGEST_WINDOW = 1024
# Minimum number of tokens of the longer probe text.
_TOKENS_OF_TEXT = 32


def use_unpadded(model: SentenceTransformer) -> str | None:
    """Make a model process batches without padding; return why this is impossible, or None.

    If it is impossible, the model is unchanged, and its batches are padded as before.

    Args:
        model: the model in evaluation mode, with its window set and without a temperature.

    Raises:
        RuntimeError: torch reports a problem of the device or its memory, not of the model.
    """
    from sentence_transformers.base.modules import Transformer

    try:
        transformer = find_transformer(model)
    except InjectionError as error:
        return str(error)
    kind = type(transformer).__name__
    implementation = attention_implementation(transformer.config)
    if not uses_attention_interface(transformer) or implementation != "sdpa":
        return f"{kind} has no sdpa attention in transformers, in the place of which it would be."
    module: Any = model[0]
    if type(module) is not Transformer or module.auto_model is not transformer:
        return f"its texts go through {type(module).__name__} first."
    tokenizer, texts = _probe_of(model)
    if not can_pack(texts):
        return "its tokens have features of their own, which are not known without padding."
    alone = torch.cat([embed(model, tokenizer, [text])[0] for text in texts])
    parameters = module.model_forward_params
    transformer.set_attn_implementation(register())
    if parameters is not None:
        module.model_forward_params = {*parameters, *BOUNDARIES, "position_ids"}
    pools = pool_by_text(model)
    try:
        together, _ = embed(model, tokenizer, texts, packed_from=first_position(transformer))
        difference = float(((together - alone).abs().amax(1) / alone.abs().amax(1)).max())
        # Written so that NaN fails as well.
        refusal = (
            None
            if difference <= TOLERANCE.get(transformer.dtype, 1e-5)
            else f"{kind}'s embeddings would differ by {difference:.1e} of their largest component."
        )
    except InjectionError as error:
        refusal = str(error)
    # Modules of the model may fail in any way on a batch without a mask.
    except Exception as error:
        if is_of_device(error):
            raise
        refusal = f"{type(error).__name__}: {error}"
    finally:
        restore_pooling(pools)
    if refusal is not None:
        transformer.set_attn_implementation(implementation)
        module.model_forward_params = parameters
    return refusal


def embed_probe(model: SentenceTransformer) -> torch.Tensor:
    """Return the embeddings of some texts, in a batch without padding: [texts, dimensions].

    Args:
        model: on which `use_unpadded` has succeeded.
    """
    start = first_position(find_transformer(model))
    return embed(model, *_probe_of(model), packed_from=start)[0]


def _probe_of(model: SentenceTransformer) -> tuple[Tokenizer, list[Tokens]]:
    """Return a model's tokenizer, and texts, one of them longer than its attention window."""
    tokenizer = Tokenizer(model)
    short, long = PROBE_TEXTS
    window = _window_of(find_transformer(model))
    beyond = " ".join([long] * (1 + window // _TOKENS_OF_TEXT + 1))
    return tokenizer, tokenizer.tokenize([short, long, beyond])


def pool_by_text(model: SentenceTransformer) -> list[nn.Module]:
    """Make the pooling of batches without padding exact, and return the changed modules.

    sentence-transformers adds the tokens of a text one by one, on a GPU in any order, and in some
    versions in half precision, where terms a thousand times smaller than the sum are lost.
    """
    flattens = any(getattr(module, "can_flatten_inputs", False) for module in model.modules())
    if not flattens and not runs_unpadded(find_transformer(model)):
        return []
    found = [module for module in model.modules() if hasattr(module, POOL_FLATTENED)]
    for module in found:
        # A bound method, so that copies of the module get their own.
        setattr(module, POOL_FLATTENED, types.MethodType(pool, module))
    return found


def restore_pooling(modules: list[nn.Module]) -> None:
    """Undo `pool_by_text`."""
    for module in modules:
        module.__dict__.pop(POOL_FLATTENED, None)


def pool(
    self: Any,
    token_embeddings: Tensor,
    features: dict[str, Any],
    prompt_length: int | None = None,
) -> list[Tensor]:
    """Pool the tokens of each text in each mode of a pooling module: [texts, dimensions] each.

    The result is that of `Pooling` with a padded batch. The GPU is not synchronised.

    Args:
        self: the pooling module.
        token_embeddings: [1, tokens, dimensions]
        features: features of the batch.
        prompt_length: number of tokens at the beginning of each text that are skipped; None: 0.
    """
    states, skipped = token_embeddings.squeeze(0), prompt_length or 0
    starts = features["cu_seq_lens_q"].long()
    lengths = starts.diff()
    begins = starts[:-1].repeat_interleave(lengths, output_size=len(states))
    positions = torch.arange(len(states), device=states.device) - begins
    is_read = (positions >= skipped)[:, None]
    modes = self.pooling_mode
    pooled = []
    for mode in (modes,) if isinstance(modes, str) else modes:
        if mode == "cls":
            first = starts[:-1] + torch.where(lengths > skipped, skipped, 0)
            # Of an empty text at the end there is no row.
            found = states[first.clamp(max=len(states) - 1)]
        elif mode == "lasttoken":
            found = states[starts[1:] - 1]
        elif mode == "max":
            found = _by_text(states.masked_fill(~is_read, float("-inf")), lengths, "max")
        elif mode == "weightedmean":
            weights = ((positions + 1)[:, None] * is_read).double()
            found = _by_text(states * weights, lengths) / _by_text(weights, lengths).clamp(min=1e-9)
        elif mode in ("mean", "mean_sqrt_len_tokens"):
            count = (lengths - skipped).double().clamp(min=1e-9)[:, None]
            total = _by_text(states.double() * is_read, lengths)
            found = total / (count if mode == "mean" else count.sqrt())
        else:
            raise InjectionError(f"pooling_mode {mode} is not known without padding.")
        pooled.append(found.to(token_embeddings.dtype))
    return pooled


def _by_text(values: Tensor, lengths: Tensor, reduction: str = "sum") -> Tensor:
    """Reduce the rows of each text to one: [texts, columns].

    Rows are added in order, so the result is deterministic; sums are in float64, since in float32
    the error with 4,096 rows is 3e-6. `unsafe` skips a check of lengths that would synchronise the
    GPU.
    """
    return torch.segment_reduce(values, reduction, lengths=lengths, axis=0, unsafe=True)


def _window_of(transformer: PreTrainedModel) -> int:
    """Return the attention window on either side in tokens; 0 without a (small) window."""
    window = getattr(transformer.config, "sliding_window", None)
    return window if isinstance(window, int) and window <= _LARGEST_WINDOW else 0
