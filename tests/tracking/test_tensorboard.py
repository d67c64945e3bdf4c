"""TensorBoard's event files, read back by its own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt2tui import launch
from gpt2tui.errors import ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Evaluated, Step, Warned
from gpt2tui.tracking.tensorboard import TensorBoardTracker
from gpt2tui.training.controls import Controls
from tests import tiny_runs
from tests.tracking import event_samples as sample


def read(folder):
    """TensorBoard's own reader of a run folder, with every event."""
    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return reader.Reload()


def scalars(reader, tag):
    return [(entry.step, entry.value) for entry in reader.Scalars(tag)]


def write(folder, *events):
    tracker = TensorBoardTracker(Preset(), folder)
    for event in events:
        tracker.handle(event)
    tracker.close()


def test_the_numbers_have_the_names_that_they_have_in_the_events(tmp_path):
    write(
        tmp_path,
        sample.run_started(),
        *(sample.step(number, train_loss=5.0 - number, mfu=None) for number in (1, 2, 3)),
        sample.evaluated(3, 2.0, metrics={"accuracy": 0.25}),
        sample.evaluated(3, 2.5, whole=True),
        sample.sampled(3, "def ", "<script>main()"),
    )
    reader = read(tmp_path)
    assert scalars(reader, "train_loss") == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert scalars(reader, "val_loss") == [(3, 2.0)]
    assert scalars(reader, "whole_val_loss") == [(3, 2.5)]
    assert scalars(reader, "accuracy") == [(3, 0.25)]
    tags = set(reader.Tags()["scalars"])
    assert {"learning_rate", "tokens_per_second", "perplexity", "bits_per_byte"} <= tags
    assert "mfu" not in tags  # not known, not 0
    assert not tags & {"step", "time", "event", "v", "whole", "best"}
    (text,) = reader.Tensors("sample")
    assert text.tensor_proto.string_val[0] == b"    def <script>main()"
    assert b"[training]" in reader.Tensors("preset")[0].tensor_proto.string_val[0]


def test_a_resumed_run_replaces_the_steps_that_it_trains_again(tmp_path):
    write(tmp_path, sample.run_started(), *(sample.step(number, train_loss=1.0) for number in range(1, 7)))
    write(tmp_path, sample.run_started(step=4), *(sample.step(number, train_loss=2.0) for number in range(5, 8)))
    assert scalars(read(tmp_path), "train_loss") == [(n, 1.0) for n in range(1, 5)] + [(n, 2.0) for n in range(5, 8)]


def test_neither_name_nor_content_of_the_file_names_the_machine_or_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "CANARY"))
    for ask_name in ("socket.gethostname", "platform.node"):
        monkeypatch.setattr(ask_name, lambda: "CANARY")
    asked = Preset().of_source(str(tmp_path / "CANARY" / "texts"))
    tracker = TensorBoardTracker(asked, tmp_path)
    tracker.handle(sample.run_started())
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert "CANARY" not in file.name
    assert b"CANARY" not in file.read_bytes()
    assert b"~/texts" in file.read_bytes()


def trained(folder, *overrides):
    """The events of a run that is started as the command line does it, and its folder."""
    loaded = preset_files.load(["default"], tiny_runs.options(folder, *overrides))
    emitted = list(launch.drive(launch.new_run(loaded), Controls()))
    return emitted, runs.all_runs()[-1].folder


@pytest.mark.slow
def test_a_run_that_asks_for_it_has_its_losses_there(tmp_path):
    emitted, folder = trained(tmp_path, "tracking.tensorboard=true")
    reader = read(folder)
    losses = [(event.step, event.train_loss) for event in emitted if isinstance(event, Step)]
    assert scalars(reader, "train_loss") == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in losses]
    evaluated = [event.step for event in emitted if isinstance(event, Evaluated) and not event.whole]
    assert [step for step, _ in scalars(reader, "val_loss")] == evaluated


def test_without_the_package_one_line_says_how_to_install_it_and_the_run_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.tracking.tensorboard.find_spec", lambda name: None)
    emitted, folder = trained(tmp_path, "tracking.tensorboard=true")
    (warning,) = [event.message for event in emitted if isinstance(event, Warned)]
    assert warning.startswith("TensorBoard tracking is off: ")
    assert "'gpt2tui[tensorboard]'" in warning
    assert not (folder / "tensorboard").exists()
    assert emitted[-1].name == "run_finished" or emitted[-2].name == "run_finished"


def test_it_does_not_write_through_a_link_out_of_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "outside")
    with pytest.raises(ResourceError, match="it is a link"):
        TensorBoardTracker(Preset(), tmp_path / "run")
    assert not (tmp_path / "outside").exists()
