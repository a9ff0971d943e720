"""What `resnetlab train --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnetlab.cli.options import print_json
from resnetlab.errors import counted
from resnetlab.training.recipe import Recipe

if TYPE_CHECKING:
    from resnetlab.training.dry_run import DryRun, Memory, Timing
    from resnetlab.training.launch import Launch


def show_dry_run(job: Launch, json: bool) -> None:
    """Print the settings of the run, and its cost."""
    from resnetlab.api.screen import console, say
    from resnetlab.training.dry_run import dry_run

    run = job.run
    say(f"{run.spec.name} on {run.data.title}: trying a few steps{' on made-up images' if job.stand_in else ''}")
    options: dict[str, Any] = {"device": job.device, "threads": job.threads, "workers": job.workers}
    found = dry_run(run, stand_in=job.stand_in, ranks=job.distributed.world_size, **options)
    if json:
        print_json(found.to_dict())
        return
    default = Recipe().to_dict()
    for name, value in found.recipe.items():
        if value == "auto":
            value = f"auto: {_shown(found.resolved[name])} here"
        differs = f"   (default {_shown(default.get(name))})" if name in found.changed else ""
        _line(f"{'*' if differs else ' '} {name:<18} {_shown(value)}{differs}")
    _line("* differs from the default")
    console().print()
    for name, words in _facts(found).items():
        _line(f"{name:<16} {words}")


def _line(words: str) -> None:
    from resnetlab.api.screen import console

    console().print(words, soft_wrap=True)


def _facts(d: DryRun) -> dict[str, str]:
    images = f"{_count(d.train_images)} for training, {_count(d.test_images)} for testing"
    held_out = f", {d.validation_images:,} held out" if d.validation_images else ""
    rates = ", ".join(f"{lr:.4g} at step {step:,}" for step, lr in d.learning_rates)
    stop_after = d.recipe["stop_after"]
    exact = "nothing known to torch: the same machine, torch and threads give the same weights to the last bit"
    early = f"; fewer after {counted(stop_after, 'evaluation')} without a lower validation error" if stop_after else ""
    return {
        **({"data": f"not there: {d.missing.rstrip('.')}"} if d.missing else {}),
        **({"unknown": f"without the data, {', '.join(d.unknown)}"} if d.unknown else {}),
        "network": f"{d.network}: {d.parameters:,} parameters, {d.multiply_adds:,} multiply-adds per image",
        **({"start": d.start} if d.start else {}),
        "images": f"{images}{held_out}; {' x '.join(map(str, d.image))} each",
        "steps": _steps(d) + early,
        "learning rate": "; ".join(filter(None, (rates, d.lr_words))),
        "memory": _memory(d.memory, d.recipe),
        "time": _time(d.timing, d.device, d.threads),
        "not repeatable": ", ".join(d.nondeterministic) or exact,
        **({"run": f"{d.folder} ({d.state})"} if d.folder else {}),
    }


def _steps(d: DryRun) -> str:
    if d.steps is None:
        return f"an unknown number; {_epochs(d.recipe['epochs'])}"
    if d.steps_per_epoch is None:
        return f"{d.steps:,} in total"
    return f"{d.steps_per_epoch:,} per epoch, {d.steps:,} in total: {_epochs(d.epochs or 0)}"


def _epochs(count: float) -> str:
    return f"{count:.4g} epoch{'s' * (count != 1)}"


def _count(images: int | None) -> str:
    return "an unknown number" if images is None else f"{images:,}"


def _memory(m: Memory, recipe: dict[str, Any]) -> str:
    parts = {name: getattr(m, name) for name in ("parameters", "average", "gradients", "momentum", "activations")}
    words = ", ".join(f"{name} {_bytes(count)}" for name, count in parts.items() if count or name != "average")
    words += " (fewer with checkpoint_activations)" if recipe["checkpoint_activations"] else ""
    measured = f"; measured peak on the GPU: {_bytes(m.measured_peak)}" if m.measured_peak else ""
    return (
        f"about {_bytes(m.total)}: {words}{measured}. Activations are the tensors that a forward pass keeps, counted "
        "in float32 and multiplied by the images of a forward pass; library workspace and the images are not included"
    )


def _time(t: Timing | None, device: str, threads: int) -> str:
    if t is None:
        return "not measured: there is not enough free memory for a few steps"
    from resnetlab.training.log_lines import duration

    where = device if device != "cpu" else f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    parts = {"training": t.training_seconds, "evaluation": t.evaluation_seconds}
    total = " and ".join(f"{duration(value)} of {name}" for name, value in parts.items() if value is not None)
    speed = f"{t.seconds_a_step:.3g} s per step, {_rate(t.images_per_second)} images/s"
    steps = f"({where}; a few steps of {t.timed_images} images)"
    said = f"about {total}: {speed} {steps}" if total else f"{speed} {steps}"
    if t.busy_cores is None:
        return said
    return f"{said}; other work kept {t.busy_cores:.1f} cores busy meanwhile, without it the run takes less time"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _shown(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
