"""How a batch is drawn determines every number of the study: it may not change."""

from types import SimpleNamespace

import pytest
import torch

from selora.diffusion.draws import draw_batch, generator, look_batches


@pytest.fixture
def whole():
    """Latents and tokens of ten samples, each of which tells its number."""
    return torch.arange(10.0)[:, None, None, None].expand(10, 4, 2, 2), torch.arange(10)[:, None].repeat(1, 77) + 100


def test_a_training_batch_draws_noise_then_timesteps_then_which_prompts_to_drop(whole):
    part, empty = torch.tensor([7, 3, 5]), torch.zeros(1, 77, dtype=torch.long)
    found = draw_batch(*whole, part, generator(4, 1, 9), empty_tokens=empty, prompt_dropout=0.5)
    draw = generator(4, 1, 9)
    assert torch.equal(found["noise"], torch.randn(3, 4, 2, 2, generator=draw))
    assert torch.equal(found["timesteps"], torch.randint(0, 1000, (3,), generator=draw))
    dropped = torch.rand(3, 1, generator=draw) < 0.5
    assert torch.equal(found["tokens"][:, :1], torch.where(dropped, 0, torch.tensor([[107], [103], [105]])))
    assert torch.equal(found["latents"][:, 0, 0, 0], part.float())


def test_another_order_draws_other_numbers_from_the_same_stream(whole):
    found = draw_batch(*whole, torch.tensor([0, 1]), generator(0), order=("timesteps", "noise"))
    draw = generator(0)
    assert torch.equal(found["timesteps"], torch.randint(0, 1000, (2,), generator=draw))
    assert torch.equal(found["noise"], torch.randn(2, 4, 2, 2, generator=draw))
    assert torch.equal(found["tokens"], whole[1][:2])


def test_batches_to_look_at_are_noisy_and_have_their_own_prompts(whole):
    class Adding:
        """A forward process whose outcome tells what went in."""

        config = SimpleNamespace(prediction_type="v_prediction")

        def get_velocity(self, latents, noise, timesteps):
            return noise - 1000 * latents

        def add_noise(self, latents, noise, timesteps):
            return latents + 1000 * noise

    for i, batch in enumerate(look_batches(*whole, Adding(), seed=3)):
        draw = generator(3, 8, i)
        part = torch.randint(10, (32,), generator=draw)
        assert torch.equal(batch["timesteps"], torch.randint(0, 1000, (32,), generator=draw))
        noise = torch.randn(32, 4, 2, 2, generator=draw)
        assert torch.equal(batch["latents"], whole[0][part] + 1000 * noise)
        assert torch.equal(batch["target"], noise - 1000 * whole[0][part])
        assert torch.equal(batch["tokens"], whole[1][part])
