"""A command of resnetlab in processes that torchrun starts, of which some end at places that follow from a seed.

    torchrun ... ended.py kill SEED KILLS COMMAND ...          SIGKILL, in each of the first KILLS starts
    torchrun ... ended.py stop SIGNAL rank STEP COMMAND ...    a signal to the second process in that step of its own
    torchrun ... ended.py stop SIGNAL torchrun STEP COMMAND ...    to torchrun, which passes it on

For test_distributed.py.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from killed import deadly

from resnetlab.cli.main import main
from resnetlab.training.step import Stepper

RANK = int(os.environ["RANK"])


def everyone() -> list[int]:
    """The processes of this torchrun, this one last."""
    torchrun = os.getppid()
    found = map(int, Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split())
    return sorted(found, key=lambda pid: pid == os.getpid())


def kill(seed: str, kills: str) -> None:
    """One of the processes or all of them, at a random step, evaluation or file operation.

    All kills together let no more than 39 steps pass, so that the run is not at its end before the last of them.
    """
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    drawn = random.Random(f"{seed}, {start}")
    rank, whom, events = (
        drawn.randrange(2),
        drawn.choice([everyone, lambda: [os.getpid()]]),
        drawn.randint(1, 39 // int(kills)),
    )
    if start < int(kills) and rank == RANK:
        deadly(events, whom)


def stop(number: str, whom: str, step: str) -> None:
    """Have the second process send the signal in its so many-th step, and wait in it until it has come."""
    taken, left = Stepper.__call__, int(step)

    def sending(self: Stepper, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            asked = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]  # the Stop
            os.kill(os.getpid() if whom == "rank" else os.getppid(), int(number))
            while asked.number is None:
                time.sleep(0.01)
        return taken(self, *arguments)

    if RANK == 1:
        Stepper.__call__ = sending  # type: ignore[method-assign]


if __name__ == "__main__":
    how, *arguments = sys.argv[1:]
    count = arguments.index("train")
    {"kill": kill, "stop": stop}[how](*arguments[:count])
    sys.exit(main(arguments[count:]))
