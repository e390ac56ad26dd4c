"""A repair's name, and the folder that mteb gives its results."""

import pytest
from mteb.models.model_meta import ModelMeta

from lcbench.errors import RequestError
from lcbench.repair.correction import parse as correction
from lcbench.repair.repair import (
    NO_REPAIR,
    Repair,
    canonical_of_folder,
    experiment_folder,
    label_of,
    parse_all,
    parts_of,
)
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


BOTH = Repair(parse(0.9), correction({"abtt": 3}))


@pytest.mark.parametrize(
    ("repair", "canonical", "label", "folder"),
    [
        (NO_REPAIR, "1", "τ = 1", ""),
        (Repair(parse(0.9)), "0.9", "τ = 0.9", "tau_0.9"),
        (Repair(correction=correction("centre")), "correct=centre", "centre", "correct_centre"),
        (BOTH, "0.9 + correct=abtt=3", "τ = 0.9 + abtt=3", "correct_abtt=3__tau_0.9"),
        (
            Repair(parse({"query": 0.9, "document": 1}), correction("whiten")),
            "query=0.9,document=1 + correct=whiten",
            "τ = query=0.9,document=1 + whiten",
            "correct_whiten__tau_query=0.9,document=1",
        ),
    ],
)
def test_the_parts_of_a_repair_name_it(
    repair: Repair, canonical: str, label: str, folder: str
) -> None:
    assert (repair.canonical, str(repair), label_of(canonical)) == (canonical, label, label)
    assert parts_of(canonical) == repair.parts
    assert experiment_folder(repair.parts) == folder
    if folder:
        meta = ModelMeta.create_empty(overwrites={"experiment_kwargs": dict(repair.parts)})
        assert meta.experiment_name == folder
        assert canonical_of_folder(folder) == canonical


def test_a_digest_of_a_long_name_stays_one() -> None:
    assert canonical_of_folder("exp_0123456789abcdef") == "exp_0123456789abcdef"


def asked_for(tau: object, correct: object = None, repairs: object = None) -> dict[str, object]:
    return {"tau": tau, "correct": correct, "repairs": repairs}


def names(*asked: object) -> list[str]:
    return [str(one) for one in parse_all(asked_for(*asked))]


def test_each_correction_is_tried_at_each_temperature() -> None:
    assert names([0.9, 1.0], [None, "centre"]) == [
        *("τ = 1", "τ = 0.9", "τ = 0.9 + centre"),
        "centre",
    ]
    assert names(0.9, "centre") == ["τ = 1", "τ = 0.9 + centre"]


def test_the_temperature_is_one_by_default_if_something_else_is_asked_for() -> None:
    assert names(None) == ["τ = 1", "τ = 0.8"]
    assert names(None, "centre") == ["τ = 1", "centre"]
    listed = [{"tau": 0.8}, {"tau": 0.8, "correct": "centre"}, {"correct": "whiten"}]
    assert names(None, None, listed) == ["τ = 1", "τ = 0.8", "τ = 0.8 + centre", "whiten"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((0.8, None, [{"tau": 0.8}]), "repairs lists combinations, each with its own tau"),
        ((None, "centre", [{"tau": 0.8}]), "repairs lists combinations, each with its own correct"),
        ((None, None, []), "repairs=[] is empty"),
        ((None, []), "correct=[] is empty"),
        ((None, None, ["centre"]), "centre is not a combination of parts"),
        ((None, None, [{"windows": 512}]), ", not windows."),
        (
            (None, None, [{"tau": 0.8, "correct": ["centre", "whiten"]}]),
            "'repairs=[{tau: 0.8, correct: centre}, {tau: 0.8, correct: whiten}]'",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(asked: tuple[object, ...], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_all(asked_for(*asked))
    assert message in str(refused.value)


def test_a_repair_must_fit_the_model() -> None:
    small = ModelShape(layers=24, window=512, position_bias=False, dimensions=3)
    with pytest.raises(RequestError, match="would leave nothing of embeddings of 3 dimensions"):
        BOTH.resolve(small)
    assert BOTH.resolve(SHAPE) == BOTH
    assert Repair(parse({"length": "logn"}), BOTH.correction).resolve(SHAPE) == Repair(
        correction=BOTH.correction
    )
