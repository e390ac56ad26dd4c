"""Applies extensions to models with a table of absolute positions (BERT, RoBERTa, MPNet).

The table is replaced by a longer one: one map of its rows, the same for every text and batch
(arXiv:2404.12096, section 4.2). Rows before the first token's stay where they are: RoBERTa's start
after the padding id.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lcbench.errors import InjectionError
from lcbench.hub.windows import positions_of
from lcbench.repair.restoring import Restoring
from lcbench.system.transient import is_of_device
from lcbench.tempscale.transformer import find_transformer
from lcbench.tempscale.unpadded import first_position

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.repair.stretch import Stretch

# Buffers with an entry for each row of the table.
_BUFFERS = ("position_ids", "token_type_ids")
# Largest error of an interpolated row against float64, relative to its largest entry, by dtype:
# half a unit in the last place.
_TOLERANCE = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Tokens of a text that keeps its rows, in the check.
_SHORT_TOKENS = 16


def rows_of(method: str, window: int, start: int) -> Tensor:
    """Return the row of the model's table at which each token's position lies: [window], float64.

    A fraction lies between two rows. Tokens after (L − 1)·s have no row on their right for PI, and
    get the last one.

    Args:
        method: `gp`, `rp` or `pi`.
        window: number of tokens.
        start: L, the number of positions that the model was made for.
    """
    tokens = torch.arange(window, dtype=torch.float64)
    factor = -(-window // start)
    if method == "rp":
        return tokens % start
    rows = tokens / factor
    return rows.floor() if method == "gp" else rows.clamp(max=start - 1)


def interpolated(table: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a table at fractional places, in float64: [len(rows), dimensions]."""
    table = table.double()
    below = rows.floor().long()
    share = (rows - below)[:, None]
    return torch.lerp(table[below], table[(below + 1).clamp(max=len(table) - 1)], share)


@torch.inference_mode(False)
@torch.no_grad()
def extend_table(model: SentenceTransformer, extension: Stretch) -> Restoring:
    """Replace the position table of a model by a longer one.

    Raises:
        InjectionError: it has no such table, or takes other rows of the longer one.
    """
    transformer = find_transformer(model)
    module, table = _table_of(transformer)
    first, old = first_position(transformer), table.weight
    start = extension.start or len(old) - first
    # A short text that keeps its rows has them at multiples of the factor.
    count = extension.factor(start) * start if extension.kept else extension.window
    rows = rows_of(extension.method, count, start).to(old.device)
    inner = old[first : first + start]
    new = torch.cat([old[:first], interpolated(inner, rows).to(old.dtype)])
    applied = Restoring()
    try:
        applied.set(table, "weight", nn.Parameter(new, requires_grad=old.requires_grad))
        applied.set(table, "num_embeddings", len(new))
        applied.set(transformer.config, "max_position_embeddings", len(new))
        for name in _BUFFERS:
            buffer = getattr(module, name, None)
            if isinstance(buffer, Tensor):
                counted = torch.arange(len(new), device=buffer.device).expand(1, -1)
                longer = counted if name == "position_ids" else torch.zeros_like(counted)
                applied.set(module, name, longer)
        applied.read(transformer, extension.window)
        if extension.kept:
            _keep_short(transformer, applied, first, start, extension.factor(start))
        applied.proof = _proof(transformer, extension, old, rows, start)
    except BaseException:
        applied.remove()
        raise
    return applied


@torch.no_grad()
def open_window(model: SentenceTransformer, extension: Stretch) -> Restoring:
    """Let a model read more tokens, as far as it has positions.

    Nothing else is changed but, with a step, the rows of short texts.

    Raises:
        InjectionError: it has too few, or computes them differently after a longer text; or it has
            no table, or takes other rows of it than those of the step.
    """
    transformer = find_transformer(model)
    config = transformer.config.to_dict()
    positions = positions_of(config)
    ropes = config.get("rope_parameters") or {}
    for rope in (ropes, *(one for one in ropes.values() if isinstance(one, dict))):
        kind, original = rope.get("rope_type"), rope.get("original_max_position_embeddings")
        if kind in ("dynamic", "longrope") and extension.window > (original or positions or 0):
            raise InjectionError(
                f"extend={extension.canonical}: rotary positions of the kind {kind} go by the "
                "longest text that is read together with a text or before it"
                + ("; extend={longrope: N} does not." if kind == "longrope" else ".")
            )
    if _tables_of(transformer) and positions is not None and extension.window > positions:
        raise InjectionError(
            f"extend={extension.canonical}: {type(transformer).__name__} has positions for "
            f"{positions} tokens; extend={{pi: {extension.window}}} extends them."
        )
    applied = Restoring()
    try:
        applied.read(transformer, extension.window)
        spread = _spread(transformer, applied, extension) if extension.step is not None else {}
        applied.proof = {"window": extension.window, "positions": positions, **spread}
    except BaseException:
        applied.remove()
        raise
    return applied


def _spread(transformer: Any, applied: Restoring, extension: Stretch) -> dict[str, int | float]:
    """Give short texts rows at a distance, and check those of a short and of a longer one.

    E5-Base-4k, for example, was tuned with the rows of E5-Base at every eighth place, so that texts
    of at most 512 tokens have the embeddings of E5-Base.

    Returns:
        What was checked.

    Raises:
        InjectionError: there is no table, or other rows are taken.
    """
    _, table = _table_of(transformer)
    first, step = first_position(transformer), extension.step or 1
    longest = (len(table.weight) - first) // step
    _keep_short(transformer, applied, first, longest, step)
    taken: list[Tensor] = []
    hook = table.register_forward_hook(lambda _, inputs, output: taken.append(output))
    word = int(transformer.get_input_embeddings().weight.shape[0]) // 2
    error = 0.0
    try:
        for length in {min(_SHORT_TOKENS, longest), min(longest + 1, extension.window)}:
            ids = torch.full((1, length), word, device=table.weight.device)
            transformer(input_ids=ids, attention_mask=torch.ones_like(ids))
            places = torch.arange(length, device=ids.device)
            rows = table.weight[first + places * (step if length <= longest else 1)]
            error = max(error, float((taken.pop().reshape(rows.shape) - rows).abs().max()))
    finally:
        hook.remove()
    if error != 0:
        raise InjectionError(
            f"extend={extension.canonical}: {type(transformer).__name__} takes other rows of its "
            f"position table for short texts (they differ by {error:.1e}); the model is left as it "
            "was."
        )
    return {"step": step, "step_up_to": longest, "largest_error": error}


def _tables_of(transformer: nn.Module) -> list[tuple[nn.Module, nn.Embedding]]:
    """Return the modules that add positions to the words, and their tables."""
    return [
        (module, table)
        for module in transformer.modules()
        if isinstance(table := getattr(module, "position_embeddings", None), nn.Embedding)
    ]


def _table_of(transformer: nn.Module) -> tuple[nn.Module, nn.Embedding]:
    """Return the module that adds positions to the words, and their table."""
    found = _tables_of(transformer)
    if len(found) != 1:
        raise InjectionError(
            f"{type(transformer).__name__} has {len(found)} tables of absolute positions; an "
            "extension of them needs exactly one."
        )
    return found[0]


def _keep_short(transformer: Any, applied: Restoring, first: int, start: int, factor: int) -> None:
    """Give texts of at most `start` tokens every `factor`-th row."""
    forward = transformer.forward
    module, table = _table_of(transformer)
    padding = getattr(module, "padding_idx", None)

    @functools.wraps(forward)
    def kept(input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if input_ids is None:
            raise InjectionError("short: needs token ids, to see how long each text is.")
        mask, bounds = kwargs.get("attention_mask"), kwargs.get("cu_seq_lens_q")
        places = kwargs.get("position_ids")
        if places is None:
            places = _own_positions(input_ids, padding if first else None)
        if bounds is not None:
            sizes = bounds.diff().long()
            lengths = sizes.repeat_interleave(sizes, output_size=input_ids.shape[1])[None]
        elif mask is not None and mask.dim() == 2:
            lengths = mask.sum(dim=1, keepdim=True)
        else:
            lengths = torch.full_like(input_ids[:, :1], input_ids.shape[1])
        spread = (first + (places - first) * factor).clamp(max=table.num_embeddings - 1)
        is_short = (lengths <= start) & (places >= first)
        kwargs["position_ids"] = torch.where(is_short, spread, places)
        return forward(input_ids, *args, **kwargs)

    applied.shadow(transformer, "forward", kept)


def _own_positions(input_ids: Tensor, padding: int | None) -> Tensor:
    """Return the positions that a model gives to tokens by itself: [texts, tokens].

    Args:
        input_ids: [texts, tokens]
        padding: id of padding, after which positions start and which has none (RoBERTa); None:
            positions are those in the row.
    """
    if padding is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    is_token = input_ids.ne(padding)
    return is_token.cumsum(dim=1) * is_token + padding


def _proof(
    transformer: Any, extension: Stretch, old: Tensor, rows: Tensor, start: int
) -> dict[str, Any]:
    """Check the rows that the model takes for a text that fills the window, against float64.

    Raises:
        InjectionError: they are others.
    """
    module, table = _table_of(transformer)
    first = first_position(transformer)
    inner = old[first : first + start]
    taken: list[Tensor] = []
    hook = table.register_forward_hook(lambda _, inputs, output: taken.append(output))
    embeddings: Any = transformer.get_input_embeddings()
    # From the middle of the vocabulary: words, not padding.
    word = int(embeddings.weight.shape[0]) // 2
    lengths = [extension.window, *([min(_SHORT_TOKENS, start)] if extension.kept else [])]
    error = 0.0
    try:
        for length in lengths:
            ids = torch.full((1, length), word, device=old.device)
            places = rows[:length]
            if extension.kept and length <= start:
                places = torch.arange(length, dtype=torch.float64, device=old.device)
                # Through the whole model, which is told their positions.
                transformer(input_ids=ids, attention_mask=torch.ones_like(ids))
            else:
                module(input_ids=ids)
            expected = interpolated(inner, places)
            got = taken.pop().reshape(-1, old.shape[1]).double()
            if got.shape != expected.shape:
                raise InjectionError(f"{type(module).__name__} takes {len(got)} rows of {length}.")
            error = max(error, float((got - expected).abs().max() / expected.abs().max()))
    except (IndexError, RuntimeError, TypeError, ValueError) as problem:
        if isinstance(problem, InjectionError) or is_of_device(problem):
            raise
        raise InjectionError(
            f"extend={extension.canonical}: {type(transformer).__name__} does not read "
            f"{extension.window} tokens ({type(problem).__name__}: {problem})."
        ) from problem
    finally:
        hook.remove()
    if not error <= _TOLERANCE.get(old.dtype, 2**-24):
        raise InjectionError(
            f"extend={extension.canonical}: {type(transformer).__name__} takes other rows of its "
            f"position table (they differ by {error:.1e}); the model is left as it was."
        )
    last = (start - 1) * extension.factor(start)
    clamped = max(0, extension.window - 1 - last) if extension.method == "pi" else 0
    return {
        "window": extension.window,
        "positions": start,
        "factor": extension.factor(start),
        "rows": extension.window,
        "rows_without_right_neighbor": clamped,
        "largest_error": error,
    }
