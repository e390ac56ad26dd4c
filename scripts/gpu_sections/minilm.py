"""Section 3: the real MiniLM on the device and on the CPU: embeddings, scores, and TF32 asked for.

As a program, `python minilm.py DEVICE FILE.npy` writes the embeddings of its texts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_sections.check import Check, Command, environment
from gpu_sections.machine import TF32_VARIABLES
from gpu_sections.models import embed, engine_of, load, load_unpadded, minilm_folder, prose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Embeddings on two devices agree to this.
TOLERANCE = 5e-6
_TEXTS, _QUICK_TEXTS = 500, 40
_LONGEST_WORDS = 220
_TAUS = "tau=[1.0,0.8]"


def run(check: Check) -> None:
    """Compare embeddings and scores of the device with the CPU's."""
    from gpu_sections import runs

    tasks = runs.tasks_of(check)
    overrides = ["model=minilm", f"tasks=[{','.join(tasks.names)}]", _TAUS, *tasks.overrides]
    if check.quick:
        overrides.append("engine.scoring=0")
    # The device's first: the CPU's takes longer, and the embeddings are made meanwhile.
    started = {
        name: runs.start_run(check, name, check.folder / name, [*overrides, engine])
        for name, engine in (
            ("device", runs.engine_override(check)),
            ("cpu", "engine.device=cpu"),
        )
    }
    count = _QUICK_TEXTS if check.quick else _TEXTS
    asking = {
        variable: _ask_for_tf32(check, variable, count)
        for variable in (TF32_VARIABLES[:1] if check.quick else TF32_VARIABLES)
    }
    with check.part("embeddings"):
        expected, got = embeddings("cpu", count), embeddings(check.device, count)
        _compare(check, "embeddings, device and CPU", got, expected)
        got = embeddings(check.device, count, padded=False)
        _compare(check, "embeddings, varlen on the device and CPU", got, expected)
        got = embeddings(check.device, count, padded=False, split=True)
        _compare(check, "embeddings, varlen and fp16x3 on the device and CPU", got, expected)
        for variable, command in asking.items():
            with check.part(variable):
                _see_float32(check, variable, command, expected)
    ended = [runs.finish(check, name, one) for name, one in started.items()]
    if all(ended):
        found = {name: runs.scores(check.folder / name) for name in started}
        runs.compare_scores(check, "main scores, device and CPU", found["device"], found["cpu"])
        check.require(
            len(found["device"]) == 2 * len(tasks.names),
            f"{len(found['device'])} cells instead of {2 * len(tasks.names)}",
        )


def embeddings(
    device: str, count: int, *, padded: bool = True, split: bool = False
) -> NDArray[np.float32]:
    """Return MiniLM's embeddings of texts of all lengths: [count, 384].

    Args:
        device: that computes.
        count: of texts.
        padded: whether texts are padded.
        split: whether float32 products are computed in half precision.
    """
    from lcbench.encode.forward import Forward

    model = (load if padded else load_unpadded)(minilm_folder(), device, "float32", None)
    forward = Forward(model, split=split)
    with engine_of(forward) as engine:
        return embed(engine, prose(count, _LONGEST_WORDS))


def _compare(
    check: Check, name: str, got: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    error = float(abs(got - expected).max())
    check.measure(f"{name}, largest difference", error)
    check.require(error <= TOLERANCE, f"{name} differ by {error:.1e}, limit {TOLERANCE:.0e}")


def _ask_for_tf32(check: Check, variable: str, count: int) -> Command:
    """Start to make the embeddings under a variable that asks for TF32."""
    arguments = [str(Path(__file__)), check.device, str(count), str(_file_of(check, variable))]
    return Command(arguments, check.folder / f"{variable}.log", environment(**{variable: "1"}))


def _file_of(check: Check, variable: str) -> Path:
    return check.folder / f"{variable}.npy"


def _see_float32(
    check: Check, variable: str, command: Command, expected: NDArray[np.float32]
) -> None:
    """See that float32 stayed float32 under such a variable, or that it is refused."""
    import numpy as np

    status = command.wait(check.seconds_left)
    if status == 0:
        found = np.load(_file_of(check, variable))
        _compare(check, f"embeddings with {variable}=1", found, expected)
    else:
        check.measure(f"{variable}=1", f"refused: {command.last_line}")
        check.require(variable in command.output, f"{variable}=1: {command.last_line}")


if __name__ == "__main__":
    import numpy as np

    np.save(sys.argv[3], embeddings(sys.argv[1], int(sys.argv[2])))
