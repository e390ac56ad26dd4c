"""JSON files in the cache folder that only save time: missing or damaged ones are made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lcbench.errors import StorageError
from lcbench.system.files import cache_folder, write_atomically

T = TypeVar("T")


class JsonCache:
    """A JSON file in the cache folder; errors of it are ignored."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Use a file.

        Args:
            name: name of the file, including versions that the content depends on.
            folder: folder of the file; None: lcbench's cache folder at the time of use.
        """
        self._name = name
        self._folder = folder

    def read(self, parse: Callable[[Any], T]) -> T | None:
        """Return the file's content; None if it is missing, unreadable or has another layout.

        Args:
            parse: converts the file's JSON to a value; may raise any error that a wrong layout
                causes.
        """
        try:
            return parse(json.loads(self._path().read_text(encoding="utf-8")))
        # No file, no JSON, JSON nested too deeply, or (RuntimeError) no home folder.
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError):
            return None

    def write(self, content: Any) -> None:
        """Replace the file's content, if the folder can be written."""
        with suppress(StorageError, RuntimeError):
            write_atomically(self._path(), json.dumps(content, ensure_ascii=False))

    def _path(self) -> Path:
        return (self._folder or cache_folder()) / self._name
