"""`gpt2tui eval CHECKPOINT TASK...` from files in the published layouts, and `--known-answers`."""

import json
import math

import pyarrow
import pyarrow.parquet
import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import DataError
from gpt2tui.evaluation import known_answers
from gpt2tui.evaluation.task_files import file_rows, find_files, task_rows
from gpt2tui.evaluation.tasks import TASKS
from tests.evaluation.random_gpt2 import random_gpt2

LN_V = math.log(257)
PASSAGES = [{"text": "the lazy dog"}, {"text": "a fox"}]
STORY = {
    "activity_label": "Roof",
    "ctx_a": "A man sits.",
    "ctx_b": "he",
    "ctx": "A man sits. he",
    "endings": ["jumps.", "is using wrap.", "runs off", "eats."],
    "label": 3,
}


@pytest.fixture
def uniform(tmp_path):
    """Gives each of 257 tokens the same probability."""
    return random_gpt2(tmp_path / "uniform", scale=0.0)


@pytest.fixture
def data(tmp_path):
    """A folder with the files of several tasks, named as they are published."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "lambada_test.jsonl", PASSAGES)
    write_lines(folder / "hellaswag_val.jsonl", [STORY])
    write_lines(folder / "hellaswag_train.jsonl", [{**STORY, "label": 0}])
    (folder / "wiki.test.raw").write_text(" = Fox = \n \n The fox ran . \n")
    return folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_several_tasks_of_a_folder(uniform, data, capsys):
    assert main(["eval", str(uniform), "lambada", "hellaswag", "wikitext", "--data", str(data), "--json"]) == 0
    lambada, hellaswag, wikitext = json.loads(capsys.readouterr().out)["tasks"]
    assert (lambada["task"], lambada["documents"], lambada["precision"]) == ("lambada", 2, "fp32")
    assert math.log(lambada["metrics"]["perplexity"]) == pytest.approx(4 * LN_V, rel=1e-6)
    assert lambada["source"] == str(data / "lambada_test.jsonl")
    assert hellaswag["metrics"] == {"acc": 1, "acc_norm": 0}
    assert hellaswag["standard_errors"] == {"acc": None, "acc_norm": None}  # of one document
    assert "characters" in hellaswag["meanings"]["acc_norm"]
    assert wikitext["metrics"]["token_perplexity"] == pytest.approx(257, rel=1e-5)


def test_the_table_names_what_each_metric_is_divided_by(uniform, data, capsys):
    assert main(["eval", str(uniform), "hellaswag", "wikitext", "--data", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "acc_norm: the same with the sum divided by the characters of the choice" in printed
    assert "word_perplexity: per word of the original text" in printed
    assert "fp32" in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lambda"], 2, "there is no task lambda; did you mean lambada?"),
        (["lambada", "--data", "nowhere.jsonl"], 3, "nowhere.jsonl does not exist"),
        (["multiple-choice"], 3, "has no data set of its own; name a file with --data"),
        (["lambada", "--stride", "4"], 2, "the task lambada does not go with --stride"),
        (["--data", "x.jsonl"], 2, "--data is the data of a task"),
        (["lambada", "--known-answers"], 2, "--known-answers does not go with a task"),
        (["lambada"], 3, "the data of the task lambada is missing: EleutherAI/lambada_openai"),  # offline
    ],
)
def test_what_cannot_be_measured_is_said(uniform, capsys, words, code, message):
    assert main(["eval", str(uniform), *words]) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_file_of_another_layout_is_a_data_error(uniform, data, capsys):
    assert main(["eval", str(uniform), "hellaswag", "--data", str(data / "lambada_test.jsonl")]) == 3
    assert "row 1 is not in the layout of this task: it has no ctx_a" in " ".join(capsys.readouterr().err.split())


def test_rows_are_the_same_from_each_kind_of_file(tmp_path):
    write_lines(tmp_path / "rows.jsonl", PASSAGES)
    (tmp_path / "rows.json").write_text(json.dumps(PASSAGES))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PASSAGES), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.json", "rows.parquet"):
        assert list(file_rows(tmp_path / name)) == PASSAGES, name
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    assert list(file_rows(tmp_path / "rows.txt")) == [{"text": "one\n"}, {"text": "two\n"}]


@pytest.mark.parametrize("content", ["{not json}\n", "[1]\n", '"text"\n'])
def test_lines_that_are_no_objects_are_data_errors(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"rows.jsonl:1 is not (a )?JSON"):
        list(file_rows(path))


def test_the_parts_of_one_file_belong_together_and_other_splits_are_left_out(tmp_path):
    folder = tmp_path / "hellaswag" / "data"
    folder.mkdir(parents=True)
    names = ["validation-00000-of-00002.jsonl", "validation-00001-of-00002.jsonl", "test.jsonl", "train.jsonl"]
    for name in names:
        write_lines(folder / name, [STORY])
    assert find_files(TASKS["hellaswag"], tmp_path) == [folder / name for name in names[:2]]
    assert find_files(TASKS["hellaswag"], folder.parent) == [folder / name for name in names[:2]]


def test_a_choice_between_files_is_left_to_the_user(tmp_path):
    for name in ("lambada_test_en.jsonl", "lambada_test_fr.jsonl"):
        write_lines(tmp_path / name, PASSAGES)
    with pytest.raises(DataError, match=r"several files .* lambada_test_en.jsonl, lambada_test_fr.jsonl; name one"):
        find_files(TASKS["lambada"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no file of the task lambada"):
        find_files(TASKS["lambada"], tmp_path / "empty")


def test_a_data_set_of_the_hub_gives_the_rows_of_its_split(tmp_path, monkeypatch):
    """A local folder in the Hub's form, which `datasets` reads as it reads a download."""
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "test.jsonl", PASSAGES)
    write_lines(tmp_path / "train.jsonl", [{"text": "not this"}])
    _, rows = task_rows(TASKS["lambada"], f"hf:{tmp_path}")
    assert list(rows) == PASSAGES


def test_the_published_numbers_are_those_of_their_sources():
    answers = known_answers.known_answers()
    assert len(answers) == 35
    values = {(a.model, a.task, a.metric, a.how.partition(",")[0]): a.value for a in answers}
    assert values["124M", "hellaswag", "acc_norm", "llm.c's completion style"] == 0.2955
    assert values["1558M", "hellaswag", "acc_norm", "lm-evaluation-harness"] == 0.5089
    assert values["774M", "wikitext-2", "perplexity per word", "the paper's invertible detokenizer"] == 19.93
    assert all(answer.source and answer.how for answer in answers)
    assert all((answer.measure is None) == bool(answer.missing) for answer in answers)


def test_known_answers_measure_compare_and_judge(uniform, data, capsys, monkeypatch):
    count = 257 * 16 + 64 * 16 + 2 * (12 * 16**2 + 13 * 16) + 2 * 16
    monkeypatch.setattr(known_answers, "SIZES", {count: "124M"})
    assert main(["eval", str(uniform), "--known-answers", "--data", str(data), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows} == {"124M"}
    measured = {(row["task"], row["metric"]): row for row in rows if row["measured"] is not None}
    acc = measured["lambada", "acc"]
    assert (acc["published"], acc["measured"], acc["difference"], acc["verdict"]) == (0.3256, 0, -0.3256, "differs")
    assert measured["wikitext-2", "perplexity per token"]["measured"] == pytest.approx(257, rel=1e-5)
    assert {row["verdict"] for row in rows if row["task"] == "CORE"} == {
        "not measured: gpt2tui does not have all of its 22 tasks"
    }


def test_a_value_within_one_percent_agrees():
    answer = known_answers.KnownAnswer("124M", "t", "m", 0.5, "how", "source", measure={"task": "t", "metric": "m"})
    for value, verdict in ((0.5049, "agrees"), (0.4951, "agrees"), (0.506, "differs")):
        found = known_answers._judged(answer, known_answers.TaskResult(3, {"m": value}, {}))
        assert (found.verdict, found.difference) == (verdict, value - 0.5)


def test_without_the_data_known_answers_say_what_is_missing(uniform, tmp_path, capsys, monkeypatch):
    count = 257 * 16 + 64 * 16 + 2 * (12 * 16**2 + 13 * 16) + 2 * 16
    monkeypatch.setattr(known_answers, "SIZES", {count: "124M"})
    (tmp_path / "empty").mkdir()
    assert main(["eval", str(uniform), "--known-answers", "--data", str(tmp_path / "empty")]) == 3
    output = capsys.readouterr()
    assert "has no file of the task lambada" in " ".join(output.out.split())
    assert "nothing was measured" in output.err


def test_without_the_model_known_answers_list_what_is_published(capsys):
    assert main(["eval", "openai-community/gpt2", "--known-answers"]) == 4
    output = capsys.readouterr()
    assert "not measured: the model is missing" in output.out
    assert "0.3256" in output.out
    assert "cannot be reached" in " ".join(output.err.split())


def test_a_model_of_another_size_has_no_known_answers(uniform, capsys):
    assert main(["eval", str(uniform), "--known-answers"]) == 3
    assert "numbers are published for GPT-2 with 124,439,808" in " ".join(capsys.readouterr().err.split())
