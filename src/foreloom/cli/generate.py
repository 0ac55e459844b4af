"""`foreloom generate`: a prompt, or a file of them, in; how a language model goes on out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import FILE, DeviceOption, ModelArgument


def generate(
    model: ModelArgument,
    prompt: Annotated[str | None, typer.Argument(help="The text to go on with.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Or a file of prompts: .txt, one a line, or .jsonl, with prompt or messages in each line."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --prompts: the .jsonl to write, text beside each prompt.", **FILE)
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat template, as a user.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens to write.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among so many of the likeliest tokens (0: all).")] = 0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Draw among the fewest tokens that reach this.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and prompt give the same text.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts gone on with at once.")] = 16,
    device: DeviceOption = "auto",
) -> None:
    """Go on with a text, or answer a question."""
    if (prompt is None) == (prompts is None):
        raise ValueError("give a prompt or --prompts FILE, one of the two.")
    if out is not None and prompts is None:
        raise ValueError("--out has no effect without --prompts; leave it out.")
    if not top_p:
        raise ValueError("--top-p 0: no token is left to draw; give more than 0, or --temperature 0 for the likeliest.")
    asked = [{"prompt": prompt}] if prompts is None else read_prompts(prompts)
    if out is not None and prompts is not None and out.resolve() == prompts.resolve():
        raise ValueError(f"{out} holds the prompts, and the texts would be written over them; name another file.")
    from foreloom.files import check_writable, write_text
    from foreloom.forecast import from_pretrained

    if out is not None:
        check_writable(out, "--out")

    texts = from_pretrained(model, device=device).generate(
        [one.get("messages") or one["prompt"] for one in asked],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        chat=chat,
        batch_size=batch_size,
    )
    if prompts is None:
        typer.echo(texts[0])
        return
    lines = [json.dumps({**one, "text": text}, ensure_ascii=False) for one, text in zip(asked, texts, strict=True)]
    if out is None:
        typer.echo("\n".join(lines))
    else:
        write_text(out, "\n".join(lines) + "\n")
        typer.echo(f"wrote {out}")


def read_prompts(path: Path) -> list[dict]:
    """The prompts of a file. ValueError names the line that is none."""
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{path}: prompts are read from .txt, one a line, or .jsonl.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        if path.suffix == ".txt":
            found.append({"prompt": line})
            continue
        try:
            one = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not valid JSON ({error.msg}).") from None
        if not isinstance(one, dict) or not (
            isinstance(one.get("prompt"), str) or isinstance(one.get("messages"), list)
        ):
            raise ValueError(f"{path}:{number}: a line needs a prompt (text) or messages (a list of role and content).")
        found.append(one)
    if not found:
        raise ValueError(f"{path} holds no prompt.")
    return found
