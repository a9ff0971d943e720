"""`resnetlab train`."""

from __future__ import annotations

import contextlib
import dataclasses
import json as json_module
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from cyclopts import Parameter, Token

from resnetlab.cli.networks import Json
from resnetlab.errors import UserError, shown
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import RECIPES
from resnetlab.training.recipes import recipe as named_recipe

if TYPE_CHECKING:
    from resnetlab.data.images import Data, Purpose
    from resnetlab.data.understood import Understood
    from resnetlab.training.distributed import Distributed
    from resnetlab.training.run import Run


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise UserError(f"{tokens[0].value!r} must be a whole number.") from error


WholeNumber = Parameter(converter=_whole_number)  # cyclopts by itself reads 1.5 as 2

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

MOST_WORKERS = 256
WHOSE_NORMALISATION = {
    "source": "from the source file",
    "imagenet": "ImageNet's",
    "pixel_mean": "each pixel's mean over the training images",
    "channel_mean_std": "each channel's mean and deviation over the training images",
}
Log = Literal["tensorboard", "wandb", "mlflow"]
Runs = Annotated[Path, Parameter(help="The folder in which runs are kept.")]
Device = Annotated[str, Parameter(help="cpu, cuda or cuda:N; auto uses a GPU if there is one.")]
Threads = Annotated[
    int | None, WholeNumber, Parameter(help="Number of CPU threads; a resumed run keeps the number it started with.")
]
Workers = Annotated[
    int | None, WholeNumber, Parameter(help="Number of processes that decode image files; does not affect results.")
]

CheckpointSteps = Annotated[
    int | None,
    WholeNumber,
    Parameter(help="Steps between checkpoints within an epoch; default: every 10 minutes; does not affect results."),
]


def train(
    recipe: Annotated[str, Parameter(help=f"The recipe: {', '.join(RECIPES)}, or a .toml file.")] = "digits",
    /,
    *,
    overrides: Annotated[Overrides | None, Parameter(name="*")] = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    log: Annotated[
        Log | None, Parameter(help="Also send the metrics to this tracker; metrics.jsonl always has them.")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Show the run's settings and its cost in memory and time; train nothing.")
    ] = False,
    checkpoint_steps: CheckpointSteps = None,
    serve: Annotated[
        bool, Parameter(negative="", help="Serve the network after training, on a free port of this machine.")
    ] = False,
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
        from resnetlab.cli.serve import check_installed
        from resnetlab.cli.serve import serve as serve_run

        check_installed()  # before the training
    given = {k: v for k, v in vars(overrides).items() if v is not None} if overrides else {}
    with joined(device) as distributed:
        values = named_recipe(recipe, **given)
        folder = _train(
            distributed,
            values,
            runs,
            from_scratch=recipe == "finetune" and not values.start,
            device=device,
            threads=threads,
            workers=workers,
            checkpoint_steps=checkpoint_steps,
            log=log,
            dry_run=dry_run,
            json=json,
        )
    if serve and folder:
        serve_run(str(folder), which="best" if values.stop_after else "last", port=0, device=device)


def _train(
    distributed: Distributed,
    recipe: Recipe,
    runs: Path,
    *,
    from_scratch: bool,
    device: str,
    threads: int | None,
    workers: int | None,
    checkpoint_steps: int | None,
    log: Log | None,
    dry_run: bool,
    json: bool,
) -> Path | None:
    """The folder of the finished run, in the process that speaks; None after a dry run."""
    from resnetlab.cli.screen import say
    from resnetlab.run_files import last_epoch
    from resnetlab.training.distributed import check_same, local_device
    from resnetlab.training.loop import train as train_run
    from resnetlab.training.run import make_run
    from resnetlab.training.setup import normalisation_of
    from resnetlab.training.signals import stop_on_signals

    processors = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= processors:
        raise UserError(f"threads={threads} must be 1 to {processors}, the number of processors of this machine.")
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise UserError(f"checkpoint_steps={checkpoint_steps} must be 1 or more.")
    where = find_device(local_device(device, distributed))
    purpose: Purpose = "read" if dry_run else "train"
    run = distributed.main_first(lambda: make_run(recipe, runs, purpose=purpose))
    check_same(distributed, run.id)
    if distributed.is_main and (lost := run.data.held_out_whole(run.recipe.validation_images)):
        some = ", ".join(map(shown, lost[:5])) + (", ..." if len(lost) > 5 else "")
        say(
            f"{len(lost)} of {len(run.data.classes)} classes have no training images left, since all are held out for "
            f"validation: {some}; add images, or hold out fewer (--validation-share, --validation-images)"
        )
    if dry_run:
        from resnetlab.cli.dry_run import show_dry_run

        if distributed.is_main:
            show_dry_run(run, where, threads, number_of_workers(workers, run.data, where), json)
        return None
    finished_before = distributed.broadcast_from_main(run.result) is not None
    from resnetlab.cli.screen import counting, progress_bars, watching
    from resnetlab.training.tracking import tracking

    if distributed.is_main:
        say(f"{run.spec.name} on {run.data.name}: {run.folder}")
        say(str(understood_of(run, recipe)))
        if run.start:
            say(run.start.note)
        elif from_scratch:
            say(
                "no --from: training from scratch needs many more images and epochs; expect a far higher error with few"
            )
    decoders = number_of_workers(workers, run.data, where, distributed.local_world_size)
    if distributed.is_main and finished_before:
        say(_how_to_train_anew(run))
    elif distributed.is_main:
        with counting("measuring the training images") as count:
            normalisation_of(run, workers=decoders, progress=count)  # kept, so that it can be shown here
    with (
        tracking(run, log if distributed.is_main else None) as track,
        progress_bars(shown=distributed.is_main) as bars,
        stop_on_signals(alone=distributed.world_size == 1) as stop,
        watching() if distributed.is_main else contextlib.nullcontext(lambda _: None) as sign_of_life,
    ):
        task = bars.add_task("training", words="")
        reported, early = None, False
        for status in train_run(
            run,
            device=where,
            threads=threads,
            workers=decoders,
            checkpoint_steps=checkpoint_steps,
            stop=stop,
            distributed=distributed,
        ):
            sign_of_life(status.next)
            reported = status.epochs_done if reported is None else reported  # the first one is within an epoch
            test = f", test {status.test_error:.2f} %" if status.test_error is not None else ""
            words = f"error {status.train_error:.2f} %{test}, {status.images_per_second:,.0f} images/s"
            bars.update(task, completed=status.step, total=status.steps, words=words)
            track()
            early = status.step < status.steps  # of the last one
            if status.epochs_done > reported and distributed.is_main and not sys.stderr.isatty():
                reported = status.epochs_done
                say(f"epoch {reported}, step {status.step} of {status.steps}, lr {status.lr:.4g}: {words}")
        track()  # of a run that was finished before, what its tracker lacks
    if not distributed.is_main:
        return None
    result = run.result()
    assert result is not None
    answer = {
        "run": str(run.folder),
        **{k: result[k] for k in ("train_error", "test_error", "epochs", "seconds")},
    }
    if early:
        say(
            f"stopped early: the validation error has not fallen below {result['best_error']:.2f} % for "
            f"{run.recipe.stop_after} epochs; best/ has the weights with the lowest"
        )
    if missing := last_epoch(run.folder).get("unreadable"):
        say(f"the last epoch lacked {missing} unreadable files; 'resnetlab data audit' names them")
    if json:
        print(json_module.dumps(answer), flush=True)
        return run.folder
    print(
        f"{'already finished' if finished_before else 'finished'}: training error {result['train_error']:.2f} %, "
        f"test error {result['test_error']:.2f} %, {result['epochs']} epoch{'s' * (result['epochs'] != 1)} in "
        f"{result['seconds']:.1f} s\n{run.folder}"
    )
    return run.folder


def _how_to_train_anew(run: Run) -> str:
    from resnetlab.data.files import Files, written_since

    finished = (run.folder / "result.json").stat().st_mtime
    newer = sum(written_since(side, finished) for side in (run.data.train, run.data.test) if isinstance(side, Files))
    written = f"{newer:,} of the data's files were written since then, with the same names and sizes; "
    return f"{written if newer else ''}to train again, remove {run.folder} or give another --seed"


def understood_of(run: Run, asked: Recipe) -> Understood:
    """What a training takes its data and its weights for; asked: the recipe as it was given."""
    from resnetlab.data.understood import Understood

    assumed = asked.normalise == "source" != run.recipe.normalise
    return Understood.of(
        run.data,
        held_out=run.recipe.validation_images,
        size=run.spec.input_size,
        layout=run.start.naming if run.start else "resnetlab, from scratch",
        normalisation=WHOSE_NORMALISATION[run.recipe.normalise] + (", since the file does not state one" * assumed),
    )


def number_of_workers(asked: int | None, data: Data, device: str, processes: int = 1) -> int:
    """How many processes decode ahead: none for images in memory; a GPU wants all cores, a CPU that trains one.

    processes: how many share the cores.
    """
    from resnetlab.machine import available_cores

    if asked is not None and not 0 <= asked <= MOST_WORKERS:
        raise UserError(f"workers={asked} must be 0 to {MOST_WORKERS}.")
    if data.shape is not None:
        return 0
    if asked is not None:
        return asked
    return min(max(available_cores() // processes, 1), 16) if device.startswith("cuda") else 1


def find_device(name: str) -> str:
    """Resolve "auto"; refuse what this machine or torch does not have."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"device {name!r} is not known: give cpu, cuda, cuda:N or auto.")
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} can't be used here: torch finds no CUDA GPU. Use --device cpu.")
    try:
        torch.empty(1, device=name)
    except RuntimeError as error:  # no GPU of that number, or one that others hold
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"device {name!r} can't be used here: {reason}. Use --device cpu.") from error
    return name
