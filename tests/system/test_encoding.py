"""What is written and read is UTF-8 whatever the locale: each place in the code says so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.py")])
# Of these functions, those that open a text unless they are told that it is bytes.
OPENING = {"open", "fdopen", "read_text", "write_text", "NamedTemporaryFile", "TextIOWrapper"}
STARTING = {"run", "Popen", "check_output"}


def without_encoding(source: str) -> Iterator[int]:
    """Yield the lines of calls that take the encoding of the locale."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        named = {one.arg for one in call.keywords}
        # partial(Path.write_text, …) and the like name the function first.
        called = [call.func, *call.args[:1]] if _name(call.func) == "partial" else [call.func]
        for function in called:
            name, owner = _name(function), _name(getattr(function, "value", None))
            is_text = name in OPENING and not _is_of_bytes(call, name, owner)
            if name in STARTING and owner == "subprocess":
                is_text = bool(named & {"text", "universal_newlines"})
            if is_text and owner != "self" and "encoding" not in named:
                yield call.lineno


def _name(node: ast.AST | None) -> str:
    return str(getattr(node, "attr", None) or getattr(node, "id", None) or "")


def _is_of_bytes(call: ast.Call, name: str, owner: str) -> bool:
    """Whether an opening is of bytes, or a function of another kind that has the same name."""
    if name not in ("open", "fdopen"):
        return False
    # os.open opens a descriptor; `segments.open` a segment of the store.
    if name == "open" and owner in ("os", "segments", "_segments"):
        return True
    given = [one for one in call.args if isinstance(one, ast.Constant)]
    given += [one.value for one in call.keywords if isinstance(one.value, ast.Constant)]
    return any(isinstance(one.value, str) and "b" in one.value for one in given[:1])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_names_its_encoding(path: Path) -> None:
    assert list(without_encoding(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("call", "is_seen"),
    [
        ("path.read_text()", True),
        ("path.open()", True),
        ("partial(Path.write_text, data=text)", True),
        ("subprocess.run(command, text=True)", True),
        ("os.fdopen(number)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("open(path, 'w', encoding='utf-8')", False),
        ("subprocess.run(command, encoding='utf-8')", False),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_what_is_seen(call: str, is_seen: bool) -> None:
    assert bool(list(without_encoding(call))) == is_seen
