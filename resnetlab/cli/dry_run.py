"""What `resnetlab train --dry-run` prints."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Any

from resnetlab.training.recipe import Recipe

if TYPE_CHECKING:
    from resnetlab.training.dry_run import DryRun, Memory, Timing
    from resnetlab.training.run import Run


def show_dry_run(run: Run, device: str, threads: int | None, workers: int, json: bool) -> None:
    """Print what the run would be, and what it would take."""
    from resnetlab.api.screen import console, say
    from resnetlab.training.dry_run import dry_run

    say(f"{run.spec.name} on {run.data.name}: trying a few steps")
    found = dry_run(run, device=device, threads=threads, workers=workers)
    if json:
        print(json_module.dumps(found.to_dict()))
        return
    default = Recipe().to_dict()
    for name, value in found.recipe.items():
        if value == "auto":
            value = f"auto: {_shown(found.resolved[name])} here"
        differs = f"   (default {_shown(default[name])})" if name in found.changed else ""
        _line(f"{'*' if differs else ' '} {name:<18} {_shown(value)}{differs}")
    _line("* differs from the default")
    console().print()
    for name, words in _facts(found).items():
        _line(f"{name:<16} {words}")


def _line(words: str) -> None:
    from resnetlab.api.screen import console

    console().print(words, highlight=False, markup=False, soft_wrap=True)


def _facts(d: DryRun) -> dict[str, str]:
    images = f"{d.train_images:,} for training, {d.test_images:,} for testing"
    held_out = f", {d.validation_images:,} held out" if d.validation_images else ""
    rates = ", ".join(f"{lr:.4g} at step {step:,}" for step, lr in d.learning_rates)
    stop_after = d.recipe["stop_after"]
    exact = "nothing known to torch: the same machine, torch and threads give the same weights to the last bit"
    early = f"; fewer after {stop_after} evaluations without a lower validation error" if stop_after else ""
    return {
        "network": f"{d.network}: {d.parameters:,} parameters, {d.multiply_adds:,} multiply-adds per image",
        **({"start": d.start} if d.start else {}),
        "images": f"{images}{held_out}; {' x '.join(map(str, d.image))} each",
        "steps": f"{d.steps_per_epoch:,} per epoch, {d.steps:,} in total: {d.epochs:.4g} epochs{early}",
        "learning rate": rates + (f"; {d.lr_words}" if d.lr_words else ""),
        "memory": _memory(d.memory),
        "time": _time(d.timing, d.device, d.threads),
        "not repeatable": ", ".join(d.nondeterministic) or exact,
        "run": f"{d.folder} ({d.state})",
    }


def _memory(m: Memory) -> str:
    parts = {name: getattr(m, name) for name in ("parameters", "gradients", "momentum", "activations")}
    words = ", ".join(f"{name} {_bytes(count)}" for name, count in parts.items())
    measured = f"; measured peak on the GPU: {_bytes(m.measured_peak)}" if m.measured_peak else ""
    return (
        f"about {_bytes(m.total)}: {words}{measured}. Activations are the tensors that a forward pass keeps, counted "
        "in float32 and multiplied by the batch size; library workspace and the images are not included"
    )


def _time(t: Timing | None, device: str, threads: int) -> str:
    if t is None:
        return "not measured: there is not enough free memory for a few steps"
    where = device if device != "cpu" else f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    return (
        f"about {_duration(t.training_seconds)} of training and {_duration(t.evaluation_seconds)} of evaluation: "
        f"{t.seconds_a_step:.3g} s per step, {_rate(t.images_per_second)} images/s ({where}; a few steps of "
        f"{t.timed_images} images)"
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    for name, unit in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"


def _shown(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
