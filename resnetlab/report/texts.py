"""What pages of studies say beside the records, in English and Chinese."""

from __future__ import annotations

from pathlib import Path

from resnetlab.studies.frame.text import Catalogue

TEXT = Catalogue(Path(__file__).with_name("text.toml"))
