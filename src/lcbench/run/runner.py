"""Runs cells, model by model: claims, scores and records each, and handles failures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.encode import arithmetic
from lcbench.encode.options import EngineSettings, StoreSettings
from lcbench.encode.store.shelf import Store
from lcbench.errors import RequestError, StorageError
from lcbench.hub import cache
from lcbench.hub.models import LocatedModel, dimensions_of
from lcbench.plan import machine, recorder
from lcbench.plan import predict as cost
from lcbench.plan.layout import Grid
from lcbench.results import provenance
from lcbench.results.cell import Cell
from lcbench.results.content import DIGEST, digest_of
from lcbench.results.failure import Failure
from lcbench.results.folder import Finished, Results
from lcbench.results.rows import ASSUMED_POOLING, MODEL_PATH
from lcbench.run import checks
from lcbench.run.claims import Claim, Claims
from lcbench.run.engines import devices_of_process, engine_of, load_for, prompts_of, proofs_of
from lcbench.run.progress import AGAIN, Progress
from lcbench.run.queue import Busy, CellQueue, Done
from lcbench.score.cell import FailedCell, Job, ScoredCell
from lcbench.score.pool import Pool, processes
from lcbench.system import hardware
from lcbench.system.hardware import device_of, share_cores
from lcbench.system.imports import import_libraries
from lcbench.system.log import LOGGER, about
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.signals import Stop
from lcbench.system.transient import is_of_device
from lcbench.tasks.source import remarks, searches
from lcbench.tasks.suites import check_pins

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.encode.prompts import PromptOf
    from lcbench.repair.repair import Repair

# The delay before a retry.
_RETRY_DELAY_SECONDS = 10.0
# The time between checks of cells that other processes run: it grows while none of them ends, since
# each check reads the results folder, often over a network.
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.1, 2.0
_POLL_GROWTH = 1.5


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not affect scores.

    Attributes:
        engine: settings of the encoder.
        store: settings of the store of embeddings.
        mirror: a folder that is searched for datasets first, if any.
        unverified_data: whether a plain folder of the mirror may hold another dataset than the one
            that it is named after.
        hub: address of a site's mirror of the hub, if any.
        offline: whether the network must not be used.
        retries: number of retries of a cell after transient failures such as lack of memory.
        cell_minutes: time limit of a cell in minutes; None: no limit.
        leaves_out: whether repairs that a model cannot have are left out; else it is refused.
    """

    engine: EngineSettings
    store: StoreSettings
    mirror: Path | None
    unverified_data: bool
    hub: str | None
    offline: bool
    retries: int
    cell_minutes: float | None
    leaves_out: bool = False


class Runner:
    """Runs the cells of each model in turn.

    Attributes:
        failed: cells without a result, each with the reason in one line.
        refused: models whose attention temperature cannot be set, each with the reason.
        elsewhere: cells that were left to other processes, each with its process.
    """

    def __init__(
        self,
        grid: Grid,
        results: Results,
        options: RunOptions,
        observer: Observer,
        *,
        stop: Stop,
        waits: bool,
        done: Callable[[Cell], None] = lambda _: None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            grid: grid of the request.
            results: results folder.
            options: options of the run.
            observer: receives progress and warnings.
            stop: signals when to end.
            waits: whether to wait for cells that other processes run.
            done: called with each cell as soon as it has a result.
        """
        self.failed: dict[Cell, str] = {}
        self.refused: dict[str, str] = {}
        self.elsewhere: dict[Cell, str] = {}
        self._grid = grid
        self._results = results
        self._options = options
        # The same for all cells of a request.
        self._dtype = grid.cells[0].protocol.dtype
        self._observer = observer
        self._stop = stop
        self._waits = waits
        self._done = done
        self._pool = Pool(
            processes(options.engine.scoring),
            offline=options.offline,
            address=options.hub,
            cell_minutes=options.cell_minutes,
        )
        self._store = Store(options.store.folder, options.store.max_bytes, observer.warn)
        self._claims = Claims()
        # Cells that this process need not handle any more.
        self._over: set[Cell] = set()

    def close(self) -> None:
        """End the scoring processes, flush the store, and release all claims."""
        try:
            self._pool.close()
        finally:
            self._claims.close()
            self._store.close()

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Check that every task exists and its data is available."""
        names = list(dict.fromkeys(cell.task for cell in cells))
        mirror, offline = self._options.mirror, self._options.offline
        parts = [self._grid.parts[name] for name in names]
        checks.fetch_missing(parts, mirror, self._observer, offline=offline)
        of_hub = [part for part in parts if part.source.datasets(part)]
        with self._observer.doing("loading libraries, checking tasks and data"):
            quiet_libraries()
            device = device_of(self._options.engine.device)
            arithmetic.pin(self._dtype, device)
            if device.startswith("cuda"):
                self._pool.count = processes(self._options.engine.scoring, on_gpu=True)
                share_cores(self._pool.count)
            if registered := {one.model for one in cells if one.protocol.prompts == "registry"}:
                from lcbench.encode.registry import check_registry

                for model in self._grid.cells_of:
                    if model.name in registered:
                        check_registry(model)
            # Of the machine while nothing else runs on it.
            models = {cell.model for cell in cells}
            cost.measure(
                [dimensions_of(one) for one in self._grid.cells_of if one.name in models],
                machine.machine_of(self._options.engine, self._dtype),
            )
            # All quick checks are done. Scoring processes load their libraries meanwhile.
            self._pool.warm_up()
            import_libraries("mteb", "sentence_transformers")
            check_pins(names, self._grid.suites)
            tasks = [part.source.make(part) for part in of_hub]
            all_here, counted = checks.find_data(tasks, mirror)
            if all_here or cache.why_not_fetched(offline=offline):
                # Nothing has to be or can be fetched, so the network is not needed.
                cache.go_offline()
                self._pool.offline = True
            checks.count_texts(counted, self._observer, unverified=self._options.unverified_data)

    def predict(self, cells_of: Mapping[LocatedModel, Sequence[Cell]]) -> cost.Prediction:
        """Return the predicted time of cells, all of them in this process."""
        with self._observer.doing("estimating the time"):
            return cost.predict(
                self._grid.parts,
                [cost.ModelCells(dimensions_of(model), cells) for model, cells in cells_of.items()],
                machine=machine.machine_of(self._options.engine, self._dtype),
                processes=self._pool.count,
            )

    def run(
        self,
        cells_of: Mapping[LocatedModel, Sequence[Cell]],
        total: int,
        prediction: cost.Prediction,
    ) -> None:
        """Run the cells of each model, and report predicted, remaining and actual time.

        Args:
            cells_of: unfinished cells of each model.
            total: number of cells of the request, including finished ones.
            prediction: predicted time for the unfinished cells.

        Raises:
            StorageError: a disk is full; finished cells are kept.
        """
        started = time.monotonic()
        every = [cell for cells in cells_of.values() for cell in cells]
        self._queue = CellQueue(self._results, self._claims, every, self._options.retries)
        self._recorder = recorder.Recorder(prediction)
        for model, cells in cells_of.items():
            parts = [self._grid.parts[name] for name in dict.fromkeys(cell.task for cell in cells)]
            for line in remarks(parts, model.name, model.shape.window):
                self._observer.say(line, dim=True)
        self._observer.say(cost.prediction_line(prediction), dim=True)
        with Progress(self._observer, len(every), total, prediction) as progress:
            try:
                self._run_all(cells_of, progress)
            except BaseException:
                self._recorder.save()
                raise
        wall = time.monotonic() - started
        began = None if progress.began is None else progress.began - started
        # Cells that other processes ran do not show this machine's speed.
        if self._stop.is_asked or len(progress.ran) < len(every):
            self._recorder.save()
            return
        self._recorder.save(wall, began)
        self._observer.say(cost.outcome_line(prediction, wall), dim=True)

    def _run_all(self, cells_of: Mapping[LocatedModel, Sequence[Cell]], progress: Progress) -> None:
        waiting = False
        pause = _SHORTEST_POLL_SECONDS
        while not self._stop.is_asked:
            left = 0
            ran = False
            over = len(self._over)
            busy: dict[Cell, Busy] = {}
            for model, cells in cells_of.items():
                free = []
                for cell in cells:
                    if cell in self._over:
                        continue
                    verdict = self._queue.look(cell)
                    if isinstance(verdict, Busy):
                        busy[cell] = verdict
                    elif verdict is not None:
                        self._mark_finished(cell, verdict, progress)
                    else:
                        free.append(cell)
                if free and not self._stop.is_asked:
                    self._run_model(model, free, progress)
                    ran = True
                left += sum(cell not in self._over for cell in cells)
            if not left:
                return
            if ran or len(self._over) > over:
                pause = _SHORTEST_POLL_SECONDS
            if ran:
                waiting = False
                continue
            if not self._waits:
                self._defer(busy)
            elif not waiting:
                hosts = sorted({str(one.holder) for one in busy.values() if one.holder})
                progress.doing(
                    f"waiting for {len(busy)} cells in other processes: {'; '.join(hosts)}"
                )
                waiting = True
            # A signal ends the run meanwhile.
            time.sleep(pause)
            pause = min(_POLL_GROWTH * pause, _LONGEST_POLL_SECONDS)

    def _defer(self, busy: Mapping[Cell, Busy]) -> None:
        """Leave cells to processes that are alive, and wait to see whether others are."""
        for cell, verdict in busy.items():
            if verdict.is_fresh and verdict.holder is not None:
                self._over.add(cell)
                self.elsewhere[cell] = str(verdict.holder)

    def _mark_finished(self, cell: Cell, verdict: Done | Failure, progress: Progress) -> None:
        """Record that a cell needs no further handling."""
        self._over.add(cell)
        if isinstance(verdict, Done):
            progress.skip(cell, "done by another process")
            self._done(cell)
            return
        files = self._results.files(cell)
        self.failed[cell] = f"{verdict.reason} (traceback: {files.failure})"
        progress.skip(cell, "FAILED")

    def _run_model(self, model: LocatedModel, cells: Sequence[Cell], progress: Progress) -> None:
        """Load a model and run its cells, policy by policy; then retry transient failures."""
        from lcbench.encode.encoder import role_of
        from lcbench.encode.prompts import check_room
        from lcbench.encode.roles import check_routes, check_windows

        progress.doing(f"loading {model.name} …")
        LOGGER.info("loading %s, revision %s", model.name, model.revision)
        devices = devices_of_process(self._options.engine)
        try:
            loaded, notes = load_for(
                model,
                self._options.engine,
                dtype=self._dtype,
                device=devices[0],
                observer=self._observer,
                prompts=cells[0].protocol.prompts,
                repairs=[cell.repair for cell in cells],
            )
            texts = self._kinds_of_texts(model, cells)
            check_routes(loaded, sorted({role_of(kind) for _, kind in texts}, key=str), model.name)
            if (window := model.settings.window) is not None:
                check_windows(loaded, f"model.window={window}", model.name)
            prompt_of = prompts_of(model, loaded, cells[0].protocol.prompts, self._observer)
            check_room(model.name, loaded, prompt_of, texts)
            suits = partial(checks.check_repair, model.name, loaded, prompt_of, texts)
            cells, proofs = self._proven(loaded, cells, suits, progress)
            if not cells:
                return
            facts = provenance.model_facts(model, loaded)
            engine = self._engine(model, facts, loaded, devices, prompt_of, notes, progress)
        except RequestError as error:
            if is_of_device(error):
                # A failure of the device must not count as one of the model.
                self._postpone(cells, error, progress)
                return
            self.refused[model.name] = str(error)
            LOGGER.error("%s is refused: %s", model.name, error)
            self._fail_all(cells, FailedCell(str(error).partition("\n")[0], f"{error}\n"), progress)
            for cell in cells:
                self.failed.pop(cell, None)
            return
        # A failure of this model must not stop the next.
        except Exception as error:
            self._postpone(cells, error, progress)
            return
        again: deque[Cell] = deque()

        def jobs(queue: deque[Cell]) -> Iterator[Job]:
            number = 0
            while queue and not self._stop.is_asked:
                cell = queue.popleft()
                with self._stop.shield():
                    taken = self._queue.take(cell)
                    if isinstance(taken, Claim):
                        claims[cell] = taken
                if not isinstance(taken, Claim):
                    if not isinstance(taken, Busy):
                        self._mark_finished(cell, taken, progress)
                    continue
                yield Job(
                    number=number,
                    cell=cell,
                    part=self._grid.parts[cell.task].at(model.shape.window),
                    model=facts,
                    mirror=self._options.mirror,
                    unverified_data=self._options.unverified_data,
                )
                number += 1

        claims: dict[Cell, Claim] = {}
        queue = deque(cells)
        try:
            while queue and not self._stop.is_asked:
                with closing(
                    self._pool.run(jobs(queue), engine, lambda job: self._begin(job, progress))
                ) as ended:
                    for job, outcome in ended:
                        cell = job.cell
                        with self._stop.shield(), about(cell):
                            claim = claims.pop(cell)
                            if isinstance(outcome, FailedCell):
                                if self._fail(cell, claim, outcome, progress):
                                    again.append(cell)
                            else:
                                # Before the cell counts as done: what it had encoded is kept.
                                engine.flush()
                                self._finish(
                                    cell,
                                    claim,
                                    outcome,
                                    proofs[cell.repair.encoding],
                                    loaded,
                                    facts,
                                    engine,
                                    progress,
                                )
                queue, again = again, deque()
                if queue and not self._stop.is_asked:
                    # Another process's memory or a network may take a moment.
                    time.sleep(_RETRY_DELAY_SECONDS)
        finally:
            engine.close()

    def _proven(
        self,
        loaded: SentenceTransformer,
        cells: Sequence[Cell],
        suits: Callable[[Repair], None],
        progress: Progress,
    ) -> tuple[Sequence[Cell], dict[Repair, dict[str, Any] | None]]:
        """Prove that a model obeys its repairs, and leave out those that it does not, if asked.

        Args:
            loaded: the model.
            cells: with its repairs.
            suits: raises RequestError for a repair that the model cannot have.
            progress: is told of cells that are left out.

        Returns:
            The cells that are left, and the proofs by `Repair.encoding`.

        Raises:
            RequestError: the model cannot have one of them, or does not obey it.
        """
        proofs: dict[Repair, dict[str, Any] | None] = {}
        unsuited: set[Repair] = set()
        for repair in dict.fromkeys(cell.repair for cell in cells):
            if repair.encoding in proofs:
                continue
            try:
                suits(repair)
                proofs |= proofs_of(loaded, [repair])
            except RequestError as error:
                if not self._options.leaves_out or is_of_device(error):
                    raise
                unsuited.add(repair)
                self._observer.warn(f"{repair} is left out: {error}")
        for cell in cells:
            if cell.repair in unsuited:
                self._over.add(cell)
                progress.skip(cell, "left out")
        return [cell for cell in cells if cell.repair not in unsuited], proofs

    def _postpone(self, cells: Sequence[Cell], error: Exception, progress: Progress) -> None:
        """Record why a model's cells could not be started, and postpone those to retry.

        Raises:
            DeviceLost: a GPU has failed.
        """
        self._fail_all(cells, FailedCell.of(error), progress)
        if any(cell not in self._over for cell in cells):
            time.sleep(_RETRY_DELAY_SECONDS)

    def _fail_all(self, cells: Sequence[Cell], failed: FailedCell, progress: Progress) -> None:
        """Record the failure of cells that could not be started."""
        for cell in cells:
            claim = self._queue.take(cell)
            if isinstance(claim, Claim):
                progress.start(cell)
                self._fail(cell, claim, failed, progress)

    def _begin(self, job: Job, progress: Progress) -> None:
        progress.start(job.cell)
        with about(job.cell):
            LOGGER.info("begins")

    def _kinds_of_texts(
        self, model: LocatedModel, cells: Sequence[Cell]
    ) -> list[tuple[TaskMetadata, PromptType | None]]:
        """Return each task of some cells with the roles of its texts; None for no role."""
        from mteb.types import PromptType

        kinds: list[tuple[TaskMetadata, PromptType | None]] = []
        for name in dict.fromkeys(cell.task for cell in cells):
            part = self._grid.parts[name].at(model.shape.window)
            task = part.source.make(part).metadata
            kinds += [(task, kind) for kind in (PromptType if searches(task.type) else [None])]
        return kinds

    def _engine(
        self,
        model: LocatedModel,
        facts: provenance.ModelFacts,
        loaded: SentenceTransformer,
        devices: Sequence[str],
        prompt_of: PromptOf,
        notes: Mapping[str, str],
        progress: Progress,
    ) -> Engine:
        def encoded(texts: int, tokens: int) -> None:
            # With a store on disk the next attempt finds the embeddings there.
            self._stop.progressed = self._stop.progressed or self._options.store.folder is not None
            progress.encoded(texts, tokens)

        return engine_of(
            model,
            loaded,
            facts,
            self._options.engine,
            self._store,
            dtype=self._dtype,
            devices=devices,
            prompt_of=prompt_of,
            on_progress=encoded,
            notes=notes,
            cores_left=lambda: hardware.cores() - self._pool.working(),
        )

    def _finish(
        self,
        cell: Cell,
        claim: Claim,
        scored: ScoredCell,
        proof: dict[str, Any] | None,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        progress: Progress,
    ) -> None:
        by_role = cell.repair.depends_on_role
        if by_role and scored.without_roles:
            self._observer.say(
                f"{cell.task} has no queries: all its texts count as documents.", dim=True
            )
        record: dict[str, Any] = {
            "cell": str(cell),
            "model": cell.model,
            "revision": cell.revision,
            "policy": cell.repair.canonical,
            "protocol": cell.protocol.record,
            "window": facts.max_tokens,
            "model_digest": facts.digest,
            MODEL_PATH: facts.path,
            "pooling": facts.pooling,
            ASSUMED_POOLING: facts.assumed_pooling,
            "proof": proof,
            **scored.record,
            **provenance.environment(str(loaded.device)),
            "arithmetic": engine.arithmetic(),
            DIGEST: digest_of(scored.result),
        }
        finished = Finished(scored.result, scored.model_meta, record, scored.items)
        if not self._queue.finish(cell, claim, finished):
            LOGGER.warning("another process has taken this cell over; its result is kept")
            progress.finish(cell, "left to another process", {})
            return
        self._over.add(cell)
        self._stop.progressed = True
        self._recorder.record(cell, record)
        LOGGER.info("done in %.1f s", record["seconds"])
        progress.finish(cell, "done", record)
        self._done(cell)

    def _fail(self, cell: Cell, claim: Claim, failed: FailedCell, progress: Progress) -> bool:
        """Record a failed attempt, and return whether the cell will be tried again."""
        if failed.is_full:
            LOGGER.error("stops: no room left on a disk:\n%s", failed.traceback)
            self._queue.drop(claim)
            raise StorageError(
                f"{cell} could not be finished: {failed.reason}. Free some space, then run the "
                "same command again: finished cells are kept."
            )
        where, again = self._queue.fail(
            cell, claim, failed.reason, failed.traceback, transient=failed.transient
        )
        LOGGER.error(
            "failed (attempt %d%s):\n%s",
            claim.number,
            ", will be tried again" if again else "",
            failed.traceback,
        )
        if again:
            progress.finish(cell, AGAIN, {})
            self._observer.warn(f"{cell} will be tried again: {failed.reason}")
            return True
        self._over.add(cell)
        self.failed[cell] = f"{failed.reason} (traceback: {where})"
        progress.finish(cell, "FAILED", {})
        return False
