"""Pictures, animations and the HTML report."""

# The values of `gan-sample --draw`. For each value, gan_cli.views.drawings has a function with the same name.
DRAWINGS = ("grid", "interpolation", "walk", "classes", "ganspace", "sefa", "activations", "codes")
SIDE = 8  # a grid shows SIDE x SIDE images
POINTS = 2500  # a scatter plot shows this many points (PacGAN, Lin et al. 2018, counts modes in 2,500 samples too)
