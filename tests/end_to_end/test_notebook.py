"""The notebook in docs: its cells run one after the other, as Jupyter runs them."""

import ast
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_the_cells_of_the_notebook_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    names: dict[str, Any] = {}
    values = [shown("".join(cell["source"]), names) for cell in cells]
    results, scores, lengths, items, written, loaded, similar, shape = values
    assert results.failed == {}
    assert scores[scores["tau"] == 1]["improvement"].tolist() == [0, 0]
    assert scores["score"].between(30, 100).all()
    assert len(scores) == 6
    assert lengths["count"].min() >= 20
    assert items.is_monotonic_increasing
    assert written.page.is_file()
    assert written.page == Path("results/quickstart/report/index.html")
    pd.testing.assert_frame_equal(loaded, results.table1, check_like=True)
    assert similar[0] != similar[1]
    assert shape == (384,)
    assert "warning" not in capsys.readouterr().err
