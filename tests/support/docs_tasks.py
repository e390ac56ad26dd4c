"""Small docs tasks, and an encoder that knows their answers."""

from typing import Any

import mteb
import numpy as np
from numpy.typing import NDArray

from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes

SIZES = DocsSizes(
    documents=120,
    documents_per_module=8,
    long_documents=40,
    clustering_sets=3,
    clustering_share=0.7,
    synthetic=SyntheticSizes(lengths=(64, 128), documents=4),
)


class Oracle:
    """An encoder that knows, or does not know, what a task asks for."""

    mteb_model_meta = mteb.models.model_meta.ModelMeta.create_empty(
        overwrites={"name": "test/oracle", "revision": "1"}
    )

    def __init__(self, answers: dict[str, int], noise: bool) -> None:
        self.answers = answers
        self.noise = noise
        self.rng = np.random.default_rng(0)

    def encode(self, inputs: Any, **_: Any) -> NDArray[np.float32]:
        texts = list(inputs.dataset["text"])
        if self.noise:
            return self.rng.normal(size=(len(texts), 64)).astype(np.float32)
        vectors = np.zeros((len(texts), max(self.answers.values()) + 1), dtype=np.float32)
        vectors[np.arange(len(texts)), [self.answers[text] for text in texts]] = 1
        return vectors

    def similarity(self, left: Any, right: Any) -> Any:
        import torch

        return torch.as_tensor(left) @ torch.as_tensor(right).T

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        raise NotImplementedError
