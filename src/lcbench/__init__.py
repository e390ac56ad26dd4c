"""Measure length collapse in text embedding models and what attention temperature does about it.

Importing this package imports none of torch, transformers and mteb; `inject` does when it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcbench.tempscale.inject import inject

__all__ = ["__version__", "inject"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "inject":
        from lcbench.tempscale.inject import inject

        return inject
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
