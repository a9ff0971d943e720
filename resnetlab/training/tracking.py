"""Sends metrics to trackers of experiments: TensorBoard, Weights & Biases, MLflow.

metrics.jsonl stays the record; trackers get each of its lines once. RUN/tracking.json counts the lines sent, so that a
resumed run, which writes some lines again, sends none twice.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from resnetlab.errors import UserError, check_choice
from resnetlab.run_files import TRACKING, read_metrics, read_sent
from resnetlab.storage import disk_errors, write_atomically
from resnetlab.training.run import Run

Write = Callable[[dict[str, float], int], None]  # values by name, and their step


@contextlib.contextmanager
def tracking(run: Run, log: str | None) -> Iterator[Callable[[], None]]:
    """A function that sends the lines of metrics.jsonl that the tracker `log` does not have yet; log: None for none.

    Raises UserError at once for an unknown name or a missing package, and later if the tracker fails. Lines
    are counted after they are sent, so that after a kill in between the last ones are sent again.
    """
    if log is None:
        yield lambda: None
        return
    check_choice("log", log, TRACKERS)
    package, tracker = TRACKERS[log]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"log={log!r} needs a package that can't be imported here ({error}): pip install 'resnetlab[{log}]'"
        ) from error
    with contextlib.ExitStack() as stack:
        write: Write | None = None

        def catch_up() -> None:
            nonlocal write
            lines, sent = read_metrics(run.folder), read_sent(run.folder)
            new = range(sent.get(log, 0), len(lines))
            if not new:
                return
            try:
                if write is None:
                    write = stack.enter_context(tracker(module, run))
                for i in new:
                    known = lines[i - 1] if i and lines[i - 1]["step"] == lines[i]["step"] else {}
                    write(_values(lines[i], known), int(lines[i]["step"]))
            except Exception as error:  # whatever the package raises: no server, no key, no room
                raise UserError(
                    f"log={log!r} fails ({type(error).__name__}: {error}); the run is kept: repeat the command "
                    "to resume, without --log if necessary."
                ) from error
            with disk_errors(run.folder):
                write_atomically(run.folder / TRACKING, json.dumps(sent | {log: len(lines)}).encode())

        yield catch_up


def _values(line: dict[str, Any], known: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line without its place, and without those in `known`: an epoch's end repeats a logged step's."""
    return {k: float(v) for k, v in line.items() if k not in ("step", "epoch", *known) and isinstance(v, int | float)}


@contextlib.contextmanager
def _tensorboard(module: Any, run: Run) -> Iterator[Write]:
    """Event files in RUN/tensorboard: tensorboard --logdir RUNS."""
    with contextlib.closing(module.Writer(str(run.folder / "tensorboard"))) as writer:

        def write(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield write


@contextlib.contextmanager
def _wandb(module: Any, run: Run) -> Iterator[Write]:
    """A run of the same name and hash in the project "resnetlab"."""
    settings = {"id": run.id, "name": run.folder.name, "config": run.recipe.to_dict(), "dir": str(run.folder)}
    with module.init(project="resnetlab", resume="allow", **settings) as there:
        yield lambda values, step: there.log(values, step=step)


@contextlib.contextmanager
def _mlflow(module: Any, run: Run) -> Iterator[Write]:
    """A run tagged with the hash, in the experiment "resnetlab" of the server that MLFLOW_TRACKING_URI names."""
    module.set_experiment("resnetlab")
    mine = f"tags.resnetlab = '{run.id}'"
    found = module.search_runs(experiment_names=["resnetlab"], filter_string=mine, output_format="list")
    new = {"run_name": run.folder.name, "tags": {"resnetlab": run.id}}
    with module.start_run(**({"run_id": found[0].info.run_id} if found else new)):
        if not found:
            module.log_params(run.recipe.to_dict())
        yield lambda values, step: module.log_metrics(values, step=step)


TRACKERS: dict[str, tuple[str, Callable[[Any, Run], AbstractContextManager[Write]]]] = {
    "tensorboard": ("tensorboard.summary", _tensorboard),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
}
