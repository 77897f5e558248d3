#!/usr/bin/env bash
# From nothing to bits, samples and a report, on moving shapes that grn draws itself: bash recipes/demo.sh [DIR], demo by default.
# Every step is skipped when it is done and goes on where it was interrupted.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-demo}
venv=${GRN_VENV:-$project/.venv}
"$project/.ci/setup" "$venv"
PATH=$venv/bin:$PATH
set -x
grn shapes "$out/shapes" --images 512 --clips 64
grn train-tokenizer "$project/recipes/tokenizer-shapes.yaml" --data "$out/shapes" --out "$out/tokenizer" --dtype auto
grn tokenize "$out/shapes" "$out/bits.zarr" --tokenizer "$out/tokenizer" --size 32 --labels dirs
grn info "$out/bits.zarr" --verify
grn decode "$out/bits.zarr" "$out/decoded" --tokenizer "$out/tokenizer" --compare "$out/shapes" --sheet "$out/sheet.png"
# A generator of the pictures, too small and too briefly trained to be good, but of every stage.
grn tokenize "$out/shapes/images" "$out/images.zarr" --tokenizer "$out/tokenizer" --size 32 --labels dirs
grn train-gen "$project/recipes/c2i-small-ind.yaml" "$out/images.zarr" --out "$out/generator" data.batch=16 training.steps=250 --dtype auto
grn sample "$out/generator" "$out/samples" --tokenizer "$out/tokenizer" --steps 20 --temperature 0.8 --sheet "$out/samples.png"
grn eval recon "$out/shapes/images" --tokenizer "$out/tokenizer" --size 32
grn eval gen "$out/samples" --reference "$out/shapes/images" --size 32 --features "$out/tokenizer"
