"""Settling: a running server finds out in the background which engine is the fastest, and switches to it.

python -m resnetlab.use.settling reads a Graph and a batch size, pickled by its own parent, puts the graph's ONNX file
into the cache, measures the engines, and prints, as JSON, which is the fastest. In the server's own process, making the
file would delay answers for seconds, and the slower engines would stay in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from resnetlab.errors import UserError
from resnetlab.machine import give_back_memory
from resnetlab.training.precision import has_fast_bf16
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import Engine, Graph, candidates, fastest, graph_of, is_installed, kept_onnx, made
from resnetlab.use.exported import RUNNERS

COMMAND = (sys.executable, "-P", "-m", "resnetlab.use.settling")  # -P: no module of the working folder
NICENESS = 10  # of the thread that makes the file: requests come first


@dataclass(frozen=True)
class Fastest:
    """The engine that was found, and the lines that say why."""

    name: str
    precision: str
    lines: tuple[str, ...]


@contextlib.contextmanager
def settling(
    classifier: Classifier, batch: int, use: Callable[[Engine], object], told: Callable[[str], object]
) -> Iterator[Callable[[], None]]:
    """A context with a function that starts the search; at the end of the block an unfinished search is abandoned.

    use is called, in a thread, with the engine that `auto` chooses for batches of that size; told with lines that say
    which, and why. If something fails, use is not called.
    """
    ended = threading.Event()
    measuring: list[subprocess.Popen[bytes]] = []

    def settle() -> None:
        try:
            graph = graph_of(classifier)
            if not _has_choice(graph):
                engine, lines = _measured(graph, batch)
            else:
                found = _found_elsewhere(graph, batch, measuring, ended)
                engine, lines = made(graph, found.name, found.precision), found.lines
        except (UserError, OSError, RuntimeError) as error:
            if not ended.is_set():
                told(f"engine: torch in float32; others could not be tried ({error})")
            return
        for line in () if ended.is_set() else lines:
            told(line)
        if not ended.is_set():
            use(engine)
            del graph, engine
            give_back_memory()

    thread = threading.Thread(target=settle, name="settling", daemon=True)
    try:
        yield thread.start
    finally:
        ended.set()
        for process in measuring:
            process.kill()
        if thread.ident:
            thread.join()


def _has_choice(graph: Graph) -> bool:
    """Whether there may be several engines; this imports none of them."""
    found = [name for name in graph.engines if name == "torch" or find_spec(RUNNERS[name].package)]
    return len(found) > 1 or (graph.file is None and has_fast_bf16("cpu"))


def _measured(graph: Graph, batch: int) -> tuple[Engine, tuple[str, ...]]:
    """The fastest engine, and what is said of it."""
    lines: list[str] = []
    return fastest(candidates(graph, lines.append), graph.shape, batch, lines.append), tuple(lines)


def _found_elsewhere(
    graph: Graph, batch: int, measuring: list[subprocess.Popen[bytes]], ended: threading.Event
) -> Fastest:
    """The fastest engine, found by another process. Raises UserError with its last line of output if it fails."""
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C is not for it
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    measuring.append(process)
    if ended.is_set():
        process.kill()
    answer, said = process.communicate(pickle.dumps((graph, batch)))
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise UserError(lines[-1][:200])
    return Fastest(**json.loads(answer))


def _step_back() -> None:
    """Let this thread run when nothing else wants to; not the process, which then would measure what others leave."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _make_file(graph: Graph) -> None:
    """Put the graph's ONNX file into the cache, if an engine needs it; where that fails, `candidates` says why."""
    if graph.module and any(is_installed(name) for name in RUNNERS):
        with ThreadPoolExecutor(1, initializer=_step_back) as executor, contextlib.suppress(UserError):
            executor.submit(kept_onnx, graph).result()


def main() -> None:
    """Measure, and say what is the fastest."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not the answer
    graph, batch = pickle.load(sys.stdin.buffer)
    assert isinstance(graph, Graph)
    _make_file(graph)
    engine, lines = _measured(graph, batch)
    with os.fdopen(answer, "w") as file:
        json.dump(asdict(Fastest(engine.name, engine.precision, lines)), file)


if __name__ == "__main__":
    main()
