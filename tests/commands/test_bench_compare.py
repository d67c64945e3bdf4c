"""`bench --compare`: what is faster, slower or the same within the noise, and what cannot be compared."""

import copy
import json

import pytest

from gpt2tui.__main__ import main
from gpt2tui.benchmark.comparison import compare, read_saved
from gpt2tui.benchmark.job import Round
from gpt2tui.benchmark.measure import shares_of_limit
from gpt2tui.commands import bench_report
from gpt2tui.errors import UsageError
from gpt2tui.system.device_speed import Limit, measure_limit

ROUNDS = [100.0, 101.0, 99.0, 100.0]


def result(speed=1000.0, rounds=ROUNDS, share=0.5, **facts):
    row = {
        "candidate": "gpt2tui", "tokens_per_second": speed, "rounds_ms": rounds, "limit_share": share,
        "rounds_limit_share": [share * 0.99, share, share * 1.01],
    }  # fmt: skip
    generated = {"candidate": "gpt2tui", "batch_size": 16, "tokens_per_second": 300.0, "rounds_ms": ROUNDS}
    conditions = {"model": {"n_layer": 2}, "precision": "fp32", "tokens": "random"}
    return {
        "machine": {"cpu": "one", "gpu": None, "torch_threads": 2},
        "presets": [
            {
                "preset": "small", **conditions, **facts, "train": {"rows": [row]}, "generate": {"rows": [generated]},
                "tokenize": {"megabytes_per_second": 3.0, "megabytes_per_second_parallel": None},
            }
        ],
    }  # fmt: skip


def verdicts(saved, measured):
    changes, notes = compare(saved, measured)
    return {(change.part, change.what): change.verdict for change in changes}, notes


@pytest.mark.parametrize(("now", "expected"), [(1200.0, "faster"), (850.0, "slower"), (1010.0, "same")])
def test_a_change_counts_from_twice_the_noise_on(now, expected):
    found, notes = verdicts(result(), result(speed=now))
    assert found["train", "gpt2tui: tokens/s"] == expected
    assert found["train", "gpt2tui: share of the limit"] == "same"
    assert found["generate", "gpt2tui, batch 16: tokens/s"] == "same"
    assert found["tokenize", "MB/s"] == "unknown"  # it has no rounds
    assert not notes


def test_the_noise_is_that_of_both_results():
    uneven = [70.0, 100.0, 130.0, 100.0]
    assert verdicts(result(rounds=uneven), result(speed=1200.0))[0]["train", "gpt2tui: tokens/s"] == "same"
    assert verdicts(result(), result(speed=1200.0, rounds=uneven))[0]["train", "gpt2tui: tokens/s"] == "same"
    (change, *_), _ = compare(result(), result(speed=1200.0))
    assert change.ratio == 1.2
    # The standard error of a median of four, 1.25 * 0.8165 / 2 of 100, twice, times the ratio.
    assert change.noise == pytest.approx(1.2 * 2**0.5 * 1.25 * 0.8165 / 2 / 100, rel=1e-3)


def test_other_work_and_another_machine_are_named():
    conditions = {"sequence_length": 64, "compile": "off", "activation_checkpointing": False, "lora": None}
    changed = {"precision": "bf16", "sequence_length": 32, "compile": "on", "lora": {"rank": 8}}
    for key, value in changed.items():
        found, notes = verdicts(result(**conditions), result(**{**conditions, key: value}))
        assert not found
        assert notes == [f"small is other work now: {key} changed"]
    other = result()
    other["machine"] = {"cpu": "two", "gpu": None, "torch_threads": 4}
    found, notes = verdicts(result(), other)
    assert found
    assert notes == [
        "the machine has changed: cpu one then, two now",
        "the machine has changed: torch threads 2 then, 4 now",
    ]
    new = copy.deepcopy(result())
    new["presets"][0]["preset"] = "large"
    assert verdicts(result(), new) == ({}, ["large was not measured then"])


def test_the_report_has_a_line_for_each(capsys):
    bench_report.print_changes(*compare(result(), result(speed=1200.0)))
    lines = capsys.readouterr().out.splitlines()
    assert any("small train, gpt2tui: tokens/s" in line and "1.200" in line and "faster" in line for line in lines)
    assert any("small tokenize, MB/s" in line and "unknown" in line for line in lines)


def damaged(part, value):
    document = result()
    document["presets"][0][part] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        '{"presets": [1]}',
        damaged("preset", ["x"]),
        damaged("tokenize", [1]),
        damaged("tokenize", {"megabytes_per_second": "fast"}),
        damaged("tokenize", {"megabytes_per_second": True}),
        damaged("tokenize", {"megabytes_per_second": float("nan")}),
        damaged("train", {"rows": [1]}),
        damaged("train", {"rows": None}),
        damaged("train", {"rows": [{"candidate": "gpt2tui", "tokens_per_second": -1.0}]}),
        damaged("generate", {"rows": [{"candidate": "gpt2tui", "rounds_ms": [1.0, 0.0, 2.0]}]}),
    ],
)
def test_what_is_no_result_is_refused_before_anything_is_measured(tmp_path, capsys, text):
    path = tmp_path / "saved.json"
    path.write_text(text)
    assert main(["bench", "--compare", str(path)]) == 2
    assert f"--compare {path}" in capsys.readouterr().err
    with pytest.raises(UsageError, match="No such file"):
        read_saved(tmp_path / "nothing.json")
    path.write_text(json.dumps(result()))
    assert read_saved(path) == result()


def test_the_share_of_the_limit_is_that_of_each_round():
    limits = [Limit(200.0, 10.0, 64), Limit(100.0, 30.0, 64), Limit(100.0, 20.0, 64)]
    rounds = [Round({"step": [s]}, {}, limit) for s, limit in zip((1.0, 2.0, 5.0), limits, strict=True)]
    known = shares_of_limit(rounds, flops_per_step=100.0)
    assert known["rounds_limit_share"] == [0.5, 0.5, 0.2]
    assert (known["limit_share"], known["limit_flops"], known["limit_copied_bytes"]) == (0.5, 100.0, 20.0)
    assert shares_of_limit([], 100.0)["limit_share"] is None


@pytest.mark.slow
def test_the_limit_is_that_of_this_machine():
    import torch

    limit = measure_limit(torch.device("cpu"), "fp32")
    assert limit.product_flops > 1e9
    assert limit.copied_bytes > 1e8
