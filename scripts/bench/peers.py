"""The peers: the GANs of the benchmark, written in PyTorch, and functions that train them at different speeds."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

Tensor = torch.Tensor
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# As in JAX by default, float32 matrix products and convolutions on a GPU use TF32, with ten bits of mantissa.
torch.backends.cuda.matmul.allow_tf32 = True


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """A context manager in which PyTorch computes in full float32, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.backends.cuda.matmul.allow_tf32 = True


# ------------------------------------------------------------------------------------------- networks
# Layers have the same names as in gan_cli, so that weights can be copied by name.


class Spectral(nn.Module):
    """A layer whose weight is divided by its spectral norm. If ``power[0]`` is True, a pass updates this norm.

    PyTorch's own spectral norm is not used. It updates its estimate in a different order, so that the losses of
    gan_cli and PyTorch would differ.
    """

    def __init__(self, layer: Any, power: list[bool]):
        super().__init__()
        self.weight, self.bias, self.power = layer.weight, layer.bias, power
        self.options = () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding)
        self.register_buffer("u", F.normalize(torch.randn(layer.weight.shape[0]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
            if self.power[0]:
                self.u.copy_(u)
        weight = self.weight / (u @ matrix @ v)
        return (F.conv2d if self.options else F.linear)(x, weight, self.bias, *self.options)


class Block(nn.Module):
    def __init__(self, linear: nn.Module, finish: nn.Module, activation: nn.Module):
        super().__init__()
        self.linear, self.finish, self.activation = linear, finish, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.finish(self.linear(x)))


def _mlp(*sizes: int) -> nn.ModuleList:
    return nn.ModuleList(
        Block(nn.Linear(a, b), nn.Identity(), nn.LeakyReLU(0.2)) for a, b in itertools.pairwise(sizes)
    )


class MLPGenerator(nn.Module):
    latent_dim = 64

    def __init__(self, spec: Sequence[int]):
        super().__init__()
        self.spec = spec
        self.blocks, self.out = _mlp(64, 128, 128), nn.Linear(128, int(np.prod(spec)))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        height, width, channels = self.spec
        return torch.tanh(self.out(x)).view(-1, channels, height, width)


class MLPDiscriminator(nn.Module):
    def __init__(self, spec: Sequence[int]):
        super().__init__()
        self.blocks, self.out = _mlp(int(np.prod(spec)), 128, 128), nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for block in self.blocks:
            x = block(x)
        return self.out(x)[:, 0]


def _widths(spec: Sequence[int]) -> tuple[int, list[int]]:
    side, widths = spec[0] // 2, [64]
    while side > 7:
        side, widths = side // 2, [*widths, widths[-1] * 2]
    return side, widths


class DCGANGenerator(nn.Module):
    latent_dim = 64

    def __init__(self, spec: Sequence[int]):
        super().__init__()
        self.side, widths = _widths(spec)
        self.first = nn.Linear(64, widths[-1] * self.side**2, bias=False)
        self.finish = nn.BatchNorm2d(widths[-1])
        self.blocks = nn.ModuleList(
            Block(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(widths[::-1])
        )
        self.out = nn.ConvTranspose2d(widths[0], spec[2], 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        # The order of the values equals the order in gan_cli, so that weights can be copied.
        x = F.relu(self.finish(self.first(z).view(len(z), self.side, self.side, -1).permute(0, 3, 1, 2)))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.out(x))


class DCGANDiscriminator(nn.Module):
    def __init__(self, spec: Sequence[int], norm: bool):
        super().__init__()
        side, widths = _widths(spec)
        self.blocks = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise([spec[2], *widths])):
            normed = norm and i > 0
            convolution = nn.Conv2d(a, b, 4, 2, 1, bias=not normed)
            finish = nn.BatchNorm2d(b) if normed else nn.Identity()
            self.blocks.append(Block(convolution, finish, nn.LeakyReLU(0.2)))
        self.out = nn.Linear(widths[-1] * side**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.out(x.permute(0, 2, 3, 1).flatten(1))[:, 0]


class Up(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.before, self.between = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.grow, self.conv = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grow(F.interpolate(F.relu(self.before(x)), scale_factor=2))
        return self.conv(F.relu(self.between(y))) + F.interpolate(self.shortcut(x), scale_factor=2)


class Down(nn.Module):
    def __init__(self, inputs: int, width: int, power: list[bool], *, halve: bool, first: bool = False):
        super().__init__()
        self.halve, self.first = halve, first
        self.conv = Spectral(nn.Conv2d(inputs, width, 3, padding=1), power)
        self.last = Spectral(nn.Conv2d(width, width, 3, padding=1), power)
        if halve:
            self.shortcut = Spectral(nn.Conv2d(inputs, width, 1), power)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(F.relu(self.conv(x if self.first else F.relu(x))))
        if not self.halve:
            return x + y
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResNetGenerator(nn.Module):
    latent_dim = 128

    def __init__(self, spec: Sequence[int], width: int = 64):
        super().__init__()
        self.width = width
        self.first = nn.Linear(128, 16 * width)
        self.blocks = nn.ModuleList(Up(width) for _ in range(3))
        self.finish, self.out = nn.BatchNorm2d(width), nn.Conv2d(width, spec[2], 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).view(-1, 4, 4, self.width).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.out(F.relu(self.finish(x))))


class ResNetDiscriminator(nn.Module):
    def __init__(self, spec: Sequence[int], width: int = 64):
        super().__init__()
        self.power = [True]
        self.first = Down(spec[2], width, self.power, halve=True, first=True)
        self.blocks = nn.ModuleList(Down(width, width, self.power, halve=i == 0) for i in range(3))
        self.out = Spectral(nn.Linear(width, 1), self.power)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.out(F.relu(x).sum((2, 3)))[:, 0]


NETWORKS: dict[str, Callable[[Sequence[int]], tuple[nn.Module, nn.Module]]] = {
    "mlp": lambda spec: (MLPGenerator(spec), MLPDiscriminator(spec)),
    "dcgan": lambda spec: (DCGANGenerator(spec), DCGANDiscriminator(spec, norm=True)),
    "dcgan-plain": lambda spec: (DCGANGenerator(spec), DCGANDiscriminator(spec, norm=False)),
    "resnet": lambda spec: (ResNetGenerator(spec), ResNetDiscriminator(spec)),
}


def copy_weights(module: nn.Module, ours: dict[str, np.ndarray]) -> None:
    """Copy the weights of gan_cli to a network of a peer, and convert them to PyTorch's layouts.

    Args:
        module: the network of the peer.
        ours: a mapping from names to the arrays of gan_cli. Its names must correspond to those of ``module``.
    """
    renamed = {}
    for name, array in ours.items():
        name = (
            name.replace(".value", "").replace(".norm", "").replace("kernel", "weight").replace("scale", "weight")
        )
        weight = torch.from_numpy(np.array(array))
        if weight.ndim == 4:
            # From [height, width, in, out], or [height, width, out, in] for a transposed convolution. PyTorch swaps
            # the channels of transposed convolutions too, so one permutation serves both.
            weight = weight.permute(3, 2, 0, 1)
        elif weight.ndim == 2:
            weight = weight.T
        renamed[name.replace(".mean", ".running_mean").replace(".var", ".running_var")] = weight
    state = module.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        weight = renamed.pop(name)
        if value.ndim == 4 and weight.ndim == 2:
            weight = weight[..., None, None]
        assert weight.shape == value.shape, (name, weight.shape, value.shape)
        state[name] = weight
    assert not renamed, list(renamed)
    module.load_state_dict(state)


# ----------------------------------------------------------------------------------------------- steps

LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "nonsaturating": (lambda r, f: (F.softplus(-r) + F.softplus(f)).mean(), lambda f: F.softplus(-f).mean()),
    "wgan": (lambda r, f: (f - r).mean(), lambda f: -f.mean()),
    "hinge": (lambda r, f: (F.relu(1 - r) + F.relu(1 + f)).mean(), lambda f: -f.mean()),
}


def r1(discriminator: nn.Module, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
    """The R1 penalty with gamma 1."""
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return 0.5 * slope.flatten(1).square().sum(1).mean()


def wgan_gp(discriminator: nn.Module, real: Tensor, fake: Tensor, mix: Tensor | None) -> Tensor:
    """The gradient penalty of WGAN-GP with weight 10."""
    e = torch.rand(len(real), 1, 1, 1, device=real.device) if mix is None else mix
    middle = (e * real + (1 - e) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(middle).sum(), middle, create_graph=True)
    return 10 * ((slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square().mean()


PENALTIES = {"none": None, "r1": r1, "wgan_gp": wgan_gp}


class Peer:
    """A GAN in PyTorch that trains with the defaults of gan_cli.

    The optimiser is Adam with beta1 0.5. The moving average of the generator has the decay 0.999.
    A step does the same work as in gan_cli. The two players are updated with one batch of generated examples.
    """

    def __init__(
        self, network: str, spec: Sequence[int], loss: str, penalty: str, lr: float, bfloat16: bool = False
    ):
        self.generator, self.discriminator = (module.to(DEVICE) for module in NETWORKS[network](spec))
        self.losses, self.penalty, self.bfloat16 = LOSSES[loss], PENALTIES[penalty], bfloat16
        self.parameters = list(self.generator.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        # A captured CUDA graph cannot update a step count in Python, so Adam keeps its count on the device.
        options = {"lr": lr, "betas": (0.5, 0.999), "capturable": DEVICE.type == "cuda"}
        self.g_optimiser = torch.optim.Adam(self.parameters, **options)
        self.d_optimiser = torch.optim.Adam(self.discriminator.parameters(), **options)
        self.run_generator: Any = self.generator
        self.run_discriminator: Any = self.discriminator

    def compile(self) -> Peer:
        self.run_generator = torch.compile(self.generator)
        self.run_discriminator = torch.compile(self.discriminator)
        return self

    def _power(self, on: bool) -> None:
        if hasattr(self.discriminator, "power"):
            self.discriminator.power[0] = on

    def step(self, real: Tensor, z: Tensor, mix: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Update each player once, and return the losses of the discriminator and the generator."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bfloat16):
            fake = self.run_generator(z)
            # With spectral normalisation, one pass covers both batches, so that an update iterates once.
            if hasattr(self.discriminator, "power"):
                self._power(True)
                real_logits, fake_logits = self.run_discriminator(torch.cat([real, fake.detach()])).chunk(2)
                self._power(False)
            else:
                real_logits, fake_logits = self.run_discriminator(real), self.run_discriminator(fake.detach())
            d_loss = self.losses[0](real_logits, fake_logits)
            if self.penalty is not None:
                d_loss = d_loss + self.penalty(self.run_discriminator, real, fake, mix)
        self.d_optimiser.zero_grad(set_to_none=True)
        d_loss.backward()
        self.d_optimiser.step()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bfloat16):
            g_loss = self.losses[1](self.run_discriminator(fake))
        self.g_optimiser.zero_grad(set_to_none=True)
        g_loss.backward()
        self.g_optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-3)
        return d_loss.detach(), g_loss.detach()

    def latents(self, n: int) -> Tensor:
        return torch.randn(n, self.generator.latent_dim, device=DEVICE)


def tensor(examples: np.ndarray) -> Tensor:
    """Convert images ``[n, h, w, c]`` in uint8 to a float32 tensor ``[n, c, h, w]`` with values in [-1, 1]."""
    return torch.from_numpy(examples).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def loader(peer: Peer, data: Tensor, batch: int) -> Callable[[int], None]:
    """A function that makes a given number of steps with batches from a DataLoader, as in PyTorch's tutorials."""

    def batches() -> Iterator[Tensor]:
        while True:
            for (real,) in DataLoader(TensorDataset(data.cpu()), batch, shuffle=True, drop_last=True):
                yield real.to(DEVICE)

    source = batches()

    def run(steps: int) -> None:
        for _ in range(steps):
            peer.step(next(source), peer.latents(batch))
        _wait()

    return run


def resident(peer: Peer, data: Tensor, batch: int) -> Callable[[int], None]:
    """A function that makes a given number of steps with batches from one tensor on the device."""
    data = data.to(DEVICE)
    order, at = torch.randperm(len(data), device=DEVICE), 0

    def run(steps: int) -> None:
        nonlocal order, at
        for _ in range(steps):
            if at + batch > len(data):
                order, at = torch.randperm(len(data), device=DEVICE), 0
            peer.step(data[order[at : at + batch]], peer.latents(batch))
            at += batch
        _wait()

    return run


def graph(peer: Peer, data: Tensor, batch: int) -> Callable[[int], None]:
    """A function that makes a given number of steps by replaying a captured CUDA graph. This needs a GPU."""
    data = data.to(DEVICE)
    real, z = data[:batch].clone(), peer.latents(batch)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            peer.step(real, z)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        peer.step(real, z)

    def run(steps: int) -> None:
        for _ in range(steps):
            real.copy_(data[torch.randint(len(data), (batch,), device=DEVICE)])
            z.normal_()
            captured.replay()
        _wait()

    return run


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
