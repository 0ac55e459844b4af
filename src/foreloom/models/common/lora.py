"""Low-rank adapters (Hu et al. 2021, "LoRA"): attached to a model to be trained, written and read as PEFT's, merged.

W, of shape (out, in), becomes W + s B A with A (rank, in), B (out, rank) and s = alpha / rank.
Axes: E experts, R rank, I inputs, O outputs of a matrix.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foreloom.config.section import section
from foreloom.files import whole_or_absent, write_text
from foreloom.models.common.architecture import PublishedArchitecture
from foreloom.models.common.dropout import dropout
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.moe import StackedExperts

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_BASE_KEY = "foreloom_base"
"""Of the metadata of the weights: the digest of what they were trained on."""
_PREFIX = "base_model.model."
_PATTERN = re.compile(r"\^?(?:(?:\w|\\?\.|\\d|\[[\w-]+\])[*+]?|\((?:[\w.]+\|)*[\w.]+\))+\$?")
"""What a pattern of module names may be made of: names, dots, digits, classes and choices, with two repeats at most.
Not any regular expression: there are short ones that never end on a name of thirty letters."""
_MOST_REPEATS = 2
_UNSUPPORTED = ("use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "modules_to_save", "lora_bias")


@section
class AdapterConfig:
    """What is trained in the place of a pretrained model's own weights, which then stay as they are."""

    kind: Literal["none", "lora"] = "none"
    """none: the weights themselves are trained. lora: a low-rank matrix beside each of the chosen ones."""
    rank: Annotated[int, Field(ge=1)] = 8
    """Of the low-rank matrices."""
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    """What is added is scaled by alpha / rank."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, "rsLoRA"), for high ranks."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a matrix's inputs that its adapter does not see in training. Matrices that their layer takes instead of
    calling them have none: stacked experts, routers, Time-MoE's embedding and heads."""
    modules: tuple[str, ...] = ()
    """Which matrices: ends of their names, * standing for anything (self_attention.q, experts.*). Empty: those of the
    attention, and of the experts where a model has them."""
    export: Literal["adapter", "merged"] = "adapter"
    """What hf/ of a checkpoint holds: the adapter alone, which PEFT loads onto its base, or the whole model with it."""

    def __post_init__(self) -> None:
        idle = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if self.kind == "none" and idle:
            raise ValueError(f"{', '.join(idle)}: no effect with kind: none; set kind: lora")

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)


@dataclass(frozen=True)
class LoraHooks:
    """What a family says of its adapters."""

    modules: tuple[str, ...] = ("*attention*",)
    """Those that are adapted where the recipe names none."""
    base_class: tuple[str, str] | None = None
    """Class and module of the base model in the library whose PEFT loads the adapter; None: transformers finds it."""
    published_names: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state_dict: state_dict
    """A state dict under the published names, in the same memory."""


class LoraLinear(nn.Linear):
    """x W^T + b + s (x A^T) B^T, of which A and B alone are trained."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout_rate: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.base_weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_empty(base.out_features, rank))
        self.scale, self.lora_dropout_rate = scale, dropout_rate

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W + s B A, for who does not call the layer but takes its matrix."""
        return torch.addmm(self.base_weight, self.lora_B, self.lora_A, alpha=self.scale)

    def forward(self, input: Tensor) -> Tensor:
        seen = dropout(input, self.lora_dropout_rate, training=self.training)
        low = F.linear(F.linear(seen, self.lora_A), self.lora_B)
        return torch.add(F.linear(input, self.base_weight, self.bias), low, alpha=self.scale)


class LoraStack(nn.Module):
    """Stacked matrices W (E, O, I) -> W + s B A with A (E, R, I), B (E, O, R): a parametrization of theirs."""

    def __init__(self, stack_EOI: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        num_experts, num_outputs, num_inputs = stack_EOI.shape
        self.lora_A = nn.Parameter(stack_EOI.new_empty(num_experts, rank, num_inputs))
        self.lora_B = nn.Parameter(stack_EOI.new_empty(num_experts, num_outputs, rank))
        self.scale = scale

    def forward(self, stack_EOI: Tensor) -> Tensor:
        return torch.baddbmm(stack_EOI, self.lora_B, self.lora_A, alpha=self.scale)


_STACK = re.compile(r"(.*\.)?parametrizations\.(\w+)\.(original|0\.lora_[AB])")


def attach_adapter(module: nn.Module, config: AdapterConfig, hooks: LoraHooks, seed: int) -> None:
    """Put an adapter beside each matrix chosen and freeze everything else, in place. It starts as no change at all:
    A is drawn by (seed, name), B is 0.

    ValueError names a pattern that fits no matrix, and where none does.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    stacks = {
        f"{name}.{of}": (layer, of)
        for name, layer in module.named_modules() if isinstance(layer, StackedExperts)
        for of, stack in list(layer.named_parameters()) if stack.ndim == 3
    }  # fmt: skip
    names = [*layers, *stacks]
    if not names:
        raise ValueError("adapter.kind: this model has no matrix that lora fits; training.train_only trains a part.")
    _refuse_idle(names, config.modules)
    chosen = [name for name in names if any(fits(name, pattern) for pattern in config.modules or hooks.modules)]
    if not chosen:
        usual = ", ".join(hooks.modules)
        raise ValueError(f"adapter.modules: name the matrices to adapt; the model has none of the usual {usual}.")
    module.requires_grad_(False)
    for name in chosen:
        if name in layers:
            parent, _, child = name.rpartition(".")
            adapted = LoraLinear(layers[name], config.rank, config.scale, config.dropout)
            setattr(module.get_submodule(parent), child, adapted.train(module.training))
        else:
            layer, of = stacks[name]
            parametrize.register_parametrization(
                layer, of, LoraStack(getattr(layer, of), config.rank, config.scale), unsafe=True
            )
    for name, parameter in module.named_parameters():
        if name.endswith("lora_A"):
            # The variance of PEFT's (Kaiming uniform with a = sqrt(5)).
            normal_by_name(parameter, name, seed, (3 * parameter.shape[-1]) ** -0.5)
        elif name.endswith("lora_B"):
            nn.init.zeros_(parameter)


def fits(name: str, pattern: str) -> bool:
    """Is this the whole name, or its end from a dot on? * stands for anything."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _refuse_idle(names: Sequence[str], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            endings = dict.fromkeys(".".join(name.split(".")[-2:]) for name in names)
            raise ValueError(
                f"adapter.modules: {pattern!r} fits no matrix of the model. Their names end in {', '.join(endings)}."
            )


def merged(state_dict: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of the model without adapters that computes the same, from those of one with them."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name.endswith(("lora_A", "lora_B")):
            continue
        if name.endswith(".base_weight"):
            prefix = name.removesuffix("base_weight")
            low = state_dict[f"{prefix}lora_B"].float() @ state_dict[f"{prefix}lora_A"].float()
            tensors[f"{prefix}weight"] = tensor + scale * low.to(tensor)
        elif stack := _STACK.fullmatch(name):
            prefix = name.removesuffix("original") + "0."
            low = torch.bmm(state_dict[f"{prefix}lora_B"].float(), state_dict[f"{prefix}lora_A"].float())
            tensors[f"{stack[1] or ''}{stack[2]}"] = tensor + scale * low.to(tensor)
        else:
            tensors[name] = tensor
    return tensors


def adapter_alone(state_dict: Mapping[str, Tensor], hooks: LoraHooks) -> dict[str, Tensor]:
    """A and B of each matrix under PEFT's names, from the weights of a model with adapters.

    The matrices of a stack are published one by one; those cut out of one (gate and up) share their A.
    """
    tensors: dict[str, Tensor] = {}
    for name, b in state_dict.items():
        if not name.endswith("lora_B"):
            continue
        a = state_dict[name.removesuffix("B") + "A"]
        for published, low, expert in _published(name, b, hooks):
            module = _PREFIX + published.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = (a if expert is None else a[expert]).clone()
            tensors[f"{module}.lora_B.weight"] = low.clone()
    return tensors


def _published(name: str, b: Tensor, hooks: LoraHooks) -> Iterator[tuple[str, Tensor, int | None]]:
    """(published name of the matrix, its B, which expert's it is) for each matrix that this B belongs to."""
    stack = _STACK.fullmatch(name)
    if not stack:
        own = name.removesuffix("lora_B") + "weight"
        yield from ((published, low, None) for published, low in hooks.published_names({own: b}).items())
        return
    own = f"{stack[1] or ''}{stack[2]}"
    # What is cut out of the stack is told by a stack that holds each expert's number.
    number = torch.arange(len(b))[:, None, None].expand_as(b)
    experts = hooks.published_names({own: number})
    for published, low in hooks.published_names({own: b}).items():
        yield published, low, int(experts[published].flatten()[0])


class FrozenWeights:
    """What a run does not train: no checkpoint holds it, so a resumed run is to find the same again. A part of a run's
    state."""

    def __init__(self, module: nn.Module) -> None:
        digest = hashlib.sha256()
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                digest.update(name.encode())
                digest.update(parameter.detach().flatten().view(torch.uint8).numpy().data)
        self._digest = digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        return {"digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["digest"] != self._digest:
            raise ValueError(
                "the weights that this run leaves as they are differ from those it began with: model.pretrained, what "
                "it points at, or what is frozen has changed. Put it back, or begin in another folder."
            )


def check_base(module: nn.Module, folder: Path) -> None:
    """ValueError where a base and an adapter alone do not make this model: its limits were raised above those of the
    folder it comes from, that folder holds an adapter itself, or what is no weight moves as it trains."""
    remedy = "so an adapter alone is not the model; set adapter.export: merged."
    if moving := module.state_dict().keys() - dict(module.named_parameters(remove_duplicate=False)).keys():
        raise ValueError(f"adapter.export: {min(moving)} and the like move as the experts are used, {remedy}")
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        raise ValueError(f"adapter.export: {folder} is a model with an adapter already, {remedy}")
    architecture: object = getattr(module, "architecture", None)
    if isinstance(architecture, PublishedArchitecture):
        base = type(architecture).read(json.loads((folder / "config.json").read_text()))
        for one in fields(architecture):
            ours, theirs = getattr(architecture, one.name), getattr(base, one.name)
            if ours != theirs and "dropout" not in one.name:
                raise ValueError(f"adapter.export: the run has {one.name} {ours} and {folder} {theirs}, {remedy}")


def write_adapter(
    folder: Path, config: AdapterConfig, hooks: LoraHooks, base: str, state_dict: Mapping[str, Tensor]
) -> None:
    """Write the folder that PEFT loads onto `base` (a path or hub id), each file whole or not at all."""
    from safetensors.torch import save_file

    tensors = adapter_alone(state_dict, hooks)
    modules = dict.fromkeys(re.sub(r"\.lora_[AB]\.weight$", "", name).removeprefix(_PREFIX) for name in tensors)
    values = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "r": config.rank,
        "lora_alpha": config.alpha, "lora_dropout": config.dropout, "use_rslora": config.rank_stabilized,
        "target_modules": list(modules), "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "modules_to_save": None,
    }  # fmt: skip
    if hooks.base_class:
        name, library = hooks.base_class
        values["auto_mapping"] = {"base_model_class": name, "parent_library": library}
    folder.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(folder / ADAPTER_WEIGHTS_FILE) as beside:
        metadata = {"format": "pt", _BASE_KEY: _digest(_adapted(state_dict, hooks))}
        save_file({name: x.contiguous() for name, x in tensors.items()}, beside, metadata)
    write_text(folder / ADAPTER_CONFIG_FILE, json.dumps(values, indent=2) + "\n")


def _adapted(state_dict: Mapping[str, Tensor], hooks: LoraHooks) -> dict[str, Tensor]:
    """The base's own values of each adapted matrix, under its published name."""
    matrices: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        stack = _STACK.fullmatch(name)
        if name.endswith(".base_weight"):
            matrices |= hooks.published_names({f"{name.removesuffix('base_weight')}weight": tensor})
        elif stack and stack[3] == "original":
            matrices |= hooks.published_names({f"{stack[1] or ''}{stack[2]}": tensor})
    return matrices


def _digest(matrices: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(matrices):
        digest.update(name.encode())
        digest.update(matrices[name].detach().float().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def check_same_base(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """ValueError where the adapter of `folder` was trained on other values of the matrices it adapts than these, the
    base's. One that PEFT wrote does not say on which."""
    from safetensors import safe_open

    with safe_open(folder / ADAPTER_WEIGHTS_FILE, "pt") as file:
        expected = (file.metadata() or {}).get(_BASE_KEY)
        modules = {re.sub(r"\.lora_[AB]\.weight$", "", name).removeprefix(_PREFIX) for name in file.keys()}  # noqa: SIM118
    names = {f"{module}.weight" for module in modules}
    if expected and names <= tensors.keys() and _digest({name: tensors[name] for name in names}) != expected:
        raise ValueError(
            f"{folder}: its adapter was trained on other weights than those of its base as it is now; put the base of "
            f"that time where base_model_name_or_path in {ADAPTER_CONFIG_FILE} points."
        )


def merge_adapter(
    tensors: dict[str, Tensor], adapter: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path
) -> None:
    """W += alpha / rank * B A, in place, for every pair in the adapter, which was read from `folder`.

    ValueError where the adapter needs more than that (DoRA and the like), or names a weight the model has not.
    """
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds a {config.get('peft_type')} adapter; only LORA can be merged.")
    unsupported = [key for key in _UNSUPPORTED if config.get(key)]
    if unsupported:
        raise ValueError(f"{folder / ADAPTER_CONFIG_FILE} sets {unsupported[0]}, which cannot be merged here.")
    file = folder / ADAPTER_WEIGHTS_FILE
    if strange := [name for name in adapter if not re.search(r"\.lora_[AB]\.weight$", name)]:
        raise ValueError(f"{file} holds {strange[0]}, which is not a LoRA weight.")
    ranks = _by_module(config, "r", "rank_pattern", folder)
    alphas = _by_module(config, "lora_alpha", "alpha_pattern", folder)
    for name, a in adapter.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        target = module.removeprefix(_PREFIX)
        weight, b = tensors.get(f"{target}.weight"), adapter.get(f"{module}.lora_B.weight")
        if weight is None or b is None or weight.shape != (len(b), a.shape[1]):
            its = f"{tuple(a.shape)} and {'missing' if b is None else tuple(b.shape)}"
            found = "has no such matrix" if weight is None else f"has {tuple(weight.shape)}"
            raise ValueError(
                f"{file}: the adapter of {target} does not fit the base model: A and B are {its}, and the base {found}."
            )
        rank, scale = _of_module(ranks, target), _of_module(alphas, target)
        if not len(a) == b.shape[1] == rank:
            raise ValueError(
                f"{file}: the adapter of {target} is of rank {len(a)}; {ADAPTER_CONFIG_FILE} says {rank}, by which it "
                "would be scaled."
            )
        divisor = rank**0.5 if config.get("use_rslora") else rank
        update = scale / divisor * torch.mm(b.float(), a.float())
        tensors[f"{target}.weight"] = (weight.float() + update).to(weight.dtype)


def _by_module(config: Mapping[str, Any], key: str, pattern_key: str, folder: Path) -> dict[str, float]:
    """PEFT's exceptions by pattern, then what holds of all other modules; ValueError for what cannot be read."""
    file, patterns = folder / ADAPTER_CONFIG_FILE, config.get(pattern_key) or {}
    if not isinstance(patterns, Mapping):
        raise ValueError(f"{file}: {pattern_key} is {patterns!r}; expected numbers by name of a module.")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern) or len(re.findall(r"[*+]", pattern)) > _MOST_REPEATS:
            raise ValueError(
                f"{file}: {pattern_key} has {pattern!r}; expected names of modules, with [0-9], (q|v), and at most "
                f"{_MOST_REPEATS} repeats such as .* in them."
            )
    values: dict[str, Any] = {**patterns, ".*": config.get(key)}
    for number in values.values():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise ValueError(f"{file}: {key} and {pattern_key} must be numbers above 0, got {number!r}.")
    return values


def _of_module(values: Mapping[str, float], module: str) -> float:
    """The number of the first pattern that matches the end of the module's name, as PEFT finds it."""
    return next(value for pattern, value in values.items() if re.match(rf"(.*\.)?({pattern})$", module))
