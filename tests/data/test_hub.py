import http.server
import json
import threading

import pytest

from gpt2tui.data import hub, token_store
from gpt2tui.data.hub import is_article_title
from gpt2tui.data.row_content import TextColumn
from gpt2tui.errors import DataError
from gpt2tui.preset import files as preset_files
from tests.data.corpus_files import both, opened, write_hub_folder, write_rows

TRAIN = [f"training document {i}\n" for i in range(700)]
VALIDATION = [f"held-out document {i}\n" for i in range(20)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture
def folder(tmp_path):
    configurations = {"own-split": {"train": TRAIN, "validation": VALIDATION}, "train-only": {"train": TRAIN}}
    return write_hub_folder(tmp_path / "corpus", configurations)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_validation_split_of_its_own_is_used_as_it_is(streaming, folder):
    train, validation = both(f"hf:{folder}:own-split", streaming=streaming)
    assert train == TRAIN
    assert validation == VALIDATION


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("validation", [{"validation": VALIDATION}, {}])
def test_a_test_split_is_read_as_it_is_and_by_itself(validation, streaming, tmp_path):
    test = [f"test document {i}\n" for i in range(9)]
    folder = write_hub_folder(tmp_path / "three", {"all": {"train": TRAIN, **validation, "test": test}})
    corpus = opened(f"hf:{folder}:all", streaming=streaming)
    assert corpus.has_test
    assert list(corpus.documents("test")) == test
    assert sorted([*corpus.documents("train"), *corpus.documents("validation")]) == sorted(
        TRAIN + validation.get("validation", [])
    )


def test_without_a_test_split_there_is_none(folder):
    assert not opened(f"hf:{folder}:own-split").has_test


def test_without_a_validation_split_rows_are_set_aside_for_validation(folder):
    train, validation = both(f"hf:{folder}:train-only")
    assert sorted(train + validation) == sorted(TRAIN)
    assert 15 <= len(validation) <= 70


def test_streaming_without_a_validation_split_holds_out_the_first_rows(folder):
    train, validation = both(f"hf:{folder}:train-only", streaming=True)
    assert validation + train == TRAIN
    assert len(validation) == pytest.approx(0.05 * len(TRAIN), abs=2)


def test_streaming_holds_out_a_bounded_amount(folder, monkeypatch):
    monkeypatch.setattr("gpt2tui.data.rows.STREAMING_VALIDATION_BYTES", 200)
    train, validation = both(f"hf:{folder}:train-only", streaming=True)
    assert validation + train == TRAIN
    assert 200 <= len("".join(validation)) < 250


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("configuration", ["own-split", "train-only"])
def test_reading_goes_on_after_any_row(configuration, streaming, folder):
    corpus = opened(f"hf:{folder}:{configuration}", streaming=streaming)
    pieces = list(corpus.pieces("train"))
    for i in (0, 1, 254, 255, 256, 257, 400, len(pieces) - 2):
        position = json.loads(json.dumps(pieces[i].next))
        assert [piece.text for piece in corpus.pieces("train", position)] == [piece.text for piece in pieces[i + 1 :]]


def test_changed_files_have_another_fingerprint(folder):
    before = opened(f"hf:{folder}:train-only").fingerprint
    assert opened(f"hf:{folder}:train-only").fingerprint == before
    write_rows(folder / "train-only" / "train-00000-of-00002.parquet", TRAIN[:5])
    assert opened(f"hf:{folder}:train-only").fingerprint != before


def test_the_size_is_known_before_reading(folder):
    assert opened(f"hf:{folder}:own-split").size("train") >= len("".join(TRAIN))


WIKITEXT_LINES = [
    "",
    " = First title = \n",
    "",
    " Some text with = signs = in it . \n",
    "",
    " = = A section = = \n",
    "",
    " More text . \n",
    " = 2 = \n",
    "",
    " = Second = title = \n",
    "",
    " Its text . \n",
]


@pytest.mark.parametrize("streaming", [False, True])
def test_wikitext_lines_become_articles(streaming, tmp_path, monkeypatch):
    folder = write_hub_folder(
        tmp_path / "wikitext",
        {"wikitext-2-raw-v1": {"train": WIKITEXT_LINES * 3, "validation": WIKITEXT_LINES, "test": WIKITEXT_LINES[:8]}},
    )
    monkeypatch.setattr(hub, "WIKITEXT", str(folder))
    train, validation = both("wikitext-2", streaming=streaming)
    published = "".join(line or " \n" for line in WIKITEXT_LINES)
    assert "".join(validation) == published
    assert "".join(train) == published * 3
    first = published[: published.index(" = Second")]
    assert validation == [first, published[len(first) :]]
    corpus = opened("wikitext-2", streaming=streaming)
    assert corpus.has_test
    assert "".join(corpus.documents("test")) == "".join(line or " \n" for line in WIKITEXT_LINES[:8])


class Unseekable:
    """A stream as `datasets` has them for what cannot continue from a position."""

    def __init__(self):
        self.features = {"text": type("Text", (), {"dtype": "string"})}

    def select_columns(self, columns):
        return self

    def __iter__(self):
        return iter([{"text": "a row"}])

    def state_dict(self):
        raise NotImplementedError("this stream doesn't implement state_dict yet")


def test_a_stream_that_cannot_continue_from_a_position_is_refused_with_the_reason():
    rows = hub.HubRows("hf:some/stream", {"train": Unseekable()}, TextColumn("text"), "")
    with pytest.raises(DataError, match=r"cannot be streamed: its position cannot be saved \(this stream doesn't"):
        list(rows.rows("train"))


def test_a_local_copy_of_wikitext_is_articles_too(tmp_path):
    configurations = {"wikitext-103-raw-v1": {"train": WIKITEXT_LINES * 3, "validation": WIKITEXT_LINES}}
    folder = write_hub_folder(tmp_path / "copy", configurations)
    train, validation = both(f"hf:{folder}:wikitext-103-raw-v1")
    assert (len(train), len(validation)) == (6, 2)
    assert train[0].startswith(" \n = First title = \n")


@pytest.mark.parametrize("streaming", [False, True])
def test_reading_goes_on_after_any_article(streaming, tmp_path, monkeypatch):
    configurations = {"wikitext-2-raw-v1": {"train": WIKITEXT_LINES * 30, "validation": WIKITEXT_LINES}}
    monkeypatch.setattr(hub, "WIKITEXT", str(write_hub_folder(tmp_path / "wikitext", configurations)))
    corpus = opened("wikitext-2", streaming=streaming)
    pieces = list(corpus.pieces("train"))
    assert len(pieces) == 60
    for i in range(0, 60, 7):
        rest = [piece.text for piece in corpus.pieces("train", pieces[i].next)]
        assert rest == [piece.text for piece in pieces[i + 1 :]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" = Title = \n", True),
        (" = A = B = \n", True),
        (" = = Section = = \n", False),
        (" text = text \n", False),
        (" = \n", False),
        ("", False),
    ],
)
def test_only_headings_of_the_first_level_are_titles(line, expected):
    assert is_article_title(line) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:{folder}:train-onyl", r"'train-onyl' not found.*train-only"),
        ("hf:{folder}", r"Config name is missing.*own-split"),
        ("hf:{folder}-2:train-only", r"the folder .*corpus-2 does not exist"),
        ("hf:", r"names no data set"),
        ("hf::own-split", r"names no data set"),
        ("hf:{folder}/own-split:default:x", r"does not exist"),
    ],
)
def test_an_unknown_data_set_is_one_clear_sentence(spec, message, folder):
    with pytest.raises(DataError, match=message) as caught:
        opened(spec.format(folder=folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_is_told_with_the_columns_there_are(streaming, folder):
    with pytest.raises(DataError, match=r"no column txt; it has id, text; did you mean text\?"):
        opened(f"hf:{folder}:own-split", text_column="txt", streaming=streaming)


def test_a_column_of_numbers_is_refused(folder):
    with pytest.raises(DataError, match="int64 in column id, not text"):
        opened(f"hf:{folder}:own-split", text_column="id")


def test_a_data_set_without_training_text_is_refused(tmp_path):
    folder = write_hub_folder(tmp_path / "corpus", {"default": {"test": TRAIN}})
    with pytest.raises(DataError, match="no train split, only test"):
        opened(f"hf:{folder}")


@pytest.mark.parametrize("source", ["wikitext-103", "hf:nobody/nothing", "hf:nobody/nothing:config"])
@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_network_one_sentence_says_what_can_be_done(source, streaming):
    with pytest.raises(DataError, match=r"cannot be reached.*local files.*python-stdlib"):
        opened(source, streaming=streaming)


def test_without_a_network_the_cached_copy_is_used_and_said_so(folder, own_cache):
    online = opened(f"hf:{folder}:own-split")
    assert online.notices == ()
    next(own_cache.glob("local-*/corpus")).rename(own_cache / "somebody___corpus")
    cached = opened("hf:somebody/corpus:own-split")
    assert list(cached.documents("train")) == TRAIN
    assert "cached copy" in cached.notices[0]


def test_nothing_is_printed(folder, capfd):
    both(f"hf:{folder}:own-split")
    with pytest.raises(DataError):
        opened("hf:nobody/nothing")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def endpoint(monkeypatch):
    """Sets the address of the Hub and lets the program believe that it may use the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return lambda address: monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)


class Answer(http.server.BaseHTTPRequestHandler):
    may_answer = threading.Event()

    def do_HEAD(self):
        self.may_answer.wait(60)
        self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Answer.may_answer.set()
    yield server
    Answer.may_answer.set()
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_anything_is_reachable(server, endpoint):
    endpoint(f"http://127.0.0.1:{server.server_port}")
    assert hub.hub_is_reachable()


def test_a_hub_that_refuses_is_not_reachable(server, endpoint):
    endpoint(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert not hub.hub_is_reachable()


def test_a_hub_that_never_answers_is_not_waited_for(server, endpoint, monkeypatch):
    endpoint(f"http://127.0.0.1:{server.server_port}")
    Answer.may_answer.clear()
    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.1)
    assert not hub.hub_is_reachable()


def test_what_lives_on_the_hub_is_known_without_asking_it(folder):
    assert hub.is_remote("wikitext-2")
    assert hub.is_remote("hf:somebody/corpus:config")
    assert not hub.is_remote(f"hf:{folder}:own-split")
    assert not hub.is_remote(f"hf:{folder}")
    assert not hub.is_remote("python-stdlib")
    assert not hub.is_remote("book.txt")


def test_a_download_tells_how_much_has_come(tmp_path, monkeypatch):
    from huggingface_hub import constants

    blobs = tmp_path / "datasets--someone--texts" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "of-an-earlier-version").write_bytes(bytes(500))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(token_store, "DOWNLOAD_POLL_SECONDS", 0.01)
    told = threading.Event()

    def download(table):
        (blobs / "abc.incomplete").write_bytes(bytes(70))
        assert told.wait(30)
        raise DataError("the connection broke")

    monkeypatch.setattr(token_store, "open_corpus", download)
    preset = preset_files.load(["default"], ["data.source=hf:someone/texts:plain"]).preset
    with pytest.raises(DataError, match="the connection broke"):
        for progress in token_store.prepare(preset, tmp_path / "cache"):
            if progress.done:
                assert (progress.stage, progress.done) == ("downloading hf:someone/texts:plain", 70)
                told.set()
    assert told.is_set()
