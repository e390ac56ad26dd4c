"""A process that has imported all that a command does, and forks one whenever it is asked to.

`python command_server.py SOCKET` listens there until its standard input ends. A request is a line
of JSON (`arguments`, `folder`, `environment`, `session`, `program`: a path that is run in the place
of lcbench) with the command's standard output and
error as descriptors; what answers are two lines, with the number of its process and, when it has
ended, with its exit status, as subprocess gives it. What it forks runs
`python -m lcbench` as a fresh interpreter does from there on: with the environment, the folder and
the streams of whoever asks, and a process of its own that forks those that score.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NoReturn

import lcbench
from lcbench.api.commands import COMMANDS
from lcbench.system import observer
from lcbench.system.imports import import_libraries

NEVER = 1e6
# A request is shorter: the environment is most of it.
LONGEST = 2**20
# What commands import, the pool's processes too, besides all of lcbench. Nothing here may read a
# config, a cache or a registry: a command is to find that as a fresh process does.
LIBRARIES = (
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "datasets",
    "mteb",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.cluster",
    "plotly.graph_objects",
    "pyarrow.parquet",
    "rich.console",
    "rich.table",
)
# What only these libraries read as they are imported, and nothing else of the environment: a forked
# command can be told of other values.
TOLD_AGAIN = ("HF_HOME", "HF_ENDPOINT")
# Commands that run no cells.
NEVER_SCORE = [[name] for name in COMMANDS if name not in ("run", "tune")]
OF_THE_HUB = ("huggingface_hub", "datasets", "transformers")


def main(address: str) -> None:
    """Import, listen, and fork; comes back in a command's process only."""
    # As `quiet_libraries` has it before anything is imported that reads it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import_libraries(*LIBRARIES, *modules())
    # It imports whatever is installed for it, which takes as long as composing a config.
    sys.modules["hydra.core.plugins"].Plugins.instance()
    # Whether a step is slow depends on the machine.
    observer.SLOW_SECONDS = NEVER
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        if not _Server(listener).serve():
            sys.exit()


def modules() -> list[str]:
    """Return the names of all modules of lcbench but the one that runs it."""
    found = walk_packages(lcbench.__path__, "lcbench.")
    return [one.name for one in found if one.name != "lcbench.__main__"]


class _Server:
    """Forks commands, and tells whoever asked for one how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        # By the number of a command's process: what tells of its end, and who asked for it.
        self._running: dict[int, tuple[int, socket.socket]] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> bool:
        """Take requests; return whether this is now the process of a command."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    return False
                if key.fileobj is self._listener:
                    if self._begin():
                        return True
                elif key.data in self._running:
                    self._end(key.data, key.fileobj)

    def _begin(self) -> bool:
        connection, _ = self._listener.accept()
        request, streams = _receive(connection)
        process = os.fork()
        if not process:
            self._selector.close()
            self._listener.close()
            connection.close()
            for watch, other in self._running.values():
                os.close(watch)
                other.close()
            _become(request, streams)
            return True
        for one in streams:
            os.close(one)
        connection.sendall(f"{process}\n".encode())
        watch = os.pidfd_open(process)
        self._running[process] = watch, connection
        self._selector.register(watch, selectors.EVENT_READ, process)
        self._selector.register(connection, selectors.EVENT_READ, process)
        return False

    def _end(self, process: int, ready: Any) -> None:
        watch, connection = self._running.pop(process)
        if ready is connection:
            # Nobody waits for it any longer.
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(OSError):
            connection.sendall(f"{json.dumps(status)}\n".encode())
        self._selector.unregister(watch)
        self._selector.unregister(connection)
        os.close(watch)
        connection.close()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    read, streams, _, _ = socket.recv_fds(connection, LONGEST, 2)
    while not read.endswith(b"\n"):
        read += connection.recv(LONGEST) or b"\n"
    return json.loads(read), list(streams)


def _become(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Make this process what a fresh interpreter would be."""
    if request["session"]:
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, one in enumerate((nothing, *streams)):
        os.dup2(one, number)
        os.close(one)
    for name in TOLD_AGAIN:
        if os.environ.get(name) != request["environment"].get(name):
            tell_libraries_again(os.environ[name], request["environment"][name])
    os.environ.clear()
    os.environ.update(request["environment"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if encoding:
        streams_of = ((sys.stdout, errors or "strict"), (sys.stderr, "backslashreplace"))
        for stream, handler in streams_of:
            stream.reconfigure(encoding=encoding, errors=handler)  # type: ignore[union-attr]
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv[:] = [request["program"] or "lcbench", *request["arguments"]]
    if not request["environment"].get("FIGURES"):
        _leave_figures_empty()
    do_not_wait_for_the_disk()
    if request["program"] or may_score(request["arguments"]):
        fork_those_that_score()


def may_score(arguments: Sequence[str]) -> bool:
    """Whether a command may start processes that score: a fork more costs a tenth of a second.

    One that does although it may not starts an interpreter for them, as it would outside tests.
    """
    return "engine.scoring=0" not in arguments and arguments[:1] not in NEVER_SCORE


def tell_libraries_again(was: str, now: str) -> None:
    """Give the hub's libraries another folder or address than they were imported with.

    What they make of it then are strings and paths of their modules that begin with it.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in OF_THE_HUB:
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, str | Path) and str(value).startswith(was):
                setattr(module, key, type(value)(now + str(value)[len(was) :]))


def _leave_figures_empty() -> None:
    """Make the files of figures without drawing them, which takes a third of a small run.

    Whoever looks at a command's figures asks for FIGURES=1 or an interpreter of its own.
    """
    from matplotlib.figure import Figure

    def touch(figure: Figure, where: Any, **_: Any) -> None:
        if isinstance(where, str | Path):
            Path(where).touch()

    Figure.savefig = touch  # type: ignore[assignment]


def do_not_wait_for_the_disk() -> None:
    """Let files be written to the disk when the system gets to it.

    What is killed in these tests is a process, which loses nothing that it has written; waiting for
    the disk is a tenth of a small sweep. Commands that are not forked do wait.
    """
    # As the real one has it: what is no open file is an error.
    os.fsync = lambda descriptor: os.fstat(descriptor) and None  # type: ignore[assignment]


def fork_those_that_score() -> None:
    """Let multiprocessing's server of forks be a copy of this process, as it is now.

    It is forked at once, since threads begin later, and waits until it is started.
    """
    here, there = socket.socketpair()
    waiting = os.fork()
    if not waiting:
        here.close()
        _be_forkserver(there)
    there.close()
    spawn = util.spawnv_passfds

    def start(path: Any, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1] or here.fileno() < 0:
            return spawn(path, arguments, descriptors)
        # The order of forkserver.ensure_running: where it listens, and what ends with its clients.
        with here:
            socket.send_fds(here, [b"start"], list(descriptors))
        return waiting

    util.spawnv_passfds = start


def _be_forkserver(asked: socket.socket) -> NoReturn:
    # As whoever starts it in earnest has it: what it is told by a terminal is not its business.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)
    with asked:
        word, descriptors, _, _ = socket.recv_fds(asked, 16, 2)
    with contextlib.suppress(SystemExit):
        if word:
            forkserver.main(*descriptors, [])
    os._exit(0)


def _end_as_python_does(status: object) -> NoReturn:
    """End a command's process as Python does, but for the memory that it shares with its parent.

    Freeing what all libraries have made would copy it first, which takes longer than most commands.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    main(sys.argv[1])
    # A command's process.
    try:
        if sys.argv[0] == "lcbench":
            runpy.run_module("lcbench", run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
            sys.exit()
    except SystemExit as end:
        _end_as_python_does(end.code)
