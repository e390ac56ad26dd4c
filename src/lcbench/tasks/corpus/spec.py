"""What a request says of a user's own texts: a path, which columns hold what, and no more.

Nothing is read here but the names; `layout` looks at what lies there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lcbench.errors import RequestError, did_you_mean

HUB = "hf://"
COMPRESSED = ".gz"
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Of files that are read; text files also compressed (`.jsonl.gz`)."""
KINDS = ("retrieval", "classification", "clustering", "sts")
ROLES = ("id", "title", "query", "text", "label", "text_a", "text_b", "score", "split")
"""What a column can hold, which are the keys of a column map."""
_OTHERS = ("path", "kind", "part", "config", "revision", "language", "name")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", flags=re.ASCII)
_LANGUAGE = re.compile("[a-z]{3}-[A-Z][a-z]{3}")
_EXAMPLE = "'tasks=[{path: a.csv, query: q, text: body}]'"


@dataclass(frozen=True)
class OwnTexts:
    """A user's texts as a request names them.

    Attributes:
        path: of a file or folder; `hf://org/name`: a dataset of the hub.
        columns: name of the column by role (`ROLES`), for those that the request maps.
        kind: one of `KINDS`; None: whatever the columns allow.
        part: of a BEIR folder, the name of the judgements that are scored (`test`); of a dataset of
            the hub, its split.
        config: configuration of a dataset of the hub.
        revision: commit of a dataset of the hub.
        language: of the texts, as mteb writes it.
        name: what the tasks are called; None: after the file or folder.
    """

    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    kind: str | None = None
    part: str | None = None
    config: str | None = None
    revision: str | None = None
    language: str = "eng-Latn"
    name: str | None = None

    @property
    def is_of_hub(self) -> bool:
        """Whether it is a dataset of the hub."""
        return self.path.startswith(HUB)


def is_class(name: str) -> bool:
    """Return whether a name in `tasks` is a task class to import, `mypackage.tasks:MyTask`."""
    return _CLASS.fullmatch(name) is not None


def is_path(name: str) -> bool:
    """Return whether a name in `tasks` is a path or a dataset of the hub, and no task's name."""
    return "/" in name or is_data_file(name)


def is_data_file(name: str) -> bool:
    """Return whether a file's name has one of `ENDINGS`."""
    return name.lower().removesuffix(COMPRESSED).endswith(ENDINGS)


def read_spec(value: str | Mapping[str, Any]) -> OwnTexts:
    """Return the texts that an entry of `tasks` names.

    Args:
        value: a path, or a mapping with `path`, columns by role and the other fields of
            `OwnTexts`.

    Raises:
        RequestError: a key or value that there is not.
    """
    if isinstance(value, str):
        return _checked(OwnTexts(value), value)
    shown = f"tasks=[{{{', '.join(f'{key}: {one}' for key, one in value.items())}}}]"
    for key, one in value.items():
        if key not in (*ROLES, *_OTHERS):
            near = did_you_mean(str(key), (*ROLES, *_OTHERS))
            raise RequestError(
                f"{shown}: {key} is not a key.{near} Columns are mapped by {', '.join(ROLES)}; "
                f"further keys are {', '.join(_OTHERS)}: {_EXAMPLE}"
            )
        if isinstance(one, bool) or not isinstance(one, str | int | float) or one == "":
            raise RequestError(f"{shown}: {key} is not a name. For example: {_EXAMPLE}")
    if "path" not in value:
        raise RequestError(f"{shown} names no path: {_EXAMPLE}")
    columns = {role: str(value[role]) for role in ROLES if role in value}
    twice = sorted(name for name in set(columns.values()) if list(columns.values()).count(name) > 1)
    if twice:
        raise RequestError(f"{shown}: the column {twice[0]} is mapped twice.")
    known = {one.name for one in fields(OwnTexts)}
    others = {key: str(one) for key, one in value.items() if key in known}
    return _checked(OwnTexts(**others, columns=columns), shown)


def _checked(texts: OwnTexts, shown: str) -> OwnTexts:
    if texts.kind is not None and texts.kind not in KINDS:
        near = did_you_mean(texts.kind, KINDS)
        raise RequestError(f"{shown}: kind is one of {', '.join(KINDS)}.{near}")
    if not _LANGUAGE.fullmatch(texts.language):
        raise RequestError(f"{shown}: a language is written as in mteb: language: deu-Latn")
    if texts.is_of_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", texts.path.removeprefix(HUB)):
        raise RequestError(f"{shown}: a dataset of the hub is written hf://organisation/name.")
    if not texts.is_of_hub and "://" in texts.path:
        raise RequestError(f"{shown}: a file is not fetched from an address; download it first.")
    if not texts.is_of_hub and (texts.config or texts.revision):
        raise RequestError(f"{shown}: config and revision are of datasets of the hub (hf://…).")
    return texts
