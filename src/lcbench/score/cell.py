"""Scores one cell: loads the task's data, requests embeddings, and lets mteb score them."""

from __future__ import annotations

import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.encode.encoder import Encoder
from lcbench.hub.datasets import Data, point_at
from lcbench.results.cell import Cell
from lcbench.results.provenance import ModelFacts, model_meta
from lcbench.system import transient as failures
from lcbench.system.log import LOGGER
from lcbench.system.printable import without_credentials
from lcbench.system.signals import DeviceLost
from lcbench.tasks.mteb_tasks import parts_of
from lcbench.tasks.source import Part, searches
from lcbench.tasks.texts import DEPENDS_ON_WINDOW

if TYPE_CHECKING:
    import pyarrow as pa

    from lcbench.encode.encoder import Backend


@dataclass(frozen=True)
class Job:
    """A cell to be scored.

    Attributes:
        number: index in the order of the request.
        cell: the cell.
        part: scored part of the task, for the model's window.
        model: facts about the model.
        mirror: folder that is searched for datasets first.
        unverified_data: whether a plain folder there may hold another dataset than its name says.
    """

    number: int
    cell: Cell
    part: Part
    model: ModelFacts
    mirror: Path | None
    unverified_data: bool = False


@dataclass(frozen=True)
class ScoredCell:
    """A cell that was scored, in a form that travels between processes.

    Attributes:
        result: mteb's JSON, as mteb writes it.
        model_meta: mteb's description of the model.
        record: part of its provenance that scoring determines.
        items: one row per item, or None.
        without_roles: whether the task has neither queries nor documents.
    """

    result: bytes
    model_meta: dict[str, Any]
    record: dict[str, Any]
    items: pa.Table | None
    without_roles: bool


@dataclass(frozen=True)
class FailedCell:
    """A cell that could not be scored.

    Attributes:
        reason: reason in one line.
        traceback: full traceback.
        transient: whether a retry may succeed.
        is_full: whether a disk was full, so that other cells would fail too.
    """

    reason: str
    traceback: str
    transient: bool = False
    is_full: bool = False

    @classmethod
    def of(cls, error: BaseException) -> FailedCell:
        """Return the failure for an exception.

        Raises:
            DeviceLost: a GPU has failed, which is not the cell's failure.
        """
        if (lost := failures.device_loss_in(error)) is not None:
            LOGGER.error("a GPU has failed:\n%s", "".join(traceback.format_exception(error)))
            raise DeviceLost(lost) from error
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        # Both are recorded.
        return cls(
            without_credentials(reason),
            without_credentials("".join(traceback.format_exception(error))),
            transient=failures.is_transient(error),
            is_full=failures.is_full(error),
        )


class EncoderError(Exception):
    """The encoder failed; carries its failure."""

    def __init__(self, failed: FailedCell) -> None:
        super().__init__(failed)
        self.failed = failed


def score_cell(job: Job, backend: Backend) -> ScoredCell:
    """Score a cell in this process.

    Raises: any error of mteb, the data or the model.
    """
    from threadpoolctl import threadpool_limits

    from lcbench.score.evaluate import score

    task = job.part.source.make(job.part)
    data = _data(job, task)
    meta = model_meta(job.model, job.cell.repair)
    began = time.time()
    # One thread, so that scores have the same digits on any number of cores; other cores score
    # other cells.
    with threadpool_limits(1):
        scored = score(
            task,
            Encoder(backend, meta),
            unverified=job.unverified_data,
            limit=job.cell.protocol.limit,
            correction=job.cell.repair.correction,
        )
    if job.cell.protocol.limit is not None:
        data["limit"] = job.cell.protocol.limit
    if scored.differs:
        data["differs"] = list(scored.differs)
    with tempfile.TemporaryDirectory(prefix="lcbench-") as folder:
        path = Path(folder, "result.json")
        scored.result.to_disk(path)
        result = path.read_bytes()
    kind = task.metadata.type
    return ScoredCell(
        result=result,
        model_meta=meta.to_dict(),
        record={
            "task_type": kind,
            "data": data,
            DEPENDS_ON_WINDOW: job.part.source.depends_on_window(job.part.name),
            "began": began,
            **job.part.source.record(job.part.name),
            **scored.provenance(),
        },
        items=scored.items,
        without_roles=not searches(kind),
    )


def _data(job: Job, task: Any) -> dict[str, Any]:
    """Point a task at its data, and return the data's provenance."""
    if (origin := job.part.source.origin) is not None:
        return asdict(Data(origin.dataset, str(job.cell.protocol.texts), origin.place))
    if parts := parts_of(task):
        return {"parts": {one.metadata.name: asdict(point_at(one, job.mirror)) for one in parts}}
    return asdict(point_at(task, job.mirror))
