"""What identifies a cell, and the order in which a grid is run."""

from dataclasses import fields, replace

import pytest

from lcbench.plan.layout import expand
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.tempscale.policy import Constant

PROTOCOL = Protocol("paper", "none", "float32", "test", subsets=None, window=None, texts=None)


def test_the_key_is_stable() -> None:
    # Results on users' disks are found by it: a change here makes every one of them be run again.
    assert PROTOCOL.key == "paper-63cb14e4"


def test_a_record_names_its_fields_as_those_on_users_disks() -> None:
    protocol = replace(PROTOCOL, texts="c" * 40)
    assert Protocol.of_record(protocol.record) == protocol
    # Without the fields that versions before did not have.
    older = {name: protocol.record[name] for name in protocol.record if name != "own_code"}
    assert Protocol.of_record(older) == protocol
    assert protocol.record == {
        "name": "paper",
        "prompts": "none",
        "dtype": "float32",
        "splits": "test",
        "subsets": None,
        "window": None,
        "docs": "c" * 40,
        "pooling": None,
        "own_code": False,
    }
    cut = replace(protocol, dimensions=64, special_tokens="bos eos")
    assert Protocol.of_record(cut.record) == cut
    assert cut.record == {**protocol.record, "dimensions": 64, "special_tokens": "bos eos"}


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol)])
def test_every_field_is_part_of_the_key(field: str) -> None:
    changed = replace(PROTOCOL, **{field: 512 if field == "window" else "another"})
    assert changed.key != PROTOCOL.key


def test_expansion_keeps_one_repair_of_one_model_together() -> None:
    cells = list(
        expand(
            [("a/m", "1"), ("a/n", "2")],
            [NO_REPAIR, Repair(Constant(0.8))],
            [("T", PROTOCOL), ("U", PROTOCOL)],
        )
    )
    order = [(cell.model, cell.repair.canonical, cell.task) for cell in cells]
    assert order == [
        (model, repair, task)
        for model in ("a/m", "a/n")
        for repair in ("1", "0.8")
        for task in ("T", "U")
    ]
    assert str(cells[3]) == "m, τ = 0.8, U"
    assert cells[0] == Cell("a/m", "1", NO_REPAIR, "T", PROTOCOL)
