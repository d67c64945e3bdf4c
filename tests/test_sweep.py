"""Which runs a sweep has, and what its results say: against values from tables and worked examples."""

import math

import pytest

from gpt2tui.errors import UsageError
from gpt2tui.sweep import (
    Configuration,
    best_first,
    best_two,
    draw,
    grid,
    planned,
    read_swept,
    t_quantile,
    welch_interval,
)


def test_a_grid_has_every_combination_and_the_last_setting_changes_first():
    found = grid(read_swept(["optimizer.lr=0.001,0.003", "model.n_layer=2,4"]))
    assert [tuple(settings.values()) for settings in found] == [
        ("0.001", "2"),
        ("0.001", "4"),
        ("0.003", "2"),
        ("0.003", "4"),
    ]
    assert {tuple(settings) for settings in found} == {("optimizer.lr", "model.n_layer")}


def test_without_settings_there_is_one_configuration():
    assert grid([]) == [{}]


def test_runs_are_configurations_times_seeds_with_names_that_say_both():
    runs = planned(grid(read_swept(["optimizer.lr=0.001,0.003"])), [7, 8])
    assert [run.name for run in runs] == [
        "01-lr=0.001-seed=7",
        "02-lr=0.001-seed=8",
        "03-lr=0.003-seed=7",
        "04-lr=0.003-seed=8",
    ]
    assert runs[3].overrides == ["optimizer.lr=0.003", "training.seed=8"]


def test_a_name_is_a_plain_folder_name_whatever_the_value():
    (run,) = planned([{"data.source": "../a b/é*.txt" + "x" * 200}], [None])
    assert run.name.startswith("01-source=.._a_b_")
    assert len(run.name) <= 80
    assert run.overrides == ["data.source=../a b/é*.txt" + "x" * 200]


def test_a_comma_in_brackets_or_quotes_belongs_to_the_value():
    (setting,) = read_swept(["""tracking.tags=["a","b"],["c"]"""])
    assert setting.values == ('["a","b"]', '["c"]')


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["optimizer.lr"], "is not KEY=VALUE"),
        (["=1,2"], "is not KEY=VALUE"),
        (["optimizer.lr=0.1,,0.2"], "a value of optimizer.lr is missing"),
        (["optimizer.lr="], "a value of optimizer.lr is missing"),
        (["optimizer.lr=0.1,0.1"], "names a value of optimizer.lr twice"),
        (["optimizer.lr=1", "optimizer.lr=2"], "names optimizer.lr twice"),
        (["optimizer.lr=2..1"], "must begin with the smaller number"),
        (["optimizer.lr=0..1 log"], "must begin above 0"),
        (["model.n_layer=1.5..4"], "model.n_layer is a whole number"),
        (["optimizer.name=1..2"], "optimizer.name is no number"),
    ],
)
def test_what_is_wrong_with_a_swept_setting_is_said_with_its_key(texts, message):
    with pytest.raises(UsageError, match=message):
        read_swept(texts)


def test_a_range_needs_a_number_of_draws():
    with pytest.raises(UsageError, match=r"optimizer.lr: a range needs --sweep-random N"):
        grid(read_swept(["optimizer.lr=1e-4..1e-2 log"]))


def test_more_runs_than_anybody_trains_are_refused():
    values = ",".join(map(str, range(1, 41)))
    with pytest.raises(UsageError, match="1,600 runs"):
        grid(read_swept([f"model.n_layer={values}", f"model.n_head={values}"]))


def test_draws_lie_in_their_ranges_and_are_the_same_for_the_same_seed():
    swept = read_swept(["optimizer.lr=1e-4..1e-2 log", "model.n_layer=2..4", "optimizer.name=adamw,muon"])
    found = draw(swept, 40, seed=1)
    assert found == draw(swept, 40, seed=1) != draw(swept, 40, seed=2)
    rates = [float(one["optimizer.lr"]) for one in found]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 10 < sum(rate < 1e-3 for rate in rates) < 30  # half of a logarithmic range of two decades
    assert {one["model.n_layer"] for one in found} == {"2", "3", "4"}
    assert {one["optimizer.name"] for one in found} == {"adamw", "muon"}
    linear = [float(one["optimizer.lr"]) for one in draw(read_swept(["optimizer.lr=1e-4..1e-2"]), 40, seed=1)]
    assert sum(rate < 1e-3 for rate in linear) < 10  # a tenth of the linear range


def test_no_more_different_draws_than_there_are():
    swept = read_swept(["model.n_layer=1..3"])
    assert sorted(one["model.n_layer"] for one in draw(swept, 3, seed=0)) == ["1", "2", "3"]
    with pytest.raises(UsageError, match="only 3 different combinations"):
        draw(swept, 4, seed=0)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (8, 2.306), (30, 2.042), (120, 1.980), (1e6, 1.960)],
)
def test_quantiles_of_students_distribution_are_those_of_the_printed_tables(freedom, t):
    assert t_quantile(freedom) == pytest.approx(t, abs=6e-4)


def test_welchs_interval_by_hand():
    # means 4 and 2; variances 4 and 1; (4/3 + 1/3)^2 / ((4/3)^2/2 + (1/3)^2/2) = 50/17 degrees of freedom
    difference, low, high = welch_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert difference == 2
    margin = t_quantile(50 / 17) * math.sqrt(5 / 3)
    assert (low, high) == pytest.approx((2 - margin, 2 + margin))
    assert 3.182 * math.sqrt(5 / 3) < margin < 4.303 * math.sqrt(5 / 3)  # between 3 and 2 degrees


def test_equal_variances_give_the_degrees_of_students_test():
    # n = 3 each, variance 1 each: 4 degrees of freedom, standard error sqrt(2/3)
    _, low, high = welch_interval([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((3 - 2.7764 * math.sqrt(2 / 3), 3 + 2.7764 * math.sqrt(2 / 3)), abs=1e-3)


def configuration(name, *results):
    return Configuration({"optimizer.lr": name}, results)


def test_mean_and_standard_deviation_of_the_sample():
    one = configuration("a", 2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0)
    assert one.mean == 5
    assert one.standard_deviation == pytest.approx(math.sqrt(32 / 7))
    assert configuration("a", 1.0).standard_deviation is None
    assert configuration("a").mean is None


def test_a_difference_is_larger_than_the_noise_where_the_interval_excludes_0():
    near = best_two([configuration("b", 2.0, 4.0, 6.0), configuration("a", 1.0, 2.0, 3.0)])
    assert (near.best.settings["optimizer.lr"], near.difference, near.is_larger_than_noise) == ("a", 2, False)
    far = best_two([configuration("a", 1.0, 2.0, 3.0), configuration("b", 4.0, 5.0, 6.0)])
    assert far.is_larger_than_noise
    same = best_two([configuration("a", 1.0, 1.0), configuration("b", 1.0, 1.0)])
    assert not same.is_larger_than_noise


def test_the_best_two_are_those_with_the_lowest_means_and_both_need_two_results():
    a, b, c, none = (
        configuration("a", 3.0, 3.5),
        configuration("b", 1.0),
        configuration("c", 2.0, 2.5),
        Configuration({}, ()),
    )
    assert best_first([a, none, b, c]) == [b, c, a, none]
    assert best_two([a, none, b, c]) is None
    assert best_two([a, none, c]).best == c
    assert best_two([none]) is None
