"""Section 10: two encoders on one device against one.

As a program, `python encoders.py ENCODING` does what the JSON of an `Encoding` says, and prints how
many tokens a second it read.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_sections.check import Check, Command, environment
from gpu_sections.models import SMALL, TINY, load, make_model, texts_of

_WINDOW, _QUICK_WINDOW = 512, 32
_TOKENS, _QUICK_TOKENS = 2**18, 2048
_SECONDS, _QUICK_SECONDS = 4.0, 0.5
# How often the encoders look whether they may begin, and how long they wait for that.
_POLL_SECONDS = 0.02
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Encoding:
    """What an encoder does.

    Attributes:
        device: that computes.
        dtype: of the model.
        model: its folder.
        window: the most tokens of a text.
        tokens: of all texts, about, which are encoded again and again.
        seconds: how long.
        ready: a file that is made when the model is ready.
        go: a file that is waited for then.
    """

    device: str
    dtype: str
    model: str
    window: int
    tokens: int
    seconds: float
    ready: str
    go: str


def run(check: Check) -> None:
    """Measure what two encoders do together, and one alone."""
    model = make_model(check.folder / "model", TINY if check.quick else SMALL)
    one = sum(_encode_in_parallel(check, model, 1))
    both = _encode_in_parallel(check, model, 2)
    check.measure("one encoder, tokens/s", one)
    check.measure("two encoders, tokens/s together", sum(both))
    check.measure("two encoders, as a part of one", sum(both) / one)


def _encode_in_parallel(check: Check, model: Path, count: int) -> list[float]:
    """Return the tokens a second of so many encoders that begin at the same time."""
    go = check.folder / f"go-{count}"
    go.unlink(missing_ok=True)
    ready = [check.folder / f"ready-{count}-{number}" for number in range(count)]
    commands = []
    for one in ready:
        one.unlink(missing_ok=True)
        encoding = Encoding(
            device=check.device,
            dtype="float32" if check.quick else "bfloat16",
            model=str(model),
            window=_QUICK_WINDOW if check.quick else _WINDOW,
            tokens=_QUICK_TOKENS if check.quick else _TOKENS,
            seconds=_QUICK_SECONDS if check.quick else _SECONDS,
            ready=str(one),
            go=str(go),
        )
        arguments = [str(Path(__file__)), json.dumps(asdict(encoding))]
        commands.append(Command(arguments, one.with_suffix(".log"), environment()))
    while not all(one.is_file() for one in ready) and check.seconds_left > 0:
        time.sleep(_POLL_SECONDS)
    go.touch()
    rates = []
    for command in commands:
        status = command.wait(check.seconds_left)
        if status != 0:
            raise RuntimeError(f"an encoder ended with {status}: {command.last_line}")
        rates.append(float(command.last_line))
    return rates


def encode(encoding: Encoding) -> float:
    """Return the tokens a second that a forward pass reads, from token ids."""
    from lcbench.encode.forward import Forward

    model = load(Path(encoding.model), encoding.device, encoding.dtype, encoding.window)
    forward = Forward(model)
    texts = texts_of(encoding.window, encoding.tokens, mixed=True)
    tokens = forward.tokenizer_for(None).tokenize(texts)
    each = sum(one.length for one in tokens)
    # The first pass chooses kernels.
    list(forward.run(tokens))
    Path(encoding.ready).touch()
    limit = time.monotonic() + _START_SECONDS
    while not Path(encoding.go).is_file() and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
    began, read = time.perf_counter(), 0
    while time.perf_counter() - began < encoding.seconds:
        # When the embeddings are on the CPU the device has done its part.
        list(forward.run(tokens))
        read += each
    rate = read / (time.perf_counter() - began)
    forward.close()
    return rate


if __name__ == "__main__":
    print(encode(Encoding(**json.loads(sys.argv[1]))))
