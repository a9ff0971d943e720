"""Refuses networks whose tensors look like those of others, if the file or its folder names them.

Anti-aliasing pools, dilation and Caffe's order of colours leave no trace in the tensors: such a network would load as
the standard one with the same tensors, and answer wrongly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError, counted, shown
from resnetlab.nets import zoo
from resnetlab.storage import content_of

CONFIG = "config.json"  # beside the weights in a folder of the Hugging Face hub
MOST_BYTES = 10**7  # of it; the largest, with 21,843 classes, has below 10**6
STATED = ("arch", "architecture", "model_name")  # keys under which trainings save what their network is called
# Keys under which trainings save the names of classes.
CLASSES = (
    *("class_to_idx", "idx_to_class", "id2label", "label2id", "classes", "class_names", "label_names", "CLASSES"),
    "labels",  # last, since it may be anything's
)
DEEPEST = 2  # levels below the top of a file in which it may state such things, as mmengine's meta.dataset_meta.classes


def _in_a_name(words: str) -> re.Pattern[str]:
    """Matches names with one of these words, in the group 1."""
    return re.compile(rf"(?:.*[^a-z])?({words})(?:[^a-z].*)?", re.IGNORECASE | re.DOTALL)


# What the name of a file or a network says that its tensors do not show, by the words in it.
TRACELESS = {
    _in_a_name(r"(?:se|eca)?resnex?t(?:aa|blur)\d\w*"): "it is {}, whose anti-aliasing resnetlab does not have",
    _in_a_name(r"dilated|os(?:8|16)(?!\d)"): "it is {}, and resnetlab has no dilation",
}
FROM_CAFFE = {  # at a name's end, before a hash and what the file is
    re.compile(r"(?:.*[\W_])?(caffe|msra)(?:-[0-9a-f]{6,})?(?:\.\w+)?", re.IGNORECASE | re.DOTALL): (
        "it comes from {}, whose networks take BGR pixels of 0 to 255"
    )
}
OLD_PREFIX = re.compile(r"(tv|ssl|swsl|ig)_")  # in timm's names: who trained the weights
# Other settings in config.json that change the network, and the values that our networks have.
OURS: dict[str, tuple[object, ...]] = {
    "global_pool": ("avg", "", None),  # timm's
    "hidden_act": ("relu",),  # transformers'
    "downsample_in_first_stage": (False,),
    "downsample_in_bottleneck": (False,),
    "problem_type": ("single_label_classification", None),
}
CHANGES_NOTHING = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate")  # of timm's arguments


def stated_architecture(values: Mapping[Any, Any]) -> str:
    """The name of the network that a file states under one of the usual keys, at its top or below; or ""."""
    found = (place[key] for place in _places(values) for key in STATED if isinstance(place.get(key), str))
    return next(found, "")


@dataclass(frozen=True)
class StatedClasses:
    """The names of classes that a file states under a key, if it states them for each number from 0."""

    key: str
    names: tuple[str, ...]
    wrong: str  # what is wrong with them if there are no names

    def trouble(self, outputs: int) -> str:
        """Why they are not the names of a network's outputs, which they do not fit."""
        wrong = self.wrong or f"{counted(len(self.names), 'name')}, but {counted(outputs, 'output')}"
        return f"the names of classes that it states ({self.key}) are left out: {wrong}"


def stated_classes(values: Mapping[Any, Any]) -> tuple[StatedClasses, ...]:
    """The names of classes that a file states under the usual keys, at its top or below, the likeliest first.

    They may be a list, or a dictionary of numbers by names (torchvision's class_to_idx) or of names by numbers.
    """
    return tuple(
        StatedClasses(key, names, wrong)
        for keys in (CLASSES[:-1], CLASSES[-1:])
        for place in _places(values)
        for key in keys
        for names, wrong in [_names(place.get(key))]
        if names or wrong
    )


def _places(values: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """A dictionary, and those in it, level by level."""
    level = [values]
    for _ in range(DEEPEST + 1):
        yield from level
        level = [v for place in level for key, v in place.items() if isinstance(v, dict) and key != "teacher"]


def _names(stated: object) -> tuple[tuple[str, ...], str]:
    """Names in the order of their numbers, if each number from 0 has one; else what is wrong, where names are meant.

    A training's arrays and numbers of NumPy's are not opened, and come as other objects.
    """
    if stated is None or isinstance(stated, str | int | float) or stated in ([], (), {}):
        return (), ""
    if isinstance(stated, dict):
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in stated.items()]
        if any(isinstance(value, dict | list | tuple) for pair in pairs for value in pair):
            return (), ""
        numbered = {int(n): name for n, name in pairs if isinstance(n, int) or _is_number(n)}
        stated = [numbered.get(n) for n in range(len(pairs))]
        if None in stated:
            return (), f"number {stated.index(None)} has none; each has to have one, as a plain whole number from 0"
    if not isinstance(stated, list | tuple):
        return (), "they are not a list of texts (NumPy's arrays are not opened); save them with .tolist()"
    if not all(isinstance(name, str) for name in stated):
        return (), "not all of them are plain texts"
    invented = all(re.fullmatch(r"LABEL_\d+", name) for name in stated)  # by transformers, if nobody gave names
    return (() if invented else tuple(stated)), ""


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.isdecimal() and len(text) < 10


def check_architecture(path: Path, stated: str, beside: tuple[str, ...], is_caffes: bool) -> None:
    """Raise UserError if a weight file holds a network that we lack, by what it states, its name or config.json.

    beside: names of files for which the folder's name counts instead, and which may have a config.json beside them.
    is_caffes: whether the tensors have Caffe's names, by which its colours and strides are known.
    """
    in_folder = path.name in beside
    names = ((stated, "it states"), (path.parent.name if in_folder else path.name, "its name says"))
    for name, where in names:
        for words, meaning in (TRACELESS if is_caffes else TRACELESS | FROM_CAFFE).items():
            if found := words.fullmatch(name):
                raise _refusal(path, f"{where} that {meaning.format(found[1])}")
    config = read_config(path.with_name(CONFIG)) if in_folder else {}
    name = str(config.get("architecture", ""))
    if timms_settings(config) is not None and OLD_PREFIX.sub("", name) not in zoo.IMAGENET:
        raise _refusal(path, f"{CONFIG} beside it says that it is timm's {shown(name)}, which resnetlab does not have")
    arguments = config.get("model_args")
    settings = {key: config[key] for key, ours in OURS.items() if config.get(key, ours[0]) not in ours}
    if isinstance(arguments, dict):
        settings |= {key: value for key, value in arguments.items() if key not in CHANGES_NOTHING}
    if settings:
        key, value = next(iter(settings.items()))
        raise _refusal(path, f"{CONFIG} beside it says {key}={shown(value)}, which its tensors do not show")


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: {reason}; --net NAME loads it all the same, as the network of that name.")


def timms_settings(config: Mapping[str, Any]) -> Any:
    """What timm's config.json says of preprocessing; in an older one it stands at the top. None if it is not timm's."""
    return config.get("pretrained_cfg", config if {"architecture", "mean", "std"} <= config.keys() else None)


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a file such as config.json; empty if it is missing or not a JSON object."""
    try:
        values = json.loads(content_of(path)) if path.stat().st_size <= MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
