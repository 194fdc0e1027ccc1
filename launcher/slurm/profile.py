"""A site profile: what a cluster grants a job, and how commands are run there. Examples lie in slurm/profiles/."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from launcher.config import Count, NodeDirectory, Positive, Section, Workers, broken_rule
from launcher.job_file import find_document, load_document


def _one_word(text: str) -> str:
    if not re.fullmatch(r"[^\s'\"`$\\#;<>!]+", text):
        raise broken_rule("must be one word, without quotes and what a shell acts upon", fix="write it plainly")
    return text


def _one_line(text: str) -> str:
    if "\n" in text:
        raise broken_rule("must be one line", fix="write a list: `- ...` lines")
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise broken_rule("is no name of a variable", fix="use letters, digits and underscores")
    return name


Word = Annotated[str, AfterValidator(_one_word)]
"""What Slurm takes for a name, or a list or expression of names."""
Line = Annotated[str, AfterValidator(_one_line)]
Variable = Annotated[str, AfterValidator(_variable)]


class Nodes(Workers):
    """As many nodes as can be had, within bounds; Slurm may grant another number at each requeue."""


def _nodes_tag(value: object) -> str:
    return "range" if isinstance(value, (dict, Nodes)) else "number"


class Profile(Section):
    """One way of running on one cluster."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    """Features that nodes must have, in Slurm's syntax."""

    nodes: (
        Annotated[Annotated[Count, Tag("number")] | Annotated[Nodes, Tag("range")], Discriminator(_nodes_tag)] | None
    ) = None
    """A number, or `{min, max}`; when absent, as many as the job's `run.workers` need."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """0: the job trains on CPUs."""
    cpus_per_node: Count
    workers_per_node: Annotated[Count | None, Field(validate_default=True)] = None
    """One per GPU when absent; to be given where there are no GPUs."""
    memory_gb_per_node: Positive | None = None
    """All that the partition grants when absent."""
    exclusive: bool = False
    """Let no other job onto the nodes."""

    time_limit_minutes: Count
    signal: Literal["USR1", "USR2", "TERM", "INT"] = "USR2"
    """What Slurm shall send ahead of the time limit and, where the cluster is set up for it, on preemption."""
    signal_lead_s: Annotated[int, Field(ge=1, le=65535)] = 120
    """How long before the time limit it is sent; Slurm may be up to 60 s early."""
    grace_s: Positive | None = None
    """The cluster's GraceTime, from preemption to the kill: for a warning if a stop will take longer; see `scontrol
    show partition`."""
    requeue: bool = True
    """Whether the job may be queued again by Slurm and by itself; false where the site forbids it."""

    modules: tuple[Word, ...] = Field(default=(), strict=False)
    """Loaded with `module load` before anything else."""
    setup: tuple[Line, ...] = Field(default=(), strict=False)
    """Shell lines that come next, such as the activation of an environment. One that fails ends the job before anything
    trains; one that may fail ends in `|| true`."""
    environment: dict[Variable, Line] = Field(default_factory=dict)
    """Variables for all that runs in the job."""
    container: Line | None = None
    """A command's beginning that runs the rest inside a container, such as `apptainer exec --nv --bind
    /etc/slurm,/run/munge resolute.sif`. The agent in it asks Slurm: the container needs `scontrol` of the cluster's
    version and its plugins, `slurm.conf`, munge's socket, and the run directory, each under its own path."""
    python: str | None = None
    """The interpreter of the jobs. When absent: the container's `python`, or the one that submits where there is no
    `container`. `python` is also that of an environment which `setup` activates."""
    srun_options: tuple[Line, ...] = Field(default=(), strict=False)
    """Further options of srun, such as --container-image=... where Slurm runs containers itself; they need what is said
    at `container`, and `python`."""
    sbatch_options: dict[Word, Line | int | bool] = Field(default_factory=dict)
    """Further options of sbatch without their dashes, such as `reservation: name`; true for those without a value."""

    run_root: str = "runs"
    """Where new runs get their directories; on a file system that all nodes share."""
    scratch: NodeDirectory | None = None
    """A directory on each node's own disk: `data.stage` of jobs that say nothing of it; `$VARIABLES` are the node's."""
    network_interface: Word | None = None
    """By which nodes talk to each other, such as ib0; the one of the default route when absent."""
    join_timeout_s: Positive = 300
    """For Ray to come up on the first node, and then for the others to join it: 10 s are usual, and minutes where
    Python comes from a cold shared file system. A job whose nodes do not come together starts again, three times."""

    @field_validator("workers_per_node")
    @classmethod
    def _some_workers(cls, workers: int | None, info: ValidationInfo) -> int | None:
        gpus = info.data.get("gpus_per_node")
        if workers is None and gpus == 0:
            raise broken_rule(
                "is needed where gpus_per_node is 0",
                fix="add how many workers share a node's CPUs",
                alternatives=("workers_per_node", "gpus_per_node"),
            )
        if workers is not None and gpus and workers > gpus:
            raise broken_rule(f"each worker needs a GPU of its own, and gpus_per_node is {gpus}", fix=f"use {gpus}")
        return workers

    @property
    def workers_on_each_node(self) -> int:
        return self.workers_per_node or self.gpus_per_node


_SITE = Path(__file__).parent / "site"
_BUNDLED_PROFILES = tuple(
    folder / "profiles" for folder in (Path("slurm"), _SITE, Path(__file__).parent.parent.parent / "slurm")
)
"""Where profiles lie: here, inside the installed package, beside it in a checkout."""


def load_profile(source: str, overrides: Iterable[str] = ()) -> Profile:
    """Read a profile by path or by the name of a bundled one, with `a.b=c` overrides. Raises JobError."""
    return load_document(Profile, find_document(source, _BUNDLED_PROFILES, what="site profile"), overrides)
