"""Run a sweep of small mteb tasks in several processes, and kill them at random moments.

Run by test_chaos.py in a process of its own, which has imported everything and forks workers:

    python chaos_program.py WORK MODEL --workers=4 --kills=50 --seed=1 [--apart]

`WORK` gets the data (`mirror`) and the results (`runs`); prints one JSON line of what was seen. A
process that is killed is started again until all end by themselves. With `--apart` each
pretends to be on a machine of its own, whose clock is hours from the others'.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

# Real tasks of mteb, that read pairs of sentences and a score; their names on the hub.
DATASETS = {
    "STS12": "mteb/sts12-sts",
    "STS13": "mteb/sts13-sts",
    "STS14": "mteb/sts14-sts",
    "STS15": "mteb/sts15-sts",
    "STS16": "mteb/sts16-sts",
    "STSBenchmark": "mteb/stsbenchmark-sts",
    "SICK-R": "mteb/sickr-sts",
    "BIOSSES": "mteb/biosses-sts",
}
TAUS = "[1.0,0.9,0.8,0.7,0.6,0.5]"
# Of a claim, where workers pretend to be on different machines; NFS is not among them.
HEARTBEAT_SECONDS, LEASE_SECONDS = 0.2, 2.0


def make_data(folder: Path) -> None:
    """Write a few pairs of each task, different ones for each."""
    words = ("model", "reads", "long", "texts", "and", "short", "ones", "in", "a", "window")
    for number, name in enumerate(DATASETS.values()):
        draw = random.Random(number)
        rows = [
            {
                "sentence1": f"{number} {' '.join(draw.choices(words, k=draw.randint(3, 30)))}",
                "sentence2": f"{number} {' '.join(draw.choices(words, k=draw.randint(3, 30)))}",
                "score": round(draw.uniform(0, 5), 2),
            }
            for _ in range(24)
        ]
        data = folder / name / "test.jsonl"
        data.parent.mkdir(parents=True)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))


def request_of(work: Path, model: Path) -> dict[str, Any]:
    """Write the data, and return keywords of `lcbench.evaluate`, which then scores in its process.

    No other process has to import anything.
    """
    make_data(work / "mirror")
    return {
        "model": model,
        "mirror": work / "mirror",
        "unverified_data": True,
        "offline": True,
        "results_dir": work / "runs",
        "store": "none",
        "engine.scoring": 0,
    }


def settings_of(work: Path, model: Path, results: str, taus: str = TAUS) -> Any:
    from hydra import compose, initialize_config_dir

    from lcbench.settings import configs, read

    overrides = [
        "model=custom",
        f"model.name={model}",
        f"tau={taus}",
        f"tasks=[{','.join(DATASETS)}]",
        f"mirror={work / 'mirror'}",
        "unverified_data=true",
        "offline=true",
        "engine.device=cpu",
        "engine.scoring=0",
        "store=none",
        f"results_dir={work / results}",
    ]
    with initialize_config_dir(str(configs.config_folder()), version_base="1.3"):
        return read.read({"custom": compose("config", overrides=overrides)})


def work_on(settings: Any, journal: Path, number: int, apart: bool) -> int:
    """Run the sweep as one of several processes; what it begins and finishes goes to a journal."""
    import torch
    from rich.console import Console

    from lcbench.api.evaluate import carry_out
    from lcbench.cli.console import ConsoleObserver
    from lcbench.run import claims, runner
    from lcbench.system import process as machine
    from lcbench.system.signals import Stop

    torch.set_num_threads(1)
    descriptor = os.open(journal, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(what: str, cell: Any) -> None:
        os.write(descriptor, f"{what}\t{cell}\t{os.getpid()}\n".encode())

    finish, begin = runner.Runner._finish, runner.Runner._begin

    def noted_begin(self: Any, job: Any, progress: Any) -> None:
        done = self._results.files(job.cell).result.exists()
        note("begins although done" if done else "begins", job.cell)
        begin(self, job, progress)

    def noted_finish(self: Any, cell: Any, *rest: Any) -> None:
        finish(self, cell, *rest)
        note("done" if cell in self._over else "lost", cell)

    runner.Runner._begin = noted_begin  # type: ignore[method-assign]
    runner.Runner._finish = noted_finish  # type: ignore[method-assign]
    if apart:
        hours = (number - 1) * 3600
        machine.machine = lambda: f"machine {number}"  # type: ignore[assignment]
        claims.Claims.__init__.__kwdefaults__.update(
            heartbeat_seconds=HEARTBEAT_SECONDS, lease_seconds=LEASE_SECONDS
        )

        def touch(path: Path) -> None:
            moment = time.time_ns() + hours * 10**9
            os.utime(path, ns=(moment, moment), follow_symlinks=False)

        claims._touch = touch
    with Path(f"{journal}.{os.getpid()}.log").open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        with Stop() as stop:
            observer = ConsoleObserver(Console(file=log, width=120))
            outcome = carry_out(settings, observer, stop=stop)
    return 1 if outcome.failed or outcome.refused else 0


def fork(*given: Any) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = work_on(*given)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def seen_results(runs: Path) -> dict[str, tuple[int, int]]:
    """Return the results there are, and what would change if one were written again."""
    found = {}
    for path in runs.glob("*/results/**/*.json"):
        if path.name != "model_meta.json":
            status = path.stat()
            found[str(path)] = (status.st_ino, status.st_mtime_ns)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--taus", default=TAUS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    # All that a worker needs, so that it begins at once.
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401

    import lcbench.encode.engine
    import lcbench.encode.forward
    import lcbench.run.runner
    import lcbench.run.sweep
    import lcbench.score.evaluate
    import lcbench.tempscale.inject  # noqa: F401

    if not (asked.work / "mirror").exists():
        make_data(asked.work / "mirror")
    settings = settings_of(asked.work, asked.model, "runs", asked.taus)
    cells = len(DATASETS) * (asked.taus.count(",") + 1)
    # However often a cell is hit while one process lives: that is not what is tested here.
    settings = replace(settings, retries=100)
    journal, runs = asked.work / "journal", asked.work / "runs"
    draw = random.Random(asked.seed)
    given = (settings, journal)
    workers = {fork(*given, number, asked.apart): number for number in range(asked.workers)}
    kills, statuses, first, rewritten = 0, Counter[int](), {}, []
    deadline = time.monotonic() + 540
    while workers:
        if time.monotonic() > deadline:
            print(json.dumps({"error": "not done in nine minutes"}), flush=True)
            for process in workers:
                os.kill(process, signal.SIGKILL)
            sys.exit(1)
        now = seen_results(runs)
        rewritten += [path for path, was in first.items() if now.get(path) != was]
        first |= now
        # So that the last kill does not come after the last cell: kills keep up with results.
        behind = kills < asked.kills and len(first) * asked.kills > kills * (cells - 4)
        if kills < asked.kills and (behind or draw.random() < 0.15):
            victim = draw.choice(sorted(workers, key=workers.__getitem__))
            os.kill(victim, signal.SIGKILL)
            kills += 1
        time.sleep(draw.uniform(0.0, 0.1))
        for process in list(workers):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            number = workers.pop(process)
            if os.WIFSIGNALED(status):
                workers[fork(*given, number, asked.apart)] = number
            else:
                statuses[os.waitstatus_to_exitcode(status)] += 1
    print(
        json.dumps(
            {
                "kills": kills,
                "statuses": dict(statuses),
                "results": len(seen_results(runs)),
                "cells": cells,
                "rewritten": rewritten,
            }
        )
    )


if __name__ == "__main__":
    main()
