import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guided_diffusion.evaluation.publish import publish_results


@pytest.mark.parametrize(
    ("jobs", "end"), [([{}], ""), ([{"p": "0.1"}, {"p": "0.2"}], "/cfg-ddim-25-p=0_1")], ids=["one", "several"]
)
def test_numbers_and_images_are_drawn_against_hundredths_of_the_scale(jobs, end, fabricate, tmp_path):
    logger, results = TensorBoardLogger(tmp_path, "", ""), fabricate([0.0, 1.0, 2.5], jobs=jobs)
    publish_results(logger, results, tmp_path)
    logger.finalize("success")
    read = EventAccumulator(str(tmp_path), {"images": 0, "scalars": 0}).Reload()
    points = {event.step: event.value for event in read.Scalars(f"guidance/accuracy{end}")}
    assert points == pytest.approx({0: 1 / 2, 100: 2 / 3, 250: 3.5 / 4.5})
    assert [event.step for event in read.Images(f"guidance/strip{end}")] == [0, 100, 250]
    assert {f"guidance/{name}{end}" for name in (*results.rows[0].measured, "nfe")} <= set(read.Tags()["scalars"])
