"""Work on several tasks at once, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from threadpoolctl import threadpool_limits

from lcbench.system.hardware import cores

Result = TypeVar("Result")

# Jobs at once; each may hold half a gigabyte.
_AT_ONCE = 4


def in_threads(
    jobs: Sequence[Callable[[], Result]],
    sizes: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return what jobs return, in their order; what is heaviest begins first.

    Args:
        jobs: that do not depend on one another.
        sizes: how heavy each is.
        progress: told how many are done, of how many.
    """
    workers = min(_AT_ONCE, cores())
    order = sorted(range(len(jobs)), key=lambda place: -sizes[place])
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        running = {place: pool.submit(jobs[place]) for place in order}
        try:
            for done, future in enumerate(as_completed(running.values()), start=1):
                future.result()
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            # Whoever interrupts it does not wait for jobs that have not begun.
            pool.shutdown(cancel_futures=True)
            raise
    return [running[place].result() for place in range(len(jobs))]
