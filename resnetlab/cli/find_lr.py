"""What `resnetlab train --find-lr` prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resnetlab.cli.options import print_json
from resnetlab.errors import UserError

if TYPE_CHECKING:
    from resnetlab.training.find_lr import LrTest
    from resnetlab.training.launch import Launch

OUT = Path("find-lr.svg")


def show_find_lr(job: Launch, json: bool) -> None:
    """Try growing rates, draw their losses and print the suggestion. Raises UserError for data that is not there."""
    from resnetlab.api.screen import counting, say
    from resnetlab.studies.figures.curves import check_out, lr_test_figure, save_curves
    from resnetlab.training.find_lr import find_lr

    if job.stand_in:
        raise UserError(job.stand_in.missing)
    check_out(OUT, "move it away")
    say(f"{job.run.spec.name} on {job.run.data.title}: trying growing learning rates")
    with counting("trying learning rates") as count:
        found = find_lr(job.run, device=job.device, threads=job.threads, workers=job.workers, progress=count)
    try:
        save_curves(lr_test_figure(found, job.run.spec.name), OUT, "move it away")
    except UserError:
        _show(found, json, written=False)  # what was found is worth more than its picture
        raise
    _show(found, json, written=True)


def _show(found: LrTest, json: bool, *, written: bool) -> None:
    if json:
        print_json(found.to_dict() | {"written": str(OUT) if written else None})
        return
    if written:
        print(f"{OUT}: the loss at {len(found.rates)} learning rates")
    if found.suggestion is None or found.best is None:
        print("no suggestion: the loss did not fall at any of them; check the data and the recipe")
        return
    end = f", above {found.diverged:.2g} the loss diverges" if found.diverged else ""
    print(f"suggested: --lr {found.suggestion:g} (the loss is lowest at {found.best:.2g}{end})")
