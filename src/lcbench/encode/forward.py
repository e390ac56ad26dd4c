"""The forward pass: runs batches through a model in parallel, under a repair.

On a CPU a batch runs on one core and as many batches run at once as there are cores. That is at
least as fast as all cores on one batch (nothing waits for the slowest part of an operation), leaves
cores to others by the batch, and gives the same bits on any number of cores. On GPUs each has a
copy of the model and two batches in hand: while one is computed the next is padded and copied.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from lcbench.encode import arithmetic
from lcbench.encode.batches import fill_batches, plan_batches
from lcbench.encode.budget import batch_budget
from lcbench.encode.chunks import Unscaled, scales
from lcbench.encode.embed import can_pack, embed
from lcbench.encode.encoder import Stopped
from lcbench.encode.invariance import check_invariance
from lcbench.encode.replica import Replica, multiple_on, packed_from
from lcbench.encode.roles import check_routes, depends_on_role
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.errors import RequestError
from lcbench.hub.windows import window_of
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.system.log import LOGGER
from lcbench.system.signals import DeviceLost
from lcbench.system.thirdparty import attention_implementation
from lcbench.system.transient import device_loss_in, is_out_of_memory
from lcbench.tempscale.policy import Role
from lcbench.tempscale.transformer import find_transformer
from lcbench.tempscale.unpadded import runs_unpadded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.repair.change import Change

# Fixed cost of a batch, in tokens. MiniLM on one core: 9 ms, as long as 35 tokens take. Less is
# counted, as more and smaller batches keep all cores busy until the end of a request: over the
# tasks of `make bench` padding falls from 4.1 to 2.9 % of all tokens, for 0.5 % more work in all.
_OVERHEAD = {"cpu": 20, "cuda": 1024}
# Blocks of texts that go well before larger batches are tried again, the first time.
_BLOCKS_BEFORE_GROWTH = 4
# A lane that has to leave its core to others looks this often whether it may go on.
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Batch:
    """Holds the embeddings of a batch that went through the model.

    Attributes:
        texts: indices of its texts.
        embeddings: [texts, dimensions]; float64 if they were taken out before scaling.
        padded: tokens, padding included.
    """

    texts: list[int]
    embeddings: NDArray[Any]
    padded: int


class Forward:
    """Runs batches through a model and its copies on several GPUs, in separate threads.

    Attributes:
        depends_on_role: whether a text's tokens or embedding may depend on its role.
        dimensions: number of dimensions of an embedding.
        window: most tokens that the model reads of a text without a repair; None: no limit.
        scales: whether the model scales embeddings to length 1.
        planned_tokens: tokens of one batch at most, padding included (a longer text is one alone).
        batch_tokens: the same at present: fewer after memory ran out, until it is there again.
        least_tokens: the fewest that memory has made it.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        devices: Sequence[str] = (),
        batch_tokens: int | None = None,
        lanes: int | None = None,
        compiled: bool = False,
        joint: bool = False,
        split: bool = False,
        graphs: bool = False,
        notes: Mapping[str, str] | None = None,
        cores_left: Callable[[], int] | None = None,
    ) -> None:
        """Make the threads; they wait for work.

        Args:
            model: the model in evaluation mode, with its window set, on the first device.
            devices: that get a copy of it each; none: where the model is.
            batch_tokens: planned ones; None: what fits into the cache, or by the model's width and
                the size of the GPU's memory, whatever of that is free at present, and under a
                repair by the window that it reads.
            lanes: batches at once on each device; None: the cores of a CPU, two on a GPU.
            compiled: whether torch compiles the model, once for all constant temperatures.
            joint: whether queries, keys and values are computed in one product.
            split: whether float32 products are computed as products in half precision; not in
                compiled code.
            graphs: whether forward passes without padding are recorded as CUDA graphs.
            notes: why something requested is not done, by name, for `arithmetic`.
            cores_left: asked before each batch on a CPU how many of the cores may be used; there
                is always one.

        Raises:
            RequestError: an embedding depends on the texts that share its batch.
        """
        kind = model.device.type
        self.depends_on_role = depends_on_role(model)
        self._model = model
        self.window = window_of(model)
        self._repair = NO_REPAIR
        # Those that read more than the window, by role and number of tokens.
        self._longer: dict[tuple[Role | None, int], Tokenizer] = {}
        # Before it is compiled, or brought to a temperature.
        self._tokenizers = _tokenizers(
            model, by_role=self.depends_on_role, batched=batch_tokens != 1
        )
        self._attention, self._notes = _attention_of(model), dict(notes or {})
        self._packs = packed_from(model) is not None
        self._records = graphs and self._packs
        self.dimensions = int(model.get_embedding_dimension() or 0)
        self.scales = scales(model)
        self._overhead = _OVERHEAD.get(kind, _OVERHEAD["cuda"])
        self._multiple = multiple_on(model.device)
        others = [copy.deepcopy(model).to(device) for device in list(devices)[1:]]
        if compiled:
            # Else what was compiled for other models counts against how often torch does it.
            torch.compiler.reset()
        self._replicas = [
            Replica(
                one,
                compiled=compiled,
                joint=joint,
                split=split,
                without_graphs=self._without_graphs if graphs else None,
            )
            for one in (model, *others)
        ]
        if lanes is None:
            lanes = torch.get_num_threads() if kind == "cpu" else 2
        self._joint, self._split = self._replicas[0].is_joint, self._replicas[0].is_split
        self._lanes = lanes * len(self._replicas)
        self._cores_left = cores_left if kind == "cpu" else None
        self._running = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._one_by_one = False
        self._own = threading.local()
        self._started = 0
        self._pool = ThreadPoolExecutor(self._lanes, "lane", initializer=self._start_lane)
        self._lanes_each, self._chosen_tokens = lanes, batch_tokens
        self._budgets: dict[tuple[Change, ...], int] = {}
        self.planned_tokens = self.batch_tokens = self.least_tokens = 0
        self._plan(NO_REPAIR)
        self._blocks_well = 0
        self._blocks_needed = _BLOCKS_BEFORE_GROWTH
        for replica in self._replicas:
            replica.settle()

    def arithmetic(self) -> dict[str, Any]:
        """Return how batches are computed, for a provenance file."""
        return {
            **arithmetic.facts(self._model.device.type),
            "attention": self._attention,
            **({"float32_products": "fp16x3"} if self._split else {}),
            **({"fused_qkv": True} if self._joint else {}),
            # Whatever the repair: a cell is recorded when the next ones may be running.
            **({"cuda_graphs": True} if self._records and "graphs_note" not in self._notes else {}),
            **({"onednn": True} if self._replicas[0].uses_onednn else {}),
            **self._notes,
            "batch_tokens": self.planned_tokens,
            "least_batch_tokens": self.least_tokens,
            "lengths_multiple_of": self._multiple,
        }

    @property
    def repetitions(self) -> int:
        """Return how many forward passes were repeated by a CUDA graph under the repair."""
        return sum(replica.repetitions for replica in self._replicas)

    def _without_graphs(self, reason: str) -> None:
        self._notes["graphs_note"] = reason
        LOGGER.warning("engine.graphs=true has no effect from here on: %s", reason)

    def use(self, repair: Repair) -> None:
        """Apply a repair to the model, with proof; nothing may be running.

        Raises:
            InjectionError: the repair cannot be applied.
        """
        self._repair = NO_REPAIR
        try:
            for replica in self._replicas:
                replica.use(repair)
        finally:
            # Weights may have been copied, which streams of lanes do not wait for.
            for replica in self._replicas:
                replica.settle()
        self._repair = repair
        self._plan(repair)

    def _plan(self, repair: Repair) -> None:
        """Take the size of batches that suits the model as it is changed, and its window.

        The measurement of a GPU's memory runs a batch, whose bits it does not change.
        """
        changes = repair.changes
        if changes not in self._budgets:
            window = repair.window(self.window)
            # A graph has memory of its own.
            lanes = self._lanes_each * (2 if self._records else 1)
            self._budgets[changes] = self._chosen_tokens or batch_budget(self._model, lanes, window)
        planned = self._budgets[changes]
        if planned != self.planned_tokens:
            self.planned_tokens = self.batch_tokens = self.least_tokens = planned

    def tokenizer_for(self, role: Role | None, repair: Repair = NO_REPAIR) -> Tokenizer:
        """Return the tokenizer for texts of a role, or for all texts if the model ignores roles.

        Args:
            role: role of the texts.
            repair: their repair, which may read more tokens of a text.

        Raises:
            RequestError: the model has no way for these texts.
        """
        role = role if self.depends_on_role else None
        if role not in self._tokenizers:
            check_routes(self._model, [role], "this model")
        window = repair.window(self.window)
        if window is None or window == self.window:
            return self._tokenizers[role]
        if (role, window) not in self._longer:
            self._longer[role, window] = self._tokenizers[role].at(window)
        return self._longer[role, window]

    def run(
        self,
        tokens: Sequence[Tokens],
        role: Role | None = None,
        queued: Callable[[], None] | None = None,
        unscaled: Unscaled | None = None,
    ) -> Generator[Batch]:
        """Run texts through the model as it is, and yield batches as they finish, in any order.

        Several threads may call this at the same time; their batches are computed in order of
        arrival.

        When memory runs out, batches are halved, and what was not done is done in smaller ones;
        at last in one at a time.

        Args:
            tokens: tokens of texts with the same role and prompt.
            role: their role.
            queued: called once all batches wait for the model, so that those of another thread
                come after them.
            unscaled: takes embeddings out of the model before it scales them; None: the model's.

        Raises:
            Stopped: by `stop`.
            torch.OutOfMemoryError: one text alone is too much.
            DeviceLost: a GPU has failed.
        """
        waiting = list(range(len(tokens)))
        tokenizer, multiple = self.tokenizer_for(role, self._repair), self._multiple
        goes_well = True
        while waiting:
            lengths = [tokenizer.width(tokens[i].length, multiple) for i in waiting]
            planned = self.batch_tokens
            plans = (
                fill_batches([tokens[i].length for i in waiting], planned)
                if self._packs and can_pack(tokens)
                else plan_batches(lengths, planned, self._overhead)
            )
            batches = [[waiting[i] for i in plan] for plan in plans]
            done: set[int] = set()
            exhausted: BaseException | None = None
            futures: dict[Future[tuple[NDArray[Any], int]], list[int]] = {
                self._pool.submit(
                    self._run_batch, [tokens[i] for i in batch], role, unscaled
                ): batch
                for batch in batches
            }
            if queued is not None:
                queued()
                queued = None
            try:
                for future in as_completed(list(futures)):
                    batch = futures.pop(future)
                    try:
                        embeddings, padded = future.result()
                    except (RuntimeError, MemoryError) as error:
                        if (lost := device_loss_in(error)) is not None:
                            raise DeviceLost(lost) from error
                        if not is_out_of_memory(error):
                            raise
                        # Without what the batch had in memory, which the traceback holds.
                        exhausted = error.with_traceback(None)
                        continue
                    done.update(batch)
                    yield Batch(batch, embeddings, padded)
            finally:
                # An error, or a caller that wants no more: what has not begun need not.
                for one in futures:
                    one.cancel()
                for one in futures:
                    if not one.cancelled():
                        one.exception()
            waiting = [i for i in waiting if i not in done]
            if exhausted is not None:
                goes_well = False
                longest = max(tokens[i].length for i in waiting)
                if planned > longest:
                    # Another thread may have made it less in the meantime.
                    halved = max(longest, planned // 2)
                    self.batch_tokens = min(self.batch_tokens, halved)
                    self.least_tokens = min(self.least_tokens, self.batch_tokens)
                elif not self._one_by_one:
                    self._one_by_one = True
                else:
                    raise exhausted
                del future, futures
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        self._grow(goes_well=goes_well)

    def _grow(self, *, goes_well: bool) -> None:
        """Increase batches again, up to the planned size, some time after memory ran out.

        Each time that this was too early, the next attempt comes after twice as long.
        """
        if self.batch_tokens >= self.planned_tokens and not self._one_by_one:
            return
        if not goes_well:
            self._blocks_well = 0
            self._blocks_needed *= 2
            return
        self._blocks_well += 1
        if self._blocks_well >= self._blocks_needed:
            self._blocks_well = 0
            self._one_by_one = False
            self.batch_tokens = min(self.planned_tokens, 2 * self.batch_tokens)

    def stop(self) -> None:
        """Make running work end with `Stopped` after its batch."""
        self._stopped = True

    def go_on(self) -> None:
        """Allow runs again after `stop`."""
        self._stopped = False

    def close(self, *, wait: bool = True) -> None:
        """End the threads and restore the model.

        Args:
            wait: until they have ended; else they may be in the middle of a batch.
        """
        self.stop()
        self._pool.shutdown(wait=wait, cancel_futures=True)
        for replica in self._replicas:
            replica.release()
        # The threads know this object, and it them: copies of a model must not wait for that.
        self._replicas = []

    def _start_lane(self) -> None:
        with self._lock:
            self._own.replica = self._replicas[self._started % len(self._replicas)]
            self._started += 1
        device = self._own.replica.device
        self._own.stream = nullcontext()
        if device.type == "cpu":
            torch.set_num_threads(1)
        elif device.type == "cuda":
            # Of its own, so that copying for one batch need not wait for the other's computing.
            self._own.stream = torch.cuda.stream(torch.cuda.Stream(device))

    def _run_batch(
        self, batch: Sequence[Tokens], role: Role | None, unscaled: Unscaled | None
    ) -> tuple[NDArray[Any], int]:
        self._enter()
        try:
            with self._own.stream:
                result: tuple[NDArray[Any], int] = self._own.replica.run(
                    self.tokenizer_for(role, self._repair), batch, unscaled
                )
            return result
        finally:
            with self._lock:
                self._running -= 1

    def _enter(self) -> None:
        """Wait for a free core for one more batch."""
        while True:
            if self._stopped:
                raise Stopped
            free = self._lanes if self._cores_left is None else self._cores_left()
            free = 1 if self._one_by_one else free
            with self._lock:
                if self._running < max(1, free):
                    self._running += 1
                    return
            time.sleep(_POLL_SECONDS)


def _attention_of(model: SentenceTransformer) -> str:
    """Return the attention of a model at no temperature, as `engine.attention` calls it."""
    transformer = find_transformer(model)
    if runs_unpadded(transformer):
        return "varlen"
    return str(attention_implementation(transformer.config) or "eager")


def _tokenizers(
    model: SentenceTransformer, *, by_role: bool, batched: bool
) -> dict[Role | None, Tokenizer]:
    """Return the tokenizer of each role that a model has a way for, each seen to pad rightly."""
    found: dict[Role | None, Tokenizer] = {}
    roles: tuple[Role | None, ...] = ("query", "document", None)
    for role in roles if by_role else roles[-1:]:
        try:
            check_routes(model, [role], "this model")
        except RequestError:
            # An error only where there are such texts.
            continue
        tokenizer = found[role] = Tokenizer(model, role)

        def alone_or_together(
            texts: Sequence[Tokens], tokenizer: Tokenizer = tokenizer
        ) -> torch.Tensor:
            # A text that is alone has no padding at all: it shows what is right.
            return embed(model, tokenizer, texts)[0]

        with _one_thread(model.device):
            check_invariance(model, tokenizer, alone_or_together, batched=batched)
    return found


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread of a CPU, as lanes do.

    Several wait for one another at every operation: with MiniLM and two texts that is 0.1 s on one
    thread and 2 s on two, where others have the cores as well.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
