"""R_acc of open answers by an LLM judge.

``settings`` says which one, ``client`` asks it, ``verdict`` reads its replies, ``cache`` keeps them, ``prompt.txt`` is what it
is asked, and ``future-l1 judge --check URL`` (``check``) says whether a server is fit to judge.
"""
