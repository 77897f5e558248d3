"""The examples of the documentation run, one after the other, as they stand."""

import runpy
from pathlib import Path

PROJECT = Path(__file__).parents[1]
EXAMPLES = PROJECT / "docs" / "examples"
# In an order in which each finds what it needs, with what it says of what it made.
PRINTED = {
    "train_tokenizer": [
        "step 10: loss",
        "20 steps added, now at step 20: runs/tokenizer",
        "a token of (1, 8, 8) pixels",
    ],
    "tokenize_pictures": ["240 of 240 sources", "240 samples, 240 of them new", "(3, 1, 4, 4, 2, 2)", "0 samples made"],
    "load_bits": ["torch.Size([32, 2, ", "torch.uint8 torch.Size([32])", "after 7 batches", "3 batches are left"],
    "measure_bits": ["240 samples", "4 rounds: 24.0x smaller", "continuous: "],
    "decode_bits": ["48 files in decoded, PSNR ", "[2, 3, 1, 32, 32]"],
    "train_generator": ["runs/generator is trained to step 10", "Run the same command again to resume."],
    "sample_pictures": ["4 samples in samples", "samples/samples.zarr", "[2, 16, 1, 4, 4]"],
    "encode_prompts": [
        "241 of 241 distinct prompts",
        "runs/text is trained to step 4",
        "2 samples in drawn",
        "2 files of 1 prompt; 4 samples a prompt expected by GenEval, found 2",
        "captions of 1 of 240 sources replaced",
    ],
    "evaluate_samples": [
        "4 rounds: PSNR",
        "shapes.npz: statistics of 240 features",
        "10.0 NFE a sample",
        "warning: samples has 4 feature vectors",
        "best of 2: {'temperature':",
    ],
}


def test_the_examples_run_one_after_the_other_as_they_stand(tmp_path, monkeypatch, capsys):
    assert PRINTED.keys() == {path.stem for path in EXAMPLES.glob("*.py")}
    (tmp_path / "recipes").symlink_to(PROJECT / "recipes")
    monkeypatch.chdir(tmp_path)
    for name, words in PRINTED.items():
        runpy.run_path(str(EXAMPLES / f"{name}.py"))
        printed = capsys.readouterr().out
        missing = [text for text in words if text not in printed]
        assert not missing, f"{name}: {printed}"
    assert len(list((tmp_path / "samples").rglob("*.png"))) == 4
