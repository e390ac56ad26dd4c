"""Runs a command: Hydra's grammar, lcbench's error messages and exit statuses.

Hydra 1.3 ends with status 1 on its own errors, swallows the status of all but the first job of a
`-m` sweep if a job calls `sys.exit`, keeps only the last of a list given to a config group, and
takes any key after a `+`. Here its errors end with 2, the worst status of all jobs is that of the
command, and such lists and keys are refused.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lcbench import __version__
from lcbench.api.commands import COMMANDS
from lcbench.api.explain import explain, prefetch_command, refuse_lists_of_configs
from lcbench.api.overrides import config_dirs, given_overrides, read_words
from lcbench.cli import completion
from lcbench.cli.console import (
    COMPLAINTS,
    complain,
    emit,
    forget_output,
    prepare_streams,
    say,
)
from lcbench.cli.exit_status import ExitStatus
from lcbench.cli.help import help_of
from lcbench.errors import LcbenchError, MissingError, RequestError, did_you_mean
from lcbench.hub import cache
from lcbench.settings.configs import config_folder
from lcbench.system.signals import INTERRUPTED, TERMINATED, Terminated, leave
from lcbench.system.thirdparty import mode_from_command_line

_LAUNCHER = "hydra-submitit-launcher"


def main() -> None:
    """Run the command line, and exit with its status."""
    leave(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit status; without a command it is a run.

    Args:
        words: arguments. A first one without `=` is the name of a command.
    """
    prepare_streams()
    try:
        return _run(list(words))
    finally:
        forget_output()


def _run(words: list[str]) -> int:
    if words[:1] and words[0] in completion.FLAGS:
        return completion.complete(words)
    name = "run"
    if words and re.fullmatch(r"\w[\w-]*", words[0]):
        name = words.pop(0)
    if name not in COMMANDS:
        complain(
            f"{name} is not a command.{did_you_mean(name, COMMANDS)} "
            f"There are: {', '.join(COMMANDS)}. Keys are given as key=value."
        )
        return 2
    command = COMMANDS[name]
    try:
        if "--version" in words:
            emit(f"lcbench {__version__}\n")
            return 0
        if "--help" in words or "-h" in words:
            emit(help_of(name))
            return 0
        module = import_module(f"lcbench.cli.{command.module}")
        if prepare := getattr(module, "prepare", None):
            words = prepare(words)
    except LcbenchError as error:
        complain(str(error))
        return error.exit_status
    # Hydra reads the command line by itself.
    sys.argv[1:] = words
    return run_command(command.config, module.job)


def run_command(config_name: str, job: Callable[[DictConfig], int]) -> int:
    """Compose the config that `sys.argv` asks for and run `job` on it.

    Args:
        config_name: of a file in `conf`.
        job: returns its exit status; may raise `LcbenchError`.

    Returns:
        The exit status: 0, 1 (something failed), 2 (the request was wrong), 130 (interrupted), 143
        (SIGTERM); under `-m` that of the worst job.
    """
    try:
        sys.argv[1:] = read_words(sys.argv[1:], config_name)
    except RequestError as error:
        complain(str(error))
        return 2
    statuses = _Statuses()

    def guarded(config: DictConfig) -> float | None:
        status = _run_job(job, config)
        statuses.add(status)
        # Sweepers such as Optuna's maximise it.
        return status.value if isinstance(status, ExitStatus) else None

    # Otherwise Hydra prints its own errors and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    decorate = hydra.main(
        config_path=str(config_folder()), config_name=config_name, version_base="1.3"
    )
    # A user's own folder of configs may set Hydra's mode.
    has_own_configs = any(word.startswith(("--config", "-c")) for word in sys.argv[1:])
    try:
        with nullcontext() if has_own_configs else mode_from_command_line():
            decorate(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        complain(explain(error, config_name))
        return 2
    except yaml.YAMLError as error:
        complain(f"A config cannot be read: {error}")
        return 2
    except OSError as error:
        # Under -m Hydra makes a folder below results_dir.
        complain(f"results_dir: {error.filename} cannot be written: {error.strerror}.")
        return 2
    except KeyboardInterrupt as stop:
        what = str(stop) or "interrupted"
        complain(f"{what}. Finished cells are kept; the same command resumes from there.")
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except SystemExit as stop:
        # argparse, which Hydra uses for its own flags, ends this way.
        return stop.code if isinstance(stop.code, int) else 2
    except _FailedInSubprocess as failed:
        for words in failed.complaints:
            complain(words)
        return max(failed.status, statuses.worst)
    except Exception as error:
        if not _is_from_submitit(error):
            raise
        complain(f"{_LAUNCHER} says: {error}")
        # A job that Slurm refuses at once is a wrong request; a job that died is not.
        return 2 if re.search("sbatch|srun", str(error)) else 1
    return statuses.worst


class _Statuses:
    """The exit statuses of a command's jobs.

    A copy, in a process that one of Hydra's launchers has started for a job, raises instead: Hydra
    passes exceptions of a job back.
    """

    def __init__(self, *, is_copy: bool = False) -> None:
        self.worst = 0
        self._is_copy = is_copy

    def add(self, status: int) -> None:
        self.worst = max(self.worst, status)
        if self._is_copy and status:
            raise _FailedInSubprocess(status, tuple(COMPLAINTS))

    def __reduce__(self) -> tuple[Callable[[], _Statuses], tuple[()]]:
        return _copied_statuses, ()


def _copied_statuses() -> _Statuses:
    return _Statuses(is_copy=True)


class _FailedInSubprocess(Exception):
    """A job that ran in another process ended with this status and these errors."""

    def __init__(self, status: int, complaints: tuple[str, ...]) -> None:
        super().__init__(status, complaints)
        self.status = status
        self.complaints = complaints


def _is_from_submitit(error: BaseException) -> bool:
    """Return whether an error comes from submitit, whose errors have no common class."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("submitit.") for frame in frames)


def _run_job(job: Callable[[DictConfig], int], config: DictConfig) -> int:
    cache.guard_token()
    try:
        refuse_lists_of_configs(given_overrides())
        return job(config)
    except MissingError as error:
        error.command = prefetch_command(given_overrides(), config_dirs(), error.request)
        complain(str(error))
        return error.exit_status
    except LcbenchError as error:
        complain(str(error))
        return error.exit_status
    except (HydraException, OmegaConfBaseException) as error:
        complain(explain(error))
        return 2
    except yaml.YAMLError as error:
        complain(f"A config cannot be read: {error}")
        return 2
    except Exception as error:
        if "can't start new thread" in str(error) or isinstance(error, BlockingIOError):
            complain(
                f"the system allows no further process or thread ({error}): raise the limit "
                "(ulimit -u, or that of the job or container), then run the same command again."
            )
            return 1
        # A bug in lcbench.
        say(traceback.format_exc())
        complain("internal error; please report it with the traceback above.")
        return 1
