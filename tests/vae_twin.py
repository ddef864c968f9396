"""A variational autoencoder in PyTorch, with the settings of pythae's reproduction on binarised MNIST.

The encoder is 784-400-ReLU, with the means and the log-variances of 40 latents as linear outputs. The decoder is
40-400-ReLU-784 with Bernoulli logits (Kingma and Welling 2014, appendix C). Importing this module raises
ModuleNotFoundError if PyTorch is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)  # two threads spend their time waiting for each other when other programs run


class VAE(nn.Module):
    """The autoencoder. ``load`` copies the initial weights of gan_cli, on which the final likelihood depends."""

    def __init__(self, pixels: int = 784, width: int = 400, latents: int = 40):
        super().__init__()
        self.hidden, self.code = nn.Linear(pixels, width), nn.Linear(width, 2 * latents)
        self.decoder = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, pixels))

    def load(self, weights: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Copy the kernels ``[inputs, outputs]`` and the biases of the four layers, in the order of their use."""
        layers = (self.hidden, self.code, self.decoder[0], self.decoder[2])
        for layer, (kernel, bias) in zip(layers, weights, strict=True):
            layer.weight.data, layer.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias.copy())

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A pair: the means and the log-variances ``[n, latents]`` of the posteriors of ``x`` ``[n, pixels]``.

        As in gan_cli, the encoder sees the pixels 0 and 1 as -1 and 1.
        """
        mean, log_variance = self.code(F.relu(self.hidden(2 * x - 1))).chunk(2, 1)
        return mean, log_variance

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


def train(vae: VAE, images: torch.Tensor, epochs: int, batch: int = 100, lr: float = 1e-4) -> None:
    """Train with Adam on binary images ``[n, pixels]``, in a new order in each epoch."""
    optimiser = torch.optim.Adam(vae.parameters(), lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for rows in order[: len(images) // batch * batch].split(batch):
            optimiser.zero_grad(set_to_none=True)
            vae.loss(images[rows]).backward()
            optimiser.step()
