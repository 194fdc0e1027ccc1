"""The mutation gate still fits the product; `make mutations` carries all of it out."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.faults.mutations import ROOT, Mutation, survivors
from tests.faults.planted_bugs import MUTATIONS

IN_MILLISECONDS = "tests/unit/test_sample_order.py"


@cache
def names_of_tests_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.bug)
def test_a_mutation_can_be_planted_and_its_test_exists(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text()
    assert ast.dump(ast.parse(mutation.mutated(source))) != ast.dump(ast.parse(source))
    file, _, name = mutation.test.partition("::")
    assert name.partition("[")[0] in names_of_tests_in(file)


def test_every_bug_is_another_one() -> None:
    assert len({mutation.bug for mutation in MUTATIONS}) == len(MUTATIONS) >= 12


def test_the_gate_tells_a_caught_bug_from_one_that_no_test_sees() -> None:
    caught = next(mutation for mutation in MUTATIONS if mutation.test.startswith(IN_MILLISECONDS))
    harmless = Mutation("nothing changes", caught.file, caught.old, f"{caught.old}  # here\n", caught.test)
    assert survivors([caught, harmless]) == [harmless]
