"""Real processes with an S3 server: a store is uploaded, trained on and read where it lies, and brought back."""

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_training import metrics

from grncli import copy, open_store
from grncli.store import verify_store
from grncli.transfer.contents import Content
from grncli.transfer.sending import Sender

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

KILLED_AT = 3  # files: the root document is one


@pytest.fixture(scope="module", autouse=True)
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a bucket on a server of this module's own, which all processes find by their environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.get_host_and_port()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        from s3fs import S3FileSystem

        S3FileSystem(skip_instance_cache=True).mkdir("stores")
        yield "s3://stores"
    s3.stop()


@pytest.fixture(scope="module")
def uploaded(bucket: str, grn_inside: Callable, store: Path) -> str:
    done = grn_inside("copy", store, f"{bucket}/bits.zarr", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["present"] == 0
    return f"{bucket}/bits.zarr"


def test_a_training_from_a_bucket_is_that_from_the_local_store(
    uploaded: str, grn: Callable, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    done = grn("train-gen", recipe, uploaded, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run") == metrics(trained)
    weights = "checkpoints/step-00000024/weights.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (trained / weights).read_bytes()


def test_an_upload_is_whole_and_repeating_it_sends_nothing(uploaded: str, grn_inside: Callable, store: Path) -> None:
    assert verify_store(uploaded) == []
    assert open_store(uploaded).digest() == open_store(store).digest()
    done = grn_inside("copy", store, uploaded)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"{uploaded}: nothing to do, 0 files copied, ")


def test_a_store_comes_back_as_it_went(uploaded: str, store: Path, tmp_path: Path, read_tree: Callable) -> None:
    copy(uploaded, tmp_path / "back.zarr")
    found, expected = read_tree(tmp_path / "back.zarr"), read_tree(store)
    locks = {name for name in (*found, *expected) if name.endswith(".lock")}
    for name in locks:
        found.pop(name, None)
        expected.pop(name, None)
    assert found == expected


def test_a_run_goes_to_a_bucket_and_back(bucket: str, grn_inside: Callable, trained: Path, tmp_path: Path) -> None:
    copy(trained, f"{bucket}/runs/one")
    assert copy(trained, f"{bucket}/runs/one").copied == 0
    copy(f"{bucket}/runs/one", tmp_path / "run")
    done = grn_inside("info", tmp_path / "run", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["complete"], facts["step"], facts["problems"]) == (True, 24, [])


def _copy_until_killed(store: Path, place: str) -> None:
    put, begun = Sender._put, []

    def killing(sender: Sender, content: Content) -> Content:
        begun.append(content)
        if len(begun) > KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(sender, content)

    Sender._put = killing  # of this process alone
    copy(store, place)


def test_an_upload_that_is_killed_is_seen_as_unfinished_and_resumes(bucket: str, store: Path) -> None:
    place = f"{bucket}/killed.zarr"
    process = multiprocessing.get_context("fork").Process(target=_copy_until_killed, args=(store, place))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not open_store(place).complete
    assert copy(store, place).present > 0
    assert open_store(place).complete
    assert open_store(place).digest() == open_store(store).digest()
    assert verify_store(place) == []


def test_what_is_not_there_is_one_sentence(
    bucket: str, grn_inside: Callable, recipe: Path, store: Path, tmp_path: Path
) -> None:
    done = grn_inside("train-gen", recipe, f"{bucket}/none.zarr", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"grn: {bucket}/none.zarr: there is no bit store")
    done = grn_inside("copy", store, "s3://no-such-bucket/bits.zarr")
    assert (done.returncode, done.stdout) == (1, "")
    where = "s3://no-such-bucket/bits.zarr/zarr.json"
    assert done.stderr.startswith(f"grn: {where}: cannot be written (there is no such bucket)")


def test_missing_credentials_are_one_sentence(
    bucket: str, grn_inside: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    S3FileSystem.clear_instance_cache()
    done = grn_inside("info", f"{bucket}/bits.zarr")
    S3FileSystem.clear_instance_cache()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"grn: {bucket}/bits.zarr")
    assert "access is denied (Unable to locate credentials); give credentials" in done.stderr
    assert len(done.stderr.splitlines()) == 1
