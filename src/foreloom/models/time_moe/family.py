"""Time-MoE for the rest of foreloom: the recipe's `model` section and the family's record."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from foreloom.config.section import section
from foreloom.distributed.sharding import Sharding
from foreloom.models.common.attention import Implementation
from foreloom.models.common.files import resolve_folder
from foreloom.models.common.moe import MixtureOfExperts
from foreloom.models.common.start import check_start
from foreloom.models.family import ExpertHooks, ModelFamily
from foreloom.models.time_moe import checkpoint
from foreloom.models.time_moe.architecture import SIZES, Architecture, architecture_of_module
from foreloom.models.time_moe.batch import batch
from foreloom.models.time_moe.flops import flops_per_row
from foreloom.models.time_moe.forecast import TimeMoeForecaster
from foreloom.models.time_moe.initialize import initialize
from foreloom.models.time_moe.model import TimeMoeForPrediction
from foreloom.models.time_moe.objective import Protocol
from foreloom.models.time_moe.parts import parts
from foreloom.models.time_moe.routers import after_update, figures

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Balance = Literal["aux_loss", "bias", "none"]

DEFAULT_BALANCE_RATE = 0.001
"""Of Wang et al. 2024."""


@section
class TimeMoeConfig:
    """Time-MoE: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["time_moe"] = "time_moe"
    """The model family."""
    size: Literal["test", "50m", "200m", "ultra"] | None = None
    """Named size of a new model: test (2 layers, 64 wide, 4 experts), 50m (12, 384), 200m (12, 768), ultra (36, 1024);
    these three have 8 experts."""
    pretrained: str | None = None
    """Folder or Hugging Face id of the model to start from, in place of a size."""
    protocol: Protocol = "standard"
    """standard: padding is neither target nor token, rows weigh by their labels. reference: the official code's
    formulas, its mistakes included, to repeat its results."""
    attn_implementation: Implementation = "auto"
    """auto: the fastest for device and shape; eager, sdpa (torch) or flash_attention_2 (the flash-attn package; of
    batches with padded or packed rows, torch)."""
    balance: Balance | None = None
    """What keeps the experts evenly used: the published auxiliary loss, a bias on each expert that follows its load
    (loss-free, Wang et al. 2024), or nothing; unset: what the checkpoint was trained with, the loss for a new model."""
    router_aux_loss_factor: Positive | None = None
    """balance: aux_loss only: the weight of the auxiliary loss, 0.02 by default."""
    balance_rate: Positive | None = None
    """balance: bias only: by how much each update moves the bias of an expert; 0.001 by default."""
    router_z_loss_factor: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of the routers' logsumexp, which keeps their logits small; 0: none."""
    max_position_embeddings: Count | None = None
    """Most steps of context and forecast together; a pretrained model's may be raised."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of attention weights dropped in training."""
    hidden_size: Count | None = None
    """Width of the residual stream."""
    intermediate_size: Count | None = None
    """Width of the shared expert, and of a token's experts together; of the feed-forward with use_dense."""
    num_hidden_layers: Count | None = None
    """Decoder layers."""
    num_attention_heads: Count | None = None
    """Attention heads."""
    num_key_value_heads: Count | None = None
    """Heads of keys and values, each shared by several of queries; as many as attention heads by default."""
    num_experts: Count | None = None
    """Experts of a layer."""
    num_experts_per_tok: Count | None = None
    """Experts a token is sent to."""
    horizon_lengths: tuple[Count, ...] | None = None
    """Steps that each head forecasts at once, ascending."""
    use_dense: bool | None = None
    """A plain feed-forward in place of the experts."""
    rope_theta: Positive | None = None
    """Base of the rotary frequencies."""
    rms_norm_eps: Positive | None = None
    """Added to the mean square under the root."""
    initializer_range: Positive | None = None
    """Standard deviation of the random initial weights."""

    def __post_init__(self) -> None:
        check_start(self, FIXED_FIELDS)
        if self.use_dense:
            idle = [name for name in ROUTER_FIELDS if getattr(self, name)]
            if idle:
                raise ValueError(f"{', '.join(idle)}: a model with use_dense has no experts; remove one or the other.")
        if self.router_aux_loss_factor is not None and self.balance not in (None, "aux_loss"):
            raise ValueError(f"router_aux_loss_factor has no effect with balance: {self.balance}; remove it.")
        if self.balance_rate is not None and self.balance != "bias":
            raise ValueError("balance_rate has no effect without balance: bias; set that, or remove it.")

    def implied(self) -> dict[str, Any]:
        """What fields that are left out stand for, as far as the size decides it."""
        if self.size is None:
            return {}
        values = {f.name: f.default for f in dataclasses.fields(Architecture) if f.name in ARCHITECTURE_FIELDS}
        values |= SIZES[self.size]
        heads = self.num_attention_heads or values["num_attention_heads"]
        values |= {"num_key_value_heads": heads}
        if self.use_dense:
            return {name: value for name, value in values.items() if name not in ROUTER_FIELDS}
        values |= {"balance": "aux_loss"}
        if self.balance == "bias":
            values |= {"balance_rate": DEFAULT_BALANCE_RATE}
        if self.balance in ("bias", "none"):
            del values["router_aux_loss_factor"]
        return values


CHANGEABLE_FIELDS = ("max_position_embeddings", "attention_dropout", "router_aux_loss_factor")
"""What may differ from a checkpoint: no weight has its shape or meaning from these."""

FIXED_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "num_experts", "num_experts_per_tok", "horizon_lengths", "use_dense", "rope_theta", "rms_norm_eps",
    "initializer_range",
)  # fmt: skip

ARCHITECTURE_FIELDS = (*CHANGEABLE_FIELDS, *FIXED_FIELDS)

ROUTER_FIELDS = (
    "num_experts", "num_experts_per_tok", "balance", "router_aux_loss_factor", "balance_rate", "router_z_loss_factor",
)  # fmt: skip
"""What means nothing without experts."""


def build(config: TimeMoeConfig, *, context_length: int, prediction_length: int) -> TimeMoeForPrediction:
    """A new model without values, or a pretrained one, that takes windows of the two lengths (in steps).

    ValueError where they are longer than the model's maximum, and where the recipe and a checkpoint disagree.
    """
    changes = {name: value for name in ARCHITECTURE_FIELDS if (value := getattr(config, name)) is not None}
    if config.pretrained is not None:
        model = checkpoint.load(resolve_folder(config.pretrained))
        _check_changes(config, model.architecture)
    else:
        assert config.size is not None
        model = checkpoint.build_empty(Architecture(**(SIZES[config.size] | changes)))
    changes |= _set_balance(model, config)
    model.protocol = config.protocol
    model.attn_implementation = config.attn_implementation
    model.router_z_loss_factor = config.router_z_loss_factor
    _adapt(model, model.architecture.replace(**changes))
    num_steps, limit = context_length + prediction_length - 1, model.architecture.max_position_embeddings
    if num_steps > limit:
        raise ValueError(
            f"data.context_length {context_length} and data.prediction_length {prediction_length} make windows of "
            f"{num_steps} inputs, and model.max_position_embeddings is {limit}; shorten the windows or raise the limit."
        )
    return model


def _set_balance(model: TimeMoeForPrediction, config: TimeMoeConfig) -> dict[str, Any]:
    """What the architecture has to change for the balance asked for, or that a checkpoint was trained with."""
    arch = model.architecture
    if arch.use_dense:
        return {}
    without_loss: Balance = "bias" if arch.use_expert_bias else "none"
    has_loss = arch.router_aux_loss_factor or config.router_aux_loss_factor
    balance = config.balance or ("aux_loss" if has_loss else without_loss)
    if balance == "bias":
        model.balance_rate = config.balance_rate or DEFAULT_BALANCE_RATE
        return {"router_aux_loss_factor": 0.0, "use_expert_bias": True}
    if balance == "none":
        return {"router_aux_loss_factor": 0.0}
    factor = config.router_aux_loss_factor or arch.router_aux_loss_factor
    return {"router_aux_loss_factor": factor or Architecture.router_aux_loss_factor}


def _check_changes(config: TimeMoeConfig, arch: Architecture) -> None:
    asked = config.max_position_embeddings
    if asked is not None and asked < arch.max_position_embeddings:
        raise ValueError(
            f"model.max_position_embeddings is {asked} and the checkpoint has {arch.max_position_embeddings}; a limit "
            "is never lowered, leave it out."
        )
    idle = [name for name in ROUTER_FIELDS if getattr(config, name)] if arch.use_dense else []
    if idle:
        raise ValueError(f"model.{', model.'.join(idle)}: {config.pretrained} is a dense model and has no experts.")


def _adapt(model: TimeMoeForPrediction, arch: Architecture) -> None:
    """Give a model another architecture that its weights fit, with biases of 0 where its routers had none."""
    model.architecture = arch
    for layer in model.modules():
        if hasattr(layer, "dropout_rate"):
            setattr(layer, "dropout_rate", arch.attention_dropout)  # noqa: B010  (a plain number)
        if isinstance(layer, MixtureOfExperts) and arch.use_expert_bias and layer.expert_bias is None:
            layer.expert_bias = torch.zeros(arch.num_experts, device=layer.gate.weight.device)


def forecaster(module: nn.Module) -> TimeMoeForecaster:
    """A forecaster around a module, which may be in training and sharded."""
    return TimeMoeForecaster(module)


def teach_transformers() -> None:
    """See `time_moe.auto`, which needs transformers."""
    from foreloom.models.time_moe import auto  # noqa: F401


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Horizons, over which the loss is averaged, and what it counts."""
    return architecture_of_module(module).horizon_lengths, module.protocol


FAMILY = ModelFamily(
    name="time_moe",
    config=TimeMoeConfig,
    build=lambda section, data: build(
        section, context_length=data.context_length, prediction_length=data.prediction_length
    ),
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(blocks=("model.layers.[0-9]", "model.layers.[0-9][0-9]")),
    recognises=checkpoint.recognises,
    load=checkpoint.load,
    save=checkpoint.save,
    forecaster=forecaster,
    flops_per_row=lambda module, data: flops_per_row(module, data.context_length, data.prediction_length),
    parts=parts,
    loss_units=loss_units,
    experts=ExpertHooks(after_update=after_update, figures=figures, loads=("expert_load",)),
    teach_transformers=teach_transformers,
)
