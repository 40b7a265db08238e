"""R_acc of open answers by an LLM judge.

``settings`` selects the judge, ``client`` asks it, ``verdict`` reads its replies, ``cache`` keeps them, ``prompt.txt`` is the
prompt, and ``future-l1 judge --check URL`` (``check``) tests whether a server is fit to judge.
"""
