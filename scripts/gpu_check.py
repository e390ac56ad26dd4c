"""Check lcbench on a GPU in about eight minutes: `make gpu-check`, or on a bare checkout

    python3 scripts/gpu_check.py --out OUT [--mirror MIRROR] [--seconds 490]

Each section runs in a process of its own, which is ended at the section's deadline: one that fails,
crashes or hangs takes no other with it. OUT/report.json has the result of each as soon as it is
done; the table comes last. `--device cpu --quick` rehearses all of it on a CPU. `gpu_pack.py` packs
what a machine without a network lacks.

The exit status is 0 if no section failed, 1 if one did, 2 if there is no such device.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_sections.check import ROOT, Check, Skipped, environment, write_json
from markdown_table import table

# Of the time in all, what is kept for the summary and for ending a section that hangs.
_RESERVE_SECONDS = 8.0
# Before a section is killed, what it has to come to an end by itself.
_GRACE_SECONDS = 4.0
# How long a killed process may take to be gone; one that waits for a driver may never be.
_GONE_SECONDS = 3.0
# Statuses of sections that make the check fail.
FAILING = ("failed", "error", "timeout")
# Failures of a section that its message names; its log has all of them. And characters of one.
_NAMED = 3
_NAMED_CHARACTERS = 120


@dataclass(frozen=True)
class Section:
    """A part of the check.

    Attributes:
        name: in the report.
        module: that is imported in the section's process; its function `run` takes the `Check`.
        title: what it shows.
        seconds: its share of the time on a GPU; what earlier sections leave over is added.
        quick_seconds: the same of a quick run.
        together: sections of the same name, one after the other in the order, run side by side;
            None: this one runs alone, as what it measures is speed.
    """

    name: str
    module: str
    title: str
    seconds: float
    quick_seconds: float
    together: str | None = None


# On the first card that this ran on, with 16 slow cores, a command took half a minute until its
# first cell: sections that start commands run side by side. The tasks of the paper, on two cores,
# took ten minutes alongside other work, and 279 s of their time: nearly half of that is the
# classifiers of MASSIVE's 51 languages, which a GPU's host fits at the same time, and a quarter is
# encoding.
SECTIONS = tuple(
    Section(name, f"gpu_sections.{name}", title, seconds, quick_seconds, together)
    for name, title, seconds, quick_seconds, together in (
        ("imports", "how long a process takes to start", 60, 60, "start"),
        ("machine", "the machine, its rates and kernels", 30, 25, "start"),
        ("exactness", "temperatures against the formula in float64", 100, 75, "correctness"),
        ("minilm", "MiniLM: the device against the CPU", 100, 90, "correctness"),
        ("memory", "a device without enough memory", 100, 40, "correctness"),
        ("tasks", "every task of the paper, on made-up data", 100, 40, "correctness"),
        ("speed", "speed, in alternating rounds", 180, 80, None),
        ("demo", "the demo sweep, and how busy the device is", 62, 80, None),
        ("sharing", "two runs that share a sweep", 50, 60, None),
        ("encoders", "two encoders on one device", 30, 40, None),
    )
)


@dataclass(frozen=True)
class Result:
    """What a section came to.

    Attributes:
        name: of the section.
        title: what it shows.
        seconds: that it took.
        status: `passed`, `failed` (a requirement does not hold), `skipped`, `error` (it ended by
            itself before its end) or `timeout`.
        measurements: by name: numbers, words, or tables of `heading` and `rows`.
        message: why it is not `passed`, or what was left out.
    """

    name: str
    title: str
    seconds: float
    status: str
    measurements: dict[str, Any]
    message: str


@dataclass(frozen=True)
class Order:
    """What is checked.

    Attributes:
        device: `cuda:0`, `cuda:1` … or `cpu`.
        quick: tiny models and few texts.
        mirror: a folder with the data of public tasks.
        out: where everything goes.
        seconds: that all sections together may take.
    """

    device: str
    quick: bool
    mirror: Path | None
    out: Path
    seconds: float


def run_sections(sections: Sequence[Section], order: Order) -> list[Result]:
    """Run sections in their order, those of a group side by side, and write the report."""
    end = time.monotonic() + order.seconds - _RESERVE_SECONDS
    results: list[Result] = []
    order.out.mkdir(parents=True, exist_ok=True)
    _write_report(order, results)
    groups = _groups(sections)
    for number, group in enumerate(groups):
        weights = [_share(one, order) for one in groups[number:]]
        seconds = max(0.0, end - time.monotonic()) * weights[0] / sum(weights)
        for section in group:
            print(f"{section.name}: {section.title}, at most {seconds:.0f} s", flush=True)
        for result in _side_by_side(group, order, seconds):
            results.append(result)
            line = f"  {result.name}: {result.status}, {result.seconds:.1f} s {result.message}"
            print(line.rstrip(), flush=True)
            _write_report(order, results)
    return results


def _groups(sections: Sequence[Section]) -> list[list[Section]]:
    """Return sections in their order, neighbours of the same group together."""
    groups: list[list[Section]] = []
    for section in sections:
        if groups and section.together is not None and groups[-1][0].together == section.together:
            groups[-1].append(section)
        else:
            groups.append([section])
    return groups


def _share(group: Sequence[Section], order: Order) -> float:
    """Return the weight of a group: side by side on a GPU's many cores, as if in turn on few."""
    if order.quick:
        return sum(one.quick_seconds for one in group)
    return max(one.seconds for one in group)


def _side_by_side(group: Sequence[Section], order: Order, seconds: float) -> Iterator[Result]:
    """Run sections at the same time, and yield their results in their order."""
    running: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(len(group)) as pool:
        try:
            yield from pool.map(lambda one: run_section(one, order, seconds, running), group)
        except BaseException:
            # Else the threads would wait for them.
            for process in running:
                _end_group(process)
            raise


def run_section(
    section: Section, order: Order, seconds: float, running: list[subprocess.Popen[bytes]]
) -> Result:
    """Run a section in a process of its own, which is killed with its children after `seconds`.

    Args:
        section: the section.
        order: of the whole check.
        seconds: that it may take.
        running: gets the process, so that another thread can end it.
    """
    folder = order.out / section.name
    folder.mkdir(parents=True, exist_ok=True)
    state_file, log = folder / "state.json", folder / "log.txt"
    state_file.unlink(missing_ok=True)
    began = time.monotonic()
    deadline = began + seconds - min(_GRACE_SECONDS, seconds / 4)
    command = [sys.executable, str(Path(__file__).resolve()), "--section", section.module]
    command += ["--device", order.device, "--deadline", str(deadline), "--folder", str(folder)]
    command += ["--out", str(order.out), *(["--quick"] if order.quick else [])]
    command += [] if order.mirror is None else ["--mirror", str(order.mirror)]
    with log.open("wb") as output:
        # This interpreter and script, with arguments of our own.
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running.append(process)
    exit_status: int | None = None
    try:
        with suppress(subprocess.TimeoutExpired):
            exit_status = process.wait(seconds)
    finally:
        _end_group(process)
    took = time.monotonic() - began
    state = _read_state(state_file)
    status, message = _outcome(exit_status, state, log, seconds)
    return Result(section.name, section.title, took, status, state["measurements"], message)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a section's process and whatever it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE_SECONDS)


def _read_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = {"measurements": {}, "failures": [], "cut": [], "skipped": None}
    with suppress(FileNotFoundError):
        state.update(json.loads(path.read_text(encoding="utf-8")))
    return state


def _outcome(
    exit_status: int | None, state: dict[str, Any], log: Path, seconds: float
) -> tuple[str, str]:
    """Return a section's status and message."""
    words = [_shortened(one) for one in state["failures"][:_NAMED]]
    if len(state["failures"]) > _NAMED:
        words.append(f"and {len(state['failures']) - _NAMED} more, see {log}")
    if state["cut"]:
        words.append(f"left out for lack of time: {', '.join(state['cut'])}")
    if exit_status is None:
        return "timeout", "; ".join([f"killed after {seconds:.0f} s", *words])
    if exit_status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"
        last = _shortened(lines[-1]) if lines else "no output"
        return "error", "; ".join([f"{how}: {last}", *words])
    if state["skipped"]:
        return "skipped", state["skipped"]
    return "failed" if state["failures"] else "passed", "; ".join(words)


def _shortened(text: str) -> str:
    return text if len(text) <= _NAMED_CHARACTERS else f"{text[: _NAMED_CHARACTERS - 1]}…"


def _write_report(order: Order, results: Sequence[Result]) -> None:
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": order.device,
        "quick": order.quick,
        "command": shlex.join(["python", "scripts/gpu_check.py", *sys.argv[1:]]),
    }
    report = {**about, "sections": [asdict(one) for one in results]}
    write_json(order.out / "report.json", report)


def summary(results: Sequence[Result]) -> list[str]:
    """Return the lines of the table of all sections."""
    rows = [
        [one.title, one.status, f"{one.seconds:.0f}", one.message.replace("|", "/")]
        for one in results
    ]
    return table(["section", "status", "seconds", "message"], rows, right=(2,))


def page(results: Sequence[Result], order: Order, command: str) -> list[str]:
    """Return the lines of a page of Markdown: where it ran, the summary, all measurements."""
    machine = next((one.measurements for one in results if one.name == "machine"), {})
    lines = [
        "# lcbench on a GPU",
        "",
        f"{datetime.date.today():%Y-%m-%d}, {machine.get('card', order.device)}, "
        f"torch {machine.get('torch', 'unknown')}, Python {platform.python_version()}.",
        f"Command: `{command}`.",
    ]
    if not order.device.startswith("cuda") or order.quick:
        lines.append("A rehearsal: these numbers say nothing about a GPU.")
    lines += ["", *summary(results)]
    for one in results:
        lines += ["", f"## {one.title[0].upper()}{one.title[1:]}", ""]
        scalars = {k: v for k, v in one.measurements.items() if not isinstance(v, dict)}
        lines += [f"- {name}: {_shown(value)}" for name, value in scalars.items()]
        for name, value in one.measurements.items():
            if isinstance(value, dict):
                lines += ["", f"{name[0].upper()}{name[1:]}:", ""]
                lines += table(value["heading"], value["rows"])
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def section_main(module: str, check: Check) -> int:
    """Run a section in this process."""
    check.save()
    try:
        importlib.import_module(module).run(check)
    except Skipped as reason:
        write_json(check.folder / "state.json", {"skipped": str(reason)})
    return 0


def _has_cuda() -> bool:
    """Return whether torch finds a GPU, asked in a process that may hang or crash."""
    command = [sys.executable, "-c", "import torch; assert torch.cuda.is_available()"]
    with suppress(subprocess.TimeoutExpired):
        # This interpreter, with arguments of our own.
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0  # noqa: S603
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to rehearse")
    parser.add_argument("--quick", action="store_true", help="tiny models, few texts")
    parser.add_argument("--seconds", type=float, default=490.0, help="that all of it may take")
    parser.add_argument("--mirror", type=Path, help="a folder with the public tasks' data")
    parser.add_argument("--out", type=Path, required=True, help="report.json, logs and results")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="write the page there too")
    names = [one.name for one in SECTIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SECTION")
    for hidden in ("--section", "--folder", "--deadline"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.section is not None:
        folder, deadline = Path(asked.folder), float(asked.deadline)
        check = Check(asked.device, asked.quick, asked.mirror, asked.out, folder, deadline)
        return section_main(asked.section, check)
    began = time.monotonic()
    if asked.device.startswith("cuda") and not _has_cuda():
        print("gpu_check: error: torch finds no CUDA device here.", file=sys.stderr)
        return 2
    # So that a section's processes are ended before this one is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    mirror = None if asked.mirror is None else asked.mirror.resolve()
    # Some functions of torch take no device without a number.
    device = "cuda:0" if asked.device == "cuda" else asked.device
    seconds = asked.seconds - (time.monotonic() - began)
    order = Order(device, asked.quick, mirror, asked.out.resolve(), seconds)
    results = run_sections([one for one in SECTIONS if one.name in asked.only], order)
    command = shlex.join(["python", "scripts/gpu_check.py", *(arguments or sys.argv[1:])])
    lines = page(results, order, command)
    (order.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if asked.page is not None:
        asked.page.parent.mkdir(parents=True, exist_ok=True)
        asked.page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(["", *summary(results)]), flush=True)
    return int(any(one.status in FAILING for one in results))


if __name__ == "__main__":
    sys.exit(main())
