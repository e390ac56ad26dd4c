"""Match the entropy of attention at each length to that of short texts, by a temperature a head.

The more keys a token attends to, the higher the entropy of its weights (kexue.fm/archives/8823). At
each length the temperature of each head is the one at which the mean entropy of its rows is that of
the same texts cut to the shortest length, at τ = 1. Layers are matched one after another, since
what a layer attends to depends on the temperatures below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lcbench.encode.tokens import Tokenizer
from lcbench.errors import RequestError
from lcbench.measures.attention import row_entropy
from lcbench.measures.look import cut
from lcbench.measures.trace import trace
from lcbench.tempscale.heads import HeadTemperatures
from lcbench.tempscale.policy import ByHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.inside import Chosen
    from lcbench.tempscale.observe import Observation
    from lcbench.tempscale.policy import Role

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures among which one is looked for."""

TOLERANCE = 1e-3
"""Largest difference of a matched mean entropy, in nats."""

# Width of a range of log τ within which entropies differ by less than the tolerance.
_NARROW = 1e-4
# Halving alone takes 16.
_STEPS = 50


@dataclass(frozen=True)
class Matched:
    """Temperatures at which entropies are those of short texts.

    Attributes:
        lengths: in tokens, special ones included; the first is that of the short texts.
        matrices: temperatures by layer and head at each length; 1 at the first.
        unmatched: number of temperatures at an end of the range, where the entropy still differs.
    """

    lengths: tuple[int, ...]
    matrices: tuple[tuple[tuple[float, ...], ...], ...]
    unmatched: int


def match_entropy(
    model: Any,
    chosen: Chosen,
    *,
    role: Role | None = None,
    prompt: str = "",
    on_layer: Callable[[int, int], None] = lambda length, layer: None,
) -> Matched:
    """Return the temperatures at which a model's attention has the entropy of short texts.

    Args:
        model: a `SentenceTransformer`, on eager or sdpa attention.
        chosen: texts, and at least two lengths that each is cut to.
        role: whose texts these are.
        prompt: before each text.
        on_layer: called with the length and the number of each layer that is matched.

    Raises:
        InjectionError: the model has no attention, or none that can be measured.
        RequestError: there is one length only, or a text's attention weights need more memory than
            there is.
    """
    if len(chosen.lengths) < 2:
        raise RequestError(
            f"traced_lengths={list(chosen.lengths)}: entropies are matched to those at the first "
            "of at least two lengths. Take longer texts, or shorter traced_lengths."
        )

    def read(tokens: int) -> list[list[int]]:
        """Return the token ids of all texts, each cut to so many."""
        with cut(model, tokens):
            tokenizer = Tokenizer(model, role)
            return [one.ids.tolist() for one in tokenizer.tokenize(chosen.texts, prompt)]

    first, *longer = chosen.lengths
    by_layer: dict[int, list[Tensor]] = {}
    for one in trace(model, read(first), 1.0, lambda at: row_entropy(at.observation)[0]):
        by_layer.setdefault(one.layer, []).append(one.measured)
    targets = [torch.stack(by_layer[layer]).mean(dim=0) for layer in sorted(by_layer)]
    matrices = [np.ones((len(targets), len(targets[0])))]
    unmatched = 0
    for tokens in longer:
        ids, taus = read(tokens), np.ones_like(matrices[0])
        for layer, target in enumerate(targets):
            seen = trace(model, ids, _policy(taus), lambda at: at.observation, layers=[layer])
            taus[layer], missed = _match([one.measured for one in seen], target)
            unmatched += missed
            on_layer(tokens, layer)
        matrices.append(taus)
    return Matched(
        chosen.lengths,
        tuple(tuple(map(tuple, matrix.tolist())) for matrix in matrices),
        unmatched,
    )


def _policy(taus: NDArray[np.float64]) -> ByHead:
    matrix = tuple(map(tuple, taus.tolist()))
    return ByHead(HeadTemperatures("", None, (matrix,)))


def _match(observations: Sequence[Observation], target: Tensor) -> tuple[NDArray[np.float64], int]:
    """Return the temperature of each head at which the mean entropy is the target.

    By Newton's method in log τ within a bracket that is halved where a step would leave it: the
    entropy of softmax(z/τ) rises with τ.

    Returns:
        Temperatures, [heads], and how many of them are at an end of the range.
    """
    low = torch.full_like(target, math.log(LOWEST))
    high = torch.full_like(target, math.log(HIGHEST))
    at = torch.zeros_like(target)
    for _ in range(_STEPS):
        found = [row_entropy(one, at.exp()) for one in observations]
        entropy, slope = (torch.stack(one).mean(dim=0) for one in zip(*found, strict=True))
        excess = entropy - target
        is_matched = excess.abs() <= TOLERANCE
        low = torch.where(excess < 0, at, low)
        high = torch.where(excess > 0, at, high)
        # Those that are right stay as they are.
        is_left = ~is_matched & (high - low > _NARROW)
        if not bool(is_left.any()):
            break
        step = at - excess / slope
        # A step that ends just at the end of the bracket would never leave it.
        within = (step > low + _NARROW / 4) & (step < high - _NARROW / 4)
        at = torch.where(is_left, torch.where(within, step, (low + high) / 2), at)
    return at.exp().cpu().numpy(), int((~is_matched).sum())
