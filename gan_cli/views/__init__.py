"""Pictures, animations and the HTML report."""

# What `gan-sample --draw` takes: each is the function of this name in gan_cli.views.drawings.
DRAWINGS = ("grid", "interpolation", "walk", "classes", "ganspace", "sefa", "activations")
