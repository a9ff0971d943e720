"""Specs and names: what is refused and in which words, what is read, and what survives a round trip."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resnetlab.errors import UserError, shown
from resnetlab.nets import zoo
from resnetlab.nets.mixing import Add, DropoutShortcut, ExclusiveGate, Mix, Plain, Scale, ShortcutGate, parse_mix
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.vgg import VGGSpec

# Combinations that make no sense on top of cifar_resnet20, and what the message says to do.
CONFLICTS: list[tuple[dict[str, Any], str]] = [
    *(
        ({name: value}, "branch='bottleneck'")
        for name, value in (("groups", 2), ("base_width", 8), ("stride_at", "1x1"))
    ),
    ({"branch": "bottleneck", "base_width": 3}, "raise it or the width"),
    ({"stem": "deep", "stem_width": 1}, "stem_width of at least 2"),
    ({"stem": "tiered", "stem_width": 2}, "stem_width of at least 3"),
    ({"first_preact": "unit"}, "needs a pre-activation order"),
    ({"se_divisor": 8}, "belongs to se_reduction"),
    ({"stem_width": 17}, "use shortcut='B'"),
    ({"stages": ((1, 16), (1, 8))}, "use shortcut='B'"),
    ({"zero_pad": "around", "shortcut": "B"}, "leave it out"),
    ({"zero_pad": "around", "mix": Plain()}, "leave it out"),
    ({"zero_gamma": True, "norm": "none"}, "use branch_scalar=0, or norm='batch'"),
    ({"zero_gamma": True, "order": "bn_after_add"}, "use branch_scalar=0"),
    ({"zero_gamma": True, "order": "relu_before_add"}, "use branch_scalar=0"),
    ({"zero_gamma": True, "order": "full_preact"}, "with order='post' or 'relu_preact'"),
    ({"zero_gamma": True, "mix": Plain()}, "use mix=Add()"),
    ({"branch_scalar": 0, "mix": Plain()}, "start it at 1 or use mix=Add()"),
    ({"stochastic_depth": 0.2, "mix": Plain()}, "set it to 0 or use mix=Add()"),
    *(({"stochastic_depth": wrong}, "0 <= p < 1") for wrong in (1, -0.1)),
    *(({"se_reduction": wrong}, "1 to 1,000,000") for wrong in (0, 2.5, "x")),
    ({"branch": "bottleneck", "groups": 10**5}, "lower them or the width"),
    ({"stages": ((10_000, 16),)}, "a depth of 20,002 layers is more than 20,000: choose fewer units"),
]
WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    *(({name: "nonsense"}, "choose one of") for name in ("stem", "branch", "stride_at", "shortcut", "zero_pad")),
    *(({name: "nonsense"}, "choose one of") for name in ("order", "norm", "init", "mix", "first_preact")),
    ({"shortcut": "Z", "mix": Plain()}, "choose one of A, B, C"),
    ({"mix": 5}, "choose one of Plain, Add"),
    ({"branch": []}, "choose one of single, basic, bottleneck"),
    *(({"num_classes": wrong}, "whole number of at least 1") for wrong in (0, -1, 1.5, True, "ten", None)),
    *(
        ({name: wrong}, f"{name}=")
        for name in ("stem_width", "groups", "base_width", "in_channels", "num_classes", "input_size", "se_divisor")
        for wrong in (10**6 + 1, 10**17, 16**5000)
    ),
    ({"in_channels": 16**5000}, "in_channels=a huge int must be a whole number of at least 1 and at most 1,000,000"),
    *(
        ({name: 16**5000}, f"{name}=")
        for name in ("stages", "order", "mix", "zero_gamma", "branch_scalar", "se_reduction")
    ),
    ({"input_size": 10**5 + 1}, "input_size=100001 must be a whole number of at least 1 and at most 100,000"),
    ({"stages": (16**5000,)}, "stage a huge int can't be read"),
    *(({"stages": (wrong,)}, "of stage 1=1") for wrong in ((10**12, 16), (1, 10**12), (1, 16, 10**20))),
    *(({name: 0}, name) for name in ("stem_width", "groups", "base_width", "in_channels", "input_size")),
    ({"stages": ()}, "at least one StageSpec"),
    ({"stages": 5}, "list of stages"),
    *(({"stages": (wrong,)}, "(units, width, stride)") for wrong in (3, (1,), (1, 16, 1, 1), {"height": 2})),
    ({"stages": ((0, 16),)}, "units of stage 1=0"),
    ({"stages": ((1, 16), (1, 16, 0))}, "stride of stage 2=0"),
    ({"stages": ((1, "16"),)}, "width of stage 1='16'"),
    *(({"stochastic_depth": wrong}, "finite number") for wrong in ("x", None, math.nan, True)),
    *(({"branch_scalar": wrong}, "finite number") for wrong in ("x", math.inf)),
    ({"zero_gamma": "yes"}, "True or False"),
    ({"shortcuts": "B"}, "Did you mean shortcut"),
]


@pytest.mark.parametrize(("changes", "advice"), CONFLICTS + WRONG_VALUES, ids=shown)
def test_refused(changes: dict[str, Any], advice: str) -> None:
    with pytest.raises(UserError) as caught:
        zoo.spec("cifar_resnet20", **changes)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value), "one line"


def test_every_conflict_is_listed_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetSpec, "_check", lambda self: None)
    found = set()
    for changes, _ in CONFLICTS:
        conflicts = zoo.spec("cifar_resnet20", **changes)._conflicts()
        found |= {i for i, (broken, _) in enumerate(conflicts) if broken}
    assert found == set(range(len(conflicts)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", ["resnet1", "Did you mean"]),
        ("ResNet-50", ["Did you mean resnet50"]),
        ("cifar_resnt110", ["Did you mean", "cifar_resnet110"]),
        ("", ["is not known", "cifar_resnet{6n+2 or 9n+2}"]),
        ("cifar_resnet57", ["6n+2", "56 and 62"]),
        ("cifar_plain57", ["6n+2", "56 and 62"]),
        ("cifar_resnet30", ["9n+2", "29 and 32"]),
        ("cifar_resnet2", ["8 and 11"]),
        ("cifar_preresnet57", ["56 and 62"]),
        ("cifar_plain11", ["8 and 14"]),
        ("cifar_resnet30(branch=single)", ["3n+2 (single)", "29 and 32"]),
        ("cifar_wrn27_10", ["6n+4", "22 and 28"]),
        ("cifar_wrn4_10", ["6n+4", "10 and 16"]),
        ("cifar_wrn28_0", ["width", "1 or more"]),
        ("resnet18(shortcut=)", ["can't be read", "cifar_resnet110(mix=Scale(0.5, 1), shortcut=C)"]),
        ("resnet18('A')", ["can't be read"]),
        ("resnet18(mix=Scal(1, 2))", ["Did you mean Scale"]),
        ("resnet18(mix=Scale(1))", ["write Scale(a, b) with numbers"]),
        ("resnet18(mix=Scale('a', 1))", ["a='a' must be a finite number"]),
        ("resnet18(mix=DropoutShortcut(2))", ["p is a probability, 0 <= p < 1"]),
        ("resnet18(mix=DropoutShortcut(1))", ["p is a probability, 0 <= p < 1"]),
        ("resnet18(name=5)", ["leave name= out"]),
        ("vgg16(shortcut=A)", ["not a field of a VGG net"]),
        ("vgg16(num_classes=0)", ["whole number of at least 1"]),
        ("vgg16(convs=(1, 2))", ["must be 5 numbers"]),
        ("vgg16(batch_norm=yes)", ["True or False"]),
        ("vgg16(input_size=31)", ["input_size=31 is too small", "halves its maps 5 times", "32 pixels or more"]),
        ("vgg16(convs=(20000, 1, 1, 1, 1))", ["20,007 layers is more than 20,000"]),
        ("resnet50(num_classes=99999999999999999)", ["at most 1,000,000"]),
        ("resnet50(in_channels=0x" + "f" * 5000 + ")", ["in_channels=a huge int"]),
        ("vgg16(convs=(0x" + "f" * 5000 + ",))", ["must be 5 numbers"]),
        ("cifar_resnet60002", ["a depth of 60,002 layers is more than 20,000"]),
    ],
)
def test_refused_names(name: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        zoo.spec(name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "branch"),
    [("cifar_resnet20", "basic"), ("cifar_preresnet110", "basic"), ("cifar_resnet164(branch=basic)", "basic")]
    + [(f"cifar_{name}", "bottleneck") for name in ("resnet164", "preresnet1001", "resnet29")],
)
def test_branch_of_a_depth(name: str, branch: str) -> None:
    """164 and 1001 are He 2016's bottlenecks; any other depth that fits both rules is basic."""
    found = zoo.spec(name)
    assert found.branch == branch
    assert (found.shortcut, found.stride_at) == (("B", "1x1") if branch == "bottleneck" else ("A", "3x3"))


def test_call_grammar() -> None:
    written = zoo.spec("cifar_resnet110(mix=Scale(0.5, 0.5), shortcut=C)")
    assert written == zoo.spec("cifar_resnet110", mix=Scale(0.5, 0.5), shortcut="C")
    assert written == zoo.spec(" cifar_resnet110( shortcut = 'C', mix = Scale(b=0.5, a=0.5) ) ")
    assert written == zoo.spec("cifar_resnet110", mix="Scale(0.5, 0.5)", shortcut="C")
    assert written != zoo.spec("cifar_resnet110", mix=Scale(0.5, 1), shortcut="C")
    assert (written.mix, written.shortcut) == (Scale(0.5, 0.5), "C")
    assert zoo.spec("resnet18(shortcut=A)", shortcut="C").shortcut == "C", "what is given beside the name wins"
    assert zoo.spec("resnet18()") == zoo.spec("resnet18")
    assert zoo.build("cifar_resnet20(mix=Add, num_classes=7)", seed=0).fc.out_features == 7


def test_plain_nets_have_no_shortcut_to_choose() -> None:
    for shortcut in "ABCD":
        assert zoo.spec("cifar_plain20", shortcut=shortcut).shortcut == "A"
    assert zoo.spec("cifar_resnet20", mix=Plain(), shortcut="C") == zoo.spec("cifar_plain20")
    assert zoo.spec("plain18") == zoo.spec("resnet18", mix=Plain())


def test_frozen_and_hashable() -> None:
    a, b = zoo.spec("cifar_plain20"), zoo.spec("cifar_resnet20(mix=Plain)")
    assert a == b, "the name is no part of what a network is"
    assert a.name != b.name
    assert zoo.spec("cifar_resnet20(shortcut=A)").name == "cifar_resnet20", "what changes nothing is not in the name"
    assert hash(a) == hash(b)
    assert len({a, b, zoo.spec("cifar_resnet32"), zoo.spec("vgg16"), zoo.spec("vgg19")}) == 4
    for value, name in ((a, "order"), (a.stages[0], "units"), (Scale(1, 2), "a"), (zoo.spec("vgg16"), "convs")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_equal_numbers_have_one_text() -> None:
    """A run is named by the hash of its spec's JSON, so 1 and 1.0 may not differ there."""
    ints = zoo.spec("cifar_resnet20", mix=Scale(1, 2), branch_scalar=1, stochastic_depth=0)
    floats = zoo.spec("cifar_resnet20", mix=Scale(1.0, 2.0), branch_scalar=1.0, stochastic_depth=0.0)
    assert json.dumps(ints.to_dict()) == json.dumps(floats.to_dict())


def test_fields_added_later_are_absent_where_they_change_nothing() -> None:
    """Runs and files made before they came have neither, and keep their ids."""
    added = {"first_preact", "se_divisor"}
    assert not added & zoo.spec("cifar_preresnet20(se_reduction=16)").to_dict().keys()
    found = zoo.spec("cifar_preresnet20(se_reduction=16, se_divisor=8, first_preact=unit)")
    assert added <= found.to_dict().keys()
    assert NetSpec.from_dict(found.to_dict()) == found


finite = st.floats(allow_nan=False, allow_infinity=False)
mixes = st.one_of(
    st.sampled_from([Plain(), Add()]),
    st.builds(Scale, finite, finite),
    st.builds(ExclusiveGate, finite),
    st.builds(ShortcutGate, finite),
    st.builds(DropoutShortcut, st.floats(0, 1, exclude_max=True)),
)


@st.composite
def specs(draw: st.DrawFn) -> NetSpec:
    """Specs of every kind that hold together."""
    branch = draw(st.sampled_from(["single", "basic", "bottleneck"]))
    mix = draw(mixes)
    shortcut = draw(st.sampled_from("ABCD"))
    widths = sorted(draw(st.lists(st.integers(8, 64), min_size=1, max_size=4)))
    order = draw(st.sampled_from(["post", "bn_after_add", "relu_before_add", "relu_preact", "full_preact"]))
    norm = draw(st.sampled_from(["batch", "none"]))
    values: dict[str, Any] = {
        "stages": tuple(StageSpec(draw(st.integers(1, 9)), w, draw(st.integers(1, 2))) for w in widths),
        "stem": draw(st.sampled_from(["cifar", "imagenet", "deep", "tiered"])),
        "stem_width": draw(st.integers(3, 8)),
        "se_reduction": draw(st.none() | st.integers(1, 16)),
        "init": draw(st.sampled_from(["he_fan_out", "he_fan_in", "xavier", "gaussian"])),
        "num_classes": draw(st.integers(1, 1000)),
    }
    if order.endswith("preact"):
        values["first_preact"] = draw(st.sampled_from(["stem", "unit"]))
    if values["se_reduction"]:
        values["se_divisor"] = draw(st.integers(1, 8))
    if branch == "bottleneck":
        values["groups"], values["base_width"] = draw(st.integers(1, 32)), draw(st.integers(8, 128))
        values["stride_at"] = draw(st.sampled_from(["1x1", "3x3"]))
    if mix != Plain():
        values["zero_gamma"] = norm == "batch" and order in ("post", "relu_preact") and draw(st.booleans())
        values["stochastic_depth"] = draw(st.floats(0, 1, exclude_max=True))
        values["zero_pad"] = draw(st.sampled_from(["after", "around"])) if shortcut == "A" else "after"
        values["branch_scalar"] = draw(st.none() | finite)
    return NetSpec(branch=branch, mix=mix, shortcut=shortcut, order=order, norm=norm, **values)


@given(specs())
@settings(max_examples=100)
def test_json_round_trip(spec: NetSpec) -> None:
    text = json.dumps(spec.to_dict(), allow_nan=False)
    again = NetSpec.from_dict(json.loads(text))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.name == spec.name
    assert json.dumps(again.to_dict()) == text


@given(specs())
@settings(max_examples=100)
def test_the_name_of_a_spec_is_read_again(spec: NetSpec) -> None:
    sizes = {"in_channels", "num_classes", "input_size"}  # left out of the name
    values = {f.name: getattr(spec, f.name) for f in fields(NetSpec) if f.name not in sizes | {"name"}}
    named = zoo.spec("cifar_resnet20", **values)
    again = zoo.spec(named.name)
    assert again == named == spec.override(num_classes=10)
    assert again.name == named.name


@pytest.mark.parametrize("name", zoo.names())
def test_every_name_is_its_own(name: str) -> None:
    assert zoo.spec(name).name == name
    if not name.startswith("vgg"):
        assert NetSpec.from_dict(json.loads(json.dumps(zoo.spec(name).to_dict()))) == zoo.spec(name)


def test_the_name_holds_what_changes_the_network() -> None:
    assert zoo.spec("cifar_resnet110(branch=single)").name == "cifar_resnet110(branch='single')"
    assert zoo.spec("cifar_resnet20", mix="Scale(0.5,1)").name == "cifar_resnet20(mix=Scale(a=0.5, b=1.0))"
    assert zoo.spec("cifar_resnet20", num_classes=100).name == "cifar_resnet20"
    assert zoo.spec("vgg16", batch_norm=True).name == "vgg16(batch_norm=True)"
    assert zoo.spec("vgg16(batch_norm=True)") == zoo.spec("vgg16_bn")


@given(specs())
@example(zoo.spec("cifar_resnet20(branch=bottleneck, stages=[(3, 16), (3, 32, 2), (3, 64, 2)])"))  # type: ignore[arg-type]
@example(NetSpec(stages=(StageSpec(1, 16),), name="mine"))
@settings(max_examples=100)
def test_the_text_of_a_spec_is_read_again(spec: NetSpec) -> None:
    assert zoo.spec(zoo.text_of(spec)) == spec


@pytest.mark.parametrize("name", ["resnet50", "cifar_plain20", "vgg16", "vgg19_bn"])
def test_the_text_of_a_spec_with_a_name_is_short(name: str) -> None:
    assert zoo.text_of(zoo.spec(name)) == name
    assert zoo.text_of(zoo.spec(name, num_classes=7)).endswith("num_classes=7)")


@pytest.mark.parametrize(
    ("name", "mix"),
    [
        ("ExclusiveGate", ExclusiveGate(-6)),
        ("ShortcutGate", ShortcutGate(-6)),
        ("DropoutShortcut", DropoutShortcut(0.5)),
    ],
)
def test_a_mix_without_a_number_has_the_papers(name: str, mix: Mix) -> None:
    """He 2016, Table 1: the bias with which gates do best, and the only rate of dropout."""
    assert parse_mix(name) == parse_mix(f"{name}()") == mix


@given(mixes)
def test_the_text_of_a_mix_is_read_again(mix: Mix) -> None:
    assert parse_mix(repr(mix)) == mix


@pytest.mark.parametrize(
    "found", [{}, {"stages": None}, {"stages": [[1, 16]], "depth": 20}, {"stages": [[1, 8]], "mix": {}}]
)
def test_from_dict_refuses(found: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        NetSpec.from_dict(found)


# Text near the grammar: any name, field and value, values that Python reads among them.
short = st.text(max_size=5)
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | short,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=2),
    max_leaves=5,
)
odd = ["A", "none", "Add", "Scale(0.5, 1)", "{[]: 1}", "{[]}", "Scale(1e999, 1)", "((1, 16, 1),)"]
values = literals.map(repr) | st.text(max_size=15) | st.sampled_from(odd)
field_names = st.sampled_from([f.name for f in (*fields(NetSpec), *fields(VGGSpec))]) | short
arguments = st.lists(st.builds("{}={}".format, field_names, values), max_size=3).map(", ".join)
bases = st.sampled_from(["resnet50", "cifar_resnet20", "cifar_plain164", "cifar_wrn16_4", "vgg16"]) | short
calls = st.builds("{}({})".format, bases, arguments)
depths = st.builds("cifar_{}{}".format, st.sampled_from(["resnet", "plain", "preresnet"]), st.integers())
mix_calls = st.builds("{}({})".format, st.sampled_from(["Scale", "DropoutShortcut"]), st.lists(values).map(", ".join))


@given(st.text() | calls | depths)
@example("resnet18(\0)")
@example("resnet18(name='\ud800')")
@example("resnet18(a=" + "-" * 5000 + "1)")
@example("resnet18(a=" + "1+" * 20_000 + "1)")
@example("resnet50(base_width=" + "9" * 400 + ")")
@example("resnet50(mix=Scale(" + "9" * 400 + ", 1))")
@settings(max_examples=400)
def test_any_text_is_a_spec_or_a_user_error(text: str) -> None:
    try:
        found = zoo.spec(text)
    except UserError:
        return
    hash(found)
    json.dumps(found.to_dict(), allow_nan=False)


@given(st.text() | mix_calls)
@example("\ud800")
@example("Scale(\0)")
@example("-" * 5000 + "1")
@example("Scale(" + "1+" * 2000 + "1, 1)")
@example("Scale(" + "9" * 400 + ", 1)")
@settings(max_examples=300)
def test_any_text_is_a_mix_or_a_user_error(text: str) -> None:
    try:
        mix = parse_mix(text)
    except UserError:
        return
    assert parse_mix(repr(mix)) == mix


def test_an_overridden_spec_keeps_its_name_only_if_it_is_still_that_network() -> None:
    base = zoo.spec("cifar_resnet20")
    assert isinstance(base, NetSpec)
    assert base.override(num_classes=100, in_channels=1).name == "cifar_resnet20"
    assert base.override(mix=Scale(0.5, 1)).name == ""
    assert base.override(mix=Scale(0.5, 1), name="halved").name == "halved"


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="gives a field twice"):
        zoo.spec("resnet18(shortcut=A, shortcut=C)")


def test_a_network_is_built_under_a_name_of_ones_own() -> None:
    built = zoo.build("cifar_resnet20", name="mine", num_classes=7, seed=0).spec
    assert (built.name, built.num_classes) == ("mine", 7)
    assert built == zoo.spec("cifar_resnet20", num_classes=7)
