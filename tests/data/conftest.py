"""A folder of text files, and an empty cache."""

import pytest

from tests.data.corpus_files import write
from tests.data.preparing import TEXTS


@pytest.fixture
def folder(tmp_path):
    for name, text in TEXTS.items():
        write(tmp_path / "texts" / name, text)
    return tmp_path / "texts"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"
