"""Folders of causal language models: loaded, made anew and written by transformers, with their tokenizer.

Importing this costs nothing; transformers is imported when a model is.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.data.text.tokenizer import TextTokenizer, load_tokenizer
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.hub_folder import CONFIG_FILE, base_folder, read_json, read_tensors
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, check_same_base, merge_adapter

logger = logging.getLogger(__name__)

_CLASSES = ("ForCausalLM", "LMHeadModel")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
PREFIX = "lm."
"""Of the parameters' names here, before their published ones."""


def recognises(config: Mapping[str, Any]) -> bool:
    """Does this config.json name a causal language model?"""
    return any(name.endswith(_CLASSES) for name in config.get("architectures") or ())


def load(folder: str | Path) -> CausalLm:
    """The model of a folder with its tokenizer, float32, on the CPU, in evaluation mode; a LoRA adapter is merged into
    its base."""
    adapter = Path(folder) if (Path(folder) / ADAPTER_CONFIG_FILE).is_file() else None
    folder = Path(folder) if adapter is None else base_folder(adapter, read_json(adapter / ADAPTER_CONFIG_FILE))
    tokenizer = load_tokenizer(str(folder))
    lm = _pretrained(folder, CausalLmConfig(pretrained=str(folder)))
    if adapter is not None:
        tensors, config = lm.state_dict(), read_json(adapter / ADAPTER_CONFIG_FILE)
        weights = read_tensors(adapter / ADAPTER_WEIGHTS_FILE)
        check_same_base(tensors, adapter)
        merge_adapter(tensors, weights, config, adapter)
        lm.load_state_dict(tensors)
    return CausalLm(lm, tokenizer.hf).eval()


def longest(config: CausalLmConfig) -> int | None:
    """Tokens that the model of a recipe can read; None where its configuration sets no limit or is not at hand."""
    if config.pretrained is None:
        return _longest(_new_config(config, None))
    file = Path(config.pretrained) / CONFIG_FILE
    return _longest(read_json(file)) if file.is_file() else None


def _longest(values: Any) -> int | None:
    values = values if isinstance(values, Mapping) else values.to_dict()
    return next((int(values[name]) for name in _LENGTHS if isinstance(values.get(name), int)), None)


def build(config: CausalLmConfig, tokenizer: TextTokenizer, *, has_borders: bool) -> CausalLm:
    """A pretrained model, or a new one without values of its own, that knows every token of the tokenizer.

    ValueError where transformers cannot load it, an attention is not there, or documents would see one another.
    """
    if config.pretrained is not None:
        lm = _pretrained(Path(config.pretrained), config)
    else:
        lm = _new(config, tokenizer)
    size = lm.get_input_embeddings().num_embeddings
    if size < tokenizer.vocabulary_size:
        logger.info("embeddings: %d -> %d, as many as the tokenizer has", size, tokenizer.vocabulary_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # every rank adds the same rows
            lm.resize_token_embeddings(tokenizer.vocabulary_size)
    if lm.config.pad_token_id is None:
        lm.config.pad_token_id = tokenizer.pad_id
    module = CausalLm(lm, tokenizer.hf, config.z_loss)
    module.probe(has_borders=has_borders)
    return module


def _pretrained(folder: Path, config: CausalLmConfig) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and of saving, which stand in the middle of a log
    if config.trust_remote_code:
        warnings.warn(f"{folder}: code that comes with the model is run (model.trust_remote_code).", stacklevel=2)
    options = {"dtype": torch.float32, "attn_implementation": config.attention}
    try:
        if torch.get_default_device().type == "meta":  # only what it is made of is asked for
            its = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
            return AutoModelForCausalLM.from_config(its, trust_remote_code=config.trust_remote_code, **options)
        return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=config.trust_remote_code, **options)
    except (ImportError, OSError, KeyError) as error:
        raise ValueError(f"{folder}: transformers cannot load it: {' '.join(str(error).split())}") from error


def _new_config(config: CausalLmConfig, tokenizer: TextTokenizer | None) -> Any:
    from transformers import AutoConfig

    values = config.new_values()
    model_type = values.pop("model_type")
    try:
        known = AutoConfig.for_model(model_type)
    except ValueError:
        raise ValueError(f"model.config: transformers has no model_type {model_type!r}.") from None
    unknown = [name for name in values if not hasattr(known, name)]
    if unknown:
        raise ValueError(f"model.config: {', '.join(unknown)} mean nothing to {model_type}.")
    if (
        "num_attention_heads" in values
        and "num_key_value_heads" not in values
        and hasattr(known, "num_key_value_heads")
    ):
        values["num_key_value_heads"] = values["num_attention_heads"]
    if "head_dim" not in values and hasattr(known, "head_dim"):
        values["head_dim"] = values["hidden_size"] // values["num_attention_heads"]
    if tokenizer is not None:
        values |= {"vocab_size": tokenizer.vocabulary_size, "bos_token_id": tokenizer.hf.bos_token_id}
        values |= {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return AutoConfig.for_model(model_type, **values)


def _new(config: CausalLmConfig, tokenizer: TextTokenizer) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_config(
        _new_config(config, tokenizer), attn_implementation=config.attention, dtype=torch.float32
    )


def initialize(module: nn.Module, seed: int) -> None:
    """The architecture's own random values, drawn for each layer by a generator seeded with (seed, its name)."""
    assert isinstance(module, CausalLm)
    with torch.random.fork_rng(devices=[]):
        for name, layer in module.lm.named_modules():
            for parameter in layer.parameters(recurse=False):
                parameter._is_hf_initialized = False
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            module.lm._init_weights(layer)


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write what transformers loads: config, generation config, weights under their own names, tokenizer."""
    assert isinstance(module, CausalLm)
    tied = module.lm.all_tied_weights_keys
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in tied}
    module.lm.save_pretrained(folder, state_dict=tensors)
    module.tokenizer.save_pretrained(folder)
