"""Labels: which name files, and learning rates in them, ours and those of the old repository's dialects."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

import pytest

from foreloom.lab.study.labels import (
    check_distinct,
    check_label,
    learning_rate_in,
    split_learning_rate,
    with_learning_rate,
)

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracles" / "scaling" / "experimental_progress" / "legacy"


def test_our_rates_are_read_back_exactly():
    drawn = random.Random(3)
    rates = [1e-5, 3e-4, 0.01, 0.1, 1.0, 3.0, 25.0, 10**-2.5, 10**-2.25, 10**-1.5]
    rates += [10 ** drawn.uniform(-7, 1.5) for _ in range(500)]
    for rate in rates:
        label = with_learning_rate("32d_mup", rate)
        assert split_learning_rate(label) == ("32d_mup", rate), label
        check_label(label)
    assert split_learning_rate("32d_lr_-1.5_seed_3") == ("32d_seed_3", 10**-1.5)
    assert with_learning_rate("a", 0.003) == "a_lr_0.003" and with_learning_rate("a", 10**-2.5) == "a_lr_-2.5"


@pytest.mark.parametrize(
    ("stem", "rate"),
    [
        ("64d_x_lr_10e2", 0.01),
        ("64d_x_lr_18e2", 0.018),
        ("256_lr_study_lr_56e3", 0.0056),
        ("128d_lr_-2.25", 10**-2.25),
        ("128d_lr_-2", 0.01),
        ("64d_lr_10e-2", 0.01),
        ("64d_lr_3.2e-3", 0.0032),
        ("32d_sgd_lr_01", 0.1),
        ("64d_lr_001", 0.001),
        ("64d_x_lr_0032", 0.0032),
        ("vanilla_96d_lr_10em03", 0.001),
        ("64d_x_lr_1", 1.0),
        ("64d", None),
        ("64d_lr_warm", None),
        ("64d_lr_", None),
    ],
)
def test_old_dialects_are_read(stem, rate):
    assert learning_rate_in(stem) == pytest.approx(rate) if rate else learning_rate_in(stem) is None


def test_the_oracle_of_old_labels():
    if not ORACLE.is_dir():
        pytest.skip("the shared oracles are not there")
    rows = list(csv.DictReader((ORACLE / "lr_labels.csv").open()))
    assert len(rows) >= 12
    for row in rows:
        found = learning_rate_in(row["stem"])
        # 0032 was written with two digits of 10^-2.5.
        assert found is not None and math.isclose(found, float(row["true_lr"]), rel_tol=0.02), row


@pytest.mark.parametrize("label", ["", "a/b", "..", ".hidden", "a ", "a:b", "x" * 201, "a\nb", "a*"])
def test_a_label_that_is_no_file_name(label):
    with pytest.raises(ValueError, match="is no file name"):
        check_label(label)


def test_duplicates_are_told_and_punctuation_tells_apart():
    check_distinct([("s", "a.b"), ("s", "a-b"), ("s", "a_b"), ("s", "ab"), ("other", "ab")])
    with pytest.raises(ValueError, match=r"twice: '16d_activation'\. Put what differs"):
        check_distinct([("s", "16d_activation")] * 3)
    with pytest.raises(ValueError, match="'A' beside 'a'"):
        check_distinct([("s", "a"), ("s", "A")])
