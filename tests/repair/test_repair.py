"""A repair's name, and the folder that mteb gives its results."""

import pytest
from mteb.models.model_meta import ModelMeta

from lcbench.repair.repair import NO_REPAIR, Repair, experiment_folder
from lcbench.tempscale.policy import ModelShape, parse

LAYERS = {"layers": {layer: 0.5 + layer / 100 for layer in range(24)}}
SHAPE = ModelShape(layers=24, window=512, position_bias=False)


def test_nothing_tried_is_the_baseline() -> None:
    assert NO_REPAIR.is_baseline
    assert (NO_REPAIR.parts, NO_REPAIR.canonical, str(NO_REPAIR)) == ({}, "1", "τ = 1")
    assert Repair(parse(1.0)) == NO_REPAIR
    assert Repair(parse({"query": 1.0, "document": 1.0})).resolve(SHAPE) == NO_REPAIR


def test_a_repair_has_one_name_however_it_was_written() -> None:
    (one, other) = (Repair(parse(tau)) for tau in ("0.80", 0.8))
    assert one == other
    assert (one.parts, one.canonical, str(one)) == ({"tau": "0.8"}, "0.8", "τ = 0.8")


@pytest.mark.parametrize(
    ("tau", "differs"),
    [
        (0.8, False),
        ({"query": 0.8, "document": 0.8}, False),
        ({"query": 0.8, "document": 1.0}, True),
        ({"length": {0: 1.0, 256: 0.9}}, False),
    ],
)
def test_roles_are_distinguished_where_they_differ(tau: object, differs: bool) -> None:
    assert Repair(parse(tau)).depends_on_role is differs


@pytest.mark.parametrize("tau", [0.8, {"query": 0.8, "document": 1.0}, LAYERS])
def test_the_folder_is_the_one_that_mteb_takes(tau: object) -> None:
    """Of a long name mteb takes a digest, and so do we: its own scripts find the results."""
    parts = Repair(parse(tau)).resolve(SHAPE).parts
    meta = ModelMeta.create_empty(overwrites={"experiment_kwargs": dict(parts)})
    assert experiment_folder(parts) == meta.experiment_name
    several = {**parts, "extend": "pi=4096"}
    meta = ModelMeta.create_empty(overwrites={"experiment_kwargs": several})
    assert experiment_folder(several) == meta.experiment_name
