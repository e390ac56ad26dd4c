"""Looks up the temperatures of the texts in a batch by their lengths.

Nothing here waits for a GPU: lengths are counted there, and temperatures looked up there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcbench.tempscale.policy import Policy
from lcbench.tempscale.prove import active_probe

# Lengths whose temperatures are looked up from the start, in tokens: few models read longer texts.
_FIRST_LENGTHS = 4096


class TemperaturesByLength:
    """The temperatures of a policy by length in tokens.

    Attributes:
        policy: the policy.
        dtype: type of the temperatures.
        table: temperatures of texts of 0, 1, … tokens: [lengths, layers or 1, heads or 1].
    """

    def __init__(self, policy: Policy, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.change(policy, device)

    def change(self, policy: Policy, device: torch.device) -> None:
        """Take another policy; code that was compiled with this object stays right."""
        self.policy = policy
        # Before the first batch: a compiled model could not make it.
        self.table = self._made(_FIRST_LENGTHS, device)

    @property
    def extremes(self) -> Tensor:
        """The lowest and highest temperature by length, for the probe's two texts.

        By layer and head where these differ: [2, layers or 1, heads or 1], float64.
        """
        examples = torch.tensor(self.policy.examples())
        return torch.stack((examples.amin(dim=0), examples.amax(dim=0)))

    def of_batch(self, ids: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
        """Return the temperatures of each text in a batch: [texts, layers or 1, heads or 1].

        Args:
            ids: token ids or their embeddings, [texts, tokens, ...]; [1, tokens, ...] of an
                unpadded batch.
            kwargs: further arguments of the model's forward pass.
        """
        if active_probe() is not None:
            # The probe's texts are short; here they get the policy's extremes, so that it is seen
            # that each text gets its own.
            return self.extremes.to(ids.device, self.dtype)
        lengths, longest = _lengths(ids, kwargs)
        if self.table.device != ids.device or len(self.table) <= longest:
            self.table = self._made(longest, ids.device)
        found: Tensor = self.table[lengths]
        return found

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _made(self, longest: int, device: torch.device) -> Tensor:
        # For more lengths than needed, so that it is not rebuilt for each longer batch. Two threads
        # may build it at the same time, which is harmless.
        taus = self.policy.of_lengths(2 * longest)
        # Also for runs that are differentiated, where the first was not.
        with torch.inference_mode(False):
            return torch.tensor(taus, dtype=self.dtype, device=device)


def _lengths(ids: Tensor, kwargs: Mapping[str, Any]) -> tuple[Tensor, int]:
    """Return the tokens of each text that goes through a model, and a bound of them.

    The former are on the model's device, and the latter is known without asking it.
    """
    boundaries = kwargs.get("cu_seq_lens_q")
    if boundaries is not None:
        longest = kwargs.get("max_length_q")
        return boundaries.diff().long(), longest if isinstance(longest, int) else ids.shape[1]
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask.sum(dim=1).long(), mask.shape[1]
    whole = torch.full((ids.shape[0],), ids.shape[1], device=ids.device)
    return whole, ids.shape[1]
