"""Runs jobs for several tasks in parallel, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from lcbench.system.hardware import cores

Result = TypeVar("Result")

# Maximum number of parallel jobs; each may use half a gigabyte.
_AT_ONCE = 4


def in_threads(
    jobs: Sequence[Callable[[], Result]],
    sizes: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return the results of jobs in their order; the largest jobs start first.

    Args:
        jobs: independent jobs.
        sizes: size of each job.
        progress: receives the number of finished jobs and of all.
    """
    workers = min(_AT_ONCE, cores())
    order = sorted(range(len(jobs)), key=lambda place: -sizes[place])
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running = {place: pool.submit(jobs[place]) for place in order}
        try:
            for done, future in enumerate(as_completed(running.values()), start=1):
                future.result()
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            # After an interrupt, jobs that have not started are dropped.
            pool.shutdown(cancel_futures=True)
            raise
    return [running[place].result() for place in range(len(jobs))]
