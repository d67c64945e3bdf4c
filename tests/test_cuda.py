"""What only a GPU can tell. Skipped where there is none."""

import time
from concurrent.futures import Future

import pytest
import torch
import torch.nn.functional as F

from gpt2tui import generation
from gpt2tui.device import autocast, time_mark
from gpt2tui.errors import ResourceError
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.decoding import GraphDecoder
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.sampling import generate
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.events import RunFinished, Step
from gpt2tui.training.compilation import compiled
from gpt2tui.training.live_copy import copy_weights
from gpt2tui.training.step_meter import StepMeter
from gpt2tui.training.update import fresh_update
from tests import tiny_runs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SETTINGS = ("model.dropout=0", "training.gradient_accumulation=2", "model.vocab_size=300", "optimizer.name=muon")


def new_update(device, precision="fp32"):
    return fresh_update(preset_files.load(["test"], SETTINGS).preset, torch.device(device), precision)


def micro_batches(update, seed):
    shape = (2, 2, 2, update.model.config.n_positions)
    inputs, targets = torch.randint(300, shape, generator=torch.Generator().manual_seed(seed))
    return list(zip(inputs, targets, strict=True))


def losses(update):
    return [update.run(micro_batches(update, step), step, 1 - step / 10).train_loss for step in range(5)]


def test_updates_are_those_of_a_cpu():
    assert losses(new_update("cuda")) == pytest.approx(losses(new_update("cpu")), rel=1e-3)


def test_a_text_is_written_with_a_graph_of_one_token_as_by_the_network():
    """Longer than the recording's first length and than the context, so that it is recorded anew for both."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_positions=300, n_embd=64, n_layer=2, n_head=2)
    model = GPT2(config).cuda().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    prompt = torch.randint(97, (3, 100))

    def texts(decoder):
        arguments = {"max_length": 400, "temperature": 0.0, "generator": torch.Generator(), "decoder": decoder}
        return torch.stack([piece.token for piece in generate(model, prompt, **arguments)])

    decoder = GraphDecoder(model, torch.float32)
    same = (texts(decoder) == texts(None)).float().mean()
    assert same > 0.99
    rounded = GraphDecoder(model, torch.float16)
    cache, plain = model.new_cache(3, 128), model.new_cache(3, 128)
    for empty in (cache, plain):
        model.hidden(prompt.cuda(), empty)
    token = prompt[:, :1].cuda()
    expected = model.logits(model.hidden(token, plain)[:, -1])
    torch.testing.assert_close(rounded.logits(token, cache), expected, atol=0.01 * float(expected.std()), rtol=0)
    assert cache.length == plain.length == 101


def test_a_compiled_run_without_accumulation_is_the_eager_run(tmp_path):
    """Its kernels are launched as CUDA graphs."""

    def losses_of(name, compile_):
        (tmp_path / name).mkdir()
        run = gpu_run(tmp_path / name, f"training.compile={compile_}", "training.precision=bf16")
        events = list(run.train())
        assert isinstance(events[-1], RunFinished)
        assert (run.state.update.forward is run.state.model) == (compile_ == "off")
        return [event.train_loss for event in events if isinstance(event, Step)]

    assert losses_of("graphs", "on") == pytest.approx(losses_of("eager", "off"), rel=0.01)


@pytest.mark.parametrize("name", ["wte.weight", "h.0.attn.c_attn.weight"])
def test_an_overflow_in_fp16_moves_nothing_and_halves_the_scale(name):
    update = new_update("cuda", "fp16")
    update.run(micro_batches(update, 0), 0)
    scale = update.scaler.get_scale()

    def everything():
        weights = {f"weight {name}": p.detach().clone() for name, p in update.model.named_parameters()}
        return weights | {key: tensor.clone() for key, tensor in update.optimizers.state_tensors().items()}

    before = everything()
    dict(update.model.named_parameters())[name].register_hook(lambda gradient: gradient / 0.0)
    update.run(micro_batches(update, 1), 1)
    after = everything()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert update.scaler.get_scale() == scale / 2


# ---- whole runs


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gpu_run(folder, *overrides, **arguments):
    return tiny_runs.trainer(folder, "training.device=auto", "training.precision=auto", *overrides, **arguments)


def text_of(model, sampling):
    return "".join(token.text for token in model.stream("the", sampling))


def test_a_run_trains_saves_resumes_and_generates(tmp_path):
    first = gpu_run(tmp_path)
    events = list(first.train())
    assert isinstance(events[-1], RunFinished)
    assert all(event.device_memory_bytes > 0 for event in events if isinstance(event, Step))
    saved = checkpoint.at(first.run.checkpoints, 8)
    again = gpu_run(tmp_path, run=first.run, resume_from=saved)
    resumed = {event.step: event.train_loss for event in again.train() if isinstance(event, Step)}
    losses = {event.step: event.train_loss for event in events if isinstance(event, Step)}
    assert resumed == pytest.approx({step: losses[step] for step in range(9, 13)}, rel=0.02)  # products are in bf16
    model = generation.load(str(first.run.folder))
    assert model.device.type == "cuda"
    on_cpu = generation.load(str(first.run.folder), "cpu")
    greedy = model.sampling.model_copy(update={"temperature": 0.0})
    assert text_of(model, greedy) == text_of(on_cpu, greedy)


def test_a_step_is_timed_by_the_gpu_not_by_when_its_metrics_are_read():
    update = new_update("cuda:0")
    meter = StepMeter(preset_files.load(["test"], SETTINGS).preset, update.device, "fp32")
    for step in range(3):  # the first ones load kernels
        meter.start()
        pending, ended = update.begin(micro_batches(update, step), step), time_mark(update.device)
        time.sleep(1)  # as an evaluation would
        metrics = pending.read()
    assert 0 < meter.measure(3, metrics, ended).step_seconds < 0.9


def test_the_chat_reads_a_copy_on_the_gpu_while_the_run_trains(tmp_path):
    trainer, reply = gpu_run(tmp_path), Future()
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 5:
            copy_weights(reply, trainer.state, trainer.corpus.tokenizer, "tiny")
    model = reply.result(0)
    assert (model.device.type, model.placement_note) == ("cuda", None)
    assert text_of(model, model.sampling)


def test_memory_that_runs_out_ends_the_run_with_a_sentence(tmp_path):
    trainer = gpu_run(tmp_path, "training.batch_size=65536", "model.n_embd=2048", "data.tokenizer=gpt2")
    with pytest.raises(ResourceError, match="memory"):
        list(trainer.train())


def test_the_loss_of_compiled_code_is_torchs(tmp_path):
    """All logits at once, padded: 16,384 positions of 5,003 tokens, in bf16 as in a run."""
    settings = ("model.vocab_size=5003", "model.n_positions=1024", "training.sequence_length=1024")
    preset = preset_files.load(["test"], settings).preset
    update = fresh_update(preset, torch.device("cuda", 0), "bf16")
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randint(5003, (2, 16, 1024), generator=generator).cuda()
    targets[:, :100] = -1
    forward, failure = compiled(update.model, (16, 1024), "bf16")
    assert failure is None

    def loss_and_gradients(loss_of):
        with autocast(update.device, "bf16"):
            loss = loss_of()
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in update.model.named_parameters()}
        update.optimizers.zero_grad()
        return loss.item(), gradients

    def plain():
        logits = update.model(inputs).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    update.model.eval()
    (loss, gradients), (expected, expected_gradients) = (
        loss_and_gradients(lambda: forward(inputs, targets)),
        loss_and_gradients(plain),
    )
    assert loss == pytest.approx(expected, rel=1e-3)
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).norm() <= 0.03 * gradient.norm(), name
