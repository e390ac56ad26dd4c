"""What every command shares: Hydra's grammar on the outside, our errors and exit status.

Hydra 1.3 ends with status 1 on its own errors, swallows the status of all but the first job of a
`-m` sweep if a job calls `sys.exit`, keeps only the last of a list given to a config group, and
takes any key after a `+`. Here its errors end with 2, the worst status of all jobs is that of the
command, and such lists and keys are refused.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lcbench import __version__
from lcbench.cli.commands import COMMANDS
from lcbench.cli.console import (
    COMPLAINTS,
    complain,
    emit,
    forget_output,
    prepare_streams,
    say,
)
from lcbench.cli.help import help_of
from lcbench.cli.overrides import given_overrides, read_words
from lcbench.errors import LcbenchError, MissingError, RequestError, did_you_mean
from lcbench.hub import cache
from lcbench.settings.configs import config_folder, config_groups, keys_of, known_keys
from lcbench.system.signals import INTERRUPTED, TERMINATED, Terminated, leave

# Keys that say nothing of what is to be fetched, or that prefetch does not have.
_NOT_OF_PREFETCH = {
    "mirror",
    "offline",
    "verify",
    "out",
    "results_dir",
    "report_dir",
    "manifest",
    "element",
    "launch",
}
_LAUNCHER = "hydra-submitit-launcher"
# Choices that differed from a config in one key.
_NOW_KEYS = {
    "engine=cpu": "engine.device=cpu",
    "engine=gpu": "engine.device=cuda",
    "protocol=fp16": "protocol=paper protocol.dtype=float16",
    "protocol=bf16": "protocol=paper protocol.dtype=bfloat16",
    "protocol=tf32": "protocol=paper protocol.dtype=tf32",
}
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")


def main() -> None:
    """Run the command line and end the process with its exit status."""
    leave(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run a command line: a command, or else a run; return its exit status.

    Args:
        words: after the program's name. A first word without `=` is the name of a command.
    """
    prepare_streams()
    try:
        return _run(list(words))
    finally:
        forget_output()


def _run(words: list[str]) -> int:
    name = "run"
    if words and re.fullmatch(r"\w[\w-]*", words[0]):
        name = words.pop(0)
    if name not in COMMANDS:
        complain(
            f"{name} is no command.{did_you_mean(name, COMMANDS)} "
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
        (told to end); under `-m` that of the worst job.
    """
    try:
        sys.argv[1:] = read_words(sys.argv[1:], config_name)
    except RequestError as error:
        complain(str(error))
        return 2
    statuses = _Statuses()

    def guarded(config: DictConfig) -> None:
        statuses.add(_run_job(job, config))

    # Hydra prints its own errors and ends the process unless it is told to raise them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    decorate = hydra.main(
        config_path=str(config_folder()), config_name=config_name, version_base="1.3"
    )
    try:
        decorate(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        complain(_explain(error, config_name))
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
        complain(f"{what}. What is finished is kept; the same command goes on from there.")
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except SystemExit as stop:
        # argparse, which Hydra uses for its own flags, ends this way.
        return stop.code if isinstance(stop.code, int) else 2
    except _FailedElsewhere as failed:
        for words in failed.complaints:
            complain(words)
        return max(failed.status, statuses.worst)
    except Exception as error:
        if not _is_of_submitit(error):
            raise
        complain(f"{_LAUNCHER} says: {error}")
        # What Slurm refuses at once is the request's fault; a job that died is not.
        return 2 if re.search("sbatch|srun", str(error)) else 1
    return statuses.worst


class _Statuses:
    """The exit statuses of a command's jobs.

    A copy, in a process that one of Hydra's launchers has started for a job, raises instead: what a
    job raises is brought back by Hydra.
    """

    def __init__(self, *, is_copy: bool = False) -> None:
        self.worst = 0
        self._is_copy = is_copy

    def add(self, status: int) -> None:
        self.worst = max(self.worst, status)
        if self._is_copy and status:
            raise _FailedElsewhere(status, tuple(COMPLAINTS))

    def __reduce__(self) -> tuple[Callable[[], _Statuses], tuple[()]]:
        return _copied_statuses, ()


def _copied_statuses() -> _Statuses:
    return _Statuses(is_copy=True)


class _FailedElsewhere(Exception):
    """A job that ran in another process ended with this status, and complained of these."""

    def __init__(self, status: int, complaints: tuple[str, ...]) -> None:
        super().__init__(status, complaints)
        self.status = status
        self.complaints = complaints


def _is_of_submitit(error: BaseException) -> bool:
    """Whether an error comes from the launcher submitit, which has no common class for its own."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("submitit.") for frame in frames)


def _run_job(job: Callable[[DictConfig], int], config: DictConfig) -> int:
    cache.guard_token()
    try:
        _refuse_lists_of_configs()
        return job(config)
    except MissingError as error:
        error.command = _prefetch_command(error.request)
        complain(str(error))
        return error.exit_status
    except LcbenchError as error:
        complain(str(error))
        return error.exit_status
    except (HydraException, OmegaConfBaseException) as error:
        complain(_explain(error))
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
        # A fault of ours: the traceback is what mends it.
        say(traceback.format_exc())
        complain("this should not have happened; the traceback above says where.")
        return 1


def _prefetch_command(request: Sequence[str] | None) -> str:
    """Return the command that fetches what a request needs, as it is typed into a shell.

    Args:
        request: the words of the command that asked for it; None: the present one.
    """
    config = HydraConfig.get()
    words = ["python", "-m", "lcbench", "prefetch"]
    for source in config.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", str(source.path)]
    mirror = "mirror"
    overrides = given_overrides()
    if request is not None:
        overrides = [one for one in request if "=" in one and not one.startswith("-")] + overrides
    for one in OverridesParser.create().parse_overrides(overrides):
        if one.key_or_group == "mirror" and not str(one.value()).startswith(
            ("http://", "https://")
        ):
            mirror = str(one.value())
        elif str(one.key_or_group).partition(".")[0] not in _NOT_OF_PREFETCH:
            words.append(str(one.input_line))
    return shlex.join([*words, f"mirror={mirror}"])


def _refuse_lists_of_configs() -> None:
    groups = config_groups()
    for one in OverridesParser.create().parse_overrides(given_overrides()):
        if one.key_or_group in groups and isinstance(one.value(), list | dict):
            key, given = one.key_or_group, one.input_line
            value = one.value()
            several = ",".join(map(str, value)) if isinstance(value, list) else "a,b"
            raise RequestError(f"{given}: {key}= takes one config. For several: -m {key}={several}")


def _explain(error: Exception, config_name: str = "config") -> str:
    """Return one of Hydra's errors in our words: the key, what is wrong, what would be right."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if not group:
            return f"--config-name {name}: there is no such config."
        if name in ("submitit_slurm", "submitit_local"):
            return f"{group}={name} needs a package: pip install 'lcbench[slurm]'"
        if instead := _NOW_KEYS.get(f"{group}={name}"):
            return f"{group}={name}: there is no such config; the same is: {instead}"
        options = [option for option in error.options or [] if option != "custom"]
        custom = " (or custom, with model.name=…)" if group == "model" else ""
        return (
            f"{group}={name}: there is no such config.{did_you_mean(name, options)} "
            f"There are: {', '.join(options)}{custom}."
        )
    if unknown := _UNKNOWN_KEY.search(text):
        key = unknown.group(1)
        if key.startswith("launch.") and key in known_keys():
            return f"{key} is a key of launch=slurm; this is launch=local, the default."
        return (
            f"{key} is not a key.{did_you_mean(key, keys_of(config_name))} "
            "`python -m lcbench --help` lists them."
        )
    if isinstance(error, OverrideParseException):
        problem = error.message.partition("\n")[0]
        return (
            f"{error.override} cannot be read: {problem}. In a shell, quote what has braces, "
            "brackets or spaces: 'tau=[0.9,0.8]'."
        )
    if text.startswith("Ambiguous value"):
        return (
            f"{text.partition(chr(10))[0]}: it has several values. As one list: 'key=[a,b]'; "
            "as several runs, one after the other: -m key=a,b"
        )
    return text.partition("\n")[0]
