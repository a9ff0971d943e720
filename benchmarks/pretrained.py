"""Makes the trained networks that come with the package, resnetlab/weights/pretrained/NAME.safetensors, out of runs.

python -m benchmarks.pretrained RUN --data cifar10:DIR [--replace]

RUN is a finished run of a network of the zoo. Its last weights are halved to float16, and the file says what it is:
network, classes, preprocessing, recipe, and its accuracy on all test images of DIR, which is measured here. Nothing is
written if float16 costs more than MOST_LOSS of it.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import run
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import spec
from resnetlab.run_files import read_result, read_settings
from resnetlab.storage import write_atomically
from resnetlab.training.evaluate import evaluate
from resnetlab.weights.load import load_described, load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes
from resnetlab.weights.packaged import FOLDER, SUFFIX

MOST_LOSS = 0.05  # points of top-1
IMAGES = 10  # drawn ones, whose answers a file states


def make(run: Path, data: Data, folder: Path = FOLDER, *, replaces: bool = False) -> tuple[Path, dict[str, Any]]:
    """Write the file of a run into `folder`; return its path, and what was measured of it.

    Raises UserError for a run that isn't finished or of a network without a name, for other data than it was trained
    on, for a file that is there unless it `replaces` it, and where float16 costs too much.
    """
    metadata = _metadata(run, data)
    path = folder / f"{metadata.spec.name}{SUFFIX}"
    if path.exists() and not replaces:
        raise UserError(f"{path}: already exists; give --replace to write it anew.")
    halved = copy.deepcopy(load_described(run).net).half()
    if not all(t.isfinite().all() for t in halved.state_dict().values() if t.is_floating_point()):
        raise UserError(f"{run}: holds numbers that float16 can't.")
    with tempfile.TemporaryDirectory() as place:
        trial = Path(place) / path.name
        trial.write_bytes(weights_bytes(halved, metadata))
        before, after = (evaluate([folder], data).accuracy for folder in (run, trial))
        if before.top1 - after.top1 > MOST_LOSS:
            raise UserError(f"{run}: float16 takes top-1 from {before.top1:.2f} % to {after.top1:.2f} %: not written.")
        measured = metadata.measured | _measured(before, after, data) | {"answers": answers(*_loaded(trial))}
    folder.mkdir(exist_ok=True)
    write_atomically(path, weights_bytes(halved, replace(metadata, measured=measured)))
    return path, measured


def drawn_images() -> Tensor:
    """Ten images of no data set, uint8 10 3 32 32: stripes that bend, and a disc; the same on every machine."""
    y, x = np.mgrid[:32, :32]
    made = np.empty((IMAGES, 3, 32, 32), dtype=np.uint8)
    for i in range(IMAGES):
        disc = (x - 16) ** 2 + (y - 16) ** 2 < (4 + i) ** 2
        for channel in range(3):
            stripes = (x * (i + 1) + y * (2 * channel + 1) + x * y * (i % 3) // 4) * (3 + channel) % 256
            made[i, channel] = np.where(disc, 255 - stripes, stripes)
    return torch.from_numpy(made)


@torch.inference_mode()
def answers(net: ResNet | VGG, metadata: ModelMetadata) -> list[list[Any]]:
    """The likeliest class of each of the drawn images, and its probability."""
    assert metadata.classes is not None
    best = net(metadata.normalisation(drawn_images())).softmax(1).max(1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[metadata.classes[i], round(probability, 4)] for i, probability in pairs]


def _metadata(run: Path, data: Data) -> ModelMetadata:
    """What the file says of the network, but for what is measured here. Raises UserError as `make` does."""
    settings, metadata = read_settings(run), load_described(run).metadata
    assert metadata is not None  # all runs have them
    if read_result(run) is None:
        raise UserError(f"{run}: is not finished.")
    if not metadata.spec.name or metadata.spec != spec(metadata.spec.name):
        raise UserError(f"{run}: {metadata.spec.name or 'its network'} is none of the zoo's, for its own images.")
    if settings["data"]["fingerprint"] != data.fingerprint:
        raise UserError(f"{run}: was not trained on {data.name} as it is here.")
    recipe = settings["recipe"] | {"data": data.name, "start": ""}  # no paths of this machine
    trained_on = settings["data"]["train_images"] - recipe["validation_images"]
    made_by = {"run": settings["id"], "commit": settings["machine"]["commit"], "trained_on": trained_on}
    return replace(metadata, recipe=recipe, measured=made_by)


def _measured(before: Accuracy, after: Accuracy, data: Data) -> dict[str, Any]:
    return {
        "data": data.name,
        "images": after.images,
        "top1": after.top1,
        "top5": after.top5,
        "top1_of_float32": before.top1,
    }


def _loaded(path: Path) -> tuple[ResNet | VGG, ModelMetadata]:
    net, metadata = load_with_metadata(path)
    assert metadata is not None
    return net, metadata


def main() -> None:
    """Make the file, and say how large and how good it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--data", required=True, help="cifar10:DIR")
    parser.add_argument("--replace", action="store_true", help="write the file anew if it is there")
    chosen = parser.parse_args()
    path, measured = make(chosen.run, open_data(chosen.data, "evaluate"), replaces=chosen.replace)
    whole = sum(file.stat().st_size for file in FOLDER.glob(f"*{SUFFIX}"))
    print(
        f"{path}: top-1 {measured['top1']:.2f} % in float16, {measured['top1_of_float32']:.2f} % in float32; "
        f"{path.stat().st_size / 1e6:.2f} MB, {whole / 1e6:.2f} MB with the others"
    )


if __name__ == "__main__":
    run(main)
