"""Lets vLLM's V2 model runner, whose kernels are Triton's, run on a CPU: by Triton's interpreter, slowly.

Python imports a module of this name as it starts, so that the processes of an engine have it too (``tests/conftest.py`` puts
this folder into PYTHONPATH). vLLM takes the V2 runner where Triton has a backend named "cpu"; the interpreter never asks that
backend for anything.
"""

from typing import Any

from triton.backends import Backend, backends
from triton.backends.compiler import BaseBackend
from triton.backends.driver import DriverBase


class Unused(DriverBase):
    @classmethod
    def is_active(cls) -> bool:
        return True

    def _unused(self, *_: Any) -> Any:
        raise NotImplementedError("nothing is compiled here: TRITON_INTERPRET=1")

    map_python_to_cpp_type = get_current_target = get_active_torch_device = get_benchmarker = _unused


backends["cpu"] = Backend(BaseBackend, Unused)
