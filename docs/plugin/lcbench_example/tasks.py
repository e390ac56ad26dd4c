"""A task: any text-only task class of mteb."""

from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

TEXTS = ("A cat sleeps on the warm stove.", "A dog runs along the beach.", "It rains in the hills.")
QUERIES = ("Where does the cat sleep?", "What does the dog do?", "What is the weather like?")


class ExampleRetrieval(AbsTaskRetrieval):
    """Three questions, each with the text that answers it."""

    metadata = TaskMetadata(
        name="ExampleRetrieval",
        description="Three questions.",
        dataset={"path": "example/retrieval", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Make the data; another task would read it from a file."""
        documents = [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS)]
        queries = [{"id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]
        self.dataset = {
            "default": {
                "test": RetrievalSplitData(
                    corpus=Dataset.from_list(documents),
                    queries=Dataset.from_list(queries),
                    relevant_docs={f"q{i}": {f"d{i}": 1} for i in range(len(TEXTS))},
                    top_ranked=None,
                )
            }
        }
        self.data_loaded = True
