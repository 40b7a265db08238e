"""Curation by visual gain (paper section 3): how much seeing the future frames helps a model to answer.

``read`` makes candidates of a data set, ``score`` lets a model answer each with and without its future frames, ``select`` keeps
those that the frames help most, ``build`` writes them for training; ``estimate`` says what a run of ``score`` will cost.
"""
