"""`results.cell_items`: files of a cell are opened once, columns decoded once."""

from pathlib import Path

import pyarrow as pa
import pytest
from report_cells import item_rows, write_cell

from lcbench.results import cell_items
from lcbench.results.cell_items import CellItems
from lcbench.results.folder import Results
from lcbench.results.items import ItemsError


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


def test_columns_are_kept(results: Results) -> None:
    files = write_cell(results, "T", 0.5, item_rows([0.4, 0.6], gold=["a", "b"]))
    cell = CellItems(files)
    first = cell.table(["split", "score"])
    assert first.column_names == ["split", "score"]
    assert first["score"].to_pylist() == [0.4, 0.6]
    assert pa.types.is_dictionary(first["split"].type)
    # What is read later comes from the file as it was.
    files.items.unlink()
    files.result.unlink()
    second = cell.table(["gold", "score"])
    assert second["gold"].to_pylist() == ["a", "b"]
    assert (
        second["score"].chunk(0).buffers()[1].address
        == first["score"].chunk(0).buffers()[1].address
    )
    assert (cell.metadata.num_rows, "gold" in cell.names) == (2, True)
    with pytest.raises(KeyError, match="nothing"):
        cell.table(["score", "nothing"])


def test_the_result_is_read_once(results: Results) -> None:
    cell = CellItems(write_cell(results, "T", 0.5))
    assert cell.result is not None
    cell.files.result.unlink()
    assert cell.result["scores"]["test"][0]["main_score"] == 0.5
    assert CellItems(cell.files).result is None


@pytest.mark.parametrize("state", ["missing", "changed"])
def test_items_that_cannot_be_read_are_tried_once(
    results: Results, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    files = write_cell(results, "T", 0.5, item_rows([0.4, 0.6]))
    tried = []
    original = cell_items.whole_items

    def counted(asked: object) -> pa.BufferReader:
        tried.append(asked)
        return original(files)

    monkeypatch.setattr(cell_items, "whole_items", counted)
    if state == "missing":
        files.items.unlink()
    else:
        files.items.write_bytes(b"other")
    cell = CellItems(files)
    for _ in range(2):
        with pytest.raises((FileNotFoundError, ItemsError)) as error:
            cell.table(["score"])
        assert isinstance(error.value, ItemsError) == (state == "changed")
    assert tried == [files]
