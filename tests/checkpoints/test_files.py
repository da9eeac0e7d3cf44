import ast
import pickle
from pathlib import Path

import pytest
import torch

import guided_diffusion
from guided_diffusion.checkpoints.files import read_model_file
from guided_diffusion.checkpoints.loading import load
from guided_diffusion.data import Fake
from guided_diffusion.evaluation.chunks import Chunks
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler

PACKAGE = Path(guided_diffusion.__file__).parent


@pytest.mark.parametrize("name", ["none.ckpt", "."])
def test_a_missing_file_is_named_in_the_error(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no checkpoint at {tmp_path / name}"):
        load(tmp_path / name)


@pytest.mark.parametrize("depth", [0, 1])
def test_the_error_for_a_folder_suggests_the_checkpoint_in_it(depth, checkpoint):
    folder = checkpoint.parents[depth]
    with pytest.raises(FileNotFoundError, match=f"at {folder}: it is a folder; did you mean {checkpoint}\\?"):
        load(folder)


@pytest.mark.parametrize("size", [0, 10, 1000, 5000, -1000, -1])
def test_a_truncated_file_is_rejected(size, checkpoint, tmp_path):
    (tmp_path / "half.ckpt").write_bytes(checkpoint.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"half\.ckpt is (damaged|not a checkpoint)"):
        load(tmp_path / "half.ckpt")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_rejected_and_not_run(save, content, trap, tmp_path):
    save(content | {"extra": trap}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="holds code, which is not loaded"):
        load(tmp_path / "evil.ckpt")
    assert not trap.was_run


@pytest.mark.parametrize("damage", ["code", "truncated"])
def test_code_or_damage_in_the_samples_of_an_evaluation_is_rejected(damage, checkpoint, trap, tmp_path):
    model = load(checkpoint)
    plan = Plan([1.0], 1, 10, model.shape, batch_size=10)
    chunks = Chunks(model.denoiser, Recipe(sampler=Sampler(steps=1)), plan, tmp_path)
    chunks.predict_step(torch.tensor([0]), 0)
    (file,) = tmp_path.iterdir()
    if damage == "code":
        torch.save(torch.load(file, weights_only=True) | {"extra": trap}, file)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"chunk_00000\.pt is damaged, or holds code: delete it"):
        chunks.collect([1.0])
    assert not trap.was_run


def test_code_in_the_file_of_a_judge_is_rejected_and_not_run(trap, tmp_path):
    torch.save({"judge": trap, "width": 8, "ceiling": 1.0}, tmp_path / "judge.pt")
    with pytest.raises(ValueError, match=r"judge\.pt holds no judge"):
        JudgeSource(str(tmp_path / "judge.pt"))(Fake(batch_size=16, validation_size=32))
    assert not trap.was_run


def test_every_call_in_the_package_that_could_unpickle_code_is_restricted_to_data():
    calls = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)) if "load" in text else ():
            if isinstance(node, ast.Call) and "load" in ast.unparse(node.func):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                calls.setdefault(ast.unparse(node.func), []).append(keywords)
    assert len(calls["torch.load"]) >= 2
    assert all(keywords["weights_only"] == "True" for keywords in calls["torch.load"])
    assert not calls.keys() & {"pickle.load", "pickle.loads", "joblib.load", "cloudpickle.loads"}
    assert not [keywords for keywords in calls.get("np.load", ()) if "allow_pickle" in keywords]


@pytest.mark.parametrize("foreign", [{"state_dict": {}}, [1, 2], torch.zeros(3)])
def test_a_file_of_another_program_is_rejected(foreign, tmp_path):
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is not a checkpoint of guided_diffusion"):
        read_model_file(tmp_path / "other.ckpt")


@pytest.mark.parametrize("wrong", [{"format": "1"}, {"kind": None}, {"config": []}, {"data": None}])
def test_a_record_with_an_entry_of_the_wrong_type_is_rejected(wrong, with_record):
    path = with_record(lambda record: record.update(wrong))
    with pytest.raises(ValueError, match=r"edited\.ckpt is not a checkpoint of guided_diffusion"):
        read_model_file(path)
