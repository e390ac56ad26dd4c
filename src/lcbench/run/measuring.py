"""What measurements of any kind need of a model and its engine, and why one could not be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import LcbenchError, StorageError
from lcbench.hub.datasets import digest_of, plain_folder
from lcbench.hub.windows import window_of
from lcbench.measures import files
from lcbench.repair.repair import NO_REPAIR
from lcbench.results import provenance
from lcbench.score.cell import FailedCell, has_queries
from lcbench.system.log import LOGGER
from lcbench.tasks.registry import registry

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.measures.collapse import CountTokens, Options
    from lcbench.measures.inside import InsideOptions
    from lcbench.repair.repair import Repair
    from lcbench.results.cell import Cell
    from lcbench.tempscale.policy import Role

WINDOW_WITHOUT_LIMIT = 512
"""The window assumed for a model without a limit (T5), as in the synthetic tasks."""


def record_of(
    cell: Cell,
    facts: provenance.ModelFacts,
    loaded: SentenceTransformer,
    proofs: Mapping[Repair, dict[str, Any] | None],
) -> dict[str, Any]:
    """Return what is known of how any measurement was made."""
    return {
        "protocol": cell.protocol.record,
        "model_digest": facts.digest,
        "pooling": facts.pooling,
        "proof": proofs[cell.repair.encoding],
        **provenance.environment(str(loaded.device)),
    }


def reason_for(error: Exception) -> str:
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


def prompt_of(engine: Engine, task: AbsTask) -> str:
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


def room_of(engine: Engine, loaded: SentenceTransformer, prompt: str, role: Role | None) -> int:
    """Return how many tokens of a text are read besides special tokens and the prompt."""
    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    (read,), _ = engine.lengths(NO_REPAIR, ["a"], prompt, role)
    framing = int(read) - counter_of(loaded)(["a"])[0]
    return window - framing


def paths_of(
    cells: Iterable[Cell], results_dir: Path, asked: Options | InsideOptions, mirror: Path | None
) -> dict[Cell, Path]:
    """Return the file of each cell's measurement, whether it is there or not.

    Args:
        cells: of a grid.
        results_dir: results folder.
        asked: what is measured.
        mirror: a folder that is searched for data first.
    """
    return {cell: files.path_of(results_dir, cell, data_of(cell, mirror), asked) for cell in cells}


def data_of(cell: Cell, mirror: Path | None) -> str:
    """Return what identifies a task's texts: a digest, or the commit of its dataset."""
    if cell.protocol.texts is not None:
        return cell.protocol.texts
    entry = registry().tasks[cell.task]
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    return entry.revision if folder is None else digest_of(folder)
