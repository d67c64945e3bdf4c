"""What two ranks have in common: the tied embedding of which each has a share, and the numbers that they exchange."""

import json

import pytest

from tests.training.rank_processes import LIMIT, torchrun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    process = torchrun(2, "tests.training.rank_checks", str(folder), log=folder / "log.txt")
    try:
        assert process.wait(LIMIT) == 0, (folder / "log.txt").read_text()
    finally:
        process.terminate()
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_weights_stay_tied_through_shard_save_and_reload(two):
    """Each rank has filled its five rows of the embedding with a number of its own."""
    for rank in two:
        found = rank["tied"]
        assert found["embedding"] == pytest.approx([0.1] * 5 + [0.2] * 5)
        assert found["losses"][0] == pytest.approx(found["losses"][1], abs=1e-6)
        assert found["logits_are_of_the_embedding"]
        assert not any("head" in name for name in found["names"])
        assert found["gradients"] < 1e-6 < found["gradient_size"]
    assert two[0]["tied"] == two[1]["tied"]


def test_numbers_are_over_all_ranks_and_a_decision_is_that_of_rank_0(two):
    for number, rank in enumerate(two):
        assert rank["exchanged"] == {
            "largest": [2.0, -1.0],
            "stopped_by": [1, 15],
            "sums": [3.0, 30.0],
            "decided": True,
            "gathered": [1 - number],
        }
