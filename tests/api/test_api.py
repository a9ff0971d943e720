"""What Python calls gives what the commands give: results, files, and the line of an error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import resnetlab
from resnetlab.api.train import TrainingResult
from resnetlab.cli.main import main
from resnetlab.measuring.complexity import complexity

Captured = pytest.CaptureFixture[str]
FIELDS = {"net": "cifar_resnet8", "epochs": 2, "seed": 5}
OPTIONS = ("--net", "cifar_resnet8", "--epochs", "2", "--seed", "5", "--threads", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def run(place: Path) -> TrainingResult:
    """A run of the digits, trained from Python."""
    return resnetlab.train("digits", runs=place / "runs", threads=1, quiet=True, **FIELDS)


@pytest.fixture
def digit(place: Path) -> Path:
    path = place / "digit.png"
    Image.new("L", (8, 8), 200).save(path)
    return path


def answer(capsys: Captured, *arguments: str) -> Any:
    """What a command prints with --json."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_training_is_the_commands_to_the_bit(run: TrainingResult, tmp_path: Path, capsys: Captured) -> None:
    said = answer(capsys, "train", "digits", *OPTIONS, "--runs", str(tmp_path))
    weights = "last/weights.safetensors"
    assert (Path(said["run"]) / weights).read_bytes() == (run.folder / weights).read_bytes()
    assert Path(said["run"]).name == run.folder.name
    assert {name: getattr(run, name) for name in ("train_error", "test_error", "epochs")} == {
        name: said[name] for name in ("train_error", "test_error", "epochs")
    }
    assert not run.finished_before


def test_a_finished_run_is_read(run: TrainingResult, place: Path) -> None:
    again = resnetlab.train(resnetlab.recipe("digits", **FIELDS), runs=place / "runs", quiet=True)
    assert again.finished_before
    assert (again.folder, again.test_error, again.seconds) == (run.folder, run.test_error, run.seconds)


def test_evaluation_is_the_commands(run: TrainingResult, capsys: Captured) -> None:
    found = resnetlab.evaluate(run, "digits", quiet=True)
    assert json.loads(json.dumps(found.to_dict())) == answer(capsys, "eval", str(run.folder), "--data", "digits")
    assert found.top1 == pytest.approx(100 - run.test_error)
    assert (found.labels == found.predicted).sum() == found.correct
    both = resnetlab.evaluate([run, run.folder], "digits", quiet=True)
    assert [row["source"] for row in both.table()] == [str(run.folder)] * 2 + ["ensemble of 2"]
    assert both.table()[2]["top1"] == found.top1


def test_predictions_are_the_commands(run: TrainingResult, digit: Path, capsys: Captured) -> None:
    found = resnetlab.predict(run, digit, top=3, quiet=True)
    assert found.to_dict() == answer(capsys, "predict", str(run.folder), str(digit), "--top", "3")
    assert [row["rank"] for row in found.table()] == [1, 2, 3]
    some = resnetlab.predict(run, [digit, digit.with_name("missing.png")], top=1, quiet=True)
    assert [image.error for image in some] == ["", "No such file or directory"]
    assert [row["class"] for row in some.table()] == [found.images[0].classes[0][0], ""]


def test_plots_are_the_commands(run: TrainingResult, tmp_path: Path, capsys: Captured) -> None:
    plot = resnetlab.plot_runs(run, out=tmp_path / "python.svg")
    answer(capsys, "runs", "plot", str(run.folder), "--out", str(tmp_path / "command.svg"))
    assert (tmp_path / "python.svg").read_bytes() == (tmp_path / "command.svg").read_bytes()
    assert plot.runs == (run.folder,)
    assert plot._repr_svg_().startswith("<svg")
    assert plot.save(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert resnetlab.plot_runs([run.folder.name.rpartition("-")[2]], root=run.folder.parent).figure == plot.figure


def test_a_run_stands_for_its_folder(run: TrainingResult, place: Path) -> None:
    assert resnetlab.load(run).spec.name == "cifar_resnet8"
    tuned = resnetlab.train("digits", start=run, epochs=1, runs=place / "tuned", threads=1, quiet=True)
    assert tuned.network == "cifar_resnet8"
    assert run.history()[-1]["test_error"] == run.test_error
    assert [line["epoch"] for line in run.history()] == [1, 2]
    with pytest.raises(resnetlab.UserError, match="gone: no such run folder"):
        replace(run, folder=place / "gone").history()
    resnetlab.save_pretrained(run, place / "hub")
    assert resnetlab.from_pretrained(place / "hub").spec == resnetlab.load(run).spec


@pytest.mark.slow
def test_a_study_runs_from_a_script_without_a_main_guard(place: Path) -> None:
    """Processes that are spawned import the script by default, and would each run the study again."""
    script = place / "script.py"
    script.write_text(
        "import resnetlab\n"
        "found = resnetlab.study('degradation', epochs=0.05, seeds=1, jobs=2)\n"
        "print(found.failures, len(found.claims), len(found.figures), found.record, found.report)\n"
        "print(found)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *table = done.stdout.splitlines()
    assert first == "() 7 1 reports/degradation-quick-shortened.json reports/report.html"
    assert table[-1].startswith("degradation, quick: ")
    assert done.stderr.count("degradation, quick: 6 runs, 2 at once") == 1
    assert (place / "reports/report.html").exists()


def test_quiet_says_nothing(run: TrainingResult, digit: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resnetlab.train("digits", runs=place / "runs", quiet=True, **FIELDS)
    resnetlab.evaluate(run, "digits", quiet=True)
    resnetlab.predict(run, digit, quiet=True)
    assert capfd.readouterr() == ("", "")
    resnetlab.evaluate(run, "digits")
    assert "360 tested" in capfd.readouterr().err


Call = Callable[..., Any]


@pytest.mark.parametrize(
    ("call", "values", "words"),
    [
        (resnetlab.train, {"recipe": "digit"}, "recipe 'digit' is not known: choose one of digits"),
        (resnetlab.train, {"recipe": 5}, "recipe=5 must be a name or a path"),
        (resnetlab.train, {"epoch": 3}, "'epoch' is not a field of a recipe. Did you mean epochs"),
        (resnetlab.train, {"epochs": "3"}, "epochs='3' must be a number"),
        (resnetlab.train, {"data": Path("nowhere")}, "data 'nowhere': no data set and no folder here has this name"),
        (resnetlab.train, {"runs": 5}, "runs=5 must be a name or a path"),
        (resnetlab.train, {"threads": "2"}, "threads='2' must be a whole number"),
        (resnetlab.train, {"workers": 1.5}, "workers=1.5 must be a whole number"),
        (resnetlab.train, {"device": 3}, "device=3 must be text"),
        (resnetlab.train, {"device": None}, "device=None: leave it out for the default, device='auto'"),
        (resnetlab.predict, {"images": "a.png", "batch_size": None}, "batch_size=None: leave it out for the default"),
        (resnetlab.train, {"log": "x"}, "log='x' is not known: choose one of tensorboard"),
        (resnetlab.evaluate, {"data": "digits", "sources": []}, "no network given"),
        (resnetlab.evaluate, {"data": "digits", "sources": 5}, "sources=5 must be a name or a path, or several"),
        (resnetlab.evaluate, {"data": "digits", "sources": "nowhere"}, "nowhere: no such run folder or weight file"),
        (resnetlab.evaluate, {"data": "digit"}, "Did you mean digits?"),
        (resnetlab.evaluate, {"data": "digits", "views": "x"}, "views='x' is not known: choose one of 1-crop"),
        (resnetlab.evaluate, {"data": "digits", "classes": 3}, "classes=3 must be a name or a path, or several"),
        (resnetlab.evaluate, {"data": "digits", "classes": "a"}, "classes 'a': write NAME_IN_THE_DATA="),
        (resnetlab.predict, {"images": []}, "no image given"),
        (resnetlab.predict, {"images": "a.png", "top": 0}, "top=0 must be 1 or more"),
        (resnetlab.predict, {"images": "a.png", "batch_size": 1.5}, "batch_size=1.5 must be a whole number"),
        (resnetlab.predict, {"images": "a.png", "net": 3}, "net=3 must be text"),
        (resnetlab.study, {"name": "degradatio"}, "study 'degradatio' is not known"),
        (resnetlab.study, {"name": "degradation", "scale": "x"}, "scale='x' is not known: choose one of quick"),
        (resnetlab.study, {"name": "degradation", "scale": "cifar"}, "needs the images: give --data cifar10:DIR"),
        (resnetlab.study, {"name": "degradation", "epochs": "x"}, "epochs='x' must be a number"),
        (resnetlab.study, {"name": "degradation", "jobs": 0}, "jobs=0 must be 1 or more"),
        (resnetlab.study, {"name": "degradation", "jobs": 1, "ray": "auto"}, "--jobs can't be used with --ray"),
        (resnetlab.train, {"from": "x"}, "'from' is not a field of a recipe. Did you mean start?"),
        (
            resnetlab.train,
            {"net": torch.nn.Sequential(torch.nn.ReLU())},
            "net=Sequential(   (0): ReLU() ) must be text",
        ),
        (resnetlab.train, {"runs": ""}, "runs is empty; give a name or a path, . for the working folder"),
        (resnetlab.evaluate, {"data": "digits", "report": ""}, "report is empty; give a name or a path"),
        (resnetlab.evaluate, {"data": "digits", "flip": "no"}, "flip='no' must be True or False"),
        (resnetlab.evaluate, {"data": "digits", "classes": {1: "0"}}, "classes: 1 must be text, the name of a class"),
        (resnetlab.predict, {"images": ""}, "images is empty; give a name or a path"),
        (resnetlab.predict, {"images": b"a.png"}, "images=b'a.png' must be a name or a path, or several"),
        (resnetlab.predict, {"images": "a.png", "top": True}, "top=True must be a whole number"),
        (resnetlab.study, {"name": "degradation", "results": "/proc/self"}, "/proc/self: can't write"),
        (resnetlab.study, {"name": "degradation", "seeds": True}, "seeds=True must be a whole number"),
        (resnetlab.plot_runs, {}, "no run given"),
        (resnetlab.plot_runs, {"out": "x.gif", "RUN": None}, "x.gif: the suffix decides the format"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_input_raises_the_line_of_the_command(
    run: TrainingResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    values: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if call is resnetlab.evaluate:
        values = {"sources": run} | values
    if call is resnetlab.predict:
        values = {"source": run} | values
    runs = [run] if "RUN" in values else []
    with pytest.raises(resnetlab.UserError) as raised:
        call(*runs, **{name: value for name, value in values.items() if name != "RUN"})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_fault_of_ours_is_one_line_too(
    run: TrainingResult, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Python raises what the command prints."""

    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("resnetlab.api.evaluate.evaluate_on", no_memory)
    with pytest.raises(resnetlab.UserError, match="out of memory: 20 GiB more did not fit into the GPU's") as raised:
        resnetlab.evaluate(run, "digits", quiet=True)
    assert main(["eval", str(run.folder), "--data", "digits"]) == 2
    assert capsys.readouterr().err == f"error: {raised.value}\n"
    assert "--views 1-crop" in str(raised.value)


def test_a_fault_of_ours_stays_one(run: TrainingResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetlab.api.evaluate.evaluate_on", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        resnetlab.evaluate(run, "digits", quiet=True)


def test_threads_do_not_change_what_others_train(place: Path) -> None:
    """torch has one random state for all threads, and stochastic depth draws from it."""
    fields = {"net": "cifar_resnet8(stochastic_depth=0.5)", "iterations": 12, "threads": 1, "quiet": True}

    def trained(seed: int, runs: str) -> bytes:
        run = resnetlab.train("digits", runs=place / runs, seed=seed, **fields)
        return (run.folder / "last/weights.safetensors").read_bytes()

    with ThreadPoolExecutor(2) as threads:
        beside = list(threads.map(trained, (1, 2), ("beside", "beside")))
    assert beside == [trained(1, "alone"), trained(2, "alone")]


def test_reading_a_network_draws_nothing(run: TrainingResult, digit: Path) -> None:
    """A training in another thread would miss it."""
    before = torch.get_rng_state()
    resnetlab.load(run)
    resnetlab.predict(run, digit, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_arrays_are_numbers(run: TrainingResult, place: Path) -> None:
    """Loops over seeds, rates and widths give numpy's; they name the same run."""
    fields = FIELDS | {"epochs": np.float32(2), "seed": np.int64(5), "lr": torch.tensor(0.1, dtype=torch.float64)}
    assert resnetlab.recipe("digits", **fields) == resnetlab.recipe("digits", **FIELDS, lr=0.1)
    spec = resnetlab.spec("cifar_resnet8", num_classes=np.int64(7), stochastic_depth=np.float32(0.5))
    assert spec == resnetlab.spec("cifar_resnet8", num_classes=7, stochastic_depth=0.5)
    assert json.dumps(spec.to_dict())
    assert resnetlab.StageSpec(np.int64(1), 16) == resnetlab.StageSpec(1, 16)
    one, other = (resnetlab.build("cifar_resnet8", seed=seed).fc.weight for seed in (np.int64(3), 3))
    assert torch.equal(one, other)  # type: ignore[arg-type]
    drops = resnetlab.recipe("cifar_paper", milestones=np.array([0.25, 0.5]))
    assert drops == resnetlab.recipe("cifar_paper", milestones=(0.25, 0.5))


def test_a_vgg_takes_numbers_of_arrays() -> None:
    convs = np.array([1, 1, 2, 2, 2])
    assert resnetlab.spec("vgg16", convs=list(convs)) == resnetlab.spec("vgg16", convs=convs.tolist())


def test_options_take_numbers_of_arrays(run: TrainingResult, digit: Path, place: Path) -> None:
    again = resnetlab.train("digits", runs=place / "runs", threads=np.int64(1), quiet=np.bool_(True), **FIELDS)
    assert again.folder == run.folder
    found = resnetlab.predict(run, digit, top=np.int64(3), batch_size=torch.tensor(2), quiet=True)
    assert found == resnetlab.predict(run, digit, top=3, quiet=True)
    assert len(found.table()) == 3
    assert resnetlab.evaluate(run, "digits", workers=np.int32(0), flip=np.bool_(False), quiet=True).images == 360
    with pytest.raises(resnetlab.UserError, match="top=2.5 must be a whole number"):
        resnetlab.predict(run, digit, top=np.float32(2.5), quiet=True)


def test_a_spec_names_a_network(run: TrainingResult) -> None:
    spec = resnetlab.load(run).spec
    assert resnetlab.load(run, net=spec).spec == spec
    assert resnetlab.spec("resnet50", name="mine") == resnetlab.build("resnet50", name="mine", seed=0).spec
    assert complexity("cifar_resnet20") == complexity(resnetlab.spec("cifar_resnet20"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: resnetlab.build(None), "network None must be text"),
        (lambda: resnetlab.build(["resnet18"]), "must be text"),
        (lambda: resnetlab.spec(18), "network 18 must be text"),
        (lambda: resnetlab.build("cifar_resnet8", seed="7"), "seed='7' must be a whole number"),
        (lambda: resnetlab.build("cifar_resnet8", seed=2**70), "must be a whole number that fits into 64 bits"),
        (lambda: resnetlab.load(None), "None is not a run folder"),
        (lambda: resnetlab.load(3, pretrained=True), "pretrained=True goes with the name of a network; .* load 3"),
        (lambda: resnetlab.load(Path("cifar_resnet20"), pretrained=True), "goes with the name of a network"),
        (lambda: resnetlab.load("cifar_resnet20", pretrained="no"), "pretrained='no' must be True or False"),
        (lambda: resnetlab.load("pretrained:cifar_resnet20", head="no"), "head='no' must be True or False"),
        (lambda: resnetlab.load("x.pth", net=20), "net=20 must be the name or the spec of a network"),
        (lambda: resnetlab.build("cifar_resnet8", seed=True), "seed=True must be a whole number"),
        (lambda: resnetlab.from_pretrained(3), "3 is not a path"),
        (lambda: resnetlab.recipe(None), "recipe None must be text"),
        (lambda: resnetlab.NetSpec.from_dict(None), "a network needs its stages"),  # type: ignore[arg-type]
        (lambda: resnetlab.recipe("digits", epochs=np.ones((2, 2))), "epochs=array"),
        (lambda: resnetlab.recipe("digits", optimiser=np.ones(2)), "optimiser=.* choose one of sgd"),
        (lambda: resnetlab.recipe("digits", net=resnetlab.NetSpec), "net=<class .*NetSpec"),
        (lambda: resnetlab.load("pretrained:cifar_resnet20", net=np.ones(2)), "net=array.* must be the name or the"),
        (lambda: resnetlab.load("pretrained:cifar_resnet20", which=np.ones(2)), "which=array.* choose one of last"),
        (
            lambda: resnetlab.load("pretrained:cifar_resnet20", image_size=64.0),
            "image_size=64.0 must be a whole number",
        ),
    ],
)
def test_values_of_another_kind_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(resnetlab.UserError, match=words):
        call()


def test_results_are_frozen(run: TrainingResult) -> None:
    with pytest.raises(FrozenInstanceError):
        run.test_error = 0.0  # type: ignore[misc]
    found = resnetlab.evaluate(run, "digits", quiet=True)
    found.to_dict()["top1"] = 0
    assert found.to_dict()["top1"] == found.top1
    with pytest.raises(ValueError, match="read-only"):
        found.labels[0] = 1


def test_a_run_is_found_after_a_change_of_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = resnetlab.train("digits", threads=1, quiet=True, **(FIELDS | {"epochs": 0.1}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert made.history()[-1]["test_error"] == made.test_error
    assert resnetlab.load(made).spec.name == made.network


def test_what_is_public() -> None:
    assert set(dir(resnetlab)) == set(resnetlab.__all__)
    assert {"train", "evaluate", "predict", "study", "plot_runs", "build", "load", "UserError"} <= set(dir(resnetlab))
    for name in resnetlab.__all__:
        assert getattr(resnetlab, name).__doc__, f"help(resnetlab.{name}) says nothing"
    assert (resources.files(resnetlab) / "py.typed").is_file()


def test_help_shows_the_overview_and_the_functions(python: list[str]) -> None:
    code = "import pydoc, resnetlab; print(pydoc.render_doc(resnetlab, renderer=pydoc.plaintext))"
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=True)
    assert 'run = resnetlab.train("digits"' in done.stdout
    for name in ("train", "evaluate", "predict", "study", "plot_runs"):
        assert f"\n    {name}(" in done.stdout
