from dataclasses import replace
from pathlib import Path

import pytest
from pytorch_lightning.loggers import WandbLogger

from guided_diffusion.evaluation.publish import publish_results

SCALES = [0.0, 1.0, 2.5]
CURVES = ["cfg-ddim-25-p=0_1", "classifier-ddim-25-p=0_2"]


@pytest.fixture(scope="module")
def publish(offline_run, tmp_path_factory):
    """Publish an evaluation in an offline run, and return the run."""

    def published(results):
        folder = tmp_path_factory.mktemp("evaluation")
        (folder / "report.html").write_text("<p>report")
        (folder / "results.csv").write_text("method,scale")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WANDB_DATA_DIR", str(folder))  # where W&B keeps artifacts until they are sent
            logger = WandbLogger("evaluation", folder, project="project", mode="offline", tags=["mine"])
            publish_results(logger, results, folder)
            logger.experiment.finish()
        return offline_run(folder)

    return published


@pytest.fixture(scope="module")
def one_curve(publish, fabricate):
    results = fabricate(SCALES)
    return publish(replace(results, rows=results.rows[::-1]))


@pytest.fixture(scope="module")
def two_curves(publish, fabricate):
    results = fabricate(SCALES, jobs=[{"p": "0.1"}, {"p": "0.2"}])
    rows = [replace(row, method="classifier") if row.options["p"] == "0.2" else row for row in results.rows]
    return publish(replace(results, rows=rows))


def test_every_quantity_is_drawn_against_the_scale(one_curve, fabricate):
    accuracies = one_curve.history("guidance/accuracy")
    assert [scale for scale, _ in accuracies] == SCALES
    assert [value for _, value in accuracies] == pytest.approx([1 / 2, 2 / 3, 3.5 / 4.5])
    assert one_curve.history("guidance/seconds") == [(scale, 1.5) for scale in SCALES]
    axes = {name: axis for name, axis in one_curve.axes.items() if name.startswith("guidance/")}
    (row, *_) = fabricate([1.0]).rows
    quantities = {f"guidance/{name}" for name in (*row.measured, "nfe", "seconds", "strip", "means")}
    assert set(axes) == quantities | {"guidance/scale"}
    assert {axes[quantity] for quantity in quantities} == {"guidance/scale"}


@pytest.mark.parametrize(("curve", "values"), [(CURVES[0], [1 / 2, 2 / 3]), (CURVES[1], [1 / 3, 2 / 4])], ids=CURVES)
@pytest.mark.slow
def test_several_curves_have_a_key_each(two_curves, curve, values):
    points = two_curves.history(f"guidance/accuracy/{curve}")
    assert [scale for scale, _ in points] == SCALES
    assert [value for _, value in points][:2] == pytest.approx(values)
    assert two_curves.axes[f"guidance/accuracy/{curve}"] == "guidance/scale"


def test_the_samples_of_every_scale_are_shown(one_curve):
    strips = one_curve.history("guidance/strip.path")
    assert [scale for scale, _ in strips] == SCALES
    assert all((one_curve.folder / "files" / path).is_file() for _, path in strips)


def test_the_table_of_results_is_shown(one_curve, fabricate):
    columns, rows = one_curve.table("evaluation/results")
    assert columns == list(fabricate([1.0]).rows[0].row)
    assert [row[columns.index("scale")] for row in rows] == SCALES[::-1]


def test_the_least_certain_samples_are_shown(one_curve):
    columns, rows = one_curve.table("evaluation/uncertain")
    assert columns == ["method", "scale", "image", "label", "prediction", "probability"]
    assert len(rows) == 3 * len(SCALES)
    method, scale, image, *judgement = rows[0]
    assert (method, scale, image["_type"]) == ("cfg", 0, "image-file")
    assert judgement == ["class <0>", "class <1>", pytest.approx(0.01)]


def test_every_scale_has_a_confusion_matrix(one_curve):
    columns, rows = one_curve.table("confusion/w2_5_table")
    assert columns == ["Actual", "Predicted", "nPredictions"]
    classes = [f"class <{index}>" for index in range(3)]
    expected = {(label, seen): 4 if label == seen else 1 for label in classes for seen in classes}
    assert {(label, seen): count for label, seen, count in rows} == expected
    assert {"confusion/w0_table", "confusion/w1_table"} <= set(one_curve.summary)


def test_all_curves_share_a_chart(two_curves):
    columns, rows = two_curves.table("curves/accuracy_table")
    assert columns == ["step", "lineKey", "lineVal"]
    names = ["cfg, ddim, 25 steps, p = 0.1", "classifier, ddim, 25 steps, p = 0.2"]
    assert sorted((name, scale) for scale, name, _ in rows) == [(name, scale) for name in names for scale in SCALES]
    charts = {key for update in two_curves.records("config") for key in update["update"]}
    assert {"_wandb.visualize.curves/accuracy", f"_wandb.visualize.confusion/{CURVES[1]}/w1"} <= charts


def test_the_report_is_an_artifact(one_curve):
    (artifact,) = [artifact for artifact in one_curve.records("artifact") if artifact["type"] == "evaluation"]
    contents = artifact["manifest"]["contents"]
    assert {content["path"] for content in contents} == {"report.html", "results.csv"}
    assert all(Path(content["local_path"]).is_file() for content in contents)


def test_the_run_has_the_ceiling_and_its_methods_as_tags(two_curves):
    assert two_curves.summary["evaluation/judge_ceiling"] == 0.9875
    assert set(two_curves.records("run")[-1]["tags"]) == {"mine", "cfg", "classifier"}
