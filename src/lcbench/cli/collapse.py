"""`python -m lcbench collapse`: measures length collapse, and says what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.collapse import frozen_of, measure_asked, plan_asked
from lcbench.api.compose import TRUSTS, open_keys, thawed
from lcbench.cli.console import ConsoleObserver, complain, screen, warn
from lcbench.cli.run import requeue_element
from lcbench.errors import RequestError
from lcbench.settings.frozen import thaw
from lcbench.system.words import several

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.api.collapses import Collapses
    from lcbench.settings.collapse import CollapseSettings


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from rich.text import Text

    from lcbench.cli.tables import rendered
    from lcbench.settings.collapse import read_collapse
    from lcbench.system.signals import Stop

    settings, console = read_collapse(config), screen()
    observer = ConsoleObserver(console)
    if settings.plans or settings.run.launch.name == "slurm":
        return _plan(config, settings, observer)
    with Stop() as stop:
        try:
            found = measure_asked(config, settings, observer, stop)
        except KeyboardInterrupt:
            if settings.run.element is not None:
                requeue_element(stop)
            raise
    if settings.run.element is not None:
        done = several(len(found), "measurement")
        console.print(f"element {settings.run.element}: {done} done")
        return _complain(found)
    if found:
        written = found.write(settings.report_dir)
        for table in written.shown:
            console.print(rendered(table))
        console.print()
        for line in found.headlines:
            console.print(Text(line))
        if others := found.others:
            earlier = several(len(others), "earlier measurement")
            console.print(Text(f"The report also shows {earlier} of the same texts.", "dim"))
        console.print(Text(f"Written to {written.folder}: {', '.join(written.files)}", "dim"))
    for line in found.notes:
        warn(line)
    status = _complain(found)
    return status or (1 if settings.fails_on_collapse and found.collapses else 0)


def _plan(config: DictConfig, settings: CollapseSettings, observer: ConsoleObserver) -> int:
    """Plan the measurements, and submit them where the launch is Slurm."""
    from lcbench.plan.freeze import describe
    from lcbench.plan.measurements import asked_of
    from lcbench.run import slurm

    frozen = frozen_of(settings)
    if frozen is None:
        frozen = plan_asked(config, settings, observer)
    else:
        asked_of(frozen)
        thawed(frozen, config, "collapse")
    if settings.plans:
        observer.say(describe(frozen))
        return 0
    if settings.run.element is not None:
        raise RequestError(
            f"element={settings.run.element}: launch=slurm submits all missing elements; "
            "launch=local, the default, makes one here."
        )
    kept = thaw(frozen.settings, frozen.results_dir)
    keys = open_keys()
    if any(model.trust_remote_code for model in kept.models) and TRUSTS not in keys:
        keys.append(TRUSTS)
    if settings.run.manifest is None:
        # The manifest has all others.
        keys = [key for key in keys if key == TRUSTS]
    return slurm.launch(frozen, settings.run.launch.jobs, observer.say, observer.warn, keys)


def _complain(found: Collapses) -> int:
    """Say what could not be measured, and return the exit status."""
    # What a model's texts lack they lack at every temperature.
    for reason in dict.fromkeys(found.failed.values()):
        names = "; ".join(name for name, why in found.failed.items() if why == reason)
        complain(f"{names} could not be measured: {reason}")
    if not found.failed:
        return 0
    # A request that nothing could be made of was wrong.
    return 1 if found else 2
