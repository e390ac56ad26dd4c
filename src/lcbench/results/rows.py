"""Reads results into rows: a cell's scores by split and subset, with the keys of tables."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError
from lcbench.hub.windows import NO_LIMIT
from lcbench.repair.repair import canonical_of_folder, experiment_folder, parts_of
from lcbench.results.cell import Protocol, texts_of
from lcbench.results.content import DIGEST, content_of, digest_of, parse_provenance, parse_result
from lcbench.results.files import META, CellFiles
from lcbench.results.items import ITEMS
from lcbench.system.files import shortened_name
from lcbench.system.versions import DISTRIBUTIONS
from lcbench.tasks import texts

# The most files of one fault that a report names; it counts the others.
_MOST_NAMED = 5

# In provenance: the pooling of a model if neither it nor the request specifies one.
ASSUMED_POOLING = "assumed_pooling"
# In provenance: the digest of the model's files, since those of a commit may have been changed.
MODEL_DIGEST = "model_digest"
# In provenance: the requested path of a model's folder. Older results have none.
MODEL_PATH = "model_path"

# Largest difference between two scores of a cell, as fractions, that count as the same: they agree
# to the fourth decimal, like scores computed on different machines.
_SAME_SCORE = 5e-5

# The heading of imported cells. No protocol's name has a colon, so it cannot coincide with one.
IMPORTED_GROUP = "imported: public results of mteb; prompts, dtype and window unknown"

# Libraries whose versions must be equal for cells to be compared: all that encode or score.
# lcbench's version changes with every commit; relevant changes alter the key instead.
COMPARED_VERSIONS = tuple(name for name in DISTRIBUTIONS if name != "lcbench")

# Columns that together identify a result.
UNIQUE = ("group", "texts", "window", "model", "revision", "policy", "task", "split", "subset")


class LeftOut:
    """Files left out of a report, grouped by reason."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, path: Path, why: str) -> None:
        """Record a file."""
        self._paths.setdefault(why, []).append(path)

    def tell(self, warn: Callable[[str], None]) -> None:
        """Report the files; for many with the same reason, only the first ones."""
        for why, paths in self._paths.items():
            for path in paths[:_MOST_NAMED]:
                warn(f"{path} {why}")
            if len(paths) > _MOST_NAMED:
                warn(f"… and {len(paths) - _MOST_NAMED:,} more, each: {why}")


def result_files(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the paths below a folder where results are stored, sorted.

    Only the levels of the layout are listed, so that circular links do no harm. Folders that cannot
    be listed are reported.
    """
    found: list[Path] = []
    for group in _folders(folder, left_out):
        for model in _folders(group / "results", left_out):
            for revision in _folders(model, left_out):
                found += _json_files(revision, left_out)
                for parts in _folders(revision / "experiments", left_out):
                    found += _json_files(parts, left_out)
    return sorted(found)


def _entries(folder: Path, left_out: LeftOut) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        left_out.add(folder, f"cannot be listed ({error.strerror}): its results are left out.")
        return []


def _folders(folder: Path, left_out: LeftOut) -> list[Path]:
    # `is_dir` raises for a circular link.
    found = []
    for entry in _entries(folder, left_out):
        with suppress(OSError):
            if not entry.name.startswith(".") and entry.is_dir():
                found.append(Path(entry.path))
    return found


def _json_files(folder: Path, left_out: LeftOut) -> list[Path]:
    return [
        Path(entry.path)
        for entry in _entries(folder, left_out)
        # Some systems keep companion files with the same name after a dot.
        if entry.name.endswith(".json") and entry.name[0] != "." and entry.name != META
    ]


@dataclass(frozen=True)
class ReadCell:
    """The content of a cell's files.

    Attributes:
        wrong: why they are not a valid result of the cell; None: they are.
        result: mteb's result.
        provenance: provenance of the result.
    """

    wrong: str | None
    result: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None


def read_cell(results_dir: Path, files: CellFiles, content: bytes) -> ReadCell:
    """Read the files of a cell, and check them against each other and their path.

    Args:
        results_dir: the folder of all results.
        files: of the cell.
        content: content of its result.

    Raises:
        StorageError: the provenance cannot be read: no permission.
    """
    result = parse_result(content)
    if result is None:
        return ReadCell("cannot be read")
    kept = content_of(files.provenance)
    if kept is None:
        return ReadCell(f"has no provenance ({files.provenance.name} is missing)")
    provenance = parse_provenance(kept)
    if provenance is None:
        return ReadCell(f"has no provenance ({files.provenance.name} cannot be read)")
    written = provenance.get(DIGEST)
    if written is not None and written != digest_of(content):
        return ReadCell("was changed after it was written")
    if another := _of_another_cell(results_dir, files, result, provenance):
        return ReadCell(f"is the result of another cell: {another}")
    return ReadCell(None, result, provenance)


def _of_another_cell(
    results_dir: Path, files: CellFiles, result: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str | None:
    """Return how a result contradicts its path, or None if it does not.

    A folder that was copied, renamed or merged by hand would show the scores of one cell as those
    of another. Facts that an older provenance lacks are not compared.
    """
    model, revision, policy = _cell_of(files.folder)
    repair = provenance.get("policy")
    if repair is not None and experiment_folder(parts_of(repair)) == files.folder.name:
        # A folder with a long name has a digest.
        repair = policy
    facts = {
        "task": (result["task_name"], files.task),
        "repair": (repair, policy),
        "revision": (provenance.get("revision"), revision),
    }
    if (name := provenance.get("model")) is not None:
        facts["model"] = (folder_name(str(name)), folder_name(model))
    try:
        key = Protocol.of_record(provenance["protocol"]).key
    except (KeyError, TypeError):
        key = None
    group = _model_folder(files.folder).parents[1]
    with suppress(ValueError):
        facts["protocol"] = (key, str(group.relative_to(results_dir)))
    for what, (said, place) in facts.items():
        if said is not None and str(said) != place:
            return f"{what} {said}, not {place}"
    return None


def _model_folder(folder: Path) -> Path:
    """Return the model's folder that contains a cell's folder."""
    return folder.parents[2] if folder.parent.name == "experiments" else folder.parent


def folder_name(model: str) -> str:
    """Return mteb's folder name of a model; a long one is shortened."""
    return shortened_name(model.replace("/", "__").replace(" ", "_"))


def conditions_of(result: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions beyond the protocol that must be equal for cells to be compared."""
    versions = provenance.get("versions", {})
    versions = versions if isinstance(versions, dict) else {}
    conditions = {
        "dataset_revision": str(result.get("dataset_revision")),
        # A result may have been copied here from elsewhere, so what it states itself also counts.
        "mteb_version": str(result.get("mteb_version")),
        "data": json.dumps(provenance.get("data"), sort_keys=True),
        "prompts": json.dumps(provenance.get("prompts"), sort_keys=True),
        **{name: str(versions.get(name)) for name in COMPARED_VERSIONS},
    }
    if isinstance(provenance.get(ITEMS), str):
        conditions[ITEMS] = provenance[ITEMS]
    if isinstance(provenance.get(MODEL_DIGEST), str):
        conditions[MODEL_DIGEST] = provenance[MODEL_DIGEST]
    if isinstance(provenance.get(ASSUMED_POOLING), str):
        conditions[ASSUMED_POOLING] = provenance[ASSUMED_POOLING]
    return conditions


def result_rows(
    result: Mapping[str, Any],
    files: CellFiles,
    provenance: Mapping[str, Any],
    conditions: Mapping[str, str],
    column_of: Callable[[str, str | None], str],
) -> Iterator[dict[str, Any]]:
    model, revision, policy = _cell_of(files.folder)
    protocol = provenance.get("protocol", {})
    window = provenance.get("window")
    if isinstance(window, float | int) and not window < NO_LIMIT:
        # Infinity, or transformers' number for no limit.
        window = None
    protocol = protocol if isinstance(protocol, dict) else {}
    task = result["task_name"]
    imported = provenance.get("imported")
    # Of imported results, the key has subsets of splits.
    left_out = {} if imported else provenance.get("left_out")
    data = provenance.get("data")
    dataset = data.get("dataset") if isinstance(data, dict) else None
    scores = [
        (split, entry["hf_subset"], entry["main_score"])
        for split, entries in result["scores"].items()
        for entry in entries
    ]
    for split, subsets in (provenance.get("missing") or {}).items():
        scores += [(split, subset, math.nan) for subset in subsets]
    for split, subset, score in scores:
        yield {
            "group": IMPORTED_GROUP if imported else group_name(protocol),
            "texts": texts_of(protocol),
            "dataset": dataset if isinstance(dataset, str) else None,
            "window": window,
            "by_window": texts.depend_on_window(provenance, task),
            "model": provenance.get("model") or model,
            "revision": revision,
            "path": path if isinstance(path := provenance.get(MODEL_PATH), str) else None,
            "policy": provenance.get("policy") or policy,
            "task": task,
            "column": column_of(task, provenance.get("task_type")),
            "split": split,
            "subset": subset,
            "score": score,
            "conditions": conditions,
            "protocol": protocol,
            "files": files,
            "imported": imported,
            "left_out": left_out if isinstance(left_out, dict) else {},
        }


def check_same_score(row: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two rows of the same cell, from different folders, have the same score.

    Raises:
        RequestError: they have not; the message names both files and the conditions that differ.
    """
    score, its = row["score"], other["score"]
    if abs(score - its) <= _SAME_SCORE or (math.isnan(score) and math.isnan(its)):
        return
    here, there = row["conditions"], other["conditions"]
    differing = sorted(
        name for name in {*here, *there} - {ITEMS} if here.get(name) != there.get(name)
    )
    why = f" They differ in: {', '.join(differing)}." if differing else ""
    raise RequestError(
        f"{row['files'].result} and {other['files'].result} are the same cell with different "
        f"scores, {score:.4f} and {its:.4f} (split {row['split']}, subset {row['subset']}).{why} "
        "Report these folders separately, or remove the wrong result."
    )


def _cell_of(folder: Path) -> tuple[str, str, str]:
    """Return model, revision and policy of a folder of results; long names are as shortened."""
    policy = "1"
    if folder.parent.name == "experiments":
        policy, folder = canonical_of_folder(folder.name), folder.parents[1]
    return folder.parent.name.replace("__", "/"), folder.name, policy


def separate_texts(rows: list[dict[str, Any]]) -> None:
    """Put tasks of the same name but different texts into separate groups.

    A task whose texts depend on the window has different ones for each window. Datasets of the hub
    have commits, which `conditions` compare.
    """
    names = [texts.heading_of(row["dataset"]) for row in rows]
    kinds = [
        (row["group"], name, row["window"] if row["by_window"] else None)
        for row, name in zip(rows, names, strict=True)
    ]
    digests: dict[Any, set[str]] = {}
    for row, kind in zip(rows, kinds, strict=True):
        if row["texts"] is not None:
            digests.setdefault(kind, set()).add(row["texts"])
    for row, name, kind in zip(rows, names, kinds, strict=True):
        if row["texts"] is not None and len(digests[kind]) > 1:
            row["group"] += f", {name} {row['texts'][:8]}"


# The prompts that a protocol's name implies; others are named, so that they get separate tables.
_PROMPTS_OF = {"leaderboard": "registry", "model": "model"}


def group_name(protocol: Mapping[str, Any]) -> str:
    """Return the group of a protocol's cells, which a table may show together."""
    name = str(protocol.get("name", "unknown protocol"))
    parts = [name]
    if protocol.get("prompts", "none") != _PROMPTS_OF.get(name, "none"):
        parts.append(f"prompts {protocol.get('prompts')}")
    if protocol.get("dtype", "float32") != "float32":
        parts.append(str(protocol["dtype"]))
    if protocol.get("splits", "test") != "test":
        parts.append(f"splits {protocol['splits']}")
    if protocol.get("pooling") is not None:
        parts.append(f"pooling {protocol['pooling']}")
    if protocol.get("special_tokens") is not None:
        parts.append(f"special tokens {protocol['special_tokens'] or 'none'}")
    if protocol.get("dimensions") is not None:
        parts.append(f"{protocol['dimensions']} dimensions")
    if protocol.get("own_code"):
        parts.append("own code")
    if protocol.get("limit") is not None:
        parts.append(f"limit {protocol['limit']}")
    if protocol.get("subsets") is not None:
        parts.append(f"subsets {', '.join(protocol['subsets'])}")
    return ", ".join(parts)


def group_without_own(group: str, protocol: Mapping[str, Any]) -> str:
    """Return a group without what is the model's own: prompts, pooling, special tokens, code, size.

    Groups that are then equal have comparable scores of different models.

    Args:
        group: group of a cell, which may name more than its protocol.
        protocol: protocol of the cell.
    """
    own = {
        str(protocol.get("name", "unknown protocol")),
        f"prompts {protocol.get('prompts')}",
        f"pooling {protocol.get('pooling')}",
        f"special tokens {protocol.get('special_tokens') or 'none'}",
        f"{protocol.get('dimensions')} dimensions",
        "own code",
    }
    return ", ".join(part for part in group.split(", ") if part not in own)
