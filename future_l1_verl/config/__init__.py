"""The config tree: hydra YAML on top of verl's, with the paper's values as defaults."""
