import pytest
from matplotlib.figure import Figure

from guided_diffusion.evaluation.plots import curves as module
from guided_diffusion.evaluation.plots.curves import (
    add_legend,
    curves,
    empty,
    save_figure,
    save_share_plot,
    spread_scales,
)


def test_rows_are_grouped_into_curves_and_sorted_by_scale(fabricate):
    results = fabricate(scales=[3.0, 0.0, 1.0], jobs=[{"p": "0.1"}, {"p": "0.2"}, {"p": ""}])
    names = [curve.name for curve in curves(results)]
    assert names == ["cfg, ddim, 25 steps, p = 0.1", "cfg, ddim, 25 steps, p = 0.2", "cfg, ddim, 25 steps"]
    assert [curve.scales for curve in curves(results)] == [[0, 1, 3]] * 3
    assert [curve.slug for curve in curves(results)] == ["cfg-ddim-25-p=0.1", "cfg-ddim-25-p=0.2", "cfg-ddim-25"]


def test_every_curve_has_its_own_file_name(fabricate):
    jobs = [{"file": "a/b"}, {"file": "a-b"}, {"file": "A b"}, {"file": "x" * 200}, {"file": "x" * 201}]
    slugs = [curve.slug for curve in curves(fabricate(jobs=jobs))]
    assert len({slug.lower() for slug in slugs}) == 5
    assert all("/" not in slug and len(slug) < 110 for slug in slugs)


def test_a_share_is_plotted_with_that_of_real_data(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(module, "write_figure", lambda figure, path: figures.append(figure))
    save_share_plot({"a": [(0, 0.1), (3, 0.9)], "b": [(1, 0.5)]}, 0.95, tmp_path / "plot.png", "accuracy", "real")
    (axes,) = figures[0].axes
    assert [line.get_xydata().tolist() for line in axes.lines[:2]] == [[[0, 0.1], [3, 0.9]], [[1, 0.5]]]
    assert set(axes.lines[2].get_ydata()) == {0.95}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "real: 95.0%"]
    assert axes.get_ylabel() == "accuracy"


def test_a_figure_is_written_as_png_and_pdf_whatever_dots_its_name_has(tmp_path):
    save_figure(Figure(figsize=(1, 1)), tmp_path / "label_dropout=0.1")
    assert (tmp_path / "label_dropout=0.1.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "label_dropout=0.1.pdf").read_bytes().startswith(b"%PDF")


def test_scales_are_spread_out_below_two():
    _, axes = empty()
    axes.plot([0, 1, 10], [0, 1, 2])
    spread_scales(axes, [0, 1, 2, 10])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "10"]
    zero, one, two, ten = (axes.transData.transform((scale, 0))[0] for scale in (0, 1, 2, 10))
    assert two - one == pytest.approx(one - zero)
    assert ten - two < 8 * (two - one)


def test_the_figure_grows_with_its_legend():
    heights = []
    for count in (1, 12):
        figure, axes = empty()
        for index in range(count):
            axes.plot([0, 1], label=f"a long name of a curve that takes a line, {index}")
        add_legend(figure)
        heights.append(figure.get_figheight())
    assert heights[1] == pytest.approx(heights[0] + 11 * 0.17)
