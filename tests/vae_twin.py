"""A variational autoencoder in PyTorch, with the settings of pythae's reproduction on binarised MNIST.

The encoder is 784-400-ReLU with two linear outputs, the mean and the log-variance of 40 latents. The decoder is
40-400-ReLU-784 with Bernoulli logits (Kingma and Welling 2014, appendix C). Importing this module raises
ModuleNotFoundError if PyTorch is not installed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    """The autoencoder. As in gan_cli's MLP, kernels are drawn by LeCun's rule, and biases are 0."""

    def __init__(self, pixels: int = 784, width: int = 400, latents: int = 40):
        super().__init__()
        self.hidden, self.mean = nn.Linear(pixels, width), nn.Linear(width, latents)
        self.log_variance = nn.Linear(width, latents)
        self.decoder = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, pixels))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                # A normal distribution truncated at two standard deviations has the standard deviation 0.8796.
                std = layer.in_features**-0.5 / 0.87962566103423978
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.zeros_(layer.bias)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A pair: the means and the log-variances ``[n, latents]`` of the posteriors of ``x`` ``[n, pixels]``.

        As in gan_cli, the encoder sees the pixels 0 and 1 as -1 and 1.
        """
        hidden = F.relu(self.hidden(2 * x - 1))
        return self.mean(hidden), self.log_variance(hidden)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """The negative ELBO in nats, averaged over the batch (Kingma and Welling 2014, equation 10)."""
        mean, log_variance = self.posterior(x)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        pixels = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        return (pixels + kl).mean()

    @torch.no_grad()
    def nll(self, x: torch.Tensor, draws: int) -> float:
        """Mean of -log p(x) in nats, from ``draws`` importance samples for each image (Burda et al. 2016)."""
        mean, log_variance = self.posterior(x)
        weights = []
        for _ in range(draws):
            noise = torch.randn_like(mean)
            z = mean + (0.5 * log_variance).exp() * noise
            pixels = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
            # log p(z) - log q(z | x), in which the constants of the two densities cancel
            weights.append(0.5 * (noise**2 + log_variance - z**2).sum(1) - pixels)
        return float((math.log(draws) - torch.logsumexp(torch.stack(weights), 0)).mean())


def trained(images: np.ndarray, epochs: int, batch: int = 100, lr: float = 1e-4, seed: int = 0) -> VAE:
    """A VAE that has been trained with Adam on binary images ``[n, pixels]``, in a new order in each epoch."""
    torch.manual_seed(seed)
    data, vae = torch.from_numpy(images.astype(np.float32)), VAE(images.shape[1])
    optimiser = torch.optim.Adam(vae.parameters(), lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(data))
        for rows in order[: len(data) // batch * batch].split(batch):
            optimiser.zero_grad(set_to_none=True)
            vae.loss(data[rows]).backward()
            optimiser.step()
    return vae
