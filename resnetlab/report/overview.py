"""The overview of the report: the brief's questions, and which studies answer each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resnetlab.studies.frame.text import Both, Catalogue

TEXT = Catalogue(Path(__file__).with_name("text.toml"))


@dataclass(frozen=True)
class Question:
    """A question, what has been said to it, and the studies that measure it, the decisive one first."""

    name: Both
    said: Both
    studies: tuple[str, ...]


QUESTIONS = (
    Question(TEXT("questions.gradients.name"), TEXT("questions.gradients.said"), ("shattered", "signal")),
    Question(TEXT("questions.reaction.name"), TEXT("questions.reaction.said"), ("sensitivity", "responses")),
    Question(TEXT("questions.identity.name"), TEXT("questions.identity.said"), ("identity", "degradation")),
    Question(TEXT("questions.carry.name"), TEXT("questions.carry.said"), ("carry", "mixing")),
    Question(TEXT("questions.scaling.name"), TEXT("questions.scaling.said"), ("scaling", "lesion")),
)
