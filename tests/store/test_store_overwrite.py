"""``--overwrite`` that was interrupted goes on when it is repeated, and makes anew what is complete or another."""

import numpy as np
import pytest
from small_stores import GRIDS, fingerprint, random_bits, records, run, tree

from grncli.store import open_part

GRID = GRIDS[0]


def begin(path, sources=1, *, overwrite=True, finish=False, part=0, parts=1, columns=(), **settings):
    """Discard or go on, add a source, and leave off; the position found."""
    resumes = settings.pop("resumes", lambda position, digest: True)
    with open_part(path, fingerprint(**settings), part, parts, overwrite, columns, resumes=resumes) as writer:
        found = writer.position
        for _ in range(sources):
            numbers = {name: np.arange(2) for name, _ in columns}
            writer.append(
                GRID, random_bits(2, GRID, settings.get("rounds", 3)), None, records(2, str(found)), **numbers
            )
        writer.commit(found + sources, "digest")
        if finish:
            writer.finish()
    return found


def test_an_interrupted_overwrite_goes_on_with_either_command(tmp_path):
    run(tmp_path / "store")
    assert begin(tmp_path / "store") == 0
    assert begin(tmp_path / "store") == 1
    assert begin(tmp_path / "store", overwrite=False) == 2
    assert begin(tmp_path / "store") == 3


def test_one_that_makes_the_store_goes_on_too(tmp_path):
    assert begin(tmp_path / "store") == 0
    assert begin(tmp_path / "store") == 1


@pytest.mark.parametrize(
    "other",
    [{"rounds": 4}, {"labels": ("cow",)}, {"columns": [("seed", "int64")]}, {"resumes": lambda *_: False}],
)
def test_another_overwrite_starts_anew(tmp_path, other):
    begin(tmp_path / "store")
    assert begin(tmp_path / "store", **other) == 0


def test_what_an_overwrite_completed_is_made_anew(tmp_path):
    begin(tmp_path / "store", finish=True)
    assert begin(tmp_path / "store") == 0


def test_what_no_overwrite_began_is_made_anew(tmp_path):
    begin(tmp_path / "store", overwrite=False)
    assert begin(tmp_path / "store") == 0


def test_each_part_goes_on_by_itself(tmp_path):
    for part in range(2):
        begin(tmp_path / "store", part=part, parts=2, finish=part == 1)
    assert begin(tmp_path / "store", part=0, parts=2) == 1
    assert begin(tmp_path / "store", part=1, parts=2) == 0


def test_the_sources_done_decide_whether_it_goes_on(tmp_path):
    asked = []
    begin(tmp_path / "store", sources=3)
    begin(tmp_path / "store", resumes=lambda *done: asked.append(done) or True)
    assert asked == [(3, "digest")]


def test_what_depends_on_samples_goes_before_them(tmp_path):
    seen = []

    def look():
        seen.append(tree(tmp_path / "store"))

    run(tmp_path / "store")
    before = tree(tmp_path / "store")
    open_part(tmp_path / "store", fingerprint(), overwrite=True, discarding=look).close()
    open_part(tmp_path / "store", fingerprint(), overwrite=True, discarding=look).close()
    assert seen == [before]
