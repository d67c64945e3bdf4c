"""One file that is full, damaged or no file at all: named, passed over or refused; never a traceback or a wait."""

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from gpt2tui.__main__ import main
from gpt2tui.data import content_hashes
from gpt2tui.data.token_store import prepare
from gpt2tui.errors import CheckpointError, Gpt2TuiError, ResourceError
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.folder import Run
from gpt2tui.training.controls import Controls
from gpt2tui.tui.settings import UserSettings
from tests import tiny_runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and limits of POSIX systems")


def loaded_preset(folder):
    return preset_files.load(["default"], tiny_runs.options(folder))


def train(loaded, run):
    opening = resumed_run(Run(run)) if (run / "run.json").exists() else new_run(loaded, run)
    return list(drive(opening, Controls(), lambda message: None))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "truncated": truncate,
    "flipped": flip_a_bit,
    "missing": Path.unlink,
    "folder": replaced_by(Path.mkdir),
    "pipe": replaced_by(os.mkfifo),
    "link to nothing": replaced_by(lambda path: path.symlink_to("nowhere")),
    "link out of the run": replaced_by(lambda path: path.symlink_to("/etc/passwd")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of two checkpoints, its cache beside it."""
    folder = tmp_path_factory.mktemp("whole")
    os.environ["GPT2TUI_CACHE"] = str(folder / "cache")
    train(loaded_preset(folder), folder / "runs" / "run")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_of_a_run_is_no_traceback(tmp_path, whole, monkeypatch, capsys, damage):
    names = [path.relative_to(whole) for path in (whole / "runs").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(names) > 10
    newest = Path("runs/run/checkpoints") / checkpoint.folder_name(12)
    for name in names:
        if name.parent.name == "run" or name.parent == newest:
            copy = tmp_path / name.parent.name / name.name
            shutil.copytree(whole / "runs", copy / "runs")
            DAMAGES[damage](copy / name)
            monkeypatch.setenv("GPT2TUI_RUNS", str(copy / "runs"))
            for command in (["runs", "list"], ["runs", "show", "run"], ["sample", "run", "--max-length", "1"]):
                assert main(command) in (0, 2, 4, 6), (name, command)
            with contextlib.suppress(Gpt2TuiError), resumed_run(Run(copy / "runs" / "run")):
                pass
    capsys.readouterr()


@contextlib.contextmanager
def failing_disk(path):
    """Opening the file raises EIO, until it is another file; a mode without rights would not stop root."""
    broken: os.stat_result | None = path.stat()

    def refuse(event, arguments):
        is_it = event == "open" and broken is not None and str(arguments[0]) == str(path) and path.exists()
        if is_it and os.path.samestat(path.stat(), broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0])

    sys.addaudithook(refuse)
    try:
        yield
    finally:
        broken = None


def prepared(loaded):
    """The tokens of a preset's corpus, and the stages of their preparation."""
    stages = []
    preparation = prepare(loaded.preset, Path(os.environ["GPT2TUI_CACHE"]))
    while True:
        try:
            stages.append(next(preparation).stage)
        except StopIteration as end:
            corpus = end.value
            return [*corpus.train.tolist(), None, *corpus.validation.tolist()], stages


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A preset whose tokens are prepared, with a tokenizer of its own and hashes of its files, and the tokens."""
    monkeypatch.setattr(content_hashes, "SMALL_BYTES", 10)
    monkeypatch.setattr(content_hashes, "_hashed", {})
    loaded = preset_files.load(["default"], [*tiny_runs.options(tmp_path), "data.tokenizer=bpe"])
    return loaded, prepared(loaded)[0]


@pytest.mark.parametrize("damage", [*DAMAGES, "unreadable"])
def test_a_damaged_file_of_the_cache_is_made_again(tmp_path, cached, monkeypatch, damage):
    loaded, expected = cached
    cache = tmp_path / "cache"
    names = [path.relative_to(cache) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(names) >= 6
    for name in names:
        monkeypatch.setattr(content_hashes, "_hashed", {})
        copy = tmp_path / damage.replace(" ", "-") / name.name
        shutil.copytree(cache, copy)
        monkeypatch.setenv("GPT2TUI_CACHE", str(copy))
        with failing_disk(copy / name) if damage == "unreadable" else contextlib.nullcontext():
            if damage != "unreadable":
                DAMAGES[damage](copy / name)
            tokens, stages = prepared(loaded)
        assert tokens == expected, name
        again = any("again" in stage or "hashing" in stage for stage in stages)
        # tokenizer.json says the same as these two.
        assert again or name.name in ("tokenizer_config.json", "gpt2tui_tokenizer.json"), name


@pytest.mark.parametrize("damage", ["file", "pipe", "link to nothing", "link out of the run"])
def test_what_stands_in_the_place_of_prepared_tokens_is_replaced(tmp_path, cached, damage):
    loaded, expected = cached
    (store,) = (path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir())
    shutil.rmtree(store)
    store.touch()
    if damage != "file":
        DAMAGES[damage](store)
    assert prepared(loaded)[0] == expected
    assert Path("/etc/passwd").is_file()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_configuration_is_named_or_passed_over(tmp_path, damage, capsys):
    config = tmp_path / "config"
    for path, text in (config / "presets" / "mine.toml", 'extends = "small"\n'), (config / "settings.json", "{}\n"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text * 4 if path.suffix == ".toml" else text)
        DAMAGES[damage](path)
    UserSettings().remember("theme", "nord")
    assert UserSettings().theme in ("nord", "")
    assert main(["presets", "list"]) == 0
    assert "small" in capsys.readouterr().out
    assert main(["presets", "check", str(config / "presets" / "mine.toml")]) == 2
    assert "mine.toml" in capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_preset_of_a_run_is_written_anew_when_it_resumes(tmp_path, whole, damage):
    run = shutil.copytree(whole / "runs" / "run", tmp_path / "run")
    DAMAGES[damage](run / "preset.toml")
    if damage == "folder":
        with pytest.raises(ResourceError, match=r"preset\.toml"):
            train(None, run)
        return
    train(None, run)
    assert preset_files.load_frozen(run / "preset.toml").training.num_iterations == 12
    assert not (run / "preset.toml").is_symlink()
    assert not any(b"root:" in path.read_bytes() for path in run.glob("*.toml"))  # of the file outside


def exit_code_with_files_of_at_most(size, loaded, run):
    """Trains in a fork in which no file can grow beyond `size` bytes, as on a disk that is full."""
    import resource

    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            train(loaded, run)
            code = 0
        except Gpt2TuiError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_file_ends_with_6_and_the_run_goes_on_when_there_is_space(tmp_path, monkeypatch):
    loaded = loaded_preset(tmp_path)
    train(loaded, tmp_path / "whole")
    last = Path("checkpoints") / checkpoint.folder_name(12) / "model.safetensors"
    expected = checkpoint.load_tensors(tmp_path / "whole" / last)
    sizes = sorted({path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file()})
    whole = 2 * sizes[-1]  # no file is as large
    for size in (*sizes[: -1 : max(1, len(sizes) // 4)], whole):  # each time other files are too large
        run = tmp_path / f"run-{size}"
        monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / f"cache-{size}"))
        assert exit_code_with_files_of_at_most(size, loaded, run) == (0 if size == whole else 6)
        for saved in checkpoint.saved_in(run / "checkpoints") if run.exists() else ():
            checkpoint.verify(saved.folder)
        train(loaded, run)
        tensors = checkpoint.load_tensors(run / last)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_that_is_damaged_is_seen(whole, tmp_path):
    copy = shutil.copytree(whole / "runs/run/checkpoints" / checkpoint.folder_name(12), tmp_path / "copy")
    checkpoint.verify(copy)
    flip_a_bit(copy / "model.safetensors")
    with pytest.raises(CheckpointError):
        checkpoint.verify(copy)
