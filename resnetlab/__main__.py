"""The command `resnetlab`, and `python -m resnetlab`."""

import signal
import sys


def main() -> int:
    """Run the command; return its exit code. Ctrl-C while it is imported ends the process without a word."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as in the background
    if own:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from resnetlab.cli.main import main as command

    if own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return command()


if __name__ == "__main__":
    sys.exit(main())
