"""The studies that a command runs, their scale, and the images or other projects' networks that they use."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnetlab.errors import UserError, shown
from resnetlab.machine import available_cores, find_device
from resnetlab.nets.zoo import spec
from resnetlab.studies import STUDIES
from resnetlab.studies.frame.budget import Budget, budget, length
from resnetlab.studies.frame.cluster import check_cluster, run_on_ray
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.record import Record, make_record
from resnetlab.studies.frame.run import Event, run_plan
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.study import Plan, Study, study
from resnetlab.training.recipe import Recipe
from resnetlab.training.signals import Stopped, stop_on_signals
from resnetlab.weights.hub_files import MODEL, OLD_MODEL
from resnetlab.weights.sources import is_name, located


@dataclass(frozen=True)
class Assignment:
    """A study to run, its plan, and the command that its record names."""

    study: Study
    scale: str
    plan: Plan
    command: str

    @property
    def title(self) -> str:
        """Study and scale, for a line of progress."""
        return f"{self.study.name}, {self.scale}"


def assignments(
    name: str | None,
    scale: str,
    *,
    data: str | None = None,
    weights: Iterable[str] = (),
    epochs: float | None = None,
    seeds: int | None = None,
) -> list[Assignment]:
    """One study, or all if name is None; weights: networks to measure, as texts NAME=FILE. Raises UserError."""
    chosen = [study(n) for n in STUDIES] if name is None else [study(name)]
    files = weight_files(weights)
    if files:
        chosen = [s for s in chosen if s.takes_weights]
        if not chosen:
            raise UserError(
                f"{name}: can't measure networks from other projects, it has to train its own; leave out --weights."
            )
    if files and scale != "quick":
        raise UserError(f"scale={shown(scale)}: networks of --weights are only measured, at one size; leave it out.")
    taken = WEIGHTS if files else scale
    if taken != "quick" and data is None:
        what = "--weights" if files else f"scale {shown(taken)}"
        raise UserError(f"{what} needs the images: give --data cifar10:DIR.")
    plans = [one.plan(taken, data, files) for one in chosen]
    if files:
        chosen, plans = _that_measure(chosen, plans)
    _check_less(taken, plans, epochs, seeds)
    options = [] if files else ["--scale", scale]
    options += [f"--data {data.split(':')[0]}:DIR"] if data else []
    options += [f"--weights {shlex.quote(w.text)}" for w in files]
    options += [f"--{k} {v:g}" for k, v in (("epochs", epochs), ("seeds", seeds)) if v is not None]
    return [
        Assignment(
            one,
            taken,
            plan.limited(epochs, seeds),
            " ".join(["resnetlab study run", one.name, *options]),
        )
        for one, plan in zip(chosen, plans, strict=True)
    ]


def _that_measure(studies: Sequence[Study], plans: Sequence[Plan]) -> tuple[list[Study], list[Plan]]:
    """The studies that can measure some of the networks given, with their plans. Raises UserError if none can."""
    able = [(one, plan) for one, plan in zip(studies, plans, strict=True) if plan.measurements]
    if not able:
        raise UserError(f"{studies[0].name}: measures residual networks only; name one with --weights.")
    return [one for one, _ in able], [plan for _, plan in able]


def _check_less(scale: str, plans: Sequence[Plan], epochs: float | None, seeds: int | None) -> None:
    """Raise UserError for options that ask for more than any of the plans has, and for epochs of no training."""
    counts: list[float] = [r.seed + 1 for plan in plans for r in plan.recipes]
    counts += [m.seed + 1 for plan in plans for m in plan.measurements]
    lengths = [length(recipe) for plan in plans for recipe in plan.recipes]
    if epochs is not None and not lengths:
        raise UserError(f"epochs={epochs:g}: no runs are trained here that --epochs could shorten; leave it out.")
    for name, asked, there in (("seeds", seeds, counts), ("epochs", epochs, lengths)):
        if asked is not None and there and asked > (most := max(there)):
            raise UserError(f"{name}={asked:g}: scale {shown(scale)} has {most:g}, and --{name} can only lower that.")


def weight_files(texts: Iterable[str]) -> tuple[Weights, ...]:
    """The networks that --weights names. Raises UserError."""
    found: list[Weights] = []
    for text in texts:
        if text.startswith("pretrained:"):
            text = f"{text.removeprefix('pretrained:')}={text}"
        net, equals, file = text.partition("=") if "(" not in text else text.rpartition("=")
        if not (equals and net and file):
            raise UserError(
                f"weights {shown(text)}: write NAME=FILE, e.g. cifar_resnet20=resnet20.pt, or pretrained:NAME."
            )
        spec(net)
        path = located(file)
        path = next((path / name for name in (MODEL, OLD_MODEL) if (path / name).is_file()), path)
        if not path.is_file():
            raise UserError(f"{path}: no such weight file.")
        if any(one.net == net and one.file.samefile(path) for one in found):
            raise UserError(f"weights {shown(text)}: given twice; the files of one network count as seeds.")
        found.append(Weights(net, path, file if is_name(file) else "FILE"))
    return tuple(found)


@dataclass(frozen=True)
class Workplace:
    """Where runs and measurements take place."""

    runs: Path
    device: str
    jobs: int | None = None  # trainings at once; None: one for each core, one on a GPU
    ray: str | None = None  # address of the cluster to train on

    @classmethod
    def checked(cls, runs: Path, device: str, jobs: int | None, ray: str | None) -> Workplace:
        """From a command's options. Raises UserError for a device that this machine lacks, and for jobs with Ray."""
        if jobs is not None and ray is not None:
            raise UserError("--jobs can't be used with --ray: Ray runs as many trainings as there is room for.")
        if ray is None:
            return cls(runs, find_device(device), jobs)
        check_cluster(ray, device)
        return cls(runs, device, jobs, ray)

    @property
    def most(self) -> int:
        """Trainings at once, without Ray."""
        return self.jobs or (1 if self.device not in ("cpu", "auto") else available_cores())

    @property
    def words(self) -> str:
        """For a line of progress."""
        return f"{self.most} at once" if self.ray is None else f"on Ray ({self.ray})"

    def budget(self, recipes: Iterable[Recipe]) -> Budget:
        """The cost of these trainings here."""
        return budget(recipes, self.runs, self._device_here)

    @property
    def _device_here(self) -> str:
        """The device of measurements, which take place on this machine; Ray's may have GPUs that this one lacks."""
        if self.ray is None:
            return self.device
        return find_device("auto") if self.device == "cuda" else "cpu"

    def carry_out(self, task: Assignment, follow: Callable[[Assignment, Iterator[Event]], dict[int, str]]) -> Record:
        """Run what a study is missing and make its record; follow consumes events and returns the reasons of failures.

        Raises Stopped after SIGTERM or Ctrl-C, and UserError.
        """
        trainings, device = None, self._device_here
        if self.ray is not None:
            trainings = run_on_ray(task.plan.recipes, self.runs, address=self.ray, device=self.device)
        try:
            with stop_on_signals() as stop:
                events = run_plan(task.plan, self.runs, self.most, device, trainings, stop)
                failed = follow(task, events)
                with stop.at_once():
                    return make_record(task.study, task.scale, task.plan, self.runs, task.command, failed, device)
        except Stopped as stopped:
            stopped.saved = f"with each run's last {'step saved' if self.ray is None else 'checkpoint kept'}"
            raise
