import threading
import time

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
