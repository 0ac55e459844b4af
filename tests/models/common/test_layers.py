"""The layers' own arithmetic beside its definition."""

from __future__ import annotations

import torch

from foreloom.models.common.layers import add_product


def test_a_product_is_added_and_overwrites_only_what_no_graph_needs():
    h, x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 4), (2, 3, 5), (4, 5)))
    expected, kept = h + x @ weight.t(), h.clone()
    torch.testing.assert_close(add_product(h, x, weight), expected)
    torch.testing.assert_close(h, kept, rtol=0, atol=0)  # a graph may be made
    with torch.no_grad():
        last = add_product(h[:, 1:], x[:, 1:], weight)  # not in one piece
        torch.testing.assert_close(last, expected[:, 1:])
        torch.testing.assert_close(h, kept, rtol=0, atol=0)
        with torch.autocast("cpu"):
            torch.testing.assert_close(
                add_product(h.float(), x.float(), weight.float()), expected.float(), rtol=0.05, atol=0.05
            )
        assert add_product(h, x.transpose(0, 1).contiguous().transpose(0, 1), weight) is h
        torch.testing.assert_close(h, expected)
