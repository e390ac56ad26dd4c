"""A model card's section on a model's scores under a repair, with the hub's metadata of results.

The metadata (`model-index`) are those that mteb writes: task type, dataset, split, subset and main
metric of each score, as a fraction. The section is marked by comments, so that it can be replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lcbench
from lcbench.errors import RequestError
from lcbench.repair.repair import label_of
from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.formats import markdown
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block
from lcbench.reporting.table import Entry, Section, Table, improvement, interval, name, number
from lcbench.reporting.text import MISSING_VALUE, group_heading
from lcbench.tasks.registry import registry

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import EvalResult

    from lcbench.reporting.findings import Findings, TableFindings

_BEGIN, _END = "<!-- lcbench: begin -->", "<!-- lcbench: end -->"
_SECTION = re.compile(f"{_BEGIN}.*?{_END}\n?", flags=re.DOTALL)
_TAGS = ("sentence-transformers", "mteb")
_MTEB = "https://github.com/embeddings-benchmark/mteb/"

# The hub's name of a type of task in mteb, as in mteb's `TaskResult.get_hf_eval_results`.
_HUB_TYPES = {
    "BitextMining": "translation",
    "Classification": "text-classification",
    "MultilabelClassification": "text-classification",
    "Clustering": "text-classification",
    "PairClassification": "text-classification",
    "Reranking": "text-ranking",
    "Retrieval": "text-retrieval",
    "STS": "sentence-similarity",
    "Summarization": "summarization",
    "InstructionRetrieval": "text-retrieval",
    "InstructionReranking": "text-ranking",
}
# Main metrics of mteb's types of tasks, by which the metric of a task outside mteb is recognised.
_METRICS = ("ndcg_at_10", "accuracy", "v_measure", "map_at_1000", "max_ap", "cosine_spearman", "f1")


@dataclass(frozen=True)
class CardSection:
    """The results of a model under a repair, for its card.

    Attributes:
        model: name of the model.
        policy: canonical name of the repair.
        text: the section, in Markdown.
        results: the scores, for the metadata.
    """

    model: str
    policy: str
    text: str
    results: tuple[EvalResult, ...]


def section_of(findings: Findings, scores: pd.DataFrame, policies: Sequence[str]) -> CardSection:
    """Return the section on the only model of a report.

    Args:
        findings: results of `findings.gather`.
        scores: the frame of scores that they were gathered from.
        policies: canonical names of the asked repair in the report (one per model revision, see
            `select.policies_named`); empty: the best one tried.

    Raises:
        RequestError: the report has several models, or several revisions of it.
    """
    found = [(one, block) for one in findings.score_tables for block in one.table.blocks]
    models = list(dict.fromkeys(block.model for _, block in found))
    if len(models) > 1:
        raise RequestError(
            f"models: results of {', '.join(models)} are here, and a card is of one model: "
            f"models={models[0].rpartition('/')[2]}"
        )
    revisions = list(dict.fromkeys(str(block.revision) for _, block in found))
    if len(revisions) > 1:
        raise RequestError(
            f"models={models[0].rpartition('/')[2]}: results of {len(revisions)} revisions are "
            f"here ({', '.join(revisions)}), and a card is of one: models=LABEL, if model.label= "
            "was given, or a results_dir= of its own."
        )
    if not policies:
        policies = [next((block.best for _, block in found if block.best), BASELINE)]
    shown = [
        (one, block, policy)
        for one, block in found
        for policy in policies
        if policy in block.policies
    ]
    several = len(shown) > 1
    tables = [_table(one, block, policy) for one, block, policy in shown]
    return CardSection(
        models[0],
        shown[0][2],
        "\n".join(markdown(table).rstrip("\n") + "\n" for table in tables),
        tuple(
            result
            for one, block, policy in shown
            for result in _results(one, block, policy, scores, named=several)
        ),
    )


def _table(found: TableFindings, block: Block, policy: str) -> Table:
    statistics = found.statistics
    compared = policy != BASELINE
    rows = []
    for task in block.tasks:
        entries = [name(task.task), number(task.scores[BASELINE])]
        if compared:
            uncertainty = statistics.cells.get((block.label, policy, task.task))
            entries += _gain(task.scores[policy], task.improvement(policy), uncertainty)
        rows.append(tuple(entries))
    average = [Entry(AVERAGE, AVERAGE, "best"), number(block.scores[BASELINE].get(AVERAGE))]
    if compared:
        uncertainty = statistics.means.get((block.label, policy, AVERAGE))
        gain = block.improvements[policy].get(AVERAGE)
        average += _gain(block.scores[policy].get(AVERAGE), gain, uncertainty)
    header = ["Task", label_of(BASELINE)]
    header += [label_of(policy), "Gain (%)", "95 % interval"] if compared else []
    return Table(
        name="card",
        title=f"Evaluation results: {_conditions(found, block)}",
        header=tuple(header),
        labels=1,
        sections=(Section("", (*rows, tuple(average))),),
        notes=found.table.notes,
        footnotes=(_explained(found, block, policy),),
    )


def _gain(score: float | None, gain: float | None, uncertainty: Any) -> list[Entry]:
    ends = MISSING_VALUE if uncertainty is None else interval(uncertainty)
    return [number(score), improvement(gain, uncertainty), Entry(ends, ends)]


def _conditions(found: TableFindings, block: Block) -> str:
    window = "" if block.window is None else f", window {block.window}"
    return f"{group_heading(found.table.group)}{window}"


def _explained(found: TableFindings, block: Block, policy: str) -> str:
    """Return what the numbers are, and how the repair was chosen."""
    text = (
        f"Scores × 100 of {block.model} (revision {block.revision}), measured with lcbench "
        f"{lcbench.__version__} and mteb; {AVERAGE} is the mean over kinds of tasks."
    )
    if policy == BASELINE:
        return f"{text} The model is unchanged ({label_of(BASELINE)})."
    text += (
        f" {label_of(policy)} is compared with the unchanged model ({label_of(BASELINE)}); gains "
        "are in % of its score."
    )
    if found.statistics.resamples:
        text += (
            f" Intervals: paired bootstrap, {found.statistics.resamples:,} resamples; ▲ and ▼ are "
            "significant, △ and ▽ are not; few: too few items changed to draw a conclusion."
        )
    tried = len(block.policies) - 1
    if policy == block.best and tried > 1:
        text += f" {label_of(policy)} is the best of {tried} tried on the same data"
        has_interval = (block.label, policy, AVERAGE) in found.statistics.means
        text += f"; the interval of {AVERAGE} accounts for this choice." if has_interval else "."
    return text


def _results(
    found: TableFindings, block: Block, policy: str, scores: pd.DataFrame, *, named: bool
) -> Iterator[EvalResult]:
    """Yield the scores of a model under a repair, one per task, split and subset.

    Args:
        found: the table that has the model.
        block: the model.
        policy: canonical name of the repair.
        scores: the frame of scores.
        named: whether the metrics name the conditions, since there are others.
    """
    from huggingface_hub import EvalResult

    cells = rows_by_cell(found.table, scores)
    known = registry().tasks
    conditions = _conditions(found, block)
    arguments = {"protocol": found.table.group, "window": block.window, "repair": policy}
    for task in block.tasks:
        rows = cells.get((block.label, policy, task.task), ())
        if not rows or task.scores[policy] is None:
            continue
        result = json.loads(rows[0].files.result.read_bytes())
        provenance = found.cells[block.label, policy, task.task].provenance
        kind = str(provenance.get("task_type"))
        entry = known.get(task.task)
        metric = _metric(result, rows[0]) if entry is None else entry.main_score
        # The hub takes results of one dataset, split and subset for one result.
        dataset = task.task if entry is None else entry.dataset
        # Several tasks of mteb may read one dataset, whose results are to stay apart.
        shares = entry is not None and len(registry().reading(entry.dataset)) > 1
        for row in rows:
            if row.protocol.get("limit") is not None:
                # The score of a part of the task is in the table, but is not the dataset's.
                continue
            yield EvalResult(
                task_type=_HUB_TYPES.get(kind, "feature-extraction"),
                task_name=kind,
                dataset_type=dataset,
                dataset_name=f"{task.task} ({row.subset})",
                dataset_config=f"{task.task}/{row.subset}" if shares else row.subset,
                dataset_split=row.split,
                dataset_revision=str(result.get("dataset_revision")),
                metric_type=metric,
                metric_name=f"{metric} ({conditions})" if named else metric,
                metric_value=float(row.score),
                metric_args={key: value for key, value in arguments.items() if value is not None},
                source_name="MTEB",
                source_url=_MTEB,
            )


def _metric(result: dict[str, Any], row: Any) -> str:
    """Return the metric that is the main score of a task outside mteb."""
    (entry,) = (one for one in result["scores"][row.split] if one["hf_subset"] == row.subset)
    equal = (one for one in _METRICS if entry.get(one) == entry["main_score"])
    return next(equal, "main_score")


def card_text(section: CardSection, existing: str | None) -> str:
    """Return a model card with the section.

    Args:
        section: the section.
        existing: the card so far: its former section, if any, is replaced, and so are the metadata
            of the same tasks; everything else stays. None: a new card.

    Raises:
        RequestError: the metadata of the card so far cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData

    text = f"{_BEGIN}\n{section.text}{_END}\n"
    if existing is None:
        short = section.model.rpartition("/")[2]
        data = ModelCardData(
            library_name="sentence-transformers",
            tags=list(_TAGS),
            model_name=short,
            # The hub takes no empty list.
            eval_results=list(section.results) or None,
        )
        return f"---\n{data.to_yaml()}\n---\n\n# {short}\n\n{text}"
    try:
        card = ModelCard(existing)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RequestError(f"out: the metadata of the card cannot be read: {error}") from error
    known: ModelCardData = card.data  # type: ignore[assignment]
    replaced = {(*one.unique_identifier, one.metric_type) for one in section.results}
    kept = [
        one
        for one in known.eval_results or ()
        if (*one.unique_identifier, one.metric_type) not in replaced
    ]
    known.eval_results = [*kept, *section.results] or None
    known.model_name = known.model_name or section.model.rpartition("/")[2]
    known.tags = list(dict.fromkeys([*(known.tags or ()), *_TAGS]))
    body, count = _SECTION.subn(lambda _: text, card.text, count=1)
    card.text = body if count else f"{card.text.rstrip()}\n\n{text}"
    return str(card)


def read_card(path: Path) -> str | None:
    """Return the text of a card; None if there is none.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise RequestError(f"out={path} cannot be read: {error}") from error
