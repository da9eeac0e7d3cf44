from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from PIL import Image

from guided_diffusion.evaluation.plots.curves import curves, save_figure, save_figures
from guided_diffusion.evaluation.plots.image_evaluation import (
    class_accuracies,
    figures,
    plot_accuracy,
    plot_confusion,
    plot_frechet_distance,
    plot_means,
    plot_per_class,
    plot_precision_recall,
    plot_strip,
    plot_uncertain,
)

PLOTS_OF_CURVE = ("per_class", "confusion", "strip", "means", "uncertain")
EIGHTEEN = [0, 0.5, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10, 12, 15.0]


def drawn(figure):
    """Draw a figure, which places its texts, and return it."""
    figure.draw_without_rendering()
    return figure


def centres(path, rows, columns):
    """The greys of a grid of 32 pixels an image, whose labels stand to the left and above."""
    pixels = np.asarray(Image.open(path).convert("L")).astype(int)
    height, width = pixels.shape
    zoom = 2 * 34
    y = [height - zoom * (rows - row) + zoom // 2 for row in range(rows)]
    x = [width - zoom * (columns - column) + zoom // 2 for column in range(columns)]
    return pixels[np.ix_(y, x)]


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param({"scales": [1.0]}, marks=pytest.mark.slow),
        pytest.param({"scales": [1.0], "nan": True}, marks=pytest.mark.slow),
        pytest.param({"scales": EIGHTEEN, "channels": 3, "nan": True}, marks=pytest.mark.slow),
        pytest.param({"classes": 100, "scales": [0.0, 2.0]}, marks=pytest.mark.slow),
        pytest.param({"scales": [0.0, 2.0], "jobs": [{"p": "0.1"}, {"p": "0.2"}]}, marks=pytest.mark.slow),
        pytest.param({"scales": [0.0, 2.0], "channels": 5, "size": (12, 20), "classes": 1}, marks=pytest.mark.slow),
        {"scales": [2.0], "channels": 5, "size": (12, 20), "classes": 1, "nan": True},
    ],
    ids=[
        *("one scale", "all nan", "eighteen scales", "hundred classes", "two curves", "oblong, five channels"),
        "one scale, all nan, oblong, five channels",
    ],
)
def test_every_plot_is_written_as_png_and_pdf(case, fabricate, tmp_path):
    results = fabricate(**case)
    plots = save_figures(figures(results), tmp_path / "plots")
    each = [f"{name}-{curve.slug}" for curve in curves(results) for name in PLOTS_OF_CURVE]
    assert sorted(plots) == sorted(["accuracy", "frechet_distance", "precision_recall", *each])
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    assert written == {f"{name}{suffix}" for name in plots for suffix in (".png", ".pdf")}
    for name, path in plots.items():
        assert path == tmp_path / "plots" / f"{name}.png"
        with Image.open(path) as image:
            assert min(image.size) > 50
        assert path.with_name(f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_accuracy_is_plotted_against_scale_with_intervals_and_ceiling(fabricate):
    axes = drawn(plot_accuracy(curves(fabricate(jobs=[{"p": "1"}, {"p": "2"}])), 0.9875)).axes[0]
    first, second, ceiling = axes.lines
    assert first.get_xdata().tolist() == second.get_xdata().tolist() == [0, 1, 3]
    assert first.get_ydata().tolist() == pytest.approx([1 / 2, 2 / 3, 4 / 5])
    assert second.get_ydata().tolist() == pytest.approx([1 / 3, 2 / 4, 4 / 6])
    assert set(ceiling.get_ydata()) == {0.9875}
    assert ceiling.get_linestyle() == "--"
    bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
    edges = bands[0].get_paths()[0].vertices
    assert edges[edges[:, 0] == 1][:, 1] == pytest.approx([2 / 3 - 0.05, 2 / 3 + 0.02])


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize("jobs", [2, 10, pytest.param(40, marks=pytest.mark.slow)])
def test_every_curve_has_its_own_colour_and_name(jobs, fabricate):
    lines = curves(fabricate(classes=1, jobs=[{"label_dropout": str(index)} for index in range(jobs)]))
    for figure in (drawn(plot_accuracy(lines, 0.9875)), drawn(plot_precision_recall(lines))):
        assert len({line.get_color() for line in figure.axes[0].lines[:jobs]}) == jobs
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names[:jobs] == [curve.name for curve in lines]
        assert figure.axes[0].bbox.height > 250  # the legend takes nothing from the plot


@pytest.mark.parametrize(("floors", "lines"), [([1, 1, 1], [1]), ([1, 2, 2], [1, 2]), ([np.nan] * 3, [])])
def test_each_floor_of_the_distance_is_a_dashed_line(floors, lines, fabricate):
    results = fabricate()
    rows = [replace(row, floors={"fld": float(floor)}) for row, floor in zip(results.rows, floors, strict=True)]
    axes = drawn(plot_frechet_distance(curves(replace(results, rows=rows)))).axes[0]
    assert [set(line.get_ydata()) for line in axes.lines[1:]] == [{line} for line in lines]


def test_precision_and_recall_are_labelled_with_their_scales(fabricate):
    axes = drawn(plot_precision_recall(curves(fabricate()))).axes[0]
    assert axes.lines[0].get_xydata()[1] == pytest.approx([2 / 3, 2 / 3])
    assert [text.get_text() for text in axes.texts] == ["w = 0", "w = 3", "w = 1"]  # the ends first
    crowded = drawn(plot_precision_recall(curves(fabricate(EIGHTEEN)))).axes[0]
    assert 3 < len(crowded.texts) < 18
    assert [text.get_text() for text in crowded.texts[:2]] == [
        f"w = {scale:g}" for scale in (EIGHTEEN[0], EIGHTEEN[-1])
    ]


def test_labels_of_coinciding_points_do_not_overlap(fabricate):
    axes = drawn(plot_precision_recall(curves(fabricate(jobs=[{"seed": "0"}, {"seed": "1"}])))).axes[0]
    places = {(text.xy[0], text.xy[1], text.xyann) for text in axes.texts}
    assert len(places) == len(axes.texts) == 6


def test_class_accuracies_are_shares_of_the_confusion_matrix(fabricate):
    row = fabricate().rows[0]
    confusion = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 0]])
    row = replace(row, pictures=row.pictures._replace(confusion=confusion))
    assert class_accuracies(row) == pytest.approx([0.75, np.nan, 0], nan_ok=True)


@pytest.mark.parametrize(("classes", "labels"), [(3, ["class <0>", "class <1>", "class <2>"]), (40, ["mean of 40"])])
def test_few_classes_are_named_and_many_are_averaged(classes, labels, fabricate):
    results = fabricate(classes=classes)
    figure = drawn(plot_per_class(curves(results)[0], results.about["class_names"]))
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(shown) == len(labels)
    assert all(text.startswith(label) for text, label in zip(shown, labels, strict=True))
    share = 4 / (classes + 3)
    assert all(line.get_ydata() == pytest.approx([share] * 3) for line in figure.axes[0].lines)


@pytest.mark.slow
def test_confusion_has_a_panel_for_each_scale_with_the_same_colour_range(fabricate):
    results = fabricate(EIGHTEEN)
    figure = drawn(plot_confusion(curves(results)[0], results.about["class_names"]))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [f"w = {scale:g}" for scale in EIGHTEEN]
    assert {axes.images[0].get_clim() for axes in panels} == {(0, 1)}
    assert panels[0].images[0].get_array()[0].tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_strip_has_a_row_for_each_scale_on_the_fixed_range(channels, fabricate, tmp_path):
    results = fabricate(channels=channels)
    save_figure(plot_strip(curves(results)[0]), tmp_path / "strip")
    greys = np.array([row.pictures.strip[:, 0, 0, 0] for row in results.rows])
    assert np.abs(centres(tmp_path / "strip.png", 3, 12) - (greys + 1) * 127.5).max() <= 2


def test_means_are_grey_for_a_class_without_samples(fabricate, tmp_path):
    results = fabricate(nan=True)
    save_figure(plot_means(curves(results)[0], results.about["class_names"]), tmp_path / "means")
    assert centres(tmp_path / "means.png", 3, 3) == pytest.approx(np.array([[191] * 3, [191] * 3, [128] * 3]), abs=2)


@pytest.mark.parametrize(
    ("case", "aspect"),
    [
        ({"size": (12, 20)}, 20 / 12),
        ({"size": (20, 12)}, 12 / 20),
        ({"channels": 2}, 65 / 32),
        ({"size": (2, 40)}, 20),
    ],
    ids=str,
)
def test_uncertain_samples_keep_their_proportions_and_do_not_overlap(case, aspect, fabricate):
    axes = drawn(plot_uncertain(curves(fabricate(**case))[0], ["a", "US$, CA$", "c"])).axes[0]
    left, right, bottom, top = np.array([image.get_extent() for image in axes.images[:3]]).T
    assert (right - left) / (bottom - top) == pytest.approx(aspect)
    assert (left[1:] > right[:-1]).all()
    assert (bottom - top).max() <= 0.9 + 1e-6


def test_the_legend_names_every_class(fabricate):
    legend = drawn(plot_per_class(curves(fabricate())[0], ["_hidden", "$a$", "c"])).legends[0]
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_hidden", r"\$a\$", "c"]


def test_uncertain_samples_are_captioned(fabricate):
    results = fabricate()
    axes = drawn(plot_uncertain(curves(results)[0], ["3", "5", "an uncommonly long name"])).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["w = 0", "3 → 5\n1.0%", "5\n→ an uncommon…\n2.0%", "an uncommon…\n→ 3\n30.0%"]
    assert len(axes.images) == 9
    assert np.unique(axes.images[1].get_array()).tolist() == [23]  # -9 / 11 on the fixed range [-1, 1]
