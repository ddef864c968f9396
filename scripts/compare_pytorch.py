"""The same GAN here and in eager PyTorch, in turn, at equal work: steps a second and their ratio.

    python scripts/compare_pytorch.py [--cases mlp dcgan] [--repeats 5]

Both sides train the shipped model on mnist5k with Adam and the non-saturating loss, one generator pass shared
by the two moves, the moving average kept, all data in memory. PyTorch (``pip install torch``) is no dependency
of gan_cli. Times are of single repeats in turn, so that a machine whose speed drifts slows both alike; the
median counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import torch
from torch import nn
from torch.nn import functional as F

from gan_cli import engine
from gan_cli.cli.train import experiment as compose

STEPS = {"mlp": 500, "dcgan": 20}


def ours(model: str, steps: int) -> Callable[[], None]:
    """A function that makes ``steps`` steps of the shipped program."""
    e = compose([f"model={model}", "model.discriminator.dropout=0.0"])
    assert e.dataset is not None
    program = engine.compile_chunk(e.parts, e.dataset.feed, e.train.batch_size, e.train.ema)
    state = jax.jit(lambda: engine.init(e.parts))()
    arrays = jax.device_put(e.dataset.arrays)

    def run() -> None:
        nonlocal state
        state, _, _ = program(state, arrays, steps)
        jax.block_until_ready(state)

    return run


def networks(model: str) -> tuple[nn.Module, nn.Module]:
    """The shipped networks in PyTorch: same layers, same number of parameters."""
    if model == "mlp":
        act = lambda: nn.LeakyReLU(0.2)  # noqa: E731
        generator = nn.Sequential(
            nn.Linear(64, 128),
            act(),
            nn.Linear(128, 128),
            act(),
            nn.Linear(128, 784),
            nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        )
        discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), act(), nn.Linear(128, 128), act(), nn.Linear(128, 1)
        )
        return generator, discriminator
    generator = nn.Sequential(
        nn.Linear(64, 128 * 49, bias=False),
        nn.Unflatten(1, (128, 7, 7)),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128 * 49, 1),
    )
    return generator, discriminator


def peer(model: str, steps: int) -> Callable[[], None]:
    """The same steps in eager PyTorch."""
    generator, discriminator = networks(model)
    e = compose([])
    assert e.dataset is not None
    data = torch.from_numpy(e.dataset.examples).permute(0, 3, 1, 2).float() / 127.5 - 1
    g_opt = torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999))
    d_opt = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
    average = [p.detach().clone() for p in generator.parameters()]
    batch, order, at = 64, torch.randperm(len(data)), 0

    def run() -> None:
        nonlocal order, at
        for _ in range(steps):
            if at + batch > len(data):
                order, at = torch.randperm(len(data)), 0
            real = data[order[at : at + batch]]
            at += batch
            fake = generator(torch.randn(batch, 64))
            d_loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
            d_opt.zero_grad(set_to_none=True)
            d_loss.backward()
            d_opt.step()
            g_loss = F.softplus(-discriminator(fake)).mean()
            g_opt.zero_grad(set_to_none=True)
            g_loss.backward()
            g_opt.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in generator.parameters()], 1e-3)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    for case in arguments.cases:
        steps = STEPS[case]
        sides = {"ours": ours(case, steps), "PyTorch": peer(case, steps)}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for run in sides.values():
            run()  # compile, warm up
        for _ in range(arguments.repeats):
            for name, run in sides.items():
                began = time.perf_counter()
                run()
                rates[name].append(steps / (time.perf_counter() - began))
        ratios = [a / b for a, b in zip(rates["ours"], rates["PyTorch"], strict=True)]
        shown = ", ".join(f"{name} {statistics.median(values):.1f} steps/s" for name, values in rates.items())
        print(f"{case}: {shown}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
