"""Changes of a model that are parts of a repair: applied before the temperature, and taken off."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from engines import engine_of

from lcbench.encode.replica import Replica
from lcbench.errors import InjectionError
from lcbench.repair.change import Applied, Change
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.run.engines import proofs_of
from lcbench.tempscale.policy import parse

TEXTS = ["a short text", "another text that is a little longer than the first"]


@dataclass(frozen=True)
class Doubled(Change):
    """Doubles the weights of the last layer's output, or fails to."""

    fails: bool = False
    log: list[str] = field(default_factory=list, compare=False)

    @property
    def canonical(self) -> str:
        return f"doubled={self.fails}"

    def apply(self, model: Any) -> Applied:
        if self.fails:
            raise InjectionError("cannot be doubled")
        weight = model[0].auto_model.encoder.layer[-1].output.dense.weight
        kept = weight.data
        weight.data = kept * 2
        self.log.append("applied")
        log = self.log

        class Weights:
            proof: ClassVar = {"weights": "doubled"}

            def remove(self) -> None:
                weight.data = kept
                log.append("removed")

        return Weights()


@dataclass(frozen=True)
class Changed(Repair):
    change: Doubled = field(default_factory=Doubled)

    @property
    def changes(self) -> tuple[Change, ...]:
        return (self.change,)

    @property
    def canonical(self) -> str:
        return f"{super().canonical} + {self.change.canonical}"


def test_a_change_lasts_as_long_as_its_requests(make_model: Callable[[str], Path]) -> None:
    engine, _ = engine_of(make_model("bert"))

    def embed(repair: Repair) -> Any:
        return engine.embed(repair, TEXTS, None, "").embeddings

    change = Doubled()
    before, cooler = embed(NO_REPAIR), embed(Repair(parse(0.5)))
    changed = embed(Changed(change=change))
    both = embed(Changed(parse(0.5), change=change))
    # The store does not have this one yet.
    again = engine.embed(NO_REPAIR, [*TEXTS, "one more"], None, "").embeddings[:2]
    assert np.array_equal(again, before)
    found = (before, cooler, changed, both)
    assert all(not np.allclose(one, other) for one in found for other in found if one is not other)
    # Each time before a temperature, and exactly as often taken off.
    assert change.log == ["applied", "removed"] * 2


def test_what_fails_leaves_the_model_as_it_was(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = engine_of(make_model("bert"))
    before = engine.embed(NO_REPAIR, TEXTS, None, "").embeddings
    with pytest.raises(InjectionError, match="cannot be doubled"):
        engine.embed(Changed(change=Doubled(fails=True)), TEXTS, None, "")
    change = Doubled()

    def refuse(*arguments: Any, **keys: Any) -> None:
        raise InjectionError("no temperature")

    with monkeypatch.context() as patch:
        patch.setattr("lcbench.encode.replica.Injection", refuse)
        with pytest.raises(InjectionError, match="no temperature"):
            engine.embed(Changed(parse(0.5), change=change), TEXTS, None, "")
    assert change.log == ["applied", "removed"]
    again = engine.embed(NO_REPAIR, [*TEXTS, "one more"], None, "").embeddings[:2]
    assert np.array_equal(again, before)


def test_changes_are_proven_with_the_temperature(make_model: Callable[[str], Path]) -> None:
    _, (_, model) = engine_of(make_model("bert"))
    change = Doubled()
    asked = [NO_REPAIR, Changed(change=change), Changed(parse(0.5), change=change)]
    made = proofs_of(model, asked)
    proofs = [made[one] for one in asked]
    assert proofs[0] is None
    assert proofs[1] == {"changes": [{"change": "doubled=False", "weights": "doubled"}]}
    assert proofs[2] is not None
    assert {"changes", "layers"} <= proofs[2].keys()
    assert change.log == ["applied", "removed"] * 2


def test_lanes_wait_for_changes_of_weights(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after one that fails: streams of a GPU do not wait for one another."""
    engine, _ = engine_of(make_model("bert"))
    seen: list[str] = []

    def settled(replica: Replica) -> None:
        seen.append("settled")

    monkeypatch.setattr(Replica, "settle", settled)
    change = Doubled(log=seen)
    engine.embed(Changed(change=change), TEXTS, None, "")
    with pytest.raises(InjectionError, match="cannot be doubled"):
        engine.embed(Changed(change=Doubled(fails=True)), TEXTS, None, "")
    assert seen == ["applied", "settled", "removed", "settled"]
