from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from foreloom.objectives.loss import Loss
from foreloom.training.step import OutputSums, RunningTally

CPU = torch.device("cpu")


def output(loss: float, count: int, **tally: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(objective=Loss(torch.tensor(loss, requires_grad=True), torch.tensor(count)), tally=tally)


def test_micro_batches_add_up_in_double_precision_and_keep_their_shapes() -> None:
    sums = OutputSums(CPU)
    load = torch.arange(6).reshape(2, 3)
    sums.add(output(1.5, 2**24 + 1, load=load, aux=torch.tensor([0.1, 1.0])))
    sums.add(output(2.0, 2**24 + 2, aux=torch.tensor([0.2, 1.0]), load=load))
    assert sums.vector.dtype == torch.float64 and not sums.vector.requires_grad
    assert sums.vector[:2].tolist() == [3.5, 2**25 + 3]
    tally = sums.tally(sums.vector[2:])
    assert list(tally) == ["aux", "load"]
    assert torch.equal(tally["load"], (2 * load).double())
    assert tally["aux"].tolist() == pytest.approx([0.3, 2.0], abs=1e-7)


def test_a_family_without_a_tally_sums_its_loss_only() -> None:
    sums = OutputSums(CPU)
    sums.add(output(1.0, 4))
    assert sums.vector.tolist() == [1.0, 4.0]
    assert sums.tally(sums.vector[2:]) == {}


def test_a_tally_that_changes_its_shape_is_our_mistake() -> None:
    sums = OutputSums(CPU)
    sums.add(output(1.0, 4, load=torch.zeros(3)))
    with pytest.raises(AssertionError, match="tally changed"):
        sums.add(output(1.0, 4, load=torch.zeros(4)))


def test_skipped_steps_stay_out_of_the_log_line_and_a_resumed_sum_is_the_same() -> None:
    running = RunningTally(torch.device("cpu"))
    applied, skipped = torch.tensor(1.0), torch.tensor(0.0)
    running.add({"load": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}, applied)
    running.add({"load": torch.tensor([[torch.nan, torch.inf]], dtype=torch.float64)}, skipped)
    resumed = RunningTally(torch.device("cpu"))
    resumed.load_state_dict(running.state_dict())
    for one in (running, resumed):
        one.add({"load": torch.tensor([[0.1, 0.2]], dtype=torch.float64)}, applied)
        assert one.take()["load"].tolist() == [[1.1, 2.2]]
        assert one.take() == {}
