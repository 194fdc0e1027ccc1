"""Reading jobs: every mistake is found, named where it stands, and said in words that help."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from launcher.config import PiecewiseLinear, Ramp
from launcher.job_file import dump_job, find_job, load_job, parse_job
from launcher.mistakes import JobError, Problem, format_location
from launcher.printable import UNPRINTABLE
from tests.unit.sample_jobs import FIVE_MISTAKES, MINIMAL, make_job, raw_job


def problems_of(text: str, *overrides: str) -> list[Problem]:
    with pytest.raises(JobError) as caught:
        parse_job(text, overrides=overrides)
    problems = list(caught.value.problems)
    for problem in problems:
        assert problem.path
        assert problem.rule
        assert problem.fix
        assert "\n" not in str(problem)
    return problems


def problem_of(text: str, *overrides: str) -> Problem:
    (problem,) = problems_of(text, *overrides)
    return problem


def with_phase(phase: str) -> str:
    return f"{MINIMAL.partition('phases:')[0]}phases: [{phase}]\n"


def test_five_mistakes_give_five_problems_each_with_path_value_rule_fix_and_line() -> None:
    assert problems_of(FIVE_MISTAKES) == [
        Problem(
            "name",
            '"no spaces please"',
            "holds what a name may not hold",
            "use letters, digits, dot, dash and underscore, at most 100, the first a letter or digit",
            1,
        ),
        Problem("data.num_samples", "0", "must be at least 1", "use 1 or more", 2),
        Problem("model.nmae", '"resnet50"', "is not a known key", "did you mean `name`?", 3),
        Problem("learning_rate.base", "-1", "must be more than 0", "use a larger number", 5),
        Problem("phases[0].resolution.end", "30", "is not a multiple of 16", "use 32", 7),
    ]


def test_the_message_names_the_file_counts_the_mistakes_and_gives_each_a_line() -> None:
    with pytest.raises(JobError) as caught:
        parse_job(FIVE_MISTAKES, source="my-job.yaml")
    first, *others = str(caught.value).splitlines()
    assert first == "my-job.yaml: 5 mistakes"
    assert others[-1] == "  line 7: phases[0].resolution.end: 30: is not a multiple of 16; use 32"
    assert len(others) == 5


def test_one_mistake_is_not_counted_as_many() -> None:
    with pytest.raises(JobError, match=r"^job: 1 mistake\n"):
        parse_job(MINIMAL, overrides=["seed=x"])


def test_the_error_survives_pickling() -> None:
    with pytest.raises(JobError) as caught:
        parse_job(FIVE_MISTAKES)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.problems, str(again)) == (caught.value.problems, str(caught.value))


def test_broken_rules_between_fields_do_not_hide_each_other() -> None:
    phase = "{epochs: 2, resolution: {start: 17, end: 31, multiple_of: 16}, warmup_epochs: 3, crop_scale: [1, 0.5]}"
    assert {problem.path: problem.fix for problem in problems_of(with_phase(phase))} == {
        "phases[0].resolution.start": "use 16",
        "phases[0].resolution.end": "use 32",
        "phases[0]": "add one of them",
        "phases[0].warmup_epochs": "use at most 2",
        "phases[0].crop_scale": "use [0.5, 1]",
    }


def test_a_rule_of_two_fields_stays_silent_where_one_of_them_is_wrong_itself() -> None:
    text = with_phase("{epochs: many, resolution: 16, batch_per_worker: 0, warmup_epochs: 3}")
    assert [problem.path for problem in problems_of(text)] == ["phases[0].epochs", "phases[0].batch_per_worker"]


@pytest.mark.parametrize(
    ("section", "path", "near"),
    [
        ("optimiser: {name: sgd}", "optimiser", "optimizer"),
        ("data: {num_sampels: 9}", "data.num_sampels", "num_samples"),
        ("optimizer: {name: sgd, momentun: 0.9}", "optimizer.momentun", "momentum"),
        ("optimizer: {name: adamw, epsilom: 0.9}", "optimizer.epsilom", "epsilon"),
        ("evaluation: {every_epoch: 1}", "evaluation.every_epoch", "every_epochs"),
        ("run: {worker: 1}", "run.worker", "workers"),
        (
            "learning_rate: {base: 1, shape: {kind: step, milestones_epochs: [1], facter: 1}}",
            "learning_rate.shape.facter",
            "factor",
        ),
        ("phases: [{epochs: 1, resolution: 16, global_batch: 8, lr_scal: 1}]", "phases[0].lr_scal", "lr_scale"),
        (
            "phases: [{epochs: 1, resolution: {start: 16, end: 32, multiple_of: 16, multipel_of: 8}, global_batch: 8}]",
            "phases[0].resolution.multipel_of",
            "multiple_of",
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(section: str, path: str, near: str) -> None:
    name = section.partition(":")[0]
    text = yaml.safe_dump({key: value for key, value in raw_job().items() if key != name}) + section
    problem = problem_of(text)
    assert (problem.path, problem.rule, problem.fix) == (path, "is not a known key", f"did you mean `{near}`?")


def test_an_unknown_key_with_no_near_one_is_told_with_those_known_there() -> None:
    problem = problem_of(MINIMAL + "optimizer: {name: adamw, momentum: 0.9}")
    assert problem.fix == "known here: betas, clip_norm, epsilon, layer_decay, name, norm_weight_decay, weight_decay"


@pytest.mark.parametrize("key", ["globl_batch", "batch_per_wroker"])
def test_a_misspelt_batch_is_one_mistake(key: str) -> None:
    problem = problem_of(with_phase(f"{{epochs: 1, resolution: 16, {key}: 8}}"))
    assert problem.path == f"phases[0].{key}"


def test_a_required_key_is_reported_missing_beside_an_unknown_key_that_means_another() -> None:
    assert {problem.path for problem in problems_of(MINIMAL.replace("name: small_resnet", "blurpol: true"))} == {
        "model.name",
        "model.blurpol",
    }


def test_missing_keys_are_told_with_the_line_of_what_lacks_them() -> None:
    assert problems_of(with_phase("{global_batch: 8}")) == [
        Problem(f"phases[0].{key}", "", "is required", f"add `{key}: ...`", 5) for key in ("epochs", "resolution")
    ]
    assert [problem.path for problem in problems_of("{}")] == ["name", "data", "model", "learning_rate", "phases"]


def test_a_key_that_stands_twice_is_a_mistake_wherever_it_stands() -> None:
    text = MINIMAL + "run: {workers: 1, workers: 2}\nname: again\n"
    assert problems_of(text) == [
        Problem("run.workers", "", "stands twice, first in line 8", "delete one of them", 8),
        Problem("name", "", "stands twice, first in line 1", "delete one of them", 9),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [", 1),
        ("name: tiny\nmodel:\n\tname: x\n", 3),
        (MINIMAL + "---\n" + MINIMAL, 8),
        (MINIMAL + "[a]: 1\n", 8),
        (MINIMAL + "run: {<<: 3}\n", 8),
        (MINIMAL + "seed: 2020-13-45\n", None),
        (MINIMAL + f"seed: {'1' * 5000}\n", None),
        ("name: \0", None),
    ],
)
def test_text_that_is_no_yaml_is_one_problem_with_its_line_where_known(text: str, line: int | None) -> None:
    problem = problem_of(text)
    assert (problem.path, problem.line) == ("file", line)
    assert problem.rule.startswith("is not valid YAML (")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "hello", "3", "null"])
def test_yaml_that_holds_no_keys_is_a_problem(text: str) -> None:
    assert problem_of(text).rule == "must hold `key: value` lines"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:subprocess.Popen", "!run"])
def test_tags_that_would_run_code_are_refused_in_files_and_overrides(tag: str, tmp_path: Path) -> None:
    spoils = tmp_path / "spoils"
    value = f'{tag} ["touch {spoils}"]'
    assert problem_of(f"name: {value}").path == "file"
    refused = problem_of(MINIMAL, f"name={value}")
    assert (refused.path, refused.rule, refused.fix) == ("name", "is not a YAML value", "quote it")
    assert not spoils.exists()


@pytest.mark.parametrize("written", ["5e-4", "0.0005", "5.0e-04", "'5e-4'"])
def test_a_number_may_be_written_in_any_usual_way(written: str) -> None:
    assert parse_job(MINIMAL, overrides=[f"learning_rate.base={written}"]).learning_rate.base == 5e-4


@pytest.mark.parametrize("written", ["yes", "no", "on", "off", "true", "false"])
@pytest.mark.parametrize(
    "key", ["learning_rate.base", "run.workers", "phases.0.resolution", "seed", "loss.label_smoothing"]
)
def test_yes_and_no_are_no_numbers(key: str, written: str) -> None:
    problem = problem_of(MINIMAL, f"{key}={written}")
    assert problem.value in ("true", "false")
    assert "number" in problem.rule


@pytest.mark.parametrize("written", [".nan", ".inf", "-.inf", "nan", "inf", "1e400", "abc", "''", "[1]", "null"])
def test_what_is_no_finite_number_is_refused_as_one(written: str) -> None:
    assert "number" in problem_of(MINIMAL, f"learning_rate.base={written}").rule


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("optimizer={name: adamw, betas: [0.9, 1]}", "must be less than 1"),
        ("optimizer={name: adamw, betas: [0.9]}", "has too few entries"),
        ("optimizer={name: sgd, momentum: 0, nesterov: true}", "needs a momentum above 0"),
        ("optimizer=sgd", "must hold keys of its own"),
        ("optimizer={momentum: 0.9}", "does not say its name"),
        ("optimizer={name: adam}", "name adam is not known"),
        ("run.mode=rya", "is none of the choices"),
        ("learning_rate.shape={kind: constnat}", "kind constnat is not known"),
        ("learning_rate.shape={kind: step, milestones_epochs: []}", "must have at least 1 entries"),
        ("learning_rate.shape={kind: piecewise_linear, points: [[0, 1]]}", "must have at least 2 entries"),
        ("learning_rate.shape={kind: piecewise_linear, points: [[0, 1], [1, -1]]}", "must be at least 0"),
        (
            "learning_rate.shape={kind: piecewise_linear, points: [[0, 1], [2, 0], [1, 1]]}",
            "epochs must not fall, but 1 follows 2",
        ),
        (
            "learning_rate.shape={kind: piecewise_linear, points: [[2, 1], [2, 0], [2, 1]]}",
            "epoch 2 stands 3 times",
        ),
        ("learning_rate.shape={kind: polynomial, power: 0}", "must be more than 0"),
        ("phases.0.resolution={start: 16, end: 32, multiple_of: 16, between_epochs: [2, 1]}", "does not run forwards"),
        ("phases.0.crop_scale=[0.5, 0.1]", "runs downwards"),
        ("phases.0.crop_scale={scale: [0.5, 0.1], at: 24}", "runs downwards"),
        ("phases.0.crop_scale={scale: [0.1, 0.5]}", "is required"),
        ("phases.0.crop_scale=1", "must be a list"),
        ("phases.0.crop_ratio=[0.5, 0]", "must be more than 0"),
        ("phases={from: 16, to: 32, stages: 4, epochs: 3, global_batch: 8}", "is less than one for each of 4 stages"),
        ("phases={from: 16, to: 32, stages: 4, epochs: 8}", "batch_per_worker or global_batch is needed"),
        (
            "phases={from: 16, to: 32, stages: 4, epochs: 8, global_batch: 8, warmup_epochs: 3}",
            "is longer than the first stage's epochs: 2",
        ),
        ("augmentation.random_erasing=1.5", "is more than 1, and a probability"),
        ("augmentation.dropout={start: 0, end: 2}", "is more than 1, and a probability"),
        ("augmentation.mixup={start: 0.1}", "is required"),
        ("augmentation.mixup=-1", "must be at least 0"),
        ("augmentation.policy={kind: auto_augment}", "kind auto_augment is not known"),
        ("learning_rate.at_size_increase=1.5", "must be at most 1"),
        ("phases.0.warmup_start_factor=bass", "must be a number"),
        ("phases=3", "must be a list"),
        ("phases=[]", "must have at least 1 entries"),
        ("phases.0.crop_scale=[0.1, 0.5, 1]", "must have at most 2 entries"),
        ("phases.0.crop_scale=[0, 1]", "must be more than 0"),
        ("phases.0.resolution=7", "must be at least 8"),
        ("phases.0.resolution=4097", "must be at most 4096"),
        ("phases.0.resolution=16.5", "must be a whole number"),
        ("phases.0.resolution={start: 16, end: 32}", "is required"),
        ("name=2020-01-01", "must be text"),
        ("name=../../etc", "holds what a name may not hold"),
        ("name=''", "holds what a name may not hold"),
        ("model.blurpool=1", "must be true or false"),
        ("evaluation.crop_ratio=1.5", "must be at most 1"),
        ("seed=-1", "must be at least 0"),
        ("loss={1: 2}", "is a key, but no text"),
        ("model.options={depth: 2020-01-01}", "is not text, a number, true, false, null, a list or keys"),
    ],
)
def test_rules_are_told_in_the_users_words(override: str, rule: str) -> None:
    problem = problem_of(MINIMAL, override)
    assert problem.rule == rule
    assert not {"tuple", "dictionary", "tag", "instance"} & set(str(problem).lower().split())
    assert "{" not in problem.rule + problem.fix.replace("{start", "")


DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {"decode_threads_per_worker": 1, "batches_ahead": 3, "skip_corrupt": False, "channel_mean": None},
    "model": {"options": {}, "blurpool": False, "zero_init_residual": False, "pretrained": None, "weights": None},
    "loss": {"name": "cross_entropy", "label_smoothing": 0},
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0, "norm_weight_decay": None},
    "learning_rate": {"base_batch": 256, "scaling": "linear", "shape": {"kind": "constant"}},
    "evaluation": {
        "resolution": None,
        "crop_ratio": 0.875,
        "flip_tta": False,
        "batch_per_worker": 256,
        "every_epochs": 1,
    },
    "run": {"mode": "single", "workers": 1, "precision": "auto", "lease_s": 2, "transition_timeout_s": 300},
    "checkpoint": {"every_epochs": 1, "keep_last": 2},
}


def test_what_a_job_does_not_say_never_changes_silently() -> None:
    resolved = make_job({}).model_dump(mode="json")
    assert resolved["seed"] == 0
    for section, defaults in DEFAULTS.items():
        assert resolved[section] | defaults == resolved[section]
    phase = {"lr_scale": 1, "warmup_epochs": 0, "warmup_start_factor": 0.1, "crop_scale": [0.08, 1.0], "name": None}
    assert resolved["phases"][0] | phase == resolved["phases"][0]
    assert make_job(optimizer={"name": "adamw"}).model_dump(mode="json")["optimizer"] == {
        "name": "adamw",
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "weight_decay": 0,
        "norm_weight_decay": None,
        "layer_decay": 1,
        "clip_norm": None,
    }


def test_published_weights_and_a_file_of_ones_own_are_one_too_many() -> None:
    problem = problem_of(MINIMAL, "model.pretrained=DEFAULT", "model.weights=a.safetensors")
    assert (problem.path, problem.rule) == ("model.weights", "model.pretrained is given, too")


def test_a_resolution_is_a_size_or_a_ramp() -> None:
    job = make_job({"resolution": 24}, {"resolution": {"start": 160, "end": 192, "multiple_of": 32}})
    assert [phase.resolution for phase in job.phases] == [24, Ramp(start=160, end=192, multiple_of=32)]


def test_the_shape_of_the_learning_rate_is_told_by_its_kind() -> None:
    job = make_job(learning_rate={"base": 1, "shape": {"kind": "piecewise_linear", "points": [[0, "1e-4"], [2, 1]]}})
    assert job.learning_rate.shape == PiecewiseLinear(kind="piecewise_linear", points=((0, 1e-4), (2, 1)))


def test_stages_are_phases_of_equal_length_whose_size_grows_by_equal_steps() -> None:
    stages = "phases={from: 128, to: 300, stages: 4, epochs: 350, batch_per_worker: 8, warmup_epochs: 5}"
    job = parse_job(MINIMAL, overrides=[stages, "phases.crop_scale=[0.05, 1]"])
    found = [(phase.resolution, phase.epochs, phase.warmup_epochs) for phase in job.phases]
    assert found == [(171, 88, 5), (214, 87, 0), (257, 88, 0), (300, 87, 0)]
    assert {(phase.batch_per_worker, phase.global_batch, phase.crop_scale) for phase in job.phases} == {
        (8, None, (0.05, 1.0))
    }
    assert parse_job(dump_job(job)) == job


def test_a_misspelt_key_of_stages_is_told_where_it_stands() -> None:
    problem = problem_of(MINIMAL, "phases={from: 16, to: 32, stage: 2, epochs: 3, global_batch: 8}")
    assert (problem.path, problem.fix) == ("phases.stage", "did you mean `stages`?")


def test_a_warmup_starts_at_a_factor_or_at_the_base() -> None:
    job = make_job({"warmup_start_factor": "base"}, {"warmup_start_factor": "5e-1"})
    assert [phase.warmup_start_factor for phase in job.phases] == ["base", 0.5]
    assert parse_job(dump_job(job)) == job


@pytest.mark.parametrize("key", ["phases.1.epochs", "phases[1].epochs", "phases[1]epochs"])
def test_an_override_reaches_into_lists(key: str) -> None:
    assert [phase.epochs for phase in parse_job(MINIMAL, overrides=[f"{key}=7"]).phases] == [2, 7]


def test_an_override_may_set_what_the_file_does_not_mention_and_the_last_one_holds() -> None:
    job = parse_job(
        MINIMAL, overrides=["run.workers=3", "data.train=a=b.beton", "run.workers=4", "model.options.width=8"]
    )
    assert job.run.workers == 4
    assert job.data.train == "a=b.beton"
    assert job.model.options == {"width": 8}


def test_an_override_may_replace_a_section_or_take_a_value_back() -> None:
    job = parse_job(
        MINIMAL, overrides=["phases.0={epochs: 3, resolution: 8, batch_per_worker: 2}", "data.num_samples=null"]
    )
    assert (job.phases[0].epochs, job.phases[0].global_batch) == (3, None)
    assert job.data.num_samples is None


def test_an_override_leaves_other_uses_of_an_alias_alone() -> None:
    text = with_phase("&first {epochs: 1, resolution: 16, global_batch: 8}, *first")
    phases = parse_job(text, overrides=["phases[1].resolution=32"]).phases
    assert [phase.resolution for phase in phases] == [16, 32]


@pytest.mark.parametrize(
    ("override", "path", "rule"),
    [
        ("seed", "seed", "is not an override"),
        ("=3", "=3", "is not an override"),
        ("..=3", "..=3", "is not an override"),
        ("seed=[", "seed", "is not a YAML value"),
        ("seed=2020-13-45", "seed", "is not a YAML value"),
        ("seed.x=1", "seed.x", "must hold"),
        ("name.x=1", "name.x", "name is a plain value without parts"),
        ("phases.2.epochs=1", "phases.2.epochs", "phases has no entry 2"),
        ("phases.-1.epochs=1", "phases.-1.epochs", "phases has no entry -1"),
        ("phases.².epochs=1", "phases.².epochs", "phases has no entry ²"),
        ("phases.last.epochs=1", "phases.last.epochs", "phases has no entry last"),
        ("phases[0].epochs.x=1", "phases[0].epochs.x", "phases[0].epochs is a plain value without parts"),
        ("learning_rate.bsae=1", "learning_rate.bsae", "is not a known key"),
        ("evaluation.resolutoin=64", "evaluation.resolutoin", "is not a known key"),
        ("run.workers=two", "run.workers", "must be a whole number"),
        ("phases[1]=", "phases[1]", "must hold keys of its own"),
    ],
)
def test_a_wrong_override_is_a_problem_of_the_command_line_not_of_a_line_of_the_file(
    override: str, path: str, rule: str
) -> None:
    text = MINIMAL + "evaluation: {resolution: 32}\n"
    if override == "seed.x=1":  # Not in the file, so it becomes a section, which a seed is not.
        path, rule = "seed", "must be a whole number"
    assert (problem := problem_of(text, override)).path == path
    assert (problem.rule, problem.line) == (rule, None)


def test_mistakes_of_overrides_and_of_the_file_are_reported_together() -> None:
    problems = problems_of(MINIMAL + "sede: 1\n", "phases.9.epochs=1", "learning_rate.base=0")
    assert {(problem.path, problem.line) for problem in problems} == {
        ("phases.9.epochs", None),
        ("learning_rate.base", None),
        ("sede", 8),
    }


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "loss: &it {label_smoothing: *it}\n",
        MINIMAL + "loss: &it [*it]\n",
        MINIMAL + "loss: {2020-01-01: 1}\n",
        MINIMAL + "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(9)),
    ],
    ids=["holds itself", "list holds itself", "key of no JSON", "nine to the ninth values"],
)
def test_values_that_cannot_be_printed_whole_are_problems_like_any_other(text: str) -> None:
    assert all(len(problem.value) <= 60 for problem in problems_of(text))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=4,
)
FULL = dump_job(make_job(optimizer={"name": "adamw"}, learning_rate={"base": 1, "shape": {"kind": "cosine"}}))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside `value`, and its own."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in entries for place in places(inner, (*path, key)))]


def at(place: tuple[Any, ...], raw: Any) -> Any:
    for key in place:
        raw = raw[key]
    return raw


PLACES = places(yaml.safe_load(FULL))
SECTIONS = [
    place for place in PLACES if isinstance(at(place, yaml.safe_load(FULL)), dict) and place[-1:] != ("options",)
]


@settings(max_examples=40)
@given(st.sampled_from(PLACES[1:]), anything)
def test_any_value_anywhere_is_taken_or_refused_never_a_crash(place: tuple[Any, ...], value: Any) -> None:
    raw = yaml.safe_load(FULL)
    at(place[:-1], raw)[place[-1]] = value
    try:
        job = parse_job(yaml.safe_dump(raw))
    except JobError:
        return
    assert repr(parse_job(dump_job(job))) == repr(job)  # Texts, as a NaN in model.options does not equal itself.


@settings(max_examples=40)
@given(st.sampled_from(SECTIONS), st.text("abcdefghij_", min_size=1, max_size=12))
def test_an_unknown_key_is_reported_with_its_place_wherever_it_stands(place: tuple[Any, ...], name: str) -> None:
    raw = yaml.safe_load(FULL)
    section = at(place, raw)
    assume(name not in section)
    section[name] = 1
    problem = problem_of(yaml.safe_dump(raw))
    assert problem.path == format_location((*place, name))
    assert problem.rule == "is not a known key"
    assert problem.line


numbers = st.floats(min_value=1e-9, max_value=1e9)
phases = st.fixed_dictionaries(
    {
        "epochs": st.integers(1, 100),
        "resolution": st.integers(8, 4096)
        | st.fixed_dictionaries(
            {"start": st.just(32) | st.just(64), "end": st.just(96), "multiple_of": st.sampled_from([8, 32])}
        ),
        "global_batch": st.integers(1, 10**6),
        "lr_scale": numbers,
    },
    optional={"name": st.text("abc 1:#'é\"-", min_size=1), "warmup_epochs": st.floats(0, 1)},
)


@settings(max_examples=30)
@given(
    st.lists(phases, min_size=1, max_size=3),
    st.fixed_dictionaries({"base": numbers}, optional={"scaling": st.sampled_from(["linear", "none"])}),
    st.none() | st.text(min_size=1).filter(lambda text: not UNPRINTABLE.search(text)),
)
def test_a_dumped_job_reads_back_equal(some: list[Any], learning_rate: Any, train: str | None) -> None:
    job = make_job(*some, learning_rate=learning_rate, data={"train": train, "channel_mean": [1, 2.5, 255]})
    assert parse_job(dump_job(job)) == job


@pytest.mark.parametrize("source", ["imagenet-rn50-16", "imagenet-rn50-16.yaml"])
def test_a_recipe_is_found_by_name_from_any_working_directory(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_job(source).name == "imagenet-rn50-16"


def test_a_directory_named_like_a_recipe_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet-rn50-16").mkdir()
    assert find_job("imagenet-rn50-16").is_file()


def test_a_file_at_the_path_goes_before_a_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet-rn50-16.yaml").write_text(MINIMAL)
    assert load_job("imagenet-rn50-16.yaml").name == "tiny"


@pytest.mark.parametrize("source", ["imagenet-rn50-166", "jobs/imagenet-rn5016.yaml", "nowhere/imagenet-rn50-1l6.yaml"])
def test_a_job_that_does_not_exist_is_told_with_the_nearest_recipe(source: str) -> None:
    with pytest.raises(JobError) as caught:
        load_job(source)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.fix) == ("there is no such job file", "did you mean imagenet-rn50-16?")


def test_a_job_that_does_not_exist_and_is_like_none_is_told_with_all_recipes() -> None:
    with pytest.raises(JobError, match=r"give a path, or one of: .*demo, .*imagenet-rn50-classic"):
        load_job("quux")


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("name", '"a\\e]0;owned\\a"'),
        ("phases.0.name", '"\\e[2J"'),
        ("phases.0.name", '"two\\nlines"'),
        ("data.train", '"a\\0b"'),
        ("data.train", '"\\x9b31m"'),
        ("run.mode", '"\\u202elarr"'),
        ("model.options.x", '{a: ["\\r"]}'),
        ("model.options", '{"\\e[1m": 1}'),
    ],
)
def test_what_a_terminal_would_obey_is_refused_and_never_printed(key: str, written: str) -> None:
    problems = problems_of(MINIMAL, f"{key}={written}")
    assert "holds control characters" in {problem.rule for problem in problems}
    assert not any(UNPRINTABLE.search(str(problem)) for problem in problems)


@pytest.mark.parametrize("override", ["\x1b[2J", "\x1b[2J=1", "name=[\x1b", "a\x9b.b=1", "name=" + "[" * 3000])
def test_an_override_is_told_without_what_a_terminal_would_obey_and_not_at_length(override: str) -> None:
    for problem in problems_of(MINIMAL, override):
        assert not UNPRINTABLE.search(str(problem))
        assert len(problem.value) <= 60


def test_a_file_without_end_is_a_problem() -> None:
    with pytest.raises(JobError, match="mistake"):
        load_job("/dev/zero")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(JobError, match="cannot be read"):
        load_job(str(path))
    with pytest.raises(JobError, match="there is no such job file"):
        load_job(str(tmp_path))
