"""`gpt2tui export`: what it prints, the model card, refusals, and the upload."""

import json
import re
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from gpt2tui.__main__ import main
from gpt2tui.export import weights
from gpt2tui.run.folder import Run
from tests import tiny_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run in a folder whose names must not be published."""
    folder = tmp_path_factory.mktemp("secret")
    with tiny_runs.folders_in(folder) as patch:
        preset = folder / "alice-preset.toml"
        preset.write_text('extends = "default"\n')
        sets = [word for option in tiny_runs.options(folder) for word in ("--set", option)]
        words = ["train", str(preset), *sets, "--run-dir", str(folder / "the-run")]
        patch.setattr("sys.argv", ["/home/alice/bin/gpt2tui", *words])
        assert main(words) == 0
    return folder / "the-run"


def export(*words):
    return main(["export", *map(str, words)])


def test_it_prints_the_path_and_how_it_was_verified(run, tmp_path, capsys):
    assert export(run, "--format", "safetensors", "--to", tmp_path / "m.safetensors") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'm.safetensors'}\n"
    assert "verified in gpt2tui" in captured.err
    assert "greedy continuation 64 of 64 tokens equal" in captured.err
    assert re.search(r"m\.safetensors: [\d,]+ bytes, SHA-256 [0-9a-f]{64}\n", captured.err)


def test_json_has_the_same(run, tmp_path, capsys):
    assert export(run, "--format", "safetensors", "--to", tmp_path / "m.safetensors", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "safetensors"
    assert found["files"][0]["bytes"] == (tmp_path / "m.safetensors").stat().st_size
    (verified,) = found["verified"]
    assert verified["difference"] <= verified["limit"] == pytest.approx(1e-4, rel=1)
    assert (verified["equal_tokens"], verified["greedy_tokens"]) == (64, 64)
    assert found["not_run_in"] == []


def test_int8_says_what_it_costs_on_the_validation_text(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    assert export(run, "--format", "onnx", "--dtype", "int8", "--to", tmp_path / "model") == 0
    numbers = r"perplexity per token ([\d.]+), unquantised ([\d.]+) \([+-][\d.]+%\), on ([\d,]+) tokens"
    found = re.search(f"{numbers} of the validation text", capsys.readouterr().err)
    measured = evaluated(run, capsys)["splits"]["validation"]
    assert int(found[3].replace(",", "")) == measured["tokens"]
    assert float(found[2]) == pytest.approx(measured["perplexity"], rel=1e-3)
    assert float(found[1]) == pytest.approx(measured["perplexity"], rel=0.05)


def test_a_corpus_that_has_changed_is_not_measured_on(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    text = (run.parent / "words.txt").read_text()
    try:
        (run.parent / "words.txt").write_text(text + "more")
        assert export(run, "--format", "onnx", "--dtype", "int8", "--to", tmp_path / "model") == 0
    finally:
        (run.parent / "words.txt").write_text(text)
    assert "tokens of text that the model generated" in capsys.readouterr().err


def evaluated(run, capsys):
    assert main(["eval", str(run), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_wrong_export_is_exit_4_and_leaves_no_file(run, tmp_path, monkeypatch, capsys):
    published = weights._published

    def wrong(*arguments):
        tensors = published(*arguments)
        return tensors | {
            "transformer.h.0.attn.c_proj.weight": tensors["transformer.h.0.attn.c_proj.weight"].T.contiguous()
        }

    monkeypatch.setattr(weights, "_published", wrong)
    assert export(run, "--format", "safetensors", "--to", tmp_path / "m.safetensors") == 4
    assert "logits differ" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_model_card_says_what_is_known_and_names_nobody(run, tmp_path):
    assert export(run, "--to", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    info = json.loads((run / "run.json").read_text())
    assert info["data"]["fingerprint"] in card
    assert "| training data | words.txt |" in card
    assert "| tokens seen | 384 |" in card
    assert "gpt2tui train alice-preset.toml --set data.source=words.txt" in card
    assert "--set training.num_iterations=12" in card
    assert re.search(r"\| training loss at this step \(nats per token\) \| \d\.\d{4} \|", card)
    assert re.search(r"\| validation loss \(nats per token\) \| \d\.\d{4} \|", card)
    assert not re.search(r"/tmp|/home|secret|\bhost\b", card)
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["library_name"] == "transformers"
    assert "license" not in front_matter  # which the user chooses


def test_a_value_of_a_setting_of_wandb_is_not_published(run, tmp_path, monkeypatch):
    info = json.loads((run / "run.json").read_text())
    command = [
        "gpt2tui",
        "train",
        "small",
        "--set",
        "wandb.project=alice",
        "wandb.entity=alice",
        "--wandb.name",
        "alice",
    ]
    sessions = [
        {
            "step": 4,
            "command": ["gpt2tui", "--resume", "C:\\Users\\alice\\run", "~/alice/", "../alice/x", str(Path.home())],
        }
    ]
    monkeypatch.setattr(Run, "info", lambda self: info | {"command": command, "sessions": sessions})
    assert export(run, "--to", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "gpt2tui train small --set wandb.project=…" in card.replace("'", "")
    assert "gpt2tui --resume run" in card
    assert "wandb" in card
    assert "Users" not in card
    assert "entity=alice" not in card
    assert "project=alice" not in card
    assert "name alice" not in card
    assert f"{Path.home().name}\n```" not in card  # the user's name


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "safetensors", "--to", "model.bin"],
        ["--format", "gguf", "--to", "model.gguf"],  # its tokenizer is byte
        ["--format", "onnx", "--to", "model", "--dtype", "bf16"],
        ["--format", "huggingface", "--to", "model", "--dtype", "int8"],
        ["--format", "safetensors", "--to", "model.safetensors", "--push", "me/model"],
        ["--to", "model", "--push", "model"],
        ["--to", "model", "--dry-run"],
        ["--to", "model", "--merge"],
        ["--to", "full"],
    ],
)
def test_what_does_not_fit_together_is_refused(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert export(run, *words) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


class Hub:
    calls: list

    def create_repo(self, repository, **settings):
        self.calls.append(("create", repository, settings))

    def upload_folder(self, *, folder_path, repo_id, commit_message):
        self.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch):
    Hub.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_push_uploads_the_verified_folder_to_a_private_repository(run, tmp_path, hub):
    assert export(run, "--to", tmp_path / "model", "--push", "me/model") == 0
    create, upload = hub.calls
    assert create == ("create", "me/model", {"private": True, "exist_ok": True})
    assert upload == ("upload", "me/model", sorted(path.name for path in (tmp_path / "model").iterdir()))


def test_a_dry_run_uploads_nothing(run, tmp_path, hub, capsys):
    assert export(run, "--to", tmp_path / "model", "--push", "me/model", "--dry-run") == 0
    assert hub.calls == []
    assert re.search(
        r"would upload [\d,]+ bytes to me/model on the Hub: README.md, config.json", capsys.readouterr().err
    )


def test_a_hub_that_refuses_is_exit_6_and_the_folder_stays(run, tmp_path, hub, monkeypatch, capsys):
    def refuse(*arguments, **settings):
        raise OSError("401 Unauthorized")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    assert export(run, "--to", tmp_path / "model", "--push", "me/model") == 6
    assert "401 Unauthorized" in capsys.readouterr().err
    assert (tmp_path / "model" / "model.safetensors").exists()
