"""Curation by visual gain (paper section 3): by how much the future frames help a model to answer.

``read`` turns a data set into candidates, ``score`` lets a model answer each with and without its future frames, ``select``
keeps those with the largest gain, ``build`` writes them for training; ``estimate`` predicts the cost of a run of ``score``.
"""
