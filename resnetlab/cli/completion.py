"""`resnetlab completion`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell: bash, zsh or fish.")], /
) -> None:
    """Print a script that completes commands and options in your shell. Save it as shown; nothing is installed for you.

    bash: resnetlab completion bash > ~/.local/share/bash-completion/completions/resnetlab
    zsh:  resnetlab completion zsh > DIR/_resnetlab, where DIR is a folder of $fpath
    fish: resnetlab completion fish > ~/.config/fish/completions/resnetlab.fish
    """
    from resnetlab.cli.main import app

    print(app.generate_completion(prog_name="resnetlab", shell=shell))
