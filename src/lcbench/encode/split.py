"""Computes float32 products as products in half precision, for GPUs: `engine.fp32=fp16x3`.

A GPU with tensor cores multiplies half-precision matrices ten times as fast as float32 matrices.
A float32 number is, to 22 of its 24 bits, the sum of two half-precision numbers: x = h + l. Of the
four products of such parts, the smallest is below the rounding error of float32. The other three,
summed in float32, are nearly as accurate as a float32 product. They are computed as one product
with three times the inner dimension, small terms first, because Hopper's tensor cores truncate
small terms that are added to a larger sum. Measurements are in `docs/gpu.md`.

The method is that of Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores
while surpassing the FP32 theoretical peak performance" (2022).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lcbench.encode.embed import embed
from lcbench.encode.invariance import PROBE_TEXTS
from lcbench.encode.tokens import Tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The low part is at least 2^11 times smaller than the high part. It is multiplied by this factor,
# so that it does not become subnormal before the high part does.
_LOW = 2.0**11
# Weights are scaled by a power of two so that the largest has this exponent, which keeps their low
# parts, and the high parts divided by `_LOW`, from becoming subnormal. fp16 ends at 2^16.
_LARGEST_WEIGHT = 14
# Maximum difference from float32 embeddings, relative to their length: the limit for embeddings of
# different devices.
_TOLERANCE = 5e-6

_thread = threading.local()


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
            # In the order of `split_states`.
            self._parts = torch.cat([high / _LOW, low, high], dim=1).t()
            self._scale = 2.0**-exponent

    def __call__(self, states: Tensor) -> Tensor:
        """Return states @ weightᵀ + bias, [..., out_features], for states [..., in_features]."""
        if getattr(_thread, "exact", False):
            return nn.functional.linear(states, self._weight, self._bias)
        rows = states.reshape(-1, states.shape[-1])
        product = _multiply(split_states(rows), self._parts)
        if self._bias is None:
            product *= self._scale
        else:
            torch.add(self._bias, product, alpha=self._scale, out=product)
        return product.view(*states.shape[:-1], product.shape[-1])


def split_products(model: nn.Module, left_out: set[nn.Module] | None = None) -> list[nn.Linear]:
    """Make a model's float32 layers use `SplitProduct`, and return the changed layers.

    Args:
        model: the model.
        left_out: layers that are not changed.
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


def restore_products(changed: Sequence[nn.Module]) -> None:
    """Give modules their own forward pass back."""
    for module in changed:
        module.__dict__.pop("forward", None)


@contextmanager
def exact_products() -> Iterator[None]:
    """Return a context in which split layers multiply in float32 in this thread."""
    _thread.exact = True
    try:
        yield
    finally:
        _thread.exact = False


def refusal_of(model: SentenceTransformer) -> str | None:
    """Try split products with a model, and return why they cannot be used; None if they can.

    Args:
        model: the model in evaluation mode, without a temperature.
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
    """Return the low, the high and again the high parts of states, in half precision.

    This must not be compiled: inductor omits the rounding of `high`, and the low parts are lost.

    Args:
        states: [n, features] in float32.

    Returns:
        [n, 3 · features]; the low parts are multiplied by 2^11.
    """
    high = states.half()
    return torch.cat([((states - high) * _LOW).half(), high, high], dim=1)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of half-precision matrices, summed and returned in float32."""
    if left.is_cuda:
        # torch's type annotations lack this argument.
        options: Any = {"out_dtype": torch.float32}
        return torch.mm(left, right, **options)
    # Other devices do not support this; the result is the same.
    return left.float() @ right.float()
