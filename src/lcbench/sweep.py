"""Run a grid of cells: what is done, what is left, run it, survive failures.

Everything that can be wrong with a request is found before the first text is encoded, and before
anything heavy is imported where that is possible.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lcbench import cost, hub, provenance
from lcbench.encode.store import Store, check_writable
from lcbench.errors import MissingError, RequestError
from lcbench.files import remove_leftovers
from lcbench.grid import Cell, Protocol, expand
from lcbench.models import LocatedModel, dimensions_of, load, locate
from lcbench.progress import Progress
from lcbench.results import COMPARED_VERSIONS, Finished, Results
from lcbench.settings import EngineSettings, Settings
from lcbench.tasks.mirror import (
    check_mirror,
    digest_of,
    is_here,
    lacking_in_folders,
    missing_data,
    missing_subsets,
    plain_folder,
    point_at,
)
from lcbench.tasks.registry import registry
from lcbench.tasks.suites import (
    DOCS_TASKS,
    Part,
    check_pins,
    docs_digest,
    make_task,
    parts_of,
    resolve_all,
)
from lcbench.tempscale.policy import BASELINE, Policy
from lcbench.workers import FailedCell, Job, Pool, ScoredCell, processes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.encode.prompts import PromptOf
    from lcbench.tempscale.prove import Proof


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        cells: all that were asked for.
        found: how many of them had been finished before.
        failed: those without a result, and why, in one line each.
        refused: models whose attention cannot be brought to a temperature, and why.
    """

    cells: tuple[Cell, ...]
    found: int
    failed: dict[Cell, str]
    refused: dict[str, str]


def run(settings: Settings, console: Console, warn: Callable[[str], None]) -> Outcome:
    """Run the cells that have no result yet.

    Args:
        settings: the request.
        console: for progress.
        warn: told of result files that had to be set aside, and of what could not be fetched.

    Raises:
        RequestError: the request is wrong, or asks for what is not here; nothing was computed.
        StorageError: the disk is full; what was finished is kept.
    """
    if settings.hub is not None:
        hub.use(settings.hub)
    if settings.offline:
        hub.go_offline()
    results = Results(settings.results_dir)
    check_mirror(settings.mirror)
    if settings.left_out:
        warn(f"left out: {'; '.join(settings.left_out)}.")
    parts = resolve_all(settings.tasks, settings.protocol.splits, settings.protocol.subsets)
    located = _locate_all(settings, list(parts.values()))
    policies_of = {model: _policies(settings, model, console) for model in located}
    cells_of = {
        model: tuple(
            expand(
                [(model.name, model.revision)],
                policies_of[model],
                [(name, _protocol(settings, part, model)) for name, part in parts.items()],
            )
        )
        for model in located
    }
    cells = tuple(cell for group in cells_of.values() for cell in group)
    left_of = {
        model: [cell for cell in group if not results.is_done(cell, warn)]
        for model, group in cells_of.items()
    }
    left = [cell for group in left_of.values() for cell in group]
    _check_same_data(settings, results, set(cells) - set(left), left)
    _check_same_versions(settings, results, set(cells) - set(left), left)
    if not left:
        return Outcome(cells, len(cells), {}, {})
    results.check_writable()
    if settings.store.is_named and settings.store.folder is not None:
        check_writable(settings.store.folder)
    for folder in {results.files(cell).folder for cell in left}:
        remove_leftovers(folder)
    with closing(_Runner(settings, parts, results, console, warn)) as runner:
        runner.prepare(left)
        runner.run({model: group for model, group in left_of.items() if group}, len(cells))
    return Outcome(cells, len(cells) - len(left), runner.failed, runner.refused)


def _check_same_data(
    settings: Settings, results: Results, done: set[Cell], left: Sequence[Cell]
) -> None:
    """Refuse to take results for those of this request that were scored on other data.

    Raises:
        RequestError: naming the tasks, and what to do.
    """
    unfinished = {cell.task for cell in left}
    other: dict[str, str] = {}
    for cell in done:
        if cell.task in DOCS_TASKS:
            continue
        record = results.provenance(cell).get("data") or {}
        every = record["parts"].items() if "parts" in record else [(cell.task, record)]
        for task, data in every:
            entry = registry().tasks[task]
            origin, revision = str(data.get("origin", "")), str(data.get("revision", ""))
            folder = plain_folder(entry.dataset, entry.revision, settings.mirror)
            now = None if folder is None else f"mirror {digest_of(folder)}"
            if revision != entry.revision:
                other[task] = f"revision {revision or 'unknown'}, mteb reads {entry.revision}"
            elif now is not None and origin != now:
                other[task] = f"{origin or 'unknown'}, not {now}"
            elif now is None and origin.startswith("mirror") and cell.task in unfinished:
                other[task] = f"{origin}, which this request does not name"
    if other:
        listed = "; ".join(f"{task} ({why})" for task, why in sorted(other.items()))
        raise RequestError(
            f"results_dir={settings.results_dir} has results on other data than this request "
            f"would use: {listed}. Name the same mirror, install the mteb of constraints.txt, or "
            "keep these apart: results_dir=PATH."
        )


def _check_same_versions(
    settings: Settings, results: Results, done: set[Cell], left: Sequence[Cell]
) -> None:
    """Refuse to compute cells that could not be compared with those that they belong to.

    Raises:
        RequestError: naming the libraries whose versions differ, and what to do.
    """
    new = {(cell.model, cell.revision, cell.task, cell.protocol) for cell in left}
    here = provenance.versions()
    differ: dict[str, str] = {}
    for cell in done:
        if (cell.model, cell.revision, cell.task, cell.protocol) in new:
            there = results.provenance(cell).get("versions", {})
            for name in COMPARED_VERSIONS:
                if name in there and there[name] != here[name]:
                    differ[name] = f"{name} {there[name]}, now {here[name]}"
    if differ:
        raise RequestError(
            f"results_dir={settings.results_dir} has results that the new ones would be compared "
            f"with, made with other versions: {'; '.join(differ.values())}. Install those again, "
            "or keep the new results apart: results_dir=PATH."
        )


def _locate_all(settings: Settings, parts: Sequence[Part]) -> list[LocatedModel]:
    """Find all models; if one is missing, name everything that is, data as well, at once."""
    mirror = settings.mirror
    located: list[LocatedModel] = []
    wrong: list[str] = []
    missing: list[str] = []
    for model in settings.models:
        try:
            located.append(locate(model, mirror=mirror, offline=True))
        except MissingError as error:
            missing += error.missing
        except RequestError as error:
            wrong.append(str(error))
    if wrong:
        raise RequestError("\n".join([*wrong, *missing]))
    if not missing:
        return located
    # The hub has its seconds to answer while the data is looked for.
    probe = None if settings.offline else hub.Probe()
    missing += missing_data(parts, mirror)
    lacking = lacking_in_folders(parts, mirror)
    if why := hub.why_not_fetched(offline=settings.offline, probe=probe):
        raise hub.refuse([*missing, *lacking], mirror, why)
    return [locate(model, mirror=mirror, offline=False) for model in settings.models]


def _policies(settings: Settings, model: LocatedModel, console: Console) -> list[Policy]:
    """Return what the policies come to for a model, each once, and say which are the baseline."""
    for policy in settings.policies:
        if policy != BASELINE and policy.resolve(model.shape) == BASELINE:
            console.print(
                f"{model.name}: τ = {policy.canonical} is 1 for every text that this model reads "
                f"(window {model.shape.window}): it is the baseline, not TempScale."
            )
    return list(dict.fromkeys(policy.resolve(model.shape) for policy in settings.policies))


def _protocol(settings: Settings, part: Part, model: LocatedModel) -> Protocol:
    return Protocol(
        name=settings.protocol.name,
        prompts=settings.protocol.prompts,
        dtype=settings.protocol.dtype,
        splits=part.asked_splits,
        subsets=part.asked_subsets,
        window=model.window,
        docs=docs_digest(part.name, settings.docs, model.shape.window),
    )


class _Runner:
    """Runs the cells of one model after the other."""

    def __init__(
        self,
        settings: Settings,
        parts: Mapping[str, Part],
        results: Results,
        console: Console,
        warn: Callable[[str], None],
    ) -> None:
        self.failed: dict[Cell, str] = {}
        self.refused: dict[str, str] = {}
        self._settings = settings
        self._parts = parts
        self._results = results
        self._console = console
        self._warn = warn
        self._pool = Pool(
            processes(settings.engine.scoring), offline=settings.offline, address=settings.hub
        )
        self._store = Store(settings.store.folder, settings.store.max_bytes, warn)

    def close(self) -> None:
        """End the processes that score, and write what the store holds back."""
        self._pool.close()
        self._store.close()

    def prepare(self, cells: Sequence[Cell]) -> None:
        """See that every task exists and its data is within reach."""
        names = list(dict.fromkeys(cell.task for cell in cells))
        mirror, offline = self._settings.mirror, self._settings.offline
        parts = [self._parts[name] for name in names]
        missing, lacking = missing_data(parts, mirror), lacking_in_folders(parts, mirror)
        if lacking:
            raise hub.refuse([*missing, *lacking], mirror, "a plain folder is read as it is")
        if missing:
            if why := hub.why_not_fetched(offline=offline):
                raise hub.refuse(missing, mirror, why)
            from lcbench.prefetch import fetch_data

            for what, reason in fetch_data(
                [part for part in parts if missing_data([part], mirror)], self._console
            ).items():
                self._warn(f"{what}: {reason}")
        if any(name not in DOCS_TASKS for name in names):
            self._console.print("checking tasks and data …", style="dim")
        quiet_libraries()
        device_of(self._settings.engine)
        # What can be told at once has been. Processes that score load their libraries meanwhile.
        self._pool.warm_up()
        check_pins(names, self._settings.suites)
        all_here, without = True, []
        for task in [self._make_task(name) for name in names if name not in DOCS_TASKS]:
            for one in parts_of(task) or [task]:
                origin = point_at(one, mirror)
                all_here = all_here and is_here(one)
                if subsets := missing_subsets(one):
                    listed = ", ".join(subsets)
                    without.append(f"{origin.dataset} (for {one.metadata.name}): {listed}")
        if without:
            raise hub.refuse(without, mirror, "the dataset's card has no such configurations")
        if all_here or hub.why_not_fetched(offline=offline):
            # Nothing has to be fetched, or can be, so nothing may be asked for either.
            hub.go_offline()
            self._pool.offline = True

    def run(self, cells_of: Mapping[LocatedModel, Sequence[Cell]], total: int) -> None:
        """Run the cells of each model, and say how long that takes: before, meanwhile and after.

        Args:
            cells_of: what is left to be done.
            total: cells of the request, those that were found finished among them.
        """
        started = time.monotonic()
        prediction = cost.predict(
            self._settings,
            self._parts,
            [cost.ModelCells(dimensions_of(model), cells) for model, cells in cells_of.items()],
            machine=cost.machine_of(self._settings.engine, self._settings.protocol.dtype),
            processes=self._pool.count,
        )
        self._recorder = cost.Recorder(prediction)
        self._console.print(cost.prediction_line(prediction), style="dim")
        left = sum(map(len, cells_of.values()))
        with Progress(self._console, left, total, prediction) as progress:
            try:
                for model, cells in cells_of.items():
                    self.run_model(model, cells, progress)
            except BaseException:
                self._recorder.save()
                raise
        wall = time.monotonic() - started
        began = None if progress.began is None else progress.began - started
        self._recorder.save(wall, began)
        self._console.print(cost.outcome_line(prediction, wall), style="dim")

    def run_model(self, model: LocatedModel, cells: Sequence[Cell], progress: Progress) -> None:
        """Load a model and run its cells, policy by policy."""
        progress.doing(f"loading {model.name} …")
        devices = devices_of(self._settings.engine)
        try:
            loaded = load(
                model,
                device=devices[0],
                dtype=self._settings.protocol.dtype,
                attention=self._settings.engine.attention,
            )
            proofs = self._prove(loaded, cells)
            prompt_of = self._prompts(model, loaded)
            engine = self._engine(model, loaded, devices, prompt_of, progress)
        except RequestError as error:
            self.refused[model.name] = str(error)
            return
        # Whatever this model is at fault with, the next one need not be.
        except Exception as error:
            failed = FailedCell.of(error)
            for cell in cells:
                progress.start(cell)
                self._fail(cell, failed, progress)
            return
        facts = provenance.model_facts(model, loaded)
        jobs = [
            Job(
                number=number,
                cell=cell,
                part=self._parts[cell.task],
                docs=self._settings.docs.at(model.shape.window),
                model=facts,
                mirror=self._settings.mirror,
            )
            for number, cell in enumerate(cells)
        ]
        try:
            with closing(
                self._pool.run(jobs, engine, lambda job: progress.start(job.cell))
            ) as ended:
                for job, outcome in ended:
                    cell = job.cell
                    if isinstance(outcome, FailedCell):
                        self._fail(cell, outcome, progress)
                    else:
                        proof = proofs[cell.policy]
                        self._finish(cell, outcome, proof, loaded, progress)
                        engine.flush()
        finally:
            engine.close()

    def _prove(
        self, loaded: SentenceTransformer, cells: Sequence[Cell]
    ) -> dict[Policy, Proof | None]:
        """Show, before anything is encoded, that the model can be brought to each policy."""
        from lcbench.tempscale.inject import Injection

        proofs: dict[Policy, Proof | None] = {BASELINE: None}
        for policy in dict.fromkeys(cell.policy for cell in cells):
            if not policy.is_baseline:
                with Injection(loaded, policy) as injection:
                    proofs[policy] = injection.proof
        return proofs

    def _prompts(self, model: LocatedModel, loaded: SentenceTransformer) -> PromptOf:
        from lcbench.encode.prompts import no_prompt, registry_prompts

        if self._settings.protocol.prompts == "none":
            return no_prompt
        return registry_prompts(model.name, loaded)

    def _engine(
        self,
        model: LocatedModel,
        loaded: SentenceTransformer,
        devices: Sequence[str],
        prompt_of: PromptOf,
        progress: Progress,
    ) -> Engine:
        from lcbench.encode.engine import Engine, Identity
        from lcbench.encode.forward import Forward

        forward = Forward(
            loaded,
            devices=devices,
            batch_tokens=self._settings.engine.batch_tokens,
            compiled=self._settings.engine.compile,
            cores_left=lambda: provenance.cores() - self._pool.working(),
        )
        identity = Identity(
            model.name, model.revision, loaded.max_seq_length, self._settings.protocol.dtype
        )
        return Engine(
            forward, self._store, identity, prompt_of=prompt_of, on_progress=progress.encoded
        )

    def _finish(
        self,
        cell: Cell,
        scored: ScoredCell,
        proof: Proof | None,
        loaded: SentenceTransformer,
        progress: Progress,
    ) -> None:
        by_role = cell.policy.for_role("query") != cell.policy.for_role("document")
        if by_role and scored.without_roles:
            self._console.print(
                f"{cell.task} has no queries: all its texts count as documents.", style="dim"
            )
        record: dict[str, Any] = {
            "cell": str(cell),
            "model": cell.model,
            "policy": cell.policy.canonical,
            "protocol": asdict(cell.protocol),
            "window": loaded.max_seq_length,
            "proof": None if proof is None else asdict(proof),
            **scored.record,
            **provenance.environment(str(loaded.device)),
        }
        finished = Finished(_writer(scored.result), scored.model_meta, record, scored.items)
        self._results.write(cell, finished)
        self._recorder.record(cell, record)
        progress.finish(cell, "done", record)

    def _fail(self, cell: Cell, failed: FailedCell, progress: Progress) -> None:
        where = self._results.write_failure(cell, failed.traceback)
        self.failed[cell] = f"{failed.reason} (traceback: {where})"
        progress.finish(cell, "FAILED", {})

    def _make_task(self, name: str, window: int | None = None) -> Any:
        return make_task(self._parts[name], self._settings.docs.at(window))


def _writer(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def quiet_libraries() -> None:
    """Keep the libraries' chatter off the screen: bars and notices that every run would repeat."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # mteb says each of its warnings twice, once as a warning and once in its log.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*is superseded by.*")
    # Of mteb's precision for a label that was never predicted: it counts as 0, and no main score
    # of a classification task is made of it.
    warnings.filterwarnings("ignore", message=r".*is ill-defined and being set to 0\.0.*")


def device_of(engine: EngineSettings) -> str:
    """Return the device that a run uses.

    Raises:
        RequestError: torch does not find it here.
    """
    return devices_of(engine)[0]


def devices_of(engine: EngineSettings) -> list[str]:
    """Return the devices that a run uses: every GPU, unless one is named.

    Raises:
        RequestError: torch does not find it here.
    """
    import torch

    cuda = torch.cuda.is_available()
    every = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if cuda else []
    if engine.device == "auto":
        return every or ["cpu"]
    if engine.device == "cuda" and cuda:
        return every
    if engine.device.startswith("cuda") and not cuda:
        raise RequestError(
            f"engine.device={engine.device}: torch finds no CUDA device here; "
            "use engine=auto or engine=cpu."
        )
    if engine.device.startswith("mps") and not torch.backends.mps.is_available():
        raise RequestError("engine.device=mps: torch finds no such device here.")
    return [engine.device]
