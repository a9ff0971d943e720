"""What a command runs: studies, their scale and images, others' networks, and how it is written in a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.studies import STUDIES
from resnetlab.studies.frame.assignment import Workplace, assignments, weight_files
from resnetlab.studies.frame.study import study


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a network's weights could be in: it is not read here."""
    (tmp_path / "some.pt").write_bytes(b"weights")
    return tmp_path / "some.pt"


def test_the_command_of_a_record_has_its_options_and_no_place_of_this_machine() -> None:
    (one,) = assignments("degradation", "cifar", data="cifar10:/some/place", epochs=2, seeds=1)
    assert one.command == "resnetlab study run degradation --scale cifar --data cifar10:DIR --epochs 2 --seeds 1"
    assert {(r.epochs, r.seed, r.data) for r in one.plan.recipes} == {(2, 0, "cifar10:/some/place")}
    (usual,) = assignments("degradation", "quick")
    assert (usual.command, usual.title) == ("resnetlab study run degradation --scale quick", "degradation, quick")
    assert usual.plan == study("degradation").plan("quick", None, ())


def test_others_networks_stand_in_for_a_scale(file: Path) -> None:
    weights = [f"cifar_resnet20={file}"]
    (one,) = assignments("responses", "quick", data="cifar10:x", weights=weights)
    assert (one.scale, one.command) == (
        "weights",
        "resnetlab study run responses --data cifar10:DIR --weights cifar_resnet20=FILE",
    )
    every = assignments(None, "quick", data="cifar10:x", weights=weights)
    assert {task.study.name for task in every} == {"responses", "lesion", "boosting", "sensitivity"}
    with pytest.raises(UserError, match="^degradation: can't measure networks from other projects"):
        assignments("degradation", "quick", data="cifar10:x", weights=weights)


def test_the_command_of_a_record_can_be_given_to_a_shell(file: Path) -> None:
    weights = [f"cifar_resnet20(shortcut=B)={file}"]
    (one,) = assignments("responses", "quick", data="cifar10:x", weights=weights)
    assert one.command.endswith(" --weights 'cifar_resnet20(shortcut=B)=FILE'")


def test_images_are_asked_for_where_a_scale_needs_them(file: Path) -> None:
    with pytest.raises(UserError, match="^scale 'cifar' needs the images: give --data cifar10:DIR"):
        assignments("degradation", "cifar")
    with pytest.raises(UserError, match="^--weights needs the images"):
        assignments("responses", "quick", weights=[f"cifar_resnet20={file}"])


def test_epochs_and_seeds_can_only_be_lowered() -> None:
    recipes = study("degradation").plan("quick", None, ()).recipes
    epochs, seeds = max(r.epochs or 0 for r in recipes), 1 + max(r.seed for r in recipes)
    assert len(assignments("degradation", "quick", epochs=epochs, seeds=seeds)) == 1
    with pytest.raises(UserError, match=r"^epochs=164: scale 'paper' has 163.84, and --epochs can only lower that"):
        assignments("degradation", "paper", data="cifar10:x", epochs=164)  # its recipe gives 64,000 steps
    (short,) = assignments("degradation", "paper", data="cifar10:x", epochs=163)
    assert {recipe.epochs for recipe in short.plan.recipes} == {163}
    with pytest.raises(UserError, match=f"^seeds={seeds + 1}: scale 'quick' has {seeds}, and --seeds can only lower"):
        assignments("degradation", "quick", seeds=seeds + 1)
    with pytest.raises(UserError, match=f"^epochs={epochs + 1:g}: scale 'quick' has {epochs:g}, and --epochs can only"):
        assignments("degradation", "quick", epochs=epochs + 1)


def test_epochs_of_no_training_are_refused(file: Path) -> None:
    for name in ("bottleneck", "signal"):
        with pytest.raises(UserError, match="^epochs=1: no runs are trained here that --epochs could shorten"):
            assignments(name, "quick", epochs=1)
    with pytest.raises(UserError, match="^epochs=1: no runs are trained here"):
        assignments("responses", "quick", data="cifar10:x", weights=[f"cifar_resnet20={file}"], epochs=1)
    assert len(assignments(None, "quick", epochs=1)) == len(STUDIES)


def test_networks_of_others_have_no_scale(file: Path) -> None:
    with pytest.raises(UserError, match="^scale='cifar': networks of --weights are only measured, at one size"):
        assignments("responses", "cifar", data="cifar10:x", weights=[f"cifar_resnet20={file}"])


def test_a_study_that_can_measure_none_of_the_networks_is_not_run(file: Path) -> None:
    plain = [f"cifar_plain20={file}"]
    with pytest.raises(UserError, match="^boosting: measures residual networks only; name one with --weights"):
        assignments("boosting", "quick", data="cifar10:x", weights=plain)
    every = assignments(None, "quick", data="cifar10:x", weights=plain)
    assert {task.study.name for task in every} == {"responses", "lesion", "sensitivity"}


def test_one_file_is_one_seed(file: Path) -> None:
    text = f"cifar_resnet20={file}"
    with pytest.raises(UserError, match="given twice; the files of one network count as seeds"):
        weight_files([text, f"cifar_resnet20={file.parent / '.' / file.name}"])
    other = file.with_name("other.pt")
    other.write_bytes(b"more")
    assert [w.file.name for w in weight_files([text, f"cifar_resnet20={other}"])] == ["some.pt", "other.pt"]
    assert [w.net for w in weight_files([text, f"cifar_plain20={file}"])] == ["cifar_resnet20", "cifar_plain20"]
    for wrong in ("cifar_resnet20", "cifar_resnet20=", f"={file}"):
        with pytest.raises(UserError, match="write NAME=FILE"):
            weight_files([wrong])


def test_ray_decides_how_many_train_at_once() -> None:
    with pytest.raises(UserError, match="--jobs can't be used with --ray"):
        Workplace.checked(Path("runs"), "cpu", 2, "auto")
    assert Workplace(Path("runs"), "cpu", 3).words == "3 at once"
    assert Workplace(Path("runs"), "cuda").words == "1 at once"
    assert Workplace(Path("runs"), "cpu", ray="auto").words == "on Ray (auto)"
