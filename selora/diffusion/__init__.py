"""In it: a latent diffusion model on this machine, loaded, trained by any method, sampled; `method` is the seam.
May enter: what every method needs; it knows no method by name, no score and no profile.
"""
