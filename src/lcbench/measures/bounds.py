"""Compare what attention does to token vectors with bounds: of the paper, and ones that must hold.

The paper (arXiv:2410.24200, Figure 2) plots σ_a·σ_1·H, with the mean σ_a of the heads and the
largest ‖W_V^h‖₂, with the ratio of a whole layer. It bounds neither that, which has residual
connections and a feed-forward network, nor attention, as it leaves out W_O. Two bounds of
‖HC[MSA]‖_F / ‖HC[X]‖_F, attention after W_O against what enters it, must hold, as HC[A·1] = 0 for
any attention:

- summed: Σ_h σ_a^h · ‖W_V^h W_O^h‖₂, by the triangle inequality;
- stacked: ‖W_O‖₂ · √Σ_h (σ_a^h · ‖W_V^h‖₂)².

Theorem 3 (equation 3) bounds σ_a by the number of tokens n and the standard deviation σ_s of the
logits. Its proof goes through σ_a ≤ ‖A‖_F, but ‖A‖_F is at least 1, and its bound is below 1; and
the bound is exceeded already by independent logits of σ_s = 1. For those σ_a approaches
2√((exp(σ_s²) − 1)/n) where n is far above exp(4σ_s²). Logits that are products of queries and keys
have at most the rank of a head, and their σ_a falls to about σ_s/√(size of a head) only.

All of that is of attention without a mask. Under a causal mask even attention has a σ_a that rises
with n (`attention.causal_sigma_a`), and independent logits have about as much or more on average,
though single draws of σ_s ≤ 1 may have less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lcbench.errors import InjectionError, RequestError
from lcbench.measures.attention import HeadMeasures, measure_heads, sigma_a
from lcbench.measures.trace import Attended, Projections, log_ratio, trace

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.tempscale.policy import Role

# σ_s and n of `theorem_3_table`.
_SPREADS = (0.5, 1.0, 2.0, 3.0)
_LENGTHS = (128, 1024)
# Draws whose σ_a are averaged; of 20 at σ_s = 1 and n = 128, products have 0.26 to 0.47. Of more
# tokens there are fewer, since the largest take a second each.
_DRAWN_TOKENS = 1024


def bounds(
    model: Any,
    texts: Sequence[str] | Sequence[Sequence[int]],
    tau: Any = 1.0,
    *,
    tokenizer: Any = None,
    role: Role | None = None,
    layers: Sequence[int] | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """Measure what attention does to token vectors, and compute its bounds, by layer.

    Args:
        model: a `SentenceTransformer` or a `PreTrainedModel`, on eager or sdpa attention.
        texts: texts, or their token ids with special tokens.
        tau: a temperature policy as `lcbench.inject` takes it, or a list of several.
        tokenizer: that of a `PreTrainedModel`, for texts that are not token ids.
        role: whose texts these are, `query` or `document`, for a policy by role.
        layers: layers to measure, from 0; None: all.
        memory: the most memory in GiB that attention weights may take; None: that of the machine.

    Returns:
        A row per policy, text and layer, with the columns `policy`, `text` (its number from 0),
        `tokens`, `layer`, `tau`, `sigma_a` (mean of the heads), and logs: `attention` (the measured
        ratio of attention alone), `block` (that of the whole layer), `summed` and `stacked` (bounds
        of `attention` that must hold) and `paper` (the paper's, which need not).

    Raises:
        InjectionError: the model has no attention, or values or outputs of its attention are not
            those of plain linear maps.
        RequestError: a layer that the model does not have, no texts, or a text whose attention
            weights need more memory than there is.
    """
    import pandas as pd

    def measure(attended: Attended) -> HeadMeasures:
        return measure_heads(attended.observation)

    norms: dict[int, Norms] = {}
    rows: list[dict[str, Any]] = []
    for one in trace(
        model,
        texts,
        tau,
        measure,
        tokenizer=tokenizer,
        role=role,
        layers=layers,
        memory=memory,
        streams=True,
    ):
        maps = None if one.stream is None else one.stream.projections
        if one.stream is None or maps is None:
            raise InjectionError(
                f"layer {one.layer} of {type(model).__name__}: values or outputs of its attention "
                "are not those of plain linear maps, so there are no bounds: merge adapters "
                "(merge_and_unload), or measure attention alone (lcbench.measures.attention)."
            )
        if one.layer not in norms:
            norms[one.layer] = norms_of(maps)
        found = one.measured.sigma_a
        rows.append(
            {
                **one.place(),
                "sigma_a": float(found.mean()),
                "attention": log_ratio(maps.leaving, maps.entering),
                "block": log_ratio(one.stream.steps[-1].size, one.stream.entering),
                **norms[one.layer].bounds(found),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Norms:
    """Spectral norms of the maps around one layer's attention.

    Attributes:
        values: ‖W_V^h‖₂ of each head.
        products: ‖W_V^h W_O^h‖₂ of each head.
        output: ‖W_O‖₂.
    """

    values: np.ndarray[Any, np.dtype[np.float64]]
    products: np.ndarray[Any, np.dtype[np.float64]]
    output: float

    def bounds(self, sigmas: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
        """Return the logs of the bounds, from σ_a of each head."""
        numbers = {
            "summed": float((sigmas * self.products).sum()),
            "stacked": self.output * float(np.linalg.norm(sigmas * self.values)),
            "paper": float(sigmas.mean() * self.values.max()) * len(sigmas),
        }
        return {name: log_ratio(value, 1.0) for name, value in numbers.items()}


@torch.no_grad()
def norms_of(maps: Projections) -> Norms:
    heads = len(maps.output)
    # Heads of queries share those of keys and values.
    values = maps.values.double().repeat_interleave(heads // len(maps.values), dim=0)
    output = maps.output.double()
    # The norm of a product is that of the small triangles of its factors.
    left = torch.linalg.qr(output).R
    right = torch.linalg.qr(values.mT).R
    whole = output.transpose(0, 1).flatten(1)
    return Norms(
        torch.linalg.matrix_norm(values, 2).cpu().numpy(),
        torch.linalg.matrix_norm(left @ right.mT, 2).cpu().numpy(),
        float(torch.linalg.matrix_norm(whole, 2)),
    )


def theorem_3(sigma_s: float, tokens: int) -> float:
    """Return the paper's bound of σ_a (Theorem 3), which need not hold.

    √(n / (2·√(1 + exp(−2σ_s²))·(n − 1)^(3/2) + 1)): equation 3 as it follows from equation 21 of
    its proof. As printed, with one root over everything, it would not fall with n.

    Args:
        sigma_s: standard deviation of the logits.
        tokens: n, at least 1.

    Raises:
        RequestError: fewer than one token, or a negative standard deviation.
    """
    _check(sigma_s, tokens)
    rest = 2 * math.sqrt(1 + math.exp(-2 * sigma_s**2)) * (tokens - 1) ** 1.5
    return math.sqrt(tokens / (rest + 1))


def of_independent_logits(sigma_s: float, tokens: int) -> float:
    """Return what σ_a of independent normal logits approaches: 2√((exp(σ_s²) − 1)/n).

    It is near where n is far above exp(4σ_s²): at σ_s = 0.5 the mean of simulations is 2 % below it
    at n = 128, and 0.4 % at n = 1,024.

    Raises:
        RequestError: as `theorem_3`.
    """
    _check(sigma_s, tokens)
    return 2 * math.sqrt((math.exp(sigma_s**2) - 1) / tokens)


@dataclass(frozen=True)
class Simulated:
    """Attention of random logits.

    Attributes:
        sigma_a: σ_a of its weights.
        norm: ‖A‖_F of its weights, at least 1.
    """

    sigma_a: float
    norm: float


def simulate(
    sigma_s: float,
    tokens: int,
    *,
    size: int | None = None,
    causal: bool = False,
    seed: int = 0,
) -> Simulated:
    """Compute attention of random logits with a given standard deviation.

    Args:
        sigma_s: standard deviation of the logits.
        tokens: n.
        size: logits are products of random queries and keys of this size, as in a head; None: they
            are independent.
        causal: whether tokens do not attend to later ones.
        seed: of the random numbers.

    Raises:
        RequestError: as `theorem_3`.
    """
    _check(sigma_s, tokens)
    random = np.random.default_rng(seed)
    if size is None:
        logits = random.normal(size=(tokens, tokens))
    else:
        queries, keys = random.normal(size=(2, tokens, size))
        logits = queries @ keys.T / math.sqrt(size)
    weights = np.exp(sigma_s * logits)
    if causal:
        weights = np.tril(weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return Simulated(float(sigma_a(weights)), float(np.linalg.norm(weights)))


@cache
def theorem_3_table(seed: int = 0) -> pd.DataFrame:
    """Return where random logits exceed the paper's bound of σ_a: means of 1024/n draws.

    Returns:
        A row per σ_s and n, with the columns `sigma_s`, `tokens`, `independent` (σ_a of independent
        logits), `approached` (`of_independent_logits`), `theorem_3`, `norm` (‖A‖_F of independent
        logits), `products` (σ_a of products of queries and keys of size 64), `floor` (σ_s/√64), and
        whether either σ_a exceeds the bound: `exceeded`.
    """
    import pandas as pd

    rows = []
    for sigma_s in _SPREADS:
        for tokens in _LENGTHS:
            seeds = range(seed, seed + max(1, _DRAWN_TOKENS // tokens))
            independent = [simulate(sigma_s, tokens, seed=one) for one in seeds]
            products = [simulate(sigma_s, tokens, size=64, seed=one).sigma_a for one in seeds]
            mean = float(np.mean([one.sigma_a for one in independent]))
            bound = theorem_3(sigma_s, tokens)
            rows.append(
                {
                    "sigma_s": sigma_s,
                    "tokens": tokens,
                    "independent": mean,
                    "approached": of_independent_logits(sigma_s, tokens),
                    "theorem_3": bound,
                    "norm": float(np.mean([one.norm for one in independent])),
                    "products": float(np.mean(products)),
                    "floor": sigma_s / math.sqrt(64),
                    "exceeded": max(mean, float(np.mean(products))) > bound,
                }
            )
    return pd.DataFrame(rows)


def _check(sigma_s: float, tokens: int) -> None:
    if tokens < 1 or not sigma_s >= 0:
        raise RequestError(
            f"sigma_s={sigma_s} and tokens={tokens}: a standard deviation is at least 0, and a "
            "text has at least 1 token."
        )
