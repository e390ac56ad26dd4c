"""`python -m lcbench`: one model or a sweep, at temperatures, over tasks, against the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lcbench.command import (
    choices,
    complain,
    model_keys,
    refuse_another_name,
    run_command,
    screen,
    warn,
)
from lcbench.stop import leave

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from lcbench.manifest import Manifest
    from lcbench.settings import Settings
    from lcbench.stop import Stop


# What the command line may say of a frozen sweep.
_OPEN = {
    "engine",
    "store",
    "mirror",
    "unverified_data",
    "offline",
    "retries",
    "cell_minutes",
}
# What it has to say again: whoever can write in a folder of results can change a manifest.
_TRUSTS = "model.trust_remote_code=true"


def main() -> None:
    """Run the command line and end the process with its exit status."""
    leave(run_command("config", _job))


def _job(config: DictConfig) -> int:
    from lcbench import manifest, settings
    from lcbench.errors import MissingError, RequestError

    asked = settings.read_run(config)
    console = screen()
    if asked.manifest is None:
        if asked.launch.name == "local":
            return _run(compose_settings(config), console)
        from lcbench import plan, slurm

        frozen = plan.freeze_sweep(compose_settings(config), asked.launch, console, warn)
        kept = settings.thaw(frozen.settings, frozen.results_dir)
        trusts = any(model.trust_remote_code for model in kept.models)
        return slurm.launch(frozen, asked.launch, console, [_TRUSTS] if trusts else [])
    is_slurm = asked.launch.name == "slurm"
    path = manifest.find(asked.manifest, asked.results_dir, planned=is_slurm)
    frozen = manifest.read(path)
    if is_slurm:
        from lcbench import slurm

        _thawed(frozen, config)
        if asked.element is not None:
            raise RequestError(
                f"element={asked.element}: launch=slurm submits all that are missing; with "
                "launch=local, the default, one of them runs here."
            )
        return slurm.launch(frozen, asked.launch, console, _open_keys())
    try:
        return _run(_thawed(frozen, config), console, frozen, asked.element)
    except MissingError as error:
        error.request = frozen.command
        raise


def _run(
    settings: Settings,
    console: Console,
    frozen: Manifest | None = None,
    element: int | None = None,
) -> int:
    """Run a request, or a frozen sweep or one of its elements, and report all but an element."""
    from lcbench.stop import Stop

    # From here on, before the imports that take their time, a signal is no longer the end.
    with Stop() as stop:
        return _run_told(settings, console, frozen, element, stop)


def _run_told(
    settings: Settings,
    console: Console,
    frozen: Manifest | None,
    element: int | None,
    stop: Stop,
) -> int:
    from lcbench.stop import DeviceLost, EncoderStuck, Terminated

    try:
        from lcbench.sweep import run

        outcome = run(settings, console, warn, stop=stop, frozen=frozen, element=element)
        if outcome.stopped:
            # Under -m no further job is begun either.
            raise Terminated("told to stop")
    except KeyboardInterrupt as end:
        if element is not None:
            _requeue(stop, lost=isinstance(end, DeviceLost | EncoderStuck))
        raise
    if element is None:
        from lcbench.report.write import AskedCell, report_run
        from lcbench.results import Results

        results = Results(settings.results_dir)
        asked = [
            AskedCell(cell.model, cell.policy.canonical, results.files(cell).result)
            for cell in outcome.cells
        ]
        report_run(settings, results, asked, None, console, warn)
    else:
        done = len(outcome.cells) - len(outcome.failed) - len(outcome.elsewhere)
        console.print(f"element {element}: {done} of {len(outcome.cells)} cells done")
    for cell, where in outcome.elsewhere.items():
        warn(f"{cell} is left to the process that runs it: {where}")
    for name, reason in outcome.refused.items():
        complain(f"{name} is refused: {reason}")
    for cell, reason in outcome.failed.items():
        complain(f"{cell} failed: {reason}")
    if outcome.refused:
        return 2
    return 1 if outcome.failed else 0


def _requeue(stop: Stop, *, lost: bool = False) -> None:
    """Send an array element that was told to stop back into Slurm's queue, if that is its place.

    One that has to make room for another job comes back whatever it has done; one whose time is
    over only if it has finished something, or it would come back for ever. One that was told by
    SIGTERM alone, and need not make room, was cancelled. One whose GPU has failed, or whose encoder
    hangs, comes back under the same condition: another process may go on.

    Args:
        stop: what it was told, and whether it has done anything.
        lost: whether its GPU has failed, or its encoder hangs.
    """
    from lcbench import slurm

    goes_on = (stop.is_gentle or lost) and stop.progressed
    if not slurm.requeue(only_preempted=not goes_on) and stop.is_gentle and not stop.progressed:
        complain(
            "nothing was finished in the time that there was, so it is not sent back into the "
            "queue: give it more (launch.time=)."
        )


def _thawed(frozen: Manifest, config: DictConfig) -> Settings:
    """Return the settings of a frozen sweep, with the runtime knobs of the command line.

    Raises:
        RequestError: the command line has a key that a frozen sweep does not leave open.
    """
    from lcbench import settings
    from lcbench.errors import RequestError

    kept = settings.thaw(frozen.settings, frozen.results_dir)
    given = settings.read_run(config).results_dir
    if choices("results_dir")[1] and given.resolve() != frozen.results_dir.resolve():
        raise RequestError(
            f"results_dir={given}: the results of manifest={frozen.folder} are those that it lies "
            "in."
        )
    overrides, _ = choices("manifest")
    check_trust(frozen, kept, overrides)
    groups = {_group(one) for one in overrides if one.lstrip("+") != _TRUSTS}
    if closed := sorted(groups - _OPEN - {"element", "launch", "results_dir", "hydra"}):
        raise RequestError(
            f"{', '.join(closed)}: manifest={frozen.folder} is frozen, and says this itself. Open "
            f"are {', '.join(sorted(_OPEN))}; for another sweep: python -m lcbench.plan"
        )
    now = compose_settings(config)
    told: dict[str, Any] = {name: getattr(now, name) for name in groups & _OPEN if name != "mirror"}
    if "mirror" in groups:
        told |= {"mirror": now.mirror, "hub": now.hub}
    return replace(kept, **told)


def _open_keys() -> list[str]:
    """Return what the command line says of a frozen sweep, as it was said."""
    overrides, _ = choices("manifest")
    return [one for one in overrides if _group(one) in _OPEN or one.lstrip("+") == _TRUSTS]


def check_trust(frozen: Manifest, kept: Settings, overrides: Sequence[str]) -> None:
    """Refuse a frozen sweep that runs code of a model's repository, unless it is asked for again.

    Args:
        frozen: the sweep.
        kept: its settings.
        overrides: of the command line.

    Raises:
        RequestError: naming the models whose code would run.
    """
    from lcbench.errors import RequestError

    trusted = [f"{one.name}@{one.revision}" for one in kept.models if one.trust_remote_code]
    if trusted and _TRUSTS not in [one.lstrip("+") for one in overrides]:
        raise RequestError(
            f"manifest={frozen.folder} runs code of the repositories of its models: "
            f"{', '.join(trusted)}. Whoever can write there can have changed that; if you trust "
            f"them, say so on this command line as well: {_TRUSTS}"
        )


def _group(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0]


def compose_settings(config: DictConfig, config_name: str = "config") -> Settings:
    """Return the settings of a composed config; each model of a sweep is composed by itself.

    Args:
        config: composed by Hydra.
        config_name: of the file in `conf` that it was composed from.
    """
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    from lcbench import settings

    overrides, chosen = choices("model")
    refuse_another_name()
    names = settings.model_names(config)
    label = str(HydraConfig.get().runtime.choices.get("sweep") or "run")
    # A model named on the command line takes the place of the sweep's.
    if names is None or chosen:
        name = chosen[-1] if chosen else _default_model()
        return settings.read({name: config}, label)
    return settings.read(
        {name: compose(config_name, overrides=[*overrides, *model_keys(name)]) for name in names},
        label,
    )


def _default_model() -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices["model"])


if __name__ == "__main__":
    main()
