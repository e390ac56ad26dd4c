"""AttnScale: scales the deviations of attention weights from their mean.

A' = M + (1 + w) (A − M) (Wang et al., "Anti-Oversmoothing in Deep Vision Transformers via the
Fourier Domain Analysis", ICLR 2022, where w is learned for each head). A are the weights of a
token, and M are equal weights for all keys that the token may attend to: those of its text, with
causal attention those before it, with a window those in it. So the output is
(1 + w) · out − w · mean(V), without any weights being known. w > 0 makes weights more different, as
a temperature below 1 does, but lets some become negative; w = −1 leaves mean(V).

mean(V) is the attention of a query of zeros, whose logits are equal. So every back end computes it
with its own masks. On a CPU one token's is enough where all of a text attend to the same keys;
elsewhere it takes as long as another attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcbench.system.thirdparty import attention_implementation
from lcbench.tempscale.attend import EAGER, is_causal_without_mask
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
        bias, equal = kwargs.get("position_bias"), torch.zeros_like(query)
        if bias is not None:
            bias = torch.zeros_like(bias)
        if _attend_alike(module, query, attention_mask, kwargs):
            equal = equal[:, :, :1]
            attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
            bias = None if bias is None else bias[:, :, :1]
        if bias is not None:
            kwargs["position_bias"] = bias
        mean, _ = original(module, equal, key, value, attention_mask, **kwargs)
        return torch.lerp(mean.expand_as(output), output, 1 + self.w), weights

    def reference(self, weights: Tensor, allowed: Tensor, starts: Tensor | None) -> Tensor:
        """Return the weights by the formula; see `layer_change.AttentionChange`."""
        keys = allowed.double().expand(-1, -1, -1, weights.shape[-1])
        mean = keys / keys.sum(dim=-1, keepdim=True).clamp(min=1)
        return mean + (1 + self.w) * (weights - mean)


def _attend_alike(module: nn.Module, query: Tensor, mask: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether all tokens of each text are seen to attend to the same keys.

    Only on a CPU, since a GPU would have to be waited for, and for back ends that go by the mask.
    """
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if attention_implementation(module.config) not in ("sdpa", EAGER):
        return False
    if mask is None:
        return not is_causal_without_mask(module, kwargs.get("is_causal"))
    return (
        isinstance(mask, Tensor)
        and mask.dim() == 4
        and torch.equal(mask, mask[:, :, :1].expand_as(mask))
    )
