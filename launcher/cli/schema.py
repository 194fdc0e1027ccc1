"""`resolute schema`: the job file's JSON schema, for editors."""

from __future__ import annotations

import json

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
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **job,
        "properties": {"extends": extends, **job["properties"]},
        "title": "Resolute job",
    }
    typer.echo(json.dumps(document, indent=2))
