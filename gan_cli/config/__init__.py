"""From YAML to objects: schema, options, checks, and what a run's directory stores of them."""
