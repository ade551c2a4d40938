"""A corpus with vi-mini on Ray: two workers on one machine against one, a thread each.

    python -m tests.benchmarks.ray_workers
    python -m tests.benchmarks.ray_workers --rows 9216 --runs 3

One local cluster serves all runs, so that Ray's own start is not counted. The workers take turns, and each of them
encodes a few rows and all rows: the seconds of all rows include what every worker loads, torch and the model, and the
rate is of the rows between the two, with the workers at work. What the machine itself allows is measured beside it: as
many processes that share nothing, from the moment on when all have loaded the model. Given are medians. A run waits
until the machine is quiet (`--busy` percent of its processors at most in five seconds), and says what other programs
took meanwhile.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from datasets import Dataset

from st_vi.encoding import encode_by_tokens, encode_with_ray
from st_vi.hub import load, pretrained
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.encode import corpus

WORKERS = (1, 2)


class Watch:
    """Processor seconds of this process and those below it, and of the whole machine, while a block runs."""

    def __enter__(self) -> Watch:
        self.own: dict[int, float] = {}
        self._before = self._sample()
        self._machine = _busy_seconds()
        self._begun = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._stop.set()
        self._thread.join()
        self.processor = sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self.own.items())
        self.others = (_busy_seconds() - self._machine - self.processor) / self.seconds

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.own |= self._sample()
        self.own |= self._sample()

    def _sample(self) -> dict[int, float]:
        found = {}
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                used = process.cpu_times()
            except psutil.Error:  # it has ended
                continue
            found[process.pid] = used.user + used.system
        return found


def _busy_seconds() -> float:
    used = psutil.cpu_times()
    return used.user + used.system + used.nice + used.irq + used.softirq + used.steal


def wait_until_quiet(most: float) -> None:
    """Return once the processors are at most so many percent busy."""
    while (busy := psutil.cpu_percent(interval=5)) > most:
        print(f"waiting: {busy:.0f} % busy", file=sys.stderr, flush=True)


def encode_on_ray(workers: int, every: Dataset, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run of as many workers: a few rows, and all."""
    runs = []
    for size in (options.few, options.rows):
        wait_until_quiet(options.busy)
        with Watch() as watch:
            encode_with_ray(
                pretrained("vi-mini"),
                every.select(range(size)),
                folder / str(size),
                concurrency=workers,
                batch_size=options.batch_size,
                max_tokens=options.max_tokens,
            )
        runs.append(watch)
    few, all_rows = runs
    between = options.rows - options.few
    found = {
        "seconds": all_rows.seconds,
        "rate": between / (all_rows.seconds - few.seconds),
        "processor rate": between / (all_rows.processor - few.processor),
        "others": max(watch.others for watch in runs),
    }
    print(workers, "on Ray", found, file=sys.stderr, flush=True)
    return found


def encode_part(number: int, parts: int, rows: int, max_tokens: int) -> None:
    """What a process without Ray does."""
    model = load("vi-mini", device="cpu")
    texts = [row["text"] for row in corpus(rows)][number::parts]
    encode_by_tokens(model, texts[:64], max_tokens=max_tokens)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, used = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), 512):  # as a worker gets them
        encode_by_tokens(model, texts[start : start + 512], max_tokens=max_tokens)
    print(time.perf_counter() - begun, time.process_time() - used, flush=True)


def encode_plainly(workers: int, options: argparse.Namespace) -> dict[str, float]:
    """One run of as many processes without Ray."""
    wait_until_quiet(options.busy)
    calls = [f"encode_part({number}, {workers}, {options.rows}, {options.max_tokens})" for number in range(workers)]
    code = "from tests.benchmarks.ray_workers import *; "
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    children = [subprocess.Popen([sys.executable, "-c", code + call], **pipes) for call in calls]
    assert all(child.stdout and child.stdout.readline() == "ready\n" for child in children)
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
    ends = [child.communicate()[0].split() for child in children]
    seconds, processor = max(float(end[0]) for end in ends), sum(float(end[1]) for end in ends)
    found = {"rate": options.rows / seconds, "processor rate": options.rows / processor}
    print(workers, "without Ray", found, file=sys.stderr, flush=True)
    return found


def vectors(folder: Path) -> np.ndarray:
    """In the order of the ids."""
    table = pq.read_table(sorted(folder.glob("*.parquet"))).sort_by("id")
    assert table["id"].to_pylist() == list(range(len(table)))
    return np.stack(table["embedding"].to_numpy())


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=9216, help="of which --few are encoded first, for the rate")
    parser.add_argument("--few", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--busy", type=float, default=10, help="percent")
    options = parser.parse_args()
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        key = Path(name, "token")  # Ray locks its clusters, and would leave the key in the home folder
        key.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(key)
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        every = Dataset.from_list([{"text": row["text"]} for row in corpus(options.rows)])
        for run in range(options.runs):
            for workers in WORKERS:
                one = encode_on_ray(workers, every, Path(name, f"{workers}-{run}"), options)
                found.setdefault(("Ray", workers), []).append(one)
                found.setdefault(("without Ray", workers), []).append(encode_plainly(workers, options))
        ray.shutdown()
        first, second = (vectors(Path(name, f"{workers}-0", str(options.rows))) for workers in WORKERS)
        assert len(first) == options.rows and np.abs(first - second).max() < 1e-5
    print(table(found, options))


def table(found: dict[tuple[str, int], list[dict[str, float]]], options: argparse.Namespace) -> str:
    """Medians, and two workers against one."""
    lines = []
    for (way, workers), runs in sorted(found.items()):
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        alone = statistics.median(run["rate"] for run in found[way, 1])
        lines.append([way, str(workers), f"{middle['seconds']:.1f}" if "seconds" in middle else ""])
        lines[-1] += [f"{middle['rate']:.0f}", f"{middle['rate'] / alone:.2f} ×", f"{middle['processor rate']:.0f}"]
        lines[-1] += [f"{max(run['others'] for run in runs):.2f}" if "others" in runs[0] else ""]
    header = ["", "workers", f"seconds for {options.rows:,} rows, with loading", "rows a second", "× one worker"]
    return markdown([*header, "rows a processor second", "processors that others used, at most"], lines)


if __name__ == "__main__":
    main()
