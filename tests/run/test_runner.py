"""Runs that meet failures: what is tried again, what is recorded, what stops them."""

import errno
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import chaos_program
import engines
import pytest
from observers import Recorded, Unwarned

from lcbench.api.evaluate import carry_out
from lcbench.encode.encoder import EmbeddingError
from lcbench.errors import RequestError, StorageError
from lcbench.plan.layout import grid_of
from lcbench.plan.manifest import latest, read
from lcbench.results.failure import read_failure
from lcbench.results.folder import Results
from lcbench.run import runner
from lcbench.run.claims import Claims
from lcbench.run.sweep import Outcome
from lcbench.score import cell as score_cell
from lcbench.score import pool as workers
from lcbench.score.cell import FailedCell
from lcbench.system.signals import Stop, Terminated

# Of five tasks.
TAUS, CELLS = "[1.0,0.9,0.8,0.7]", 20


@pytest.fixture(scope="module")
def model(make_model: Callable[[str], Path]) -> Path:
    return make_model("bert")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(runner, "_RETRY_DELAY_SECONDS", 0.0)


@pytest.fixture
def eight_tasks(tmp_path: Path, model: Path) -> Any:
    chaos_program.make_data(tmp_path / "mirror")
    return chaos_program.settings_of(tmp_path, model, "runs", TAUS)


@pytest.fixture
def settings(eight_tasks: Any) -> Any:
    names = [f"STS{year}" for year in range(12, 17)]
    return replace(eight_tasks, tasks=tuple(one for one in eight_tasks.tasks if one.name in names))


def go(settings: Any, stop: Stop | None = None, **options: Any) -> tuple[Outcome, str, list[str]]:
    """Run; return how it ended, what it printed, and its warnings."""
    observer = Recorded()
    outcome = carry_out(settings, observer, stop=stop, **options)
    return outcome, observer.text, observer.warnings


def failing(
    monkeypatch: pytest.MonkeyPatch, errors: Callable[[str, int], BaseException | None]
) -> Counter[str]:
    """Let cells fail, by their name and how often they were tried; return how often that was."""
    tried, real = Counter[str](), score_cell.score_cell

    def score(job: Any, backend: Any) -> Any:
        name = f"{job.cell.task} {job.cell.repair.canonical}"
        tried[name] += 1
        if error := errors(name, tried[name]):
            raise error
        return real(job, backend)

    monkeypatch.setattr("lcbench.score.pool.score_cell", score)
    return tried


def claims_of(settings: Any) -> list[Path]:
    return [path for path in settings.results_dir.rglob(".*") if path.is_symlink()]


def test_what_may_pass_is_tried_again_and_the_rest_is_not(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors(name: str, times: int) -> BaseException | None:
        if name == "STS12 0.9" and times < 3:
            return MemoryError("no more")
        if name == "STS13 0.8":
            return ConnectionError("away")
        if name == "STS14 0.7":
            return ValueError("a bad dataset\nwith details")
        if name == "STS15 1":
            return EmbeddingError(3, 17, 24)
        return None

    tried = failing(monkeypatch, errors)
    outcome, _, warnings = go(settings)
    assert len(outcome.cells) == CELLS
    assert {f"{cell.task} {cell.repair.canonical}" for cell in outcome.failed} == {
        "STS13 0.8",
        "STS14 0.7",
        "STS15 1",
    }
    assert (tried["STS12 0.9"], tried["STS13 0.8"], tried["STS14 0.7"], tried["STS15 1"]) == (
        3,
        3,
        1,
        1,
    )
    reasons = "\n".join(outcome.failed.values())
    assert "The embedding of text 3 of 24 (17 tokens) is zero or not finite" in reasons
    results = Results(settings.results_dir)
    failures = {cell.task: results.failure(cell) for cell in outcome.failed}
    kinds = {task: (one.attempts, one.transient) for task, one in failures.items() if one}
    assert kinds == {"STS13": (3, True), "STS14": (1, False), "STS15": (1, False)}
    assert failures["STS14"] is not None
    assert failures["STS14"].reason == "ValueError: a bad dataset"
    assert "Traceback (most recent call last)" in failures["STS14"].traceback
    assert len([one for one in warnings if "will be tried again" in one]) == 4
    assert claims_of(settings) == []
    # Asked for again, each is tried again, and what is done is not.
    tried.clear()
    outcome, _, _ = go(settings)
    assert set(tried) == {"STS13 0.8", "STS14 0.7", "STS15 1"}


def test_a_cell_that_hangs_fails_at_its_time_and_the_others_are_done(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(
        settings,
        tasks=settings.tasks[:2],
        engine=replace(settings.engine, scoring=1),
        cell_minutes=10.0,
    )
    begin = runner.Runner._begin
    hung: list[Any] = []

    def stop_the_second(self: Any, job: Any, progress: Any) -> None:
        begin(self, job, progress)
        if job.number == 1 and not hung:
            (worker,) = [one for one in self._pool._workers if one.job is job]
            os.kill(worker.process.pid, signal.SIGSTOP)
            worker.seconds = 600.0
            hung.append(job.cell)

    monkeypatch.setattr(runner.Runner, "_begin", stop_the_second)
    outcome, _, _ = go(settings)
    assert list(outcome.failed) == hung
    results = Results(settings.results_dir)
    assert [cell for cell in outcome.cells if not results.files(cell).result.exists()] == hung
    failure = results.failure(hung[0])
    assert failure is not None
    assert failure.reason.startswith("it took longer than cell_minutes=10 and was ended while ")
    assert (failure.attempts, failure.transient) == (1, False)
    assert claims_of(settings) == []
    # Whoever asks again has it tried again.
    assert go(settings)[0].failed == {}


def test_the_log_has_the_cell_in_every_line(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(
        monkeypatch,
        lambda name, times: ValueError("a bad dataset") if name == "STS14 0.7" else None,
    )
    go(settings)
    folder = latest(settings.results_dir)
    assert folder is not None
    (log,) = (folder / "logs").iterdir()
    lines = log.read_text().splitlines()
    assert len([line for line in lines if line.endswith("] begins")]) == CELLS
    about = [line for line in lines if "[model, τ = 0.7, STS14]" in line]
    assert any("failed (attempt 1):" in line for line in about)
    assert about[-1].endswith("] ValueError: a bad dataset")
    assert all("Z INFO" in line or "Z ERROR" in line or "Z WARNING" in line for line in lines)


def test_a_request_is_frozen_so_that_its_state_can_be_shown(settings: Any) -> None:
    go(settings)
    folder = latest(settings.results_dir)
    assert folder is not None
    frozen = read(folder)
    assert len(frozen.lines) == CELLS
    assert {line.element for line in frozen.lines} == {0}
    assert all((line.seconds or 0) > 0 for line in frozen.lines)
    assert frozen.results_dir == settings.results_dir
    for line in frozen.lines:
        assert (settings.results_dir / line.folder / f"{line.task}.json").is_file()


def test_a_full_disk_stops_the_run_and_loses_nothing(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = failing(
        monkeypatch,
        lambda name, times: (
            OSError(errno.ENOSPC, "No space left on device")
            if name == "STS15 0.9" and times == 1
            else None
        ),
    )
    with pytest.raises(StorageError, match=r"STS15 could not be finished: .*No space left.*again"):
        go(settings)
    assert tried["STS16 0.9"] == 0
    assert not list(settings.results_dir.rglob("*.failure.txt"))
    assert claims_of(settings) == []
    done = len(chaos_program.seen_results(settings.results_dir))
    assert done == 5 + 3
    outcome, _, _ = go(settings)
    assert (outcome.found, outcome.failed) == (done, {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_finishes_nothing_half_way(
    settings: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    written = Results.write

    def slow(self: Results, cell: Any, *rest: Any) -> bool:
        if cell.task == "STS14":
            # In the middle of writing.
            os.kill(os.getpid(), number)
        return written(self, cell, *rest)

    monkeypatch.setattr(Results, "write", slow)
    with pytest.raises(KeyboardInterrupt) as raised, Stop() as stop:
        go(settings, stop)
    assert isinstance(raised.value, Terminated) == (number == signal.SIGTERM)
    assert claims_of(settings) == []
    names = {Path(path).stem for path in chaos_program.seen_results(settings.results_dir)}
    assert names == {"STS12", "STS13", "STS14"}
    assert stop.progressed


def test_a_pooling_that_no_file_names_is_reported_before_the_run(
    settings: Any, tmp_path: Path, model: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "plain"))
    (folder / "modules.json").unlink()
    settings = replace(settings, models=(engines.settings(folder),))
    observer = Unwarned()
    grid_of(settings, observer)
    assert (
        "local/plain does not specify its pooling (it has no modules.json): mean is assumed, as in "
        "sentence-transformers. Set the pooling that it was trained with: model.pooling=mean, cls, "
        "lasttoken or max."
    ) in observer.said


def test_a_run_records_the_pooling_that_was_assumed_and_the_digest(
    settings: Any, tmp_path: Path, model: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "plain"))
    (folder / "modules.json").unlink()
    few = replace(settings, models=(engines.settings(folder),), tasks=settings.tasks[:1])
    assert go(few)[0].failed == {}
    paths = list(few.results_dir.rglob("*.provenance.jsonl"))
    assert len(paths) == len(few.repairs)
    for path in paths:
        known = json.loads(path.read_text(encoding="utf-8"))
        assert (known["assumed_pooling"], known["model_digest"]) == ("mean", known["revision"])


def test_a_cell_that_has_lost_its_provenance_is_computed_again(settings: Any) -> None:
    go(settings)
    lost = next(settings.results_dir.rglob("STS12.provenance.jsonl"))
    lost.unlink()
    outcome, _, warnings = go(settings)
    assert (outcome.found, outcome.failed, lost.exists()) == (CELLS - 1, {}, True)
    assert "STS12.provenance.jsonl is missing" in warnings[0]


def test_told_to_stop_it_begins_no_other_cell(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors(name: str, times: int) -> None:
        if name == "STS14 1":
            os.kill(os.getpid(), signal.SIGUSR1)

    tried = failing(monkeypatch, errors)  # type: ignore[arg-type]
    with Stop() as stop:
        outcome, _, _ = go(settings, stop)
    assert outcome.stopped
    assert stop.is_gentle
    assert list(tried) == ["STS12 1", "STS13 1", "STS14 1"]
    assert len(chaos_program.seen_results(settings.results_dir)) == 3
    assert claims_of(settings) == []


def test_what_another_process_runs_is_waited_for_and_taken_over_when_it_dies(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(settings, Unwarned())
    cell = grid.cells[5]
    folder = Results(settings.results_dir).files(cell).folder
    others = Claims()
    claim = others.take(folder, cell.task, over=0)
    assert claim is not None
    released = []

    def wait(seconds: float) -> None:
        # Only when nothing else is left to do.
        assert len(chaos_program.seen_results(settings.results_dir)) == CELLS - 1
        released.append(seconds)
        others.close()

    monkeypatch.setattr("lcbench.run.runner.time.sleep", wait)
    outcome, printed, _ = go(settings)
    assert released
    assert "waiting for 1 cells in other processes: " in printed
    assert outcome.failed == {}
    assert len(chaos_program.seen_results(settings.results_dir)) == CELLS


def test_an_element_leaves_a_cell_to_the_live_process_that_runs_it(settings: Any) -> None:
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    frozen = freeze_sweep(settings, LaunchSettings("slurm", elements=6), Unwarned())
    assert frozen.elements == 6
    mine = [line for line in frozen.lines if line.element == 2]
    with Claims() as others:
        taken = mine[0]
        claim = others.take(settings.results_dir / taken.folder, taken.task, over=0)
        assert claim is not None
        outcome, _, _ = go(settings, frozen=frozen, element=2)
    assert len(outcome.cells) == len(mine)
    assert [str(cell) for cell in outcome.elsewhere] == [str(taken)]
    assert len(chaos_program.seen_results(settings.results_dir)) == len(mine) - 1


def test_elements_do_the_cells_of_one_process_between_them(settings: Any, tmp_path: Path) -> None:
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    frozen = freeze_sweep(settings, LaunchSettings("slurm", elements=3), Unwarned())
    assert frozen.elements == 3
    for element in range(3):
        outcome, _, _ = go(settings, frozen=frozen, element=element)
        assert outcome.failed == {}
        assert outcome.found == 0
    alone = replace(settings, results_dir=tmp_path / "alone")
    go(alone)

    def scores(folder: Path) -> dict[str, Any]:
        return {
            str(Path(path).relative_to(folder)): json.loads(Path(path).read_text())["scores"]
            for path in chaos_program.seen_results(folder)
        }

    assert scores(settings.results_dir) == scores(tmp_path / "alone")
    with pytest.raises(RequestError, match="element=3: the sweep has elements 0 to 2"):
        go(settings, frozen=frozen, element=3)


class _Prepared(Exception):
    """A run is about to start the processes that score."""


def test_a_run_on_a_gpu_leaves_cores_to_the_tokenizer_and_its_plan_knows(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6 cores 3 score, and 3 tokenise: said before anything makes the tokenizer's threads."""
    from lcbench.plan import machine as plan_machine
    from lcbench.plan import predict as cost
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings
    from lcbench.system import hardware

    settings = replace(settings, engine=replace(settings.engine, scoring=None))
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    for module in (workers, hardware):
        monkeypatch.setattr(module, "cores", lambda: 6)
    monkeypatch.setattr(workers, "memory_gib", lambda: 128.0)
    planned, real = list[int](), cost.predict

    def predict(*arguments: Any, **options: Any) -> Any:
        planned.append(options["processes"])
        return real(*arguments, **options)

    machine = plan_machine.Machine("a GPU", "cuda:0", 6, "float32")
    with monkeypatch.context() as patch:
        patch.setattr(plan_machine, "machine_of", lambda *_: machine)
        patch.setattr(cost, "matmul_rate", lambda *_: 1e12)
        patch.setattr(cost, "predict", predict)
        freeze_sweep(settings, LaunchSettings("local"), Unwarned())
    seen = []

    def warm_up(pool: workers.Pool) -> None:
        seen.append((pool.count, os.environ["RAYON_NUM_THREADS"]))
        raise _Prepared

    monkeypatch.setattr(runner, "device_of", lambda _: "cuda:0")
    monkeypatch.setattr(runner.arithmetic, "pin", lambda *_: None)
    monkeypatch.setattr(workers.Pool, "warm_up", warm_up)
    with pytest.raises(_Prepared):
        go(settings)
    assert seen == [(3, "3")]
    assert planned == [3]


def test_a_frozen_sweep_whose_model_has_changed_is_refused(
    settings: Any, model: Path, tmp_path: Path
) -> None:
    import shutil

    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    asked = replace(settings, models=(replace(settings.models[0], name=str(copy)),))
    frozen = freeze_sweep(asked, LaunchSettings("slurm", elements=2), Unwarned())
    config = copy / "sentence_bert_config.json"
    config.write_text(config.read_text().replace("}", " }"))
    with pytest.raises(RequestError, match=r"is no longer one of its cells.*Plan the sweep again"):
        go(asked, frozen=frozen, element=0)


def test_a_refused_model_is_recorded_and_not_tried_again_by_the_next_element(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    chaos_program.make_data(tmp_path / "mirror")
    settings = chaos_program.settings_of(tmp_path, make_model("canine"), "runs")
    outcome, _, _ = go(settings)
    assert list(outcome.refused) == ["local/model"]
    assert outcome.failed == {}
    for cell in outcome.cells:
        failure = Results(settings.results_dir).failure(cell)
        assert failure is not None
        assert "CanineModel neither uses the attention" in failure.reason
        assert not failure.transient
    assert claims_of(settings) == []


def test_a_model_whose_prompt_fills_its_window_is_refused_before_anything_is_encoded(
    tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "prompted"
    shutil.copytree(model, folder)
    path = folder / "config_sentence_transformers.json"
    prompted = {"prompts": {"task": "find me texts like " * 20}, "default_prompt_name": "task"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **prompted}))
    chaos_program.make_data(tmp_path / "mirror")
    settings = chaos_program.settings_of(tmp_path, folder, "runs")
    outcome, _, _ = go(settings)
    assert list(outcome.refused) == ["local/prompted"]
    (reason,) = outcome.refused.values()
    assert reason.startswith("local/prompted: the window for texts (BIOSSES) is 48 tokens, and ")
    assert "takes 82, special tokens included: all texts would get the same embedding" in reason
    assert reason.endswith("Raise model.window, or use protocol.prompts=none.")


@pytest.mark.parametrize(
    "seconds", [1.0, pytest.param(0.05, marks=[pytest.mark.alone, pytest.mark.exhaustive])]
)
def test_planning_takes_less_than_fifty_milliseconds_a_cell(
    eight_tasks: Any, seconds: float
) -> None:
    """On a machine that does nothing else; on any other there is no gross fault."""
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    observer = Unwarned()
    # The first measures the machine.
    freeze_sweep(eight_tasks, LaunchSettings("slurm", elements=5), observer)
    began = time.perf_counter()
    frozen = freeze_sweep(eight_tasks, LaunchSettings("slurm", elements=6), observer)
    assert (time.perf_counter() - began) / len(frozen.lines) < seconds


def test_by_hours_and_what_no_element_can_hold(eight_tasks: Any) -> None:
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    observer = Recorded()
    warnings = observer.warnings
    asked = LaunchSettings("slurm", elements=None, hours=28 / 3600)
    frozen = freeze_sweep(eight_tasks, asked, observer)
    assert 1 < frozen.elements <= len(frozen.lines) == 32
    assert not warnings or "a single cell takes that long" in warnings[0]
    few = replace(asked, elements=2, hours=1 / 3600)
    assert freeze_sweep(eight_tasks, few, observer).elements == 2
    assert "launch.hours=0.000277778: the longest element is estimated at" in warnings[-1]
    assert "launch.elements=2 allows no more elements" in warnings[-1]


def test_the_same_plan_asked_for_again_is_the_same_whatever_was_measured_meanwhile(
    settings: Any,
) -> None:
    from lcbench.plan.freeze import freeze_sweep
    from lcbench.settings.schema import LaunchSettings

    launch = LaunchSettings("slurm", elements=6)
    frozen = freeze_sweep(settings, launch, Unwarned())
    assert frozen.planned
    # A run that nobody has planned is another sweep, and not the one to submit.
    go(settings)
    assert freeze_sweep(settings, launch, Unwarned()) == frozen
    os.utime(frozen.folder / "manifest.jsonl", (1, 1))
    last = latest(settings.results_dir)
    assert last is not None
    assert last != frozen.folder
    assert not read(last).planned
    assert latest(settings.results_dir, planned=True) == frozen.folder


@pytest.mark.parametrize(
    ("error", "transient", "is_full"),
    [
        (MemoryError(), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("can't start new thread"), True, False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), True, False),
        (ConnectionResetError("reset"), True, False),
        (TimeoutError("slow"), True, False),
        (OSError(errno.ESTALE, "Stale file handle"), True, False),
        (OSError(errno.ENOSPC, "No space left on device"), False, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False, True),
        (StorageError("full"), False, True),
        (OSError(errno.ENOENT, "No such file"), False, False),
        (ValueError("bad"), False, False),
        (EmbeddingError(0, 1, 1), False, False),
        (RuntimeError("shape mismatch"), False, False),
    ],
)
def test_which_failures_may_pass(error: Exception, transient: bool, is_full: bool) -> None:
    failed = FailedCell.of(error)
    assert (failed.transient, failed.is_full) == (transient, is_full)


def test_what_an_error_came_of_counts() -> None:
    error = ValueError("no data")
    error.__cause__ = ConnectionError("away")
    assert FailedCell.of(error).transient
    error.__cause__ = KeyError("no such column")
    assert not FailedCell.of(error).transient


def test_torchs_own_error_of_a_gpu_may_pass() -> None:
    import torch

    assert FailedCell.of(torch.OutOfMemoryError("CUDA out of memory")).transient


def test_what_a_version_before_recorded_of_a_failure_counts_as_one_attempt(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(settings, Unwarned())
    files = Results(settings.results_dir).files(grid.cells[0])
    files.folder.mkdir(parents=True)
    files.failure.write_text("Traceback …\nValueError: 3\n")
    failing(monkeypatch, lambda name, times: ValueError("4") if name == "STS12 1" else None)
    go(settings)
    failure = read_failure(files.failure)
    assert failure is not None
    assert failure.attempts == 2
