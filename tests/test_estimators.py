"""Gradient estimators: slices, masks and single examples of a batch, against loops and against the whole batch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TINY, Program
from toy import Bilinear

from gan_cli import estimators
from gan_cli.config.build import experiment
from gan_cli.data.feed import Selection
from gan_cli.engine.devices import Devices
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.estimators import Estimate, Estimator, total
from gan_cli.strategies.updates import gradient

ROWS = 8
PLAIN = [*TINY, "model.discriminator.dropout=0"]
SMALL = [o for o in TINY if "width" not in o] + ["model.generator.width=4", "model.discriminator.width=4"]
SMALL += ["dataset=mnist5k"]


def clipped(norm: float, divisor: float) -> Estimator:
    """The sum of clipped gradients of the examples, divided by a constant, as in private training without noise.

    Each example's gradient is clipped to ``norm`` (Abadi et al. 2016, algorithm 1). Rows outside the mask do not
    count. The gradient of shared terms, which read no example, is added once.
    """

    def gradient(loss, params, batch, key):
        rows = len(batch["x"])
        mask = jnp.asarray(batch.get("mask", np.ones(rows)), jnp.float32)

        def value(params, row, key, shared):
            found = loss(params, jax.tree.map(lambda x: x[None], row), key)
            terms = {name: term for name, term in found.terms.items() if (jnp.ndim(term.values) == 0) == shared}
            return (total(terms) if terms else jnp.zeros(())), found

        def of_example(row, key):
            (amount, found), slope = jax.value_and_grad(value, has_aux=True)(params, row, key, False)
            scale = jnp.minimum(1, norm / optax.tree.norm(slope))
            return jax.tree.map(lambda g: scale * g, slope), amount, found.net_state

        slopes, amounts, net_states = jax.vmap(of_example)(batch, jax.random.split(key, rows))
        first = jax.tree.map(lambda x: x[0], batch)
        (once, _), shared = jax.value_and_grad(value, has_aux=True)(params, first, key, True)
        slope = jax.tree.map(lambda g, s: jnp.tensordot(mask, g, 1) / divisor + s, slopes, shared)
        return Estimate(slope, mask @ amounts / divisor + once, jax.tree.map(lambda x: x[0], net_states), {})

    return Estimator(gradient, divides_batch=True)


class Case:
    """A game on a batch of eight examples: the state, the batch with noise, and a key."""

    def __init__(self, *overrides: str):
        self.experiment = e = experiment([*SMALL, *overrides])
        self.game, self.key = e.game, jax.random.key(5)
        self.state = init_state(e.setup)._replace(step=jnp.int32(3))
        first = Selection({"": jnp.arange(ROWS)})
        batch = e.dataset.feed.batch(jax.device_put(e.dataset.examples), first, jax.random.key(1))
        self.batch = self.game.noise(batch, self.key)

    def gradient(self, estimator: Estimator, player: str, batch=None) -> Estimate:
        batch = self.batch if batch is None else batch
        return jax.jit(functools.partial(gradient, self.game, estimator, player, self.state))(batch, self.key)

    def padded(self):
        """The batch with three more rows that do not count, and their mask."""
        far = {name: jnp.concatenate([x, x[:3] + 3]) for name, x in self.batch.items() if name != "label"}
        if "label" in self.batch:
            far["label"] = jnp.concatenate([self.batch["label"], jnp.zeros(3, jnp.int32)])
        return far | {"mask": jnp.arange(ROWS + 3) < ROWS}


def close(a, b, rtol=2e-4, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol + rtol * float(np.abs(y).max(initial=0)))


LAYERS = {
    "dense and dropout": ["model.generator.dropout=0.3", "model.discriminator.dropout=0.3"],
    "layer norm": ["model.generator.norm=layer", "model.discriminator.norm=layer", "penalty=[wgan_gp,orthogonal]"],
    "spectral norm": ["model.discriminator.norm=spectral", "loss=relativistic", "augment=[diffaugment]"],
    "concat": ["model.conditional=concat", PLAIN[-1], "penalty=[r1,r2]", "penalty.r1.interval=4"],
    "projection": ["model.conditional=projection", PLAIN[-1], "model.discriminator.norm=spectral"],
    "acgan": ["model.conditional=acgan", PLAIN[-1], "penalty=[r1]"],
    "convolutions": ["model=dcgan", "model.generator.norm=layer", "model.discriminator.norm=layer", "penalty=[r1]"],
    "spectral convolutions": ["model=dcgan", "model.generator.norm=none", "model.discriminator.norm=spectral"],
    "residual blocks": ["model=resnet", "model.generator.norm=layer", "loss=hinge"],
    "r3gan blocks": ["model=r3gan", "loss=relativistic", "penalty=[r1,r2]"],
}
SLOW = ("layer norm", "concat", "projection", "convolutions", "spectral convolutions", "residual blocks")
SLOW += ("r3gan blocks",)


def marked(names, slow=SLOW):
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


@pytest.mark.parametrize("name", marked(LAYERS))
def test_clipped_gradients_equal_a_loop_over_examples(name):
    """A vectorised clip-only estimator equals a loop that computes and clips the gradient of one example at a time.

    The batch has padded rows. Every example has its own key for dropout and for the points of the penalties.
    """
    case, divisor = Case(*LAYERS[name]), 5.0
    batch = case.padded()
    keys = jax.random.split(case.key, len(batch["x"]))
    for player in case.game.players:
        state = case.state

        @jax.jit
        def of_one(own, i, player=player, state=state):
            def values(own):
                row = {name: x[i][None] for name, x in batch.items() if name != "mask"}
                terms = case.game.loss(
                    player, state.params | {player: own}, state.net_state, row, keys[i], state.step
                ).terms
                parts = [term.weight * term.values for term in terms.values()]
                return sum(x[0] for x in parts if x.ndim), sum((x for x in parts if not x.ndim), jnp.zeros(()))

            return jax.jacrev(values)(own)

        norms, expected = [], None
        for i in range(ROWS):
            slope, shared = of_one(state.params[player], i)
            norms.append(float(optax.tree.norm(slope)))
            if i == 0:  # a norm that clips some examples
                bound, expected = norms[0], shared
            scale = min(1.0, bound / norms[-1]) / divisor
            expected = jax.tree.map(lambda e, g, s=scale: e + s * g, expected, slope)
        assert max(norms) > min(norms) > 0
        found = case.gradient(clipped(bound, divisor), player, batch)
        close(found.gradient, expected)


# Without random numbers, which depend on the size of the batch.
MASKED = [
    "concat",
    "projection",
    "acgan",
    "convolutions",
    "spectral convolutions",
    "residual blocks",
    "r3gan blocks",
]


@pytest.mark.parametrize("name", marked(MASKED, (*SLOW, "spectral convolutions")))
def test_the_mask_leaves_out_padded_rows(name):
    """With a mask, gradient, loss and metrics equal those of the batch without the padded rows."""
    case = Case(*LAYERS[name])
    for player in case.game.players:
        close(*(case.gradient(estimators.mean(), player, batch) for batch in (case.padded(), case.batch)))


@pytest.mark.parametrize(
    "options",
    [
        ["penalty=[r1,orthogonal]"],
        ["loss=hinge", "penalty=[r2]", "penalty.r2.interval=4", "model.discriminator.norm=spectral"],
        ["loss=relativistic", "penalty=[r1,r2]", "model.generator.norm=layer", "model.discriminator.norm=layer"],
        ["loss=wgan", "model.conditional=projection"],
        ["loss=minimax", "model.conditional=acgan"],
        pytest.param(["model=r3gan", "loss=relativistic", "penalty=[r1,r2]"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("masked", [False, True])
def test_microbatched_equals_mean(options, masked):
    """Slices of two examples give the gradient, loss, metrics and network state of the whole batch.

    The accuracy is an exception for losses without a boundary: it refers to the mean logits, here of the slice.
    """
    no_dropout = [] if "model=r3gan" in options else ["model.discriminator.dropout=0"]
    case = Case(*no_dropout, *options)
    batch = case.batch | ({"mask": jnp.arange(ROWS) % 5 < 2} if masked else {})
    for player in case.game.players:
        sliced, whole = (
            case.gradient(e, player, batch) for e in (estimators.microbatched(size=2), estimators.mean())
        )
        for found in (sliced, whole):
            for name in list(found.metrics):
                if case.game.adversarial.boundary is None and name.endswith("_accuracy"):
                    del found.metrics[name]
        close(sliced, whole)


def test_microbatched_adds_up_the_random_numbers_of_its_slices():
    """With dropout and WGAN-GP, the gradient is the mean of the gradients of the slices, each with its key."""
    case = Case("loss=wgan", "penalty=[wgan_gp]", "model.discriminator.dropout=0.3")
    found = case.gradient(estimators.microbatched(size=4), "discriminator")
    parts = []
    for i, key in enumerate(jax.random.split(case.key, 2)):
        case.key = key
        parts.append(
            case.gradient(estimators.mean(), "discriminator", jax.tree.map(lambda x, i=i: x[i::2], case.batch))
        )
    close(found.gradient, jax.tree.map(lambda a, b: (a + b) / 2, parts[0].gradient, parts[1].gradient))
    close(found.loss, (parts[0].loss + parts[1].loss) / 2)


FIRST_ORDER = ["alternating", "simultaneous", "extragradient", "optimistic", "lookahead"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", FIRST_ORDER)
def test_strategies_train_equally_with_slices(strategy):
    """Four steps with slices of two examples lead to the state that four steps with whole batches lead to."""
    options = [*PLAIN, "optim=sgd", "penalty=[r1]", "model.discriminator.norm=spectral", f"strategy={strategy}"]
    whole, sliced = (
        Program(experiment([*options, *own])) for own in ([], ["estimator=microbatched", "estimator.size=2"])
    )
    a, b = whole.run(4), sliced.run(4)
    assert a.keys() == b.keys()
    close(sliced.state, whole.state)


def test_microbatched_needs_the_memory_of_a_slice():
    """The temporary memory of the gradient with slices of 1/32 of a batch is less than a fifth."""
    case = Case("model=dcgan", "model.generator.norm=none", "model.discriminator.norm=none")
    batch = jax.tree.map(lambda x: jnp.concatenate([x] * 64), case.batch)

    def temporary(estimator):
        function = jax.jit(functools.partial(gradient, case.game, estimator, "discriminator", case.state))
        return function.lower(batch, case.key).compile().memory_analysis().temp_size_in_bytes

    assert temporary(estimators.microbatched(size=16)) < temporary(estimators.mean()) / 5


COUPLED = {
    "model.generator.norm=batch": ("discriminator", "generator"),
    "model.discriminator.norm=batch": ("discriminator", "generator"),
    "model.discriminator.minibatch=std": ("discriminator", "generator"),
    "model.discriminator.minibatch=discrimination": ("discriminator", "generator"),
    "loss=relativistic_average": ("discriminator", "generator"),
    "penalty=[dragan]": ("discriminator",),
    "augment=[adaptive]": ("discriminator",),
}
INDEPENDENT = [
    "loss=relativistic",
    "penalty=[r1,wgan_gp]",
    "model.discriminator.norm=spectral",
    "augment=[diffaugment]",
]
INDEPENDENT += [
    "model.generator.norm=layer",
    "model.conditional=acgan",
    "model.discriminator.dropout=0.3",
    "loss=fgan",
]


@pytest.mark.parametrize("option", [*COUPLED, *INDEPENDENT])
def test_coupling_is_declared(option):
    """A game is coupled if and only if the terms or the new state of one example change with the other examples."""
    case = Case("model.discriminator.activation=tanh", option)  # not piecewise linear, for penalties
    others = {name: x.at[1:].set(x[1:][::-1] * (1 if name == "label" else 0.5)) for name, x in case.batch.items()}
    assert case.game.coupled == set(COUPLED.get(option, ()))

    @functools.partial(jax.jit, static_argnums=0)
    def read(player, batch):
        state = case.state
        net_state = jax.tree.map(lambda x: x, state.net_state)
        if option == "augment=[adaptive]":  # away from the bounds of p
            net_state["discriminator"]["augment"]["adaptive"]["p"] = jnp.float32(0.5)
        found = case.game.loss(player, state.params, net_state, batch, case.key, state.step)
        firsts = {
            name: term.values[:1] if jnp.ndim(term.values) else term.values for name, term in found.terms.items()
        }
        return firsts, found.net_state[player]

    for player in case.game.players:
        a, b = (jax.tree.leaves(read(player, batch)) for batch in (case.batch, others))
        same = all(np.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(a, b, strict=True))
        if option != "augment=[adaptive]":  # its state is a function of the sign of a mean, which may stay the same
            assert same == (player not in case.game.coupled), player


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.generator.norm=batch"], "estimator=microbatched: divides the batch"),
        (["augment=[packing]"], "estimator=microbatched: divides the batch"),
        (["loss=relativistic_average"], "loss of the discriminator and the generator"),
        (["penalty=[dragan]"], "loss of the discriminator. Remove"),
        *(([f"strategy={s}"], f"strategy={s}: differentiates") for s in ("consensus", "symplectic", "unrolled")),
        (["strategy=competitive", "optim=sgd", "optim.clip_norm=null"], "strategy=competitive: differentiates"),
        (
            ["estimator.size=3"],
            r"train.batch_size=8: must be a multiple of estimator.size=3, e.g. train.batch_size=9",
        ),
        (["estimator.size=0"], "estimator.size=0: must be at least 1"),
        (["estimator.siz=2"], "estimator.siz: no such option"),
    ],
    ids=str,
)
def test_combinations_that_cannot_run_are_refused(options, message):
    with pytest.raises(UserError, match=message) as error:
        experiment([*TINY, "estimator=microbatched", "estimator.size=4", *options])
    assert "\n" not in str(error.value) or "no such option" in message


def test_slices_that_cannot_be_split_over_the_devices_are_refused(monkeypatch):
    monkeypatch.setattr(Devices, "__len__", lambda self: 4)
    with pytest.raises(UserError, match=r"estimator.size=2: must be a multiple of the number of devices, 4"):
        experiment([*TINY, "estimator=microbatched", "estimator.size=2"])


def test_padded_batches_are_refused_for_coupled_games():
    case = Case("model.generator.norm=batch")
    with pytest.raises(UserError, match="sampler: pads"):
        estimators.check("mean", estimators.mean(), case.game, pads=True)
    estimators.check("mean", estimators.mean(), case.game, pads=False)
    estimators.check("mean", estimators.mean(), Case().game, pads=True)


def test_a_game_without_data_is_one_slice():
    game = Bilinear(x=2.0, y=3.0)
    params, net_state = game.init(None)
    state = experiment(["experiment=bilinear"]).setup
    state = init_state(state)._replace(params=params, net_state=net_state)
    found = gradient(game, estimators.microbatched(size=4), "x", state, {}, jax.random.key(0))
    assert (found.gradient, found.loss, found.metrics["distance"]) == (3.0, 6.0, 13.0)
