import os
import signal
import threading
import time
from collections import deque

from gpt2tui.training.controls import Controls


def test_requests_come_out_in_order_and_once():
    controls = Controls()
    controls.request("evaluate")
    controls.request("sample")
    assert controls.decide().requests == ("evaluate", "sample")
    assert controls.decide().requests == ()


def test_stop_ends_a_pause():
    controls = Controls()
    controls.pause()
    assert controls.paused
    controls.stop()
    assert not controls.paused
    assert controls.stopping


def test_wait_returns_when_resumed_from_another_thread():
    controls = Controls()
    controls.pause()
    threading.Timer(0.05, controls.resume).start()
    started = time.monotonic()
    controls.wait(20)
    assert time.monotonic() - started < 10
    assert not controls.paused


def test_a_request_made_while_waiting_is_not_lost():
    controls = Controls()
    controls.pause()
    controls.request("checkpoint")
    controls.wait(20)
    decision = controls.decide()
    assert decision.requests == ("checkpoint",)
    assert decision.pause


def test_nothing_that_threads_set_while_the_loop_decides_is_lost():
    controls, threads, each = Controls(), 4, 2000
    begin = threading.Barrier(threads + 1)

    def ask(number):
        begin.wait()
        for i in range(each):
            controls.request("sample")
            controls.change_learning_rate(float(number * each + i))
            controls.copy_weights()

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    requests, copies, last = 0, 0, None

    def decide():
        nonlocal requests, copies, last
        decision = controls.decide()
        requests += len(decision.requests)
        last = decision.learning_rate_factor if decision.learning_rate_factor is not None else last
        while decision.copy_weights and controls.next_copy() is not None:
            copies += 1

    while any(worker.is_alive() for worker in workers):
        decide()
    decide()
    assert (requests, copies) == (threads * each, threads * each)
    assert last in {float(number * each + each - 1) for number in range(threads)}


def test_a_change_of_the_learning_rate_between_reading_and_forgetting_the_last_one_is_kept():
    controls = Controls()

    class Interrupting(deque):
        """Another thread sets a control just after one was taken."""

        def popleft(self):
            taken = super().popleft()
            if taken == 0.5:
                controls.change_learning_rate(0.25)
            return taken

    controls._factors = Interrupting()
    controls.change_learning_rate(0.5)
    assert controls.decide().learning_rate_factor == 0.25


def test_a_control_can_be_set_in_a_signal_handler_while_the_loop_waits():
    controls = Controls()
    controls.pause()
    before = signal.signal(signal.SIGINT, lambda *_: controls.stop())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        controls.wait(20)
        assert time.monotonic() - started < 10
    finally:
        signal.signal(signal.SIGINT, before)
    assert controls.decide().stop
