"""Measure length collapse in text embedding models and what attention temperature does about it.

Importing this package imports none of torch, transformers and mteb; its functions do when they are
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcbench.api.collapse import collapse
    from lcbench.api.doctor import doctor
    from lcbench.api.evaluate import evaluate
    from lcbench.api.export import export
    from lcbench.api.report import report
    from lcbench.api.results import load
    from lcbench.api.share import card, pack
    from lcbench.api.tune import tune
    from lcbench.tempscale.inject import inject

__all__ = [
    "__version__",
    "card",
    "collapse",
    "doctor",
    "evaluate",
    "export",
    "inject",
    "load",
    "pack",
    "report",
    "tune",
]
__version__ = "0.1.0"

# Where each function is.
_MODULES = {
    "card": "api.share",
    "collapse": "api.collapse",
    "doctor": "api.doctor",
    "evaluate": "api.evaluate",
    "export": "api.export",
    "inject": "tempscale.inject",
    "load": "api.results",
    "pack": "api.share",
    "report": "api.report",
    "tune": "api.tune",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
