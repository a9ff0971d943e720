"""What version 0.1.0 wrote, in the folder `earlier`: read, resumed to the same bits, and under the same ids.

`killed` was killed at its 12th step and `whole` is the same run unbroken; `retired` has a field that is gone, and was
killed at its 4th step; `pack` is of eight images; `results` has a study's record; `answers.json` says what that version
made of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resnetlab import load
from resnetlab.cli.main import main
from resnetlab.data.open import open_data
from resnetlab.data.pack import verify
from resnetlab.machine import machine
from resnetlab.run_files import read_metrics
from resnetlab.studies.frame.record import read_records
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run

EARLIER = Path(__file__).with_name("earlier")
ANSWERS = json.loads((EARLIER / "answers.json").read_text())
NET = "cifar_resnet8(stages=((1, 4), (1, 8, 2)), stem_width=4, mix=DropoutShortcut(0.3))"
FIELDS: dict[str, Any] = {
    "net": NET,
    "augment": "crop_flip",
    "mixup": 0.2,
    "schedule": "plateau",
    "patience": 1,
    "validation_images": 100,
    "batch_size": 200,
    "epochs": 3,
}
RETIRED: dict[str, Any] = {"net": NET, "batch_size": 200, "epochs": 1, "fused": True}


def resumed(name: str, root: Path, **fields: Any) -> Run:
    """The run of that fixture, in a copy of its folder, trained to its end by the command that began it."""
    shutil.copytree(EARLIER / name, root / "runs")
    (there,) = (root / "runs").iterdir()
    run = make_run(recipe("digits", **fields), root / "runs")
    assert run.folder == there, "it is found by its id"
    assert run.result() is None
    for _ in train(run, threads=1):
        pass
    return run


def made_here(folder: Path) -> bool:
    """Whether this processor and this torch made it: others round differently."""
    made, here = json.loads((folder / "run.json").read_text())["machine"], machine("cpu")
    return all(made[key] == here[key] for key in ("processor", "instruction_sets", "torch"))


def test_a_killed_run_is_resumed_to_the_bits_of_the_unbroken_one(tmp_path: Path) -> None:
    """To the same steps on any machine, and to the same bits on the one that made it."""
    run = resumed("killed", tmp_path, **FIELDS)
    result, wanted = (json.loads((f / "result.json").read_text()) for f in (run.folder, EARLIER / "whole"))
    assert run.id == ANSWERS["run"]
    assert (result["epochs"], result["steps"]) == (wanted["epochs"], wanted["steps"]) == (3, 21)
    before = (EARLIER / "killed" / run.folder.name / "metrics.jsonl").read_bytes()
    assert (run.folder / "metrics.jsonl").read_bytes().startswith(before)
    if not made_here(run.folder):
        return
    assert {**result, "seconds": 0} == {**wanted, "seconds": 0}
    assert (run.folder / "metrics.jsonl").read_bytes() == (EARLIER / "whole/metrics.jsonl").read_bytes()
    for which in ("last", "best"):
        found, as_before = (load_file(f) for f in (run.folder / which / "weights.safetensors", whole(which)))
        assert found.keys() == as_before.keys()
        assert all(torch.equal(found[name], as_before[name]) for name in found)


def whole(which: str) -> Path:
    return EARLIER / f"whole/{which}.safetensors"


def test_a_run_with_a_field_that_is_gone_is_resumed_under_its_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by its command, which says that the field is ignored."""
    shutil.copytree(EARLIER / "retired", tmp_path / "runs")
    options = ["--net", NET, "--batch-size", "200", "--epochs", "1", "--fused", "--threads", "1"]
    assert main(["train", "digits", *options, "--runs", str(tmp_path / "runs"), "--json"]) == 0
    said = capsys.readouterr()
    assert "fused=True is ignored" in said.err
    (there,) = (tmp_path / "runs").iterdir()
    assert there.name.endswith(ANSWERS["retired"])
    assert json.loads(said.out)["run"] == str(there)
    assert [line["step"] for line in read_metrics(there) if "epoch" in line] == [8]


def test_weights_answer_as_they_did() -> None:
    x = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    with torch.no_grad():
        found = load(whole("last")).eval()(x)
    torch.testing.assert_close(found, torch.tensor(ANSWERS["scores"]), rtol=1e-4, atol=1e-5)
    error = json.loads((EARLIER / "whole/result.json").read_text())["test_error"]
    assert evaluate([whole("last")], open_data("digits")).accuracy.error == pytest.approx(
        error, abs=0.3
    )  # of 360 images, one


def test_a_pack_is_the_same_data() -> None:
    data = open_data(f"pack:{EARLIER / 'pack'}")
    assert data.fingerprint == ANSWERS["pack"]
    assert (len(data.train), len(data.test), list(data.classes)) == (6, 2, ["a", "b"])
    assert verify(EARLIER / "pack") == []


def test_a_record_is_read() -> None:
    (record,) = read_records(EARLIER / "results")
    assert (record.study, record.scale, record.machine["commit"]) == ("bottleneck", "quick", "81fadf1")
    assert record.rows
