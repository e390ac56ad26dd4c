"""Finished cells with chosen scores and items, written as a run writes them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lcbench.repair.correction import Correction
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.results.files import CellFiles
from lcbench.results.folder import Finished, Results
from lcbench.results.items import ITEMS_SCHEMA
from lcbench.tempscale.policy import BASELINE, Policy

BGE = "BAAI/bge-base-en-v1.5"
REVISION = "f" * 40
PAPER_PROTOCOL = {
    "name": "paper",
    "prompts": "none",
    "dtype": "float32",
    "splits": "test",
    "subsets": None,
    "window": None,
    "docs": None,
}


def write_cell(
    results: Results,
    task: str,
    entries: Mapping[tuple[str, str], Mapping[str, Any]] | float,
    rows: Sequence[Mapping[str, Any]] | None = None,
    policy: Policy = BASELINE,
    model: str = BGE,
    revision: str = REVISION,
    window: int = 512,
    dataset_revision: str = "data",
    correction: Correction | None = None,
    more: Mapping[str, Any] | None = None,
    repair: Repair | None = None,
    **protocol: Any,
) -> CellFiles:
    """Write a cell's files.

    Args:
        entries: what mteb's result has by split and subset; or the one main score.
        rows: of its items, which share nothing unless they say so; None: it has none.
        correction: correction of the embeddings, if any.
        more: what is added to the provenance.
        repair: its repair; None: `policy` alone.
        protocol: what differs from the paper's protocol.
    """
    said = {**PAPER_PROTOCOL, **protocol}
    of = Cell(
        model,
        revision,
        Repair(policy, correction) if repair is None else repair,
        task,
        Protocol.of_record(said),
    )
    if not isinstance(entries, Mapping):
        entries = {("test", "default"): {"main_score": entries}}
    scores: dict[str, list[dict[str, Any]]] = {}
    for (split, subset), entry in entries.items():
        scores.setdefault(split, []).append({"hf_subset": subset, **entry})
    result = {"task_name": task, "dataset_revision": dataset_revision, "scores": scores}
    provenance = {"model": model, "protocol": said, "window": window, "data": {}, "versions": {}}
    provenance |= more or {}
    results.write(
        of,
        Finished(
            result=lambda path: path.write_text(json.dumps(result), encoding="utf-8"),
            model_meta={},
            provenance=provenance,
            items=None
            if rows is None
            else pa.Table.from_pylist(
                [
                    {"shares": [share(task, row["split"], row["subset"], row["id"])], **row}
                    for row in rows
                ],
                ITEMS_SCHEMA,
            ),
        ),
    )
    return results.files(of)


def share(*names: Any) -> str:
    """Return a digest as items have it of a text: made of names instead."""
    return hashlib.blake2b(repr(names).encode(), digest_size=8).hexdigest()


def item_rows(
    scores: Sequence[float], split: str = "test", subset: str = "default", **more: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return items with these scores and ids 0, 1 …; `more` has further columns."""
    columns = {"id": [str(number) for number in range(len(scores))], "score": scores, **more}
    return [
        {"split": split, "subset": subset, **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]


def relevant(*documents: tuple[str, int, int]) -> list[dict[str, Any]]:
    """Return the relevant documents of a query, by id, tokens and rank."""
    return [
        {"id": name, "grade": 1, "tokens": tokens, "rank": rank} for name, tokens, rank in documents
    ]


# Of five queries. Ten distinct documents; the longest two are "long" and "longer", and "tied" is as
# long as "long".
RELEVANT = [
    relevant(("long", 500, 10), ("a", 5, 1)),
    relevant(("longer", 510, 20), ("long", 500, 40), ("b", 6, 1), ("c", 7, 1)),
    relevant(("tied", 500, 30), ("d", 8, 1), ("e", 9, 1), ("f", 10, 1), ("g", 11, 1)),
    relevant(("a", 5, 1)),
    [],
]
