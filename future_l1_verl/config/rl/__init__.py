"""Stage config of verl with ours on top."""

from future_l1_verl.config.resolvers import register

register()  # hydra imports the package of a tree before it reads it
