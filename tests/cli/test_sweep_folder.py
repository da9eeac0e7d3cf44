"""A sweep has one folder, which the process that starts it chooses for all of its jobs."""

import sys
import types
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from guided_diffusion.cli.program import program
from guided_diffusion.cli.sweeps import Job, gather

TABLES = {
    "accuracy_by_scale.csv": "scale,accuracy,judge_ceiling\n1,0.5,0.9\n",
    "distance_by_scale.csv": "scale,off_curve,off_curve_floor\n1,0.5,0.9\n",
}


@pytest.fixture
def swept(call, monkeypatch, tmp_path):
    """Sweep over a job that fails for the seed 13; return what was called, and the folders with results."""

    def job(config):
        if config.seed == 13:
            raise ValueError("not this seed")
        Path(HydraConfig.get().runtime.output_dir, "done.txt").write_text(str(config.name))

    def called(*arguments):
        module = types.ModuleType("guided_diffusion.toy")
        module.main = program("train", job)
        monkeypatch.setitem(sys.modules, "guided_diffusion.toy", module)
        result = call("toy", "-m", *arguments)
        return result, sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("done.txt"))

    return called


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["name=one,two"], "one+two"),
        (["+experiment=cfg_mnist,cfg_digits"], "cfg_mnist+cfg_digits"),
    ],
)
def test_a_sweep_over_names_has_one_folder_with_its_failed_jobs(overrides, name, swept, tmp_path):
    called, done = swept(*overrides, "seed=0,13")
    (sweep,) = (tmp_path / "outputs" / name).iterdir()
    assert [Path(folder).relative_to(sweep.relative_to(tmp_path)).as_posix() for folder in done] == ["0", "2"]
    assert called.status == 1
    lines = (sweep / "failed.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1", "3"]
    assert called.out.count("these jobs failed:") == 1
    assert not (sweep / ".jobs").exists()


@pytest.mark.slow
def test_a_config_may_say_what_is_swept(swept, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      name: one,two\n"
    (tmp_path / "experiment" / "both.yaml").write_text(text)
    called, done = swept(f"hydra.searchpath=[file://{tmp_path}]", "+experiment=both", "hydra.sweep.dir='${name}'")
    assert (called.status, done) == (0, ["one+two/0", "one+two/1"])


@pytest.mark.slow
def test_output_dir_is_the_folder_of_the_sweep(swept):
    called, done = swept('output_dir="lr=0.1, a"', "seed=0,1")
    assert (called.status, done) == (0, ["lr=0.1, a/0", "lr=0.1, a/1"])


@pytest.mark.slow
def test_the_users_sweep_folder_is_resolved_once(swept):
    called, done = swept("hydra.sweep.dir='mine/${name}'", "name=one,two")
    assert (called.status, done) == (0, ["mine/one+two/0", "mine/one+two/1"])


def test_a_sweep_of_one_job_is_a_sweep(swept):
    called, done = swept("output_dir=here", "seed=3")
    assert (called.status, done) == (0, ["here/0"])


@pytest.mark.slow
def test_a_table_that_can_not_be_written_ends_the_sweep_with_status_1(swept, monkeypatch):
    def failing(*arguments):
        raise OSError(28, "No space left on device", "results.csv")

    monkeypatch.setattr("guided_diffusion.cli.sweeps.gather", failing)
    called, _ = swept("output_dir=here", "seed=3")
    assert (called.status, called.err) == (1, "error: results.csv: No space left on device\n")


@pytest.mark.parametrize("program", ["train", "sample", "evaluate"])
def test_two_folders_of_a_run_are_refused(program, refused):
    line = refused(program, "output_dir=one", "hydra.run.dir=two")
    assert line == "error: output_dir and hydra.run.dir both name the folder of the run: leave one out"


def test_the_same_folder_may_be_named_twice(refused, tmp_path):
    line = refused("sample", "output_dir=one", f"hydra.run.dir={tmp_path / 'one'}")
    assert line.startswith("error: checkpoint is missing")


# Gathering


@pytest.fixture
def job(tmp_path):
    """Return a function that makes a job with a table of its training, or with none."""

    def made(number, overrides, table="accuracy_by_scale.csv", finished=True):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        (folder / "config.yaml").write_text("seed: 0\n")
        if table:
            (folder / table).write_text(TABLES[table])
        return Job(number, folder, overrides, finished)

    return made


def test_jobs_with_other_names_and_experiments_are_in_one_table(job, tmp_path, caplog):
    jobs = [job(0, ["+experiment=cfg_digits", 'name="a b"']), job(1, ["+experiment=cfg_mnist", "name=c"])]
    gather(jobs, tmp_path, "train -m")
    head, *rows = (tmp_path / "accuracy_by_scale.csv").read_text().splitlines()
    assert head.endswith("experiment,name")
    assert [row.split(",")[-2:] for row in rows] == [["cfg_digits", "a b"], ["cfg_mnist", "c"]]
    assert not caplog.records


def test_a_job_without_a_table_has_not_failed_if_it_has_finished(job, tmp_path, caplog):
    gather([job(0, ["a=0"]), job(1, ["a=1"], table=None), job(2, ["a=2"], finished=False)], tmp_path, "train -m")
    assert [record.getMessage() for record in caplog.records] == ["these jobs failed:\n2: a=2"]


def test_images_and_points_each_have_a_page(job, tmp_path):
    points = job(1, ["+experiment=cfg_patterns"], "distance_by_scale.csv")
    gather([job(0, ["+experiment=cfg_digits"]), points], tmp_path, "train -m")
    assert (tmp_path / "images" / "accuracy_by_scale.csv").is_file()
    assert (tmp_path / "points" / "distance_by_scale.csv").read_text().splitlines()[1].endswith("cfg_patterns")
    assert all((tmp_path / kind / "report.html").is_file() for kind in ("images", "points"))


@pytest.mark.slow
def test_a_sweep_that_was_interrupted_and_started_again_gathers_all_jobs(call, tiny, tmp_path):
    assert call("train", *tiny, "name=swept", "-m", "label_dropout=0.1").status == 0  # as if stopped after a job
    called = call("train", *tiny, "name=swept", "resume=auto", "-m", "label_dropout=0.1,0.5")
    assert called.status == 0
    assert "failed" not in called.out
    assert "\n6 rows of 2 jobs are in " in called.out
