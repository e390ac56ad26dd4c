"""A copy of a model on a device: what makes it fast, its repair, and batches through it."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import nn

from lcbench.encode.chunks import Unscaled
from lcbench.encode.embed import embed
from lcbench.encode.graphs import Graphs
from lcbench.encode.joint import join_projections, separate_projections
from lcbench.encode.onednn import use_onednn
from lcbench.encode.split import (
    SplitProduct,
    exact_products,
    restore_products,
    split_products,
)
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.encode.unpadded import pool_by_text, restore_pooling
from lcbench.errors import InjectionError
from lcbench.repair.change import Applied, Change
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import BASELINE, Policy
from lcbench.tempscale.transformer import find_transformer
from lcbench.tempscale.unpadded import first_position, runs_unpadded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# CUDA's attention kernels use a mask directly if its rows are aligned to 16 bytes, and otherwise
# copy it in every layer. On a CPU alignment would only add padding, and change the last bits of
# recorded embeddings (by less than 2e-6 of a component).
GPU_MULTIPLE = 8


class Replica:
    """Keeps a copy of a model on a device under a repair.

    Attributes:
        repair: what is applied at present.
        device: of the model.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        compiled: bool,
        joint: bool,
        split: bool,
        without_graphs: Callable[[str], None] | None = None,
    ) -> None:
        """Make a model fast.

        Args:
            model: on its device.
            compiled: whether torch compiles it.
            joint: whether queries, keys and values are computed in one product.
            split: whether float32 products are computed as products in half precision.
            without_graphs: forward passes are recorded as CUDA graphs, and this is called with the
                reason if they can no longer be; None: they are not.
        """
        self.repair = NO_REPAIR
        self._applied: list[Applied] = []
        self.device = model.device
        self._model = model
        self._injection: Injection | None = None
        self._compiles, self._records = compiled, without_graphs is not None
        self._without_graphs = without_graphs
        self._plain: Any = None
        # What takes the place of the model's own: compiled, or a repetition of it.
        self._other: Any = None
        self._is_on = False
        self._multiple = multiple_on(model.device)
        self._joins, self._splits = joint, split
        self._joined: list[nn.Linear] = []
        self._split: list[nn.Linear] = []
        self._onednn: list[nn.Module] = []
        self._make_fast()
        self._pools = pool_by_text(model)
        self._packed_from = packed_from(model)
        self._biases = _bias_in_order(model)
        if compiled:
            self._inject(BASELINE)
        self._put_on()

    @property
    def is_joint(self) -> bool:
        """Return whether queries, keys and values are computed in one product."""
        return bool(self._joined)

    @property
    def is_split(self) -> bool:
        """Return whether float32 products are computed as products in half precision."""
        return bool(self._split)

    @property
    def uses_onednn(self) -> bool:
        """Return whether float32 products are computed by oneDNN."""
        return bool(self._onednn)

    @property
    def repetitions(self) -> int:
        """Return how many forward passes were repeated by a CUDA graph under the repair."""
        return self._other.repetitions if isinstance(self._other, Graphs) else 0

    def use(self, repair: Repair) -> None:
        """Apply a repair, with proof, in the place of the present one.

        Raises:
            InjectionError: it cannot be applied; the model is as it was without any.
        """
        # After a failed repair the model is plain, and not compiled.
        if repair == self.repair and (self._is_on or not (self._compiles or self._can_record)):
            return
        # The proof looks at every operation, which a compiled model does not show.
        self._take_off()
        policy, changes = repair.policy, repair.changes
        if (
            changes == self.repair.changes
            and self._injection is not None
            and self._injection.takes(policy)
        ):
            self._change(self._injection, policy)
        else:
            self._inject(policy, changes)
        self.repair = repair
        self._put_on()

    def _inject(self, policy: Policy, changes: Sequence[Change] = ()) -> None:
        """Apply a policy and changes of the model, replacing the current ones."""
        if self._compiles and (changes or self._applied):
            # The compiler does not notice hooks and weights that are changed.
            torch.compiler.reset()
        self._restore()
        if isinstance(self._other, Graphs) and self.device.type == "cuda":
            # Their memory is of no use to anything else.
            self._other = None
            torch.cuda.empty_cache()
        self._other = None
        try:
            # What is proven is attention, also on states that half precision cannot hold.
            with exact_products():
                if changes:
                    # What makes a model fast has copies of its weights.
                    self._make_plain()
                    for change in changes:
                        self._applied.append(change.apply(self._model))
                    self._make_fast()
                if not policy.is_baseline:
                    self._injection = Injection(self._model, policy, as_input=self._compiles)
        except BaseException:
            self._restore()
            raise
        if policy.is_baseline and self._compiles:
            # So that the same code serves the baseline and every temperature. What has no attention
            # runs without.
            with suppress(InjectionError):
                self._injection = Injection(self._model, policy, as_input=True)

    def _change(self, injection: Injection, policy: Policy) -> None:
        """Change the temperature that compiled code takes."""
        try:
            injection.change(policy)
        except BaseException:
            self._restore()
            raise

    def _restore(self) -> None:
        """Take off what was applied, the last first."""
        self.repair = NO_REPAIR
        if self._injection is not None:
            self._injection.remove()
            self._injection = None
        if self._applied:
            self._make_plain()
            while self._applied:
                self._applied.pop().remove()
        if not self._is_fast:
            self._make_fast()

    def _make_fast(self) -> None:
        """Replace products by faster ones of the same values."""
        product = {"product": SplitProduct} if self._splits else {}
        if self._joins:
            self._joined = join_projections(find_transformer(self._model), **product)
        if self._splits:
            self._split = split_products(self._model, set(self._joined))
        # The compiler chooses for itself.
        elif not self._compiles:
            self._onednn = use_onednn(self._model, set(self._joined))
        self._is_fast = True

    def _make_plain(self) -> None:
        """Restore the model's own products."""
        self._is_fast = False
        restore_products([*self._split, *self._onednn])
        separate_projections(self._joined)
        self._joined, self._split, self._onednn = [], [], []

    def settle(self) -> None:
        """Wait until a GPU has received the whole model."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Restore the model."""
        self._take_off()
        self._restore()
        self._make_plain()
        self._other = None
        restore_pooling(self._pools)
        for module in self._biases:
            module.__dict__.pop("compute_bias", None)
        self._pools, self._biases = [], []

    @property
    def records(self) -> bool:
        """Return whether forward passes are recorded under the repair."""
        return self._is_on and self._can_record

    @property
    def _can_record(self) -> bool:
        """Return whether graphs of the forward pass are right for every batch under the repair."""
        policy = self.repair.policy
        return (
            self._records
            and self._packed_from is not None
            and not self.repair.changes
            and not policy.by_length
            and policy.for_role("query") == policy.for_role("document")
        )

    def _put_on(self) -> None:
        """Let the compiled or the recorded forward pass take the place of the model's own."""
        if self._compiles or self._can_record:
            self._is_on = True
            # Through `forward` itself: sentence-transformers calls that.
            transformer: Any = find_transformer(self._model)
            self._plain = transformer.__dict__.get("forward")
            if self._other is None:
                self._other = (
                    torch.compile(transformer.forward, dynamic=True)
                    if self._compiles
                    else Graphs(
                        *(transformer.forward, self._count, self._uncounted, self._end_graphs)
                    )
                )
            transformer.forward = self._other

    def _count(self) -> None:
        """Note that a recorded forward pass has run each layer."""
        if self._injection is not None:
            self._injection.count_all()

    def _uncounted(self) -> AbstractContextManager[None]:
        """Return a context in which runs of layers are not counted."""
        return nullcontext() if self._injection is None else self._injection.uncounted()

    def _end_graphs(self, reason: str) -> None:
        """Stop recording, under every repair."""
        self._records = False
        if self._without_graphs is not None:
            self._without_graphs(reason)

    def _take_off(self) -> None:
        """Restore the forward pass that is not compiled, unless that was done."""
        if self._is_on:
            self._is_on = False
            transformer: Any = find_transformer(self._model)
            transformer.__dict__.pop("forward", None)
            if self._plain is not None:
                transformer.forward = self._plain

    @torch.inference_mode()
    def run(
        self, tokenizer: Tokenizer, batch: Sequence[Tokens], unscaled: Unscaled | None = None
    ) -> tuple[NDArray[Any], int]:
        """Return the embeddings of one batch, and its tokens with padding."""
        run = partial(
            embed,
            *(self._model, tokenizer, batch),
            multiple=self._multiple,
            packed_from=self._packed_from,
            filled=self.records,
            unscaled=unscaled,
        )
        try:
            embeddings, padded = run()
            if self._split and not bool(embeddings.isfinite().all()):
                # States beyond the range of half precision.
                with exact_products():
                    embeddings, padded = run()
        except BaseException:
            if self._injection is not None:
                self._injection.forget()
            if isinstance(self._other, Graphs):
                # Memory may have run out.
                self._other.forget()
            raise
        if self._injection is not None:
            self._injection.check()
        return embeddings.numpy(), padded


def multiple_on(device: torch.device) -> int:
    """Return the number that padded lengths of a batch are multiples of."""
    return GPU_MULTIPLE if device.type == "cuda" else 1


def packed_from(model: SentenceTransformer) -> int | None:
    """Return the position of a text's first token, for a model that takes texts without padding."""
    transformer = find_transformer(model)
    return first_position(transformer) if runs_unpadded(transformer) else None


def _bias_in_order(model: SentenceTransformer) -> list[torch.nn.Module]:
    """Make T5-like models lay out their position bias as attention needs it; return layers.

    They make it once a batch, with the heads innermost. What each layer then makes of it and of the
    mask, as large as all attention weights of a batch, is laid out likewise, and would be copied.
    """
    found = [
        module
        for module in find_transformer(model).modules()
        if getattr(module, "has_relative_attention_bias", False) and hasattr(module, "compute_bias")
    ]
    for module in found:
        module.compute_bias = types.MethodType(_contiguous_bias, module)  # type: ignore[assignment]
    return found


def _contiguous_bias(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    bias: torch.Tensor = type(self).compute_bias(self, *args, **kwargs)
    return bias.contiguous()
