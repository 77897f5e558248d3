"""The search for decoding settings, by ``grn eval search``: halving, going on, and what is refused."""

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from grncli.evaluation import feature_collection, trial_judge
from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.generation import GenSettings, generation
from grncli.evaluation.grids import name_of, parse_grid
from grncli.evaluation.halving import search
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.search_folder import POINTS, RESULTS
from grncli.evaluation.trial_judge import SearchSettings
from grncli.media.writing import write_png
from grncli.runs import tokenizers
from grncli.runs.checkpoint import list_checkpoints, write_checkpoint
from grncli.runtime.errors import LockError, UsageError
from grncli.runtime.folders import LOCK, ClaimedFolder
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped, Unfinished
from grncli.runtime.tensor_files import sha256_of
from grncli.sampling.settings import SampleOptions
from grncli.store import open_store

GRID = ("temperature=0.5,1.0", "guidance=1,3")

SMALL, LARGER = ("temperature=0.5,1.0",), ("temperature=0.5,1.0,2.0",)

QUICK = {"per_class": 4, "halvings": 1}


@pytest.fixture(scope="module")
def real(draw_picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for i in range(12):
        write_png(folder / f"{i:02d}.png", draw_picture(i))
    return folder


@pytest.fixture(scope="module")
def find(generator, tokenizer, real):
    def run(out, grid=GRID, *, per_class=8, halvings=2, run=generator, reference=real, stop=None, **options):
        """``search`` in the features of the tokenizer, eight dimensions."""
        settings = SearchSettings(
            grid=parse_grid(grid),
            sampling=SampleOptions(steps=2, per_class=per_class),
            networks=NetworkOptions(features=str(tokenizer), cache=Path("no/cache")),
            reading=PictureReading(tokenizer=str(tokenizer), workers=0),
            halvings=halvings,
            **options,
        )
        return search(run, str(reference), out, settings, monitor=Monitor(stop or Stop()))

    return run


@pytest.fixture(scope="module")
def whole(find, tmp_path_factory):
    """A finished search of four points: with 2, 4 and 8 samples a class."""
    out = tmp_path_factory.mktemp("whole") / "search"
    return out, find(out)


@pytest.fixture
def copied(whole, tmp_path):
    return Path(shutil.copytree(whole[0], tmp_path / "search"))


@pytest.fixture(scope="module")
def small_search(find, tmp_path_factory):
    """One of two points: with 2 and 4 samples a class."""
    out = tmp_path_factory.mktemp("small") / "search"
    find(out, SMALL, **QUICK)
    return out


@pytest.fixture
def small(small_search, tmp_path):
    return Path(shutil.copytree(small_search, tmp_path / "search"))


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def results(out):
    return [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]


def changes(out):
    """Every file of a search but its lock, with its bytes and when it was written."""
    files = [Path(where, name) for where, _, names in os.walk(out) for name in names if name != LOCK]
    return {file.relative_to(out): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_points_that_cannot_be_sampled_are_refused_before_anything_is_written(find, tmp_path):
    with pytest.raises(UsageError, match="--temperature"):
        find(tmp_path / "out", ["temperature=1.0,0"])
    assert not (tmp_path / "out").exists()


def test_the_better_half_goes_on(whole):
    trials = sorted(results(whole[0]), key=lambda trial: trial["distance"])
    names = {n: [name_of(t["point"]) for t in trials if t["per_class"] == n] for n in (2, 4, 8)}
    assert [len(names[n]) for n in (2, 4, 8)] == [4, 2, 1]
    assert set(names[4]) == set(names[2][:2])
    assert names[8] == names[4][:1]


def test_the_best_has_most_samples_and_stands_first(whole):
    found = whole[1]
    assert (found.best.per_class, found.best.samples, len(found.trials)) == (8, 24, 4)
    assert found.distance == "fd"


def test_distances_are_those_of_grn_eval_gen(whole, tokenizer, real):
    out, found = whole
    store = out / POINTS / f"{name_of(found.best.point)}.zarr"
    settings = GenSettings(
        reading=PictureReading(tokenizer=str(tokenizer), workers=0),
        networks=NetworkOptions(features=str(tokenizer)),
        metrics=("fd",),
    )
    assert found.best.distance == pytest.approx(generation(str(store), str(real), settings).value("fd"), rel=1e-9)


def test_samples_of_a_point_stay_when_more_are_made(whole):
    out, found = whole
    sizes = {
        name_of(trial.point): len(open_store(out / POINTS / f"{name_of(trial.point)}.zarr")) for trial in found.trials
    }
    assert sorted(sizes.values()) == [6, 6, 12, 24]


def test_nfe_is_that_of_the_samples(whole):
    store = open_store(whole[0] / POINTS / f"{name_of(whole[1].best.point)}.zarr")
    assert whole[1].best.nfe == store.grid((1, 4, 4)).column("nfe").mean()


# Going on


def test_run_again_it_finds_the_same(find, whole, copied):
    assert find(copied).trials == whole[1].trials


def test_run_again_it_writes_nothing(find, copied):
    before = changes(copied)
    find(copied)
    assert changes(copied) == before


def test_run_again_it_measures_no_point_twice(find, tmp_path, monkeypatch):
    """Twelve samples in eight dimensions, of which nothing has to be warned."""
    find(tmp_path / "search", SMALL, per_class=4, halvings=0)
    seen = []
    monkeypatch.setattr(trial_judge, "observe_samples", lambda pictures, *rest, **more: seen.append(pictures.src))
    find(tmp_path / "search", SMALL, per_class=4, halvings=0)
    assert seen == []


def test_networks_and_reference_are_opened_once_for_all_trials(find, tmp_path, monkeypatch):
    """That of the tokenizer also where it is the feature network as well."""
    opened = Counter()

    def count(module, name):
        real = getattr(module, name)

        def counted(*arguments, **options):
            opened[f"{module.__name__.removeprefix('grncli.')}.{name}"] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(trial_judge, "load_weights")
    count(tokenizers, "open_run")
    count(feature_collection, "load_feature_network")
    count(trial_judge, "load_distribution")
    count(trial_judge, "sample")
    find(tmp_path / "search")
    assert opened == {
        "evaluation.trial_judge.load_weights": 1,
        "runs.tokenizers.open_run": 1,
        "evaluation.feature_collection.load_feature_network": 1,
        "evaluation.trial_judge.load_distribution": 1,
        "evaluation.trial_judge.sample": 7,
    }


def test_trials_of_earlier_versions_are_not_measured_again(find, small, monkeypatch):
    """They say evaluations where new ones say nfe, and NaN where new ones say null."""
    lines = [
        {("evaluations" if name == "nfe" else name): value for name, value in line.items()} for line in results(small)
    ]
    lines[1]["evaluations"] = math.nan
    (small / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(trial_judge, "sample", lambda *_, **__: pytest.fail("sampled again"))
    nfe = {name_of(trial.point): trial.nfe for trial in find(small, SMALL, **QUICK).trials}
    assert lines[0]["evaluations"] in nfe.values() or lines[2]["evaluations"] in nfe.values()


def test_run_again_it_warns_of_the_same(find, tmp_path):
    first, again = (find(tmp_path / "search", SMALL, **QUICK).warnings for _ in range(2))
    assert again == first


def test_half_a_line_of_a_killed_run_is_left_out(find, whole, copied):
    lines = (copied / RESULTS).read_text().splitlines(keepends=True)
    (copied / RESULTS).write_text("".join(lines[:-1]) + lines[-1][:20])
    assert find(copied).trials == whole[1].trials
    assert (copied / RESULTS).read_text() == "".join(lines)


def test_a_larger_grid_keeps_the_trials_and_samples_there_are(find, small):
    before = (small / RESULTS).read_text()
    stores = {path: value for path, value in changes(small).items() if path.parts[0] == POINTS}
    find(small, LARGER, per_class=2, halvings=0)
    assert (small / RESULTS).read_text().startswith(before)
    assert len(results(small)) == 4
    kept = {path: value for path, value in changes(small).items() if path in stores}
    assert kept == stores


def test_a_larger_grid_finds_what_it_would_from_scratch(find, small, tmp_path):
    assert find(small, LARGER, **QUICK).trials == find(tmp_path / "fresh", LARGER, **QUICK).trials


def test_another_count_of_samples_finds_what_it_would_from_scratch(find, small, tmp_path):
    """A point may have more samples by then than this round compares."""
    again, fresh = (find(out, SMALL, per_class=3, halvings=0).trials for out in (small, tmp_path / "fresh"))
    assert [(t.point, t.samples) for t in again] == [(t.point, t.samples) for t in fresh]


class AfterSampling(Stop):
    """A request to stop that comes when the first point has all its samples."""

    def __init__(self, out):
        super().__init__()
        self._out = out

    @property
    def reason(self):
        stores = list((self._out / POINTS).glob("*.zarr"))
        return "SIGTERM" if stores and open_store(stores[0]).complete else None


@pytest.fixture
def stopped(find, tmp_path):
    with pytest.raises(Stopped) as told:
        find(tmp_path / "out", SMALL, **QUICK, stop=AfterSampling(tmp_path / "out"))
    return tmp_path / "out", told.value


def test_stopped_while_measuring_it_goes_on(find, small, stopped):
    assert not (stopped[0] / RESULTS).exists()
    find(stopped[0], SMALL, **QUICK)
    assert results(stopped[0]) == results(small)


def test_stopped_while_measuring_it_does_not_say_that_nothing_is_kept(stopped):
    assert not isinstance(stopped[1], Unfinished)


# What does not belong together


def test_a_reference_may_lie_elsewhere(find, copied, real, tmp_path):
    before = results(copied)
    find(copied, GRID, reference=shutil.copytree(real, tmp_path / "moved"))
    assert results(copied) == before


@pytest.mark.parametrize("other", ["generator", "reference", "sampling"])
def test_another_search_in_the_folder_is_refused_and_named(
    find, copied, make_generator_run, tokenizer, real, tmp_path, other
):
    before = changes(copied)
    options = {}
    if other == "generator":
        options["run"] = make_generator_run(tmp_path / "gen", tokenizer, seed=3)
    if other == "reference":
        options["reference"] = shutil.copytree(real, tmp_path / "others")
        next(options["reference"].rglob("*.png")).unlink()
    grid = ["temperature=0.5,1.0"] if other == "sampling" else GRID
    with pytest.raises(
        UsageError,
        match=rf"was made by grn eval search with other settings or data \({other}[.=].*; choose another --out, or",
    ):
        find(copied, grid, **options)
    assert changes(copied) == before


def test_overwriting_replaces_it_and_leaves_what_others_put_there(find, small, make_generator_run, tokenizer, tmp_path):
    (small / "notes.txt").write_text("mine")
    other = make_generator_run(tmp_path / "gen", tokenizer, seed=3)
    for out in (small, tmp_path / "fresh"):
        find(out, SMALL, per_class=2, halvings=0, run=other, overwrite=True)
    assert results(small) == results(tmp_path / "fresh")
    assert (small / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused(find, tmp_path, overwrite):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files that grn eval search did not write"):
        find(tmp_path, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_another_search_fills_is_refused(find, copied, overwrite):
    before = changes(copied)
    with ClaimedFolder(copied), pytest.raises(LockError, match="search is being written by this process"):
        find(copied, overwrite=overwrite)
    assert changes(copied) == before
    find(copied)


def test_pictures_of_another_size_than_the_samples_are_refused(find, draw_picture, tmp_path):
    (tmp_path / "wide").mkdir()
    for i in range(2):
        write_png(tmp_path / "wide" / f"{i}.png", draw_picture(i, 16, 24))
    with pytest.raises(UsageError, match=r"pictures of 16x16 pixels and .* of 16x24"):
        find(tmp_path / "out", reference=tmp_path / "wide")


def test_an_imported_generator_is_searched_with_the_tokenizer_that_is_named(
    grn_inside, draw_picture, release_fixtures, tmp_path
):
    """It does not know whose bits it learned."""
    grn_inside("import", release_fixtures / "c2i_ind.pth", tmp_path / "gen", "--set", "in_context_start=1")
    grn_inside("import", release_fixtures / "tokenizer.ckpt", tmp_path / "tok")
    (tmp_path / "real").mkdir()
    for i in range(3):
        write_png(tmp_path / "real" / f"{i}.png", draw_picture(i, 64, 64))
    networks = ("--tokenizer", tmp_path / "tok", "--features", tmp_path / "tok")
    options = ("--reference", tmp_path / "real", "--per-class", 1, "--halvings", 0, "--classes", "0", "--steps", 2)
    done = grn_inside("eval", "search", tmp_path / "gen", *networks, *options, "--grid", "temperature=1.0,1.2")
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "gen" / "search")) == 2


# The command


@pytest.fixture(scope="module")
def options(generator, tokenizer, real, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return (
        *("eval", "search", generator, "--reference", real, "--tokenizer", tokenizer, "--features", tokenizer),
        *("--workers", 0, "--cache", cache),
    )


def test_the_command_shows_a_table_a_plot_and_the_best(grn_inside, options, generator, tokenizer, tmp_path):
    outputs = ("--out", tmp_path / "out", "--plot", tmp_path / "p.png", "--html", tmp_path / "r.html")
    grid = ("--grid", "temperature=0.5,1.0", "guidance=1,3")
    done = grn_inside(*options, *outputs, "--steps", 2, "--per-class", 2, "--halvings", 0, *grid)
    assert done.returncode == 0, done.stderr
    assert "Decoding settings, best first" in done.stdout
    assert Image.open(tmp_path / "p.png").format == "PNG"
    assert '<svg role="img"' in (tmp_path / "r.html").read_text()
    best = min(results(tmp_path / "out"), key=lambda t: t["distance"])["point"]
    told = f"--tokenizer {tokenizer} --steps 2 --temperature {best['temperature']} --guidance {best['guidance']}"
    assert done.stderr.splitlines()[-1] == f"best of 4: grn sample {generator} OUT {told}"


def test_the_grid_that_is_missing_is_a_sentence(grn_inside, options, tmp_path):
    done = grn_inside(*options, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "give a grid to search" in done.stderr


LONG = ("--out", "out", "--steps", 16, "--per-class", 24, "--halvings", 1, "--json", "--grid", "temperature=0.8,1.3")


def begin(start_grn, arguments, folder):
    """A search that has measured its first point."""
    process = start_grn(*arguments)
    end = time.monotonic() + 60
    while not ((folder / "out" / RESULTS).exists() and (folder / "out" / RESULTS).stat().st_size):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


@pytest.fixture(scope="module")
def killed(start_grn, grn_inside, options, tmp_path_factory):
    """JSON of a search that was killed and run again, and of one that was not; one name for both their folders."""
    documents = []
    for name in ("killed", "whole"):
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            if name == "killed":
                process = begin(start_grn, (*options, *LONG), folder)
                process.kill()
                process.communicate()
            done = grn_inside(*options, *LONG)
            assert done.returncode == 0, done.stderr
            documents.append(json.loads(done.stdout))
    return documents


def test_killed_and_run_again_it_finds_what_one_run_does(killed):
    left_out = ("warnings", "made")  # the second has the date
    after, whole = ({name: part for name, part in found.items() if name not in left_out} for found in killed)
    assert after == whole


def test_killed_and_run_again_it_warns_of_the_same(killed):
    assert killed[0]["warnings"] == killed[1]["warnings"]


def test_sigterm_ends_with_75_and_keeps_what_there_is(start_grn, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = begin(start_grn, (*options, *LONG, "guidance=1,2,3"), tmp_path)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "SIGTERM" in said
    assert results(tmp_path / "out")[0]["per_class"] == 12


def test_a_checkpoint_that_appears_changes_nothing_in_a_search_under_way(
    find, generator, make_generator, tmp_path, monkeypatch
):
    run = Path(shutil.copytree(generator, tmp_path / "gen", symlinks=True))
    draw = trial_judge.sample

    def training(*arguments, **options):
        weights = make_generator(seed=1).state_dict()
        config = asdict(make_generator().config)
        write_checkpoint(run, len(list_checkpoints(run)), {"ema": weights}, {"step": 1}, config)
        return draw(*arguments, **options)

    monkeypatch.setattr(trial_judge, "sample", training)
    found = find(tmp_path / "search", SMALL, run=run, **QUICK)
    assert len(list_checkpoints(run)) > 2
    made = {open_store(path).fingerprint.preprocessing["generator"] for path in (tmp_path / "search/points").iterdir()}
    assert made == {found.about["generator"]["sha256"]}
    assert made == {sha256_of(run / "checkpoints/step-00000000/ema.safetensors")}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("distance", "NaN", "field distance"),
        ("per_class", "4.0", "field per_class is 4.0"),
        ("samples", "-1", "field samples is -1"),
        ("point", "[]", r"field point is \[\]"),
    ],
)
def test_a_damaged_result_is_told_with_its_field(find, small, name, value, message):
    lines = (small / RESULTS).read_text().splitlines()
    line = {**json.loads(lines[0]), name: "VALUE"}
    (small / RESULTS).write_text(json.dumps(line).replace('"VALUE"', value) + "\n")
    with pytest.raises(UsageError, match=rf"results\.jsonl:1: {message}.*remove it"):
        find(small, SMALL, per_class=2, halvings=0)


def test_points_that_are_a_link_are_not_written_through(find, small, tmp_path):
    os.rename(small / POINTS, tmp_path / "points")
    (small / POINTS).symlink_to(tmp_path / "points")
    before = sorted(tmp_path.glob("points/*"))
    with pytest.raises(OSError, match=r"is a link, and nothing is written"):
        find(small, SMALL, per_class=8, halvings=0)
    assert sorted(tmp_path.glob("points/*")) == before
