"""What settings there are: their JSON schema, a line for each, and what one of them means. No torch.

The words are the docstrings below the fields of `settings/config.py`: there is no second text to go stale.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from msekit.adapters.sizes import ADAPTERS
from msekit.errors import MsekitError, nearest
from msekit.settings.config import RunConfig

TITLE = "A run of msekit: settings of a run file (--config)"


class Setting(NamedTuple):
    """One setting."""

    key: str
    """`optim.lr`."""
    kind: str
    """What values it takes, in words."""
    default: str
    """As YAML has it; `required` where there is none."""
    doc: str


@cache
def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Field → the docstring below it, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs, field = {}, None
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            field = node.target.id
            continue
        if field and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[field] = " ".join(str(node.value.value).split())
        field = None
    return docs


def sections() -> dict[str, type[BaseModel]]:
    """The settings that have settings of their own."""
    fields = {name: info.annotation for name, info in RunConfig.model_fields.items()}
    return {n: kind for n, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a run file: every setting with its words; a file says only what it changes."""
    schema = RunConfig.model_json_schema()
    models: list[type[BaseModel]] = [RunConfig, *sections().values()]
    for model in models:
        part = schema if model is RunConfig else schema["$defs"][model.__name__]
        for name, doc in field_docs(model).items():
            if name in part["properties"]:
                part["properties"][name]["description"] = doc
    schema["$defs"]["AdapterConfig"]["properties"]["name"]["examples"] = list(ADAPTERS)
    schema.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": TITLE}


def settings() -> Iterator[Setting]:
    """Every setting, sections after the settings of the run itself."""
    schema = RunConfig.model_json_schema()
    parts: list[tuple[str, type[BaseModel]]] = [("", RunConfig), *sections().items()]
    for section, model in parts:
        properties = (schema["$defs"][model.__name__] if section else schema)["properties"]
        docs = field_docs(model)
        for name, info in model.model_fields.items():
            if not section and name in sections():
                continue
            default = "required" if info.is_required() else _shown(info.default)
            key = f"{section}.{name}" if section else name
            yield Setting(key, kind_of(properties[name], schema["$defs"]), default, docs.get(name, ""))


def explain(key: str) -> list[Setting]:
    """A setting, or all of a section.

    Raises:
        MsekitError: There is none of that name.
    """
    every = list(settings())
    found = [setting for setting in every if setting.key == key or setting.key.startswith(f"{key}.")]
    if not found:
        ends = [setting.key for setting in every if setting.key.rpartition(".")[2] == key]
        fix = f"Do you mean {' or '.join(ends)}?" if ends else nearest(key, [setting.key for setting in every])
        raise MsekitError(f"there is no setting '{key}'", fix=fix)
    return found


def values_of(key: str) -> list[str]:
    """The values that can be listed: names, or true and false; none for numbers and texts."""
    kinds = [part for setting in settings() if setting.key == key for part in setting.kind.split(" | ")]
    return ["true", "false"] if kinds == ["true or false"] else [part for part in kinds if len(kinds) > 1]


def kind_of(part: dict[str, Any], defs: dict[str, Any]) -> str:
    """What a piece of JSON schema admits, in words."""
    if "$ref" in part:
        return kind_of(defs[part["$ref"].rpartition("/")[2]], defs)
    if "enum" in part or "const" in part:
        return " | ".join(map(str, part.get("enum", [part.get("const")])))
    if "anyOf" in part:
        kinds = [kind_of(option, defs) for option in part["anyOf"]]
        return " | ".join(dict.fromkeys(kinds))
    if part.get("type") == "array":
        within = part.get("items") or (part.get("prefixItems") or [{}])[0]
        return f"list of {kind_of(within, defs)}"
    if part.get("type") == "object":
        return f"mapping of {', '.join(part['properties'])}" if "properties" in part else "mapping"
    words = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false"}
    bounds = [
        f"{sign} {part[name]:g}"
        for name, sign in (
            ("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<=")
        )
        if name in part
    ]  # fmt: skip
    return " ".join([words.get(part.get("type", ""), "none"), *bounds])


def reference() -> str:
    """`docs/settings.md`: every setting in tables, one for each section."""
    lines = [
        "# Settings",
        "",
        "Made by `msekit config schema --format markdown`: what `--set KEY=VALUE` and a run file take. `msekit config",
        "explain KEY` says the same of one. Defaults are those before recipe and profile, which [train.md](train.md)",
        "tells of; `msekit config show` has what they come to.",
    ]
    section = None
    for setting in settings():
        here = setting.key.rpartition(".")[0]
        if here != section:
            section = here
            doc = " ".join((sections()[here].__doc__ or "").split()) if here else "One run."
            lines += ["", f"## {here or 'The run'}", "", doc, "", "| setting | values | default | what it is |"]
            lines += ["|---|---|---|---|"]
        cells = (f"`{setting.key}`", setting.kind, f"`{setting.default}`", setting.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
