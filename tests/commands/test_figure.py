"""The curves of runs as a picture: what is in it, read back, and that it can be read without colour."""

import sys
import xml.etree.ElementTree

import pytest
from matplotlib.image import imread

from gpt2tui.__main__ import main
from gpt2tui.commands.figure import DPI, INCHES, Curves, curves_of, draw
from tests.tui.fake_runs import write_run


@pytest.fixture
def two_runs(tmp_path):
    """Two runs in the runs folder, of the first of which the numbers are known."""
    return [write_run(name) for name in ("first", "second")]


def texts(path):
    """The texts in an SVG."""
    root = xml.etree.ElementTree.parse(path).getroot()
    return {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_axes_have_their_units_and_each_run_its_name(two_runs, tmp_path, capsys):
    assert main(["runs", "export", "first", "second", "--svg", str(tmp_path / "loss.svg")]) == 0
    found = texts(tmp_path / "loss.svg")
    assert {"step (updates of the weights)", "loss (nats per token)"} <= found
    names = [text for text in found if text.startswith(("first: ", "second: "))]
    assert {name.partition(" ")[0] for name in names} == {"first:", "second:"}
    assert {name.split()[1] for name in names} == {"training", "validation"}
    again = tmp_path / "again.svg"
    assert main(["runs", "export", "first", "second", "--svg", str(again)]) == 0
    assert again.read_bytes() == (tmp_path / "loss.svg").read_bytes()


def test_a_png_has_its_size_and_is_not_overwritten(two_runs, tmp_path, capsys):
    path = tmp_path / "loss.png"
    assert main(["runs", "export", "first", "--png", str(path)]) == 0
    height, width = imread(path).shape[:2]
    assert (width, height) == tuple(round(DPI * side) for side in INCHES)
    assert main(["runs", "export", "first", "--png", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_is_drawn_are_the_losses_of_the_events(two_runs):
    curves = curves_of(two_runs[0])
    (axes,) = draw([curves]).axes
    train, validation = axes.get_lines()
    assert list(zip(*train.get_data(), strict=True)) == curves.train
    assert list(zip(*validation.get_data(), strict=True)) == curves.validation
    assert axes.get_title() == "first"


def test_six_runs_can_be_told_apart_without_colour():
    curves = [Curves(f"run-$x_{n}$", [(1, 3.0), (2, 2.0)], [(2, 2.5)]) for n in range(6)]
    (axes,) = draw(curves).axes
    lines = axes.get_lines()
    assert len({str(line._dash_pattern) for line in lines[::2]}) == 6
    assert len({line.get_marker() for line in lines[1::2]}) == 6
    assert len({line.get_color() for line in lines}) == 6


def test_a_picture_needs_no_screen_and_pyplot_is_not_touched(two_runs, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib.pyplot")]:
        del sys.modules[name]
    assert main(["runs", "export", "first", "--png", str(tmp_path / "loss.png")]) == 0
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first"], "name one form"),
        (["first", "--csv", "--png", "x.png"], "name one form"),
        (["first", "second", "--csv"], "--csv prints one run"),
        (["first", "--png", "x.png", "--to", "y"], "--to goes with --csv"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(two_runs, capsys, words, message):
    assert main(["runs", "export", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_a_resource_error(two_runs, tmp_path):
    assert main(["runs", "export", "first", "--png", str(tmp_path / "no" / "loss.png")]) == 6


def test_without_matplotlib_one_line_says_how_to_install_it(two_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2tui.commands.figure.find_spec", lambda name: None)
    assert main(["runs", "export", "first", "--png", str(tmp_path / "loss.png")]) == 2
    assert "'gpt2tui[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "loss.png").exists()
