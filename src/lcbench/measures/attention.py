"""Measure attention by layer and head: how much it smooths, and how unevenly it attends.

HC[A] = (I − 11ᵀ/n)A is the high-frequency part of the attention weights A of n tokens, and σ_a
its largest singular value (arXiv:2410.24200, Theorem 2): what attention leaves, at most, of the
differences between token vectors. σ_a is at most √(n/2), and 0 where all tokens attend alike.

Under a causal mask tokens cannot attend alike: even attention, 1/i to each of the first i tokens,
has a σ_a of its own, which rises with length: 1.12 of 32 tokens, 1.49 of 512, and below 2 of any
number (Hardy's inequality). What a model adds to that is σ_a beyond the mask. It is below 0 where
attention is more alike than the mask makes it, as where all tokens attend to the first one alone.

Weights are computed a few heads and rows at a time, so that those of long texts need no more memory
than one head's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lcbench.errors import InjectionError, RequestError
from lcbench.measures.trace import TILE_BYTES, WEIGHTS_BYTES, Attended, trace
from lcbench.tempscale.prove import TOLERANCE

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from lcbench.tempscale.observe import Observation
    from lcbench.tempscale.policy import Role

# Smaller matrices are decomposed whole, which takes no longer.
_WHOLE = 48
# Of the block Lanczos iteration: columns of a block, and blocks before it is given up.
_BLOCK = 4
_MOST_BLOCKS = 24
# Largest residual relative to σ_a². The error is of the order of its square: at most 1e-8 of σ_a
# over 300 random matrices of 50 to 90 tokens whose singular values are close.
_RESIDUAL = 1e-4


@dataclass(frozen=True)
class HeadMeasures:
    """The attention of one layer for one text, each an array of one number a head.

    Attributes:
        sigma_a: σ_a, the largest singular value of HC[A].
        beyond_mask: `sigma_a` less that of even attention to all tokens that the mask leaves, which
            is 0 without a mask.
        sigma_s: σ_s, the standard deviation of the logits, divided by the temperature as softmax
            has them, over all pairs of a token and a key that it attends to.
        sigma_s_in_rows: the same within rows. Softmax does not see what is added to a whole row, so
            this is the σ_s that decides how uneven the weights are.
        entropy: mean entropy of the rows of A, in nats: log n if all keys have the same weight.
        first: mean weight of the first token, 0 to 1. Even attention gives it 1/n, under a causal
            mask (1 + 1/2 + … + 1/n)/n.
        norm: ‖A‖_F, from 1 to √n.
    """

    sigma_a: NDArray[np.float64]
    beyond_mask: NDArray[np.float64]
    sigma_s: NDArray[np.float64]
    sigma_s_in_rows: NDArray[np.float64]
    entropy: NDArray[np.float64]
    first: NDArray[np.float64]
    norm: NDArray[np.float64]


def sigma_a(weights: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return σ_a, the largest singular value of (I − 11ᵀ/n)A, of each attention matrix A.

    It is the root of the largest eigenvalue of AᵀA − n·āāᵀ, where ā has the column means of A,
    found by a block Lanczos iteration that never makes this matrix.

    Args:
        weights: rows that sum to 1, shape (…, n, n).

    Returns:
        shape (…).

    Raises:
        RequestError: not square matrices.
    """
    matrices = torch.as_tensor(weights)
    if matrices.dim() < 2 or matrices.shape[-1] != matrices.shape[-2]:
        raise RequestError(
            f"attention weights have the shape {tuple(matrices.shape)}: expected (…, n, n)"
        )
    if not matrices.is_floating_point():
        matrices = matrices.double()
    wide = matrices.to(torch.promote_types(matrices.dtype, torch.float32))
    found = _largest_singular(wide.reshape(-1, *wide.shape[-2:]))
    return found.reshape(matrices.shape[:-2]).cpu().numpy()


def attention(
    model: Any,
    texts: Sequence[str] | Sequence[Sequence[int]],
    tau: Any = 1.0,
    *,
    tokenizer: Any = None,
    role: Role | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """Measure a model's attention on texts, by layer and head.

    Each text goes through the model by itself, without padding, with the special tokens that the
    model reads. In every layer the weights times the values are compared with what the layer's
    attention returned.

    Args:
        model: a `SentenceTransformer` or a `PreTrainedModel`, on eager or sdpa attention.
        texts: texts, or their token ids with special tokens.
        tau: a temperature policy as `lcbench.inject` takes it, or a list of several.
        tokenizer: that of a `PreTrainedModel`, for texts that are not token ids.
        role: whose texts these are, `query` or `document`, for a policy by role.
        layers: layers to measure, from 0; None: all.
        heads: heads to measure, from 0; None: all.
        memory: the most memory in GiB that attention weights may take; None: that of the machine.

    Returns:
        A row per policy, text, layer and head, with the columns `policy`, `text` (its number from
        0), `tokens`, `layer`, `tau`, `head`, and those of `HeadMeasures`.

    Raises:
        InjectionError: the model has no attention, or none that can be measured.
        RequestError: a layer or head that the model does not have, no texts, or a text whose
            attention weights need more memory than there is.
    """
    import pandas as pd

    rows: list[pd.DataFrame] = []

    def measure(attended: Attended) -> HeadMeasures:
        return measure_heads(attended.observation, heads)

    for one in trace(
        model,
        texts,
        tau,
        measure,
        tokenizer=tokenizer,
        role=role,
        layers=layers,
        heads=heads,
        memory=memory,
    ):
        found = one.measured
        numbers = range(len(found.sigma_a)) if heads is None else heads
        rows.append(pd.DataFrame({**one.place(), "head": list(numbers), **_columns(found)}))
    return pd.concat(rows, ignore_index=True)


def measure_heads(
    observation: Observation,
    heads: Sequence[int] | None = None,
    *,
    weights_bytes: int = WEIGHTS_BYTES,
    tile_bytes: int = TILE_BYTES,
) -> HeadMeasures:
    """Measure the attention of one layer for one text.

    Args:
        observation: the layer's.
        heads: heads to measure; None: all.
        weights_bytes: the most memory that weights of several heads take at once.
        tile_bytes: the most memory that logits of several rows take at once.

    Raises:
        InjectionError: the weights are not those that the layer's attention used.
    """
    numbers = list(range(observation.heads)) if heads is None else list(heads)
    tokens = observation.tokens
    sample = observation.logits(slice(0, 1), slice(0, 1))
    size = tokens * sample.element_size()
    at_once = max(1, weights_bytes // (tokens * size))
    even = mask_sigma_a(observation, tile_bytes=tile_bytes)
    parts: list[HeadMeasures] = []
    for group in _runs(numbers, at_once):
        rows = max(1, tile_bytes // ((group.stop - group.start) * size))
        weights = sample.new_empty(group.stop - group.start, tokens, sample.shape[-1])
        parts.append(_measure_group(observation, group, rows, weights, even))
    return HeadMeasures(
        **{name: np.concatenate([_columns(part)[name] for part in parts]) for name in _NAMES}
    )


def mask_sigma_a(observation: Observation, *, tile_bytes: int = TILE_BYTES) -> float:
    """Return σ_a of even attention to all tokens that a layer's mask leaves; 0 without a mask.

    The mask of the first head is taken for that of all.

    Args:
        observation: a layer's attention for one text.
        tile_bytes: most memory for the logits of several rows, in bytes.
    """
    tokens = observation.tokens
    sample = observation.logits(slice(0, 1), slice(0, 1))
    rows = max(1, tile_bytes // (sample.shape[-1] * sample.element_size()))
    left = torch.cat(
        [
            ~torch.isneginf(observation.logits(slice(0, 1), slice(start, start + rows))[0])
            for start in range(0, tokens, rows)
        ]
    )
    if bool(left.all()):
        return 0.0
    if torch.equal(left, torch.ones_like(left).tril()):
        return causal_sigma_a(tokens)
    even = left.float() / left.sum(dim=-1, keepdim=True)
    return float(_largest_singular(even[None]))


@lru_cache(maxsize=64)
def causal_sigma_a(tokens: int) -> float:
    """Return σ_a of even attention under a causal mask: 1/i to each of the first i tokens.

    Raises:
        RequestError: no tokens.
    """
    if tokens < 1:
        raise RequestError(f"tokens={tokens}: a text has at least 1 token.")
    even = torch.ones(tokens, tokens).tril_()
    even /= torch.arange(1, tokens + 1)[:, None]
    return float(_largest_singular(even[None]))


def row_entropy(
    observation: Observation, tau: Tensor | None = None, *, tile_bytes: int = TILE_BYTES
) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of the rows of each head's attention, and its derivative by log τ.

    The entropy of p = softmax(z) is log Σ exp z − Σ p z. With z = x/τ, its derivative by log τ is
    the variance of z under p, which is never negative.

    Args:
        observation: a layer's attention for one text.
        tau: temperatures that the logits are divided by in addition, shape (heads,); None: 1.
        tile_bytes: most memory for the logits of several rows, in bytes.

    Returns:
        Mean entropies in nats, and their derivatives, each float64 of shape (heads,).
    """
    sample = observation.logits(slice(0, 1), slice(0, 1))
    size = observation.heads * sample.shape[-1] * sample.element_size()
    rows = max(1, tile_bytes // size)
    sums = torch.zeros(2, observation.heads, dtype=torch.float64, device=sample.device)
    for start in range(0, observation.tokens, rows):
        logits = observation.logits(slice(None), slice(start, start + rows))
        if tau is not None:
            logits = logits / tau.to(logits)[:, None, None]
        weights = torch.softmax(logits, dim=-1)
        total = torch.logsumexp(logits, dim=-1)
        # Masked keys have the weight 0 and the logit −∞, whose product is not a number.
        logits = logits.masked_fill_(torch.isneginf(logits), 0.0)
        products = weights.mul_(logits)
        mean = products.sum(dim=-1)
        square = products.mul_(logits).sum(dim=-1)
        sums[0] += (total - mean).double().sum(dim=-1)
        sums[1] += (square - mean * mean).double().sum(dim=-1)
    entropy, slope = sums / observation.tokens
    return entropy, slope


def _measure_group(
    observation: Observation, heads: slice, rows: int, weights: Tensor, even: float
) -> HeadMeasures:
    """Measure neighbouring heads, whose weights are written into `weights`.

    Args:
        observation: the layer's.
        heads: the heads.
        rows: rows whose logits are computed at once.
        weights: [heads, tokens, keys].
        even: σ_a of even attention under the mask.
    """
    tokens = observation.tokens
    # Of each row: entropy; number of keys, mean and sum of squared deviations of logits.
    entropy, count, mean, deviation = (
        torch.empty(len(weights), tokens, dtype=torch.float64, device=weights.device)
        for _ in range(4)
    )
    squares = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    for start in range(0, tokens, rows):
        cut = slice(start, min(start + rows, tokens))
        logits = observation.logits(heads, cut)
        torch.softmax(logits, dim=-1, out=weights[:, cut])
        part = weights[:, cut]
        # Their rows have the largest logit: log Σ exp = largest − log of its weight.
        largest = logits.amax(dim=-1)
        total = largest.double() - part.amax(dim=-1).double().log()
        masked = torch.isneginf(logits)
        if bool(masked.any()):
            logits.masked_fill_(masked, 0.0)
            count[:, cut] = (~masked).sum(dim=-1)
            middle = (logits.sum(dim=-1) / count[:, cut]).to(logits.dtype)
            logits.sub_(middle[..., None]).masked_fill_(masked, 0.0)
        else:
            count[:, cut] = logits.shape[-1]
            middle = logits.mean(dim=-1)
            # Of the same type: a wider one makes this several times as slow.
            logits.sub_(middle[..., None])
        mean[:, cut] = middle
        deviation[:, cut] = torch.linalg.vector_norm(logits, dim=-1).double() ** 2
        # Σ p (log Σ exp − z), from logits less their mean.
        expected = logits.mul_(part).sum(dim=-1).double() + mean[:, cut]
        entropy[:, cut] = total - expected
        squares += torch.linalg.vector_norm(part, dim=(1, 2)).double() ** 2
    _check(observation, heads, weights)
    every = count.sum(dim=1)
    mean_of_all = (count * mean).sum(dim=1) / every
    within = deviation.clamp(min=0).sum(dim=1)
    between = (count * (mean - mean_of_all[:, None]) ** 2).sum(dim=1)
    sigma = _largest_singular(weights)
    found = (
        sigma,
        sigma - even,
        ((within + between) / every).sqrt(),
        (within / every).sqrt(),
        entropy.clamp(min=0).mean(dim=1),
        weights[:, :, 0].double().mean(dim=1),
        squares.sqrt(),
    )
    return HeadMeasures(*(one.double().cpu().numpy() for one in found))


def _check(observation: Observation, heads: slice, weights: Tensor) -> None:
    """Compare weights times values with what the layer's attention returned."""
    groups = observation.heads // len(observation.values)
    numbers = range(observation.heads)[heads]
    values = observation.values[[head // groups for head in numbers]].to(weights.dtype)
    got = observation.output[:, heads].transpose(0, 1).to(weights.dtype)
    largest = float(got.abs().max())
    error = float((weights @ values - got).abs().max())
    # Large logits are rounded by more (see `prove`); a wrong mask or temperature is off by 1e-2.
    limit = 10 * TOLERANCE.get(observation.output.dtype, 1e-5)
    if not error <= limit * max(largest, 1e-30):
        raise InjectionError(
            f"{type(observation.module).__name__}: its attention is not that of the measured "
            f"weights (relative error {error / max(largest, 1e-30):.1e}): load the model in "
            "float32 with attn_implementation='eager', or report the model."
        )


_NAMES = tuple(field.name for field in fields(HeadMeasures))


def _columns(measures: HeadMeasures) -> dict[str, NDArray[np.float64]]:
    return {name: getattr(measures, name) for name in _NAMES}


def _runs(numbers: Sequence[int], most: int) -> list[slice]:
    """Return runs of neighbouring numbers, each at most so long."""
    runs: list[slice] = []
    for number in numbers:
        last = runs[-1] if runs else None
        if last is not None and last.stop == number and last.stop - last.start < most:
            runs[-1] = slice(last.start, number + 1)
        else:
            runs.append(slice(number, number + 1))
    return runs


def _largest_singular(weights: Tensor) -> Tensor:
    """Return the largest singular value of each matrix without its column means: [matrices]."""
    count, tokens = weights.shape[:2]
    means = weights.mean(dim=1, keepdim=True)
    if tokens <= _WHOLE:
        return _decompose(weights, means)
    # The first columns are the same each time; attention has no reason to be at a right angle.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, tokens, _BLOCK, generator=generator, dtype=torch.float64)
    block = torch.linalg.qr(start.to(weights)).Q.expand(count, -1, -1)
    basis = block
    images: list[Tensor] = []
    for _ in range(_MOST_BLOCKS):
        image = weights @ block - means @ block
        centred = image - image.mean(dim=1, keepdim=True)
        # Few rows times a matrix take a third of the time of its transpose times few columns.
        images.append((centred.mT @ weights).mT)
        # Within the basis: its largest eigenvalue, and how far that is from one of the whole.
        projected = basis.mT.double() @ torch.cat(images, dim=2).double()
        values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
        rest = images[-1]
        for _ in range(2):
            rest = rest - basis @ (basis.mT @ rest)
        block, triangle = torch.linalg.qr(rest)
        largest = values[:, -1].clamp(min=0)
        residual = (triangle.double() @ vectors[:, -_BLOCK:, -1:]).norm(dim=(1, 2))
        floor = torch.finfo(weights.dtype).eps * tokens
        if bool((residual <= _RESIDUAL * largest + floor * (largest < floor)).all()):
            root: Tensor = largest.sqrt()
            return root
        # Where all is found already, what remains is rounding, and at no right angle to the basis.
        block = torch.linalg.qr(block - basis @ (basis.mT @ block)).Q
        basis = torch.cat((basis, block), dim=2)
    return _decompose(weights, means)


def _decompose(weights: Tensor, means: Tensor) -> Tensor:
    """Return the same from all eigenvalues of AᵀA − n·āāᵀ."""
    centred = (weights - means).double()
    root: Tensor = torch.linalg.eigvalsh(centred.mT @ centred)[:, -1].clamp(min=0).sqrt()
    return root
