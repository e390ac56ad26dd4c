"""What the end-to-end tests share beyond fixtures."""

import shutil
from dataclasses import dataclass
from pathlib import Path

# A docs suite of seconds, scored in processes of their own as by default.
SMALL_WITH_WORKERS = (
    "docs.documents=40",
    "docs.documents_per_module=8",
    "docs.long_documents=8",
    "docs.clustering_sets=2",
    "docs.synthetic_documents=4",
)
# The same scored in the command's own process: half of the imports, which are most of such a run.
SMALL = (*SMALL_WITH_WORKERS, "engine.scoring=0")


def json_results(folder: Path) -> list[Path]:
    """Return mteb's result files below a folder."""
    found = folder.rglob("*.json")
    others = ("model_meta.json", "report.json")
    return sorted(path for path in found if path.name not in others)


@dataclass(frozen=True)
class Finished:
    """What `python -m lcbench tau=0.8 results_dir=runs`, with SMALL_WITH_WORKERS, has left.

    Attributes:
        folder: of its results; tests copy it.
        output: what it printed.
    """

    folder: Path
    output: str

    def copy_to(self, folder: Path) -> Path:
        """Copy the results, with the times of their files."""
        return Path(shutil.copytree(self.folder, folder, symlinks=True))
