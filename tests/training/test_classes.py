"""Classes of data and of networks: matched by name, as one is told, or refused."""

from __future__ import annotations

import unicodedata

import pytest

from resnetlab.errors import UserError
from resnetlab.training.classes import SAME, Matched, common_classes, match_classes, read_given

E_ACUTE = {form: unicodedata.normalize(form, "\u00e9land") for form in ("NFC", "NFD")}


def match(trained: list[str] | None, classes: list[str], **given: str) -> Matched:
    return match_classes("RUN", trained, "folder", classes, given)


def test_the_same_names_are_not_worth_a_word() -> None:
    found = match(["cat", "dog"], ["cat", "dog"])
    assert (found.classes, found.outputs, found.words, found.taken) == (("cat", "dog"), (0, 1), SAME, {})
    assert found.one_to_one


@pytest.mark.parametrize(
    ("trained", "classes", "outputs", "words"),
    [
        (["dog", "cat"], ["cat", "dog"], (1, 0), "in a different order than in training"),
        (["cat", "dog", "fox"], ["cat", "fox"], (0, 2), "2 of the network's 3, any of which may be predicted"),
        (["Cat", "dog"], ["cat", "DOG"], (0, 1), "under other names: cat is Cat, DOG is dog"),
        (["golden_retriever", "b"], ["Golden Retriever", "b"], (0, 1), "Golden Retriever is golden_retriever"),
        ([E_ACUTE["NFC"], "b"], ["b", E_ACUTE["NFD"]], (1, 0), "in a different order than in training; under other"),
        (["tench", "goldfish"], ["n01440764", "n01443537"], (0, 1), "n01440764 is tench, n01443537 is goldfish"),
        (["stra\u00dfe", "b"], ["STRASSE", "b"], (0, 1), "STRASSE is stra\u00dfe"),
        (["cat", "cat", "dog"], ["cat", "dog"], (0, 2), "2 of the network's 3"),  # of equal names the first
        (["cat", "Cat", "dog"], ["Cat", "cat"], (1, 0), "2 of the network's 3"),  # what is written alike goes first
        (["Cat", "cat", "dog"], ["cat", "CAT"], (1, 0), "under other names: CAT is Cat"),  # and is taken then
    ],
)
def test_names_are_matched_whatever_their_order(
    trained: list[str], classes: list[str], outputs: tuple[int, ...], words: str
) -> None:
    found = match(trained, classes)
    assert found.outputs == outputs
    assert words in found.words
    assert found.taken == {c: trained[i] for c, i in zip(classes, outputs, strict=True) if c != trained[i]}


@pytest.mark.parametrize(
    ("trained", "classes", "words"),
    [
        (
            ["cat", "dog"],
            ["hund", "katze"],
            "trained on the classes cat, dog; folder has hund, katze, which are not among them",
        ),
        (
            ["cat", "dog"],
            ["cat", "wolf"],
            "folder has wolf, which is not among them. .* --classes wolf=NAME_IN_THE_TRAINING",
        ),
        (["cat", "dog"], ["cat", "new one"], "--classes 'new one'=NAME_IN_THE_TRAINING"),
        (["cat", "dog"], ["cat", "dog", "dogs"], "dogs, which is not among them. Did you mean dog?"),
        (["cat", "dog"], ["CAT", "Cat", "dog"], "CAT, Cat, which are not"),  # one of them at most is meant
        (["cat", "CAT", "dog"], ["Cat", "dog"], "Cat, which is not"),  # either may be meant
        (["golden retriever", "b"], ["goldenretriever", "b"], "goldenretriever, which is not"),
        (["zero", "one"], ["0", "1"], "0, 1, which are not"),
        (
            [f"c{i}" for i in range(50)],
            [f"d{i}" for i in range(50)],
            "c4 and 45 more; .* d4 and 45 more, which are not",
        ),
    ],
)
def test_other_classes_are_refused(trained: list[str], classes: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        match(trained, classes)
    assert len(str(caught.value)) < 400


def test_what_one_is_told() -> None:
    found = match(["cat", "dog"], ["hund", "katze"], hund="dog", katze="cat")
    assert (found.outputs, found.taken) == ((1, 0), {"hund": "dog", "katze": "cat"})
    assert found.words.endswith("under other names: hund is dog, katze is cat")
    coarse = match(["cat", "dog"], ["cat", "husky", "poodle"], husky="dog", poodle="dog")
    assert (coarse.outputs, coarse.one_to_one) == ((0, 1, 1), False)
    swapped = match(["cat", "dog"], ["cat", "dog"], cat="dog", dog="cat")  # labels that were mixed up
    assert swapped.outputs == (1, 0)
    with pytest.raises(UserError, match="classes: 'hunt' is not a class of folder. Did you mean hund?"):
        match(["cat", "dog"], ["hund", "katze"], hunt="dog")
    with pytest.raises(UserError, match="classes: RUN has no class 'dogs'. Did you mean dog?"):
        match(["cat", "dog"], ["hund", "katze"], hund="dogs")


def test_without_names_the_order_is_what_it_is() -> None:
    found = match(None, ["cat", "dog"])
    assert (found.outputs, found.words) == ((0, 1), "by order, since the file has no class names")
    with pytest.raises(UserError, match="RUN: has no class names to map with --classes"):
        match(None, ["cat", "dog"], cat="dog")


def test_how_it_is_written_on_the_command_line() -> None:
    assert read_given(["hund=dog,katze=cat", "maus=mouse"]) == {"hund": "dog", "katze": "cat", "maus": "mouse"}
    assert read_given(['"hat, red=hat",b=c', "a=b=c"]) == {"hat, red": "hat", "b": "c", "a": "b=c"}
    assert read_given(["hund=dog\r\nkatze=cat\n"]) == {"hund": "dog", "katze": "cat"}, "of a file, $(cat FILE)"
    assert read_given(["hund=dog, katze=cat"]) == {"hund": "dog", "katze": "cat"}
    assert read_given([]) == {}
    for wrong in ("hund", "=dog", "hund=", "a=b,c"):
        with pytest.raises(UserError, match="write NAME_IN_THE_DATA=NAME_IN_THE_TRAINING"):
            read_given([wrong])
    with pytest.raises(UserError, match="'a' is mapped to both 'b' and 'c'"):
        read_given(["a=b", "a=c"])


def test_an_ensemble_answers_in_one_order() -> None:
    classes = ("cat", "dog")
    one, other = match(["cat", "dog"], [*classes]), match(["dog", "cat"], [*classes])
    nameless = match(None, [*classes])
    every = [("a", one), ("b", other), ("c", nameless)]
    assert common_classes(every, classes) == (classes, [0, 1], [None, [1, 0], None])
    more, turned = match(["cat", "dog", "fox"], [*classes]), match(["fox", "dog", "cat"], [*classes])
    assert common_classes([("a", more), ("b", turned)], classes) == (
        ("cat", "dog", "fox"),
        [0, 1],
        [None, [2, 1, 0]],
    )
    for second in (one, nameless, match(["cat", "dog", "emu"], [*classes])):
        with pytest.raises(UserError, match="a and b: an ensemble needs networks with the same classes; these have 3"):
            common_classes([("a", more), ("b", second)], classes)
    coarse = match(["cat", "dog", "fox"], ["hund", "cat"], hund="dog")
    wrong = match(["cat", "dog", "fox"], ["hund", "cat"], hund="fox")
    with pytest.raises(UserError, match="can't be matched by name"):
        common_classes([("a", coarse), ("b", wrong)], ("hund", "cat"))


def test_several_names_for_one_output_are_one_class_of_the_network() -> None:
    given = {"hund": "cat", "katze": "cat"}
    found = match_classes("RUN", ("cat", "dog"), "folder", ("hund", "katze"), given)
    assert found.words.startswith("1 of the network's 2, any of which may be predicted")


def test_a_name_of_the_training_that_is_taken_for_another_is_told(caplog: pytest.LogCaptureFixture) -> None:
    match_classes("RUN", ("a", "b"), "folder", ("a", "b"), {"a": "b", "b": "b"})
    assert caplog.messages == ["classes: a is mapped to b, although the training has a class of that name."]


def test_two_outputs_of_one_name_stay_two() -> None:
    """ImageNet has two cranes, a bird and a machine: each output keeps its own score."""
    cranes = match_classes("a", ("crane", "bird", "crane"), "data", ("bird", "crane"), {})
    assert cranes.outputs == (1, 0)
    assert common_classes([("a", cranes)], ("bird", "crane")) == (("crane", "bird", "crane"), [1, 0], [None])
    assert common_classes([("a", cranes), ("b", cranes)], ("bird", "crane"))[2] == [None, None]
    turned = match_classes("b", ("bird", "crane", "crane"), "data", ("bird", "crane"), {})
    with pytest.raises(UserError, match="a and b: their classes can't be matched by name"):
        common_classes([("a", cranes), ("b", turned)], ("bird", "crane"))
