"""How busy a GPU is while something runs on it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 0.1


@dataclass(frozen=True)
class Sample:
    """What the driver says at one moment.

    Attributes:
        busy: the part of the last moments in which a kernel ran, in per cent.
        memory: that is in use on the device, in GiB.
        power: in watts.
    """

    busy: float
    memory: float
    power: float


class Sampler:
    """Reads samples ten times a second in a thread of its own, as a context manager."""

    def __init__(self, read: Callable[[], Sample]) -> None:
        """Prepare to read samples with a function."""
        self.samples: list[Sample] = []
        self.error: Exception | None = None
        self._read = read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A driver that hangs must not hold the section.
        self._thread.join(2.0)

    def _sample(self) -> None:
        next_time = time.monotonic()
        while not self._ended.is_set():
            try:
                self.samples.append(self._read())
            # Whatever the driver says; the run that is watched goes on.
            except Exception as error:
                self.error = error
                return
            next_time += _SECONDS
            self._ended.wait(max(0.0, next_time - time.monotonic()))

    @property
    def busy_while_used(self) -> float | None:
        """Mean of `busy` from the first to the last sample in which the device was busy."""
        used = [number for number, one in enumerate(self.samples) if one.busy > 0]
        if not used:
            return None
        return statistics.fmean(one.busy for one in self.samples[used[0] : used[-1] + 1])


def read_gpu(device: str) -> Sample:
    """Return what the driver says of a GPU; this process needs no context on it."""
    import torch

    return Sample(
        busy=float(torch.cuda.utilization(device)),
        memory=torch.cuda.device_memory_used(device) / 2**30,
        power=torch.cuda.power_draw(device) / 1000,
    )
