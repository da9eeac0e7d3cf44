"""The command that a training prints at its end names a checkpoint that is there."""

import pytest

from guided_diffusion.cli.next_command import print_next_command

SETTINGS = {"scales": [1, 8], "network": {"_target_": "mine.Net"}} | {
    part: {"_target_": "guided_diffusion.Part"} for part in ("schedule", "data")
}


@pytest.mark.parametrize(("saved", "named"), [(["last", "best"], "last"), (["best"], "best"), ([], None)])
@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_the_next_command_names_a_checkpoint_that_is_there(kind, saved, named, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    for name in saved:
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    print_next_command(tmp_path, kind, SETTINGS)
    _, everything, *following = capsys.readouterr().out.splitlines()
    assert everything == f"Everything of this run is in {tmp_path}"
    assert len(following) == bool(named)
    assert all(f"={tmp_path}/checkpoints/{named}.ckpt " in line for line in following)
    assert all(line.endswith(" trusted=[mine]") for line in following)
