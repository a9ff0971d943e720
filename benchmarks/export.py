"""What exported files are: bytes, differences from PyTorch, and predictions on CIFAR-10's test images.

python -m benchmarks.export --data cifar10:DIR --weights DIR [--json]

DIR of the weights is akamaster's: each network is exported to ONNX in float32 and in int8. Nothing is timed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import run
from resnetlab.data.open import open_data
from resnetlab.machine import machine
from resnetlab.use.classifier import Classifier
from resnetlab.use.export import export
from resnetlab.use.onnx_graph import PACKAGES

FILES = ("resnet20-12fca82f.th", "resnet56-4bfd9763.th")


def main() -> None:
    """Export, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar10:DIR")
    parser.add_argument("--weights", required=True, type=Path, help="the folder of akamaster's files")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    chosen = parser.parse_args()
    data, made = open_data(chosen.data), []
    for file in FILES:
        for name in ("float32.onnx", "int8.onnx"):
            with tempfile.TemporaryDirectory() as folder:
                ranges = data if name.startswith("int8") else None
                out = Path(folder) / name
                found = export(Classifier.open(chosen.weights / file), out, "onnx", calibrate=ranges, data=data)
            row: dict[str, Any] = {"source": file, **found.to_dict()}
            del row["written"]
            made.append(row)
            agreed = row["agreement"]
            print(
                f"{file} {found.precision}: {found.bytes:,} bytes, top-1 {agreed['exported_top1']:.2f} % "
                f"(PyTorch {agreed['pytorch_top1']:.2f} %), {agreed['same_predictions']:,} predictions the same",
                file=sys.stderr,
            )
    if chosen.json:
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        command = shlex.join(
            ["python", "-m", "benchmarks.export", "--data", "cifar10:DIR", "--weights", "DIR", "--json"]
        )
        print(json.dumps({"command": command, "machine": machine() | versions, "exports": made}, indent=1))


if __name__ == "__main__":
    run(main)
