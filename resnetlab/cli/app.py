"""The command `resnetlab` with its subcommands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts

import resnetlab
from resnetlab.cli import convert, data, evaluate, export, features, networks, runs, serve, study, train, use
from resnetlab.paths import expanded


def _converted(kind: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """As cyclopts converts, with the home folder in place of "~" in every option that is a path."""
    found = cyclopts.convert(kind, tokens)
    return expanded(tokens[0].value) if isinstance(found, Path) else found


app = cyclopts.App(
    name="resnetlab",
    default_parameter=cyclopts.Parameter(converter=_converted),
    version=resnetlab.__version__,
    help="Run the networks, recipes, figures and claims of the ResNet papers.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # main says how to go on
)
app.command(networks.nets)
app.command(networks.describe)
app.command(networks.compare)
app.command(train.train)
app.command(evaluate.evaluate, name="eval")
app.command(use.predict)
app.command(use.explain)
app.command(features.features)
app.command(export.export)
app.command(serve.serve)
app.command(convert.convert)
app.command(runs.app)
app.command(study.app)
app.command(data.app)


@app.command
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], cyclopts.Parameter(help="The shell: bash, zsh or fish.")], /
) -> None:
    """Print a script that completes commands and options in your shell. Save it as shown; nothing is installed for you.

    bash: resnetlab completion bash > ~/.local/share/bash-completion/completions/resnetlab
    zsh:  resnetlab completion zsh > DIR/_resnetlab, where DIR is a folder of $fpath
    fish: resnetlab completion fish > ~/.config/fish/completions/resnetlab.fish
    """
    print(app.generate_completion(prog_name="resnetlab", shell=shell))
