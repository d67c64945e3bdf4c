"""Where memory-mapped tokens lie, for another process to open."""

import numpy as np
import pytest

from gpt2tui.data.joined_tokens import JoinedTokens, open_parts, parts_on_disk


@pytest.fixture
def files(tmp_path):
    """Two files of tokens, the second behind a header of 10 bytes."""
    for name, header, numbers in (("a", 0, range(100)), ("b", 10, range(100, 150))):
        (tmp_path / name).write_bytes(b"h" * header + np.array(numbers, dtype="<u2").tobytes())
    first = np.memmap(tmp_path / "a", dtype="<u2", mode="r")
    return first, np.memmap(tmp_path / "b", dtype="<u2", mode="r", offset=10)


def test_tokens_of_a_file_and_a_part_of_it_are_found_again(files):
    for tokens in (files[0], files[0][7:40], files[0][7:40][3:9], files[1], files[1][1:]):
        (part,) = parts_on_disk(tokens)
        assert part.tokens == len(tokens)
        assert open_parts([part])[:].tolist() == tokens.tolist()


def test_tokens_of_several_files_are_found_again(files):
    joined = JoinedTokens(files).between(90, 120)
    assert len(parts_on_disk(joined)) == 2
    assert open_parts(parts_on_disk(joined))[:].tolist() == list(range(90, 120))


def test_tokens_in_memory_are_nowhere_on_disk(files):
    assert parts_on_disk(np.arange(5)) == ()
    assert parts_on_disk(JoinedTokens([files[0], np.arange(5)])) == ()
