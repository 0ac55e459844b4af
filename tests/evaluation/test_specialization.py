"""Specialisation: planted and absent, in bits that can be computed by hand, beside what chance gives."""

import numpy as np
import pytest

from foreloom.evaluation.specialization import specialization

KINDS = ["trend", "seasonal", "noise", "mixed"] * 50
NUMBER_N = np.arange(200)


def shares(chosen_NK, num_experts=4):
    return np.eye(num_experts)[chosen_NK].mean(1)


def test_an_expert_for_each_kind_tells_all_there_is():
    share_NE = shares((NUMBER_N % 4)[:, None])
    found = specialization(share_NE, share_NE, KINDS, top_k=1)
    assert [use.kind for use in found.kinds] == ["mixed", "noise", "seasonal", "trend"]
    assert [use.num_series for use in found.kinds] == [50] * 4
    np.testing.assert_array_equal(found.kinds[-1].share_E, [1, 0, 0, 0])
    assert found.kinds[-1].entropy == 0 and found.total.entropy == pytest.approx(1)
    assert found.information_bits == pytest.approx(2) and found.most_bits == pytest.approx(2)
    assert found.chance_95_bits < 0.1 and found.p_value == 0.001
    assert found.unused == ()


def test_pairs_of_experts_tell_one_bit_of_two():
    pair_NK = np.array([[0, 1], [0, 1], [2, 3], [2, 3]])[NUMBER_N % 4]
    found = specialization(shares(pair_NK), shares(pair_NK), KINDS, top_k=2)
    assert found.information_bits == pytest.approx(1) and found.most_bits == pytest.approx(1)
    np.testing.assert_array_equal(found.total.share_E, [0.25] * 4)


def test_uneven_kinds_by_the_sum_over_cells():
    kinds = ["a"] * 30 + ["b"] * 10
    share_NE = np.concatenate([np.tile([0.5, 0.5, 0.0], (30, 1)), np.tile([0.0, 0.25, 0.75], (10, 1))])
    found = specialization(share_NE, share_NE, kinds, top_k=2)
    joint_KE = np.array([[0.375, 0.375, 0.0], [0.0, 0.0625, 0.1875]])
    expected = sum(
        p * np.log2(p / (joint_KE[k].sum() * joint_KE[:, e].sum())) for (k, e), p in np.ndenumerate(joint_KE) if p
    )
    assert found.information_bits == pytest.approx(expected)
    assert found.most_bits == pytest.approx(np.log2(1.5))


def test_noise_is_not_read_as_specialisation():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(40):
        share_NE = shares(rng.integers(0, 4, (60, 1)))
        found = specialization(share_NE, share_NE, KINDS[:60], top_k=1)
        # With so few series the plain figure is never 0.
        assert found.information_bits > 0.01
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.7


def test_one_kind_and_one_expert_have_nothing_to_tell():
    share_NE = shares(np.tile([[0, 2]], (20, 1)))
    found = specialization(share_NE, share_NE, ["a"] * 20, top_k=2)
    assert found.information_bits == 0 and found.p_value == 1 and found.unused == (1, 3)
    alone = specialization(np.ones((20, 1)), np.ones((20, 1)), KINDS[:20], top_k=1)
    assert alone.information_bits == 0 and alone.most_bits == 0 and alone.total.entropy == 1
