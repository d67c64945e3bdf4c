"""Prompts and answers: the columns, the template, the windows and their mask, and the store."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import transformers

from gpt2tui.data import tokenizers
from gpt2tui.data.batches import Batches, evaluation_batches
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.examples import ExampleLayout, tokens_of
from gpt2tui.data.readiness import check_data
from gpt2tui.data.token_store import find_prepared, prepare
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.errors import CheckpointError, DataError
from gpt2tui.evaluation.validation import validation_loss
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import published_views
from gpt2tui.model.published_config import published_config
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import DataTable, ModelTable, Preset, TrainingTable
from gpt2tui.preset.template import Template
from tests.data.corpus_files import write
from tests.tiny_runs import finish

COLUMNS = {"prompt_column": "q", "completion_column": "a"}
SHORT = "{prompt}>{completion}"
EOT = 256
ROWS = [{"q": "ab", "a": "c"}, {"q": "d", "a": "ef"}]


def write_rows(path, rows):
    """Rows of any values as .jsonl, .csv or .parquet."""
    kind = path.suffix
    if kind == ".jsonl":
        return write(path, "".join(json.dumps(row) + "\n" for row in rows))
    if kind == ".csv":
        quoted = ['"' + str(value).replace('"', '""') + '"' for row in rows for value in row.values()]
        fields = len(rows[0])
        lines = [",".join(quoted[i : i + fields]) for i in range(0, len(quoted), fields)]
        return write(path, "\n".join([",".join(rows[0]), *lines, ""]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def opened(path, **table):
    return open_corpus(DataTable(source=str(path), **{**COLUMNS, **table}))


def both(corpus):
    return sorted([*corpus.examples("train"), *corpus.examples("validation")])


def laid(corpus, split, T, tokenizer=None):
    layout = ExampleLayout(corpus, split, tokenizer or ByteTokenizer(), T)
    tokens, mask = layout.whole()
    return layout, tokens.tolist(), mask.tolist()


def preset(path, T=8, **table):
    data = DataTable(source=str(path), tokenizer="byte", **{**COLUMNS, "template": SHORT, **table})
    model = ModelTable(n_positions=max(T, 16), n_embd=16, n_layer=1, n_head=2)
    return Preset(model=model, data=data, training=TrainingTable(sequence_length=T))


@pytest.fixture
def split_folder(tmp_path):
    """Two training examples and one of validation."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", ROWS)
    write_rows(tmp_path / "data" / "validation.jsonl", [{"q": "x", "a": "y"}])
    return tmp_path / "data"


# ---- columns


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_prompts_and_answers_are_read_from_their_columns(kind, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", [{"a": "c\r\n!", "q": 'a "b"'}, {"a": "ef", "q": "d"}])
    assert both(opened(path)) == [[('a "b"', "c\n!")], [("d", "ef")]]


@pytest.mark.parametrize("document", [ROWS, {"data": ROWS}, {"q": ["ab", "d"], "a": ["c", "ef"]}])
def test_json_documents_hold_them_in_each_form(document, tmp_path):
    assert both(opened(write(tmp_path / "rows.json", json.dumps(document)))) == [[("ab", "c")], [("d", "ef")]]


def test_columns_may_be_inside_of_others(tmp_path):
    rows = [{"x": {"q": "ab", "a": "c"}}, {"x": {"q": "d", "a": "ef"}}]
    for kind in ("jsonl", "parquet"):
        path = write_rows(tmp_path / f"rows.{kind}", rows)
        found = opened(path, prompt_column="x.q", completion_column="x.a")
        assert both(found) == [[("ab", "c")], [("d", "ef")]]


CONVERSATIONS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "not answered"},
    ],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
]
TURNS = [[("Be brief.\n\nhi", "hello"), ("one\n\ntwo", "three")], [("a", "b")]]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_messages_become_turns(kind, tmp_path):
    rows = [{"m": json.dumps(messages) if kind == "csv" else messages} for messages in CONVERSATIONS]
    path = write_rows(tmp_path / f"rows.{kind}", rows)
    found = open_corpus(DataTable(source=str(path), messages_column="m"))
    assert both(found) == TURNS


def test_messages_in_sharegpts_form_become_the_same_turns(tmp_path):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = [{"m": [{"from": names[m["role"]], "value": m["content"]} for m in each]} for each in CONVERSATIONS]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    assert both(open_corpus(DataTable(source=str(path), messages_column="m"))) == TURNS


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (
            [{"user": "human", "text": "x"}],
            "rows.jsonl:1 has in column m a message that is an object with user, text",
        ),
        ([{"from": "bing", "value": "x"}], "a message of the role 'bing'; roles are system, user and assistant"),
        ([{"from": [], "value": "x"}], "a message of the role []; roles are system, user and assistant"),
        ([{"role": "tool", "content": "x"}], "a message of the role 'tool'; roles are system, user and assistant"),
        ([{"role": "user", "content": [1]}], "a message whose content is list, not text"),
        ("text", "text that is not a list of"),
        (["text"], "a message that is no object"),
    ],
)
def test_messages_of_another_form_are_refused_with_their_place(messages, said, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"m": messages}])
    with pytest.raises(DataError) as error:
        list(open_corpus(DataTable(source=str(path), messages_column="m")).examples("train"))
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("wrong", "setting"), [("prompt_column", "p"), ("completion_column", "reply")])
def test_a_missing_column_is_named_with_those_that_are_there(kind, wrong, setting, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", ROWS)
    with pytest.raises(DataError) as error:
        list(opened(path, **{wrong: setting}).examples("train"))
    assert f"rows.{kind} has no column {setting}; it has q, a" in str(error.value)
    assert "data.prompt_column and data.completion_column" in str(error.value)


def test_text_that_is_missing_beside_prompts_and_answers_hints_at_their_settings(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"instruction": "ab", "output": "c"}])
    with pytest.raises(DataError, match=r"set data.prompt_column=instruction and data.completion_column=output"):
        list(open_corpus(DataTable(source=str(path))).documents("train"))
    for name in ("messages", "conversations"):
        path = write_rows(tmp_path / f"{name}.jsonl", [{name: CONVERSATIONS[1]}])
        with pytest.raises(DataError, match=f"set data.messages_column={name}"):
            list(open_corpus(DataTable(source=str(path))).documents("train"))


def test_a_table_without_a_header_is_answered(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("0,the lazy dog climbs over the hills and the children sing a song\n1,another line\n")
    with pytest.raises(DataError, match=r"it has 0, the lazy dog .*… *; these look like values: .*such as text, into"):
        list(open_corpus(DataTable(source=str(path))).documents("train"))


@pytest.mark.parametrize("source", ["python-stdlib", "words.txt"])
def test_text_has_no_columns(source, tmp_path):
    write(tmp_path / "words.txt", "some text\n" * 20)
    source = source if source == "python-stdlib" else tmp_path / source
    with pytest.raises(DataError, match=r"is text, which has no columns; .* or leave out data.prompt_column"):
        opened(source)


def test_empty_answers_are_left_out_counted_and_named(tmp_path):
    rows = [*ROWS, {"q": "no", "a": " "}, {"q": "none"}, {"a": "unasked"}, {"q": "", "a": "an empty prompt is one"}]
    corpus = opened(write_rows(tmp_path / "rows.jsonl", rows))
    assert both(corpus) == [[("", "an empty prompt is one")], [("ab", "c")], [("d", "ef")]]
    (notice,) = corpus.reading_notices()
    assert notice == (
        f"3 of 6 rows of {tmp_path / 'rows.jsonl'} are left out: they have no prompt in column q or no answer in "
        "column a (first rows.jsonl:3)"
    )


def test_a_corpus_without_any_answer_is_refused(tmp_path):
    corpus = opened(write_rows(tmp_path / "rows.jsonl", [{"q": "a", "a": ""}]))
    with pytest.raises(DataError, match="no answer in column a"):
        list(corpus.examples("train"))


def test_a_single_example_leaves_none_for_validation(tmp_path):
    corpus = opened(write_rows(tmp_path / "rows.jsonl", [ROWS[0], ROWS[0]]))
    with pytest.raises(DataError, match="the same; there must be another one for validation"):
        list(corpus.examples("train"))


# ---- the template


def test_spaces_before_the_answer_belong_to_it():
    template = Template("Q: {prompt}\nA:  {completion}\n")
    assert (template.asked("x"), template.answered("y")) == ("Q: x\nA:", "  y\n")
    assert template.completion_in("  y\n") == "y"
    assert Template("{prompt} {x} {completion}").asked("{completion}") == "{completion} {x}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{prompt}", "no {completion}"),
        ("{completion}", "no {prompt}"),
        ("{prompt}{completion}{prompt}", "2 times {prompt}"),
        ("{completion}{prompt}", "{completion} stands before {prompt}"),
    ],
)
def test_a_template_needs_both_once_and_in_order(text, said):
    assert said in Template(text).problem
    assert said in str(preset("x", template=text).inconsistencies())


TEMPLATES = [Template(), Template('<a href="\\n">{prompt}</a>\n### é 🙂 "{completion}"')]


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_transformers_chat_template_gives_the_tokens_of_the_training(template, tmp_path):
    tokenizer = tokenizers.gpt2()
    tokenizers.save(tokenizer, tmp_path, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    asked = theirs.apply_chat_template(CONVERSATIONS[0], tokenize=False)
    parts = [EOT_TEXT, *(p for t in TURNS[0] for p in (template.asked(t[0]), template.answered(t[1]), EOT_TEXT))]
    assert asked == "".join(parts) + template.asked("not answered")
    if template == Template():  # of which no token reaches from a prompt into its answer
        ids = theirs.apply_chat_template(CONVERSATIONS[0], return_dict=True)["input_ids"]
        assert ids == tokens_of(TURNS[0], "not answered", template, tokenizer)


EOT_TEXT = "<|endoftext|>"


def test_the_template_is_found_beside_the_tokenizer(tmp_path):
    tokenizers.save(ByteTokenizer(), tmp_path)
    assert tokenizers.template_in(tmp_path) is None
    tokenizers.save(ByteTokenizer(), tmp_path, Template(SHORT))
    assert tokenizers.template_in(tmp_path) == Template(SHORT)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace(SHORT, "{prompt}"))
    with pytest.raises(CheckpointError, match="gpt2tui_template is not a template"):
        tokenizers.template_in(tmp_path)


# ---- windows and masks, computed by hand


def test_windows_hold_whole_examples_and_count_their_answers(split_folder):
    _, tokens, mask = laid(opened(split_folder, template=SHORT), "train", 8)
    # "ab>" "c" EOT is five tokens, "d>" "ef" EOT too, so each has a window of eight.
    assert tokens == [EOT, *b"ab>c", EOT, EOT, EOT, EOT, *b"d>ef", EOT, EOT, EOT, EOT]
    assert mask == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_a_window_holds_as_many_examples_as_it_has_room_for(split_folder):
    _, tokens, mask = laid(opened(split_folder, template=SHORT), "train", 11)
    assert tokens == [EOT, *b"ab>c", EOT, *b"d>ef", EOT, EOT]
    assert mask == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]


def test_the_loss_may_be_on_all_tokens_of_the_examples(split_folder):
    _, _, mask = laid(opened(split_folder, template=SHORT, loss_on="all"), "train", 11)
    assert mask == [0, *[1] * 10, 0]


def test_an_answer_longer_than_the_window_is_cut_and_a_prompt_that_fills_it_leaves_nothing(tmp_path):
    (tmp_path / "data").mkdir()
    rows = [{"q": "ab", "a": "cdefghi"}, {"q": "abcdefghi", "a": "x"}, {"q": "abcdef", "a": "x"}]
    write_rows(tmp_path / "data" / "train.jsonl", rows)
    write_rows(tmp_path / "data" / "validation.jsonl", ROWS)
    layout, tokens, mask = laid(opened(tmp_path / "data", template=SHORT), "train", 8)
    assert tokens == [EOT, *b"ab>cdef", EOT]  # the last one does not count: the answer does not end there
    assert mask == [0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert (layout.examples, layout.cut, layout.left_out) == (3, 1, 2)
    corpus = finish(prepare(preset(tmp_path / "data"), tmp_path / "cache"))
    source = tmp_path / "data"
    window = "a window of 8 tokens (training.sequence_length)"
    assert f"1 of 5 examples of {source} are longer than {window}: their ends are cut off" in corpus.notices
    assert f"2 of 5 examples of {source} are left out: their prompts alone fill {window}" in corpus.notices


def test_a_split_whose_prompts_all_fill_the_window_is_refused(tmp_path):
    rows = [{"q": "abcdefghi", "a": "x"}, {"q": "bcdefghij", "a": "x"}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="no validation example fits into a window of 8 tokens"):
        finish(prepare(preset(path), tmp_path / "cache"))


def test_each_answer_of_a_conversation_counts_and_is_ended(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"m": messages} for messages in CONVERSATIONS])
    corpus = open_corpus(DataTable(source=str(path), messages_column="m", template=SHORT))
    (turns,) = [turns for turns in both(corpus) if len(turns) == 2]
    split = "train" if turns in list(corpus.examples("train")) else "validation"
    _, tokens, mask = laid(corpus, split, 64)
    counted = [token for token, one in zip(tokens, mask, strict=True) if one]
    assert counted == [*b"hello", EOT, *b"three", EOT]


def test_no_example_is_lost_or_divided_however_they_are_packed(tmp_path):
    rows = [{"q": "q" * (n % 7), "a": f"{n:03}" + "a" * (n * n % 23)} for n in range(400)]
    corpus = opened(write_rows(tmp_path / "rows.jsonl", rows), template=SHORT)
    layout, tokens, _ = laid(corpus, "train", 32)
    windows = np.array(tokens[1:]).reshape(-1, 32)
    found = [bytes(part) for w in windows for part in " ".join(map(str, w)).split(" 256") for part in [part.split()]
             if part for part in [list(map(int, part))]]  # fmt: skip
    expected = [f"{q}>{a}".encode() for turns in corpus.examples("train") for q, a in turns]
    assert sorted(found) == sorted(expected)
    assert (windows[:, -1] == EOT).all()
    # First fit leaves little: the tokens of the examples are most of all.
    assert sum(len(text) + 1 for text in expected) > 0.9 * windows.size
    assert layout.cut == layout.left_out == 0


# ---- store and batches


def test_the_store_keeps_the_mask(split_folder, tmp_path):
    corpus = finish(prepare(preset(split_folder, T=11), tmp_path / "cache"))
    assert isinstance(corpus.train_mask, np.memmap)
    assert corpus.train.tolist() == [EOT, *b"ab>c", EOT, *b"d>ef", EOT, EOT]
    assert corpus.train_mask.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert corpus.validation_mask.tolist() == [0, 0, 0, 1, 1, *[0] * 7]
    assert corpus.xz_bits_per_byte is None
    assert corpus.template == Template(SHORT)
    again = find_prepared(preset(split_folder, T=11), tmp_path / "cache")
    assert again.train_mask.tolist() == corpus.train_mask.tolist()


@pytest.mark.parametrize(
    "changes",
    [{"loss_on": "all"}, {"template": "{prompt}:{completion}"}, {"T": 12}, COLUMNS | {"completion_column": "q"}],
)
def test_another_mask_is_another_store(changes, split_folder, tmp_path):
    finish(prepare(preset(split_folder, T=11), tmp_path / "cache"))
    assert find_prepared(preset(split_folder, **{"T": 11, **changes}), tmp_path / "cache") is None


def test_a_damaged_mask_is_made_again(split_folder, tmp_path):
    cache = tmp_path / "cache"
    wanted = finish(prepare(preset(split_folder), cache)).train_mask.tolist()
    (path,) = cache.glob("tokens/*/train.mask.bin")
    path.write_bytes(bytes([1]) + path.read_bytes()[1:])
    assert find_prepared(preset(split_folder), cache) is None
    assert finish(prepare(preset(split_folder), cache)).train_mask.tolist() == wanted


def test_the_store_of_text_is_the_same_as_before_there_were_masks(tmp_path):
    path = write(tmp_path / "words.txt", "some text\n" * 200)
    table = DataTable(source=str(path), tokenizer="byte")
    text = Preset(data=table, model=ModelTable(n_positions=16), training=TrainingTable(sequence_length=8))
    corpus = finish(prepare(text, tmp_path / "cache"))
    assert corpus.train_mask is None
    assert corpus.template is None
    (meta,) = (tmp_path / "cache").glob("tokens/*/meta.json")
    assert json.loads(meta.read_text())["settings"] == {
        "format": 1,
        "source": str(path),
        "tokenizer": "byte",
        "vocab_size": None,
        "validation_fraction": 0.05,
        "text_column": "text",
        "streaming": False,
    }


def test_batches_begin_where_windows_begin_and_ignore_what_does_not_count(split_folder, tmp_path):
    corpus = finish(prepare(preset(split_folder), tmp_path / "cache"))
    batches = Batches(
        corpus.train, seed=1, batch_size=2, gradient_accumulation=1, sequence_length=8, mask=corpus.train_mask
    )
    assert batches.epoch_of(1) == 1.0
    for step in range(3):
        ((x, y),) = batches.micro_batches(step)
        assert sorted(x.tolist()) == sorted([[EOT, *b"ab>c", *[EOT] * 3], [EOT, *b"d>ef", *[EOT] * 3]])
        assert sorted(y.tolist()) == sorted([[-1, -1, -1, *b"c", EOT, -1, -1, -1], [-1, -1, *b"ef", EOT, -1, -1, -1]])


def test_the_loss_is_transformers_loss_with_labels_of_minus_100(split_folder, tmp_path):
    """Over both windows, whose answers differ in length: the mean is over tokens, not over windows."""
    corpus = finish(prepare(preset(split_folder), tmp_path / "cache"))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    ours = GPT2(config).eval()
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**_known(published_config(config, EOT)))).eval()
    missing = theirs.load_state_dict(published_views(ours.state_dict(), config), strict=False).missing_keys
    assert missing == ["lm_head.weight"]
    theirs.tie_weights()
    ids = torch.tensor([[EOT, *b"ab>c", EOT, EOT, EOT], [EOT, *b"d>ef", EOT, EOT, EOT]])
    labels = torch.tensor(
        [[-100, -100, -100, -100, *b"c", EOT, -100, -100], [-100, -100, -100, *b"ef", EOT, -100, -100]]
    )
    with torch.no_grad():
        wanted = theirs(ids, labels=labels).loss.item()
    tokens = corpus.tokenizer.token_bytes()
    measured = validation_loss(ours, evaluation_batches(corpus.train, 2, 8, None, corpus.train_mask), tokens)
    assert measured.val_loss == pytest.approx(wanted, abs=1e-5)
    assert (measured.tokens, measured.bytes) == (5, 3)  # c, EOT, e, f, EOT, of which c, e, f have a byte each
    assert measured.bits_per_byte == pytest.approx(5 * wanted / np.log(2) / 3, rel=1e-5)


def _known(config):
    return {k: v for k, v in config.items() if k not in ("architectures", "model_type")}


# ---- settings that do not fit


@pytest.mark.parametrize(
    ("table", "key", "said"),
    [
        ({"prompt_column": "q"}, "data.prompt_column", "completion_column is missing"),
        ({"completion_column": "a"}, "data.completion_column", "prompt_column is missing"),
        ({**COLUMNS, "messages_column": "m"}, "data.messages_column", "either a prompt and an answer or a list"),
        ({**COLUMNS, "text_column": "text"}, "data.text_column", "either text or prompts and answers"),
        ({"template": SHORT}, "data.template", "name their columns"),
        ({**COLUMNS, "streaming": True}, "data.streaming", "laid into windows before training"),
    ],
)
def test_settings_that_contradict_are_refused(table, key, said):
    found = {each.key: each.message for each in Preset(data=DataTable(**table)).inconsistencies()}
    assert said in found[key]


def test_text_column_is_text_unless_other_columns_are_named():
    assert DataTable().text_column == "text"
    assert DataTable(**COLUMNS).text_column is None
    assert DataTable(messages_column="m").text_column is None


def test_a_dry_run_reads_the_columns(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    check_data(LoadedPreset("x", preset(path), ()), window=1025)  # examples need not fill a window
    with pytest.raises(DataError, match="has no column nothing"):
        check_data(LoadedPreset("x", preset(path, prompt_column="nothing"), ()), window=9)
