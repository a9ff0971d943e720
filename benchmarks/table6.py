"""He 2015, Table 6, by the recipe cifar_fast: the test errors of finished runs over seeds, beside the paper's.

python -m benchmarks.table6 RUNS [--json] [--record FILE]

RUNS is a folder of runs, one for each network and seed:

    resnetlab train cifar_fast --data cifar10:DIR --net cifar_resnet56 --seed 0 --runs RUNS

Runs of another recipe, on other data or with images held out are left out, and so are unfinished ones; the weights are
not needed, so results/table6-runs gives results/table6.json. The error is that of the last epoch, one view of each test
image. The paper's 6.43 % of 110 layers is the best of five runs, whose mean is 6.61 ± 0.16; the other networks ran
once.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import folder, record_path, run
from resnetlab.errors import UserError
from resnetlab.measuring.reported import REPORTED
from resnetlab.nets.zoo import spec
from resnetlab.run_files import read_epochs, read_result, read_settings
from resnetlab.storage import Damaged
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.runs import list_runs

OWN = ("net", "seed", "data")  # fields in which the runs of a table may differ
RECIPE = "cifar_fast"
SOURCE = "He 2015, Table 6; of 110 layers the best of five runs, whose mean is 6.61 ± 0.16"


@dataclass(frozen=True)
class Row:
    """A network: errors in % by seed, the mean and standard deviation of test errors, and what its runs took."""

    net: str
    layers: int
    paper: float | None  # test error in %
    errors: dict[int, float]
    train_errors: dict[int, float]  # in % of the last epoch, on its augmented images
    mean: float
    deviation: float | None  # None for one seed
    epochs: int
    hours: list[float]  # of each run
    machines: list[str]  # processor, instruction sets and threads, of all runs

    def __str__(self) -> str:
        spread = f" ± {self.deviation:.2f}" if self.deviation is not None else ""
        paper = f"{self.paper:.2f} %" if self.paper is not None else "not printed"
        hours = " to ".join(dict.fromkeys(f"{hours:.1f}" for hours in (min(self.hours), max(self.hours))))
        seeds = f"{len(self.errors)} seed{'s' * (len(self.errors) != 1)}"
        trained = f"training error {statistics.mean(self.train_errors.values()):.2f} %, {self.epochs} epochs"
        return f"{self.net}: {self.mean:.2f}{spread} % ({seeds}), paper {paper}; {trained}, {hours} hours"


def rows(runs: Path, wanted: Recipe, data: str) -> list[Row]:
    """A row for each network that has finished runs of the recipe on that data, plain nets first, then by depth.

    Raises UserError for a folder that can't be read, and for two runs of one network and seed.
    """
    found: dict[str, list[Path]] = {}
    for one in list_runs(runs)[0]:
        if one.net and one.data == data and _is_finished(one.folder) and _is_by(one.folder, wanted):
            found.setdefault(one.net, []).append(one.folder)
    return sorted(
        (_row(net, folders) for net, folders in found.items()), key=lambda row: ("res" in row.net, row.layers)
    )


def _is_finished(run: Path) -> bool:
    """Whether the run has a result, with all of its epochs; the weights, which no record keeps, are not needed."""
    try:
        return bool(read_epochs(run)) and read_result(run) is not None
    except Damaged:
        return False


def _is_by(run: Path, wanted: Recipe) -> bool:
    """Whether the run's recipe is that one, but for what is the run's own."""
    own = {name: getattr(wanted, name) for name in OWN}
    settings = read_settings(run)["recipe"]
    given = {name: value for name, value in settings.items() if name in wanted.to_dict()}
    return Recipe().override(**given | own).to_dict() == wanted.to_dict()


def _row(net: str, runs: Iterable[Path]) -> Row:
    settings = {run: read_settings(run) for run in runs}
    results = {run: result for run in settings if (result := read_result(run)) is not None}
    by_seed: dict[int, Path] = {}
    for one in results:
        if (other := by_seed.setdefault(int(str(settings[one]["recipe"]["seed"])), one)) is not one:
            raise UserError(f"{one}: of the same network and seed as {other}; move one of them away.")
    errors = {seed: results[run]["test_error"] for seed, run in sorted(by_seed.items())}
    known = REPORTED.get(net)
    return Row(
        net,
        spec(net).depth,
        known.error if known else None,
        errors,
        {seed: results[run]["train_error"] for seed, run in sorted(by_seed.items())},
        statistics.mean(errors.values()),
        statistics.stdev(errors.values()) if len(errors) > 1 else None,
        max(result["epochs"] for result in results.values()),
        [round(result["seconds"] / 3600, 2) for result in results.values()],
        sorted({_machine(each) for each in settings.values()}),
    )


def _machine(settings: Any) -> str:
    machine = settings.get("machine", {})
    return f"{machine.get('processor')}, {machine.get('instruction_sets')}, {settings.get('threads')} threads"


def main() -> None:
    """Read the runs; print the table, and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=folder, help="the folder of the runs")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--record", type=record_path, help="write the rows to this JSON file")
    chosen = parser.parse_args()
    found = rows(chosen.runs, recipe(RECIPE), "cifar10")
    if not found:
        raise UserError(f"{chosen.runs}: no finished run of {RECIPE} on all of CIFAR-10's training images.")
    record = {"recipe": RECIPE, "source": SOURCE, "rows": [asdict(row) for row in found]}
    if chosen.record:
        chosen.record.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["rows"]) if chosen.json else "\n".join(map(str, found)))


if __name__ == "__main__":
    run(main)
