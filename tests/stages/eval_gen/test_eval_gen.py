"""How samples compare with real pictures, by ``grn eval gen``, and statistics files, by ``grn eval stats``."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from compared_samples import KINDS, document, noise, one_sentence, place, save_statistics
from PIL import Image

from grncli.media.writing import write_png
from grncli.runtime.errors import CheckpointError, GrnError, MediaError, UsageError
from grncli.runtime.stopping import Stop, Unfinished
from grncli.store import open_store

# Distances


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_samples_in_two_forms_are_no_distance_apart(gen, forms, kind):
    assert gen(place(forms, kind), forms / "folder").value("fd") == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_samples_of_every_kind_give_the_same_distance(gen, forms, real, kind):
    expected = gen(forms / "folder", real).value("fd")
    assert expected > 1e-3
    assert gen(place(forms, kind), real).value("fd") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_references_of_every_kind_give_the_same_distance(gen, forms, real, kind):
    assert gen(real, place(forms, kind)).value("fd") == pytest.approx(gen(real, forms / "folder").value("fd"), rel=1e-9)


def test_the_distance_is_that_of_means_and_covariances(gen, forms, real):
    sides = []
    for folder in (forms / "folder", real):
        pixels = [np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.png"))]
        sides.append(np.stack([each.reshape(-1, 3).mean(axis=0) / 255 for each in pixels]))
    first, second = (np.cov(side, rowvar=False) for side in sides)
    shared = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    apart = np.square(sides[0].mean(axis=0) - sides[1].mean(axis=0)).sum()
    expected = apart + np.trace(first + second) - 2 * shared
    assert gen(forms / "folder", real).value("fd") == pytest.approx(expected, rel=1e-4)


def test_two_statistics_files_need_no_network(gen, forms, real, networks, tmp_path):
    other = save_statistics(real, tmp_path / "real.npz", networks / "colours.pt")
    found = gen(place(forms, "statistics"), other, features=None)
    assert found.value("fd") == pytest.approx(gen(forms / "folder", real).value("fd"), rel=1e-9)


def test_statistics_of_another_network_are_refused(gen, forms, real, networks, tmp_path):
    other = save_statistics(real, tmp_path / "spread.npz", networks / "spread.pt")
    with pytest.raises(UsageError, match=r"seen by colours\.pt .* and .* by spread\.pt .*the same --features"):
        gen(forms / "folder", other)


def test_statistics_of_other_dimensions_are_refused(gen, forms, real, networks, tmp_path):
    other = save_statistics(real, tmp_path / "wide.npz", networks / "wide.pt")
    with pytest.raises(UsageError, match=r"3 features of .* and 12 of .* are of two networks"):
        gen(forms / "folder", other)


def test_statistics_of_others_get_a_doubt(gen, forms, real, tmp_path):
    mean, covariance = np.zeros(3), np.eye(3)
    np.savez(tmp_path / "theirs.npz", mu=mean, sigma=covariance)
    doubts = " ".join(gen(real, tmp_path / "theirs.npz").warnings)
    assert "does not say which network made it" in doubts
    assert "does not say the size of its pictures" in doubts


# Sizes


def test_sizes_that_differ_between_the_two_are_named(gen, forms, tmp_path):
    for i in range(3):
        write_png(tmp_path / f"{i}.png", noise(i, 0, 16, 24))
    with pytest.raises(
        UsageError,
        match=r"folder has pictures of 16x16 pixels and .* of 16x24; .* give --size 16x24 to bring them to it",
    ):
        gen(forms / "folder", tmp_path)


def test_sizes_that_differ_within_a_set_are_named(gen, real, mixed):
    with pytest.raises(UsageError, match=r"0\.png is 16x16 pixels and .*1\.png 16x24; expected one size"):
        gen(mixed, real)


@pytest.mark.parametrize("size", ["native", "16"])
def test_sizes_may_differ_where_a_size_is_given(gen, real, mixed, size):
    assert gen(mixed, real, size=size).samples["count"] == 8


# What cannot be measured


def test_fewer_samples_than_dimensions_get_a_warning(gen, forms, real):
    doubts = gen(forms / "folder", real, features="wide.pt", limit=12).warnings
    assert [text.partition(" has ")[2].partition(":")[0] for text in doubts] == [
        "12 feature vectors of 12 dimensions"
    ] * 2
    assert all("biased upwards" in text for text in doubts)


def test_enough_samples_get_none(gen, forms, real):
    assert gen(forms / "folder", real).warnings == []


@pytest.mark.parametrize("metric", ["kid", "precision", "recall"])
def test_single_features_are_missed_by_name_and_with_a_way_to_get_them(gen, forms, real, metric):
    with pytest.raises(UsageError, match=rf"--metrics {metric}: .*statistics\.npz holds no single features; .*--keep-"):
        gen(real, place(forms, "statistics"), metrics=(metric,))


def test_kept_features_serve_for_them(gen, forms, real, networks, tmp_path):
    kept = save_statistics(real, tmp_path / "kept.npz", networks / "colours.pt", keep=True)
    metrics = ("kid", "precision", "recall")
    found, expected = (gen(forms / "folder", reference, metrics=metrics) for reference in (kept, real))
    assert [f.value for f in found.figures] == pytest.approx([f.value for f in expected.figures], rel=1e-9)


@pytest.mark.parametrize("metrics", [("fdi",), ("fd", "fiid")])
def test_unknown_metrics_are_named_with_those_there_are(gen, forms, real, metrics):
    with pytest.raises(UsageError, match=rf"--metrics {metrics[-1]}: .*expected some of fid, fvd, fd"):
        gen(forms / "folder", real, metrics=metrics)


@pytest.mark.parametrize("metric", ["fid", "fvd"])
def test_published_names_are_for_published_networks(gen, forms, real, metric):
    with pytest.raises(UsageError, match=rf"--metrics {metric}: the features are of another network"):
        gen(forms / "folder", real, metrics=(metric,))


def test_fd_is_for_any_network(gen, forms, real):
    found = gen(forms / "folder", real, features="spread.pt", metrics=("fd",))
    assert [figure.metric for figure in found.figures] == ["fd"]


@pytest.mark.parametrize("kind", ["folder", "statistics"])
def test_figures_of_classes_need_no_reference(gen, forms, real, kind):
    """Of statistics there are none, with or without one."""
    metrics = ("is", "class-accuracy")
    if kind == "statistics":
        with pytest.raises(UsageError, match="holds no class probabilities"):
            gen(place(forms, kind), None, features=None, metrics=metrics)
        return
    alone, compared = (gen(forms / kind, reference, metrics=metrics) for reference in (None, real))
    assert (alone.figures, alone.reference) == (compared.figures, None)


@pytest.mark.parametrize("metric", ["is", "class-accuracy"])
def test_class_scores_need_a_classifier(gen, forms, real, metric):
    with pytest.raises(UsageError, match=rf"--metrics {metric} needs class probabilities, and wide\.pt gives none"):
        gen(forms / "folder", real, features="wide.pt", metrics=(metric,))


def test_without_a_wish_all_that_can_be_is_measured(gen, forms, real):
    found = gen(forms / "folder", real)
    assert [figure.metric for figure in found.figures] == ["fd", "is", "kid", "precision", "recall", "class-accuracy"]


def test_missing_inception_is_told_in_full(gen, forms, real):
    with pytest.raises(CheckpointError) as told:
        gen(forms / "folder", real, features=None)
    assert all(word in str(told.value) for word in ("no/cache/features", "weights-inception", "https://", "sha256"))
    assert "add --download" in str(told.value)


def test_features_that_are_no_numbers_are_a_sentence(gen, forms, real):
    with pytest.raises(GrnError, match=r"broken\.pt: gives features that are not finite numbers"):
        gen(forms / "folder", real, features="broken.pt")


def test_a_store_needs_its_tokenizer(gen, forms, real):
    with pytest.raises(UsageError, match="is a bit store, whose pictures need --tokenizer RUN"):
        gen(forms / "store", real, tokenizer=None)


@pytest.mark.parametrize("kind", ["store", "array"])
def test_a_size_is_for_media_only(gen, forms, real, kind):
    with pytest.raises(UsageError, match="--size 8"):
        gen(place(forms, kind), real, size="8")


def test_an_empty_folder_is_wrong_usage(grn_inside, real, networks, tmp_path):
    (tmp_path / "empty").mkdir()
    options = ("--reference", real, "--features", networks / "colours.pt", "--workers", 0)
    assert "empty" in one_sentence(grn_inside("eval", "gen", tmp_path / "empty", *options), 2)


# Pictures that cannot be read


@pytest.fixture
def spoilt(real, tmp_path):
    folder = shutil.copytree(real, tmp_path / "spoilt")
    (folder / "ant" / "03.png").write_bytes(b"bad")
    return folder


def test_a_corrupt_picture_is_named_left_out_and_counted(gen, real, spoilt):
    said = []
    found = gen(spoilt, real, said=said)
    assert (found.samples["count"], found.samples["failed"]) == (14, 1)
    assert [text.partition(":")[0].endswith("03.png") for text in said] == [True]


def test_strict_ends_with_it(gen, real, spoilt):
    with pytest.raises(MediaError, match=r"03\.png"):
        gen(spoilt, real, strict=True)


def test_stopping_is_heeded(gen, forms, real):
    with pytest.raises(Unfinished, match="--max-time: stopped after"):
        gen(forms / "folder", real, stop=Stop(max_time=0.0))


# Classes


def test_class_accuracy_is_the_share_of_pictures_in_the_folder_of_their_colour(gen, forms, real, tmp_path):
    samples = shutil.copytree(real, tmp_path / "samples")
    (samples / "ant" / "00.png").rename(samples / "cat" / "00.png")  # red among the blue
    assert gen(samples, forms / "folder").value("class-accuracy") == pytest.approx(14 / 15)


def test_some_of_the_classes_are_compared_by_name(gen, forms, real, tmp_path):
    samples = shutil.copytree(real, tmp_path / "samples")
    shutil.rmtree(samples / "ant")
    assert gen(samples, forms / "folder").value("class-accuracy") == 1


def test_pictures_in_folders_of_other_names_have_no_class_accuracy(gen, forms, real, tmp_path):
    shutil.copytree(real / "ant", tmp_path / "samples" / "00000")
    found = gen(tmp_path / "samples", forms / "folder")
    assert "class-accuracy" not in [figure.metric for figure in found.figures]


def test_a_store_knows_the_classes_that_its_pictures_stand_in(gen, forms, real):
    stored, files = (gen(place(forms, kind), real).value("class-accuracy") for kind in ("store", "folder"))
    assert stored == files


# Costs


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_what_was_sampled_tells_its_steps(gen, forms, real, kind):
    cost = gen(place(forms, kind), real).cost
    assert (cost.samples, cost.steps, cost.mean_steps) == (18, {4: 18}, 4)


def test_costs_are_those_in_the_store(gen, forms, real):
    cost = gen(forms / "store", real).cost
    column = open_store(forms / "store").grid((1, 4, 4)).column("nfe")
    assert cost.nfe == pytest.approx(column.mean())
    assert cost.settings["guidance"] == 2.0


def test_seconds_are_those_logged(gen, forms, real):
    line = json.loads(next((forms / "store").glob("part-*/timing.jsonl")).read_text())
    assert gen(forms / "store", real).cost.seconds == pytest.approx(line["seconds"] / line["samples"])


@pytest.mark.parametrize("kind", ["real", "zip", "array", "statistics"])
def test_other_pictures_have_no_cost(gen, forms, real, kind):
    assert gen(place(forms, kind), real).cost is None


def test_json_has_figures_costs_and_both_sides(grn_inside, forms, real, options):
    done = grn_inside("eval", "gen", forms / "folder", "--reference", real, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = document(done.stdout)
    assert [figure["metric"] for figure in found["figures"]][:2] == ["fd", "is"]
    assert (found["samples"]["count"], found["reference"]["count"], found["cost"]["steps"]) == (18, 15, {"4": 18})


def test_json_has_null_for_what_is_not_defined(grn_inside, forms, real, options):
    done = grn_inside("eval", "gen", forms / "folder", "--reference", real, *options, "--limit", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert Counter(f["value"] for f in document(done.stdout)["figures"])[None] == 3  # KID, precision, recall


def test_the_table_shows_figures_costs_and_the_protocol(grn_inside, forms, real, options):
    done = grn_inside("eval", "gen", forms / "folder", "--reference", real, *options)
    assert done.returncode == 0, done.stderr
    for words in (
        "Fréchet distance",
        "kernel distance",
        "steps a sample",
        "18 samples of 16x16 pixels",
        "colours.pt (sha256",
    ):
        assert words in " ".join(done.stdout.split())


def test_the_page_is_self_contained(grn_inside, forms, real, options, tmp_path):
    page = tmp_path / "r.html"
    done = grn_inside("eval", "gen", forms / "folder", "--reference", real, *options, "--html", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Fréchet distance" in text
    assert "<figcaption>ant/" in text
    assert "http://" not in text
    assert "https://" not in text


@pytest.mark.parametrize("kind", KINDS[:4])
def test_the_samples_furthest_from_real_pictures_are_shown_worst_first(gen, forms, real, kind):
    files = sorted((forms / "folder").rglob("*.png"))
    ours, theirs = ([colour_means(file) for file in side] for side in (files, sorted(real.rglob("*.png"))))
    apart = [min(np.linalg.norm(mine - other) for other in theirs) for mine in ours]
    order = np.argsort(apart)[::-1][:8]
    found = gen(place(forms, kind), real, shows_pictures=True).exhibits
    (worst,) = [exhibit for exhibit in found if exhibit.title == "Furthest from real pictures"]
    assert [float(shown.detail.split()[-1]) for shown in worst.samples] == pytest.approx(
        np.array(apart)[order], rel=1e-3
    )
    for shown, i in zip(worst.samples, order, strict=True):
        assert np.array_equal(shown.pictures[0], np.asarray(Image.open(files[i])))
    if kind == "folder":
        assert [shown.name for shown in worst.samples] == [str(files[i].relative_to(forms / "folder")) for i in order]


def test_pictures_are_read_once_more_only_where_they_are_asked_for(gen, forms, real):
    assert gen(forms / "folder", real).exhibits == []


def colour_means(file):
    return np.asarray(Image.open(file)).astype(np.float32).mean(axis=(0, 1)) / 255


def test_broken_features_are_one_sentence(grn_inside, forms, real, options, networks):
    broken = ("--features", networks / "broken.pt", *options[2:])
    done = grn_inside("eval", "gen", forms / "folder", "--reference", real, *broken)
    assert "not finite" in one_sentence(done, 1)
