"""CUDA graphs: forward passes that are repeated without launching each kernel from Python.

On an H100 a batch of 16,384 tokens takes bge-small, of 12 layers, 12 ms, and one of 65,536 tokens
17 ms (results/bench/gpu.md): a GPU waits for Python in small batches of narrow models. A CUDA graph
records the launches once (capture), and repeats them in one call (replay), on tensors of the same
sizes at the same addresses. So that sizes recur, a batch without padding is filled up with filler
texts (`embed.pack`).

A graph holds the temperature and the weights as they were when it was recorded. It is used under a
constant temperature, by layer and head too, in a model that is not changed otherwise; whatever goes
by the lengths of texts is run anew for each batch. On a CPU, which has no such graphs, a repetition
is another run on the same tensors, so that all but capture and replay is tested there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lcbench.system.thirdparty import end_recording
from lcbench.system.transient import device_loss_in, is_of_device
from lcbench.tempscale.transformer import find_transformer
from lcbench.tempscale.unpadded import BOUNDARIES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Graphs of a thread: each keeps its output in the GPU's memory.
_MOST = 16
# Largest difference of a token's state in a repetition, relative to its largest component, in units
# of the dtype's last place. Kernels and inputs are those of the model's own forward pass: equality
# is expected.
_UNITS = 1
# One recording at a time in the process, and none after one has failed.
_RECORDING = threading.Lock()

Key = tuple[tuple[str, Any], ...]


class Graphs:
    """Calls a transformer's forward pass, through a CUDA graph for input sizes seen before.

    Each thread has graphs of its own, since a graph has one set of tensors. The first repetition of
    a graph, in general of other texts than those it was recorded with, is compared with the forward
    pass. If it differs, or a pass cannot be recorded, there are no graphs from then on.

    Attributes:
        repetitions: how many forward passes were repeated, by all threads.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        repeated: Callable[[], None],
        uncounted: Callable[[], AbstractContextManager[None]],
        refused: Callable[[str], None],
    ) -> None:
        """Record nothing yet.

        Args:
            forward: forward pass of the model, which is not changed from here on.
            repeated: called after each repetition, in which no code of the layers runs.
            uncounted: returns a context in which runs of layers are not counted.
            refused: called with the reason once there are no graphs any more.
        """
        self._forward = forward
        self._repeated, self._uncounted, self._refused = repeated, uncounted, refused
        self._own = _Own()
        self._is_off = False
        self.repetitions = 0

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Return the model's output for a batch; it is valid until the thread's next call.

        Padded batches are never recorded.
        """
        if args or self._is_off or BOUNDARIES[0] not in inputs:
            return self._forward(*args, **inputs)
        own, key = self._own, _key(inputs)
        graph = own.graphs.get(key)
        if graph is not None and graph.is_proven:
            self.repetitions += 1
            output = graph.repeat(inputs)
            self._repeated()
            return output
        output = self._forward(**inputs)
        if key in own.seen:
            # By now cuBLAS has the workspace of this thread's stream.
            with _RECORDING:
                if graph is not None:
                    self._prove(graph, inputs, output)
                else:
                    self._record(key, inputs)
        elif len(own.graphs) < _MOST:
            # A size that comes once is not worth a graph.
            own.seen.add(key)
        return output

    def _record(self, key: Key, inputs: dict[str, Any]) -> None:
        own = self._own
        if self._is_off or len(own.graphs) >= _MOST:
            return
        try:
            with self._uncounted():
                own.graphs[key] = _Graph(self._forward, inputs, own)
        except Exception as error:
            if device_loss_in(error) is not None:
                raise
            self._end(f"a forward pass could not be recorded ({type(error).__name__}: {error})")

    def _prove(self, graph: _Graph, inputs: dict[str, Any], output: Any) -> None:
        """Compare a repetition with the forward pass, all tokens of a batch."""
        with self._uncounted():
            repeated = graph.repeat(inputs)
        expected, got = output.last_hidden_state, repeated.last_hidden_state
        difference = float(((got - expected).abs().amax(-1) / expected.abs().amax(-1)).max())
        # Written so that NaN fails as well.
        graph.is_proven = difference <= _UNITS * torch.finfo(expected.dtype).eps
        if not graph.is_proven:
            self._end(f"a repeated forward pass differed by {difference:.1e} of a token's state")

    def forget(self) -> None:
        """Give back the memory of the calling thread's graphs, which are recorded anew."""
        self._own.graphs.clear()
        self._own.seen.clear()

    def _end(self, reason: str) -> None:
        self.forget()
        if not self._is_off:
            self._is_off = True
            self._refused(reason)


class _Own(threading.local):
    """What a thread has.

    Attributes:
        graphs: its graphs by the sizes of their inputs.
        seen: sizes that have come before.
        memory: identifies the memory that its graphs share, as one is repeated at a time.
    """

    def __init__(self) -> None:
        self.graphs: dict[Key, _Graph] = {}
        self.seen: set[Key] = set()
        self.memory: Any = None


class _Graph:
    """Holds a recorded forward pass, its inputs and its output.

    Attributes:
        is_proven: whether a repetition has been compared with the forward pass.
    """

    def __init__(self, forward: Callable[..., Any], inputs: dict[str, Any], own: _Own) -> None:
        self.is_proven = False
        self._inputs = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        self._forward = forward
        self._graph: Any = None
        if _is_on_gpu(inputs):
            self._record(own)

    def _record(self, own: _Own) -> None:
        if not own.graphs:
            # torch drops what no graph uses any more.
            own.memory = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.current_stream().synchronize()
        # While it is recorded, torch gives nothing back.
        torch.cuda.empty_cache()
        # Other threads' work is neither recorded nor restricted.
        graph.capture_begin(pool=own.memory, capture_error_mode="thread_local")
        try:
            self._output = self._forward(**self._inputs)
            graph.capture_end()
        except BaseException:
            end_recording(graph, own.memory)
            raise
        self._graph = graph

    def repeat(self, inputs: dict[str, Any]) -> Any:
        """Run the recorded forward pass with other inputs of the same sizes."""
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                self._inputs[name].copy_(value)
        if self._graph is None:
            return self._forward(**self._inputs)
        self._graph.replay()
        return self._output


def capture_refusal(model: SentenceTransformer, run: Callable[[], object]) -> str | None:
    """Return why a model's forward passes cannot be recorded, or None.

    Nothing that waits for the GPU can. A recording that fails may cost the process memory, so this
    is found out before, by torch's debug mode for synchronisation, which is one for the process.

    Args:
        model: on a GPU, on which nothing else runs in this process.
        run: runs batches without padding through it.

    Raises:
        RuntimeError: torch reports a problem of the device or its memory, not of the model.
    """
    run()
    transformer: Any = find_transformer(model)
    before, forward = transformer.__dict__.get("forward"), transformer.forward
    mode = torch.cuda.get_sync_debug_mode()

    def strictly(*args: Any, **inputs: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return forward(*args, **inputs)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    transformer.forward = strictly
    try:
        run()
    except RuntimeError as error:
        if is_of_device(error):
            raise
        return f"its forward pass waits for the GPU ({error})."
    finally:
        transformer.__dict__.pop("forward")
        if before is not None:
            transformer.forward = before
    return None


def _is_on_gpu(inputs: Mapping[str, Any]) -> bool:
    return any(isinstance(one, Tensor) and one.is_cuda for one in inputs.values())


def _key(inputs: Mapping[str, Any]) -> Key:
    """Return what a graph depends on: the sizes of tensors, and all else by its value."""
    return tuple(
        (name, (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value)
        for name, value in sorted(inputs.items())
    )
