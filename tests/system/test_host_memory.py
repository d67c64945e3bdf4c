"""Blocks that are freed and wanted again cost no page faults, in any thread; a process of its own has the settings."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
from gpt2tui.system.host_memory import give_back_freed_memory, keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        bytearray(100_000_000)  # filled with zeros
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def measure():
    faults()
    found.append(faults())

found = []
measure()
thread = threading.Thread(target=measure)
thread.start()
thread.join()
held = resident()
give_back_freed_memory()
print(*found, held - resident())
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


def measured(*arguments):
    program = [sys.executable, "-c", PROGRAM, *arguments]
    return [int(n) for n in subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()]


@needs_glibc
def test_freed_memory_is_used_again_in_every_thread_until_it_is_given_back():
    here, in_a_thread, given_back = measured("keep")
    assert max(here, in_a_thread) < 1_000
    assert given_back > 90_000_000


@needs_glibc
def test_without_the_settings_the_system_is_asked_each_time():
    here, in_a_thread, _ = measured()
    assert min(here, in_a_thread) > 1_000  # bytearray would ask for 73,000 small pages, or for 150 huge ones


def test_other_systems_stay_as_they_are(monkeypatch):
    from gpt2tui.system import host_memory

    for error in (TypeError, OSError, AttributeError):

        def unavailable(name, error=error):
            raise error

        monkeypatch.setattr(host_memory.ctypes, "CDLL", unavailable)
        host_memory.keep_freed_memory()
        host_memory.give_back_freed_memory()
