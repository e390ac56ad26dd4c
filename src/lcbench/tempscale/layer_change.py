"""What an attention layer computes instead of softmax(logits) V, besides a temperature.

A layer with a change calls its attention function through it (`attend.py`); the proof compares what
it returns with the change's weights in float64. How a model gets a change is in `change.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

CHANGE_ATTRIBUTE = "_lcbench_change"

Attention = Callable[..., tuple[Tensor, Tensor | None]]


class AttentionChange(Protocol):
    """Another attention, computed with the layer's attention function at its temperature."""

    def attend(
        self,
        original: Attention,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute a layer's attention; the arguments are those of its attention function.

        Args:
            original: the attention function.
            module: the layer.
            query: [batch, heads, tokens, size], divided by the temperature where `scaling` is not.
            key: [batch, key-value heads, tokens, size].
            value: same shape as the keys.
            attention_mask: as the attention function takes it.
            kwargs: further arguments, at the temperature.

        Returns:
            The output, [batch, tokens, heads, size], and what the function returns besides.
        """

    def reference(self, weights: Tensor, allowed: Tensor, starts: Tensor | None) -> Tensor:
        """Return the weights by the formula for the texts of the probe, in float64.

        Args:
            weights: softmax(logits / τ) in float64, [batch, heads, tokens, keys].
            allowed: booleans that broadcast to it: the keys that each token may attend to.
            starts: start of each text and end of the last in a batch without padding; else None.
        """


def change_of(module: nn.Module) -> AttentionChange | None:
    """Return the change of an attention layer, if it has one."""
    return getattr(module, CHANGE_ATTRIBUTE, None)
