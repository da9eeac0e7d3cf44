import pytest
import torch
from PIL import Image

from guided_diffusion.checkpoints.loading import Trained, load, load_classifier
from guided_diffusion.checkpoints.record import ModelSpec
from guided_diffusion.classifiers import gradient
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.schedules import Cosine


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_diffusion_model_is_loaded_in_eval_mode_with_its_averaged_weights(name, run_dir, flatten):
    content = torch.load(run_dir / "checkpoints" / name, weights_only=True)
    model = load(run_dir / "checkpoints" / name)
    assert isinstance(model.denoiser, Denoiser)
    assert not any(part.training for part in model.denoiser.modules())
    assert torch.equal(flatten(model.denoiser.state_dict()), flatten(content["state_dict"]))
    assert model.schedule == model.denoiser.schedule == Cosine(log_snr_min=-15.0)
    assert (model.shape, model.num_classes) == ((1, 8, 8), 10)
    assert model.class_names[3] == "class 3"
    assert model.config["seed"] == 0


def test_the_raw_weights_are_those_that_training_goes_on_with(checkpoint, content, flatten):
    raw = flatten(load(checkpoint, weights="raw").denoiser.state_dict())
    assert torch.equal(raw, flatten(content["current_model_state"]))
    assert not torch.equal(raw, flatten(load(checkpoint).denoiser.state_dict()))


def test_without_an_average_ema_and_raw_are_the_same_weights(content, tmp_path, flatten):
    del content["current_model_state"]
    torch.save(content, tmp_path / "plain.ckpt")
    first, second = (load(tmp_path / "plain.ckpt", weights=name).denoiser.state_dict() for name in ("ema", "raw"))
    assert torch.equal(flatten(first), flatten(second))


def test_a_model_is_rebuilt_from_its_own_config_and_not_from_the_defaults(fit, tmp_path):
    from guided_diffusion.training.callbacks import LastCheckpoint

    unusual = ["network.combine=concat", "schedule=linear_beta", "module.parameterization=eps", "data.channels=3"]
    _, module = fit(*unusual, callbacks=[LastCheckpoint(str(tmp_path))])
    model = load(tmp_path / "last.ckpt")
    x_t, t, y = torch.randn(4, 3, 8, 8), torch.linspace(0.1, 1, 4), torch.arange(4)
    with torch.no_grad():
        assert torch.equal(model.denoiser(x_t, t, y).x0, module.denoiser.eval()(x_t, t, y).x0)
    assert model.denoiser.parameterization.name == "eps"


def test_the_data_of_the_training_can_be_loaded_again(checkpoint):
    data = load(checkpoint).data()
    assert (data.name, data.shape, data.class_names) == ("fake", (1, 8, 8), load(checkpoint).class_names)


@pytest.fixture
def trained_on_photos(tmp_path):
    """Return a function that gives a model that was trained on two images of two classes, which are now elsewhere."""
    for name in ("cat", "dog"):
        (tmp_path / "moved" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "moved" / name / "1.png")
    node = {
        "_target_": "guided_diffusion.data.ImageFolder",
        "root": str(tmp_path / "photos"),
        **{"image_size": [4, 6], "channels": 1, "batch_size": 1, "validation_fraction": 0, "test_fraction": 0},
    }

    def trained(*class_names):
        return Trained(ModelSpec("a.ckpt", Cosine(), (1, 4, 6), class_names), {"data": node})

    return trained


def test_images_of_ones_own_are_where_they_were_or_where_they_are_said_to_be(trained_on_photos, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_DATA", str(tmp_path / "datasets"))
    model = trained_on_photos("cat", "dog")
    with pytest.raises(ValueError, match=r"there is no folder .*photos: .*in evaluate with data_path"):
        model.data()
    assert model.data(path=str(tmp_path / "moved")).class_names == ("cat", "dog")
    (tmp_path / "moved").rename(tmp_path / "photos")
    assert model.data().root == tmp_path / "photos"


def test_data_with_other_classes_than_the_models_is_refused(trained_on_photos, tmp_path):
    with pytest.raises(ValueError, match=r"moved has .*the classes cat, dog, but the model was trained on .*cat, owl"):
        trained_on_photos("cat", "owl").data(path=str(tmp_path / "moved"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_an_unavailable_device_is_named_in_the_error(device, checkpoint):
    with pytest.raises(ValueError, match=f"device {device} can't be used: "):
        load(checkpoint, device)


def test_weights_that_do_not_fit_the_network_are_rejected(with_record):
    path = with_record(lambda record: record["config"]["network"].update(width=16))
    with pytest.raises(ValueError, match=r"the weights in .*edited\.ckpt don't fit the network of its config"):
        load(path)


def test_a_classifier_is_loaded_frozen_in_eval_mode_with_its_averaged_weights(classifier_checkpoint, flatten):
    content, model = torch.load(classifier_checkpoint, weights_only=True), load_classifier(classifier_checkpoint)
    assert content["guided_diffusion"]["kind"] == "classifier"
    assert not any(part.training for part in model.classifier.modules())
    assert not any(parameter.requires_grad for parameter in model.classifier.parameters())
    assert torch.equal(flatten(model.classifier.state_dict()), flatten(content["state_dict"]))
    raw = load_classifier(classifier_checkpoint, weights="raw")
    assert torch.equal(flatten(raw.classifier.state_dict()), flatten(content["current_model_state"]))
    x_t, t = torch.randn(4, 1, 8, 8), torch.linspace(0.1, 1, 4)
    assert torch.equal(model(x_t, t), model.classifier(x_t, t))
    assert (model.schedule, model.shape, model.num_classes) == (Cosine(), (1, 8, 8), 10)


def test_a_classifier_that_is_loaded_in_inference_mode_still_has_gradients(classifier_checkpoint):
    inputs = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.8]), torch.tensor([0, 1])
    with torch.inference_mode():
        inside = gradient(load_classifier(classifier_checkpoint), *inputs)
    assert torch.equal(inside, gradient(load_classifier(classifier_checkpoint), *inputs))
