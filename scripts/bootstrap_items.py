"""Print paired bootstrap intervals of a run's relative improvements, from its per-item files.

    python scripts/bootstrap_items.py results/runs/<protocol>/results/<model>/<revision>

For each task whose main score is a mean over items (queries, texts) and each temperature: the
relative improvement in percent and its 95 % interval over 10,000 resamples of the items (seed 0).
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

RESAMPLES = 10_000


def main(folder: Path) -> None:
    """Print one line a task and temperature."""
    for path in sorted(folder.glob("*.items.parquet")):
        task = path.name.removesuffix(".items.parquet")
        raw = scores(path)
        if not raw or None in raw.values():
            continue
        for other in sorted(folder.glob(f"experiments/*/{path.name}"), reverse=True):
            ours = scores(other)
            pairs = np.array([(raw[key], ours[key]) for key in raw])
            drawn = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
            means = pairs[drawn].mean(axis=1)
            low, high = np.percentile(improvement(means), [2.5, 97.5])
            gain = improvement(pairs.mean(axis=0, keepdims=True))[0]
            policy = other.parent.name.removeprefix("tau_")
            print(f"{task}, τ = {policy}: {gain:+.2f} % ({low:+.2f} to {high:+.2f}), {len(raw)}")


def scores(path: Path) -> dict[tuple[str, str, str], float]:
    """Return the score of each item by split, subset and id."""
    rows = pq.read_table(path, columns=["split", "subset", "id", "score"]).to_pylist()
    return {(row["split"], row["subset"], row["id"]): row["score"] for row in rows}


def improvement(means: np.ndarray) -> np.ndarray:
    """Return 100 · (ours - raw) / raw of rows (raw, ours)."""
    return 100 * (means[:, 1] - means[:, 0]) / means[:, 0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
