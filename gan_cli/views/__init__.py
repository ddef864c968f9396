"""Pictures, animations and the HTML report."""

# The choices of `gan-sample --draw`. Each choice is the name of a function in gan_cli.views.drawings.
DRAWINGS = ("grid", "interpolation", "walk", "classes", "ganspace", "sefa", "activations")
SIDE = 8  # a grid shows SIDE x SIDE images
POINTS = 2500  # a scatter plot shows this many points (Lin et al. 2018, PacGAN, count modes on the same number)
