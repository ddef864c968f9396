"""Strategies: the rules that combine the players' updates into a step.

A strategy is a pure function ``(game, estimator, *, options) -> Strategy`` and accepts every game and every
estimator unless the docstring of the function states a restriction. The estimator computes every gradient. The
update of a player changes only the network state of that player (batch statistics and spectral-norm vectors). The
docstring of each strategy states the cost of a step in gradient evaluations. One gradient evaluation computes the
gradient of one player's loss on one batch.

Notation: x is the vector of all players' parameters, and L_i is the loss of player i. F(x) stacks, for all players
i, the gradient of L_i with respect to the parameters of player i. J is the Jacobian of F. A prime marks the value
after the step. Formulas state a method for gradient descent with learning rate lr. In the code, each player's
optimiser maps the gradient that the method computes to an update, which replaces the product of -lr and the
gradient.
"""
