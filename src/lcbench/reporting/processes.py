"""Runs jobs in parallel in forks of this process, as threads do not speed up pure Python."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from lcbench.system.hardware import cores

# Below this many jobs a fork is not worth its memory.
_FEWEST_JOBS = 8
_AT_ONCE = 4


def in_processes(
    jobs: Sequence[Callable[[], object]], progress: Callable[[int, int], None] | None = None
) -> None:
    """Run jobs whose results are files.

    A fork inherits what jobs are made of, so that nothing is copied. Jobs of a fork that fails are
    carried out again here, where they raise their error. Without `fork` all are carried out here.

    Args:
        jobs: independent jobs; each may be carried out twice.
        progress: receives the number of finished jobs, and of all jobs.
    """
    forks = sys.platform == "linux" and len(jobs) >= _FEWEST_JOBS
    workers = min(_AT_ONCE, cores()) if forks else 1
    children = {_forked(jobs[place::workers]): place for place in range(1, workers)}
    own, done = jobs[::workers], 0

    def tell(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, len(jobs))

    try:
        while own or children:
            for job in own:
                job()
                tell(1)
            own = []
            if children:
                child, status = os.waitpid(next(iter(children)), 0)
                of_child = jobs[children.pop(child) :: workers]
                if status:
                    own = of_child
                else:
                    tell(len(of_child))
    except BaseException:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise


def _forked(jobs: Sequence[Callable[[], object]]) -> int:
    """Run jobs in a fork; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # What this process does when it is interrupted is not for the fork to do as well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for job in jobs:
            job()
        status = 0
    finally:
        # Nothing else of this process is the fork's to finish: no buffer, no thread, no file.
        os._exit(status)
