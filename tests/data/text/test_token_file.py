"""Token files: made once, by one process, the same however many tokenise; chats learn the answers only."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from foreloom.data.text import token_file as room
from foreloom.data.text.config import TextConfig, TextSource
from foreloom.data.text.section import TextData
from foreloom.data.text.token_file import NOT_LEARNED, TokenFile, token_file
from foreloom.data.text.tokenizer import TextTokenizer, load_tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content | trim }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


@pytest.fixture
def chat_folder(tmp_path) -> str:
    hf = load_tokenizer("bytes").hf
    hf.save_pretrained(tmp_path / "chat")
    config = json.loads((tmp_path / "chat" / "tokenizer_config.json").read_text())
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return str(tmp_path / "chat")


def made(path, tokenizer="bytes", **settings) -> TokenFile:
    source = {name: settings.pop(name) for name in ("messages_column", "separator") if name in settings}
    source = TextSource(path=str(path), **source)
    return token_file(source, TextConfig(sources=(source,), **settings), load_tokenizer(tokenizer))


def test_several_processes_write_what_one_writes(corpus_file, own_cache, monkeypatch):
    monkeypatch.setattr(room, "_AT_ONCE", 500)
    alone = made(corpus_file)
    content, name = alone.path.read_bytes(), alone.path.name
    shutil.rmtree(own_cache)
    monkeypatch.setattr(room, "_ALONE_BELOW", 0)
    shared = made(corpus_file, num_processes=2)
    assert shared.path.name == name and shared.path.read_bytes() == content
    assert not list(own_cache.glob(".*partial*"))


def _make(path, cache, start, made_by):
    import os

    os.environ["FORELOOM_CACHE"] = cache
    room._write = _counted(room._write, made_by)
    start.wait()
    made(path)


def _counted(write, made_by):
    def counted(*arguments):
        with made_by.get_lock():
            made_by.value += 1
        write(*arguments)

    return counted


def test_one_process_makes_it_and_the_others_wait(corpus_file, own_cache):
    context = multiprocessing.get_context("fork")
    start, made_by = context.Event(), context.Value("i", 0)
    load_tokenizer("bytes")
    others = [context.Process(target=_make, args=(corpus_file, str(own_cache), start, made_by)) for _ in range(3)]
    for other in others:
        other.start()
    start.set()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0] and made_by.value == 1


def test_the_loss_of_a_chat_is_on_its_answers(tmp_path, chat_folder):
    chats = [
        [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": " Yes. "},
         {"role": "user", "content": "Käse?"}, {"role": "assistant", "content": "Ja 🧀"}],
        [{"role": "user", "content": "nobody there"}],
    ]  # fmt: skip
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    file = made(path, chat_folder, messages_column="messages")
    hf = load_tokenizer(chat_folder).hf
    assert file.left_out == {"without an answer": 1} and len(file.end_D) == 1
    raw = np.asarray(file.token_T)
    learned = hf.decode((raw[(raw & NOT_LEARNED) == 0]).tolist())
    assert learned == "Yes.</assistant>\nJa 🧀</assistant>\n"
    assert file.num_bytes_D.tolist() == [len(learned.encode())]
    whole = hf.decode((raw & ~NOT_LEARNED).tolist())
    assert whole == hf.apply_chat_template(chats[0], tokenize=False) + hf.eos_token
    everything = made(path, chat_folder, messages_column="messages", loss_on="all")
    assert (np.asarray(everything.token_T) < NOT_LEARNED).all() and len(everything.end_D) == 2


@pytest.mark.parametrize(("truncate", "told"), [("nothing", "learned apart from it"), ("document", "left out")])
def test_chats_longer_than_a_row_are_told_of(tmp_path, chat_folder, caplog, truncate, told):
    asked = [{"role": "user", "content": "x" * 90}, {"role": "assistant", "content": "far away"}]
    path = tmp_path / "c.jsonl"
    path.write_text(
        "".join(
            json.dumps({"messages": chat}) + "\n"
            for chat in [asked, *[[{"role": "user", "content": "a"}, asked[1]]] * 3]
        )
    )
    source = TextSource(path=str(path), messages_column="messages")
    for most, lines in ((64, 1), (256, 0)):
        data = TextData(
            sources=(source,), max_seq_length=most, packing="documents", tokenizer=chat_folder, truncate=truncate
        )
        caplog.clear()
        data.open(0, batch_size=1)
        said = [line for line in caplog.messages if "conversations are longer" in line]
        assert len(said) == lines and all("1 of 4" in line and told in line for line in said)


def test_chats_that_cannot_be_read(tmp_path, chat_folder):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "nobody"}]}))
    with pytest.raises(ValueError, match=r"no document to learn from \(1 without an answer\)"):
        made(path, chat_folder, messages_column="messages")
    path.write_text(json.dumps({"messages": [{"role": "assistant", "content": "a"}]}))
    with pytest.raises(ValueError, match=r"c\.jsonl:1: the conversation begins with an answer"):
        made(path, chat_folder, messages_column="messages")
    with pytest.raises(ValueError, match=r"c\.jsonl:1: the tokenizer bytes has no chat template"):
        made(path, "bytes", messages_column="messages")


def test_a_tokenizer_without_an_end(tmp_path):
    hf = load_tokenizer("bytes").hf.__class__(tokenizer_object=load_tokenizer("bytes").hf.backend_tokenizer)
    with pytest.raises(ValueError, match="the tokenizer mine has no end-of-sequence token"):
        TextTokenizer(hf, "mine")
    with pytest.raises(ValueError, match="has no tokenizer that transformers can load"):
        load_tokenizer(str(tmp_path))
