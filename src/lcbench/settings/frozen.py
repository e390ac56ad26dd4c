"""Converts settings to JSON and back, for a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_type_hints

from lcbench.errors import RequestError
from lcbench.repair.repair import Repair, parse
from lcbench.settings.schema import Settings
from lcbench.system.files import cache_folder
from lcbench.tasks.reference import ChangedError


def freeze(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON types, with absolute paths except for the results folder.

    They do not depend on later changes of the configs.
    """
    content = asdict(replace(settings, repairs=()))
    del content["results_dir"], content["repairs"]
    # A name from before there were other repairs than temperatures.
    content["policies"] = [_written(one) for one in settings.repairs]
    # What is left out is as older versions froze it, so that the same sweep has the same digest.
    if content["protocol"]["limit"] is None:
        del content["protocol"]["limit"]
    if content["engine"]["devices"] is None:
        del content["engine"]["devices"]
    for key in ("own", "own_classes", "leave_out_unsuited"):
        if not content[key]:
            del content[key]
    for one in content.get("own_classes", ()):
        if not one["package"]:
            del one["package"]
    for model in content["models"]:
        for key in ("label", "special_tokens", "dimensions", "trained"):
            if model[key] is None:
                del model[key]
        if model["source"] != "package" and (path := Path(model["name"]).expanduser()).is_dir():
            model["name"] = str(path.absolute())
    for holder, key in ((content, "mirror"), (content["store"], "folder")):
        if holder[key] is not None:
            holder[key] = str(holder[key].absolute())
    # Tuples become lists, so that written and read values are equal.
    frozen: dict[str, Any] = json.loads(json.dumps(content))
    return frozen


def thaw(content: Mapping[str, Any], results_dir: Path) -> Settings:
    """Return the settings from the JSON of `freeze`.

    Args:
        content: value returned by `freeze`.
        results_dir: present results folder.

    Raises:
        RequestError: the content is not valid settings.
    """
    from pydantic import TypeAdapter, ValidationError

    content = {"own": [], "own_classes": [], "leave_out_unsuited": False, **content}
    hints = get_type_hints(Settings)
    del hints["repairs"], hints["results_dir"]
    try:
        values = {
            name: TypeAdapter(hint).validate_python(content[name]) for name, hint in hints.items()
        }
        repairs = tuple(_parsed(*one) for one in content["policies"])
    except ChangedError:
        # It says what to do.
        raise
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise RequestError(
            "The frozen settings do not fit this version of lcbench: "
            f"{' '.join(str(error).split())}"
        ) from error
    if values["store"].folder is not None and not values["store"].is_named:
        # Each machine has its own cache.
        values["store"] = replace(values["store"], folder=cache_folder() / "store")
    return Settings(**values, repairs=repairs, results_dir=results_dir)


def _written(repair: Repair) -> list[Any]:
    written = [repair.policy.written(), repair.policy.keeps_bias]
    others = {key: part.written() for key, part in repair.others.items()}
    # From before there were others than corrections.
    if not others.keys() - {"correct"}:
        return [*written, *others.values()]
    return [*written, others.pop("correct", None), others]


def _parsed(
    tau: Any, keeps_bias: bool, correct: Any = None, others: Mapping[str, Any] | None = None
) -> Repair:
    return parse({"tau": tau, "correct": correct, **(others or {})}, keeps_bias=keeps_bias)
