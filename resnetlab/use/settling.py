"""Settling: a server that runs already finds out in the background which engine is the fastest, and goes on with it.

python -m resnetlab.use.settling reads a Graph, pickled by its own parent, and puts its ONNX file into the cache: that
takes seconds of Python, which in the server's own process would hold up its answers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from resnetlab.errors import UserError
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import Engine, Graph, candidates, fastest, graph_of, is_installed, kept_onnx

COMMAND = (sys.executable, "-m", "resnetlab.use.settling")
NICENESS = 10  # of the process that makes the file: requests come first


@contextlib.contextmanager
def settling(
    classifier: Classifier, batch: int, use: Callable[[Engine], object], told: Callable[[str], object]
) -> Iterator[Callable[[], None]]:
    """A function that starts it; at the end of the block what is not done by then is given up.

    use is called, in a thread, with the engine that `auto` takes for batches of that size; told with lines that say
    which, and why. Where something fails, nothing is used.
    """
    ended = threading.Event()
    making: list[subprocess.Popen[bytes]] = []

    def settle() -> None:
        try:
            graph = graph_of(classifier)
            others = any(is_installed(name) for name in graph.engines[1:])
            if graph.module and others and not _made_elsewhere(graph, making, ended):
                return
            engine = fastest(candidates(graph), graph.shape, batch, lambda line: None if ended.is_set() else told(line))
        except (UserError, OSError, RuntimeError) as error:
            if not ended.is_set():
                told(f"engine: torch in float32; others could not be tried ({error})")
            return
        if not ended.is_set():
            use(engine)

    thread = threading.Thread(target=settle, name="settling", daemon=True)
    try:
        yield thread.start
    finally:
        ended.set()
        for process in making:
            process.kill()
        if thread.ident:
            thread.join()


def _made_elsewhere(graph: Graph, making: list[subprocess.Popen[bytes]], ended: threading.Event) -> bool:
    """Have the graph's ONNX file made by another process, unless it is there; whether it is now."""
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    making.append(process)
    if ended.is_set():
        process.kill()
    _, said = process.communicate(pickle.dumps(graph))
    if process.returncode and not ended.is_set():
        lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise UserError(lines[-1][:200])
    return not process.returncode


def main() -> None:
    """Make the file."""
    os.nice(NICENESS)
    graph = pickle.load(sys.stdin.buffer)
    assert isinstance(graph, Graph)
    kept_onnx(graph)


if __name__ == "__main__":
    main()
