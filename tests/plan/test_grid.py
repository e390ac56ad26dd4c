"""`plan.layout.repairs_of`: the repairs that a model has of a request, and those it cannot have."""

from dataclasses import replace

import pytest
from composed import composed

from lcbench.errors import RequestError
from lcbench.plan.layout import repairs_of
from lcbench.settings import read
from lcbench.settings.schema import Settings
from lcbench.tempscale.policy import ModelShape, PositionKind

SMALL = ModelShape(layers=2, window=512, position_bias=False, dimensions=100)
LARGE = ModelShape(layers=12, window=8192, position_bias=False, dimensions=768)


def asked(*words: str) -> Settings:
    return read.read({"minilm": composed(*words, "model=minilm")})


def test_repairs_of_the_sweep_that_a_model_cannot_have_are_left_out_with_the_reason() -> None:
    settings, said = asked("sweep=repairs"), list[str]()
    kept = [str(one) for one in repairs_of(settings, "small", SMALL, said.append)]
    assert kept[0] == "τ = 1"
    assert {"τ = 0.9", "centre", "τ = 0.9 + centre", "whiten"} < set(kept)
    assert not {"whiten=128", "τ = length_logn_512"} & set(kept)
    # Each of them is kept, or said to be left out.
    assert len(kept) + len(said) == len(settings.repairs)
    assert all("left out" in line for line in said)
    for left_out in (
        "small: τ = layers_0=1,3=0.8 is left out: ",
        "small: whiten=128 is left out: correct={whiten: 128}: embeddings of 100 dimensions have",
        "small: τ = length_logn_512 is 1 for every text that this model reads (window 512): left",
    ):
        assert [line for line in said if line.startswith(left_out)]
    # A larger model has these.
    every = [str(one) for one in repairs_of(settings, "large", LARGE, said.append)]
    assert {"whiten=128", "τ = length_logn_512", "τ = layers_0=1,3=0.8"} < set(every)


@pytest.mark.parametrize(
    ("kind", "positions", "expected"),
    [
        ("absolute", 512, {"gp=1024", "rp=1024", "pi=1024"}),
        ("rotary", 512, {"linear=1024", "ntk=1024", "yarn=1024", "selfextend=1024"}),
        ("rotary", 8192, {"window=1024"}),
        ("relative", None, {"window=1024"}),
    ],
)
def test_the_sweep_has_extensions_for_each_kind_of_positions(
    kind: PositionKind, positions: int | None, expected: set[str]
) -> None:
    shape = replace(LARGE, window=512, position_kind=kind, positions=positions)
    kept = repairs_of(asked("sweep=repairs"), "a model", shape, lambda line: None)
    assert {one.canonical.removeprefix("extend=") for one in kept if one.extension} == expected


def test_a_repair_that_is_asked_for_by_name_is_refused() -> None:
    settings = asked("correct={whiten: 128}")
    assert not settings.leave_out_unsuited
    with pytest.raises(RequestError, match="100 dimensions have no more components than that"):
        repairs_of(settings, "small", SMALL, print)
