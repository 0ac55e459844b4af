"""What shapes a model: a family's `Architecture`, read from and written to a config.json, and set in a recipe."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import logging
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field
from torch import nn

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.config.section import FINITE, section

logger = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

FromArchitecture = Any
"""Annotation of a setting that the family's `Architecture` has too: type and sentence are those there, and it is
optional; see `section_of`."""


@dataclass(frozen=True, kw_only=True)
class PublishedArchitecture:
    """Base of every family's `Architecture`, whose fields have the names of its config.json."""

    published: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The config.json this came from, for the keys that mean nothing here but must survive."""

    __pydantic_config__: ClassVar = FINITE

    @property
    def fewest_weights(self) -> tuple[int, int]:
        """How many tensors and how many numbers in them such a model has at the least, told without building it: a
        config.json that asks for far more than its weights hold would take the memory there is."""
        return 1, 1

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """The architecture that a module of the family was built with."""
        architecture = module.architecture
        assert isinstance(architecture, cls)
        return architecture

    @classmethod
    def checked(cls, values: Mapping[str, Any], config: Mapping[str, Any]) -> Self:
        """The architecture of these values of a config.json; ValueError names the first that will not do."""
        architecture, wrong = validate(cls, values, Located({}), "")
        if wrong:
            raise ValueError(f"config.json: {wrong[0].removeprefix(': ')}")
        return architecture.replace(published=config)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """`from_published`, and what foreloom adds to every family of a kind."""
        return cls.from_published(config)

    def written(self, dtype: str) -> dict[str, Any]:
        """`to_published`, and what foreloom adds to every family of a kind."""
        return self.to_published(dtype)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
        """Read a config.json; ValueError names the key that is missing or that foreloom cannot honour."""
        raise NotImplementedError

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that the reference library loads, with every key of the one this came from."""
        raise NotImplementedError

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def published_dtype(self, dtype: str, key: str = "dtype") -> dict[str, str]:
        """The dtype under the keys where the config.json this came from has it; in a new one under `key`."""
        return dict.fromkeys([name for name in ("dtype", "torch_dtype") if name in self.published] or [key], dtype)


@dataclass(frozen=True, kw_only=True)
class SeriesArchitecture(PublishedArchitecture):
    """Base of those that forecast series."""

    lookbacks: Count = 1
    """Contexts that a forecast is the mean of: the whole one, and each 0.7 times the one before as long as it holds two
    seasons. Six take three to five times the time of one; no part of training."""

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        num = config.get("lookbacks", 1)
        if type(num) is not int or num < 1:
            raise ValueError(f"config.json: lookbacks is {num!r}; write a whole number from 1, or take it out.")
        return super().read(config).replace(lookbacks=num)

    def written(self, dtype: str) -> dict[str, Any]:
        config = super().written(dtype)
        config.pop("lookbacks", None)  # of the config.json this came from
        return dict(sorted((config | ({"lookbacks": self.lookbacks} if self.lookbacks > 1 else {})).items()))


class OwnArchitecture(PublishedArchitecture):
    """Base of those whose config.json is foreloom's own: its keys are the fields."""

    model_class: ClassVar[str]
    """What `architectures` names."""

    @classmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        """Is this config.json one of the family?"""
        return config.get("architectures") == [cls.model_class]

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
        fields = [one for one in dataclasses.fields(cls) if one.name != "published"]
        missing = [one.name for one in fields if one.default is dataclasses.MISSING and one.name not in config]
        if missing:
            raise ValueError(f"config.json lacks {missing[0]}.")
        return cls.checked({one.name: config[one.name] for one in fields if one.name in config}, config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "published"}
        own |= {"architectures": [self.model_class]} | self.published_dtype(dtype)
        return dict(sorted((dict(self.published) | own).items()))


def check_quantile_levels(levels: Sequence[float]) -> None:
    """ValueError unless there are levels and they ascend between 0 and 1."""
    if list(levels) != sorted(set(levels)) or not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantiles must ascend strictly between 0 and 1, got {list(levels)}.")
    if not levels:
        raise ValueError("quantiles is empty; name at least one level, 0.5 for instance.")


@section
class ModelSection:
    """What every family's `model` section says: a new model of a named size, or a pretrained one.

    A family names its `family` and `size` again, with the values they may have.
    """

    family: str
    size: str | None = None
    pretrained: str | None = None
    """Folder or Hugging Face id of the model to start from, in place of a size."""

    architecture: ClassVar[type[PublishedArchitecture]]
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]]
    architecture_fields: ClassVar[tuple[str, ...]]
    """Settings that are fields of the architecture."""
    changeable: ClassVar[tuple[str, ...]]
    """Those that may differ from a checkpoint: no weight has its shape or meaning from them."""
    from_data: ClassVar[tuple[str, ...]]
    """Those that a new model takes from the data where they are left out."""

    def __post_init__(self) -> None:
        if (self.size is None) == (self.pretrained is None):
            raise ValueError(
                "set either size (a new model) or pretrained (a folder or hub id to start from), one of them null."
            )
        fixed = [name for name in self.given() if name not in self.changeable]
        if self.pretrained is not None and fixed:
            raise ValueError(
                f"{', '.join(fixed)} cannot be set beside pretrained: the checkpoint fixes it. Take out, or set to "
                "null what a recipe below sets."
            )

    def given(self) -> dict[str, Any]:
        """The fields of the architecture that the recipe sets."""
        return {name: value for name in self.architecture_fields if (value := getattr(self, name)) is not None}

    def new_values(self) -> dict[str, Any]:
        """The fields of a new model's architecture, but those left to the data: the size's, and what is set."""
        assert self.size is not None
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(self.architecture)
            if field.name in self.architecture_fields and field.name not in self.from_data
        }
        return defaults | dict(self.sizes[self.size]) | self.given()

    def new_values_for(self, needed: Mapping[str, int], *, of: str = "windows") -> dict[str, Any]:
        """`new_values`, and those left to the data as they are `needed`; ValueError where less is set. `of`: what the
        data are cut into, for people."""
        values = {**needed, **self.new_values()}
        for name, number in needed.items():
            if values[name] < number:
                raise ValueError(
                    f"model.{name} is {values[name]} and the data's {of} need {number}; raise it or leave it out."
                )
        return values

    def implied(self) -> dict[str, Any]:
        """What settings that are left out stand for, as far as the size decides it."""
        return {} if self.size is None else self.new_values()


S = TypeVar("S", bound=type[ModelSection])


def section_of(
    architecture: type[PublishedArchitecture],
    sizes: Mapping[str, Mapping[str, Any]],
    *,
    changeable: Sequence[str],
    from_data: Sequence[str] = (),
) -> Callable[[S], S]:
    """Make a class with the settings of a family its recipe section.

    A setting annotated `FromArchitecture` is the architecture's field of that name: it has its type and its sentence,
    and None, the default, leaves it to the size or the checkpoint. `sizes` holds the architecture's fields of each
    named size; `changeable` and `from_data` are as in `ModelSection`.
    """
    types, sentences = typing.get_type_hints(architecture, include_extras=True), _sentences(architecture)

    def make(cls: S) -> S:
        for name, annotation in list(cls.__annotations__.items()):
            if annotation == "FromArchitecture":
                cls.__annotations__[name] = Annotated[types[name] | None, Field(description=sentences[name])]
                setattr(cls, name, None)
        known = {field.name for field in dataclasses.fields(architecture)}
        cls.architecture, cls.sizes = architecture, sizes
        cls.architecture_fields = tuple(name for name in cls.__annotations__ if name in known)
        cls.changeable, cls.from_data = tuple(changeable), tuple(from_data)
        return section(cls)  # type: ignore[return-value]

    return make


def _sentences(cls: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, below in itertools.pairwise(tree.body):
            if isinstance(statement, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(statement.target, ast.Name)
                found[statement.target.id] = ast.literal_eval(below.value)
    return found


def raised_limit(name: str, has: int, needed: int, asked: int | None) -> int:
    """The limit of a pretrained model that `has` one, for data that need so much: raised, never lowered, and said.

    ValueError where the recipe asks for less than the model has.
    """
    if asked is not None and asked < has:
        raise ValueError(
            f"model.{name} is {asked} and the checkpoint has {has}; a limit is never lowered, leave it out."
        )
    limit = max(has, needed, asked or 0)
    if limit != has:
        logger.info("%s: %s -> %s", name, has, limit)
    return limit
