"""Which tokenizers go with which text-conditional generators."""

import pytest
import yaml

from grncli.models.text_transformer import TextTransformerConfig
from grncli.runs.generator_recipe import Bits
from grncli.runs.text_releases import FILES, JUNE_TOKENIZERS, MAY_TOKENIZER, RELEASES, TOKENIZERS, require_belonging
from grncli.runtime.errors import StoreMismatch
from grncli.sampling.pictures import load_fitting_tokenizer

MAY, JUNE = RELEASES["text-only"].tokenizers, RELEASES["full"].tokenizers


@pytest.mark.parametrize(
    ("file", "belonging"),
    [
        (MAY_TOKENIZER, MAY),
        (JUNE_TOKENIZERS[0], JUNE),
        (JUNE_TOKENIZERS[1], JUNE),
        ("mine.ckpt", MAY),
        (MAY_TOKENIZER, ()),
    ],
)
def test_a_tokenizer_that_may_belong_is_taken(file, belonging):
    require_belonging("tok", {"file": file}, belonging)


def test_a_tokenizer_that_was_trained_here_is_taken():
    require_belonging("tok", None, MAY)


@pytest.mark.parametrize(("file", "belonging"), [(MAY_TOKENIZER, JUNE), (JUNE_TOKENIZERS[0], JUNE[1:])])
def test_a_tokenizer_of_another_generator_is_refused_with_those_that_belong(file, belonging):
    with pytest.raises(StoreMismatch) as caught:
        require_belonging("tok", {"file": file}, belonging)
    assert str(caught.value) == (
        f"tok was imported from {file}, and the generator learned the bits of {' or '.join(belonging)}; give a run of "
        "that one"
    )


@pytest.mark.parametrize("known", FILES.values(), ids=FILES)
def test_a_known_file_goes_with_tokenizers_of_its_release(known):
    assert set(known.tokenizers) <= set(known.release.tokenizers) <= set(TOKENIZERS)


@pytest.mark.parametrize("file", ["drawn", MAY_TOKENIZER, JUNE_TOKENIZERS[0]])
def test_the_tokenizer_of_samples_is_refused_by_the_name_it_was_imported_from(make_run, tmp_path, file):
    run = make_run(tmp_path / "tok")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "imported": {"file": file}}))
    bits = Bits(tokenizer={}, stride=(2, 4, 4), labels=(), grids={"1x4x4": 0})
    config = TextTransformerConfig(rounds=4, channels=4)
    if file == MAY_TOKENIZER:
        with pytest.raises(StoreMismatch, match=f"was imported from {file}"):
            load_fitting_tokenizer(run, bits, config, belonging=JUNE)
    else:
        assert load_fitting_tokenizer(run, bits, config, belonging=JUNE).run == run
