"""What the end-to-end tests share beyond fixtures."""

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
