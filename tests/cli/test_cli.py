"""The command line: the answers it promises, and one clear line with exit code 2 for bad input."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from resnetlab.cli import main as main_module
from resnetlab.cli.main import main
from resnetlab.errors import shown
from resnetlab.studies import STUDIES, degradation
from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures.figure import Figure, Panel
from resnetlab.studies.frame.study import Plan, study
from resnetlab.training.recipe import FIELDS, RETIRED
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("net", "parameters", "multiply_adds"),
    [
        ("resnet152", 60_192_808, 11_513_626_624),
        ("resnet50_v1", 25_557_032, 3_857_973_248),
        ("vgg19", 143_667_240, 19_632_062_464),
        ("cifar_resnet110", 1_727_962, 252_887_680),
    ],
)
def test_describe_json(capsys: Captured, net: str, parameters: int, multiply_adds: int) -> None:
    assert main(["describe", net, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["parameters"], answer["multiply_adds"]) == (net, parameters, multiply_adds)
    assert answer["depth"] == int("".join(c for c in net.removesuffix("_v1") if c.isdigit()))
    assert answer["input"] == ([3, 32, 32] if net.startswith("cifar") else [3, 224, 224])


def test_describe_shows_layers_and_totals(capsys: Captured) -> None:
    assert main(["describe", "cifar_resnet20"]) == 0
    shown = capsys.readouterr().out
    for words in ("layer3.2.conv2", "64x8x8", "269,722", "40,551,040", "81,102,080", "20 weight layers"):
        assert words in shown


def test_describe_without_a_name_lists_the_names(capsys: Captured) -> None:
    assert main(["describe"]) == 0
    shown = capsys.readouterr().out.split()
    assert {"resnet50", "plain34", "vgg19", "cifar_preresnet1001"} <= set(shown)


def test_compare_prints_ours_beside_the_papers(capsys: Captured) -> None:
    assert main(["compare", "resnet152", "vgg19", "resnet50", "plain34"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "11,513,626,624 (11.3G v1)",
        "19,632,062,464 (19.6G)",
        "3,644,493,824 (3.6G)",
        "(21.43 v1)",
        "(28.54)",
    ):
        assert words in shown
    assert main(["compare", "cifar_resnet110", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["networks"]
    assert (row["parameters"], row["printed"]["parameters"], row["printed"]["error"]) == (1_727_962, 1.7e6, 6.43)


def test_compare_cuts_no_number_on_a_narrow_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetlab.api.screen.console", lambda: Console(width=60))
    assert main(["compare", "resnet152", "plain34"]) == 0
    shown = capsys.readouterr().out
    for words in ("60,192,808", "11,513,626,624 (11.3G v1)", "3,644,493,824 (3.6G)", "169.2 MiB"):
        assert words in shown


def test_train_then_eval(resnetlab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    options = ("train", "digits", "--net", "cifar_resnet8", "--epochs", "2", "--seed", "5", "--threads", "1")
    done = resnetlab(*options, "--runs", "here", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"run", "train_error", "test_error", "epochs", "seconds"}
    assert answer["epochs"] == 2
    folder = tmp_path / answer["run"]
    assert folder.parent == tmp_path / "here"
    assert (folder / "last/weights.safetensors").exists()
    assert (folder / "best/weights.safetensors").exists()
    monkeypatch.chdir(tmp_path)
    assert main([*options, "--runs", "here"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main(["eval", answer["run"], "--data", "digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == pytest.approx(100 - answer["test_error"])
    assert found["images"] == 360


def test_every_field_of_a_recipe_is_an_option(capsys: Captured) -> None:
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert not [field for field in FIELDS if field not in RETIRED and f"--{field.replace('_', '-')}" not in shown]


def _batches(folder: Path, change: str) -> None:
    """A CIFAR-10 folder whose first batch is cut or asks to run code."""
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        batch = {b"data": b"pixels", b"labels": [], b"label_names": [b"x"] * 10}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    code = b"cposix\nsystem\n(S'touch executed'\ntR."
    first = folder / "data_batch_1"
    first.write_bytes(code if change == "code" else first.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe", "resnt50"], "network 'resnt50' is not known. Did you mean resnet50"),
        (["describe", "cifar_resnet57"], "57 is not 6n+2 (basic) or 9n+2 (bottleneck); the nearest are 56 and 62"),
        (["describe", "cifar_plain110(mix=Ad)"], "mix 'Ad' is not known"),
        (["describe", "resnet50(branch=basic, groups=2)"], "leave them out or set branch='bottleneck'"),
        (["describe", "resnet50("], "can't be read"),
        (["compare", "resnet50", "vgg18"], "network 'vgg18' is not known. Did you mean vgg1"),
        (["train", "digits", "--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
        (["train", "digits", "--epochs", "three"], 'unable to convert "three" into float'),
        (["train", "digits", "--epochs", "-1"], "epochs=-1.0 must be more than 0"),
        (["train", "digits", "--schedule", "cosin"], 'Did you mean "cosine"?'),
        (["train", "digit"], "recipe 'digit' is not known: choose one of digits"),
        (["train", "digits", "--net", "cifar_resnet57"], "the nearest are 56 and 62"),
        (["train", "digits", "--data", "folder"], "data 'folder' does not name a folder"),
        *(
            (
                ["train", "digits", "--device", name],
                f"device {shown(name)} is not known: give cpu, cuda, cuda:N, mps or auto",
            )
            for name in ("tpu9", "meta", "hpu", "privateuseone", "mkldnn", "cuda:x", "cuda:" + "9" * 5000)
        ),
        (["train", "digits", "--device", "cuda:999"], "device 'cuda:999' can't be used here"),
        (["train", "digits", "--threads", "0"], "threads=0 must be 1 to "),
        (["train", "digits", "--threads", "200000"], "threads=200000 must be 1 to "),
        (["train", "digits", "--threads", "1.5"], "Invalid value for --threads: '1.5' must be a whole number"),
        (["train", "digits", "--checkpoint-steps", "0"], "checkpoint_steps=0 must be 1 or more"),
        (["train", "digits", "--seed", "1.5"], "Invalid value for --seed: '1.5' must be a whole number"),
        (["train", "digits", "--batch-size", "32.9"], "Invalid value for --batch-size: '32.9' must be a whole"),
        (["train", "digits", "--iterations", "9" * 5000], "must be a whole number"),
        (["train", "digits", "--lr", "1e308"], "lr=1e+308 must be 0 to 10^6"),
        (["train", "digits", "--net", "vgg16"], "input_size=8 is too small for a VGG net"),
        (["train", "digits", "--data", "cifar10:" + "a" * 5000], "can't be read (File name too long)"),
        (["eval", "a" * 300, "--data", "digits"], "can't be read (File name too long)"),
        (["describe", "resnet50(input_size=1000000000)"], "input_size=1000000000 must be a whole number"),
        (["describe", "cifar_resnet60002"], "a depth of 60,002 layers is more than 20,000"),
        (["train", "imagenet_paper"], "data: no such folder; choose the data with --data; imagenet needs"),
        (["train", "cifar_paper", "--data", "cifar10:nowhere"], "nowhere: no such folder"),
        (["train", "cifar_paper", "--data", "cifar10:empty"], "empty: not a cifar10 folder, it lacks data_batch_1"),
        (["train", "cifar_paper", "--data", "cifar10:cut"], "data_batch_1: truncated or damaged"),
        (["train", "cifar_paper", "--data", "cifar10:code"], "data_batch_1: not a CIFAR batch, it asks to run"),
        (["eval", "nowhere", "--data", "digits"], "nowhere: no such run folder or weight file"),
        (["eval", "empty", "--data", "digits"], "empty: not a run folder"),
        (["eval", "empty", "--data", "digits", "--which", "first"], "which='first' is not known"),
        (["study", "run", "degredation"], "study 'degredation' is not known: choose one of degradation"),
        (["study", "run", "degradation", "--scale", "paper"], "needs the images: give --data cifar10:DIR"),
        (["study", "run", "degradation", "--jobs", "0"], "jobs=0 must be 1 or more"),
        (["study", "run", "degradation", "--ray", "here"], "ray='here' must be local, auto or HOST:PORT"),
        (["study", "run", "degradation", "--ray", "local", "--jobs", "2"], "--jobs can't be used with --ray"),
        (["study", "run", "degradation", "--ray", "auto", "--device", "cuda:1"], "Ray chooses which GPU"),
        (["study", "run", "degradation", "--data", "cifar10:x"], "scale 'quick' runs on the digits"),
        (["study", "run", "degradation", "--scale", "cifar", "--data", "digits"], "give --data cifar10:DIR"),
        (["study", "run"], "give the name of one study, or --all"),
        (["study", "run", "degradation", "--all"], "give the name of one study, or --all"),
        (["study", "run", "degradation", "--seeds", "0"], "seeds=0 must be 1 or more"),
        (["study", "run", "degradation", "--epochs", "0"], "epochs=0.0 must be more than 0"),
        (["study", "run", "degradation", "--seeds", "6"], "seeds=6: scale 'quick' has 5, and --seeds can only lower"),
        (
            ["study", "run", "degradation", "--epochs", "1e3"],
            "epochs=1000: scale 'quick' has 15, and",
        ),
        (
            ["study", "run", "responses", *2 * ["--weights", "pretrained:cifar_resnet20"]],
            "given twice; the files of",
        ),
        (["study", "run", "responses", "--weights", "resnet20.pt"], "write NAME=FILE"),
        (["study", "run", "responses", "--weights", "cifar_resnet20=missing.pt"], "missing.pt: no such weight file"),
        (["study", "run", "responses", "--weights", "cifar_resnet2O=cut"], "cifar_resnet2O"),
        (["study", "run", "orders", "--weights", f"cifar_resnet20={__file__}"], "leave out --weights"),
        (["study", "run", "responses", "--weights", f"cifar_resnet20={__file__}"], "--weights needs the images"),
        (
            ["study", "run", "degradation", "--results", "cut/test_batch/x"],
            "(Not a directory): a file is in the place of a folder",
        ),
        (["describe", 'cifar_resnet20(name="cifar_resnet110")'], "leave name= out"),
        (["describe", "cifar_resnet020"], "is not known"),
        (["study", "report", "--results", "empty"], "empty: no results of studies"),
        (["data", "fetch", "cifar11", "here"], "name='cifar11' is not known: choose one of cifar10, cifar100, mnist"),
        (["data", "fetch", "mnist", "cut/data_batch_1"], "cut/data_batch_1: can't write (File exists): a file is in"),
        (["train", "digits", "--data", "mnist:empty"], "empty: not a mnist folder, it lacks train-images-idx3-ubyte"),
        (["nonsense"], 'Unknown command "nonsense"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    _batches(tmp_path / "cut", "cut")
    _batches(tmp_path / "code", "code")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs").exists(), "nothing is written for input that is refused"


def test_what_a_name_holds_does_not_reach_the_terminal(capsys: Captured) -> None:
    assert main(["eval", "\x1b[31mnowhere", "--data", "digits"]) == 2
    assert "error: \\x1b[31mnowhere: no such run folder" in capsys.readouterr().err


def test_the_exit_code_reaches_the_shell(resnetlab: Command) -> None:
    done = resnetlab("describe", "resnt50")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_closed_pipe_is_no_error(resnetlab: Command) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "resnetlab", "describe"]
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("net", ["", "resnet18"])
def test_a_full_disk_behind_the_output_is_one_line(net: str) -> None:
    command = [sys.executable, "-m", "resnetlab", "describe", *net.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the output: can't be read or written (No space left on device).\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe", "resnet50"], "stopped.\n"),
        (["study", "report"], "stopped.\n"),
        (["train", "digits"], "to resume: resnetlab train digits\n"),
        (["data", "fetch", "mnist", "a b"], "to resume: resnetlab data fetch mnist 'a b'\n"),
    ],
)
def test_what_ctrl_c_says(capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "app", stopped)
    assert main(arguments) == 130
    said = capsys.readouterr().err
    assert said.endswith(words)
    assert len(said.splitlines()) == 2, "an empty line, since the terminal shows ^C"


def test_an_error_that_ctrl_c_caused_is_no_traceback(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a library had caught it while it was imported, and had then failed for lack of what was not imported."""

    def half_imported(*_: object, **__: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise RecursionError

    monkeypatch.setattr(main_module, "app", half_imported)
    assert main(["describe", "resnet50"]) == 130
    assert capsys.readouterr().err == "\nstopped.\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word(tmp_path: Path, ignored: bool) -> None:
    """If it is not ignored, as by what a shell runs in the background."""
    (tmp_path / "cyclopts.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT); print('imported')")
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, getattr(signal, sys.argv[1])); import resnetlab.__main__ as m"
    )
    handler = "SIG_IGN" if ignored else "default_int_handler"
    command = [sys.executable, "-c", f"{code}; sys.path.insert(0, {str(tmp_path)!r}); m.main()", handler]
    done = subprocess.run(command, capture_output=True, text=True)
    if ignored:
        assert done.stdout == "imported\n"
    else:
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_study_list_states_claims_and_scales(capsys: Captured) -> None:
    assert main(["study", "list"]) == 0
    shown = capsys.readouterr().out
    for words in ("degradation", "He et al. 2015", "quick:  30 runs", "paper:"):
        assert words in shown
    assert main(["study", "list", "--json"]) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out)["studies"] if r["study"] == "degradation"]
    assert row["rule"]


def test_a_study_tells_its_cost_without_running(capsys: Captured, tmp_path: Path) -> None:
    options = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "reports"), "--dry-run"]
    assert main(["study", "run", "degradation", "--seeds", "1", *options]) == 0
    shown = capsys.readouterr().out
    assert "degradation, quick: 6 runs with the multiply-adds of 0.24 epochs of cifar_resnet20" in shown
    assert "6. cifar_resnet56 seed 0" in shown
    assert "This record was shortened by --seeds 1" in shown
    assert main(["study", "run", "--all", *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["studies"]) == len(STUDIES)
    assert answer["together"]["runs"] < sum(row["runs"] for row in answer["studies"]), "shared runs count once"
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_makes_exit_code_1_and_is_tried_again(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe("digits", net="cifar_plain8", epochs=1)
    recipes = (small, small.override(net="cifar_resnet8"), small.override(net="cifar_resnet8", seed=1))
    monkeypatch.chdir(tmp_path)
    chosen = replace(study("degradation"), plan=lambda scale, data, weights: Plan(recipes, "seconds"))
    monkeypatch.setattr(degradation, "STUDY", chosen)
    for depth in ("FIRST", "LAST"):  # in place of the paper's, which are judged
        monkeypatch.setattr(f"resnetlab.studies.degradation.study.{depth}", 8)
    damaged = make_run(recipes[1], Path("runs")).folder / "run.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    assert main(["study", "run", "degradation", "--jobs", "1", "--json"]) == 1
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert "not judged" in [row["verdict"] for row in answer["rows"]]
    assert [f["net"] for f in answer["failures"]] == ["cifar_resnet8"]
    assert "cifar_resnet8 seed 0: FAILED: " in said.err
    assert "1 of 3 runs and measurements failed; the same command repeats only these" in said.err
    damaged.unlink()
    assert main(["study", "run", "degradation", "--jobs", "1"]) == 0
    assert capsys.readouterr().err.count("already finished") == 2


PICTURE = re.compile(rb'<svg [^>]*role="img".*?</svg>', re.DOTALL)


def test_the_report_is_written_again_from_committed_records(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the pictures on the page of one record of each study; all pages say each picture's values."""
    results, drawn = Path(__file__).resolve().parents[2] / "results", {}
    for record in sorted(results.glob("*.json")):
        shutil.copy(record, tmp_path)
        drawn[record.stem.partition("-")[0]] = record.stem
    draw = figures.draw_panel

    def draw_some(figure: Figure, panel: Panel, prefix: str) -> str:
        chosen = any(prefix.startswith(f"{record}-") for record in drawn.values())
        return draw(figure, panel, prefix) if chosen else '<svg role="img"></svg>'

    monkeypatch.setattr(figures, "draw_panel", draw_some)
    monkeypatch.setattr(figures, "draw", lambda *_: "")  # files beside the pages
    assert main(["study", "report", "--results", str(tmp_path), "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"])
    for written in (page, *tmp_path.glob("*-*.html")):
        both = [path.read_bytes() for path in (written, results / written.name)]
        if written.stem not in drawn.values():
            both = [PICTURE.sub(b"", text) for text in both]
        assert both[0] == both[1], "the page is not of its record"


WAITING = "training: no progress for N s; waiting for images or for a long step"


@pytest.mark.parametrize(("doing", "line"), [("training", WAITING), ("evaluating", "still evaluating after N s")])
def test_a_long_silence_is_said(monkeypatch: pytest.MonkeyPatch, doing: str, line: str) -> None:
    from resnetlab.api import screen

    lines: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(screen, "say", lines.put)
    monkeypatch.setattr(screen, "QUIET_SECONDS", 0.1)
    with screen.watching() as sign_of_life:
        sign_of_life(doing)
        while (said := lines.get(timeout=3600)).startswith("starting"):  # on a machine that was busy until now
            pass
    assert re.sub(r"\d+", "N", said) == line
