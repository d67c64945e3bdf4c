"""Merge on the Chat screen: an adapter becomes one model that transformers loads; PEFT is the judge."""

import pytest
import torch
import transformers

from gpt2tui.launch import Launch
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.widgets.dialogs import TextDialog
from tests.training.test_starting_weights import loaded_from, their_model, train
from tests.tui.chat_story import driven, short
from tests.tui.looking import until


def said(app):
    return " ".join(notification.message for notification in app._notifications)


def test_merge_writes_one_model_with_the_logits_of_base_and_adapter(tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    base, to = tmp_path / "base", tmp_path / "merged"
    their_model(base)
    overrides = ("lora.rank=4", "optimizer.lr=0.05", "training.num_iterations=3", "training.checkpoint_frequency=3")
    run, _ = train(Launch(loaded_from(tmp_path, base, *overrides)))
    adapter = run.checkpoints / "step-00000003"
    choices = [ModelChoice(str(adapter), "adapted", 3, 1.0), ModelChoice(str(base), "base")]
    monkeypatch.setattr(chat_models, "saved_models", lambda: list(choices))

    async def story(pilot, screen):
        await pilot.press("escape", "x")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextDialog))
        assert pilot.app.screen.query_one("Input").value == "adapted-merged"
        pilot.app.screen.query_one("Input").value = str(base)  # which exists
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, TextDialog)
        pilot.app.screen.query_one("Input").value = str(to)
        await pilot.press("enter")
        await until(pilot, lambda: "merging" in str(screen.prompt.border_title))
        await until(pilot, lambda: not screen._merging)
        assert screen.prompt.border_title == "prompt"
        assert f"merged into {to}" in said(pilot.app)
        assert "transformers" in said(pilot.app)
        screen.chosen.choose(choices[1])
        await pilot.press("x")
        await until(pilot, lambda: "base is a whole model already" in said(pilot.app))

    driven(tmp_path, story, load=short())
    tokens = torch.randint(257, (2, 16), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs = transformers.GPT2LMHeadModel.from_pretrained(base)
        alone = theirs(tokens).logits
        adapted = peft.PeftModel.from_pretrained(theirs, adapter).eval()(tokens).logits
        merged = transformers.GPT2LMHeadModel.from_pretrained(to).eval()(tokens).logits
    assert (adapted - alone).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, rtol=0, atol=1e-5)


def test_a_merge_that_fails_leaves_nothing_and_says_why(tmp_path, monkeypatch):
    base, to = tmp_path / "base", tmp_path / "merged"
    their_model(base)
    overrides = ("lora.rank=4", "training.num_iterations=3", "training.checkpoint_frequency=0")
    run, _ = train(Launch(loaded_from(tmp_path, base, *overrides)))
    choice = ModelChoice(str(run.checkpoints / "step-00000003"), "adapted", 3, 1.0)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [choice])
    base.rename(tmp_path / "elsewhere")
    errors = []

    async def story(pilot, screen):
        monkeypatch.setattr(pilot.app, "show_error", lambda title, message: errors.append((title, message)))
        await pilot.press("escape", "x")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextDialog))
        pilot.app.screen.query_one("Input").value = str(to)
        await pilot.press("enter")
        await until(pilot, lambda: errors)
        assert screen.prompt.border_title == "prompt"

    driven(tmp_path, story, load=short())
    ((title, message),) = errors
    assert title == "The adapter was not merged"
    assert "the model that it belongs to" in message
    assert "was not found" in message
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


def test_live_weights_are_not_merged(tmp_path, monkeypatch):
    live = chat_models.live_weights("a-run", 7)
    monkeypatch.setattr(chat_models, "saved_models", list)

    async def story(pilot, screen):
        screen.chosen.update(live, [])
        screen.chosen.choose(live)
        await pilot.press("escape", "x")
        await until(pilot, lambda: "live weights are saved as a checkpoint first" in said(pilot.app))

    driven(tmp_path, story, load=short())
