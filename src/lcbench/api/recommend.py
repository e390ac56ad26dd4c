"""Recommends the repair to ship with a model, or none, for `lcbench tune`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from lcbench.errors import LcbenchError, MissingError, RequestError
from lcbench.repair.values import shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.repair.repair import Repair
    from lcbench.reporting.publish import Report
    from lcbench.reporting.statistics import Recommendation
    from lcbench.reporting.table import Table
    from lcbench.reporting.tables.repairs import RepairRow
    from lcbench.run.sweep import Outcome
    from lcbench.settings.schema import Settings
    from lcbench.settings.tune import ChooseSettings
    from lcbench.system.observer import Observer
    from lcbench.system.signals import Stop
    from lcbench.tasks.source import Part
    from lcbench.tempscale.policy import ModelShape
    from lcbench.tuning.recommend import Advice

FILE = "tune-{}.json"
"""The file of a recommendation, in the folder of its report, by a digest of what it is based on."""


@dataclass(frozen=True)
class Recommended:
    """Which repair to ship with a model, or none.

    Attributes:
        repair: the repair by its name in results (`"0.9"`); None: the model as it is.
        expected: the cross-validated gain of `Avg` in %, with the ends of its 95 % interval: value,
            low, high.
        lines: the recommendation in sentences.
        path: file with all that was found, JSON.
        content: content of the file.
        out: folder of the model that was written; None: none.
        tables: what was tried, for the screen.
    """

    repair: str | None
    expected: tuple[float, float, float]
    lines: tuple[str, ...]
    path: Path
    content: Mapping[str, Any]
    out: Path | None = None
    tables: tuple[Table, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def recommend_asked(
    config: DictConfig, asked: ChooseSettings, observer: Observer, stop: Stop | None = None
) -> Recommended:
    """Carry out the recommendation that a composed config of `tune` asks for.

    Args:
        config: the config.
        asked: what was read of it.
        observer: receives progress.
        stop: signals when to end; None: only exceptions do.

    Raises:
        RequestError: the request is wrong, needs something that is missing, has too few texts, or
            a repair that cannot be exported.
        LcbenchError: cells failed.
    """
    from lcbench import __version__
    from lcbench.api.compose import compose_settings
    from lcbench.api.evaluate import carry_out
    from lcbench.repair.repair import NO_REPAIR
    from lcbench.reporting.advice_text import content_of, sentences, tried_table
    from lcbench.system.files import write_atomically

    settings = compose_settings(config, "tune")
    if settings.label == "run":
        settings = replace(settings, label="tune")
    if asked.repairs is not None:
        settings = replace(settings, repairs=asked.repairs)
    settings = _refuse(settings, asked, observer)
    _refuse_few(settings, asked)
    test = None if asked.test is None else _test_of(config, settings, asked, observer)
    outcome = carry_out(settings, observer, stop=stop)
    _check(outcome)
    with observer.doing("working out the recommendation"):
        report = _report(settings, outcome, asked, observer)
    found, advice, rows = _found(report)
    lines = list(sentences(found, rows.get(found.policy or "")))
    content = content_of(found, rows)
    repair = next(
        (cell.repair for cell in outcome.cells if cell.repair.canonical == found.policy), None
    )
    path = report.folder / FILE.format(_digest(report, asked))

    def write() -> None:
        write_atomically(path, json.dumps({"lcbench": __version__, **content}, indent=2) + "\n")

    write()
    try:
        if test is not None and repair is not None:
            test = replace(test, repairs=(NO_REPAIR, repair))
            content["test"], line = _tested(test, asked, observer, stop)
            lines.append(line)
            write()
        if asked.out is not None:
            lines.append(_export(settings, repair, asked.out, observer))
    except LcbenchError:
        # What was found before is not lost.
        observer.say("\n".join([*lines, f"Written to {path}"]))
        raise
    return Recommended(
        repair=found.policy,
        expected=(advice.expected, advice.expected_low, advice.expected_high),
        lines=tuple(lines),
        path=path,
        content=content,
        out=asked.out if repair is not None else None,
        tables=(tried_table(found, advice, rows),),
    )


def _digest(report: Report, asked: ChooseSettings) -> str:
    """Return a digest of the cells that a recommendation is based on, and of how it is made."""
    based_on = [*sorted(report.cells), str(asked.across), str(asked.resamples), str(asked.seed)]
    return hashlib.sha256("\n".join(based_on).encode()).hexdigest()[:8]


def _refuse(settings: Settings, asked: ChooseSettings, observer: Observer) -> Settings:
    """Refuse what cannot be carried out, before anything is encoded.

    Of the repairs that are compared by default, those that cannot be exported are left out.

    Raises:
        RequestError: the folder exists, or one of the repairs cannot be exported.
    """
    from lcbench.hub.models import locate

    if asked.out is None:
        return settings
    if asked.out.exists():
        raise RequestError(f"out={asked.out} already exists; choose another folder.")
    shape = None
    # A model that is not here yet is fetched later.
    with suppress(MissingError):
        shape = locate(settings.models[0], mirror=settings.mirror, offline=True).shape
    kept = []
    for repair in settings.repairs:
        try:
            _refuse_export(repair, shape)
        except RequestError as error:
            if asked.repairs is None:
                raise RequestError(
                    f"out={asked.out}: {repair} could be recommended and not be written: {error} "
                    "Without out= it is compared with the others."
                ) from error
            observer.warn(f"{repair} is left out, since it could not be written: {error}")
        else:
            kept.append(repair)
    return replace(settings, repairs=tuple(kept))


def _refuse_export(repair: Repair, shape: ModelShape | None) -> None:
    """Refuse a repair that cannot be exported, as far as that is known without the weights.

    Args:
        repair: as it was requested.
        shape: the model's; None: not known.

    Raises:
        RequestError: saying why.
    """
    from lcbench.run.export import refuse_others
    from lcbench.tempscale.fold import refuse_by_text, refuse_shared_bias

    refuse_others(repair)
    refuse_by_text(repair.policy)
    if shape is None:
        return
    try:
        policy = repair.resolve(shape).policy
    except RequestError:
        # It is left out or refused, as without `out=`.
        return
    refuse_shared_bias(policy, shape)


def _refuse_few(settings: Settings, asked: ChooseSettings) -> None:
    """Refuse tasks that have too few texts or queries, as far as that is known before scoring.

    Raises:
        RequestError: saying how many are needed, and how many there are at most.
    """
    from lcbench.tasks.suites import resolve_all
    from lcbench.tuning.recommend import FEWEST, FEWEST_TASKS

    protocol = settings.protocol
    parts = resolve_all(
        settings.tasks, protocol.splits, protocol.subsets, settings.sources, protocol.limit
    ).values()
    needed, what, most = FEWEST, "independent texts or queries", 0
    if asked.across == "tasks":
        needed, what, most = FEWEST_TASKS, "tasks that share no texts", len(parts)
    else:
        for part in parts:
            if (count := _most_items(part)) is None:
                return
            most += count
    if most < needed:
        there = f"{'is' if most == 1 else 'are'} {'at most ' if most > 1 else ''}{most}"
        raise RequestError(
            f"tasks={shown([part.name for part in parts])}: {needed} {what} are needed to choose a "
            f"repair, and there {there}."
        )


def _most_items(part: Part) -> int | None:
    """Return how many items a task has at most: queries, pairs or texts; None: unknown."""
    from lcbench.tasks.source import searches

    if part.source.origin is None or (texts := part.texts()) is None:
        return None
    kind = part.source.kind(part.name)
    if searches(kind):
        return sum(one.count for one in texts if one.role == "query")
    if kind in ("STS", "PairClassification"):
        return max((one.count for one in texts), default=0)
    # Those that a classifier is fitted on are not scored.
    return sum(one.count for one in texts if not one.drawn_rows)


def _check(outcome: Outcome) -> None:
    """Refuse to recommend anything from a part of the cells.

    Raises:
        Terminated: a signal stopped the run.
        RequestError: the model cannot have one of the repairs.
        LcbenchError: a cell failed.
    """
    from lcbench.system.signals import Terminated

    if outcome.stopped:
        raise Terminated("stopped by a signal")
    if outcome.refused:
        raise RequestError("\n".join(f"{one}: {why}" for one, why in outcome.refused.items()))
    failed = [f"{cell} failed: {why}" for cell, why in outcome.failed.items()]
    failed += [f"{cell} is still running: {where}" for cell, where in outcome.elsewhere.items()]
    if failed:
        raise LcbenchError(
            "\n".join([*failed, "A repair is recommended once all have results: the same again."])
        )


def _report(
    settings: Settings,
    outcome: Outcome,
    asked: ChooseSettings,
    observer: Observer,
    *,
    advises: bool = True,
) -> Report:
    """Return the report of a run's cells, with a recommendation or not; it is not written."""
    from lcbench.api.report import request_of_run
    from lcbench.reporting.select import Extent, report_run
    from lcbench.results.folder import Results

    across = asked.across or "auto" if advises else None
    extent = Extent(asked.resamples, asked.seed, repairs=True, across=across)
    request = request_of_run(settings, outcome.cells)
    found = report_run(request, Results(settings.results_dir), None, observer.warn, extent)
    if found is None:
        raise LcbenchError("No cell has a result.")
    return found


def _found(report: Report) -> tuple[Recommendation, Advice, Mapping[str, RepairRow]]:
    """Return the recommendation of a report of one model, its advice, and its repairs by name.

    Raises:
        RequestError: there is none.
    """
    findings = report.findings
    (found,) = findings.score_tables[0].statistics.recommendations.values()
    if found.advice is None:
        raise RequestError(f"{found.label}: nothing can be recommended: {found.why}.")
    return found, found.advice, {row.policy: row for one in findings.repairs for row in one.rows}


def _export(settings: Settings, repair: Repair | None, out: Path, observer: Observer) -> str:
    """Write the model with the recommended repair, if there is one; return what to say of it."""
    from lcbench.run.export import export

    if repair is None:
        return f"{out} is not written: it would be the model as it is."
    model, offline, mirror = settings.models[0], settings.offline, settings.mirror
    with observer.doing(f"writing {out}"):
        error = export(model, repair, out, offline=offline, mirror=mirror)
    return f"{out}: written; its embeddings differ by {error:.1e} at most."


def _test_of(
    config: DictConfig, settings: Settings, asked: ChooseSettings, observer: Observer
) -> Settings:
    """Return the request of the tasks on which the recommended repair is scored in the end.

    Raises:
        RequestError: they share texts with those that it is chosen on.
    """
    from omegaconf import open_dict

    from lcbench.api.compose import compose_settings
    from lcbench.hub.models import locate

    changed = config.copy()
    with open_dict(changed):
        changed["tasks"], changed["limit"] = asked.test, None
    test = replace(compose_settings(changed, "tune"), label="tune-test")
    model = locate(settings.models[0], mirror=settings.mirror, offline=settings.offline)
    of_choice, of_test = (_texts(one, model.shape.window, observer) for one in (settings, test))
    if shared := sorted(of_test & of_choice):
        raise RequestError(
            f"test={shown(asked.test)}: {len(shared):,} of its {len(of_test):,} texts are among "
            f"those that the repair is chosen on, such as “{shorten(shared[0], 60)}”, so that its "
            "gain there would not be one on other texts. Name tasks of other texts."
        )
    return test


def _texts(settings: Settings, window: int | None, observer: Observer) -> set[str]:
    """Return the documents and queries of a request's tasks."""
    from lcbench.hub.contents import queries_in
    from lcbench.run.checks import fetch_missing
    from lcbench.run.measuring import load_texts
    from lcbench.tasks.suites import resolve_all

    protocol = settings.protocol
    parts = resolve_all(
        settings.tasks, protocol.splits, protocol.subsets, settings.sources, protocol.limit
    )
    fetch_missing(list(parts.values()), settings.mirror, observer, offline=settings.offline)
    found: set[str] = set()
    for part in parts.values():
        with observer.doing(f"loading the texts of {part.name}"):
            task, texts = load_texts(
                part.at(window), settings.mirror, unverified_data=settings.unverified_data
            )
            every = [*texts, *queries_in(task)]
            task.unload_data()
            found |= {text.strip() for text in every if text.strip()}
    return found


def _tested(
    settings: Settings, asked: ChooseSettings, observer: Observer, stop: Stop | None
) -> tuple[dict[str, Any], str]:
    """Score the recommended repair on tasks that had no part in the choice.

    Returns:
        The gain for JSON, and in words.
    """
    from lcbench.api.evaluate import carry_out
    from lcbench.reporting.score_table import AVERAGE, BASELINE
    from lcbench.reporting.text import signed

    outcome = carry_out(settings, observer, stop=stop)
    _check(outcome)
    report = _report(settings, outcome, asked, observer, advises=False)
    found = report.findings.score_tables[0]
    (block,) = found.table.blocks
    (policy,) = (one for one in block.policies if one != BASELINE)
    value, known = (
        block.improvements[policy][AVERAGE],
        found.statistics.means.get((block.label, policy, AVERAGE)),
    )
    ends = (None, None) if known is None else (known.low, known.high)
    tasks = [task.task for task in block.tasks]
    content = {"tasks": tasks, "value": value, "low": ends[0], "high": ends[1]}
    if value is None:
        return content, f"On {', '.join(tasks)}, its gain is unknown."
    said = "" if known is None else f" ({signed(known.low)} to {signed(known.high)})"
    return (
        content,
        f"On {', '.join(tasks)}, which had no part in the choice: {signed(value)} %{said}.",
    )
