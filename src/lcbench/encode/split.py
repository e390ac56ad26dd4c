"""Computes float32 products as products in half precision, for GPUs: `engine.fp32=fp16x3`.

A GPU with tensor cores multiplies in half precision ten times as fast as in float32. A number in
float32 is the sum of two in half precision, to 22 of its 24 bits: x = h + l. Of the four products
of such parts the smallest is below float32's own rounding. The other three, added up in float32,
are nearly as exact as a float32 product. They are taken as one product of matrices three times as
long, in which the small ones come first: Hopper's tensor cores truncate what they add to a larger
sum. `docs/gpu.md` has what was measured.

The method is that of Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores
while surpassing the FP32 theoretical peak performance" (2022).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lcbench.encode.embed import embed
from lcbench.encode.invariance import PROBE_TEXTS
from lcbench.encode.tokens import Tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The low part is smaller than the high one by 2^11 at least, which it is multiplied by, so that it
# has all its bits as long as the high one has.
_LOW = 2.0**11
# Weights are multiplied by a power of two that brings the largest to here: their low parts, and
# what belongs to low parts of states, have all their bits too. fp16 ends at 2^16.
_LARGEST_WEIGHT = 14
# Embeddings may differ from those in float32 by this part of their length: the limit that
# embeddings on two devices have to keep.
_TOLERANCE = 5e-6

_own = threading.local()


class SplitProduct:
    """Multiplies states by a layer's weights, in three products of half-precision parts."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Split the weights.

        Args:
            weight: [out_features, in_features] in float32.
            bias: [out_features], or None.
        """
        self._weight, self._bias = weight, bias
        with torch.no_grad():
            largest = float(weight.abs().max()) or 1.0
            exponent = _LARGEST_WEIGHT - int(torch.tensor(largest).frexp().exponent)
            high = (weight * 2.0**exponent).half()
            low = (weight * 2.0**exponent - high).half()
            # Rows next to those of `split_states`.
            self._parts = torch.cat([high / _LOW, low, high], dim=1).t()
            self._scale = 2.0**-exponent

    def __call__(self, states: Tensor) -> Tensor:
        """Return states @ weightᵀ + bias: [..., out_features] of states [..., in_features]."""
        if getattr(_own, "exact", False):
            return nn.functional.linear(states, self._weight, self._bias)
        rows = states.reshape(-1, states.shape[-1])
        product = _multiply(split_states(rows), self._parts)
        if self._bias is None:
            product *= self._scale
        else:
            torch.add(self._bias, product, alpha=self._scale, out=product)
        return product.view(*states.shape[:-1], product.shape[-1])


def split_products(model: nn.Module, left_out: set[nn.Module] | None = None) -> list[nn.Linear]:
    """Make a model's float32 layers compute by `SplitProduct`; return the changed layers.

    Args:
        model: the model.
        left_out: layers that stay as they are.
    """
    changed = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and module not in (left_out or set())
    ]
    for linear in changed:
        bias: Tensor | None = linear.bias
        product = SplitProduct(linear.weight.detach(), None if bias is None else bias.detach())
        linear.forward = product  # type: ignore[method-assign, assignment]
    return changed


def restore_products(linears: list[nn.Linear]) -> None:
    """Undo `split_products`."""
    for linear in linears:
        linear.__dict__.pop("forward", None)


@contextmanager
def exact_products() -> Iterator[None]:
    """Let split layers multiply in float32 in this thread."""
    _own.exact = True
    try:
        yield
    finally:
        _own.exact = False


def refusal_of(model: SentenceTransformer) -> str | None:
    """Return why a model's products are not to be split, after trying it; None: they may be.

    Args:
        model: in evaluation mode, at no temperature.
    """
    tokenizer = Tokenizer(model)
    texts = tokenizer.tokenize(list(PROBE_TEXTS))
    expected = embed(model, tokenizer, texts)[0]
    changed = split_products(model)
    try:
        found = embed(model, tokenizer, texts)[0]
    finally:
        restore_products(changed)
    if not changed:
        return "it has no layers that multiply in float32."
    if not bool(found.isfinite().all()):
        return "its states exceed the range of half precision (65,504)."
    difference = float(((found - expected).abs().amax(1) / expected.norm(dim=1)).max())
    if not difference <= _TOLERANCE:
        return f"its embeddings would differ by {difference:.1e} of their length."
    return None


def split_states(states: Tensor) -> Tensor:
    """Return the low, the high and once more the high parts of states, in half precision.

    It must not be compiled with torch: inductor leaves out the rounding of `high` in between, and
    with it the low parts.

    Args:
        states: [n, features] in float32.

    Returns:
        [n, 3 · features]; the low parts are multiplied by 2^11.
    """
    high = states.half()
    return torch.cat([((states - high) * _LOW).half(), high, high], dim=1)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of half-precision matrices in float32, as it is summed up."""
    if left.is_cuda:
        # mypy knows no such argument.
        options: Any = {"out_dtype": torch.float32}
        return torch.mm(left, right, **options)
    # Other devices have no such product: the same numbers in float32.
    return left.float() @ right.float()
