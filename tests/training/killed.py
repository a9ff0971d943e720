"""Trains runs in processes that kill themselves at random places, until one comes to its end. For test_resume.py.

Reads lines of JSON, each the list [RUNS, FIELDS OF THE RECIPE, WORKERS, CHECKPOINT_STEPS, SEED, KILLS]; for each it
prints how often a process died, and the run's folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # as the first optimiser would, in each process anew

from resnetlab.training import loop
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.step import Stepper


def deadly(events: int, whom: Callable[[], list[int]] = lambda: [os.getpid()]) -> None:
    """Have processes killed at this one's so many-th event: a step, an evaluation, or a file operation."""
    left = events

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                for process in whom():
                    os.kill(process, signal.SIGKILL)
            return call(*arguments, **options)

        return counting

    Stepper.__call__ = counted(Stepper.__call__)  # type: ignore[method-assign]
    loop.accuracy = counted(loop.accuracy)  # type: ignore[attr-defined]
    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]


def trained(runs: str, fields: dict[str, Any], workers: int, steps: int, seed: int, kills: int) -> dict[str, Any]:
    """Train to the end, with so many kills; how many there were, and the folder."""
    drawn = random.Random(seed)
    run = make_run(recipe("digits", **fields), Path(runs))
    died = 0
    while run.result() is None:
        events = drawn.randint(1, 40)
        process = os.fork()  # no thread of torch's has been started yet
        if not process:
            if died < kills:
                deadly(events)
            for _ in loop.train(run, threads=1, workers=workers, checkpoint_steps=steps):
                pass
            os._exit(0)
        _, status = os.waitpid(process, 0)
        died += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert status in (0, signal.SIGKILL), f"the process ended by itself: {status}"
    return {"died": died, "folder": str(run.folder)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(trained(*json.loads(line))), flush=True)
