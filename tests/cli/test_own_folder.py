"""No program replaces files in its output folder that are not of an earlier run of the same program."""

import pytest

from guided_diffusion.cli.own_folder import check_own_folder

CONFIGS = {
    "training": "module: {}\njudge: {}\ncheckpoint: null\nanimate: false\n",
    "sampling": "checkpoint: a.ckpt\nanimate: false\n",
    "evaluation": "checkpoint: a.ckpt\njudge: {}\n",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_run_may_replace_one_of_its_own_kind_only(kind, tmp_path):
    for other, config in CONFIGS.items():
        (tmp_path / other).mkdir()
        (tmp_path / other / "config.yaml").write_text(config)
        (tmp_path / other / "command.txt").touch()
        if other == kind:
            check_own_folder(tmp_path / other, kind)
        else:
            with pytest.raises(ValueError, match=f"{other} does not hold an earlier {kind}: choose another folder"):
                check_own_folder(tmp_path / other, kind)


@pytest.mark.parametrize("config", ["db: 1\n", "- a list\n", "db: !ENV ${DB}\n", "{half", ""])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_of_anything_else_is_not_replaced(kind, config, tmp_path):
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"output_dir: .*/config\.yaml would be replaced"):
        check_own_folder(tmp_path, kind)


def test_records_and_results_without_a_config_are_not_replaced_and_other_files_do_not_matter(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        check_own_folder(folder, "evaluation", "results.csv")
    for name in ("notes.txt", "samples.npz"):
        (tmp_path / name).touch()
    check_own_folder(tmp_path, "evaluation", "results.csv")
    (tmp_path / "results.csv").touch()
    check_own_folder(tmp_path, "sampling")
    with pytest.raises(ValueError, match=r"results\.csv would be replaced"):
        check_own_folder(tmp_path, "evaluation", "results.csv")
    (tmp_path / "reproduce.sh").touch()
    with pytest.raises(ValueError, match=r"reproduce\.sh would be replaced"):
        check_own_folder(tmp_path, "sampling")


@pytest.mark.parametrize("program", ["sample", "evaluate"])
def test_the_files_of_the_user_are_left_as_they_are(program, call, checkpoint, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("db: 1\n")
    called = call(program, f"checkpoint={checkpoint}", "trainer.accelerator=cpu", "output_dir=mine")
    assert called.status == 1
    assert called.err.startswith(f"error: output_dir: {mine / 'config.yaml'} would be replaced")
    assert [path.read_text() for path in mine.iterdir()] == ["db: 1\n"]


def test_samples_are_drawn_again_into_the_same_folder(call, checkpoint, tmp_path):
    for labels in ("[0]", "[1,2]"):
        again = ("num_samples=1", f"labels={labels}", "trainer.accelerator=cpu", "output_dir=here")
        assert call("sample", f"checkpoint={checkpoint}", *again).status == 0
    assert "- 2" in (tmp_path / "here" / "config.yaml").read_text()
