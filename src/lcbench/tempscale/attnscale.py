"""AttnScale: scales the deviations of attention weights from their mean.

A' = M + (1 + w) (A − M) (Wang et al., "Anti-Oversmoothing in Deep Vision Transformers via the
Fourier Domain Analysis", ICLR 2022, where w is learned for each head). A are the weights of a
token, and M are equal weights for all keys that the token may attend to: those of its text, with
causal attention those before it, with a window those in it. So the output is
(1 + w) · out − w · mean(V), without any weights being known. w > 0 makes weights more different, as
a temperature below 1 does, but lets some become negative; w = −1 leaves mean(V).

mean(V) is the attention of a query of zeros, whose logits are equal. So every back end computes it
with its own masks, at the cost of another attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcbench.tempscale.layer_change import Attention


@dataclass(frozen=True)
class AttnScale:
    """Scales the deviations of attention weights from their mean by 1 + w.

    Attributes:
        w: strength; 0 changes nothing.
    """

    w: float

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
        """Compute a layer's attention; see `layer_change.AttentionChange`."""
        output, weights = original(module, query, key, value, attention_mask, **kwargs)
        bias = kwargs.get("position_bias")
        if bias is not None:
            kwargs["position_bias"] = torch.zeros_like(bias)
        equal = torch.zeros_like(query)
        mean, _ = original(module, equal, key, value, attention_mask, **kwargs)
        return torch.lerp(mean, output, 1 + self.w), weights

    def reference(self, weights: Tensor, allowed: Tensor, starts: Tensor | None) -> Tensor:
        """Return the weights by the formula; see `layer_change.AttentionChange`."""
        keys = allowed.double().expand(-1, -1, -1, weights.shape[-1])
        mean = keys / keys.sum(dim=-1, keepdim=True).clamp(min=1)
        return mean + (1 + self.w) * (weights - mean)
