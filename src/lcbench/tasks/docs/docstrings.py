"""Collects the docstrings of four libraries, human-written text in every installation.

The sources are parsed, not imported: nothing is executed, and the same versions give the same texts
on every machine. `selection` draws the tasks' texts from them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lcbench.errors import RequestError
from lcbench.system.files import cache_folder
from lcbench.system.json_cache import JsonCache

# Importable name → distribution.
LIBRARIES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
}
# Raise it when a rule below changes, so that older caches are not used.
_COLLECTOR = 1
# Folders of tests, or of copies of other projects that only some releases contain.
_SKIPPED = {
    "tests",
    "testing",
    "_testing",
    "conftest.py",
    "_vendored",
    "externals",
    "_external",
    "_externals",
    "extern",
    "array_api_compat",
    "array_api_extra",
    "f2py",
    "distutils",
}
# Placeholders that the libraries fill in on import, so that a reader never sees them.
_PLACEHOLDER = re.compile(r"%\(\w+\)s|\{[a-z_]*(?:klass|name|desc|method|params)[a-z_]*\}")
_FEWEST_SUMMARY_WORDS = 4
_FEWEST_BODY_WORDS = 20


@dataclass(frozen=True)
class Docstring:
    """A docstring of a public class, function or method.

    Attributes:
        id: `<module>:<qualified name>`.
        library: importable name of the library.
        module: dotted name of the module.
        summary: first paragraph on one line.
        body: text after the first paragraph.
    """

    id: str
    library: str
    module: str
    summary: str
    body: str

    @property
    def subpackage(self) -> str:
        """The part of the library that it belongs to: `scipy.stats`, `pandas.core.strings`."""
        parts = self.module.split(".")
        return ".".join(parts[: 3 if parts[:2] == ["pandas", "core"] else 2])


def collect() -> tuple[Docstring, ...]:
    """Return the docstrings of the installed libraries, sorted by id; cached by their versions.

    A query cannot distinguish two objects with the same summary or body, so summaries that occur
    twice are left out, and the first of equal bodies is kept.

    Raises:
        RequestError: a library is not installed.
    """
    cache = JsonCache(f"docstrings-{_versions_digest()}.json")
    collected = cache.read(lambda content: tuple(Docstring(**doc) for doc in content))
    if collected is None:
        collected = tuple(_distinct(_walk_libraries()))
        cache.write([asdict(doc) for doc in collected])
        _remove_old_caches()
    return collected


def _remove_old_caches() -> None:
    """Remove files that earlier versions of lcbench wrote and this one does not read."""
    with suppress(OSError, RuntimeError):
        for path in cache_folder().glob("docstrings-*.jsonl"):
            if re.fullmatch(r"docstrings-[0-9a-f]{16}\.jsonl", path.name):
                path.unlink()


def _versions_digest() -> str:
    versions: dict[str, str | int] = {"collector": _COLLECTOR}
    for distribution in LIBRARIES.values():
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            raise RequestError(
                f"The docs suite needs the docstrings of {distribution}, which is not "
                f"installed: pip install {distribution}"
            ) from None
    content = json.dumps(versions, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _distinct(docstrings: Iterable[Docstring]) -> Iterator[Docstring]:
    ordered = sorted(docstrings, key=lambda doc: doc.id)
    summaries = Counter(doc.summary.lower() for doc in ordered)
    bodies: set[str] = set()
    for doc in ordered:
        if summaries[doc.summary.lower()] == 1 and doc.body not in bodies:
            bodies.add(doc.body)
            yield doc


def _walk_libraries() -> Iterator[Docstring]:
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        if spec is None or not spec.submodule_search_locations:
            continue
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root.parent)
            if any(part in _SKIPPED or part.startswith("test_") for part in relative.parts):
                continue
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            try:
                tree = ast.parse(path.read_bytes())
            except SyntaxError:
                continue  # a template, or written for another version of Python
            yield from _walk(tree, library, module, ())


def _walk(node: ast.AST, library: str, module: str, outer: tuple[str, ...]) -> Iterator[Docstring]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try):
            yield from _walk(child, library, module, outer)
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if child.name.startswith("_"):
            continue
        name = (*outer, child.name)
        text = ast.get_docstring(child)
        if text is not None:
            summary, _, body = text.partition("\n\n")
            doc = Docstring(
                id=f"{module}:{'.'.join(name)}",
                library=library,
                module=module,
                summary=" ".join(summary.split()),
                body=body.strip(),
            )
            if _is_usable(doc):
                yield doc
        if isinstance(child, ast.ClassDef):
            yield from _walk(child, library, module, name)


def _is_usable(doc: Docstring) -> bool:
    return (
        len(doc.summary.split()) >= _FEWEST_SUMMARY_WORDS
        and len(doc.body.split()) >= _FEWEST_BODY_WORDS
        and not _PLACEHOLDER.search(doc.summary)
        and not _PLACEHOLDER.search(doc.body)
        and doc.summary not in doc.body
    )
