"""Export on the Chat screen; an adapter becomes one model that transformers loads, with PEFT as the judge."""

import pytest
import torch
import transformers

from gpt2tui.export import writing
from gpt2tui.launch import Launch
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.exporting import FORMATS, FormatDialog
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.widgets.dialogs import TextDialog
from tests.training.test_starting_weights import loaded_from, their_model, train
from tests.tui.chat_story import driven, short
from tests.tui.looking import until


async def opened(pilot, dialog):
    """Waits until such a dialog takes keys."""
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog) and pilot.app.focused is not None)


async def choose(pilot, screen, number):
    """Once a model is chosen, opens the list of formats and takes the line of that number."""
    await until(pilot, lambda: screen.chosen.first is not None)
    await pilot.press("escape", "x")
    await opened(pilot, FormatDialog)
    await pilot.press(*["down"] * number, "enter")
    await opened(pilot, TextDialog)


def said(app):
    return " ".join(notification.message for notification in app._notifications)


@pytest.mark.slow
def test_merge_writes_one_model_with_the_logits_of_base_and_adapter(tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    base, to = tmp_path / "base", tmp_path / "merged"
    their_model(base)
    overrides = ("lora.rank=4", "optimizer.lr=0.05", "training.num_iterations=3", "training.checkpoint_frequency=3")
    run, _ = train(Launch(loaded_from(tmp_path, base, *overrides)))
    adapter = run.checkpoints / "step-00000003"
    choices = [ModelChoice(str(adapter), "adapted", 3, 1.0)]
    monkeypatch.setattr(chat_models, "saved_models", lambda: list(choices))

    async def story(pilot, screen):
        await choose(pilot, screen, 0)
        assert pilot.app.screen.query_one("Input").value == "adapted-merged"
        pilot.app.screen.query_one("Input").value = str(base)  # which exists
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, TextDialog)
        pilot.app.screen.query_one("Input").value = str(to)
        await pilot.press("enter")
        await until(pilot, lambda: f"exported to {to}" in said(pilot.app))
        assert screen.prompt.border_title == "prompt"
        assert f"exported to {to}" in said(pilot.app)
        assert "transformers" in said(pilot.app)

    driven(tmp_path, story, load=short())
    tokens = torch.randint(257, (2, 16), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs = transformers.GPT2LMHeadModel.from_pretrained(base)
        alone = theirs(tokens).logits
        adapted = peft.PeftModel.from_pretrained(theirs, adapter).eval()(tokens).logits
        merged = transformers.GPT2LMHeadModel.from_pretrained(to).eval()(tokens).logits
    assert (adapted - alone).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, rtol=0, atol=1e-5)


@pytest.mark.slow
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
        await choose(pilot, screen, 0)
        pilot.app.screen.query_one("Input").value = str(to)
        await pilot.press("enter")
        await until(pilot, lambda: errors)
        assert screen.prompt.border_title == "prompt"

    driven(tmp_path, story, load=short())
    ((title, message),) = errors
    assert title == "The model was not exported"
    assert "the model that it belongs to" in message
    assert "was not found" in message
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


def test_live_weights_are_not_exported(tmp_path, monkeypatch):
    live = chat_models.live_weights("a-run", 7)
    monkeypatch.setattr(chat_models, "saved_models", list)

    async def story(pilot, screen):
        screen.chosen.update(live, [])
        screen.chosen.choose(live)
        await pilot.press("escape", "x")
        await until(pilot, lambda: "live weights are saved as a checkpoint first" in said(pilot.app))

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_the_format_is_chosen_and_the_checks_are_shown(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    base, to = tmp_path / "base", tmp_path / "exported"
    their_model(base)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [ModelChoice(str(base), "base")])
    int8 = next(number for number, each in enumerate(FORMATS) if (each.name, each.dtype) == ("onnx", "int8"))

    async def story(pilot, screen):
        await choose(pilot, screen, int8)
        assert pilot.app.screen.query_one("Input").value == "base-onnx"
        pilot.app.screen.query_one("Input").value = str(to)
        await pilot.press("enter")
        await until(pilot, lambda: f"exported to {to}" in said(pilot.app))
        assert f"exported to {to}; verified in onnxruntime" in said(pilot.app)
        assert "; perplexity per token " in said(pilot.app)

    driven(tmp_path, story, load=short())
    assert (to / "model.onnx").exists()


def test_each_format_has_the_type_and_the_end_of_name_that_it_can_have():
    for each in FORMATS:
        assert each.name in writing.MODULES
        assert each.dtype in writing.STORED_TYPES.get(each.name, ("fp32", "fp16", "bf16"))
        assert each.suffix == writing.SUFFIXES.get(each.name, "")
    assert {each.name for each in FORMATS} == set(writing.MODULES)
