"""README and docs are true: each command of theirs runs, each link has a target, each preset and setting exists.

A command that trains is resolved, checked and estimated with --dry-run; one that opens a screen, a server or a
measurement is parsed here and run by the tests of that part.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from gpt2tui.__main__ import main
from gpt2tui.cli import parse
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.settings import settings
from tests import tiny_runs

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")] if path.name != "log.md")
RUN = "2026-01-31-120000-small"
OPEN_SOMETHING = ("attach", "serve", "bench")


def commands():
    """Page, and the words of each gpt2tui command in its blocks of shell."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "gpt2tui" in words and "clone" not in words:
                    words = words[words.index("gpt2tui") + 1 :]
                    stop = [number for number, word in enumerate(words) if word in (">", "&", "|", "&&")]
                    marks = [pytest.mark.slow] if words[:1] == ["prepare"] else []  # it starts processes
                    name = f"{page.name}: gpt2tui {' '.join(words)}"
                    yield pytest.param(words[: stop[0] if stop else None], id=name, marks=marks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 600 steps with checkpoints every 200, in a folder of runs."""
    folder = tmp_path_factory.mktemp("documents")
    with tiny_runs.folders_in(folder):
        options = tiny_runs.options(folder, "training.num_iterations=600", "training.checkpoint_frequency=200")
        options += ["training.eval_frequency=200", 'evaluation.metrics=["accuracy"]']
        sets = [word for option in options for word in ("--set", option)]
        run = folder / "runs" / RUN
        assert main(["train", "default", *sets, "--run-dir", str(run)]) == 0
    return folder


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_of_the_documents_runs(words, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "runs", tmp_path / "runs")
    shutil.copytree(trained / "cache", tmp_path / "cache")
    for name in ("words.txt", "mine.txt"):
        shutil.copy(trained / "words.txt", tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "all.md").write_text((trained / "words.txt").read_text() * 20)
    (tmp_path / "questions.csv").write_text("question,answer\nthe quick,brown fox\n")
    (tmp_path / "mine.toml").write_text('extends = "test"\n[data]\nsource = "words.txt"\n')
    words = [word.replace("num_iterations=6000", "num_iterations=610") for word in words]
    options = parse(words)
    if not words or words[0] in OPEN_SOMETHING:
        return
    if words[0] in ("train", "tune") and "--dry-run" not in words:
        words.append("--dry-run")
    assert options.command is not None
    # No process trains the run, and it is a whole model already, with nothing to merge.
    refused = words[:2] in (["runs", "stop"], ["runs", "checkpoint"]) or "--merge" in words
    expected = 2 if refused else 0
    assert main(words) == expected, capsys.readouterr().err


def test_there_are_commands_to_run():
    assert len(list(commands())) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page):
    known = {setting.key for setting in settings()}
    tables = "|".join({key.partition(".")[0] for key in known if "." in key})
    for key in re.findall(rf"`((?:{tables})\.(?!(?:py|onnx|plan)`)[a-z_]+)[=`]", page.read_text(encoding="utf-8")):
        assert key in known, f"{page.name} names {key}"


def test_the_table_of_presets_has_all_of_them():
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    shipped = {source.name for source in preset_files.available() if source.shipped}
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == shipped
