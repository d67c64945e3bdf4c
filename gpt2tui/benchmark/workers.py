"""Each candidate in a process of its own, taking turns: A B A B.

So the peak memory is that of one candidate, a change of torch's settings does not reach another, a crash is a line in
the report, and a machine that slows down slows all candidates.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from typing import Any

from gpt2tui.benchmark.job import CandidateResult, Job
from gpt2tui.errors import first_line
from gpt2tui.system.host_memory import keep_freed_memory

FEWEST_ROUNDS = 3
SECONDS_TO_END = 5.0
ROUNDS = 8  # fewer where steps are slow


def take_turns(jobs: Sequence[Job], seconds: float, report: Callable[[str], None]) -> dict[str, CandidateResult]:
    """Runs the jobs side by side, each measured for about `seconds` and three rounds at least; by candidate."""
    outcomes = {job.candidate: CandidateResult() for job in jobs}
    with contextlib.ExitStack() as stack:
        workers = {}
        for job in jobs:
            workers[job.candidate] = _Worker(job)
            stack.callback(workers[job.candidate].end)
        for name, worker in workers.items():
            outcomes[name].facts, outcomes[name].failed = worker.receive()
            report(f"  {name} " + ("is warmed up" if outcomes[name].failed is None else "failed"))
        started, rounds = time.perf_counter(), 0
        while going := [name for name in workers if outcomes[name].failed is None]:
            if rounds >= FEWEST_ROUNDS and time.perf_counter() - started >= seconds * len(going):
                break
            rounds += 1
            for name in going:
                measured, outcomes[name].failed = workers[name].ask(seconds / ROUNDS)
                outcomes[name].rounds += [measured] if measured else []
    return outcomes


class _Worker:
    """A child process with one candidate."""

    def __init__(self, job: Job) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=work, args=(theirs, job), daemon=True)
        resource_tracker.ensure_running()  # started here, because starting it unblocks the signal
        # The child inherits the mask: Ctrl-C is handled by this process, after the mask is restored.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def ask(self, seconds: float) -> Any:
        """Requests a round of this length; returns what `receive` does."""
        with contextlib.suppress(OSError):  # it has died, which `receive` reports
            self._connection.send(seconds)
        return self.receive()

    def receive(self) -> Any:
        """(the next answer, None), or ({}, the reason why there is none)."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            killed = self._process.exitcode == -9
            why = ", which is what a system without free memory does to one" if killed else ""
            return {}, f"its process ended with exit code {self._process.exitcode}{why}"

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.terminate()
        self._process.join(SECONDS_TO_END)
        self._process.kill()
        self._process.join()
        self._connection.close()


def work(connection: Any, job: Job) -> None:
    """The main function of a worker: prepares its candidate, then answers each number of seconds with a round."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())  # so that the compiler's semaphores are released
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # other libraries print; errors are sent through the connection
        os.dup2(nowhere, stream)
    if job.candidate == "gpt2tui" and job.part == "train":
        keep_freed_memory()  # as a run does
    try:
        from gpt2tui.benchmark.generation import generation_candidate
        from gpt2tui.benchmark.training import training_candidate

        facts, work_for = training_candidate(job) if job.part == "train" else generation_candidate(job)
        connection.send((facts, None))
        while True:
            connection.send((work_for(connection.recv()), None))
    except EOFError:
        return  # the parent has ended
    except Exception as error:  # libraries raise exceptions of any type
        connection.send(({}, in_one_line(error)))


def in_one_line(error: Exception) -> str:
    """The error, and what to do where that is known."""
    from gpt2tui.device import is_out_of_memory

    if is_out_of_memory(error):
        return "out of memory; lower training.batch_size"
    return f"{type(error).__name__}: {first_line(error)[:300]}"
