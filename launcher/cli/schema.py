"""`resolute schema`: the job file's JSON schema, for editors."""

from __future__ import annotations

import json
from typing import Any

import typer

from launcher.config import JobConfig


def schema() -> None:
    """Print the JSON schema of job files.

    With it and a first line [bold]# yaml-language-server: $schema=job.schema.json[/bold] an editor completes and checks
    a job file.

    Example:

      resolute schema > job.schema.json
    """
    job = JobConfig.model_json_schema()
    extends = {
        "type": "string",
        "description": "A recipe's name, or a path from this file's folder, to take over from.",
    }
    definitions = job.pop("$defs")
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Resolute job",
        "if": {"required": ["extends"]},
        "then": _partial({**job, "properties": {"extends": extends, **job["properties"]}}),
        "else": job,
        "$defs": definitions | {f"Partial{name}": _partial(definition) for name, definition in definitions.items()},
    }
    typer.echo(json.dumps(document, indent=2))


def _partial(schema: Any) -> Any:
    """`schema` of what may leave out anything, as another job says it."""
    if isinstance(schema, list):
        return [_partial(part) for part in schema]
    if not isinstance(schema, dict):
        return schema.replace("#/$defs/", "#/$defs/Partial") if isinstance(schema, str) else schema
    # Without what tells them apart, several kinds of a section may fit.
    renamed = {"anyOf" if key == "oneOf" else key: value for key, value in schema.items()}
    return {key: _partial(value) for key, value in renamed.items() if key not in ("required", "discriminator")}
