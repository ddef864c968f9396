"""Strategies: how the players' moves are combined into a step.

A strategy is ``(game, *, options) -> Strategy``: pure, over any game. Each move of a player commits
that player's own network state (its batch statistics, its spectral vectors) and nobody else's. The cost of a
step is said in gradient evaluations, one being the gradient of one player's loss.

Write x for all players' parameters, L_i for player i's loss, F(x) for the gradients of all players, each of its own
loss in its own parameters, and J for the derivative of F. Where a method is told for gradient descent with a rate,
here a player's optimiser takes the place of the rate: it turns what the method makes of the gradients into a move.
"""
