"""`gpt2tui bench`: its numbers are what their names say, unknown ones are null, and failures are reported."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from gpt2tui.__main__ import main
from gpt2tui.benchmark import machine, measure, ranks, subject
from gpt2tui.benchmark.generation import generation_candidate
from gpt2tui.benchmark.job import CandidateResult, Job, Round
from gpt2tui.benchmark.measure import candidates, data_share, milliseconds, speed_ratio
from gpt2tui.benchmark.ranks import Timings
from gpt2tui.benchmark.training import training_candidate
from gpt2tui.benchmark.workers import in_one_line, take_turns
from gpt2tui.commands import bench_report
from gpt2tui.preset import files as preset_files
from gpt2tui.system.device_speed import DeviceSpeed
from tests import tiny_runs

TINY = [word for setting in tiny_runs.SETTINGS for word in ("--set", setting)]
BALLAST_BYTES = 2_000_000_000  # more than any build of torch takes
PARTS = ("--parts", "train,tokenize,data", "--seconds", "0.1")
OTHERS = ("transformers", "wandb", "textual", "plotext")  # which a machine may not have


def job(candidate, *overrides, seed=1337):
    loaded = preset_files.load(["default"], [*tiny_runs.SETTINGS, f"training.seed={seed}", *overrides])
    return Job("train", candidate, subject.resolve(loaded).preset)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The `--json` of a tiny model, from a process with a high peak of memory and without optional packages."""
    folder = tmp_path_factory.mktemp("packages")
    for name in OTHERS:
        (folder / f"{name}.py").write_text("raise ImportError('this machine does not have it')")
    ballast, output = b"\1" * BALLAST_BYTES, io.StringIO()
    del ballast
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setenv("GPT2TUI_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        code = main(["bench", "--preset", "default", *TINY, "--against", "nanogpt", *PARTS, "--json"])
    assert code == 0
    return json.loads(output.getvalue())  # all of stdout is one document


@pytest.mark.slow
def test_json_has_its_keys_and_null_for_what_is_not_known(document):
    assert set(document) == {"machine", "seconds", "presets"}
    known = document["machine"]
    assert known["torch_threads"] == torch.get_num_threads()
    assert known["versions"]["torch"] == torch.__version__
    assert (known["gpu"], known["gpu_memory_bytes"]) == (None, None)
    (measured,) = document["presets"]
    assert measured["model"]["vocab_size"] == 257
    assert (measured["tokens_per_step"], measured["tokens"], measured["precision"]) == (32, "random", "fp32")
    ours, plain = measured["train"]["rows"]
    assert (ours["candidate"], plain["candidate"]) == ("gpt2tui", "nanogpt")
    assert ours["speed_ratio"] is None
    assert plain["speed_ratio"] > 0
    for row in (ours, plain):
        assert row["failed"] is row["mfu"] is row["compile_seconds"] is None
        assert row["memory"]["device_allocated_bytes"] is row["memory"]["device_reserved_bytes"] is None
        assert row["count"] >= 3
        assert 0 < row["ms"]["p10"] <= row["ms"]["median"] <= row["ms"]["p90"]
        assert row["tokens_per_second"] == pytest.approx(32 / row["ms"]["median"] * 1000)
    assert measured["generate"] is None  # not asked for
    assert 0 < measured["data"]["percent_of_step"] < 100
    assert measured["tokenize"]["bytes_per_token"] == 1.0  # bytes are its tokens
    assert measured["tokenize"]["megabytes_per_second"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="other systems have nothing to confuse it with")
def test_peak_memory_is_not_that_of_the_process_which_started_the_worker(document):
    peaks = [row["memory"]["host_bytes"] for row in document["presets"][0]["train"]["rows"]]
    assert machine.peak_memory(torch.device("cpu"))["host_bytes"] > BALLAST_BYTES
    assert 50_000_000 < min(peaks) <= max(peaks) < BALLAST_BYTES


@pytest.mark.slow
def test_the_text_report_has_the_same_numbers_with_units(document, capsys):
    (measured,) = document["presets"]
    bench_report.print_machine(document["machine"])
    bench_report.print_subject({**measured, "preset": "\x1b[31mred"})
    for part in ("train", "data", "tokenize"):
        bench_report.print_part(part, measured[part])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "x as fast" in shown
    assert "nanogpt: our network trained as nanoGPT does" in shown
    assert f"{measured['train']['rows'][0]['first_loss']:.4f} nats" in shown
    assert "MFU" not in shown  # a CPU's peak is not known


@pytest.mark.slow
def test_all_candidates_compute_the_same_loss_from_the_same_weights(document):
    first_losses = [row["first_loss"] for row in document["presets"][0]["train"]["rows"]]
    assert first_losses[0] == pytest.approx(first_losses[1], abs=1e-4)
    assert training_candidate(job("gpt2tui", seed=7))[0]["first_loss"] != pytest.approx(first_losses[0], abs=1e-4)
    pytest.importorskip("transformers")
    for name in ("transformers", "transformers-best"):
        assert training_candidate(job(name))[0]["first_loss"] == pytest.approx(first_losses[0], abs=1e-4)


def test_speed_ratio_is_the_median_of_the_rounds_own_ratios():
    ours = [[1.0, 2.0, 9.0], [4.0], [1.0]]
    theirs = [[6.0], [4.0, 8.0], [10.0], [99.0]]  # ratios 3, 1.5, 10; the fourth round has no partner
    assert speed_ratio(ours, theirs) == 3.0
    assert speed_ratio([], theirs) is None


def test_milliseconds_are_percentiles():
    assert milliseconds([i / 1000 for i in range(11)]) == {"median": 5.0, "p10": 1.0, "p90": 9.0}
    assert milliseconds([]) == {"median": None, "p10": None, "p90": None}


def test_share_of_data_is_over_whole_steps():
    rounds = [Round({"step": [1.0, 2.0], "batch": [0.1, 0.1]}, {}), Round({"step": [1.0], "batch": [0.2]}, {})]
    loaded = subject.resolve(preset_files.load(["test"]))
    assert data_share(loaded, CandidateResult(rounds=rounds))["percent_of_step"] == pytest.approx(10.0)
    assert data_share(loaded, None)["percent_of_step"] is None


def test_a_worker_that_is_killed_is_a_line_not_a_crash(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os\nos.kill(os.getpid(), 9)")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    outcomes = take_turns([job("gpt2tui")], 0.1, told.append)
    assert outcomes["gpt2tui"].failed.startswith("its process ended with exit code -9, which is what a system")
    assert told == ["  gpt2tui failed"]


def test_what_went_wrong_is_one_line():
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nmore")
    assert in_one_line(error) == "out of memory; lower training.batch_size"
    assert in_one_line(ValueError("no such\nthing")) == "ValueError: no such"


@pytest.fixture
def bench(capsys):
    """Runs the command in this process: its exit code, its document and its message."""

    def run(*arguments):
        code = main(["bench", "--json", *arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [("temperature=0.0",), ("top_k=5", "top_p=0.9")])
def test_writing_is_counted_in_tokens_of_all_texts(bench, sampling, monkeypatch):
    pytest.importorskip("transformers")

    def in_this_process(jobs, seconds, tell):
        return {each.candidate: CandidateResult(rounds=[generation_candidate(each)[1](seconds)]) for each in jobs}

    monkeypatch.setattr(measure, "take_turns", in_this_process)
    settings = [word for setting in sampling for word in ("--set", f"sampling.{setting}")]
    code, document, _ = bench(
        "--preset", "default", *TINY, *settings, "--parts", "generate", "--seconds", "0.01", "--against", "transformers"
    )
    written = document["presets"][0]["generate"]
    assert (code, written["prompt_tokens"], written["new_tokens"]) == (0, 4, 12)
    candidates = [(row["candidate"], row["batch_size"]) for row in written["rows"]]
    assert candidates == [("gpt2tui", 1), ("transformers", 1), ("gpt2tui", 16), ("transformers", 16)]
    for row in written["rows"]:
        assert row["tokens_per_second"] == pytest.approx(12 * row["batch_size"] / row["ms"]["median"] * 1000)
        assert 0 < row["ms_to_first_token"] < row["ms"]["p90"]
        assert (row["speed_ratio"] is None) == (row["candidate"] == "gpt2tui")
    bench_report.print_part("generate", written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "smal"], 'no preset is called "smal"; did you mean small?'),
        (["--parts", "train,fly"], "--parts: 'fly' is not a part; choose from train, generate, tokenize, data"),
        (["--parts", ","], "--parts: no part is named"),
        (["--seconds", "nan"], "--seconds must be a number above 0"),
        (["--all", "--preset", "small"], "leave out --all or --preset"),
        (["--ranks", "2", "--parts", "train"], "leave out --parts, --against and --all"),
        (["--ranks", "3", "--set", "training.gradient_accumulation=4"], "cannot be divided among 3 ranks"),
        (["--against", "transformers"], "pip install transformers"),
    ],
)
def test_mistakes_are_reported_before_anything_is_measured(bench, arguments, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # not installed
    code, document, errors = bench(*arguments)
    assert (code, document) == (2, None)
    assert message in errors


@pytest.mark.parametrize(
    ("speed", "reason"),
    [
        ({"memory_free_bytes": 10**5}, r"needs about .* of memory; 100 kB are free"),
        ({"flops_per_second_achievable": 1e6}, r"(one step|generating once .*) would take about .* here"),
    ],
)
def test_what_does_not_fit_is_skipped_with_the_reason(bench, speed, reason, monkeypatch):
    monkeypatch.setattr(subject, "_speed", lambda device, precision: DeviceSpeed("slow", precision, **speed))
    code, document, _ = bench("--all", "--parts", "train,generate,data", "--set", "training.device=cpu")
    assert code == 6  # nothing was measured
    names = [measured["preset"] for measured in document["presets"]]
    assert set(names) == {source.name for source in preset_files.available()}
    assert names[0] == "test"  # the smallest first
    for measured in document["presets"]:
        if measured["preset"] == "qlora":
            continue  # skipped for its package, where that is not installed
        for part in ("train", "generate", "data"):
            assert re.match(reason, measured[part]["skipped"]), measured[part]
        assert measured["tokenize"] is None  # not asked for


def test_candidates_of_a_part():
    both = ["nanogpt", "transformers"]
    assert candidates("train", both, "fp32") == ["gpt2tui", "nanogpt", "transformers", "transformers-best"]
    assert candidates("generate", both, "fp32") == ["gpt2tui", "transformers"]
    assert candidates("generate", both, "bf16") == ["gpt2tui", "transformers", "transformers-best"]


# ---- several ranks


def a_subject(*overrides):
    loaded = preset_files.load(["default"], [*tiny_runs.SETTINGS, "training.gradient_accumulation=4", *overrides])
    return subject.resolve(loaded)


def test_the_share_of_communication_is_what_a_step_takes_longer_than_the_work_alone(monkeypatch, capsys):
    measured = {1: Timings([0.4, 0.4, 0.5], [], 2), 2: Timings([0.2, 0.25, 0.3], [0.2, 0.1, 0.3], 1), 4: "rank 3: no"}
    monkeypatch.setattr(ranks, "measured_by", lambda subject, count, seconds: measured[count])
    found = ranks.measure_ranks(a_subject(), 4, 1.0, lambda line: None)  # 3 ranks do not divide 4 micro-batches
    one, two, four = found["rows"]
    assert (one["ranks"], one["speedup"], one["communication_percent"], one["threads"]) == (1, 1.0, None, 2)
    assert two["communication_percent"] == pytest.approx(100 * (1 - 0.2 / 0.25))
    assert two["speedup"] == pytest.approx(0.4 / 0.25)
    assert two["tokens_per_second"] == pytest.approx(4 * 2 * 16 / 0.25)
    assert (four["failed"], four["count"], four["ms"]["median"], four["speedup"]) == ("rank 3: no", 0, None, None)
    bench_report.print_part("ranks", found)
    shown = capsys.readouterr().out
    assert re.search(r"2 ranks +512 +1\.60x +250 +210 +290 +20 % +3 +1\n", shown)
    assert "4 ranks failed: rank 3: no" in shown


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("optimizer.name=muon",), ("distributed.strategy=fsdp",)])
def test_ranks_are_processes_that_torchrun_starts(bench, settings):
    words = [word for setting in ("training.gradient_accumulation=2", *settings) for word in ("--set", setting)]
    code, document, errors = bench("--preset", "default", *TINY, *words, "--ranks", "2", "--seconds", "0.5")
    assert code == 0, errors
    one, two = document["presets"][0]["ranks"]["rows"]
    assert (one["ranks"], two["ranks"], one["failed"], two["failed"]) == (1, 2, None, None)
    assert min(one["count"], two["count"]) >= 3
    assert 0 <= two["communication_percent"] < 100
    assert two["ms_without_exchange"] > 0
    assert one["ms_without_exchange"] is None


def test_a_busy_machine_is_noted(monkeypatch):
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 8)
    assert machine.busy_note(0.5) is machine.busy_note(None) is None
    assert machine.busy_note(2.34).startswith("other programs were using 2.3 cores")
    others = machine.OtherPrograms()
    monkeypatch.setattr(others, "_before", tuple(value - 10 for value in others._before))
    assert others.cores() == pytest.approx(1.0, abs=0.3)  # ten seconds of work in ten seconds


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to interrupt")
def test_interrupt_ends_cleanly_and_leaves_no_process():
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2tui", "bench", "--preset", "test", "--parts", "train", "--seconds", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert "test: training" in process.stderr.readline()  # the worker starts now
    while not psutil.Process(process.pid).children():
        assert process.poll() is None
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=100)  # a worker that lived on would keep the pipes open
    assert process.returncode == 130
    assert errors.strip() == "gpt2tui: interrupted"
    assert "parameters" in output
