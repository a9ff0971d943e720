"""Python for tests that start many processes: each is forked from one that has imported what most of them import.

    python forking.py serve ADDRESS                       prints a line when it is ready, ends with its standard input
    python -IS forking.py run ADDRESS -m resnetlab ...    as python -m resnetlab ..., or -c CODE ..., or FILE ...

What is run has the environment, folder, standard streams and exit status of the process that asks for it, gets its
signals, and is killed with it. It lacks what the interpreter does at its start (PYTHON* variables, the locale), the
imports, and the process group: tests of these, and of killed groups, start a process of their own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from types import FrameType
from typing import NoReturn

STREAMS = (0, 1, 2)
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def run(address: str, *arguments: str) -> NoReturn:
    """Have the arguments of a python run; end as it ends."""
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server, server.makefile("rb") as answers:
        server.connect(address)
        socket.send_fds(server, [b"\n"], STREAMS)
        server.sendall(json.dumps(asked).encode() + b"\n")
        child = int(answers.readline())

        def pass_on(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

        for number in PASSED_ON:
            signal.signal(number, pass_on)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in STREAMS:  # the other end of a pipe sees it closed when the child closes it
            os.dup2(nothing, stream)
        status = os.waitstatus_to_exitcode(int(answers.readline()))
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(address: str) -> None:
    """Import, and fork for each connection until the standard input ends."""
    import torch._dynamo  # as a first optimiser does
    import torch.distributed  # noqa: F401

    import resnetlab.api.train
    import resnetlab.cli.app
    import resnetlab.training.loop  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        gc.collect()
        gc.freeze()  # or each child copies all of its memory when it collects
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                keep(connection)
                return
            connection.close()
            with contextlib.suppress(ChildProcessError):  # leave no zombies
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def keep(connection: socket.socket) -> None:
    """Fork what was asked for, and tell its status; kill it if nobody waits for that any more. Returns in the child."""
    _, streams, _, _ = socket.recv_fds(connection, 1, len(STREAMS))
    with connection.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    child = os.fork()
    if not child:
        connection.close()
        become(streams, **asked)
        return
    for stream in streams:
        os.close(stream)

    def tell(number: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(b"%d\n" % number)

    def follow() -> None:
        if not connection.recv(1):
            for kill in (os.killpg, os.kill):  # with all that it has started, if it is so far
                with contextlib.suppress(ProcessLookupError):
                    kill(child, signal.SIGKILL)

    tell(child)
    threading.Thread(target=follow, daemon=True).start()
    tell(os.waitpid(child, 0)[1])
    os._exit(0)


def become(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Make of this process what `python ARGUMENTS` would be."""
    import runpy
    from types import ModuleType

    os.setpgrp()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    for stream, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        buffering = 1 if os.isatty(stream) or name == "stderr" else -1
        setattr(sys, name, os.fdopen(stream, mode, buffering, encoding="utf-8", closefd=False))
    what, *rest = arguments
    if what == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif what == "-m":
        module, *rest = rest
        sys.argv = ["-m", *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [what, *rest]
        sys.path.insert(0, os.path.dirname(what))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    {"run": run, "serve": serve}[sys.argv[1]](*sys.argv[2:])
