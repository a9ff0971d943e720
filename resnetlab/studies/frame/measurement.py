"""A measurement of a study: a function of a trained network, or of settings alone, whose result is cached."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from resnetlab import measuring, nets
from resnetlab.data.images import Data
from resnetlab.data.loading import Loader
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.open import open_data
from resnetlab.data.statistics import measure
from resnetlab.errors import UserError
from resnetlab.machine import device_name, machine
from resnetlab.measuring.load import busy_load
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build
from resnetlab.schema import Scalar, Seconds
from resnetlab.storage import Damaged, disk_errors, is_there, read_json, write_json
from resnetlab.training.precision import cudnn, resolved
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import make_run
from resnetlab.training.runs import MEASURED
from resnetlab.weights.load import load_with_metadata

MODULE = "measure"  # the module of a study's folder that holds its measurements
ANEW = "remove it, and it is made again"


@dataclass(frozen=True)
class Weights:
    """A network that someone else trained: its name in the zoo, and its file."""

    net: str
    file: Path
    given: str = field(default="FILE", compare=False)  # its name in a record: that of published weights, or FILE

    @property
    def text(self) -> str:
        """The text for --weights in the command of a record."""
        return self.given if self.given == f"pretrained:{self.net}" else f"{self.net}={self.given}"


@dataclass(frozen=True)
class Measurement:
    """A measurement that a study plans.

    `function` is "module:name" of a function (MeasurementContext) -> JSON values. It gets the network of a run (or of
    a weight file), if one is named, and the images of `data`, by default the run's. A measurement of times should be
    `alone`, so that nothing else runs beside it.
    """

    function: str
    settings: dict[str, Any] = field(default_factory=dict)  # JSON values
    run: Recipe | None = None
    weights: Weights | None = None
    data: str | None = None
    seed: int = 0
    alone: bool = False

    @property
    def label(self) -> str:
        """Its name, network, settings and seed, for a line of progress."""
        net = self.run.net if self.run else self.weights.net if self.weights else ""
        words = ", ".join(f"{k} {v}" for k, v in self.settings.items() if not isinstance(v, list | dict))
        return " ".join(w for w in (*self.name, net, words, f"seed {self.seed}") if w)

    @property
    def name(self) -> tuple[str, str]:
        """The study (or the module that several share) and the function: a name that survives moves of the package."""
        module, _, function = self.function.partition(":")
        package, _, last = module.rpartition(".")
        return package.rpartition(".")[2] if last == MODULE else last, function


def named(function: Callable[[MeasurementContext], dict[str, Any]]) -> str:
    """The name of a measuring function in a plan: "module:name"."""
    return f"{function.__module__}:{function.__name__}"


@dataclass(frozen=True)
class Measured:
    """A finished measurement: its plan, its values, and the machine that made it."""

    measurement: Measurement
    values: dict[str, Any]
    seconds: float
    machine: dict[str, Any]
    checked: bool = True  # whether it was just made, or its checksum agrees; older versions wrote no checksum


class _Kept(TypedDict):
    """The cached file of a measurement; older files have no checksum."""

    measurement: NotRequired[str]
    values: dict[str, Any]
    seconds: NotRequired[Seconds]
    machine: dict[str, Scalar]
    sha256: NotRequired[str]


@dataclass(frozen=True)
class MeasurementContext:
    """The argument of a measuring function; it has `net`, in evaluation mode, and `data`, if these were named."""

    settings: dict[str, Any]
    seed: int
    device: str
    recipe: Recipe | None
    network: ResNet | VGG | None
    images: Data | None
    normalisation: Normalisation | None

    @property
    def net(self) -> ResNet:
        """The residual (or plain) network that is measured. Raises UserError for one that has no units."""
        if not isinstance(self.network, ResNet):
            raise UserError("this measurement needs a network of residual units, or a plain one like them.")
        return self.network

    @property
    def data(self) -> Data:
        """The data set that it is measured on."""
        assert self.images is not None, "the measurement names no data"
        return self.images

    def built(self, net: str) -> ResNet:
        """A network of the zoo for the data's channels and classes, with initial weights by the seed, on the device."""
        channels = self.data.shape[0] if self.data.shape else 3
        made = build(net, seed=self.seed, in_channels=channels, num_classes=len(self.data.classes))
        assert isinstance(made, ResNet)
        return made.to(self.device)

    def batch(self, count: int, part: str = "test") -> tuple[Tensor, Tensor]:
        """The first `count` "test" or "train" images, prepared as for evaluation: x N C H W, labels N."""
        assert self.normalisation is not None
        whole = self.data.test if part == "test" else self.data.train
        some = whole[torch.arange(min(count, len(whole)))]
        size = self.network.spec.input_size if self.network else 32
        normalisation = self.normalisation.to(self.device)
        loader = Loader(normalisation, len(self.data.classes), size=size, device=self.device)
        batches = list(loader.evaluation(some.to(self.device) if hasattr(some, "to") else some, len(some)))
        return torch.cat([x for x, _ in batches]), torch.cat([labels for _, labels in batches])


def measure_or_cached(
    measurement: Measurement, runs: Path, device: str = "cpu", *, again_if_busy: bool = False
) -> Measured:
    """Measure, or read an earlier result; results are cached in `runs`/measured.

    again_if_busy: measure again if times were taken while the machine was busy.
    Raises UserError if a run that it needs is not finished, or a file can't be read or written.
    """
    module, _, name = measurement.function.partition(":")
    function: Callable[[MeasurementContext], dict[str, Any]] = getattr(importlib.import_module(module), name)
    path = _path(measurement, function, runs, device)
    if is_there(path):
        found = read_json(path, _Kept, ANEW)
        kept_sum = found.pop("sha256", None)
        if kept_sum not in (None, _checksum(found)):
            raise Damaged(path, "damaged, its checksum differs", ANEW)
        if not (again_if_busy and busy_load(found["values"])):
            return Measured(
                measurement, found["values"], float(found.get("seconds", 0)), found["machine"], kept_sum is not None
            )
    started = time.monotonic()
    # Small differences count: a GPU convolves in float32, not in TF32, its shorter form. Times are those of a training.
    with cudnn(allow_tf32=measurement.alone):
        values = json.loads(json.dumps(function(_subject(measurement, runs, device))))  # as it will be read back
    seconds = round(time.monotonic() - started, 2)
    kept = {"measurement": measurement.label, "values": values, "seconds": seconds, "machine": machine(device)}
    kept["sha256"] = _checksum(kept)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)
    return Measured(measurement, values, seconds, kept["machine"])


def _checksum(kept: dict[str, Any]) -> str:
    """The checksum of a cached measurement's other values."""
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _path(measurement: Measurement, function: Callable[..., Any], runs: Path, device: str = "cpu") -> Path:
    """The file of a measurement, by the hash of what defines it: settings, network, images, and the code.

    For times that are not the CPU's, the kind of device, too.
    """
    data = _data(measurement)
    run = make_run(measurement.run, runs, data).id if measurement.run else None
    weights = [measurement.weights.net, _digest(measurement.weights.file)] if measurement.weights else None
    defines = [
        ":".join(measurement.name),
        measurement.settings,
        measurement.seed,
        run,
        weights,
        data.fingerprint if data else None,
        _code(inspect.getsourcefile(function) or ""),
    ]
    if measurement.alone and device != "cpu":
        defines.append(device_name(device))
    digest = hashlib.sha256(json.dumps(defines, sort_keys=True).encode()).hexdigest()[:12]
    return runs / MEASURED / f"{'-'.join(measurement.name)}-{digest}.json"


def _data(measurement: Measurement) -> Data | None:
    name = measurement.data or (measurement.run.data if measurement.run else None)
    return opened(name) if name else None


@functools.lru_cache(maxsize=2)
def opened(name: str) -> Data:
    """The data set of that name, read once."""
    return open_data(name)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error


@functools.cache
def _code(source: str) -> str:
    """A hash of the measuring file and of all of measuring/ and nets/, so that changed code measures again."""
    hashed = hashlib.sha256()
    folders = (Path(str(package.__file__)).parent for package in (measuring, nets))
    for path in (Path(source), *(path for folder in folders for path in sorted(folder.glob("*.py")))):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _subject(measurement: Measurement, runs: Path, device: str) -> MeasurementContext:
    data = _data(measurement)
    network, card = None, None
    if measurement.run:
        run = make_run(measurement.run, runs, data)
        if run.result() is None:
            raise UserError("the run that it measures is not finished.")
        network, card = load_with_metadata(run.folder)
    elif measurement.weights:
        network, card = load_with_metadata(measurement.weights.file, net=measurement.weights.net)
    normalisation = card.normalisation if card else None
    if data is not None and normalisation is None:
        normalisation = measure(data.train, 0).channel_mean_std()
    settled = measurement.run
    if settled and network:  # a measurement that trains further does so in the way that is fastest here, as runs do
        settled = settled.override(**resolved(settled, network.spec, device))
    return MeasurementContext(
        settings=measurement.settings,
        seed=measurement.seed,
        device=device,
        recipe=settled,
        network=network.to(device) if network else None,
        images=data,
        normalisation=normalisation,
    )
