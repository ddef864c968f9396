"""Strategies: the rules that combine the players' updates into a step.

A strategy is a pure function ``(game, *, options) -> Strategy`` that works for any game. The update of a player
stores only the network state of that player (its batch statistics and spectral-norm vectors). Docstrings state the
cost of a step in gradient evaluations. One gradient evaluation is the gradient of one player's loss on one batch.

Notation: x is the vector of all players' parameters, L_i is the loss of player i, F(x) stacks the gradients of all
players, each with respect to the player's parameters, and J is the Jacobian of F. A prime marks the value after the
step. Formulas state a method for gradient descent with learning rate lr. In the code, each player's optimiser
replaces the factor -lr: it maps the gradient that the method computes to an update.
"""
