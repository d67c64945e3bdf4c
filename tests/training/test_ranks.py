"""One, two and four ranks train the same run: real processes of torchrun, connected by gloo."""

import itertools
import json
import math

import pytest

from gpt2tui.generation import load
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run.events import Evaluated, Event, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.training.controls import Controls
from tests import tiny_runs
from tests.training.rank_processes import recorded, trained_by

pytestmark = pytest.mark.slow

STEPS = 50
SETTINGS = (
    "model.dropout=0.2", "training.gradient_accumulation=4", f"training.num_iterations={STEPS}",
    "training.eval_frequency=25", "training.checkpoint_frequency=25", "sampling.max_length=2",
    "schedule.warmup_iterations=10",
)  # fmt: skip


def preset(folder, *overrides):
    return tiny_runs.preset(folder, *SETTINGS, *overrides)


def job(folder, name, *overrides, **more):
    return {"run": str(folder / name), "preset": preset(folder, *overrides).model_dump_json(), **more}


def alone(opening):
    """The events of one rank, and the digests of its batches."""
    with recorded() as record:
        events = [event for event in drive(opening, Controls()) if isinstance(event, Event)]
    return events, record["batches"]


def new(folder, name, *overrides):
    return new_run(LoadedPreset("tiny", preset(folder, *overrides), ()), folder / name)


def losses(events):
    """Of each step and evaluation, in order."""
    return [
        (e.step, e.train_loss if isinstance(e, Step) else e.val_loss) for e in events if isinstance(e, Step | Evaluated)
    ]


def furthest(some, others):
    """The largest difference between the losses of two runs."""
    assert [step for step, _ in some] == [step for step, _ in others]
    return max(abs(a - b) for (_, a), (_, b) in zip(some, others, strict=True))


def of_run(folder, name):
    return losses(read_events(Run(folder / name).events_file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with tiny_runs.folders_in(folder):
        yield folder


@pytest.fixture(scope="module")
def references(folder):
    """The losses of one rank by optimizer, and the digests of its batches."""
    found = {}
    for name in ("adamw", "muon"):
        events, batches = alone(new(folder, f"alone-{name}", f"optimizer.name={name}"))
        found[name] = losses(events), batches
    return found


@pytest.fixture(scope="module")
def two(folder, references):
    """What two ranks say of each job; their runs are in the folder by the jobs' names."""
    jobs = {
        "adamw": job(folder, "adamw"),
        "muon": job(folder, "muon", "optimizer.name=muon"),
        "checkpointed": job(folder, "checkpointed", "training.activation_checkpointing=true"),
        "overflow": job(folder, "overflow", spoil="overflow on rank 1"),
        "unseeded": job(folder, "unseeded", spoil="unseeded dropout"),
        "sharded": job(folder, "sharded", "optimizer.name=muon", spoil="sharded muon"),
        "half": job(folder, "half", "training.num_iterations=25", "schedule.name=constant"),
        "rest": {"run": str(folder / "half"), "resume": ["training.num_iterations=50"]},
        "whole": job(folder, "whole", "schedule.name=constant"),
    }
    return dict(zip(jobs, trained_by(2, list(jobs.values()), folder / "two"), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_ranks_train_the_run_of_one(folder, references, two, optimizer):
    expected, batches = references[optimizer]
    assert furthest(of_run(folder, optimizer), expected) < 1e-5
    for step, micro_batches in enumerate(batches):
        assert list(itertools.chain(*(rank["batches"][step] for rank in two[optimizer]))) == micro_batches
    assert len(batches) == STEPS
    first, second = two[optimizer]
    assert first["weights"] == second["weights"]


def test_a_gradient_that_overflows_on_one_rank_is_left_out_by_all(folder, two):
    first, second = two["overflow"]
    assert first["scales"] == second["scales"]
    assert first["scales"][1:8] == [1024] * 5 + [512] * 2  # before each step; the sixth has overflowed
    assert first["weights"] == second["weights"] != two["adamw"][0]["weights"]
    norms = [event.grad_norm for event in read_events(Run(folder / "overflow").events_file) if isinstance(event, Step)]
    finite = [norm is not None and math.isfinite(norm) for norm in norms]
    assert finite == [number != 5 for number in range(STEPS)]


def test_the_norm_of_the_gradient_is_that_of_one_rank(folder, references, two):
    def norms(name):
        return [e.grad_norm for e in read_events(Run(folder / name).events_file) if isinstance(e, Step)]

    for optimizer in ("adamw", "muon"):
        assert norms(optimizer) == pytest.approx(norms(f"alone-{optimizer}"), rel=1e-3)
        assert max(norms(optimizer)) > 1  # what grad_clip allows


def test_with_activation_checkpointing_the_run_is_bit_for_bit_the_same(folder, two):
    assert of_run(folder, "checkpointed") == of_run(folder, "adamw")
    assert two["checkpointed"][0]["weights"] == two["adamw"][0]["weights"]


def test_dropout_that_is_not_seeded_gives_another_run(folder, references, two):
    assert furthest(of_run(folder, "unseeded"), references["adamw"][0]) > 1e-3


def test_muon_over_shards_of_matrices_gives_another_run(folder, references, two):
    assert furthest(of_run(folder, "sharded"), references["muon"][0]) > 1e-3


def test_two_ranks_resume_bit_for_bit(folder, two):
    whole, resumed = of_run(folder, "whole"), of_run(folder, "half")
    assert [loss for loss in whole if loss[0] > 26] == [loss for loss in resumed if loss[0] > 26]
    assert {rank["weights"] for name in ("whole", "rest") for rank in two[name]} == {two["whole"][0]["weights"]}


def test_one_rank_resumes_what_two_have_saved(folder, two):
    """From the same checkpoint with the same data order; the form of the checkpoint says nothing of ranks."""
    run, saved = Run(folder / "whole"), checkpoint.at(folder / "whole" / "checkpoints", 25)
    events, _ = alone(resumed_run(run, resume_from=saved, branch=folder / "branch"))
    assert furthest(losses(events), [loss for loss in of_run(folder, "whole") if loss[0] > 25]) < 1e-5
    names = [set(json.loads((folder / name / "checkpoints" / "step-00000050" / "MANIFEST.json").read_text())["files"])
             for name in ("whole", "alone-adamw")]  # fmt: skip
    assert names[0] == names[1]


FOUR = {
    "four-adamw": (),
    "four-muon": ("optimizer.name=muon",),
    "four-shares-adamw": ("distributed.strategy=fsdp",),
    "four-shares-muon": ("optimizer.name=muon", "distributed.strategy=fsdp"),
}


@pytest.fixture(scope="module")
def four(folder):
    jobs = [job(folder, name, *settings) for name, settings in FOUR.items()]
    return dict(zip(FOUR, trained_by(4, jobs, folder / "by-four"), strict=True))


@pytest.mark.parametrize("name", FOUR)
def test_four_ranks_train_the_run_of_one(folder, references, four, name):
    expected, batches = references[name.rpartition("-")[2]]
    answers = four[name]
    assert furthest(of_run(folder, name), expected) < 1e-5
    assert [list(itertools.chain(*(rank["batches"][step] for rank in answers))) for step in range(STEPS)] == batches
    assert len({rank["weights"] for rank in answers}) == 1
    assert load(str(folder / name)).model.config.n_layer == 2  # by one process, as on a laptop


def test_two_nodes_train_the_run_of_one(folder, references):
    """Two torchruns that find each other by their own rendezvous, here on one machine."""
    (answers,) = trained_by(2, [job(folder, "nodes")], folder / "by-nodes", nodes=2)
    assert furthest(of_run(folder, "nodes"), references["adamw"][0]) < 1e-5
    assert answers[0]["weights"] == answers[1]["weights"]
