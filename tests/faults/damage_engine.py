"""Damages checkpoints and `.beton` files in a thousand ways, and looks whether damage is ever taken for good.

    python -m tests.faults.damage_engine --damages 1000 --seed 0

A damaged checkpoint must be refused with a sentence and the one before be taken, bit for bit. A damaged data file must
be refused when it is opened or when its samples are decoded, by the sample's number; or give the pixels that it gave
before, as damage between its images does. Two tables say which damage was met how often, and what came of it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_format import ALLOCATION, HEADER
from ffcv_datasets.crop import TrainView
from ffcv_datasets.levels import FOOTER_BYTES
from ffcv_datasets.loader import Loader
from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.checkpoint import Parts, load, newest_valid, save
from launcher.plan import Position

Harm = Callable[[bytes, int, random.Random], bytes]
"""Content, and where in it to do harm -> what is left."""


def flip_bit(content: bytes, place: int, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def cut(content: bytes, place: int, _chance: random.Random) -> bytes:
    return content[:place]


def lengthen(content: bytes, _place: int, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.randint(1, 5000))


def empty_block(content: bytes, place: int, _chance: random.Random) -> bytes:
    """A block that never reached the disk."""
    start = place - place % 512
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def lose_byte(content: bytes, place: int, _chance: random.Random) -> bytes:
    """As in a transfer in text mode."""
    return content[:place] + content[place + 1 :]


HARMS: dict[str, Harm] = {
    "bit flipped": flip_bit,
    "cut short": cut,
    "lengthened": lengthen,
    "512 bytes zeroed": empty_block,
    "a byte lost": lose_byte,
}


@dataclass
class Report:
    """What came of each kind of damage: (where, kind, outcome) -> how often."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Damage that was taken for good, or crashed."""

    def table(self) -> str:
        """Markdown."""
        outcomes = sorted({outcome for _, _, outcome in self.counts})
        rows = sorted({(where, kind) for where, kind, _ in self.counts})
        lines = [f"| where | damage | {' | '.join(outcomes)} |", "|" + "---|" * (2 + len(outcomes))]
        lines += [
            f"| {where} | {kind} | " + " | ".join(str(self.counts[where, kind, o] or "") for o in outcomes) + " |"
            for where, kind in rows
        ]
        total = Counter(outcome for *_, outcome in self.counts.elements())
        return "\n".join([*lines, "| **all** | | " + " | ".join(str(total[o]) for o in outcomes) + " |"])


def damage_checkpoints(folder: Path, *, damages: int, seed: int) -> Report:
    """Damage the newest of two checkpoints, one way after the other, in a new directory `folder`."""
    older = save(folder, Position(1), _parts(1), {"plan_fingerprint": "0123abcd", "last_top1": 0.5})
    newest = save(folder, Position(2), _parts(2), {"plan_fingerprint": "0123abcd", "last_top1": 0.75})
    expected = _sums(load(older)[0])
    chance, report = random.Random(seed), Report()
    for where, kind, undo in islice(_harm_checkpoints(newest.path, chance), damages):
        outcome = _outcome_of_finding(folder, older.path, expected)
        report.counts[where, kind, outcome] += 1
        if not outcome.startswith("refused"):
            report.wrong.append(f"{where}, {kind}: {outcome}")
        undo()
    assert newest_valid(folder).newest == newest
    return report


def _outcome_of_finding(folder: Path, older: Path, expected: dict[str, str]) -> str:
    try:
        found = newest_valid(folder)
        assert found.newest is not None
        parts, _ = load(found.newest)
    except Exception as error:
        return f"CRASHED: {type(error).__name__}"
    if found.newest.path != older or _sums(parts) != expected:
        return "TAKEN FOR GOOD"
    return "refused, the one before taken" if any(rejected.reason for rejected in found.rejected) else "PASSED OVER"


def _harm_checkpoints(checkpoint: Path, chance: random.Random) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Without end: what was done to a file or a name of the checkpoint, and how to undo it."""
    files = sorted(checkpoint.iterdir())
    manifest = checkpoint / "manifest.json"
    as_written = manifest.read_bytes()
    while True:
        path = chance.choice(files)
        content = path.read_bytes()
        undo = partial(path.write_bytes, content)
        for kind, harm in HARMS.items():
            path.write_bytes(harm(content, chance.randrange(len(content)), chance))
            yield path.name, kind, undo
        path.unlink()
        yield path.name, "missing", undo
        shutil.copyfile(chance.choice([other for other in files if other != path]), path)
        yield path.name, "another file's content", undo
        shutil.copyfile(checkpoint.with_name("e00001-s000000000") / path.name, path)
        yield path.name, "the earlier checkpoint's", undo
        position = f"e{chance.randint(3, 99999):05d}-s{chance.randrange(10**9):09d}"
        renamed = checkpoint.rename(checkpoint.with_name(position))
        yield "the directory", "renamed", partial(renamed.rename, checkpoint)
        size = str(chance.choice([file for file in files if file != manifest]).stat().st_size)
        for kind, old, new in (("a size changed", size, str(int(size) + 1)), ("a name changed", "model", "../model")):
            manifest.write_bytes(as_written.replace(old.encode(), new.encode()))
            yield manifest.name, kind, partial(manifest.write_bytes, as_written)


def damage_betons(folder: Path, *, damages: int, seed: int) -> Report:
    """Damage a data file with levels, restart markers and checksums, in a new directory `folder`."""
    folder.mkdir(parents=True)
    path = folder / "data.beton"
    samples = DrawnSamples(seed=seed, size=64, num_samples=24)
    write_betons([(path, samples)], Encoding(further_sides=(32,), restart=True), num_workers=1)
    content, chance, report = path.read_bytes(), random.Random(seed), Report()
    expected = _pixels(path)
    regions = _regions(path)
    kinds = list(HARMS.items())
    for number in range(damages):
        region = list(regions)[number % len(regions)]
        kind, harm = chance.choice(kinds)
        path.write_bytes(harm(content, int(chance.choice(regions[region])), chance))
        outcome = _outcome_of_reading(path, expected)
        report.counts[region, kind, outcome] += 1
        if outcome.isupper() or outcome.startswith("CRASHED"):
            report.wrong.append(f"{region}, {kind}, number {number}: {outcome}")
    path.write_bytes(content)
    assert _outcome_of_reading(path, expected) == "no pixel changed"
    return report


def _regions(path: Path) -> dict[str, NDArray[np.intp]]:
    """The bytes of a data file by what they are; those between, which nothing says anything of, are left out."""
    with Beton(path) as beton:
        levels = beton.levels()
        tables_end = HEADER.itemsize + beton.descriptors.nbytes + beton.metadata.nbytes
        stored = [
            {int(row["offset"]) + n for row in rows for n in range(int(row["size"]) + int(row["index_size"]))}
            for rows in levels
        ]
        allocations_at = path.stat().st_size - len(beton._allocations) * ALLOCATION.itemsize
        assert beton.footer is not None
        footer_at = allocations_at - FOOTER_BYTES
        spans = {
            "header": range(HEADER.itemsize),
            "field table": range(HEADER.itemsize, HEADER.itemsize + beton.descriptors.nbytes),
            "metadata": range(tables_end - beton.metadata.nbytes, tables_end),
            "images": sorted(stored[0]),
            "smaller level": sorted(stored[1]),
            "level tables": range(beton.footer.levels_at, footer_at),
            "footer": range(footer_at, allocations_at),
            "allocation table": range(allocations_at, path.stat().st_size),
        }
    return {f".beton: {name}": np.array(span) for name, span in spans.items()}


def _outcome_of_reading(path: Path, expected: str) -> str:
    try:
        with Beton(path):
            pass
    except BetonError:
        return "refused when opened"
    except Exception as error:
        return f"CRASHED: {type(error).__name__}"
    try:
        return "no pixel changed" if _pixels(path) == expected else "TAKEN FOR GOOD"
    except ValueError as error:
        return "refused by sample" if "sample " in str(error) else f"CRASHED: {error}"
    except Exception as error:
        return f"CRASHED: {type(error).__name__}"


def _pixels(path: Path) -> str:
    """Of all samples, whole, at two sizes, so that all bytes of both levels are read."""
    digest = hashlib.sha256()
    with Loader(path) as loader:
        order = [np.arange(loader.num_samples)]
        for resolution in (24, 48):
            view = TrainView(seed=1, epoch=0, resolution=resolution, crop_scale=(1, 1), crop_ratio=(1, 1))
            with loader.batches(order, view) as batches:
                for batch in batches:
                    digest.update(batch.images.tobytes() + batch.labels.tobytes())
    return digest.hexdigest()


def _parts(seed: int) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    weights = {f"layer{n}.weight": torch.randn(20, 20, generator=generator) for n in range(3)}
    return {
        "model": weights,
        "optimizer": {f"{name}/momentum_buffer": tensor * 2 for name, tensor in weights.items()},
        "average": {name: tensor / 2 for name, tensor in weights.items()},
        "rng": {"rank0/torch_cpu": torch.arange(500) * seed},
    }


def _sums(parts: Parts) -> dict[str, str]:
    return {
        f"{part}/{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = (
            damage_checkpoints(Path(folder) / "checkpoints", damages=wanted.damages, seed=wanted.seed),
            damage_betons(Path(folder) / "data", damages=wanted.damages, seed=wanted.seed),
        )
    for report in reports:
        print(report.table(), *report.wrong, sep="\n", end="\n\n")
    return 1 if any(report.wrong for report in reports) else 0


if __name__ == "__main__":
    raise SystemExit(main())
