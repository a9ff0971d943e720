"""`resnetlab train`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter

from resnetlab.cli.options import Device, Json, Runs, WholeNumber, Workers, print_json
from resnetlab.cli.serve import check_installed as check_server_installed
from resnetlab.cli.serve import serve as serve_run
from resnetlab.errors import NothingToResume, UserError
from resnetlab.training.recipe import RETIRED, TYPES, Recipe
from resnetlab.training.recipes import RECIPES
from resnetlab.training.recipes import recipe as named_recipe

if TYPE_CHECKING:
    from resnetlab.api.train import TrainingResult

# The groups of --help, each from the field at which it begins to the next one's, in the order of Recipe's fields.
_GROUPS = {
    "net": "The network, and where it starts",
    "data": "The data",
    "augment": "Augmentation",
    "epochs": "Length and batches",
    "lr": "The learning rate",
    "optimiser": "The optimiser",
    "sync_bn": "Speed and memory",
    "clip_gradient": "Gradients and averages",
}


def _group_of(field: str) -> Group:
    names = [f.name for f in dataclasses.fields(Recipe)]
    begun = [name for name in names[: names.index(field) + 1] if name in _GROUPS]
    return Group(_GROUPS[begun[-1]], sort_key=names.index(begun[-1]) + 1)


# Every field of a recipe as an option of the same name, unset unless given.
_NAMES = {"start": ("--from", "--start")}  # "from" is a word of Python's
Overrides: Any = dataclasses.make_dataclass(
    "Overrides",
    [
        (
            f.name,
            Annotated[
                TYPES[f.name] | None,
                Parameter(
                    name=_NAMES.get(f.name),
                    help=f.metadata["help"],
                    consume_multiple=True,
                    negative_iterable=(),
                    show=f.name not in RETIRED,
                    group=_group_of(f.name),
                ),
                WholeNumber if int in (TYPES[f.name], *get_args(TYPES[f.name])) else Parameter(),
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
    int | None,
    WholeNumber,
    Parameter(
        help="Number of CPU threads; default: torch's own, usually one per core; a resumed run keeps the number that "
        "it started with."
    ),
]
Log = Annotated[
    Literal["tensorboard", "wandb", "mlflow"] | None,
    Parameter(help="Also send the metrics to this tracker; metrics.jsonl always has them."),
]
DryRun = Annotated[
    bool, Parameter(negative="", help="Show the run's settings and its cost in memory and time; train nothing.")
]
FindLr = Annotated[
    bool,
    Parameter(
        name="--find-lr",
        negative="",
        help="Try about a hundred steps at growing learning rates, plot the loss in find-lr.svg and suggest a rate; "
        "train nothing.",
    ),
]
CheckpointSteps = Annotated[
    int | None,
    WholeNumber,
    Parameter(help="Steps between checkpoints within an epoch; default: every 10 minutes; does not affect results."),
]
RunName = Annotated[
    str, Parameter(help="What to call the run: its folder is NAME-HASH. NAME then stands for the newest such run.")
]
Serve = Annotated[
    bool, Parameter(negative="", help="Serve the network after training, on a free port of this machine.")
]


def train(
    recipe: Name = "digits",
    /,
    *,
    overrides: Fields = None,
    name: RunName = "",
    runs: Runs = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    log: Log = None,
    dry_run: DryRun = False,
    find_lr: FindLr = False,
    checkpoint_steps: CheckpointSteps = None,
    serve: Serve = False,
    json: Json = False,
) -> None:
    """Train a network by a recipe; the same command resumes an unfinished run and reads a finished one.

    Fields of the recipe are options and default to its values: resnetlab train digits --net cifar_plain56 --epochs 5
    To fine-tune a trained network: resnetlab train finetune --data FOLDER --from RUN
    To train on a folder of images and serve the network on a page: resnetlab train finetune --data FOLDER --serve
    To train on several GPUs or machines: torchrun --nproc-per-node N -m resnetlab train ...
    """
    if serve:
        check_server_installed()  # before the training
    given = _given(overrides)
    setup: dict[str, Any] = {"name": name, "device": device, "threads": threads, "workers": workers}
    setup |= {"checkpoint_steps": checkpoint_steps}
    if dry_run or find_lr:
        _try_out(recipe, given, runs, setup, json, dry_run, find_lr)
        return
    from resnetlab.api.train import train as train_to_the_end

    result = train_to_the_end(recipe, runs=runs, log=log, **setup, **given)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        _show(result, json)
        if serve:
            _serve(result.folder, named_recipe(recipe, **given), device)


def _serve(folder: Path, recipe: Recipe, device: str) -> None:
    with _nothing_to_resume():
        serve_run(str(folder), which="best" if recipe.stop_after else "last", port=0, device=device)


@contextlib.contextmanager
def _nothing_to_resume() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise NothingToResume from stopped


def _given(overrides: Any) -> dict[str, Any]:
    """The fields that were given. Raises UserError for an empty source, which would mean from scratch."""
    given = {k: v for k, v in vars(overrides).items() if v is not None} if overrides else {}
    if given.get("start") == "":
        raise UserError("--from is empty; give a run or a weight file, or leave it out to train from scratch.")
    return given


def _try_out(
    recipe: str, fields: dict[str, Any], runs: Path, setup: dict[str, Any], json: bool, dry_run: bool, find_lr: bool
) -> None:
    """A few steps, which train nothing. Raises UserError if both ways are asked for."""
    if dry_run and find_lr:
        raise UserError("give either --dry-run or --find-lr, not both.")
    from resnetlab.api.train import launched, recipe_of
    from resnetlab.cli.dry_run import show_dry_run
    from resnetlab.cli.find_lr import show_find_lr
    from resnetlab.training.distributed import joined

    with joined(setup["device"]) as distributed:
        job = launched(recipe_of(recipe, fields), runs, distributed, dry_run=True, **setup)
        if distributed.is_main:
            with _nothing_to_resume():
                (show_find_lr if find_lr else show_dry_run)(job, json)


def _show(result: TrainingResult, json: bool) -> None:
    if json:
        names = ("train_error", "test_error", "epochs", "seconds")
        answer = {"run": str(result.folder)} | {name: getattr(result, name) for name in names}
        print_json(answer)
        return
    print(
        f"{'already finished' if result.finished_before else 'finished'}: training error {result.train_error:.2f} %, "
        f"test error {result.test_error:.2f} %, {result.epochs} epoch{'s' * (result.epochs != 1)} in "
        f"{result.seconds:.1f} s\n{result.folder}"
    )
