"""Measures length collapse of models under repairs: a measurement for each cell of a grid.

A cell is a model × repair × task, of which the texts are measured and nothing is scored. A
measurement is claimed and kept like a cell: one that is there is not made again, several processes
share the work, and a text that the store has is not encoded again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.encode import arithmetic
from lcbench.encode.store.shelf import Store
from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.hub.datasets import digest_of, plain_folder
from lcbench.hub.models import LocatedModel
from lcbench.hub.windows import window_of
from lcbench.measures import files
from lcbench.measures.collapse import CountTokens, Embeddings, Options, measure, prepare
from lcbench.measures.figures import (
    TEXTS,
    FigureOptions,
    Material,
    Number,
    PaperFigure,
    Subject,
    make,
)
from lcbench.plan.layout import Grid
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results import provenance
from lcbench.results.cell import Cell
from lcbench.run import checks
from lcbench.run.claims import Claims
from lcbench.run.engines import engine_of, load_for, prompts_of, proofs_of
from lcbench.run.figures import check_figures, fits, material_of, word_vectors
from lcbench.run.runner import RunOptions
from lcbench.score.cell import FailedCell, has_queries
from lcbench.system import hardware
from lcbench.system.files import check_writable
from lcbench.system.hardware import device_of, devices_of
from lcbench.system.imports import import_libraries
from lcbench.system.log import LOGGER
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.words import clock
from lcbench.tasks.registry import registry

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.hub.judgments import Judgments
    from lcbench.tempscale.policy import Policy, Role
    from lcbench.tempscale.prove import Proof

WINDOW_WITHOUT_LIMIT = 512
"""The window assumed for a model without a limit (T5), as in the synthetic tasks."""
# Between looks at measurements that other processes make.
_POLL_SECONDS = 1.0


@dataclass
class Measured:
    """What came of a request.

    Attributes:
        paths: files of all measurements that are there now, in the order of the grid.
        failed: cells that could not be measured, each with the reason.
        figures: of the paper, by model and task.
        unmade: figures that could not be made, each with the reason.
    """

    paths: list[Path] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)
    figures: list[PaperFigure] = field(default_factory=list)
    unmade: dict[str, str] = field(default_factory=dict)


def measure_all(
    grid: Grid,
    results_dir: Path,
    asked: Options,
    options: RunOptions,
    observer: Observer,
    figures: Sequence[Number] = (),
    figure_texts: int | None = None,
) -> Measured:
    """Make the measurements of a grid that are not there yet, and figures of the paper.

    Args:
        grid: models, repairs and tasks.
        results_dir: results folder.
        asked: what is measured.
        options: how, as for a run.
        observer: receives progress.
        figures: numbers of the paper's figures, of each model and task that they can be made of.
        figure_texts: most documents of a figure; None: as many as the paper's.

    Raises:
        RequestError: a dataset is missing or unsuitable, a figure can be made of none of the tasks,
            or the folder cannot be written.
        StorageError: a disk is full; finished measurements are kept.
    """
    check_figures(grid, figures)
    paths = {
        cell: files.path_of(results_dir, cell, _data_of(cell, options.mirror), asked)
        for cell in grid.cells
    }
    left = [cell for cell, path in paths.items() if files.read(path) is None]
    done = Measured()
    # A figure is of all temperatures, and its embeddings are kept in the store alone.
    todo = list(grid.cells) if figures else left
    if todo:
        results_dir.mkdir(parents=True, exist_ok=True)
        check_writable(results_dir)
        how = FigureOptions(figure_texts or TEXTS, asked.resamples, asked.seed)
        with closing(_Measurer(grid, paths, asked, options, observer, figures, how)) as measurer:
            done = measurer.run(todo)
    done.paths = [path for cell, path in paths.items() if cell not in done.failed]
    return done


def _data_of(cell: Cell, mirror: Path | None) -> str:
    """Return what identifies a task's texts: a digest, or the commit of its dataset."""
    if cell.protocol.texts is not None:
        return cell.protocol.texts
    entry = registry().tasks[cell.task]
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    return entry.revision if folder is None else digest_of(folder)


class _Measurer:
    """Makes measurements, model by model and task by task."""

    def __init__(
        self,
        grid: Grid,
        paths: Mapping[Cell, Path],
        asked: Options,
        options: RunOptions,
        observer: Observer,
        figures: Sequence[Number],
        figure_options: FigureOptions,
    ) -> None:
        self._grid = grid
        self._figures = figures
        self._figure_options = figure_options
        self._material: dict[str, Material] = {}
        self._paths = paths
        self._asked = asked
        self._options = options
        self._observer = observer
        self._dtype = grid.cells[0].protocol.dtype
        self._store = Store(options.store.folder, options.store.max_bytes, observer.warn)
        self._claims = Claims()
        # Of each task, read once.
        self._texts: dict[str, tuple[AbsTask, list[str], Judgments | None]] = {}
        self._encoded = 0
        self._done = Measured()

    def close(self) -> None:
        try:
            self._claims.close()
        finally:
            self._store.close()

    def run(self, left: Sequence[Cell]) -> Measured:
        self._prepare(left)
        for model, cells in self._grid.cells_of.items():
            mine = [cell for cell in cells if cell in left]
            if mine:
                self._measure_model(model, mine)
        return self._done

    def _prepare(self, left: Sequence[Cell]) -> None:
        """Find the texts of all tasks, and fetch what is missing."""
        options, observer = self._options, self._observer
        names = list(dict.fromkeys(cell.task for cell in left))
        parts = [self._grid.parts[name] for name in names]
        checks.fetch_missing(parts, options.mirror, observer, offline=options.offline)
        with observer.doing("loading libraries and texts"):
            quiet_libraries()
            arithmetic.pin(self._dtype, device_of(options.engine.device))
            import_libraries("mteb", "sentence_transformers")

    def _measure_model(self, model: LocatedModel, cells: Sequence[Cell]) -> None:
        """Measure a model's cells, those of one task after another."""
        try:
            with self._observer.doing(f"loading {model.name}"):
                devices = devices_of(self._options.engine.device)
                loaded, notes = load_for(
                    model,
                    self._options.engine,
                    dtype=self._dtype,
                    device=devices[0],
                    observer=self._observer,
                )
                proofs = proofs_of(loaded, [cell.repair.policy for cell in cells])
                facts = provenance.model_facts(model, loaded)
            prompt_of = prompts_of(model, loaded, cells[0].protocol.prompts, self._observer)
            engine = engine_of(
                model,
                loaded,
                facts,
                self._options.engine,
                self._store,
                dtype=self._dtype,
                devices=devices,
                prompt_of=prompt_of,
                on_progress=self._on_progress,
                cores_left=hardware.cores,
                notes=notes,
            )
        # Another model may be measured all the same.
        except Exception as error:
            self._done.failed |= dict.fromkeys(cells, _reason(error))
            return
        with closing(engine):
            for task in dict.fromkeys(cell.task for cell in cells):
                mine = [cell for cell in cells if cell.task == task]
                try:
                    self._measure_task(model, loaded, facts, engine, proofs, mine)
                except Exception as error:
                    reason = _reason(error)
                    self._done.failed |= {
                        cell: reason for cell in mine if files.read(self._paths[cell]) is None
                    }
                for number in self._figures:
                    if fits(number, self._grid.parts[task].source.kind(task)):
                        self._make_figure(number, model, loaded, facts, engine, mine)

    def _measure_task(
        self,
        model: LocatedModel,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        proofs: Mapping[Policy, Proof | None],
        cells: Sequence[Cell],
    ) -> None:
        from mteb.types import PromptType

        if all(files.read(self._paths[cell]) is not None for cell in cells):
            return
        task, texts, judgments = self._texts_of(model, cells[0].task)
        role: Role | None = "document" if has_queries(task.metadata.type) else None
        prompt = _prompt(engine, task)
        query_prompt = engine.prompt_of(task.metadata, PromptType.query) if judgments else ""
        with self._observer.doing(f"choosing texts of {cells[0].task}"):
            prepared = prepare(
                texts,
                counter_of(loaded),
                _room(engine, loaded, prompt, role),
                self._asked,
                judgments,
                "" if judgments else "it has no queries with relevant documents",
            )
        baseline: Embeddings | None = None

        def embed(repair: Repair) -> Embeddings:
            from lcbench.encode.encoder import Encoder

            encoder = Encoder(engine.at(repair.policy), provenance.model_meta(facts, repair))
            what = f"{model.name.rpartition('/')[2]}, {repair}"
            queries = 0 if prepared.search is None else len(prepared.search.queries)
            with self._encoding(what, len(prepared.texts) + queries):
                return Embeddings(
                    prepared,
                    lambda texts: encoder.embed(list(texts), role, prompt),
                    lambda texts: encoder.embed(list(texts), "query", query_prompt),
                )

        waiting = list(cells)
        while waiting:
            later = []
            for cell in waiting:
                path = self._paths[cell]
                if files.read(path) is not None:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                claim = self._claims.take(path.parent, path.stem, 0)
                if claim is None:
                    later.append(cell)
                    continue
                began = time.monotonic()
                if baseline is None:
                    baseline = embed(NO_REPAIR)
                is_baseline = cell.repair.is_baseline
                embeddings = baseline if is_baseline else embed(cell.repair)
                with self._observer.doing("comparing"):
                    found = measure(prepared, embeddings, None if is_baseline else baseline)
                proof = proofs[cell.repair.policy]
                if self._claims.holds(claim):
                    files.write(
                        path,
                        files.Measurement(
                            model=cell.model,
                            revision=cell.revision,
                            policy=cell.repair.canonical,
                            task=cell.task,
                            protocol=cell.protocol.key,
                            data=_data_of(cell, self._options.mirror),
                            window=window_of(loaded),
                            options=self._asked,
                            texts=prepared.digest,
                            collapse=found,
                            record={
                                "protocol": cell.protocol.record,
                                "prompt": prompt,
                                "query_prompt": query_prompt,
                                "model_digest": facts.digest,
                                "pooling": facts.pooling,
                                "proof": None if proof is None else asdict(proof),
                                "texts": len(prepared.texts),
                                "seconds": time.monotonic() - began,
                                **provenance.environment(str(loaded.device)),
                                "arithmetic": engine.arithmetic(),
                            },
                        ),
                    )
                self._claims.release(claim)
                self._observer.say(
                    f"{model.name.rpartition('/')[2]}, {cell.repair}, {cell.task}: measured in "
                    f"{clock(time.monotonic() - began)}",
                    dim=True,
                )
            if len(later) == len(waiting):
                time.sleep(_POLL_SECONDS)
            waiting = later

    def _make_figure(
        self,
        number: Number,
        model: LocatedModel,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        cells: Sequence[Cell],
    ) -> None:
        """Make a figure of the paper of a model and a task, at all temperatures."""
        from lcbench.encode.encoder import Encoder

        name, short = cells[0].task, model.name.rpartition("/")[2]
        repairs = {f"τ = {NO_REPAIR.canonical}": NO_REPAIR}
        repairs |= {f"τ = {cell.repair.canonical}": cell.repair for cell in cells}
        try:
            task, *_ = self._texts_of(model, name)
            role: Role | None = "document" if has_queries(task.metadata.type) else None
            prompt = _prompt(engine, task)

            def embed(repair: str, texts: Sequence[str]) -> Any:
                meta = provenance.model_meta(facts, repairs[repair])
                encoder = Encoder(engine.at(repairs[repair].policy), meta)
                with self._encoding(f"Figure {number}, {short}, {repair}", len(texts)):
                    return encoder.embed(list(texts), role, prompt)

            subject = Subject(
                repairs=tuple(repairs),
                embed=embed,
                word_vectors=lambda texts: word_vectors(loaded, texts),
                count_tokens=counter_of(loaded),
                room=_room(engine, loaded, prompt, role),
            )
            with self._observer.doing(f"Figure {number}, {short}, {name}"):
                made = make(
                    number,
                    subject,
                    self._material[name],
                    self._figure_options,
                    model=cells[0].model,
                    task=name,
                )
            self._done.figures.append(made)
        except Exception as error:
            self._done.unmade[f"Figure {number}, {short}, {name}"] = _reason(error)

    def _texts_of(
        self, model: LocatedModel, name: str
    ) -> tuple[AbsTask, list[str], Judgments | None]:
        """Return a task, its texts without empty ones, and its judgments if it has any."""
        from lcbench.hub.contents import DataError, documents_in, refuse
        from lcbench.hub.contents import load as load_data
        from lcbench.hub.judgments import judgments_in

        part = self._grid.parts[name].at(model.shape.window)
        if name not in self._texts or part.source.depends_on_window(name):
            with self._observer.doing(f"loading the texts of {name}"):
                task = part.source.make(part)
                checks.find_data([task] if part.source.origin is None else [], self._options.mirror)
                try:
                    wrong = [one for one in load_data(task) if not one.is_tolerable]
                    if wrong and not self._options.unverified_data:
                        raise refuse(wrong)
                    texts = documents_in(task)
                    judgments = judgments_in(task)
                except DataError as error:
                    raise RequestError(str(error)) from error
                whole = [text for text in texts if text.strip()]
                if self._figures:
                    self._material[name] = material_of(task, whole, part.splits)
                task.unload_data()
            if len(whole) < len(texts):
                self._observer.say(
                    f"{name}: {len(texts) - len(whole)} empty texts are left out", dim=True
                )
            self._texts[name] = task, whole, judgments
        return self._texts[name]

    def _on_progress(self, texts: int, tokens: int) -> None:
        self._encoded += texts

    def _encoding(self, what: str, total: int) -> Any:
        self._encoded, began = 0, time.monotonic()
        return self._observer.live(
            lambda: (
                f"{what}: {self._encoded:,} of {total:,} texts encoded … "
                f"{clock(time.monotonic() - began)}"
            )
        )


def _reason(error: Exception) -> str:
    """Return why something could not be measured.

    Raises:
        StorageError: a disk is full, so that nothing else could be kept either.
        DeviceLost: a GPU has failed.
    """
    if isinstance(error, LcbenchError) and not isinstance(error, StorageError):
        return str(error)
    failed = FailedCell.of(error)
    if failed.is_full:
        raise StorageError(
            f"stopped, since no room is left on a disk: {failed.reason}. Free some space, then run "
            "the same command again: finished measurements are kept."
        ) from error
    LOGGER.error("could not be measured:\n%s", failed.traceback)
    return failed.reason


def _prompt(engine: Engine, task: AbsTask) -> str:
    from mteb.types import PromptType

    kind = PromptType.document if has_queries(task.metadata.type) else None
    return engine.prompt_of(task.metadata, kind)


def counter_of(loaded: SentenceTransformer) -> CountTokens:
    """Return what counts the tokens of texts, without special tokens and however long they are."""
    tokenizer: Any = loaded.tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        found = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    return count


def _room(engine: Engine, loaded: SentenceTransformer, prompt: str, role: Role | None) -> int:
    """Return how many tokens of a text are read besides special tokens and the prompt."""
    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    (read,), _ = engine.lengths(NO_REPAIR.policy, ["a"], prompt, role)
    framing = int(read) - counter_of(loaded)(["a"])[0]
    return window - framing
