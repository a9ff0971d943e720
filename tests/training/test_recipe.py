"""Recipes: the papers' values, and every wrong field refused with the nearest right one."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from resnetlab.api.train import recipe_of
from resnetlab.data.loading import SHIFTING, Augmentation, batch_ends
from resnetlab.errors import UserError
from resnetlab.nets.mixing import Scale
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.training.recipe import DECIDED_BY, FIELDS, Recipe
from resnetlab.training.recipes import RECIPES, recipe


def test_cifar_paper_has_the_papers_values() -> None:
    """He 2015, section 4.2: drops at 32k and 48k, end at 64k."""
    r = recipe("cifar_paper")
    assert r.iterations is not None
    assert (r.iterations, [m * r.iterations for m in r.milestones]) == (64_000, [32_000, 48_000])
    assert (r.batch_size, r.lr, r.lr_drop, r.momentum, r.weight_decay) == (128, 0.1, 0.1, 0.9, 1e-4)
    assert (r.normalise, r.augment, r.decay, r.nesterov) == ("pixel_mean", "crop_flip", "all", False)


def test_a_network_of_ones_own_is_a_recipes_net() -> None:
    own = NetSpec(stages=((2, 32), (2, 64, 2), (2, 128, 2)), stem_width=32, shortcut="B", mix=Scale(0.5, 0.5))
    for made in (recipe("cifar_fast", net=own), RECIPES["cifar_fast"].override(net=own), Recipe(net=own)):
        assert spec(made.net) == own
        assert json.loads(json.dumps(made.to_dict()))["net"] == made.net
    assert recipe("digits", net=spec("cifar_resnet56")).net == "cifar_resnet56"
    assert recipe("digits", net=spec("vgg16")).net == "vgg16"


def test_the_augmentation_has_every_field_from_the_recipe() -> None:
    r = recipe("imagenet_strong", crop_padding=2, colour_jitter=0.3)
    for field in fields(Augmentation):
        assert getattr(r.augmentation, field.name) == getattr(r, field.name) != field.default, field.name


def test_imagenet_paper_has_the_papers_values() -> None:
    """He 2015, section 3.4."""
    r = recipe("imagenet_paper")
    assert (r.iterations, r.batch_size, r.lr, r.schedule) == (600_000, 256, 0.1, "plateau")
    assert (r.momentum, r.weight_decay, r.lr_drop, r.nesterov, r.decay) == (0.9, 1e-4, 0.1, False, "all")
    assert (r.augment, r.normalise, r.warmup) == ("scale_crop_flip_colour", "pixel_mean", "none")


def test_imagenet_modern_has_the_values_of_its_sources() -> None:
    """Goyal et al. 2017, section 5.1, and He T. et al. 2019: 0.1 for each 256 images, 5 of 90 epochs of warm-up."""
    r = recipe("imagenet_modern")
    assert spec(r.net) == spec("resnet50(zero_gamma=True)")
    assert (r.lr, r.epochs, r.schedule) == (pytest.approx(0.1 * r.batch_size / 256), 90, "cosine")
    assert (r.warmup, r.warmup_lr, r.warmup_steps) == ("linear", 0, 5 * len(batch_ends(1_281_167, r.batch_size)))
    assert (r.label_smoothing, r.weight_decay, r.decay, r.nesterov) == (0.1, 1e-4, "weights", True)
    assert (r.augment, r.normalise) == ("resized_crop_flip", "imagenet")


def test_imagenet_strong_has_the_values_of_its_source() -> None:
    """Vryniotis 2021: SGD for 600 epochs, an average that moves every 32 steps by its share of all images seen."""
    r = recipe("imagenet_strong")
    assert (r.epochs, r.batch_size, r.lr, r.schedule, r.weight_decay) == (600, 1024, 0.5, "cosine", 2e-5)
    assert (r.policy, r.erasing, r.mixup, r.cutmix, r.label_smoothing) == ("trivialaugment", 0.1, 0.2, 1.0, 0.1)
    assert (r.warmup_lr, r.warmup_steps) == (r.lr / 100, 5 * len(batch_ends(1_281_167, r.batch_size)))
    assert r.ema == pytest.approx((1 - 2e-5 * r.batch_size * 32 / r.epochs) ** (1 / 32), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "'epoch' is not a field of a recipe. Did you mean epochs"),
        ({"epochs": "3"}, "epochs='3' must be a number"),
        ({"epochs": 0}, "epochs=0.0 must be more than 0"),
        ({"epochs": 1e308}, r"epochs=1e\+308 must be more than 0 and at most 10\^9"),
        ({"iterations": 10**10}, r"iterations=10000000000 must be 1 to 10\^9"),
        ({"weight_decay": 1e300}, r"weight_decay=1e\+300 must be 0 to 10\^6"),
        ({"warmup_lr": 1e308}, r"warmup_lr=1e\+308 must be 0 to 10\^6"),
        ({"seed": 16**5000}, r"seed=a huge int must be 0 to 2\^31"),
        ({"schedule": 16**5000}, "schedule=a huge int is not known"),
        ({"epochs": float("nan")}, "epochs=nan must be finite"),
        ({"iterations": 2.5}, "iterations=2.5 must be a whole number"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"batch_size": 1}, "batch_size=1 must be 2 to 10"),
        ({"lr": -1}, r"lr=-1.0 must be 0 to 10\^6"),
        ({"lr": float("inf")}, "lr=inf must be finite"),
        ({"schedule": "cosin"}, "schedule='cosin' is not known: choose one of .* Did you mean cosine"),
        ({"milestones": 0.5}, "milestones=0.5 must be a list of numbers"),
        ({"milestones": []}, "schedule='multistep' needs milestones"),
        ({"milestones": [0.5, 0.2]}, "must be increasing shares of the run"),
        *(({"milestones": [0.5, end]}, "must be increasing shares of the run") for end in (1, 2)),
        ({"milestones": [0, 0.5]}, "must be increasing shares of the run"),
        *(({"warmup": name}, f"warmup='{name}' needs warmup_steps") for name in ("linear", "constant")),
        ({"warmup_error": 101}, "warmup_error=101.0 must be a percentage"),
        ({"nesterov": "yes"}, "nesterov='yes' must be true or false"),
        ({"nesterov": True, "momentum": 0}, "nesterov=True needs a momentum above 0"),
        ({"momentum": 1}, "momentum=1.0 must be at least 0 and below 1"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"epochs": 1, "iterations": 5}, "exactly one of epochs and iterations"),
        ({"freeze": 1}, "freeze=1 needs weights to start from"),
        ({"normalise": "source"}, "normalise='source' needs weights to start from"),
        ({"net": ""}, "net='' needs weights to start from"),
        ({"start": 5}, "start=5 must be text"),
        ({"layer_decay": 1.5}, "layer_decay=1.5 must be a factor between 0 and 1"),
        ({"validation_share": 1}, "validation_share=1.0 must be a share, 0 to 0.9"),
        ({"validation_share": 0.1, "validation_images": 5}, "either validation_images or validation_share"),
        ({"stop_after": 3}, "stop_after=3 needs held-out images, since test images must not decide"),
        ({"stop_after": 3, "validation_images": 9, "bn_reestimate": 2}, "bn_reestimate=2 runs after the last step"),
        ({"net": 5}, "net=5 must be text"),
    ],
)
def test_wrong_fields_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe("cifar_paper", **change)


@pytest.mark.parametrize(
    ("field", "beyond"),
    [
        *(("validation_share", 0.91), ("stop_after", -1), ("unreadable_limit", -1), ("image_size", 7)),
        *(("image_size", 4097), ("colour_jitter", 1.01), ("erasing", 1.01), ("mixup", 100.1), ("cutmix", 100.1)),
        *(("label_smoothing", 1.0), ("lr_drop", 1.01), ("patience", 0), ("warmup_steps", -1), ("muon_lr", 1.01)),
        *(("momentum", -0.1), ("accumulate", 0), ("clip_gradient", -1), ("ema", 1), ("bn_reestimate", -1)),
        *(("crop_padding", -1), ("crop_padding", 4097)),
    ],
)
def test_numbers_beyond_their_ranges_are_refused(field: str, beyond: float) -> None:
    with pytest.raises(UserError, match=f"^{field}={beyond}.* must be "):
        recipe("cifar_paper", **{field: beyond})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("digits", {"patience": 3}, "patience=3 has no effect with schedule='multistep': give schedule='plateau'"),
        ("cifar_fast", {"milestones": (0.3,)}, "milestones=.0.3,. has no effect with schedule='cosine'"),
        ("cifar_paper", {"warmup_steps": 9}, "with warmup='none': give warmup='linear' or warmup='constant' or"),
        ("digits", {"warmup_error": 50}, "give warmup='train_error' as well, or leave warmup_error out"),
        ("cifar_fast", {"optimiser": "sgd", "muon_lr": 0.1}, "muon_lr=0.1 has no effect with optimiser='sgd'"),
        ("imagenet_modern", {"crop_padding": 2}, "crop_padding=2 has no effect with augment='resized_crop_flip'"),
        ("digits", {"unreadable_limit": 5}, "unreadable_limit=5 has no effect with unreadable='error'"),
    ],
)
def test_a_field_that_is_changed_to_no_effect_is_refused(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe_of(name, fields)
    with pytest.raises(UserError, match=message):
        recipe_of(RECIPES[name], fields)


def test_a_field_has_effect_by_what_is_given_beside_it_and_a_recipe_s_own_are_let_be() -> None:
    assert recipe_of("cifar_paper", {"warmup_steps": 9, "warmup": "constant", "warmup_lr": 0.01}).warmup_steps == 9
    assert recipe_of("cifar_fast", {"optimiser": "sgd"}).muon_lr == RECIPES["cifar_fast"].muon_lr
    assert recipe_of("cifar_fast", {"milestones": (0.5, 0.75), "lr": 0.1}).lr == 0.1, "a default says nothing"
    deciders = {decider for decider, _ in DECIDED_BY.values()}
    assert set(DECIDED_BY) | deciders <= set(FIELDS)
    for decider, values in DECIDED_BY.values():
        assert set(values) < set(get_args(get_type_hints(Recipe)[decider]))
    assert DECIDED_BY["crop_padding"][1] == SHIFTING


def test_epochs_replace_iterations_and_back() -> None:
    by_epochs = recipe("cifar_paper", epochs=2)
    assert (by_epochs.epochs, by_epochs.iterations) == (2.0, None)
    assert (by_epochs.override(iterations=7).epochs, by_epochs.override(iterations=7).iterations) == (None, 7)


def test_a_start_brings_its_network_and_normalisation_unless_they_are_given() -> None:
    given = recipe("finetune", start="run")
    assert (given.net, given.normalise) == ("", "source")
    assert given.override(lr=0.1) == replace(given, lr=0.1)
    given = recipe("finetune", start="file.safetensors", net="resnet50", normalise="imagenet")
    assert (given.net, given.normalise) == ("resnet50", "imagenet")
    assert recipe("finetune", start="") == RECIPES["finetune"]


def test_a_length_replaces_the_least_one_and_a_number_of_images_their_share() -> None:
    assert recipe("finetune", lr=0.1).least_iterations == 500
    assert recipe("finetune", epochs=3).least_iterations == recipe("finetune", iterations=3).least_iterations == 0
    assert recipe("finetune", epochs=3, least_iterations=7).least_iterations == 7
    held_out = recipe("finetune", validation_images=0)
    assert (held_out.validation_images, held_out.validation_share) == (0, 0.0)
    assert recipe("cifar_paper", validation_images=5).override(validation_share=0.2).validation_images == 0


def test_a_file_starts_from_a_named_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.TOML"
    path.write_text('recipe = "cifar_paper"\nepochs = 3\nmilestones = [0.4, 0.8]\nnet = "cifar_plain20"\n')
    assert recipe(str(path), seed=4) == RECIPES["cifar_paper"].override(
        epochs=3, milestones=(0.4, 0.8), net="cifar_plain20", seed=4
    )


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("freeze = 2", {"start": "x.pth"}),
        ('match = "order"\nnet = "resnet18"', {"start": "x.pth"}),
        ('normalise = "0.5/0.5"\nnet = "resnet50"', {"start": "x.pth"}),
        ("stop_after = 3\nvalidation_share = 0.0", {"validation_share": 0.1}),
        ("accumulate = 4\nbatch_size = 4", {"batch_size": 64}),
        ("iterations = 9", {"epochs": 2.0}),
        ("lr = 0.2", {"optimiser": "adamw"}),
        ("validation_images = 9", {"validation_share": 0.1}),
    ],
)
def test_options_count_as_if_they_stood_in_the_file(tmp_path: Path, content: str, options: dict[str, Any]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'recipe = "finetune"\n{content}\n')
    found = recipe(str(path), **options)
    wanted = {name: value for name, value in tomllib.loads(content).items() if name != "iterations"} | options
    wanted |= {"validation_images": 0} if "validation_share" in options else {}
    assert {name: getattr(found, name) for name in wanted} == wanted


def test_files_data_and_starts_are_paths_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 3")
    assert recipe(file, data=tmp_path) == recipe(str(file), data=str(tmp_path))
    assert Recipe().override(start=tmp_path / "run") == Recipe().override(start=str(tmp_path / "run"))


def test_a_result_is_no_network() -> None:
    class Result:
        def to_dict(self) -> dict[str, object]:
            return {}

    with pytest.raises(UserError, match="net=.*Result.* must be text"):
        recipe("digits", net=Result())


def test_what_a_file_says_of_its_own_start_is_not_of_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "finetune"\nstart = "a.pth"\nnet = "resnet18"\nmatch = "order"\n')
    assert (recipe(str(path)).match, recipe(str(path)).net) == ("order", "resnet18")
    other = recipe(str(path), start="b.pth")
    assert (other.start, other.match, other.net) == ("b.pth", "names", "")
    path.write_text("nesterov = true\n")
    assert not recipe(str(path), optimiser="adamw").nesterov


def test_an_option_is_not_the_files_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 3")
    with pytest.raises(UserError, match="^lr=-1.0 must be"):
        recipe(str(path), lr=-1.0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "digits"\r\ndata = "./\u871c"\r\n', encoding=encoding)
    assert recipe(str(path)) == RECIPES["digits"].override(data="./\u871c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = ", "mine.toml: not a TOML file"),
        ("batchsize = 4", "mine.toml: 'batchsize' is not a field of a recipe. Did you mean batch_size"),
        ('recipe = "cifar_papr"', "mine.toml: recipe='cifar_papr' must be one of .* Did you mean cifar_paper"),
        ('lr = "0.1"', "mine.toml: lr='0.1' must be a number"),
        ("[training]\nlr = 1", "mine.toml: 'training' is not a field"),
        (f"{'9' * 5000} = 1", r"mine.toml: '9{99}\.\.\. is not a field"),
        (b"\xff", "mine.toml: not a TOML file"),
        (b"\xff\xfea", "mine.toml: not a TOML file"),  # UTF-16 that ends within a character
        ('recipe = ["digits"]', r"mine.toml: recipe=\['digits'\] must be one of digits, cifar_paper"),
        ("recipe = {a = 1}", "mine.toml: recipe={'a': 1} must be one of"),
        ("[recipe]", "mine.toml: recipe={} must be one of"),
        ("lr = " + "9" * 400, r"mine.toml: lr=9+\.\.\. must be finite"),
        ("seed = 0x" + "f" * 5000, "mine.toml: seed=a huge int must be 0 to"),
        ("seed = " + "9" * 5000, "mine.toml: not a TOML file"),
        ("lr = " + "[" * 20_000, "mine.toml: not a TOML file"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        recipe(str(path))


def test_unknown_recipes_and_missing_files() -> None:
    with pytest.raises(UserError, match="recipe 'cifar_papper' is not known.*Did you mean cifar_paper"):
        recipe("cifar_papper")
    with pytest.raises(UserError, match=r"nowhere\.toml: can't be read \(No such file"):
        recipe("nowhere.toml")


@pytest.mark.parametrize("name", RECIPES)
def test_json_gives_the_recipe_back(name: str) -> None:
    assert Recipe(**json.loads(json.dumps(RECIPES[name].to_dict()))) == RECIPES[name]
