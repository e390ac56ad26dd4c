"""What a GPU says when it is full, busy or broken, and what becomes of the cells.

There is none here: torch's own exceptions are raised where a GPU would raise them.
"""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chaos_program
import pytest
import torch
from observers import Recorded
from tiny_models import tiny_transformer

from lcbench.cli import app
from lcbench.cli import run as __main__
from lcbench.encode import forward, replica
from lcbench.encode.load import load
from lcbench.errors import InjectionError, RequestError
from lcbench.hub.models import locate
from lcbench.repair.repair import NO_REPAIR
from lcbench.results.folder import Results
from lcbench.run import runner
from lcbench.run.sweep import Outcome
from lcbench.score.cell import FailedCell
from lcbench.score.server import Server, Worker
from lcbench.system import transient
from lcbench.system.signals import TERMINATED, DeviceLost, Stop
from lcbench.tempscale.inject import inject
from lcbench.tempscale.prove import active_probe

# What is said of a GPU that others use: in torch's words.
SCARCE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
]
# … and of one with which this process can do nothing more.
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    # Found while a graph is recorded: what the stack says is no message of CUDA's.
    RuntimeError("CUDA error: unspecified launch failure\nat::cuda::CUDAGraph::capture_end()"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
]
# What is wrong with what was asked for.
WRONG = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    torch.AcceleratorError("CUDA error: invalid configuration argument"),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("CUDA error: operation failed due to a previous error during capture"),
    torch.AcceleratorError("CUDA error: dependency created on uncaptured work in another stream"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(…)`"),
    ValueError("CUDA error: an illegal memory access was encountered"),
]
_names = [f"{type(one).__name__}: {str(one)[:45]}" for one in [*SCARCE, *LOST, *WRONG]]


@pytest.fixture(scope="module")
def model(make_model: Callable[[str], Path]) -> Path:
    return make_model("bert")


@pytest.fixture
def settings(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A request of four cells: two tasks at two temperatures, scored in this process."""
    monkeypatch.setattr(runner, "_RETRY_DELAY_SECONDS", 0.0)
    chaos_program.make_data(tmp_path / "mirror")
    whole = chaos_program.settings_of(tmp_path, model, "runs")
    return replace(whole, tasks=whole.tasks[:2], repairs=whole.repairs[:2])


def go(settings: Any, stop: Stop | None = None) -> Outcome:
    return __main__.carry_out(settings, Recorded(), stop=stop)


@pytest.mark.parametrize(
    ("error", "scarce", "lost"),
    [
        *((one, True, False) for one in SCARCE),
        *((one, False, True) for one in LOST),
        *((one, False, False) for one in WRONG),
    ],
    ids=_names,
)
def test_what_each_error_says(error: Exception, scarce: bool, lost: bool) -> None:
    assert transient.is_out_of_memory(error) is scarce
    assert transient.is_transient(error) is scarce
    assert (transient.device_loss_in(error) is error) is lost
    assert transient.is_of_device(error) is (scarce or lost)
    # Also where another exception came of it.
    wrapped = RequestError("could not be loaded")
    wrapped.__cause__ = error
    assert transient.is_of_device(wrapped) is (scarce or lost)
    if lost:
        with pytest.raises(DeviceLost, match="the GPU has failed"):
            FailedCell.of(wrapped)
    else:
        assert FailedCell.of(error).transient is scarce


def _at_load(monkeypatch: pytest.MonkeyPatch, fails: Callable[[], None]) -> None:
    real = torch.nn.Module.to

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        fails()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", to)


def _at_proof(monkeypatch: pytest.MonkeyPatch, fails: Callable[[], None]) -> None:
    real = torch.nn.Linear.forward

    def linear(self: Any, features: Any) -> Any:
        if active_probe() is not None:
            fails()
        return real(self, features)

    monkeypatch.setattr(torch.nn.Linear, "forward", linear)


def _at_trial(monkeypatch: pytest.MonkeyPatch, fails: Callable[[], None]) -> None:
    real = forward.batch_budget

    def budget(*args: Any) -> int:
        fails()
        return real(*args)

    monkeypatch.setattr(forward, "batch_budget", budget)


def _at_forward(monkeypatch: pytest.MonkeyPatch, fails: Callable[[], None]) -> None:
    real = replica.Replica.run

    def run(*args: Any) -> Any:
        fails()
        return real(*args)

    monkeypatch.setattr(replica.Replica, "run", run)


PLACES = [_at_load, _at_proof, _at_trial, _at_forward]


@pytest.mark.parametrize(
    ("place", "error"),
    [
        *(pytest.param(place, SCARCE[0], id=f"memory-{place.__name__}") for place in PLACES),
        pytest.param(_at_forward, SCARCE[2], id="cuBLAS-_at_forward"),
        *(
            pytest.param(
                place, SCARCE[2], id=f"cuBLAS-{place.__name__}", marks=pytest.mark.exhaustive
            )
            for place in PLACES[:-1]
        ),
    ],
)
def test_a_busy_gpu_is_waited_for_wherever_it_is_met(
    place: Any, error: Exception, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: all cells are scored; for ever: they fail in a way that may pass."""
    left = [1]

    def fails() -> None:
        if left:
            left.pop()
            raise error

    with monkeypatch.context() as patch:
        place(patch, fails)
        outcome = go(settings)
    assert left == []
    assert (outcome.failed, outcome.refused) == ({}, {})
    expected = {str(cell): _score(settings, cell) for cell in outcome.cells}
    assert len(expected) == 4

    def always() -> None:
        raise error

    again = replace(settings, results_dir=settings.results_dir.parent / "others")
    with monkeypatch.context() as patch:
        place(patch, always)
        outcome = go(again)
    assert outcome.refused == {}
    assert len(outcome.failed) == 4
    results = Results(again.results_dir)
    for cell in outcome.failed:
        failure = results.failure(cell)
        assert failure is not None
        assert (failure.attempts, failure.transient) == (3, True)
        assert failure.reason.startswith(type(error).__name__)
    # The next run of the same request scores them as if nothing had been.
    outcome = go(again)
    assert (outcome.failed, outcome.refused) == ({}, {})
    assert {str(cell): _score(again, cell) for cell in outcome.cells} == expected


@pytest.mark.parametrize("place", PLACES)
def test_a_lost_gpu_ends_the_process_and_fails_no_cell(
    place: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1]

    def fails() -> None:
        if left:
            left.pop()
            raise LOST[0]

    with monkeypatch.context() as patch:
        place(patch, fails)
        with pytest.raises(DeviceLost, match="AcceleratorError: CUDA error: an illegal memory"):
            go(settings)
    written = [path.name for path in settings.results_dir.rglob("*") if path.is_file()]
    assert not [name for name in written if "failure" in name or "failed" in name]
    # No claim is left either: the same command goes on.
    assert not [path for path in settings.results_dir.rglob(".*") if path.is_symlink()]
    outcome = go(settings)
    assert (len(outcome.cells), outcome.failed, outcome.refused) == (4, {}, {})


def _score(settings: Any, cell: Any) -> bytes:
    found = Results(settings.results_dir).files(cell).result.read_bytes()
    import json

    return json.dumps(json.loads(found)["scores"]).encode()


def test_the_status_is_one_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(config: Any) -> int:
        raise DeviceLost(LOST[1])

    monkeypatch.setattr("sys.argv", ["lcbench"])
    assert app.run_command("config", lost) == TERMINATED
    said = capsys.readouterr().err
    assert "uncorrectable ECC error encountered" in said
    assert "Finished cells are kept; the same command resumes from there." in said


@pytest.mark.parametrize(("progressed", "goes"), [(True, True), (False, False)])
def test_an_element_whose_gpu_failed_comes_back_if_it_has_done_anything(
    progressed: bool, goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        "lcbench.system.slurm.requeue", lambda _, only_preempted: asked.append(not only_preempted)
    )
    stop = Stop()
    stop.progressed = progressed
    __main__.requeue_element(stop, lost=True)
    assert asked == [goes]


def test_the_server_of_the_scoring_processes_ends_as_well() -> None:
    """Where cells are scored in other processes, the one that encodes answers in a thread."""

    def embed(*_: Any, **__: Any) -> Any:
        raise LOST[0]

    engine: Any = SimpleNamespace(embed=embed)
    cell: Any = SimpleNamespace(repair=NO_REPAIR)
    job: Any = SimpleNamespace(number=0, cell=cell)
    server = Server(engine)
    here, _ = multiprocessing.Pipe()
    server.ask(Worker(None, here, here, job), job, ("embed", ["a"], None, "", False))
    with pytest.raises(DeviceLost):
        server.serve()


def test_a_proof_is_not_refused_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = tiny_transformer("bert")

    def raising(error: Exception) -> Callable[..., Any]:
        def forward(*_: Any, **__: Any) -> Any:
            raise error

        return forward

    for error in [*SCARCE, *LOST]:
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.LayerNorm, "forward", raising(error))
            with pytest.raises(RuntimeError) as found:
                inject(transformer, 0.8)
        assert found.value is error
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.LayerNorm, "forward", raising(WRONG[0]))
        with pytest.raises(InjectionError, match="does not run on a batch of token ids"):
            inject(transformer, 0.8)
    # Whatever it was, nothing of it is left.
    assert inject(transformer, 0.8).proof.tau == ((0.8,), (0.8,))


def test_a_load_is_not_refused_for_the_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines import settings as settings_of

    located = locate(settings_of(model), offline=True)
    for error in [*SCARCE, *LOST]:

        def fails(error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            _at_load(patch, fails)
            with pytest.raises(RuntimeError) as found:
                load(located, device="cpu", dtype="float32")
        assert found.value is error
