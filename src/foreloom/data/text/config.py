"""The `data` and `validation` sections of families that read text: which texts, whose tokens, cut into which rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from foreloom.config.section import section
from foreloom.data.config import Positive, ValidationConfig

LEAST_SHARE = 1e-4
"""Of a source in a mixture: below it the rounds of the mixture (`rows.Mixture`) could not keep its share."""


@section
class TextSource:
    """Documents of one data set."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """File or folder: .txt, .jsonl, .json, .csv, .tsv, .parquet, .arrow, or a folder of these. Relative to the recipe's
    folder. Give this or dataset."""
    dataset: Annotated[str, Field(min_length=1)] | None = None
    """A data set of the Hugging Face hub (Salesforce/wikitext), downloaded once; its files are of the same kinds."""
    config: str | None = None
    """Of a data set with several configurations: the folder of the one to read (wikitext-2-raw-v1)."""
    split: str | None = None
    """Of a data set whose files are named by split: the one to read; unset: train where there is one, else all."""
    text_column: str = "text"
    """The column of the text."""
    messages_column: str | None = None
    """The column of conversations, lists of {role, content}: the source is one of chats, rendered by the tokenizer's
    own template. Unset: it is one of texts."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    r"""Of .txt files: what stands between two documents ("\n": each line is one). Unset: a file is a document."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Share of the tokens trained on, relative to the other weights. Unset in all sources: every token of all of them
    is met once an epoch."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.dataset is None):
            raise ValueError(
                "a source is either a path, on this machine, or a dataset, of the hub; give one of the two"
            )
        if self.messages_column is not None and (self.separator is not None or self.text_column != "text"):
            raise ValueError("text_column and separator have no effect where messages_column is given; remove them")

    @property
    def name(self) -> str:
        return str(self.path or self.dataset) + (f"/{self.config}" if self.config else "")


@section
class TextConfig:
    """What a run reads and how text becomes rows of tokens."""

    sources: Annotated[tuple[TextSource, ...], Field(min_length=1)]
    """The data sets of the corpus."""
    max_seq_length: Positive = 2048
    """Tokens of a row."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; `bytes`: every byte is a token. Unset: that of model.pretrained."""
    packing: Literal["blocks", "documents", "streams"] = "blocks"
    """blocks: all documents one after another, an end-of-sequence token after each, cut every max_seq_length tokens.
    documents: whole documents share a row as they fit best, and neither attention nor positions cross their borders;
    longer ones are cut. streams, for recurrent models: blocks in the order of the text; row j of every global batch
    goes on where row j of the one before ended."""
    reset_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    """packing: streams only: how likely a row begins without what its stream has left behind."""
    truncate: Literal["nothing", "document"] = "nothing"
    """document: only the first max_seq_length tokens of each document are used, as scripts do that tokenise with
    truncation."""
    loss_on: Literal["answers", "all"] = "answers"
    """Of conversations: learn the assistant's answers only, or every token."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the documents that training leaves alone, to validate on; which ones is told by a hash of their tokens,
    so copies of a document stay on one side, whatever the seed."""
    num_processes: Annotated[int, Field(ge=0)] = 0
    """Processes that tokenise, once; 0: one a core."""
    num_prefetch: Annotated[int, Field(ge=0)] = 2
    """Global batches read ahead in the background; 0 reads each when it is asked for."""

    def __post_init__(self) -> None:
        weights = [source.weight for source in self.sources if source.weight is not None]
        if weights and len(weights) < len(self.sources):
            raise ValueError("some sources have a weight and some have none; give all of them one, or none")
        if len(weights) == 1:
            raise ValueError("weight has no effect where there is one source; remove it")
        if weights and min(weights) / sum(weights) < LEAST_SHARE:
            raise ValueError(
                f"the smallest weight is below {LEAST_SHARE:g} of all together; raise it, or drop the source"
            )
        if self.loss_on != "answers" and not any(source.messages_column for source in self.sources):
            raise ValueError("loss_on has no effect without a source of conversations (messages_column); remove it")

        if self.packing == "streams" and (self.is_mixture or self.truncate != "nothing"):
            raise ValueError(
                "packing: streams reads every token in the order of the text; remove the sources' weights and truncate"
            )
        if self.reset_probability and self.packing != "streams":
            raise ValueError("reset_probability has no effect without packing: streams; remove it")

    @property
    def is_mixture(self) -> bool:
        """Are sources drawn by weight, without end?"""
        return self.sources[0].weight is not None


@section
class TextValidation(ValidationConfig):
    """How often the loss is measured on text kept out of training, on which, and when that ends the run."""

    sources: tuple[TextSource, ...] = ()
    """Data sets of their own to validate on; empty: the documents that data.holdout leaves out."""
    as_stream: bool = False
    """With packing: streams, read all documents one after another, the state carried on from row to row. Else each is
    read by itself, in parts of max_seq_length tokens where it is longer: as much context as a model of attention has.
    """
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that the model goes on with after each validation, for people to read in log and report."""
    prompt_tokens: Positive = 48
    """Most tokens of such a continuation."""

    ABSENT: ClassVar[Mapping[str, str]] = {
        **ValidationConfig.ABSENT, "sources": "[]", "as_stream": "false", "prompts": "[]",
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(source.weight is not None for source in self.sources):
            raise ValueError("a weight has no effect in validation.sources, all of which is measured; remove it")
