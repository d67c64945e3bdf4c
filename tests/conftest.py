"""Every test has its own folders for runs, cache and configuration, and no network."""

import os
import random
import signal
import sys

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
# The models are tiny and several tests run at once: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `&` in a script makes the suite ignore SIGINT, nohup SIGHUP; programs under test would inherit that.
for number, default in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGHUP", None), signal.SIG_DFL)):
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("RUNS", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"GPT2TUI_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(autouse=True)
def own_random_numbers():
    """The same in each test, whatever ran before it in its process."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_addoption(parser):
    parser.addoption("--update-snapshots", action="store_true", help="store the screens as they are drawn now")


def pytest_xdist_auto_num_workers():
    """One more than there are processors: a third of the time the tests wait for screens and processes."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


def pytest_collection_modifyitems(items):
    """What takes long begins first, so that nobody waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
