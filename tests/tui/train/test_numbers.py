import math

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.run import events
from gpt2tui.training.schedules import learning_rate
from gpt2tui.tui.train.numbers import DEFINITIONS, age, numbers, one_line, schedule_phase, two_lines
from gpt2tui.tui.train.view import DisplayedRun, event_line
from tests.tracking import event_samples
from tests.tui.train_story import DEVICE_MEMORY, story

SETTINGS = (
    "training.num_iterations=1000",
    "schedule.name=wsd",
    "schedule.warmup_iterations=20",
    "schedule.decay_fraction=0.4",
    "optimizer.grad_clip=1.0",
)


def preset(*overrides):
    return preset_files.load(["small"], [*SETTINGS, *overrides]).preset


def shown(view, now=None):
    return {number.key: (number.value, number.note) for number in numbers(view, now)}


@pytest.fixture
def view():
    view = DisplayedRun()
    view.set_facts(preset("model.vocab_size=4096"), 10_500_000)
    view.memory_total_bytes = 16_000_000_000
    return view


def test_every_number_has_a_definition():
    assert [number.key for number in numbers(DisplayedRun())] == list(DEFINITIONS)


def test_numbers_of_a_run_without_events_are_dashes(view):
    assert shown(view)["train"] == ("–", "uniform guess: ln V = 8.32")
    assert shown(DisplayedRun())["lr"] == ("–", "")


def test_numbers_by_hand(view):
    bits = 2.5 / math.log(2) / 2.36
    view.add(
        [
            event_samples.run_started(),
            event_samples.step(1, train_loss=3.0, grad_norm=0.5, learning_rate=3e-4),
            event_samples.step(
                2, train_loss=3.0, grad_norm=2.0, learning_rate=6e-4, mfu=0.31, tokens_seen=1_000_000,
                device_memory_bytes=6_100_000_000, device_memory_reserved_bytes=6_400_000_000, step_seconds=0.3,
            ),
            event_samples.evaluated(2, val_loss=2.5, bits_per_byte=bits, best=True, best_val_loss=2.5),
            events.CheckpointSaved(step=2, path="x", seconds=0.1, bytes=51_000_000, time=100.0),
        ]
    )  # fmt: skip
    found = shown(view, now=112.0)
    assert found["train"][0] == "3.000"
    assert found["val"] == ("2.500", "@2, best val")
    assert found["bits/B"] == (f"{bits:.3f}", "xz 1.51/1.27, ratio 1.01/1.20")
    assert found["lr"] == ("6.00e-4", "warm-up 2/20")
    assert found["grad"] == ("2.00", "clipped in 50% of steps")
    assert found["speed"] == ("10.2k tok/s", "200 ms/step  MFU 31%")  # the median of 0.1 and 0.3 s, 2048 tokens
    assert found["memory"] == ("6.1 of 16 GB", "peak 6.4")
    assert found["ckpt"] == ("@2", "12 s ago, 51 MB")
    assert found["wandb"] == ("off", "")
    assert found["data"] == ("python-stdlib", "0.22 epochs seen")  # 1e6 tokens of 2.36 bytes, of 10.5 MB


def test_a_worse_evaluation_names_the_best(view):
    best = event_samples.evaluated(1, 2.0, best=True, best_val_loss=2.0)
    view.add([best, event_samples.evaluated(2, 2.5, best_val_loss=2.0)])
    assert shown(view)["val"] == ("2.500", "@2, best val 2.000 @1")


def test_the_best_loss_of_before_a_resumption_is_known_from_its_start(view):
    view.add([event_samples.run_started(step=4, best_val_loss=2.0), event_samples.evaluated(5, 2.5, best_val_loss=2.0)])
    assert shown(view)["val"] == ("2.500", "@5, best val 2.000")


def test_an_end_that_a_time_budget_moved_moves_the_phases():
    begun = [event_samples.run_started(num_iterations=1000), event_samples.step(50)]
    moved = events.NumIterationsChanged(step=50, num_iterations=500)
    for order in ("events first", "preset first"):
        view = DisplayedRun()
        if order == "preset first":
            view.set_facts(preset(), None)
        view.add(begun)
        lines = view.add([moved])
        view.set_facts(view.preset or preset(), None)
        assert shown(view)["lr"][1] == "stable until 300"
        view.add([event_samples.run_started(num_iterations=2000, step=50)])  # resumed, for longer
        assert shown(view)["lr"][1].endswith("1,200")
        assert lines[0].text == "50  500 steps fit the budget"


@pytest.mark.parametrize(
    ("overrides", "step", "phase"),
    [
        (("schedule.name=constant", "schedule.warmup_iterations=0"), 7, "constant"),
        ((), 12, "warm-up 12/20"),
        ((), 21, "stable until 600"),
        ((), 601, "decays until 1,000"),
        (("schedule.name=cosine",), 500, "cosine decay, 49% done"),
    ],
)
def test_the_phase_of_the_schedule(overrides, step, phase):
    assert schedule_phase(preset(*overrides), step) == phase
    assert schedule_phase(preset(*overrides), step, 0.5) == f"{phase}, × 0.5"


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("warmup", [0, 20, 39])
def test_the_phases_of_wsd_are_those_of_the_learning_rate(warmup, decay):
    run = preset(
        "training.num_iterations=40", f"schedule.warmup_iterations={warmup}", f"schedule.decay_fraction={decay}"
    )
    for step in range(1, 41):
        rate, phase = learning_rate(run, step - 1), schedule_phase(run, step)
        if step <= warmup:
            assert phase == f"warm-up {step}/{warmup}"
        elif rate == run.optimizer.lr:
            until = int(phase.removeprefix("stable until "))
            assert learning_rate(run, until - 1) == rate
            assert until == 40 or learning_rate(run, until) < rate
        else:
            assert phase == "decays until 40"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (12, "12 s"), (119, "1 min"), (7500, "2 h 05"), (200_000, "2 d")]
)
def test_age(seconds, text):
    assert age(seconds) == text


def test_the_short_forms_have_the_same_values(view):
    view.add(story(120, **DEVICE_MEMORY))
    values = {number.key: number.value for number in numbers(view)}
    for number in (*two_lines(view)[0], *two_lines(view)[1]):
        assert number.value == values[number.key]
    assert one_line(view)[0].value == values["train"]


@pytest.mark.parametrize(
    "event",
    [
        events.Warned(message="\x1b]52;c;eA==\x07[/foo]\nnext"),
        events.RunFailed(message="[red]\x1b[2J", step=3),
        event_samples.run_started(preset="\x1b[31m[/]", device="\x1b[0m"),
    ],
)
def test_a_line_of_the_log_cannot_control_the_terminal(event):
    plain = event_line(event).content(80).plain
    assert "\x1b" not in plain
    assert "\n" not in plain
    assert "[" in plain  # shown, not taken for markup


def test_an_evaluation_in_the_log_has_its_ratio_to_xz_where_that_fits():
    view = DisplayedRun()
    view.add([event_samples.run_started(xz_bits_per_byte=1.5, xz_after_training_bits_per_byte=1.2)])
    (line,) = view.add([event_samples.evaluated(1200, 2.0, best=True, bits_per_byte=1.2)])
    full = line.content(200).plain
    assert full.endswith("1,200  best val 2.000  1.200 bits/B  xz 1.50/1.20, ratio 0.80/1.00")
    assert line.content(len(full)).plain == full
    assert line.content(len(full) - 1).plain == full.removesuffix("  xz 1.50/1.20, ratio 0.80/1.00")
    assert line.content(20).plain.endswith("1,200  best val 2.000")
    assert "xz" not in event_line(event_samples.evaluated(1200, 2.0)).content(200).plain


def test_lines_are_found_by_their_words():
    line = event_line(event_samples.evaluated(1200, best=True))
    assert line.has_words("eval BEST VAL")
    assert not line.has_words("eval ckpt")
    assert event_line(event_samples.step(1)) is None


def test_a_step_of_several_thousand_is_whole_in_two_lines(view):
    view.add([event_samples.evaluated(1700, val_loss=3.6)])
    assert {n.key: n.note for n in two_lines(view)[0]}["val"] == "@1,700"
