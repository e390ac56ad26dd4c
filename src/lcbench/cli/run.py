"""`python -m lcbench`: runs a model or a sweep at several temperatures against the baseline."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from lcbench.api.compose import TRUSTS, compose_settings, open_keys, thawed
from lcbench.api.evaluate import carry_out
from lcbench.cli.console import ConsoleObserver, complain, screen, warn
from lcbench.cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from lcbench.plan.manifest import Manifest
    from lcbench.settings.schema import Settings
    from lcbench.system.signals import Stop


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config.

    Returns:
        Its exit status; if a report was written, with the relative improvement on Avg in %.
    """
    from lcbench.errors import MissingError, RequestError
    from lcbench.plan import manifest
    from lcbench.settings import read
    from lcbench.settings.frozen import thaw

    asked = read.read_run(config)
    console = screen()
    observer = ConsoleObserver(console)
    if asked.manifest is None:
        if asked.launch.name == "local":
            return _run(compose_settings(config), console, track=asked.track)
        from lcbench.plan import freeze
        from lcbench.run import slurm

        frozen = freeze.freeze_sweep(compose_settings(config), asked.launch, observer)
        kept = thaw(frozen.settings, frozen.results_dir)
        trusts = any(model.trust_remote_code for model in kept.models)
        keys = [TRUSTS] if trusts else []
        keys += [] if asked.track is None else [f"track={asked.track}"]
        return slurm.launch(frozen, asked.launch.jobs, observer.say, observer.warn, keys)
    is_slurm = asked.launch.name == "slurm"
    path = manifest.find(asked.manifest, asked.results_dir, planned=is_slurm)
    frozen = manifest.read(path)
    if frozen.measures:
        raise RequestError(
            f"manifest={path} has measurements of collapse: {frozen.command_line} manifest={path}"
        )
    if is_slurm:
        from lcbench.run import slurm

        thawed(frozen, config)
        if asked.element is not None:
            raise RequestError(
                f"element={asked.element}: launch=slurm submits all missing elements; "
                "launch=local, the default, runs one here."
            )
        return slurm.launch(frozen, asked.launch.jobs, observer.say, observer.warn, open_keys())
    try:
        return _run(thawed(frozen, config), console, frozen, asked.element, asked.track)
    except MissingError as error:
        error.request = frozen.command
        raise


def _run(
    settings: Settings,
    console: Console,
    frozen: Manifest | None = None,
    element: int | None = None,
    track: str | None = None,
) -> int:
    """Run a request, a frozen sweep or one of its elements; report all but an element."""
    from lcbench.system.signals import Stop

    # Signals are handled from here on, before the slow imports.
    with Stop() as stop:
        return _run_stoppable(settings, console, frozen, element, track, stop)


def _run_stoppable(
    settings: Settings,
    console: Console,
    frozen: Manifest | None,
    element: int | None,
    track: str | None,
    stop: Stop,
) -> int:
    from lcbench.results.folder import Results
    from lcbench.run.devices import Others, end_with_parent, is_shared, keep_to, shares_of
    from lcbench.system.signals import DeviceLost, EncoderStuck, Terminated

    if is_shared():
        end_with_parent()
    first, *others = shares_of(settings.engine)
    words = _words(settings, element) if others else []
    results = Results(settings.results_dir)
    status = 0
    gain: float | None = None
    try:
        with (
            keep_to(first) if others else nullcontext(),
            Others(others, words, stop, warn) as group,
        ):
            outcome = carry_out(
                replace(settings, engine=first.engine),
                ConsoleObserver(console),
                stop=stop,
                frozen=frozen,
                element=element,
                begun=group.start,
                # The process that has started this one tracks the cells of all.
                track=None if is_shared() else track,
            )
            # What was stopped gently may finish its cells.
            if stop.is_gentle or not outcome.stopped:
                status = group.wait(have_cells=stop.is_asked or bool(outcome.elsewhere))
        if outcome.stopped:
            # Under -m no further job is started either.
            raise Terminated("stopped by a signal")
    except KeyboardInterrupt as end:
        if element is not None and not is_shared():
            requeue_element(stop, lost=isinstance(end, DeviceLost | EncoderStuck))
        raise
    elsewhere = {
        cell: where
        for cell, where in outcome.elsewhere.items()
        if not others or not results.files(cell).result.exists()
    }
    if group.lost and elsewhere:
        # An element does not wait to take them over.
        status = max(status, 1)
    if is_shared():
        # The process that has started this one reports.
        pass
    elif element is None:
        from lcbench.api.report import request_of_run
        from lcbench.cli.report import show
        from lcbench.reporting.select import Extent, report_run

        request, extent = request_of_run(settings, outcome.cells), Extent(across="auto")
        report = show(lambda step: report_run(request, results, None, warn, extent, step), console)
        gain = None if report is None else report.improvement
    else:
        done = len(outcome.cells) - len(outcome.failed) - len(elsewhere)
        console.print(f"element {element}: {done} of {len(outcome.cells)} cells done")
    for cell, where in elsewhere.items():
        warn(f"{cell} was left to another process: {where}")
    for name, reason in outcome.refused.items():
        complain(f"{name} was refused: {reason}")
    for cell, reason in outcome.failed.items():
        complain(f"{cell} failed: {reason}")
    if outcome.refused:
        return 2
    return ExitStatus(max(status, 1 if outcome.failed else 0), gain)


def _words(settings: Settings, element: int | None) -> list[str]:
    """Return the keys with which another process runs the same cells, but for the engine."""
    words = [one for one in open_keys() if not one.lstrip("+~").startswith("engine")]
    if element is not None:
        words.append(f"element={element}")
    if any(model.trust_remote_code for model in settings.models) and TRUSTS not in words:
        words.append(TRUSTS)
    return words


def requeue_element(stop: Stop, *, lost: bool = False) -> None:
    """Requeue an array element that a signal has stopped, if it should run again.

    An element that was preempted is requeued in any case; one at its time limit only if it has
    finished something, since otherwise it would be requeued for ever. One that got SIGTERM alone
    and was not preempted was cancelled. One whose GPU has failed or whose encoder hangs is requeued
    under the same condition: another process may succeed.

    Args:
        stop: the signal that it got, and whether it has finished anything.
        lost: whether its GPU has failed or its encoder hangs.
    """
    from lcbench.system import slurm

    goes_on = (stop.is_gentle or lost) and stop.progressed
    goes_back = slurm.requeue(complain, only_preempted=not goes_on)
    if not goes_back and stop.is_gentle and not stop.progressed:
        complain(
            "nothing was finished in the time that there was, so it is not sent back into the "
            "queue: give it more (launch.time=)."
        )
