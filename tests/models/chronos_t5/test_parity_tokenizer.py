"""Token ids, scales, boundaries and training examples of chronos-forecasting, to the last bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chronos_t5_parity import arrays

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.tokenizer import Tokenizer


def tokenizer(shared, name: str) -> Tokenizer:
    settings = json.loads((shared / "oracles" / "chronos" / f"{name}.json").read_text())
    limits = settings.pop("tokenizer_kwargs")
    for key in ("tokenizer_class", "drop_prob", "min_past", "note"):
        settings.pop(key, None)
    return Tokenizer(Architecture(**settings, **limits))


@pytest.mark.parametrize("name", ["t5_tokenizer_4096", "t5_tokenizer_32_noeos_trunc"])
def test_tokens_scales_and_bins_are_the_published_ones(shared, name):
    ours, case = tokenizer(shared, name), arrays(shared, name)
    np.testing.assert_array_equal(ours.center_K, case["centers"])
    np.testing.assert_array_equal(ours.boundary_K, case["boundaries"])
    context = ours.encode_context(torch.from_numpy(case["in_context"]))
    np.testing.assert_array_equal(context.id_RS, case["out_token_ids"])
    np.testing.assert_array_equal(context.mask_RS, case["out_attention_mask"])
    np.testing.assert_array_equal(context.scale_R, case["out_scale"])
    labels = ours.encode_labels(torch.from_numpy(case["in_label"]), context.scale_R).numpy()
    # A horizon without a single observed step: there the reference still counts the end marker.
    counts_R = ~np.isnan(case["in_label"]).all(1)
    expected = np.where(case["out_label_mask"], case["out_label_ids"], -100)
    np.testing.assert_array_equal(labels[counts_R], expected[counts_R])
    assert (labels[~counts_R] == -100).all()
    decoded = ours.decode(torch.from_numpy(case["in_samples"]), context.scale_R)
    np.testing.assert_array_equal(decoded, case["out_decoded_samples"])


@pytest.mark.parametrize("name", ["t5_tokenizer_4096", "t5_tokenizer_32_noeos_trunc"])
def test_values_on_and_beside_boundaries_fall_where_they_do_in_the_reference(shared, name):
    ours, case = tokenizer(shared, name), arrays(shared, name)
    probe = torch.from_numpy(case["in_probe_values_scale1"])
    labels = ours.encode_labels(probe, torch.ones(len(probe)))
    np.testing.assert_array_equal(labels[:, : probe.shape[1]], case["out_probe_ids"])


@pytest.mark.parametrize("mode", ["training", "validation"])
def test_training_examples_are_the_reference_script_s(shared, mode):
    ours, case = tokenizer(shared, "t5_train_examples"), arrays(shared, "t5_train_examples")
    context = ours.encode_context(torch.from_numpy(case[f"in_seq2seq_{mode}_past_target"]))
    np.testing.assert_array_equal(context.id_RS, case[f"out_seq2seq_{mode}_input_ids"])
    np.testing.assert_array_equal(context.mask_RS, case[f"out_seq2seq_{mode}_attention_mask"])
    labels = ours.encode_labels(torch.from_numpy(case[f"in_seq2seq_{mode}_future_target"]), context.scale_R)
    np.testing.assert_array_equal(labels, case[f"out_seq2seq_{mode}_labels"])
