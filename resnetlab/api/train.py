"""`resnetlab.train`: trains a network by a recipe, and shows the progress."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from resnetlab.api import screen
from resnetlab.api.arguments import PathLike, called_from_python, check_kind, text_of
from resnetlab.api.errors import as_user_errors
from resnetlab.api.fetching import fetch_sources
from resnetlab.api.tables import Row, Tabular
from resnetlab.errors import in_whole_texts
from resnetlab.paths import expanded
from resnetlab.run_files import read_epochs, read_settings
from resnetlab.training.distributed import Distributed, joined
from resnetlab.training.launch import Launch, launch
from resnetlab.training.log_lines import LogLines, words_of
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe as named_recipe
from resnetlab.training.signals import stop_on_signals
from resnetlab.training.tracking import tracking


@dataclass(frozen=True)
class TrainingResult(Tabular):
    """A finished run: its folder and its result; errors in %.

    `resnetlab.load`, `evaluate`, `predict` and `plot_runs` take it in place of the folder.
    """

    folder: Path
    network: str
    data: str
    train_error: float  # over the last epoch's batches
    test_error: float  # after the last epoch
    best_error: float  # the lowest on the validation images, or on the test images if there are none
    epochs: int
    steps: int
    seconds: float
    finished_before: bool  # whether it was finished already, and was only read
    formats: ClassVar[Mapping[str, str]] = {"seconds": ".1f"}

    def table(self) -> list[Row]:
        """One row: network, data, length, errors, time and folder."""
        names = ("network", "data", "epochs", "train_error", "test_error", "seconds")
        return [{name: getattr(self, name) for name in names} | {"folder": str(self.folder)}]

    def __fspath__(self) -> str:
        return str(self.folder)

    def history(self) -> list[dict[str, Any]]:
        """What metrics.jsonl says of each epoch: its step, loss, train_error, test_error and more.

        Raises UserError if the folder is gone or damaged.
        """
        read_settings(self.folder)  # metrics may be absent, a run's folder may not
        return read_epochs(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values: dict[str, Any] = in_whole_texts(asdict(self) | {"folder": str(self.folder)})
        return values


@called_from_python
def train(
    recipe: PathLike | Recipe = "digits",
    *,
    name: str = "",
    runs: PathLike = "runs",
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    log: str | None = None,
    checkpoint_steps: int | None = None,
    quiet: bool = False,
    **fields: Any,
) -> TrainingResult:
    """Train a network by a recipe, as `resnetlab train` does; return what the run ended with.

        resnetlab.train("digits", net="cifar_plain56", epochs=5)
        resnetlab.train("finetune", data="flowers", start="resnet18.pth")

    recipe is a name, a .toml file, or a `Recipe`; fields are the fields of `Recipe` to change. The same call resumes an
    unfinished run and reads a finished one. runs is the folder for runs, name the name of the run in it (NAME-HASH),
    and the other options are those of the command. Progress is shown as a bar in a notebook or on a terminal, and in
    lines elsewhere; quiet shows none. Under torchrun every process makes the same call and gets the same result.

    Raises UserError for what the command would refuse, with the same line. Interrupted, a run saves its last step and
    raises `training.signals.Stopped`, which says so.
    """
    with as_user_errors("train"), screen.silenced(quiet):
        check_kind(str, name=name, device=device, log=log)
        check_kind(int, threads=threads, workers=workers, checkpoint_steps=checkpoint_steps)
        check_kind(bool, quiet=quiet)
        setup: dict[str, Any] = {"name": name, "threads": threads, "workers": workers}
        setup |= {"checkpoint_steps": checkpoint_steps}
        with joined(device) as distributed:
            values = recipe_of(recipe, fields)
            job = launched(values, expanded(text_of(runs, "runs")), distributed, device=device, **setup)
            return _train(job, log, warn_of_scratch=recipe == "finetune" and not values.start)


def recipe_of(recipe: PathLike | Recipe, fields: Mapping[str, Any]) -> Recipe:
    """The recipe of that name or file, or the recipe itself, with some fields changed.

    Raises UserError, also for a field that is changed to no effect.
    """
    if isinstance(recipe, Recipe):
        changed = recipe.override(**fields)
    else:
        changed = named_recipe(text_of(recipe, "recipe"), **fields)
    changed.check_effect(fields)
    return changed


def launched(
    recipe: Recipe, runs: Path, distributed: Distributed, *, device: str, dry_run: bool = False, **setup: Any
) -> Launch:
    """The run, checked, with the weights that it starts from; setup: as `launch` takes it.

    The main process prints the warnings.
    """
    fetch_sources(recipe.start)
    job = launch(recipe, runs, distributed, device=device, dry_run=dry_run, **setup)
    for line in job.warnings() if distributed.is_main else ():
        screen.say(line)
    return job


def _train(job: Launch, log: str | None, *, warn_of_scratch: bool) -> TrainingResult:
    """Train and, in the main process, print the progress and remarks."""
    finished_before = job.distributed.broadcast_from_main(job.run.result) is not None
    if job.distributed.is_main:
        for line in job.introduction(warn_of_scratch=warn_of_scratch):
            screen.say(line)
        if finished_before:
            screen.say(job.how_to_train_anew())
        else:
            with screen.counting("measuring the training images") as count:
                job.measure(count)
    early = _follow(job, log)
    for line in job.conclusion(early=early) if job.distributed.is_main else ():
        screen.say(line)
    result = job.distributed.broadcast_from_main(job.run.result)
    assert result is not None
    names = ("train_error", "test_error", "best_error", "epochs", "steps", "seconds")
    return TrainingResult(
        folder=job.run.folder.absolute(),  # found again after a change of the working folder
        network=job.run.spec.name or "net",
        data=job.run.data.title,
        finished_before=finished_before,
        **{name: result[name] for name in names},
    )


def _follow(job: Launch, log: str | None) -> bool:
    """Train and show the progress; return whether it was stopped early."""
    speaks, lines, early = job.distributed.is_main, LogLines(), False
    with (
        tracking(job.run, log if speaks else None) as track,
        screen.progress_bars(shown=speaks) as bars,
        stop_on_signals(alone=job.distributed.world_size == 1) as stop,
        screen.watching() if speaks else contextlib.nullcontext(lambda _: None) as sign_of_life,
    ):
        task = bars.add_task("training", words="")
        for status in job.train(stop):
            sign_of_life(status.next)
            bars.update(task, completed=status.step, total=status.steps, words=words_of(status))
            track()
            early = status.step < status.steps  # the last status decides
            if (line := lines.due(status)) and speaks and not screen.has_bars():
                screen.say(line)
        track()  # sends what the tracker lacks of a run that was finished before
    return early
