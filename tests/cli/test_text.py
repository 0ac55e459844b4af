"""A language model from the command line: trained, measured, resumed, asked; bad input ends in a sentence."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreloom
from foreloom import cli, run
from foreloom.data.text.config import TextSource
from foreloom.distributed.network import free_port
from foreloom.distributed.process import Process
from foreloom.evaluation.text import score_text
from forked import Rank

torch.set_num_threads(1)  # as forked ranks have, whose sums must be the same
SHAPE = "model.config={hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, max_position_embeddings: 96}"
SETTINGS = [
    SHAPE, "training.steps=8", "training.save_steps=4", "training.batch_size=8", "validation.steps=4",
    "validation.prompt_tokens=5", "monitoring.log_steps=1", "monitoring.trackers=[none]", "data.max_seq_length=64",
    "validation.max_windows=20",
]  # fmt: skip
ALONE = Process(0, 1, 0, torch.device("cpu"))
TEXTS = ["An old man, née Käse 🧀, who sat.", "One.", "x" * 150]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of eight steps of tiny-lm."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORELOOM_CACHE", str(folder / "cache"))
        run.train("tiny-lm", SETTINGS, out=folder / "run")
    return folder / "run"


@pytest.fixture
def text(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in [*TEXTS, ""]))
    return tmp_path / "t.jsonl"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """`foreloom ...` in this process; its exit code and what it printed."""

    def called(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["foreloom", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (left.value.code or 0, *capsys.readouterr())

    return called


def by_hand(folder: Path, length: int) -> tuple[float, int]:
    """Nats and tokens of TEXTS with nothing but transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    total = count = 0.0
    for one in TEXTS:
        tokens = torch.tensor([*tokenizer(one)["input_ids"], tokenizer.eos_token_id])
        for begin in range(0, len(tokens) - 1, length):
            part = tokens[begin : begin + length + 1]
            with torch.no_grad():
                logits = model(part[None, :-1]).logits[0]
            total += float(F.cross_entropy(logits, part[1:], reduction="sum"))
            count += len(part) - 1
    return total, int(count)


@pytest.mark.parametrize("length", [64, 96])
def test_scores_are_those_of_transformers_by_hand(trained, text, length):
    folder = trained / "checkpoints" / "final" / "hf"
    total, count = by_hand(folder, length)
    scores = score_text(folder, TextSource(path=str(text)), max_seq_length=length, process=ALONE)
    assert scores.num_tokens == count == sum(len(one.encode()) for one in TEXTS) and scores.num_documents == 3
    assert scores.loss == pytest.approx(total / count, rel=1e-5)
    assert scores.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)
    assert scores.bits_per_byte == pytest.approx(
        total / math.log(2) / sum(len(one.encode()) for one in TEXTS), rel=1e-5
    )


def test_the_verb_prints_and_writes_them(trained, text, call, tmp_path):
    code, out, _ = call("evaluate", trained, "--data", text, "-c", "64", "--out", tmp_path / "s.csv")
    scores = score_text(
        trained / "checkpoints" / "final" / "hf", TextSource(path=str(text)), max_seq_length=64, process=ALONE
    )
    assert code == 0 and f"{scores.perplexity:.3f}" in out and f"{scores.bits_per_byte:.4f}" in out
    header, row = (tmp_path / "s.csv").read_text().splitlines()
    assert header == "task,model,loss,perplexity,bits_per_byte,num_tokens"
    assert float(row.split(",")[2]) == pytest.approx(scores.loss)
    assert call("evaluate", trained, "seasonal-naive", "--data", text)[2].count("score them apart") == 1
    rows = json.loads(call("evaluate", trained, "--data", text, "-c", "64", "--json")[1])["rows"]
    assert [row["loss"] for row in rows] == [pytest.approx(scores.loss)]
    for option in ("--season", "--target"):
        assert f"{option}: only for series" in call("evaluate", trained, "--data", text, option, "3")[2]
    assert "reads at most 96 tokens" in call("evaluate", trained, "--data", text, "-c", "97")[2]
    assert "there is no column 'body'" in call("evaluate", trained, "--data", text, "--text-column", "body")[2]
    (tmp_path / "gaps.jsonl").write_text('{"text": "One."}\n{"text": ""}\n{"text": "Two."}\n')
    _, out, _ = call("evaluate", trained, "--data", tmp_path / "gaps.jsonl")
    assert "gaps.jsonl: 2 documents, 1 left out (empty)" in out


def test_an_adapter_is_scored_as_the_whole_model_with_it(trained, text, call, tmp_path):
    base = trained / "checkpoints" / "final" / "hf"
    own = [f"model.pretrained={base}", "model.size=null", "model.config={}", "data.tokenizer=null"]
    lora = ["adapter.kind=lora", "adapter.rank=2", "optimizer.learning_rate=0.05", "optimizer.warmup_ratio=0"]
    few = ["training.steps=2", "validation.max_windows=2", "validation.steps=2", "validation.prompts=[]"]
    run.train("tiny-lm", [*SETTINGS[1:], *own, *lora, *few], out=tmp_path / "lora")
    adapter = tmp_path / "lora" / "checkpoints" / "final" / "hf"
    assert not (adapter / "config.json").exists()
    foreloom.from_pretrained(adapter).save_pretrained(tmp_path / "whole")
    scores = [score_text(one, TextSource(path=str(text)), process=ALONE) for one in (adapter, tmp_path / "whole", base)]
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-5)
    assert abs(scores[0].loss - scores[2].loss) > 1e-3
    code, out, _ = call("evaluate", tmp_path / "lora", "--data", text)
    assert code == 0 and f"{scores[0].perplexity:.3f}" in out


def test_conversations_are_scored_by_their_answers(trained, text, call, tmp_path):
    folder = tmp_path / "chat"
    shutil.copytree(trained / "checkpoints" / "final" / "hf", folder)
    template = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}{{ eos_token }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}a:{% endif %}")
    chats = tmp_path / "c.jsonl"
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}]
    chats.write_text(json.dumps({"messages": turns}) + "\n")
    scores = score_text(folder, TextSource(path=str(chats), messages_column="messages"), process=ALONE)
    assert scores.num_tokens == len("Nobody.") + 1, "the answer and its end, byte by byte"
    code, out, _ = call("evaluate", folder, "--data", chats, "--messages-column", "messages")
    assert code == 0 and "1 conversations" in out and f"{scores.loss:.4f}" in out
    both = ("--messages-column", "messages", "--text-column", "x")
    assert "exclude one another" in call("evaluate", folder, "--data", chats, *both)[2]
    assert "messages_column=messages" in call("evaluate", folder, "--data", chats)[2]
    assert "only for language models" in call("evaluate", "naive", "--data", text, *both[:2])[2]


def test_a_run_tells_its_figures_and_its_continuations(trained):
    events = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    validations = [event for event in events if event["kind"] == "validation"]
    assert [event["step"] for event in validations] == [0, 4, 8]
    assert validations[-1]["loss"] < validations[0]["loss"]
    for event in validations:
        assert event["figures"]["perplexity"] == pytest.approx(math.exp(event["loss"]), rel=1e-5)
        assert 1 < event["figures"]["bits_per_byte"] < 12
    shown = [(event["step"], event["prompt"]) for event in events if event["kind"] == "continuation"]
    assert shown == [(step, prompt) for step in (0, 4, 8) for prompt in ("The recipe ", "foreloom train ")]
    from foreloom.report.page import write_page

    assert "<h2>Continuations</h2>" in write_page(trained).read_text()


def test_a_stopped_run_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(trained.parent / "cache"))
    again = tmp_path / "again"
    shutil.copytree(trained, again, symlinks=True)
    shutil.rmtree(again / "checkpoints" / "step-00000008")
    (again / "checkpoints" / "final").unlink()
    run.train("tiny-lm", SETTINGS, out=again, resume=True)
    file = Path("checkpoints") / "final" / "hf" / "model.safetensors"
    assert (again / file).read_bytes() == (trained / file).read_bytes()


def test_half_precision_and_recomputed_blocks(tmp_path, monkeypatch):
    """A Gemma 3 in bf16 on a CPU, its blocks recomputed, has the losses of fp32 as far as bf16 can tell."""
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    gemma = "model.config={model_type: gemma3_text, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2}"
    found = []
    for name, more in {
        "fp32": [],
        "bf16": ["training.precision=bf16", "training.activation_checkpointing=true"],
    }.items():
        run.train("tiny-lm", [*SETTINGS, gemma, "training.steps=3", *more], out=tmp_path / name)
        events = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        found.append([event["loss"] for event in events if event["kind"] == "step"])
    assert found[1] == pytest.approx(found[0], rel=5e-3) and found[1] != found[0]


def test_generate(trained, call, tmp_path):
    model = foreloom.from_pretrained(trained, device="cpu")
    greedy = model.generate("The recipe ", max_new_tokens=5, temperature=0)
    events = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert greedy == [event["text"] for event in events if event["kind"] == "continuation"][-2:-1]
    drawn = model.generate(["a", "b", "a"], max_new_tokens=8, seed=3)
    assert drawn[0] == drawn[2] == model.generate("a", max_new_tokens=8, seed=3)[0] != drawn[1]
    assert model.generate("a", max_new_tokens=8, seed=4) != drawn[:1]
    assert model.generate("a", max_new_tokens=8, top_k=1) == model.generate("a", max_new_tokens=8, temperature=0)
    with pytest.raises(ValueError, match="causal_lm does not forecast series"):
        model.predict([1.0, 2.0])

    code, out, _ = call("generate", trained, "The recipe ", "--max-new-tokens", "5", "--temperature", "0")
    assert code == 0 and out == greedy[0] + "\n"
    prompts = tmp_path / "p.txt"
    prompts.write_text("a\n\nb\n")
    options = ("--max-new-tokens", "8", "--seed", "3")
    code, out, _ = call("generate", trained, "--prompts", prompts, "--out", tmp_path / "o.jsonl", *options)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert code == 0 and lines == [{"prompt": "a", "text": drawn[0]}, {"prompt": "b", "text": drawn[1]}]


def test_a_step_is_rebuilt_and_forecasts_are_refused(trained, call):
    code, out, _ = call("data", "replay", trained, "3")
    assert code == 0 and "documents" in out and "data.md" in out
    births = Path(__file__).resolve().parents[2] / "examples" / "births.csv"
    assert "does not forecast series" in call("forecast", trained, births, "--horizon", "3")[2]
    for what in ("tiny-lm", trained):
        code, out, _ = call("report", "parameters", what)
        assert code == 0 and "feed-forward" in out and "of horizon" not in out
    assert "One row, 96 tokens, forward and backward" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x", "--chat"], "has no chat template; ask without chat"),
        (["x", "--max-new-tokens", "200"], "more than the 96 that the model reads"),
        ([""], "has no tokens to go on from"),
        ([], "give a prompt or --prompts FILE"),
        (["x", "--out", "a"], "--out has no effect without --prompts"),
        (["x", "--top-p", "0"], "no token is left to draw"),
    ],
)
def test_what_cannot_be_generated(trained, call, arguments, sentence):
    code, out, err = call("generate", trained, *arguments)
    assert code == 2 and not out and sentence in err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.tokenizer=null"], "data.tokenizer is not given: a new model needs one"),
        (["data.max_seq_length=97"], "data.max_seq_length is 97 and the model reads at most 96 tokens"),
        (["data.holdout=0"], "there is nothing to validate on: give data.holdout"),
        (["data.holdout=0.1", "validation.steps=0", "validation.prompts=[]"], "out of training for nothing"),
        (["model.pretrained=google/gemma-270m", "model.size=null", "model.config={}"], "its id is google/gemma-3-270m"),
        (["training.steps=null", "training.epochs=1", "data.sources.0.weight=1", "data.sources.1.weight=1",
          "data.sources.2.weight=1"], "sources have weights, which are drawn without end"),
        (["data.sources.0.path=nowhere.txt"], "data.sources.0.path: no such file or folder: nowhere.txt"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_run(call, tmp_path, overrides, sentence):
    code, _, err = call("train", "tiny-lm", *SETTINGS, *overrides, "--out", tmp_path / "no")
    assert code == 2 and sentence in err and "Traceback" not in err


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """A recipe that continues stories260k on Shakespeare, and its run."""
    folder = tmp_path_factory.mktemp("real")
    recipe = folder / "r.yaml"
    recipe.write_text(
        f"model: {{family: causal_lm, pretrained: {shared}/data/models/stories260k}}\n"
        f'data: {{sources: [{{path: {shared}/data/text/tinyshakespeare.txt, separator: "\\n\\n"}}],\n'
        "  max_seq_length: 128, packing: documents, holdout: 0.02}\n"
        "training: {steps: 12, batch_size: 8, save_steps: 4, device: cpu}\noptimizer: {learning_rate: 2.0e-3}\n"
        "validation: {steps: 100, max_windows: 30}\nmonitoring: {log_steps: 1, trackers: [none]}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORELOOM_CACHE", str(folder / "cache"))
        run.train(recipe, out=folder / "run")
    return recipe, folder / "run"


def begin(recipe: Path, out: Path, **environment: str) -> Rank:
    """`foreloom train` in a process of its own."""
    main = Path(foreloom.__file__).with_name("__main__.py")
    return Rank(main, ["train", str(recipe), "--out", str(out)], os.environ | environment)


WEIGHTS = Path("checkpoints") / "final" / "hf" / "model.safetensors"


def test_a_real_model_killed_goes_on_bit_for_bit_and_two_ranks_train_it_alike(real, tmp_path, monkeypatch):
    recipe, whole = real
    monkeypatch.setenv("FORELOOM_CACHE", str(whole.parent / "cache"))
    process = begin(recipe, tmp_path / "killed")
    while not (tmp_path / "killed" / "checkpoints" / "step-00000004").is_dir() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL and not (tmp_path / "killed" / WEIGHTS).exists()
    run.train(recipe, out=tmp_path / "killed", resume=True)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()

    its = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [begin(recipe, tmp_path / "two", RANK=rank, LOCAL_RANK=rank, **its) for rank in "01"]
    assert [rank.wait(timeout=250) for rank in ranks] == [0, 0], [rank.output() for rank in ranks]
    found = []
    for folder in (whole, tmp_path / "two"):
        events = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        found.append([event["loss"] for event in events if event["kind"] in ("step", "validation")])
    assert len(found[0]) == 14 and found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_real_model_goes_on_learning(real):
    """What it knows at first, that it gets better, and that transformers loads it."""
    events = [json.loads(line) for line in (real[1] / "metrics.jsonl").read_text().splitlines()]
    before, after = (event["figures"]["perplexity"] for event in events if event["kind"] == "validation")
    assert after < 0.8 * before < 100
    hf = real[1] / "checkpoints" / "final" / "hf"
    lm = AutoModelForCausalLM.from_pretrained(hf)
    assert lm.lm_head.weight is lm.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(hf)("Once")["input_ids"][0] == 1
    assert foreloom.from_pretrained(hf, device="cpu").generate("Once upon", max_new_tokens=4, temperature=0)[0]
