"""Gives the attention layers of a loaded model a change besides a temperature, with proof.

Layers are reached through the attention interface of `transformers`, as temperatures are, and the
same proof is made: every layer's output equals the formula in float64, padded and unpadded. A
temperature that is injected afterwards applies to the logits before the change, and its proof
covers both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lcbench.errors import InjectionError
from lcbench.system.thirdparty import attention_implementation
from lcbench.tempscale.attend import EAGER, register_eager
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.layer_change import CHANGE_ATTRIBUTE, AttentionChange
from lcbench.tempscale.policy import BASELINE
from lcbench.tempscale.softmax import computes_own_softmax
from lcbench.tempscale.transformer import find_transformer


class ChangedAttention:
    """Keeps the attention layers of a model changed until `.remove()` is called.

    Attributes:
        proof: the checks made when the change was applied, as JSON types.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        changes: Callable[[int], Sequence[AttentionChange | None]],
        back_ends: Sequence[str] | None = None,
    ) -> None:
        """Change the attention of a model that is not under injection.

        Args:
            model: a `SentenceTransformer`, a `PreTrainedModel`, or a module that holds one.
            name: of the change, for messages.
            changes: returns the change of each layer, given the number of layers; None: unchanged.
            back_ends: attention implementations that the change needs one of; None: any.

        Raises:
            InjectionError: a layer cannot be reached, or does not compute the change; the model is
                as before.
        """
        transformer: Any = find_transformer(model)
        self._transformer = transformer
        self._modules: list[nn.Module] = []
        self._original = attention_implementation(transformer.config) or "eager"
        kind = type(transformer).__name__
        if any(computes_own_softmax(module) for module in transformer.modules()):
            raise InjectionError(
                f"{name}: {kind} computes its own softmax, where only a temperature (tau=) can be "
                "applied."
            )
        if back_ends is not None and self._original not in back_ends:
            # As engine.attention calls them.
            known = " or ".join(one.removeprefix("lcbench_") for one in back_ends)
            raise InjectionError(
                f"{name} needs the attention {known}, and {kind} is on {self._original}."
            )
        try:
            with Injection(model, BASELINE) as plain:
                layers = [transformer.get_submodule(layer) for layer in plain.proof.layers]
            count = transformer.config.num_hidden_layers
            wanted = list(changes(count))
            if len(layers) < count:
                # One module computes the attention of several layers.
                if len(set(wanted)) > 1:
                    raise InjectionError(
                        f"{kind}: its layers share their attention, which cannot be changed in "
                        "some of them only."
                    )
                wanted = wanted[: len(layers)]
            if self._original == "eager":
                transformer.set_attn_implementation(register_eager())
            for layer, change in zip(layers, wanted, strict=True):
                if change is not None:
                    setattr(layer, CHANGE_ATTRIBUTE, change)
                    self._modules.append(layer)
            with Injection(model, BASELINE) as changed:
                proof = changed.proof
        except InjectionError as error:
            self.remove()
            raise InjectionError(f"{name}: {error}") from error
        except BaseException:
            self.remove()
            raise
        self.proof = {
            "layers": [
                layer
                for layer in proof.layers
                if hasattr(transformer.get_submodule(layer), CHANGE_ATTRIBUTE)
            ],
            "largest_error": proof.largest_error,
        }

    def remove(self) -> None:
        """Restore the model's own attention. Doing it twice is harmless."""
        for module in self._modules:
            delattr(module, CHANGE_ATTRIBUTE)
        self._modules = []
        if attention_implementation(self._transformer.config) == EAGER:
            self._transformer.set_attn_implementation(self._original)
