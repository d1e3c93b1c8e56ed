"""Checks of chapter 1, with the schedule as diffusers has it."""

import torch
from checks import close, verdict
from diffusers import DDPMScheduler

from selora.files import DATA


def schedule() -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of the 1,000 timesteps."""
    squares = DDPMScheduler.from_pretrained(DATA / "mini-sd", subfolder="scheduler").alphas_cumprod.double()
    return squares.sqrt(), (1 - squares).sqrt()


def draws(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A clean latent and noise, many entries of each."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(50, 4, 16, 16, generator=draw) for _ in range(2))


def exercise_1(t) -> bool:
    if isinstance(t, bool) or not isinstance(t, int):
        return verdict(False, "t_even is a whole number: int(...) makes one of a tensor.")
    if not 0 <= t < 999:
        return verdict(False, "timesteps go from 0 to 999, and the last is all but noise.")
    alpha, sigma = schedule()
    if alpha[t] <= sigma[t]:
        return verdict(False, f"at {t} the noise already has the larger part.")
    return verdict(alpha[t + 1] <= sigma[t + 1], f"at {t + 1} the picture's part is larger still.")


def exercise_2(velocity_from_noise) -> bool:
    alpha, sigma = schedule()
    for t in (10, 500, 950):
        x0, noise = draws(t)
        found = velocity_from_noise((alpha[t] * x0 + sigma[t] * noise).float(), noise, t)
        if not close(found, alpha[t] * noise - sigma[t] * x0, tolerance=1e-4):
            return verdict(False, f"at t = {t} the velocity is a different one.")
    return verdict(True, "")


def exercise_3(other_errors) -> bool:
    alpha, sigma = schedule()
    for t in (10, 500, 950):
        x0, noise = draws(t)
        x_t, v = alpha[t] * x0 + sigma[t] * noise, alpha[t] * noise - sigma[t] * x0
        v_hat = v + 0.3 * draws(t + 1)[0]  # any error will do
        noise_error = (sigma[t] * x_t + alpha[t] * v_hat - noise).square().mean()
        picture_error = (alpha[t] * x_t - sigma[t] * v_hat - x0).square().mean()
        found = other_errors((v_hat - v).square().mean(), t)
        if not isinstance(found, tuple) or len(found) != 2:
            return verdict(False, "the function returns a pair, the errors of noise and picture.")
        for name, one, other in zip(("noise", "picture"), found, (noise_error, picture_error), strict=True):
            if not close(one, other, tolerance=1e-4):
                return verdict(False, f"at t = {t} the error of the {name} is a different one.")
    return verdict(True, "")


def exercise_4(noisy_step) -> bool:
    alpha, sigma = schedule()
    t, s = 700, 600
    x0, noise = draws(0)
    x_t, v = (alpha[t] * x0 + sigma[t] * noise).float(), (alpha[t] * noise - sigma[t] * x0).float()
    fresh = draws(1)[0]
    plain = noisy_step(x_t, v, t, s, 0.0, fresh)
    if not close(plain, alpha[s] * x0 + sigma[s] * noise, tolerance=1e-4):
        return verdict(False, "without fresh noise (eta 0) it should be the step of DDIM.")
    for part in (0.3, 1.0):
        eta = part * sigma[s].item() * (1 - 1e-6)
        of_noise = noisy_step(x_t, v, t, s, eta, fresh).double() - alpha[s] * x0  # the velocity is right, so x0 is
        if not close((of_noise * fresh).mean() / fresh.square().mean(), eta, tolerance=0.05):
            return verdict(False, f"the fresh noise enters with a factor other than eta = {eta:.3f}.")
        if not close(of_noise.std(), sigma[s], tolerance=0.02):
            return verdict(False, f"the noise at s should have the size {sigma[s]:.3f} and has {of_noise.std():.3f}.")
    return verdict(True, "")
