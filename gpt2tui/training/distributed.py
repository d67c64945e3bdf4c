"""Several processes that train one run together, started by torchrun: ranks, and what they tell each other.

Rank 0 decides everything: it owns the run folder, the events and the signals' meaning, and tells the others each thing
that all must do. So a decision is taken once, and for the same step on every rank. Tensors on the CPU go through gloo,
those on GPUs through NCCL. The store of torchrun carries what is needed before the ranks are connected, and after one
of them has failed.
"""

import contextlib
import itertools
import json
import os
import platform
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gpt2tui.errors import Gpt2TuiError, ResourceError, UsageError, first_line

Command = Literal["step", "wait", "evaluate", "gather", "end"]
COMMANDS: tuple[Command, ...] = ("step", "wait", "evaluate", "gather", "end")
T = TypeVar("T")
POLL_SECONDS = 0.1
SECONDS_TO_COME = 600.0
SECONDS_TO_NOTICE = 5.0
"""Once a rank has lost the connection, the others lose it within this time, or do not answer any more."""
CONNECTION_ERRORS = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL")
GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Failure:
    """Why a rank has ended: a sentence for the user, and its exit code."""

    rank: int
    message: str
    exit_code: int
    by_itself: bool = False
    """Whether the rank has said so itself, and not another one that has found it gone."""

    def __str__(self) -> str:
        return f"rank {self.rank} {self.message}"


class Ranks:
    """This process among those that train a run. Without arguments it is the only one, and nothing is exchanged."""

    def __init__(
        self, rank: int = 0, world_size: int = 1, store: Store | None = None, processes: Sequence[str] = ()
    ) -> None:
        """`processes` has the id and the machine of each rank's process, as `meet` has found them."""
        self.rank = rank
        self.world_size = world_size
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0")) if world_size > 1 else 0
        self.stopped_by: tuple[int, int] | None = None
        """The rank that got a signal to stop, and the signal's number; known on every rank after `exchange`."""
        self._store = store
        self._processes = processes

    # ---- before the first step

    def assign(self, assignment: dict[str, Any], timeout: float, *, on_gpu: bool) -> None:
        """Rank 0 tells the others what to train; then all are connected. An exchange takes at most `timeout` s."""
        if self._store is None:
            return
        self._store.set("assignment", json.dumps({**assignment, "timeout": timeout, "on_gpu": on_gpu}))
        self._connect(timeout, on_gpu)

    def assignment(self) -> dict[str, Any]:
        """What rank 0 has given `assign`; waits for it without a limit. Raises LostRankError when rank 0 has failed."""
        assert self._store is not None, "a process alone gets no assignment"
        while not self._store.check(["assignment"]):
            if failures := list(self._failures()):
                raise LostRankError(failures[0])
            time.sleep(POLL_SECONDS)
        found: dict[str, Any] = json.loads(self._store.get("assignment"))
        self._connect(found["timeout"], found["on_gpu"])
        return found

    def _connect(self, timeout: float, on_gpu: bool) -> None:
        assert self._store is not None
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore("gpt2tui", self._store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=timeout),
            device_id=torch.device("cuda", self.local_rank) if on_gpu else None,
        )

    # ---- what is exchanged

    def tell(self, command: Command, number: float = 0.0) -> None:
        """Rank 0 tells the others what all do next."""
        if self.world_size > 1:
            dist.broadcast(torch.tensor([COMMANDS.index(command), number], dtype=torch.float64), 0)

    def receive(self) -> tuple[Command, float]:
        """What rank 0 tells, on the others."""
        told = torch.zeros(2, dtype=torch.float64)
        dist.broadcast(told, 0)
        return COMMANDS[int(told[0])], float(told[1])

    def decided(self, value: bool) -> bool:
        """The value that rank 0 has."""
        if self.world_size == 1:
            return value
        decision = torch.tensor([float(value)])
        dist.broadcast(decision, 0)
        return bool(decision)

    def sums(self, *numbers: float) -> list[float]:
        """The sum of each number over all ranks."""
        if self.world_size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def add(self, tensor: Tensor) -> Tensor:
        """Adds up a tensor over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gathered(self, found: T) -> list[T]:
        """What each of the other ranks has, in the order of the ranks."""
        everything: list[T] = [found] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(everything, found)
        return everything[: self.rank] + everything[self.rank + 1 :]

    def exchange(self, memory: Sequence[float], signal_number: int) -> list[float]:
        """The largest of each number over all ranks; notes which rank has got a signal to stop."""
        if self.world_size == 1:
            return list(memory)
        own = torch.tensor([*memory, signal_number], dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(gathered, own)
        reports = torch.stack(gathered)
        signals = reports[:, -1].int().tolist()
        if self.stopped_by is None and any(signals):
            self.stopped_by = next((rank, number) for rank, number in enumerate(signals) if number)
        largest: list[float] = reports[:, :-1].amax(dim=0).tolist()
        return largest

    # ---- the end

    def end(self, exit_code: int) -> None:
        """Rank 0 ends the others, after the last step or before the first one. Raises nothing."""
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                self.tell("end", exit_code)
        else:
            self.report("ends before the first step", exit_code)

    def report(self, message: str, exit_code: int) -> None:
        """Tells the other ranks why this one ends. Raises nothing."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):
                self._store.set(f"failed/{self.rank}", json.dumps(asdict(Failure(self.rank, message, exit_code, True))))

    def explained(self, error: BaseException) -> BaseException:
        """The error; a LostRankError, which names the rank, in place of one of the connection."""
        if self._store is None or not is_connection_error(error):
            return error
        try:
            return LostRankError(self._find_failure(error))
        except RuntimeError:  # the store ended too, and with it the machine of rank 0
            return LostRankError(Failure(0, "does not answer: its machine or its torchrun has ended", 6))

    def _find_failure(self, error: BaseException) -> Failure:
        """Which rank has failed, where this one has lost the connection."""
        assert self._store is not None
        self._store.set(f"noticed/{self.rank}", "")
        _disconnect()
        end = time.monotonic() + SECONDS_TO_NOTICE
        while time.monotonic() < end:
            for failure in itertools.chain(self._failures(), self._killed()):
                return failure
            time.sleep(POLL_SECONDS)
        for rank in range(self.world_size):
            if not self._store.check([f"noticed/{rank}"]):
                return Failure(rank, f"does not answer ({first_line(error)[-200:]})", 6)
        return Failure(self.rank, f"has lost the connection to the others ({first_line(error)[-200:]})", 6)

    def _failures(self) -> Iterator[Failure]:
        assert self._store is not None
        for rank in range(self.world_size):
            if self._store.check([f"failed/{rank}"]):
                yield Failure(**json.loads(self._store.get(f"failed/{rank}")))

    def _killed(self) -> Iterator[Failure]:
        """The ranks on this machine whose process is gone or stopped; tells the other machines of it."""
        assert self._store is not None
        for rank, process in enumerate(self._processes):
            pid, host, _ = process.split(" ")
            if rank == self.rank or host != platform.node():
                continue
            try:
                status = psutil.Process(int(pid)).status()
            except psutil.NoSuchProcess:
                status = psutil.STATUS_DEAD
            if status in GONE or status == psutil.STATUS_STOPPED:
                what = "is stopped and does not answer" if status == psutil.STATUS_STOPPED else "was killed"
                failure = Failure(rank, f"{what} (process {pid})", ResourceError.exit_code)
                self._store.set(f"failed/{rank}", json.dumps(asdict(failure)))
                yield failure

    def is_reporter(self, failure: Failure) -> bool:
        """Whether this rank tells the user of another one's failure: the lowest rank that is left does.

        What rank 0 has said itself, it has told the user too.
        """
        return self.rank == 0 if failure.rank else self.rank == 1 and not failure.by_itself


class LostRankError(ResourceError):
    """Another rank has failed, and the training cannot continue without it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(
            f"{failure}; the training has ended on all ranks. It continues from its last checkpoint with --resume, or "
            "by itself with torchrun --max-restarts"
        )


def is_connection_error(error: BaseException) -> bool:
    """Whether an exchange between ranks has failed, and not what a rank computes."""
    if isinstance(error, Gpt2TuiError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(words in str(error) for words in CONNECTION_ERRORS)


def _disconnect() -> None:
    """Closes the connections, so that ranks which wait for this one notice too."""
    with contextlib.suppress(Exception):
        dist.group.WORLD._get_backend(torch.device("cpu")).abort()  # type: ignore[union-attr]


def join() -> Ranks:
    """This process among those of torchrun, or alone; waits for the others.

    Raises UsageError where torchrun's variables are incomplete, ResourceError when a rank does not come.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Ranks()
    try:
        store, rank, world_size = next(rendezvous("env://"))
    except ValueError as error:
        raise UsageError(f"WORLD_SIZE = {world_size} is set, but {error}; torchrun sets all of them") from error
    return meet(store, rank, world_size)


def meet(store: Store, rank: int, world_size: int) -> Ranks:
    """Waits until all ranks have come to this store. Raises ResourceError when one does not.

    torchrun may keep the store when it restarts the ranks, so each process has a name of its own, and rank 0 writes
    down which processes it has met.
    """
    name, end = f"{os.getpid()} {platform.node()} {uuid.uuid4()}", time.monotonic() + SECONDS_TO_COME
    if rank == 0:
        session = uuid.uuid4().hex
        store.set("session", session)
        names = [name]
        for other in range(1, world_size):
            while not store.check([f"{session}/came/{other}"]):
                if time.monotonic() > end:
                    raise ResourceError(f"rank {other} of {world_size} has not started within {SECONDS_TO_COME:.0f} s")
                time.sleep(POLL_SECONDS)
            names.append(store.get(f"{session}/came/{other}").decode())
        store.set(f"{session}/met", json.dumps(names))
        return Ranks(rank, world_size, PrefixStore(session, store), names)
    answered = ""
    while time.monotonic() < end:
        session = store.get("session").decode() if store.check(["session"]) else ""
        if session and session != answered:  # the first one may be that of a rank 0 that is gone
            store.set(f"{session}/came/{rank}", name)
            answered = session
        if session and store.check([f"{session}/met"]):
            names = json.loads(store.get(f"{session}/met"))
            if names[rank] == name:
                return Ranks(rank, world_size, PrefixStore(session, store), names)
        time.sleep(POLL_SECONDS)
    raise ResourceError(f"rank 0 has not started within {SECONDS_TO_COME:.0f} s")


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank has a share (FSDP), whole, on its device; all ranks call it. Others as they are."""
    gather = getattr(tensor, "full_tensor", None)  # DTensor takes seconds to import
    return tensor if gather is None else gather()


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a whole tensor, where it has a share of `like`; else the tensor."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements)


def leave(exit_code: int) -> NoReturn:
    """Ends the process at once: the connections may wait for a rank that is gone, also when Python releases them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(exit_code)


def signal_name(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name
