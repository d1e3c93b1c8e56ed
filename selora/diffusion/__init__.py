"""A latent diffusion model on this machine: loaded, trained by any method, sampled. It knows no method by name."""
