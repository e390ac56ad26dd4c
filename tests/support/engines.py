"""Encoders for tests: a model folder, a policy, a store in memory unless another is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.encoder import Encoder
from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import Forward
from lcbench.encode.load import load
from lcbench.encode.store.shelf import Store
from lcbench.hub.models import ModelSettings, locate
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results.provenance import model_facts, model_meta
from lcbench.tempscale.policy import BASELINE, Policy, parse

# Largest difference of an embedding's component between two ways of batching it, in fp32 on a CPU.
# Measured: 2.0e-7 (MiniLM, against sentence-transformers' own batches).
NOISE_FLOOR = 2e-6


# Whoever makes an engine need not close it: `close_since` does.
MADE: list[Engine] = []


def close_since(count: int) -> None:
    """Close the engines that were made after so many: their threads would keep the models."""
    while len(MADE) > count:
        engine = MADE.pop()
        engine._threads.shutdown(wait=False, cancel_futures=True)
        engine._forward.close(wait=False)


def settings(folder: Path, **changes: Any) -> ModelSettings:
    values: dict[str, Any] = {
        "config": "custom",
        "name": str(folder),
        "source": "folder",
        "package": None,
        "revision": None,
        "window": None,
        "trust_remote_code": False,
    }
    return ModelSettings(**{**values, **changes})


def memory(max_bytes: int = 2**28) -> Store:
    """A store without a folder."""
    return Store(None, max_bytes, warn=_refuse)


def engine_of(folder: Path, store: Store | None = None, **options: Any) -> tuple[Engine, Any]:
    """An engine for the model in a folder, and the model."""
    located = locate(settings(folder), offline=True)
    model = load(located, device="cpu", dtype="float32")
    identity = Identity(located.name, located.revision, model.max_seq_length, "float32")
    engine = Engine(Forward(model, **options), store or memory(), identity)
    MADE.append(engine)
    return engine, (located, model)


def encoder_of(
    folder: Path, tau: Any = BASELINE, store: Store | None = None, **options: Any
) -> Encoder:
    """An encoder for the model in a folder; its parts are kept at hand for a test to change."""
    engine, (located, model) = engine_of(folder, store, **options)
    policy = tau if isinstance(tau, Policy) else parse(tau)
    encoder = Encoder(engine.at(Repair(policy)), model_meta(model_facts(located, model), NO_REPAIR))
    encoder.engine, encoder.model = engine, model  # type: ignore[attr-defined]
    return encoder


def largest_difference(left: NDArray[Any], right: NDArray[Any] | Sequence[Any]) -> float:
    return float(np.abs(left - np.asarray(right)).max())


def _refuse(message: str) -> None:
    raise AssertionError(message)
