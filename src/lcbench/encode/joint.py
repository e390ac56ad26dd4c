"""Computes the queries, keys and values of attention in one matrix product instead of three.

The products of a narrow model are too small to fill a GPU; one product of three times the width is
faster. The results are equal up to rounding. Compiled code computes the products separately.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

# Names of the projections of queries, keys and values in different architectures.
_PROJECTIONS = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
)


Product = Callable[[Tensor], Tensor]


def _plain(weight: Tensor, bias: Tensor | None) -> Product:
    return partial(nn.functional.linear, weight=weight, bias=bias)


def join_projections(
    model: nn.Module, product: Callable[[Tensor, Tensor | None], Product] = _plain
) -> list[nn.Linear]:
    """Make attention layers compute their projections in one product; return the changed layers.

    Other layers are not changed. Weights keep their names and values.

    Args:
        model: the model.
        product: returns a function that multiplies states by given weights [out_features,
            in_features] and adds a given bias.
    """
    changed: list[nn.Linear] = []
    for module in model.modules():
        for names in _PROJECTIONS:
            parts = [getattr(module, name, None) for name in names]
            linears = [part for part in parts if type(part) is nn.Linear]
            if len(linears) == len(names) and _can_be_joined(linears):
                joint = _Joint(linears, product)
                for index, linear in enumerate(linears):
                    linear.forward = partial(joint.project, index)  # type: ignore[method-assign]
                changed += linears
    return changed


def separate_projections(linears: Sequence[nn.Linear]) -> None:
    """Undo `join_projections`."""
    for linear in linears:
        linear.__dict__.pop("forward", None)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.data = parameter.data.clone()


def _can_be_joined(linears: Sequence[nn.Linear]) -> bool:
    """Return whether projections read states of the same width, all with a bias or none."""
    return (
        len({linear.in_features for linear in linears}) == 1
        and len({linear.bias is None for linear in linears}) == 1
        and len({linear.weight.dtype for linear in linears}) == 1
    )


class _Joint:
    """Computes projections of the same states in one product when the first is called."""

    def __init__(
        self, linears: Sequence[nn.Linear], product: Callable[[Tensor, Tensor | None], Product]
    ) -> None:
        self._sizes = [linear.out_features for linear in linears]
        with torch.no_grad():
            self._weight = torch.cat(tuple(linear.weight for linear in linears))
            biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
            self._bias = torch.cat(biases) if biases else None
            # Views of the joint weights, so that they take no more memory.
            for linear, weight in zip(linears, self._weight.split(self._sizes), strict=True):
                linear.weight.data = weight
            if self._bias is not None:
                for linear, bias in zip(linears, self._bias.split(self._sizes), strict=True):
                    linear.bias.data = bias
        self._product = product(self._weight, self._bias)
        # Per thread, since several may use this layer at the same time.
        self._last = threading.local()

    def project(self, index: int, states: Tensor) -> Tensor:
        """Return one projection of states: [..., out_features]."""
        if torch.compiler.is_compiling():
            # Compiled code cannot depend on the identity of the last tensor.
            weight = self._weight.split(self._sizes)[index]
            bias = None if self._bias is None else self._bias.split(self._sizes)[index]
            return nn.functional.linear(states, weight, bias)
        last = self._last
        if getattr(last, "states", None) is not states:
            last.states, last.parts = states, self._product(states).split(self._sizes, dim=-1)
        part: Tensor = last.parts[index]
        if index == len(self._sizes) - 1:
            # The values are requested last, after which nothing needs to be kept.
            last.states = last.parts = None
        return part
