"""Groups of parameters: each parameter in one, and what the mixture adds is what a model without it lacks."""

import pytest
import torch

from foreloom.models import registry
from foreloom.models.common.count import ParameterGroup, ParameterKind
from foreloom.models.family import WindowLengths

LENGTHS = WindowLengths(64, 24)


def built(family_name: str, **fields):
    family = registry.get(family_name)
    with torch.device("meta"):
        module = family.build(family.config(family=family_name, **fields), LENGTHS)
    return module, {part.name: part for part in family.parts(module)}


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("chronos2", {"size": "test"}),
        ("chronos_bolt", {"size": "tiny"}),
        ("chronos_t5", {"size": "tiny"}),
        ("chronos_t5", {"size": "tiny", "use_moe": True}),
        ("chronos_t5", {"size": "tiny", "model_type": "causal"}),
        ("time_moe", {"size": "test"}),
        ("time_moe", {"size": "test", "use_dense": True}),
    ],
)
def test_every_parameter_is_in_one_part(family, fields):
    module, parts = built(family, **fields)
    assert sum(part.num_parameters for part in parts.values()) == sum(p.numel() for p in module.parameters())
    has_experts = any(part.in_mixture for part in parts.values())
    assert has_experts == (fields.get("use_moe", False) or (fields == {"size": "test"} and family == "time_moe"))
    if not has_experts:
        assert all(part.num_active == part.num_parameters for part in parts.values())


def num_parameters(arch) -> int:
    """Of Chronos-T5's router and experts."""
    width, hidden, experts = arch.d_model, arch.router_hidden_dim, arch.num_experts
    expert = 8 * width**2 + 5 * width + 2 * width + width * arch.n_tokens
    return experts * expert + (width * hidden + hidden + hidden * experts + experts)


@pytest.mark.parametrize(("top_k", "num_experts"), [(1, 4), (2, 4), (3, 8)])
def test_chronos_t5_adds_what_the_formula_says(top_k, num_experts):
    module, parts = built("chronos_t5", size="tiny", use_moe=True, num_experts=num_experts, num_active_experts=top_k)
    plain, _ = built("chronos_t5", size="tiny")
    mixture = [part for part in parts.values() if part.in_mixture]
    added = sum(part.num_parameters for part in mixture)
    assert added == num_parameters(module.architecture)
    assert sum(p.numel() for p in module.parameters()) - added == sum(p.numel() for p in plain.parameters())
    one_expert = sum(p.numel() for p in module.moe.experts.parameters()) // num_experts
    router = parts["router"].num_parameters
    assert sum(part.num_active for part in mixture) == router + top_k * one_expert


def test_time_moe_adds_experts_routers_and_gates():
    module, parts = built("time_moe", size="50m")
    dense, dense_parts = built("time_moe", size="50m", use_dense=True)
    added = sum(part.num_parameters for part in parts.values() if part.in_mixture)
    assert sum(p.numel() for p in module.parameters()) - added == sum(p.numel() for p in dense.parameters())
    assert dense_parts["feed-forward"].num_parameters == parts["shared experts"].num_parameters
    # Two of eight, which are as wide as the shared one together.
    assert parts["experts"] == ParameterGroup("experts", 84_934_656, 21_233_664, in_mixture=True)


@pytest.mark.parametrize(
    ("family", "fields", "widths"),
    [
        ("chronos2", {"size": "test"}, ("d_model", "d_kv", "d_ff")),
        ("chronos_bolt", {"size": "tiny"}, ("d_model", "d_kv", "d_ff")),
        ("chronos_t5", {"size": "tiny", "use_moe": True}, ("d_model", "d_kv", "d_ff")),
        ("chronos_t5", {"size": "tiny", "model_type": "causal"}, ("d_model", "d_ff")),
        ("time_moe", {"size": "test"}, ("hidden_size", "intermediate_size")),
    ],
)
def test_hidden_are_the_matrices_of_which_both_sides_grow_with_the_width(family, fields, widths):
    """Muon moves them, so heads, embeddings and routers must not be among them."""
    modules = [built(family, **fields, **dict.fromkeys(widths, width))[0] for width in (64, 128)]
    narrow, wide = (dict(module.named_parameters()) for module in modules)
    grown = {
        name
        for name, parameter in narrow.items()
        if parameter.ndim > 1 and all(a < b for a, b in zip(parameter.shape[-2:], wide[name].shape[-2:], strict=True))
    }
    kinds = registry.get(family).kinds(modules[0])
    assert {name for name, kind in kinds.items() if kind is ParameterKind.HIDDEN} == grown
    assert {kinds[name] for name, parameter in narrow.items() if parameter.ndim < 2} == {ParameterKind.VECTOR}
