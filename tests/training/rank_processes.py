"""Trains tiny runs in real processes of torchrun: one start for several runs, as starting takes longest.

As a program, under torchrun, it trains each job of a JSON file in turn; each rank then writes what it ended with.
"""

import contextlib
import hashlib
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIMIT = 240  # seconds


def torchrun(count, *words, log, restarts=0, nodes=("--standalone",)):
    """Starts `python -m gpt2tui` or another module with `count` ranks; stdout and stderr go to the file `log`."""
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, f"--nproc-per-node={count}"]
    command += [f"--max-restarts={restarts}", "-m", *words]
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=log.parent, stdout=file, stderr=file, env={**os.environ, **settings})


def trained_by(count, jobs, folder, nodes=1):
    """Trains each job, {"run", "preset" (JSON), "spoil", "resume"}, with `count` ranks, on `nodes` torchruns.

    Returns for each what its ranks say: {"batches": digests of a step's tokens, "weights": digest of the weights}.
    """
    folder.mkdir(exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    words, log = ("tests.training.rank_processes", str(folder)), folder / "log.txt"
    if nodes == 1:
        processes = [torchrun(count, *words, log=log)]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        meeting = (f"--nnodes={nodes}", "--rdzv-backend=c10d", "--rdzv-id=test", f"--rdzv-endpoint={place}")
        meeting += ("--local-addr=127.0.0.1",)
        processes = [
            torchrun(count // nodes, *words, log=log.with_name(f"node-{node}.txt"), nodes=meeting)
            for node in range(nodes)
        ]
    try:
        assert [process.wait(LIMIT) for process in processes] == [0] * nodes, _logs(folder)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    answers = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]
    return list(zip(*answers, strict=True))


def _logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))


def _main(folder):
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from gpt2tui.training.distributed import leave, meet

    store, rank, world_size = next(rendezvous("env://"))
    answers, kept = [], []
    for number, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        ranks = meet(PrefixStore(str(number), store), rank, world_size)
        with spoiled(job.get("spoil")), recorded() as record:
            _train(ranks, job)
        answers.append({name: value() if callable(value) else value for name, value in record.items()})
        kept.append(record)  # a connection that is released may wait for ever
        dist.destroy_process_group()
    (folder / f"rank-{rank}.json").write_text(json.dumps(answers))
    leave(0)


def _train(ranks, job):
    from gpt2tui.launch import drive, follow, new_run, resumed_run
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.preset.schema import Preset
    from gpt2tui.run.folder import Run
    from gpt2tui.training.controls import Controls

    if ranks.rank:
        assert follow(ranks, Controls(), lambda: None) == 0
        return
    if job.get("resume"):
        opening = resumed_run(Run(Path(job["run"])), (), job["resume"], ranks=ranks)
    else:
        loaded = LoadedPreset("tiny", Preset.model_validate_json(job["preset"]), ())
        opening = new_run(loaded, Path(job["run"]), ranks=ranks)
    for _ in drive(opening, Controls(), lambda message: None, "warn", ranks):
        pass
    ranks.end(0)


@contextlib.contextmanager
def recorded():
    """The digest of each micro-batch of each step, and of the weights at the end."""
    from gpt2tui.training.distributed import whole
    from gpt2tui.training.update import Update

    begin, record = Update.begin, {"batches": [], "scales": []}

    def recording(update, micro_batches, *rest):
        record["batches"].append([_digest(tokens) for batch in micro_batches for tokens in batch])
        record["scales"].append(None if update.scaler is None else update.scaler.get_scale())
        record["weights"] = lambda: _digest(*(whole(p.detach()) for p in update.model.parameters()))
        return begin(update, micro_batches, *rest)

    Update.begin = recording
    try:
        yield record
    finally:
        Update.begin = begin


@contextlib.contextmanager
def spoiled(what):
    """One thing wrong on purpose, or done otherwise."""
    import torch

    from gpt2tui.model import cpu
    from gpt2tui.training import parallel, update
    from gpt2tui.training.muon import orthogonalize

    match what:
        case None:
            place = (update, "seed_generator", update.seed_generator)
        case "unseeded dropout":
            place = (update, "seed_generator", lambda device, seed: None)
        case "sharded muon":

            def of_shards(stack, dtype, ranks):
                return torch.cat([orthogonalize(shard, dtype) for shard in stack.chunk(ranks.world_size, dim=1)], dim=1)

            place = (parallel, "divided", of_shards)
        case "untied head":

            def with_a_head_of_its_own(tokens, weight):
                return torch.nn.functional.embedding(tokens, weight), weight.detach()

            place = (cpu, "tied_embedding", with_a_head_of_its_own)
        case "late metrics":  # as on a GPU; nothing is wrong
            begin = update.Update.begin

            def begin_late(self, *arguments):
                self.async_metrics = True
                return begin(self, *arguments)

            place = (update.Update, "begin", begin_late)
        case "overflow on rank 1":
            begin_whole = update.Update.begin

            def begin_scaled(self, micro_batches, iteration, *rest):
                if self.scaler is None:
                    self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
                if iteration == 5 and self.ranks.rank == 1:
                    hook = self.model.wte.weight.register_hook(lambda gradient: gradient * math.inf)
                    try:
                        return begin_whole(self, micro_batches, iteration, *rest)
                    finally:
                        hook.remove()
                return begin_whole(self, micro_batches, iteration, *rest)

            place = (update.Update, "begin", begin_scaled)
        case _:
            raise ValueError(what)
    module, name, value = place
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _digest(*tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
