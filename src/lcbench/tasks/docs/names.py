"""Names of the docs suite's tasks."""

from __future__ import annotations

from collections.abc import Mapping

PASSKEY = "DocstringPasskeyRetrieval"
NEEDLE = "DocstringNeedleRetrieval"
# The tasks that lcbench.tasks.docs.synthetic makes.
SYNTHETIC_TASKS = frozenset({PASSKEY, NEEDLE})
# All tasks of the docs suite (these, and those of tasks.docs.tasks), with their types in mteb.
DOCS_TYPES: Mapping[str, str] = {
    "DocstringRetrieval": "Retrieval",
    "DocstringLongRetrieval": "Retrieval",
    "DocstringReranking": "Reranking",
    "DocstringLibraryClassification": "Classification",
    "DocstringModuleClusteringP2P": "Clustering",
    "DocstringModuleClusteringS2S": "Clustering",
    NEEDLE: "Retrieval",
    PASSKEY: "Retrieval",
}
DOCS_TASKS = frozenset(DOCS_TYPES)
