"""CUDA graphs: forward passes that a GPU repeats without being told each kernel anew.

Launching the kernels of a forward pass takes Python about 10 ms, whatever the batch: longer than a
GPU needs for a small batch of a narrow model (results/bench/gpu.md). A CUDA graph records the
launches once, and repeats them in one call, on tensors of the same sizes at the same addresses. So
that sizes recur, a batch without padding is filled up with further texts (`embed.pack`).

A graph holds the temperature and the weights as they were when it was recorded. It is used under a
constant temperature, by layer and head too, in a model that is not changed otherwise; whatever goes
by the lengths of texts is run anew for each batch. On a CPU, which has no such graphs, a repetition
is another run on the same tensors, so that all but the recording is tested there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lcbench.encode.invariance import TOLERANCE
from lcbench.errors import RequestError
from lcbench.system.transient import is_of_device
from lcbench.tempscale.unpadded import BOUNDARIES

# Graphs of a thread: each keeps its output in the GPU's memory.
_MOST = 16
# Another thread's call may end a recording: one at a time.
_RECORDING = threading.Lock()

Key = tuple[tuple[str, Any], ...]


class Graphs:
    """Calls a transformer's forward pass, by a graph for sizes that have come before.

    Each thread has graphs of its own, since a graph has one set of tensors.
    """

    def __init__(self, forward: Callable[..., Any], repeated: Callable[[], None]) -> None:
        """Record nothing yet.

        Args:
            forward: forward pass of the model, which is not changed from here on.
            repeated: called after each repetition, in which no code of the layers runs.
        """
        self._forward = forward
        self._repeated = repeated
        self._own = _Own()

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's output for a batch; it is valid until the thread's next call.

        Padded batches are never recorded.

        Raises:
            RequestError: the model's forward pass cannot be recorded, or its repetition differs.
        """
        if BOUNDARIES[0] not in inputs:
            return self._forward(**inputs)
        own, key = self._own, _key(inputs)
        if (graph := own.graphs.get(key)) is not None:
            output = graph.repeat(inputs)
            self._repeated()
            return output
        output = self._forward(**inputs)
        # Sizes that come once are not worth it. By then the libraries have made what they need.
        if key in own.seen and len(own.graphs) < _MOST:
            graph = _Graph(self._forward, inputs, own)
            _compare(output.last_hidden_state, graph.repeat(inputs).last_hidden_state)
            own.graphs[key] = graph
        own.seen.add(key)
        return output

    @property
    def recorded(self) -> int:
        """Return the number of graphs of the calling thread."""
        return len(self._own.graphs)


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
    """Holds a recorded forward pass, its inputs and its output."""

    def __init__(self, forward: Callable[..., Any], inputs: dict[str, Any], own: _Own) -> None:
        self._inputs = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        self._forward = forward
        self._graph: Any = None
        if _is_on_gpu(inputs):
            self._record(own)

    def _record(self, own: _Own) -> None:
        if own.memory is None:
            own.memory = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.current_stream().synchronize()
        with _RECORDING:
            # Of other threads nothing is recorded, nor forbidden.
            graph.capture_begin(pool=own.memory, capture_error_mode="thread_local")
            try:
                self._output = self._forward(**self._inputs)
                graph.capture_end()
            except BaseException as error:
                # Once more does no harm; what was begun must end.
                with suppress(RuntimeError):
                    graph.capture_end()
                if not isinstance(error, Exception) or is_of_device(error):
                    raise
                raise RequestError(
                    f"engine.graphs=true: the model's forward pass cannot be recorded "
                    f"({type(error).__name__}: {error}). Omit engine.graphs."
                ) from error
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


def _is_on_gpu(inputs: dict[str, Any]) -> bool:
    return any(isinstance(one, Tensor) and one.is_cuda for one in inputs.values())


def _key(inputs: dict[str, Any]) -> Key:
    """Return what a graph depends on: the sizes of tensors, and all else by its value."""
    return tuple(
        (name, (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value)
        for name, value in sorted(inputs.items())
    )


def _compare(expected: Tensor, got: Tensor) -> None:
    """Compare the states of a batch, all tokens, with those of its repetition.

    Raises:
        RequestError: they differ by more than rounding.
    """
    difference = float((got - expected).abs().max() / expected.abs().max())
    # Written so that NaN fails as well.
    if not difference <= TOLERANCE.get(expected.dtype, 1e-5):
        raise RequestError(
            f"engine.graphs=true: the states of a repeated forward pass differ by {difference:.1e} "
            "of their largest from those of the model. Omit engine.graphs."
        )
