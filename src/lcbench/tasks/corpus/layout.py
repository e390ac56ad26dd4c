"""Looks at a user's file or folder: which tasks it makes, of which files and columns."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lcbench.errors import RequestError
from lcbench.system.words import reason_of
from lcbench.tasks.corpus.digests import digest_of_file
from lcbench.tasks.corpus.names import safe_name, task_name
from lcbench.tasks.corpus.plan import OwnTask, Table
from lcbench.tasks.corpus.read import Rows, columns_of, ending_of, missing_columns, wrong
from lcbench.tasks.corpus.spec import COMPRESSED, ENDINGS, OwnTexts, is_data_file

# Raise it when other items are read of the same files.
_RULES = 1
# Names of columns that are recognised, the best first; in lower case.
_KNOWN = {
    "id": ("_id", "id"),
    "title": ("title", "headline", "subject"),
    "query": ("query", "question"),
    "text": ("text", "body", "content", "document", "passage", "sentence"),
    "label": ("label", "labels", "category", "class", "topic", "label_text"),
    "text_a": ("text_a", "sentence1", "text1", "sentence_a"),
    "text_b": ("text_b", "sentence2", "text2", "sentence_b"),
    "score": ("score", "similarity"),
    "split": ("split",),
}
_JUDGED = {
    "query": ("query-id", "query_id", "qid", "query"),
    "id": ("corpus-id", "corpus_id", "doc_id", "docid", "document"),
    "score": ("score", "relevance", "grade", "label"),
}
# The columns of each kind, the most telling first; `text` alone makes a retrieval task as well.
_NEEDED = {
    "sts": ("text_a", "text_b", "score"),
    "retrieval": ("query", "text"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
}
_PARTS = ("train", "test")
_LAYOUTS = (
    "A folder has corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR's layout), or train and "
    "test files with text and label, or corpus.jsonl alone"
)
_MAP = "Map the columns: 'tasks=[{path: PATH, text: COLUMN}]' (docs/own-texts.md)."


def tasks_of(texts: OwnTexts, folder: Path | None = None) -> tuple[OwnTask, ...]:
    """Return the tasks that a user's texts make; two of labelled texts, else one.

    Args:
        texts: as the request names them.
        folder: of a dataset of the hub.

    Raises:
        RequestError: there is no such file, or none of a known layout.
    """
    path = Path(os.path.abspath(os.path.expanduser(texts.path))) if folder is None else folder  # noqa: PTH100, PTH111
    if folder is not None:
        found = _of_splits(texts, path)
    elif path.is_dir():
        found = _of_folder(texts, path)
    elif path.exists():
        found = {"rows": _file(path)}
    else:
        raise RequestError(
            f"tasks={texts.path}: there is no file or folder {path}. Names of tasks have no /, and "
            "a dataset of the hub is written hf://organisation/name."
        )
    if "corpus" in found and len(found) == 1:
        found = {"rows": found["corpus"]}
    if "qrels" in found:
        tables = _beir(texts, found)
        kinds: tuple[str, ...] = ("retrieval",)
    else:
        tables, kinds = _recognised(texts, found)
    stem = texts.name or _stem(texts, path)
    return tuple(
        OwnTask(
            name=task_name(stem, kind),
            kind=kind,
            tables=tables,
            language=texts.language,
            digest=digest_of(kind, tables, texts.language),
        )
        for kind in kinds
    )


def digest_of(kind: str, tables: Sequence[Table], language: str) -> str:
    """Return the digest of the content of a task, whatever its files are called.

    Raises:
        RequestError: a file cannot be read.
    """
    content = [
        [one.part, list(one.columns), one.rows.config, one.rows.split, one.rows.format]
        + [digest_of_file(path) for path in files_of(one.rows)]
        for one in tables
    ]
    return hashlib.sha256(json.dumps([_RULES, kind, language, content]).encode()).hexdigest()[:40]


def files_of(rows: Rows) -> list[Path]:
    """Return the files that rows are read from: one, or those of a dataset's folder."""
    path = Path(rows.path)
    if rows.split is None:
        return [path]
    return sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))


def with_unique_names(tasks: Sequence[OwnTask], taken: Sequence[str] = ()) -> tuple[OwnTask, ...]:
    """Return distinct tasks, with a part of the digest in names that several would have.

    Args:
        tasks: of one request.
        taken: names of other tasks.
    """
    distinct = list({(one.name, one.digest): one for one in tasks}.values())
    names = [one.name for one in distinct] + list(taken)
    return tuple(
        one
        if names.count(one.name) == 1
        else replace(one, name=task_name(f"{_middle(one)}-{one.digest[:6]}", one.kind))
        for one in distinct
    )


def _middle(task: OwnTask) -> str:
    return task.name.partition("-")[2].removesuffix(f"-{task.kind}")


def _stem(texts: OwnTexts, path: Path) -> str:
    if texts.is_of_hub:
        return safe_name(texts.path.rpartition("/")[2])
    if path.is_dir():
        return path.name
    name = path.name
    for ending in (COMPRESSED, *ENDINGS):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return name


def _file(path: Path) -> Rows:
    if not path.is_file() or not is_data_file(path.name):
        raise RequestError(
            f"tasks={path}: files of texts end in {', '.join(ENDINGS)}; all but Parquet may be "
            f"compressed ({COMPRESSED})."
        )
    if ending_of(path) == ".parquet" and path.name.lower().endswith(COMPRESSED):
        raise RequestError(f"{path}: Parquet is compressed in itself; decompress it: gunzip.")
    return Rows(str(path))


def _of_folder(texts: OwnTexts, folder: Path) -> dict[str, Rows]:
    """Return the files of a folder by what they are.

    Raises:
        RequestError: it has no known layout.
    """
    there = {
        _part_name(one): one
        for one in sorted(folder.iterdir())
        if one.is_file() and is_data_file(one.name)
    }
    if "corpus" in there or "queries" in there:
        found: dict[str, Rows] = {}
        found |= {name: _file(there[name]) for name in ("corpus", "queries") if name in there}
        judged = _judgements(texts, folder, there)
        if judged is not None:
            found["qrels"] = judged
        lacking = {"corpus", "queries", "qrels"} - set(found)
        if lacking and set(found) != {"corpus"}:
            raise RequestError(f"{folder} lacks {' and '.join(sorted(lacking))}. {_LAYOUTS}.")
        return found
    if set(_PARTS) <= set(there):
        return {name: _file(there[name]) for name in _PARTS}
    listed = ", ".join(one.name for one in sorted(folder.iterdir())[:20]) or "nothing"
    raise RequestError(f"{folder} has no known layout; it has {listed}. {_LAYOUTS}.")


def _part_name(path: Path) -> str:
    return path.name.partition(".")[0].lower()


def _judgements(texts: OwnTexts, folder: Path, there: Mapping[str, Path]) -> Rows | None:
    """Return the file of judgements that is scored: `part`, or `test`, or the only one."""
    files = {"qrels": there["qrels"]} if "qrels" in there else {}
    below = folder / "qrels"
    if below.is_dir():
        files = {
            _part_name(one): one
            for one in sorted(below.iterdir())
            if one.is_file() and is_data_file(one.name)
        }
    if not files:
        return None
    wanted = texts.part or ("test" if "test" in files else None)
    if wanted is None and len(files) == 1:
        wanted = next(iter(files))
    if wanted not in files:
        raise RequestError(
            f"{below}: which judgements are scored? There are {', '.join(files)}: "
            f"'tasks=[{{path: {texts.path}, part: {next(iter(files))}}}]'"
        )
    return _file(files[wanted])


def _of_splits(texts: OwnTexts, folder: Path) -> dict[str, Rows]:
    """Return the splits of a dataset of the hub: train and test, or the one that was asked for.

    Raises:
        RequestError: `datasets` cannot read it, or there is no such split.
    """
    from datasets import get_dataset_config_names, get_dataset_split_names

    try:
        configs = get_dataset_config_names(str(folder))
        config = texts.config or ("default" if "default" in configs else configs[0])
        if config not in configs or (
            texts.config is None and len(configs) > 1 and config != "default"
        ):
            raise RequestError(
                f"tasks={texts.path}: which configuration? There are {', '.join(configs)}: "
                f"'tasks=[{{path: {texts.path}, config: {configs[0]}}}]'"
            )
        splits = get_dataset_split_names(str(folder), config)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(
            f"tasks={texts.path}: datasets cannot read {folder} ({reason_of(error)})."
        ) from error
    if texts.part is not None and texts.part not in splits:
        raise RequestError(
            f"tasks={texts.path}: there is no split {texts.part}; there are: {', '.join(splits)}."
        )
    if texts.part is None and set(_PARTS) <= set(splits):
        return {name: Rows(str(folder), config, name) for name in _PARTS}
    split = texts.part or ("test" if "test" in splits else splits[0])
    return {"rows": Rows(str(folder), config, split)}


def _beir(texts: OwnTexts, found: Mapping[str, Rows]) -> tuple[Table, ...]:
    tables = []
    for part in ("corpus", "queries", "qrels"):
        rows = found[part]
        there = columns_of(rows)
        known = _JUDGED if part == "qrels" else _KNOWN
        roles = {"corpus": ("id", "title", "text"), "queries": ("id", "text")}.get(
            part, ("query", "id", "score")
        )
        own = {} if part == "qrels" else texts.columns
        columns = _matched(rows, there, roles, known, own)
        lacking = [role for role in roles if role not in columns and role != "title"]
        if lacking:
            names = [known[role][0] for role in lacking]
            remedy = (
                "The first line has the names: query-id, corpus-id, score."
                if part == "qrels"
                else "Each line has _id and text."
            )
            raise missing_columns(rows, names, there, remedy)
        tables.append(Table(part, rows, tuple(columns.items())))
    return tuple(tables)


def _recognised(
    texts: OwnTexts, found: Mapping[str, Rows]
) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Return the tables of files of rows, and the kinds of tasks that their columns make.

    Raises:
        RequestError: a column is missing, or none is recognised.
    """
    first = found.get("test") or next(iter(found.values()))
    there = columns_of(first)
    if not there:
        raise wrong(first, None, "it has no rows.")
    columns = _matched(first, there, tuple(_KNOWN), _KNOWN, texts.columns)
    kinds = _kinds(texts, columns, first, there)
    roles = _NEEDED[kinds[0]]
    if kinds == ("retrieval",):
        # A title is the query of its text; a text alone gives its first sentence.
        asking = [role for role in ("query", "title") if role in columns]
        asks = next((role for role in asking if role in texts.columns), *asking[:1] or (None,))
        roles = ("text",) if asks is None else (asks, "text")
    elif kinds[0] in ("classification", "clustering") and "rows" in found and "split" in columns:
        roles = (*roles, "split")
    kept = {part: rows for part, rows in found.items() if part == "rows" or "label" in roles}
    if not kept:
        # Without labels nothing is trained.
        kept = {"rows": first}
    tables = []
    for part, rows in kept.items():
        names = columns_of(rows)
        lacking = [columns[role] for role in roles if columns[role] not in names]
        if lacking:
            raise missing_columns(rows, lacking, names, _MAP)
        tables.append(Table(part, rows, tuple((role, columns[role]) for role in roles)))
    return tuple(tables), kinds


def _kinds(
    texts: OwnTexts, columns: Mapping[str, str], rows: Rows, there: Sequence[str]
) -> tuple[str, ...]:
    def lacking(kind: str) -> list[str]:
        wanted = ("text",) if kind == "retrieval" else _NEEDED[kind]
        return [role for role in wanted if role not in columns]

    if texts.kind is not None:
        if missing := lacking(texts.kind):
            raise missing_columns(rows, missing, there, f"kind: {texts.kind} needs it. {_MAP}")
        return (texts.kind,)
    # A column that was mapped says what is meant, whatever else there is.
    mapped = set(texts.columns)
    if not lacking("sts") and not mapped & {"query", "text", "label", "title"}:
        return ("sts",)
    if {"query", "text"} <= set(columns) and "label" not in mapped:
        return ("retrieval",)
    if not lacking("classification") and not mapped & {"title", "query"}:
        return ("classification", "clustering")
    if lacking("retrieval"):
        raise missing_columns(rows, ("text",), there, _MAP)
    return ("retrieval",)


def _matched(
    rows: Rows,
    there: Sequence[str],
    roles: Sequence[str],
    known: Mapping[str, Sequence[str]],
    mapped: Mapping[str, str],
) -> dict[str, str]:
    """Return the column of each role that has one: as mapped, else by its name.

    Raises:
        RequestError: a mapped column is missing.
    """
    lacking = [mapped[role] for role in roles if role in mapped and mapped[role] not in there]
    if lacking:
        raise missing_columns(rows, lacking, there, "")
    free = [name for name in there if name not in mapped.values()]
    columns = {}
    for role in roles:
        if role in mapped:
            columns[role] = mapped[role]
            continue
        for name in known[role]:
            match = next((one for one in free if one.lower() == name), None)
            if match is not None:
                columns[role] = match
                break
    return columns
