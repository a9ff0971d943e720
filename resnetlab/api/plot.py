"""`resnetlab.plot_runs`: the papers' error curves, as a notebook shows them and as a file."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from resnetlab.api.arguments import PathLike, text_of, texts_of
from resnetlab.api.errors import as_user_errors
from resnetlab.errors import UserError
from resnetlab.paths import expanded
from resnetlab.studies.figures.curves import check_out, error_curves, save_curves
from resnetlab.studies.figures.draw import draw
from resnetlab.studies.figures.figure import Figure
from resnetlab.training.runs import find_run


@dataclass(frozen=True)
class Plot:
    """A figure as data, which a notebook shows as a picture."""

    figure: Figure = field(repr=False)
    runs: tuple[Path, ...] = ()  # the runs that it shows

    @cached_property
    def svg(self) -> str:
        """The picture, which follows the reader's light or dark scheme."""
        mark = zlib.crc32(repr(self.figure).encode())  # keeps the ids of several pictures on a page apart
        return draw(self.figure, f"plot{mark:08x}")

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return f"{self.figure.caption} {', '.join(s.label for p in self.figure.panels for s in p.series)}"

    def save(self, out: PathLike) -> Path:
        """Write an .svg, .png or .pdf file; return its path. A plot that was written there before is replaced.

        Raises UserError for another suffix, if another file is there, or if it can't be written.
        """
        with as_user_errors("runs plot"):
            path = expanded(text_of(out, "out"))
            save_curves(self.figure, path)
            return path


def plot_runs(*runs: PathLike | Sequence[PathLike], out: PathLike | None = None, root: PathLike = "runs") -> Plot:
    """Plot training error (dashed) and test error (bold) by iteration, as in the papers and as `resnetlab runs plot`.

        plain, residual = (resnetlab.train("digits", net=f"cifar_{kind}20") for kind in ("plain", "resnet"))
        resnetlab.plot_runs(plain, residual)

    runs are results of `resnetlab.train`, folders of runs, their names inside the folder root, or hashes, six at
    most. With out the picture is also written to that file.

    Raises UserError for what the command would refuse, with the same line.
    """
    with as_user_errors("runs plot"):
        given = [name for run in runs for name in texts_of(run, "run")]
        where, folder = None if out is None else expanded(text_of(out, "out")), expanded(text_of(root, "root"))
        if not given:
            raise UserError("no run given: name folders of runs, or give what train returned.")
        if where:
            check_out(where)
        folders = tuple(find_run(name, folder) for name in given)
        plot = Plot(error_curves(list(folders)), folders)
        if where:
            plot.save(where)
        return plot
