"""A run: a folder named by the hash of what defines it (spec, recipe, data, seed), and what lies in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from resnetlab.data.images import Data, Purpose, open_data
from resnetlab.errors import UserError
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.training.parts import check_parts
from resnetlab.training.recipe import Recipe

if TYPE_CHECKING:
    from resnetlab.training.finetune import Start

FORMAT = 3  # of the run folder; others than these are refused
# 1 had checkpoints at the end of epochs only, 2 of one process only within an epoch.
READABLE = (1, 2, FORMAT)
ID_FORMAT = 1  # of what the hash is made of, so that the same command finds runs of format 1
FOR_FILES = ("resized_crop_flip", "scale_crop_flip_colour")  # values of `augment`
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
RESULT_KEYS = ("train_error", "test_error", "best_error", "epochs", "steps", "seconds")


@dataclass(frozen=True)
class Run:
    """One training: a network, a recipe and a data set, and the folder it has below `root`."""

    spec: Spec
    recipe: Recipe
    data: Data
    root: Path
    start: Start | None = None  # what it takes from the source that it starts from

    @cached_property
    def id(self) -> str:
        """The hash of what defines the run; where data and source lie and how networks are called is no part of it."""
        # Fields at their default are no part of it, so that a field that is added later changes no run.
        default, elsewhere = Recipe().to_dict(), ("net", "data", "start")
        recipe = {k: v for k, v in self.recipe.to_dict().items() if k not in elsewhere and v != default[k]}
        spec = {k: v for k, v in self.spec.to_dict().items() if k != "name"}
        defines = {"format": ID_FORMAT, "spec": spec, "recipe": recipe, "data": self.data.fingerprint}
        defines |= {"start": self.start.digest} if self.start else {}
        return hashlib.sha256(json.dumps(defines, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        there = sorted(self.root.glob(f"*-{self.id}"))  # one network may be called by several names
        words = re.sub(r"[^A-Za-z0-9.]+", "_", f"{self.spec.name or 'net'}-{self.data.name}").strip("_")
        return there[0] if there else self.root / f"{words[:60]}-{self.id}"

    def result(self) -> dict[str, Any] | None:
        """What the finished run ended with (`train` writes it), or None while it is unfinished.

        Raises UserError if the file is damaged.
        """
        path = self.folder / "result.json"
        if not path.exists():
            return None
        found = read_json(path)
        missing = [key for key in RESULT_KEYS if not isinstance(found.get(key), int | float)]
        if missing:
            raise UserError(f"{path}: damaged, it lacks {', '.join(missing)}; remove it to finish the run again.")
        return found

    def settings(self, threads: int, device: str, ranks: int = 1) -> dict[str, Any]:
        """What `run.json` holds."""
        return {
            "format": FORMAT,
            "id": self.id,
            "spec": self.spec.to_dict(),
            "recipe": self.recipe.to_dict(),
            "data": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "shape": list(self.data.shape) if self.data.shape else None,
                "train_images": len(self.data.train),
                "test_images": len(self.data.test),
            },
            "classes": list(self.data.classes),
            **({"start": self.start.to_dict()} if self.start else {}),
            "threads": threads,
            "ranks": ranks,
            "machine": machine(device),
        }


def make_run(recipe: Recipe, root: Path, data: Data | None = None, *, purpose: Purpose = "train") -> Run:
    """Resolve a recipe: read its data and source, fit its network to the data's channels, size and classes, and make
    a number of images of a share to hold out.

    `data`, if given, is what the recipe's data text names, read before; else it is opened to train, which may write a
    split down, or just to "read". Raises UserError for a network, data
    set, source or combination that can't be.
    """
    from resnetlab.training.finetune import check_size, read_start  # which reads runs

    spec = named_spec(recipe.net) if recipe.net else None
    data = data or open_data(recipe.data, purpose)
    start = read_start(recipe, data) if recipe.start else None
    spec = start.spec if start else spec
    assert spec is not None  # a recipe without a network has a start
    if data.shape is None:
        channels, size = 3, recipe.image_size or spec.input_size
    else:
        channels, size, _ = data.shape
        if recipe.image_size not in (None, size):
            raise UserError(
                f"image_size={recipe.image_size}: the images of {data.name} have {size} pixels; leave it out."
            )
        if recipe.augment in FOR_FILES:
            raise UserError(
                f"augment={recipe.augment!r} cuts parts out of files; {data.name} takes 'none' or 'crop_flip'."
            )
    fitted = replace(spec, in_channels=channels, num_classes=len(data.classes), input_size=size)
    check_parts(recipe, fitted)
    if start:
        check_size(start, recipe, size)
        if recipe.normalise == "source" and not start.normalisation:  # as evaluation does with such files
            recipe = recipe.override(normalise="channel_mean_std" if data.shape else "imagenet")
    if recipe.validation_share:
        recipe = recipe.override(validation_images=max(1, round(recipe.validation_share * len(data.train))))
    data.check_hold_out(recipe.validation_images)
    try:
        root.exists()
    except OSError as error:
        raise UserError(
            f"{str(root)[:80]}: no place for runs ({error.strerror}); choose another with --runs."
        ) from error
    return Run(fitted, recipe, data, root, start)


def open_folder(run: Run, threads: int, device: str, ranks: int = 1) -> dict[str, Any]:
    """Make the run's folder, or check the one that is there; return its settings.

    Raises UserError for a folder of another version or one whose settings are damaged.
    """
    path = run.folder / "run.json"
    if path.exists():
        found = read_json(path)
        check_format(path, found)
        if found.get("id") != run.id:
            raise UserError(f"{path}: damaged, it is of run {found.get('id')!r}; move the folder away to start anew.")
        return found
    settings = run.settings(threads, device, ranks)
    with disk_errors(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        _write_settings(path, settings)
    return settings


def migrate(folder: Path) -> None:
    """Mark a folder as one of this format, before a checkpoint is written that older versions can't read.

    What earlier formats wrote is read as it is.
    """
    path = folder / "run.json"
    settings = read_json(path)
    if settings["format"] != FORMAT:
        with disk_errors(folder):
            _write_settings(path, settings | {"format": FORMAT})


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())


def check_format(path: Path, settings: dict[str, Any]) -> None:
    """Raise UserError unless run.json is of a version that this code reads."""
    if settings.get("format") not in READABLE:
        raise UserError(
            f"{path}: a run of format {settings.get('format')}, and this version reads formats 1 to {FORMAT}: "
            "move the folder away or use the version that wrote it."
        )
    threads = settings.get("threads")
    if not (isinstance(threads, int) and 1 <= threads <= 4096 and isinstance(settings.get("machine"), dict)):
        raise UserError(f"{path}: damaged, it lacks threads or machine; move the folder away to start the run again.")


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run: two processes never write one folder. Raises UserError if another one has it.

    patience: seconds to wait for it, where children of a killed process may hold it a little longer.
    """
    deadline = time.monotonic() + patience
    with disk_errors(folder):
        file = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _locks.add(file)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                raise UserError(f"{folder}: another process is training this run; wait for it or stop it.") from error
            except OSError:
                pass  # a file system that can't lock
            break
        yield
    finally:
        if file in _locks:
            _locks.remove(file)
            os.close(file)


def _leave_locks() -> None:
    """In a forked process, e.g. one that decodes images: it must not hold the run when its parent was killed."""
    for file in _locks:
        os.close(file)
    _locks.clear()


_locks: set[int] = set()  # files by their descriptors
os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a failed write (disk full, no permission) into one line that says what is kept."""
    try:
        yield
    except OSError as error:
        trouble = f"{folder}: can't write ({error.strerror or error})"
        if error.errno not in _NO_ROOM:
            raise UserError(f"{trouble}; choose another place.") from error
        raise UserError(
            f"{trouble}; what was saved before is whole. Make room or choose another place, then give the same "
            "command to go on."
        ) from error


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that a disk has no room: no other run can be written then either."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, whole, even after a power cut."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError, naming the file, if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, it should hold a JSON object.")
    return value


def spec_from_dict(values: dict[str, Any]) -> Spec:
    """A network's spec from its JSON values, residual or VGG."""
    from resnetlab.nets.vgg import VGGSpec

    if "convs" in values:
        return VGGSpec(**{**values, "convs": tuple(values["convs"])})
    return NetSpec.from_dict(values)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What a result was made on: processor, cores, device, versions, commit."""
    import resnetlab

    return {
        "processor": _processor(),
        "cores": available_cores(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resnetlab": resnetlab.__version__,
        "commit": _commit(),
    }


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout the package lies in, with "+" if files differ; None outside a checkout.

    Records in results/ are no code: a study that writes its own there doesn't change what the next one is made by.
    """
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        code = ["status", "--porcelain", "-uno", "--", ":/", ":(exclude,top)results"]
        changed = subprocess.run([*git, *code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
