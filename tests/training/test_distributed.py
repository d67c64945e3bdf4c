"""Ranks: what one process alone does of it, and what is refused; real ranks are in test_ranks.py."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from gpt2tui.__main__ import main
from gpt2tui.errors import UsageError
from gpt2tui.launch import check_ranks, new_run, resumed_run
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.training import distributed
from gpt2tui.training.distributed import Failure, LostRankError, Ranks, is_connection_error, meet
from tests import tiny_runs


def test_a_process_alone_exchanges_nothing():
    alone = Ranks()
    alone.tell("step", 1.0)
    assert alone.sums(3, 4.5) == [3, 4.5]
    assert alone.decided(True) is True
    assert alone.exchange([1.0, 2.0], 15) == [1.0, 2.0]
    total = torch.tensor(2.0)
    assert alone.add(total) is total
    error = RuntimeError("gloo: Connection closed by peer")
    assert alone.explained(error) is error


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "ranks", "advice"),
    [
        (2, 3, 2, "gradient_accumulation = 2 and training.batch_size = 3, which train the same"),
        (12, 6, 4, "gradient_accumulation = 4 and training.batch_size = 18, which train the same"),
        (1, 3, 2, "set training.gradient_accumulation = 4"),
    ],
)
def test_steps_that_cannot_be_divided_are_refused_with_what_can(tmp_path, batch_size, accumulation, ranks, advice):
    sizes = (f"training.batch_size={batch_size}", f"training.gradient_accumulation={accumulation}")
    preset = tiny_runs.preset(tmp_path, *sizes)
    with pytest.raises(UsageError, match=advice):
        check_ranks(preset, ranks)
    check_ranks(preset, 1)
    check_ranks(preset, accumulation)
    with (
        pytest.raises(UsageError, match="cannot be divided among"),
        new_run(LoadedPreset("tiny", preset, ()), ranks=Ranks(0, ranks, HashStore())),
    ):
        pass
    assert not runs.runs_folder().exists()


def test_a_run_is_not_resumed_by_ranks_that_cannot_divide_it(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.gradient_accumulation=2")
    list(trainer.train())
    two = ["training.num_iterations=13"]
    with resumed_run(trainer.run, (), two, ranks=Ranks(0, 2, HashStore())) as opened:
        assert opened.resume_from.step == 12
    with (
        pytest.raises(UsageError, match="among 3 ranks"),
        resumed_run(trainer.run, (), two, ranks=Ranks(0, 3, HashStore())),
    ):
        pass


def test_the_rank_that_has_said_why_it_failed_is_named(monkeypatch):
    monkeypatch.setattr(distributed, "_disconnect", lambda: None)
    monkeypatch.setattr(distributed, "SECONDS_TO_NOTICE", 0.3)
    store = HashStore()
    two = [Ranks(rank, 3, store) for rank in range(3)]
    lost = RuntimeError("[pair.cc:554] gloo: Connection closed by peer")
    silent = two[0].explained(lost)
    assert isinstance(silent, LostRankError)
    assert str(silent).startswith("rank 1 does not answer")  # it has not noticed that a connection is lost
    two[2].report("has failed: out of memory", 6)
    named = [ranks.explained(lost) for ranks in two[:2]]
    assert [error.failure for error in named] == [Failure(2, "has failed: out of memory", 6, True)] * 2
    assert [ranks.is_reporter(named[0].failure) for ranks in two] == [True, False, False]
    bug = ValueError("gloo")
    assert two[0].explained(bug) is bug


def test_ranks_that_torchrun_restarts_meet_in_the_store_of_the_first_ones():
    store = HashStore()

    def met():
        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(meet, store, rank, 3) for rank in (1, 2)]
            time.sleep(0.3)  # they have answered the session that is there: none, or that of the first ones
            return [pool.submit(meet, store, 0, 3), *others]

    first, again = ([future.result() for future in met()] for _ in range(2))
    for ranks in (first, again):
        ranks[0].report("has failed", 6)
        assert [next(r._failures(), None) is not None for r in ranks] == [True] * 3
        assert len({str(r._processes) for r in ranks}) == 1
        if ranks is first:
            assert next(again[0]._failures(), None) is None
    assert first[0]._processes != again[0]._processes


@pytest.mark.parametrize(
    ("failure", "reporters"),
    [
        (Failure(1, "was killed", 6), [0]),
        (Failure(0, "was killed", 6), [1]),
        (Failure(0, "has failed: the disk is full", 6, True), []),  # it has told the user
    ],
)
def test_one_rank_tells_the_user(failure, reporters):
    assert [rank for rank in range(4) if Ranks(rank, 4, HashStore()).is_reporter(failure)] == reporters


def test_an_error_of_a_rank_itself_is_none_of_the_connection():
    assert not is_connection_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_connection_error(UsageError("gloo"))
    assert is_connection_error(RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:554] Connection closed by peer"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_dry_run_says_what_each_rank_does(tmp_path, capsys, optimizer):
    sizes = ("training.gradient_accumulation=8", f"optimizer.name={optimizer}")
    sets = [word for option in tiny_runs.options(tmp_path, *sizes) for word in ("--set", option)]
    assert main(["train", "default", *sets, "--dry-run", "--ranks", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares, parameters = found["ranks"], found["estimate"]["parameters"]["total"]
    assert (shares["ranks"], shares["micro_batches"], shares["tokens"]) == (4, 2, 2 * 2 * 16)
    assert shares["gradient_bytes"] == 2 * 3 / 4 * 4 * parameters  # a ring: all but its own quarter, twice
    assert shares["muon_bytes"] == (3 / 4 * 4 * (2 * 12 * 16 * 16) if optimizer == "muon" else 0)
    assert shares["traffic_bytes"] == shares["gradient_bytes"] + shares["muon_bytes"]
    assert main(["train", "default", *sets, "--dry-run", "--ranks", "4"]) == 0
    assert "4 (ddp), each with 2 micro-batches of a step, 64 tokens" in capsys.readouterr().out
    assert main(["train", "default", *sets, "--dry-run", "--ranks", "3"]) == 2
    assert "cannot be divided among 3 ranks" in capsys.readouterr().err


def test_with_fsdp_each_rank_has_a_share_of_the_moments_and_sends_its_weights(tmp_path, capsys):
    sizes = ("training.gradient_accumulation=8", "distributed.strategy=fsdp")
    sets = [word for option in tiny_runs.options(tmp_path, *sizes) for word in ("--set", option)]
    assert main(["train", "default", *sets, "--dry-run", "--ranks", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares, parameters = found["ranks"], found["estimate"]["parameters"]["total"]
    assert shares["memory"]["optimizer"] == 8 * parameters / 4
    assert shares["memory"]["activations"] == found["estimate"]["memory"]["activations"]
    assert shares["weight_bytes"] == 2 * 2 * 3 / 4 * 4 * parameters  # forward and backward of two micro-batches
    assert shares["gradient_bytes"] == 3 / 4 * 4 * parameters
    assert shares["muon_bytes"] == 0


def test_ranks_are_pretended_by_a_dry_run_only(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "default", "--ranks", "2"])
    assert ended.value.code == 2
    assert "torchrun --nproc-per-node=N" in capsys.readouterr().err
