"""Models in memory and answers in a thread, without a screen and without torch."""

import subprocess
import sys
import threading

import pytest

from gpt2tui.errors import CheckpointError
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.tui.chat.engine import (
    AllAnswered,
    AnswerBegun,
    AnswerEnded,
    AnswerFailed,
    AnswerGrew,
    AnswerRequest,
    ChatModels,
    answer,
)
from tests.tui.fake_chat import FakeModel

SAMPLING = SamplingTable(max_length=50, seed=0)


def request(number=1, reference="a", task="continue", **changes):
    return AnswerRequest(number, task, "Once upon", SAMPLING, reference, **changes)


def messages_of(*requests, load=FakeModel, stop=None):
    messages = []
    answer(requests, ChatModels(lambda reference, gpu: load(reference)), messages.append, stop or threading.Event())
    return messages


def test_an_answer_is_posted_from_its_beginning_to_its_end_in_few_batches():
    messages = messages_of(request())
    assert isinstance(messages[0], AnswerBegun)
    assert messages[0].prompt_tokens == 2
    assert isinstance(messages[-1], AllAnswered)
    grown = [message for message in messages if isinstance(message, AnswerGrew)]
    assert sum(len(message.tokens) for message in grown) == 50 == grown[-1].statistics.tokens
    assert len(grown) < 10  # 50 tokens that take no time are not 50 messages
    assert next(m for m in messages if isinstance(m, AnswerEnded)).ending == "length"


def test_statistics_of_a_batch_do_not_change_after_it_was_posted():
    class Slow(FakeModel):
        def stream(self, prompt, sampling, alternatives=0):
            for piece in super().stream(prompt, sampling, alternatives):
                threading.Event().wait(0.004)
                yield piece

    grown = [m for m in messages_of(request(), load=Slow) if isinstance(m, AnswerGrew)]
    assert len(grown) > 1
    assert [m.statistics.tokens for m in grown] == sorted({m.statistics.tokens for m in grown})


def test_a_rest_that_is_no_token_is_shown_but_not_counted():
    class Cut(FakeModel):
        def stream(self, prompt, sampling, alternatives=0):
            piece = self._piece(0, alternatives)
            yield piece
            yield type(piece)(-1, "\ufffd", 1.0)

    messages = messages_of(request(), load=Cut)
    grown = [m for m in messages if isinstance(m, AnswerGrew)]
    assert [t.text for m in grown for t in m.tokens] == ["the", "\ufffd"]
    assert grown[-1].statistics.tokens == 1


def test_two_answers_take_turns():
    order = []

    class Watched(FakeModel):
        def stream(self, prompt, sampling, alternatives=0):
            for piece in super().stream(prompt, sampling, alternatives):
                order.append(self.source)
                yield piece

    messages_of(request(1, "a"), request(2, "b"), load=Watched)
    assert order[:6] == ["a", "b"] * 3


def test_one_model_that_fails_leaves_the_other_alone():
    def load(reference):
        if reference == "a":
            raise CheckpointError("a is damaged")
        return FakeModel(reference)

    messages = messages_of(request(1, "a"), request(2, "b"), load=load)
    assert [m.message for m in messages if isinstance(m, AnswerFailed)] == ["a is damaged"]
    assert [m.number for m in messages if isinstance(m, AnswerEnded)] == [2]
    assert isinstance(messages[-1], AllAnswered)


def test_a_stop_ends_all_answers_before_their_next_token():
    stop = threading.Event()
    stop.set()
    messages = messages_of(request(1), request(2, "b"), stop=stop)
    assert [m.ending for m in messages if isinstance(m, AnswerEnded)] == ["stopped", "stopped"]
    assert not any(isinstance(m, AnswerGrew) for m in messages)


def test_at_most_two_models_are_in_memory_even_while_a_third_is_loaded():
    most = []

    def load(reference, gpu):
        most.append(len(models.references))
        return FakeModel(reference)

    models = ChatModels(load)
    for reference in "abacb":
        models.get(reference)
    assert models.references == ["c", "b"]
    assert most == [0, 1, 1, 1]  # beside the one being loaded; the second a was there


@pytest.mark.parametrize("live", [1, 2])
def test_live_weights_count_among_the_two(live):
    models = ChatModels(lambda reference, gpu: FakeModel(reference))
    models.get("a")
    models.get("b")
    models.make_room(live)
    assert models.references == ["b"][: 2 - live]


def test_a_training_that_starts_frees_the_gpu_and_what_it_sent_to_the_cpu_comes_back_after_it():
    def load(reference, gpu):
        loads.append((reference, gpu))
        on_cpu = reference == "small" or gpu == "none"
        note = "on the CPU" if on_cpu and reference != "small" else None
        return FakeModel(reference, device_type="cpu" if on_cpu else "cuda", placement_note=note)

    loads, models = [], ChatModels(load)
    models.get("small")
    models.get("large")
    models.gpu_use = "none"
    models.forget_misplaced()
    assert models.references == ["small"]
    assert models.get("large").placement_note
    models.gpu_use = "all"
    assert models.get("large").device_type == "cuda"
    assert models.get("small").device_type == "cpu"
    assert loads == [("small", "all"), ("large", "all"), ("large", "none"), ("large", "all")]


def test_an_answer_from_the_gpu_ends_where_a_training_starts():
    def load(reference, gpu):
        return FakeModel(reference, device_type=reference)

    def post(message):
        messages.append(message)
        if isinstance(message, AnswerGrew):
            models.gpu_use = "none"

    messages, models = [], ChatModels(load)
    answer([request(1, "cuda"), request(2, "cpu")], models, post, threading.Event())
    (failed,) = (m for m in messages if isinstance(m, AnswerFailed))
    assert failed.number == 1
    assert "a training starts" in failed.message
    assert [m.number for m in messages if isinstance(m, AnswerEnded)] == [2]


def test_the_chat_imports_no_torch_before_the_first_prompt():
    program = "import sys, gpt2tui.tui.chat.screen\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
