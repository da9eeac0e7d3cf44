import pytest
import torch

from guided_diffusion.utils.tensor_files import load_tensors


def test_tensors_and_plain_data_are_read(tmp_path):
    torch.save({"x": torch.ones(2), "n": 3}, tmp_path / "x.pt")
    content = load_tensors(tmp_path / "x.pt")
    assert (content["x"].tolist(), content["n"]) == ([1, 1], 3)


class Writes:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_code_is_refused_and_the_code_is_not_run(tmp_path):
    torch.save(Writes(tmp_path / "it ran"), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("content", [b"", b"half", b"\0" * 100, b"no tensors", bytes(range(256))])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")


def test_a_truncated_file_is_refused(tmp_path):
    torch.save({"x": torch.ones(200)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")
