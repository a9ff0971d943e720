"""`resnetlab train`."""

from __future__ import annotations

import contextlib
import dataclasses
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from cyclopts import Parameter

from resnetlab.cli.options import Device, Json, Runs, WholeNumber, Workers
from resnetlab.cli.serve import check_installed as check_server_installed
from resnetlab.cli.serve import serve as serve_run
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import RECIPES
from resnetlab.training.recipes import recipe as named_recipe

if TYPE_CHECKING:
    from resnetlab.training.distributed import Distributed
    from resnetlab.training.launch import Launch

_HINTS = get_type_hints(Recipe)
# Every field of a recipe as an option of the same name, unset unless given.
_NAMES = {"start": ("--from", "--start")}  # "from" is a word of Python's
Overrides: Any = dataclasses.make_dataclass(
    "Overrides",
    [
        (
            f.name,
            Annotated[
                _HINTS[f.name] | None,
                Parameter(name=_NAMES.get(f.name), help=f.metadata["help"], consume_multiple=True),
                WholeNumber if int in (_HINTS[f.name], *get_args(_HINTS[f.name])) else Parameter(),
            ],
            None,
        )
        for f in dataclasses.fields(Recipe)
    ],
    kw_only=True,
    namespace={"__module__": __name__, "__doc__": "Fields of the recipe."},
)

Name = Annotated[str, Parameter(help=f"The recipe: {', '.join(RECIPES)}, or a .toml file.")]
Fields = Annotated[Overrides | None, Parameter(name="*")]
Threads = Annotated[
    int | None, WholeNumber, Parameter(help="Number of CPU threads; a resumed run keeps the number it started with.")
]
Log = Annotated[
    Literal["tensorboard", "wandb", "mlflow"] | None,
    Parameter(help="Also send the metrics to this tracker; metrics.jsonl always has them."),
]
DryRun = Annotated[
    bool, Parameter(negative="", help="Show the run's settings and its cost in memory and time; train nothing.")
]
CheckpointSteps = Annotated[
    int | None,
    WholeNumber,
    Parameter(help="Steps between checkpoints within an epoch; default: every 10 minutes; does not affect results."),
]
Serve = Annotated[
    bool, Parameter(negative="", help="Serve the network after training, on a free port of this machine.")
]


def train(
    recipe: Name = "digits",
    /,
    *,
    overrides: Fields = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    log: Log = None,
    dry_run: DryRun = False,
    checkpoint_steps: CheckpointSteps = None,
    serve: Serve = False,
    json: Json = False,
) -> None:
    """Train a network by a recipe; the same command resumes an unfinished run and reads a finished one.

    Every field of the recipe is an option: resnetlab train digits --net cifar_plain56 --epochs 5
    To fine-tune a trained network: resnetlab train finetune --data FOLDER --from RUN
    To train on a folder of images and serve the network on a page: resnetlab train finetune --data FOLDER --serve
    To train on several GPUs or machines: torchrun --nproc-per-node N -m resnetlab train ...
    """
    from resnetlab.training.distributed import joined

    if serve:
        check_server_installed()  # before the training
    given = {k: v for k, v in vars(overrides).items() if v is not None} if overrides else {}
    with joined(device) as distributed:
        values = named_recipe(recipe, **given)
        setup = {"device": device, "threads": threads, "workers": workers, "checkpoint_steps": checkpoint_steps}
        job = _launched(values, runs, distributed, setup, dry_run)
        if dry_run:
            _try_out(job, json)
            return
        _train(job, log, warn_of_scratch=recipe == "finetune" and not values.start, json=json)
    if serve and distributed.is_main:
        serve_run(str(job.run.folder), which="best" if values.stop_after else "last", port=0, device=device)


def _launched(recipe: Recipe, runs: Path, distributed: Distributed, setup: dict[str, Any], dry_run: bool) -> Launch:
    """The run, checked; the process that speaks says what may be wrong with its data."""
    from resnetlab.api.screen import say
    from resnetlab.training.launch import launch

    job = launch(recipe, runs, distributed, dry_run=dry_run, **setup)
    for line in job.warnings() if distributed.is_main else ():
        say(line)
    return job


def _try_out(job: Launch, json: bool) -> None:
    from resnetlab.cli.dry_run import show_dry_run

    if job.distributed.is_main:
        show_dry_run(job.run, job.device, job.threads, job.workers, json)


def _train(job: Launch, log: str | None, *, warn_of_scratch: bool, json: bool) -> None:
    """Train and, in the process that speaks, say how it goes and what came of it."""
    from resnetlab.api.screen import counting, say

    finished_before = job.distributed.broadcast_from_main(job.run.result) is not None
    if job.distributed.is_main:
        for line in job.introduction(warn_of_scratch=warn_of_scratch):
            say(line)
        if finished_before:
            say(job.how_to_train_anew())
        else:
            with counting("measuring the training images") as count:
                job.measure(count)
    early = _follow(job, log)
    if not job.distributed.is_main:
        return
    for line in job.conclusion(early=early):
        say(line)
    result = job.run.result()
    assert result is not None
    if json:
        answer = {k: result[k] for k in ("train_error", "test_error", "epochs", "seconds")}
        print(json_module.dumps({"run": str(job.run.folder)} | answer), flush=True)
        return
    print(
        f"{'already finished' if finished_before else 'finished'}: training error {result['train_error']:.2f} %, "
        f"test error {result['test_error']:.2f} %, {result['epochs']} epoch{'s' * (result['epochs'] != 1)} in "
        f"{result['seconds']:.1f} s\n{job.run.folder}"
    )


def _follow(job: Launch, log: str | None) -> bool:
    """Train and show how it goes; whether it was stopped early."""
    from resnetlab.api.screen import progress_bars, say, watching
    from resnetlab.training.signals import stop_on_signals
    from resnetlab.training.tracking import tracking

    speaks, reported, early = job.distributed.is_main, None, False
    with (
        tracking(job.run, log if speaks else None) as track,
        progress_bars(shown=speaks) as bars,
        stop_on_signals(alone=job.distributed.world_size == 1) as stop,
        watching() if speaks else contextlib.nullcontext(lambda _: None) as sign_of_life,
    ):
        task = bars.add_task("training", words="")
        for status in job.train(stop):
            sign_of_life(status.next)
            reported = status.epochs_done if reported is None else reported  # the first one is within an epoch
            test = f", test {status.test_error:.2f} %" if status.test_error is not None else ""
            words = f"error {status.train_error:.2f} %{test}, {status.images_per_second:,.0f} images/s"
            bars.update(task, completed=status.step, total=status.steps, words=words)
            track()
            early = status.step < status.steps  # of the last one
            if status.epochs_done > reported and speaks and not sys.stderr.isatty():
                reported = status.epochs_done
                say(f"epoch {reported}, step {status.step} of {status.steps}, lr {status.lr:.4g}: {words}")
        track()  # of a run that was finished before, what its tracker lacks
    return early
