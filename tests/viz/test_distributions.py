from __future__ import annotations

import numpy as np
import pytest
import torch

from st_vi.evaluation.geometry import effective_rank, singular_values
from st_vi.viz.distributions import similarity_histogram, spectrum, stacked


class TestSimilarityHistogram:
    def test_shares_of_each_group(self):
        values = torch.tensor([-1.0, -0.95, 0.05, 0.05, 0.3, 1.0])
        figure = similarity_histogram({"a": values, "b": torch.tensor([0.0])}, bins=4)
        # [-1, -0.5), [-0.5, 0), [0, 0.5), [0.5, 1]
        np.testing.assert_allclose(figure.data[0].y, [2 / 6, 0, 3 / 6, 1 / 6])
        np.testing.assert_allclose(figure.data[0].x, [-0.75, -0.25, 0.25, 0.75])
        assert list(figure.data[1].y) == [0, 0, 1, 0]
        assert [trace.name for trace in figure.data] == ["a: mean -0.09, 6 pairs", "b: mean 0.00, 1 pair"]

    def test_groups_differ_in_colour_and_dash(self):
        data = similarity_histogram({str(i): torch.zeros(1) for i in range(4)}).data
        assert len({trace.line.color for trace in data}) == len({trace.line.dash for trace in data}) == 4

    def test_axis_is_the_same_for_all_figures(self):
        assert similarity_histogram({"a": torch.tensor([0.9])}).layout.xaxis.range == (-1, 1)

    def test_rounding_above_one_is_counted(self):
        assert sum(similarity_histogram({"a": torch.tensor([1 + 1e-6, -1 - 1e-6])}).data[0].y) == 1

    def test_takes_a_gradient_and_half_precision(self):
        assert similarity_histogram({"a": torch.ones(3, dtype=torch.bfloat16, requires_grad=True)}).data

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            ({}, "no group"),
            ({"random": torch.empty(0)}, "'random' has no pairs"),
            ({"random": torch.tensor([0.1, torch.nan])}, "'random' must hold cosines"),
            ({"random": torch.tensor([7.0])}, "got 7.0 to 7.0"),
        ],
    )
    def test_bad_input(self, groups, message):
        with pytest.raises(ValueError, match=message):
            similarity_histogram(groups)

    def test_bad_bins(self):
        with pytest.raises(ValueError, match="bins must be a whole number"):
            similarity_histogram({"a": torch.ones(1)}, bins=1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosines_of_half_precision_may_be_rounded_above_one(dtype):
    above = torch.tensor([1 + torch.finfo(dtype).eps], dtype=dtype)
    assert similarity_histogram({"a": above}).data[0].name.startswith("a: mean 1.00")


class TestSpectrum:
    def test_curve_and_rank(self):
        x = torch.randn(50, 8, generator=torch.manual_seed(0)) * torch.arange(1, 9)
        values = np.linalg.svd((x - x.mean(0)).double().numpy(), compute_uv=False)
        trace = spectrum({"before": singular_values(x)}).data[0]
        np.testing.assert_allclose(trace.y, values / values[0], rtol=1e-6)
        assert trace.name == f"before: effective rank {effective_rank(x):.1f}"

    def test_order_does_not_matter(self):
        assert list(spectrum({"a": torch.tensor([1.0, 4.0, 2.0])}).data[0].y) == [1, 0.5, 0.25]

    def test_log_axis_has_no_rounding_errors(self):
        figure = spectrum({"a": torch.tensor([1.0, 1e-9, 0.0])})
        assert figure.layout.yaxis.type == "log"
        assert list(figure.data[0].y) == [1]

    def test_collapse(self):
        trace = spectrum({"a": torch.zeros(3)}).data[0]
        assert (len(trace.y), trace.name) == (0, "a: effective rank 0.0")

    @pytest.mark.parametrize("wrong", [[], [-1.0], [float("nan")], [float("inf")]])
    def test_bad_input(self, wrong):
        with pytest.raises(ValueError, match="at least one singular value"):
            spectrum({"a": torch.tensor(wrong)})

    def test_nothing(self):
        with pytest.raises(ValueError, match="no singular values"):
            spectrum({})


def test_figures_below_one_another():
    histogram = similarity_histogram({"a": torch.tensor([0.2]), "b": torch.tensor([0.3])}, "trước")
    curve = spectrum({"a": torch.tensor([2.0, 1.0])}, "phổ")
    figure = stacked([histogram, curve])
    assert [(trace.xaxis, trace.legend) for trace in figure.data] == [("x", "legend")] * 2 + [("x2", "legend2")]
    np.testing.assert_array_equal(figure.data[1].y, histogram.data[1].y)
    assert [figure.layout[name].title.text for name in ("legend", "legend2")] == ["<b>trước</b>", "<b>phổ</b>"]
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    assert (figure.layout.xaxis.range, figure.layout.yaxis2.type) == ((-1, 1), "log")
    assert figure.layout.xaxis2.title.text == curve.layout.xaxis.title.text
