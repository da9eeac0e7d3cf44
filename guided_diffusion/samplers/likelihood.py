"""The gradient, through the network, of the likelihood of a label given the estimate of the clean sample."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Labels, Prediction
from guided_diffusion.samplers.walk import Likelihood
from guided_diffusion.schedules import Samples


def with_gradient(
    predict: Callable[[Tensor], Prediction], likelihood: Likelihood, x_t: Samples, y: Labels
) -> tuple[Prediction, Float[Tensor, " b"], Samples]:
    """Return ``predict(x_t)``, ``log p(y | x0)`` of its x0, and the gradient of that with respect to ``x_t``.

    The likelihood is computed in float32 or better even under autocast. Gradients are taken under ``no_grad`` and in
    inference mode too. Without labels the likelihood is 1.
    """
    if y is None:
        prediction = predict(x_t)
        return prediction, prediction.x0.new_zeros(len(x_t)), torch.zeros_like(x_t)
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode can't require gradients; their copies can.
        x = x_t.detach().clone().requires_grad_()
        prediction = predict(x)
        with torch.autocast(x.device.type, enabled=False):
            x0 = prediction.x0
            log_p = likelihood(x0.to(torch.promote_types(x0.dtype, torch.float32)), y.clone())
        (grad,) = torch.autograd.grad(log_p.sum(), x)
    return Prediction(*(value.detach() for value in prediction)), log_p.detach(), grad
