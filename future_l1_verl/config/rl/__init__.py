"""Stage config of verl with ours on top."""
