"""Write what half precision does to scores and to relative improvements: results/bench/dtypes.md.

`python scripts/dtype_table.py --mirror PATH`: runs the docs suite and the mirror's tasks with
MiniLM through the command line, once in each dtype. On a CPU without instructions for it half
precision is several times slower than fp32; --sizes says how much is run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bench_support as support
import pandas as pd
from bench_support import MirrorCut
from markdown_table import table

from lcbench.results.folder import Results

DTYPES = ("float32", "float16", "bfloat16")
TAUS = ("1", "0.9", "0.8")
OUT = Path(__file__).parents[1] / "results" / "bench" / "dtypes.md"
SIZES: dict[str, tuple[tuple[str, ...], MirrorCut | None]] = {
    "quick": (
        (
            "docs.documents=20",
            "docs.documents_per_module=8",
            "docs.long_documents=4",
            "docs.clustering_sets=2",
            "docs.synthetic_documents=2",
        ),
        MirrorCut(labels=3, pairs=20, documents=3),
    ),
    "short": (
        (
            "docs.documents=60",
            "docs.documents_per_module=8",
            "docs.long_documents=20",
            "docs.synthetic_documents=2",
        ),
        MirrorCut(labels=10, pairs=150, documents=10),
    ),
    "full": ((), None),
}


def _described(cut: MirrorCut | None) -> str:
    if cut is None:
        return "everything"
    return (
        f"{cut.labels} labels of a classification, {cut.pairs} pairs of sentences, "
        f"{cut.documents} documents"
    )


def run(
    dtype: str, tasks: Sequence[str], overrides: Sequence[str], place: Path, taus: Sequence[str]
) -> None:
    """Run all cells of a dtype with `python -m lcbench`; results and caches lie in `place`.

    Raises:
        CalledProcessError: the command failed; it has said why.
    """
    command = [
        *(sys.executable, "-m", "lcbench", f"protocol.dtype={dtype}", "offline=true"),
        f"tau=[{','.join(taus)}]",
        f"tasks=[{','.join(tasks)}]",
        f"results_dir={place / 'results' / dtype}",
        *overrides,
    ]
    # This interpreter, with arguments of our own.
    # `datasets` tells folders of one name and layout apart by neither place nor content: with a
    # cache of its own it cannot read what it once prepared of the whole mirror.
    environment = {**os.environ, "HF_DATASETS_CACHE": str(place / "datasets")}
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)  # noqa: S603


def scores(results: Path, dtypes: Sequence[str] = DTYPES) -> pd.DataFrame:
    """Return main scores in points: columns dtype, task, tau, score."""

    def warn(message: str) -> None:
        raise RuntimeError(message)

    frames = []
    for dtype in dtypes:
        frame = Results(results / dtype).read(lambda task, kind: "", warn)
        frame = frame.groupby(["task", "policy"], sort=False)["score"].mean().reset_index()
        frames.append(frame.assign(dtype=dtype, score=100 * frame["score"]))
    return pd.concat(frames).rename(columns={"policy": "tau"})


def compare(frame: pd.DataFrame, taus: Sequence[str] = TAUS) -> pd.DataFrame:
    """Return the differences of each half dtype from fp32, by task and temperature.

    Args:
        frame: of `scores`.
        taus: the baseline first.

    Returns:
        columns task, tau, score (fp32, in points) and improvement (fp32, relative to the baseline,
        in per cent), and for each other dtype `<dtype>` and `<dtype> improvement`: minus fp32's.
    """
    wide = frame.pivot(index=["task", "tau"], columns="dtype", values="score")
    baseline = wide.xs(taus[0], level="tau")
    improvement = 100 * (wide.div(baseline.reindex(wide.index, level="task")) - 1)
    found = pd.DataFrame({"score": wide["float32"], "improvement": improvement["float32"]})
    for dtype in [name for name in DTYPES[1:] if name in wide]:
        found[dtype] = wide[dtype] - wide["float32"]
        found[f"{dtype} improvement"] = improvement[dtype] - improvement["float32"]
    tasks = list(dict.fromkeys(frame["task"]))
    order = [(task, tau) for task in tasks for tau in taus]
    return found.loc[order].reset_index()


def page(found: pd.DataFrame, about: Sequence[str]) -> list[str]:
    """Return the lines of the page."""
    names = {"float16": "fp16", "bfloat16": "bf16"}
    halves = [dtype for dtype in DTYPES[1:] if dtype in found]
    heading = ["task", "τ", "fp32", *(f"{names[one]} − fp32" for one in halves)]
    heading += ["improvement, fp32, %", *(f"{names[one]} − fp32, %" for one in halves)]
    rows = []
    for _, row in found.iterrows():
        # At the baseline there is no improvement, in no dtype.
        none = row["tau"] == found["tau"].iloc[0]
        improvements = [row["improvement"], *(row[f"{one} improvement"] for one in halves)]
        rows.append(
            [
                row["task"],
                row["tau"],
                f"{row['score']:.3f}",
                *(f"{row[one]:+.3f}" for one in halves),
                *("" if none else f"{value:+.3f}" for value in improvements),
            ]
        )
    lines = ["# What half precision does", "", *about, ""]
    lines += [
        f"- {names[one]}: max |difference of a score| {found[one].abs().max():.3f} points, "
        "max |difference of a relative improvement| "
        f"{found[f'{one} improvement'].abs().max():.3f} %"
        for one in halves
    ]
    return [*lines, "", *table(heading, rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has no result yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", choices=list(SIZES), default="short", help="how much")
    parser.add_argument("--mirror", type=Path, help="a folder with the public tasks' data")
    parser.add_argument("--model", default="minilm", help="a config of conf/model, or a folder")
    parser.add_argument("--window", type=int, default=512, help="tokens read of a text")
    parser.add_argument("--tasks", nargs="+", help="instead of all of them")
    parser.add_argument("--results", type=Path, help="keep the cells there, and go on from them")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE.md")
    asked = parser.parse_args(arguments)
    docs, cut = SIZES[asked.sizes]
    with tempfile.TemporaryDirectory(prefix="lcbench-dtypes-") as folder:
        overrides = [*support.model_overrides(asked.model, asked.window), *docs, "subsets=[en]"]
        tasks = list(support.DOCS)
        # Beside the results where these are kept: a later run is to find the same data.
        place = Path(folder if asked.results is None else asked.results).resolve()
        if asked.mirror is not None:
            overrides.append(f"mirror={support.cut_mirror(asked.mirror, place / 'mirror', cut)}")
            overrides += [] if cut is None else ["unverified_data=true"]
            tasks += support.in_mirror(asked.mirror)
        for dtype in DTYPES:
            run(dtype, asked.tasks or tasks, overrides, place, TAUS)
        found = compare(scores(place / "results"))
    about = [
        support.machine(),
        f"Command: `python scripts/dtype_table.py --sizes {asked.sizes}`; model {asked.model},",
        f"window {asked.window}; {' '.join(docs) or 'docs suite as it is shipped'};",
        "no mirror." if asked.mirror is None else f"of the mirror: {_described(cut)}.",
        "Scores and their differences in points, relative improvements in per cent.",
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(page(found, about)) + "\n", encoding="utf-8")
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
