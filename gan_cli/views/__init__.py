"""Pictures, animations and the HTML report."""

# The choices of `gan-sample --draw`. Each is the name of a function in gan_cli.views.drawings.
DRAWINGS = ("grid", "interpolation", "walk", "classes", "ganspace", "sefa", "activations")
