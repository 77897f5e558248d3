#!/usr/bin/env bash
# From nothing to samples and what they are worth, on shapes that grn draws itself: bash recipes/demo.sh [DIR], demo by default.
# Every step is skipped when it is done, and resumed where it was interrupted.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-demo}
venv=${GRN_VENV:-$project/.venv}
"$project/.ci/setup" "$venv"
PATH=$venv/bin:$PATH
set -x
# Drawings of 48 classes, and others that no network is trained on
grn shapes "$out/shapes" --images 7200 --clips 0
grn shapes "$out/held-out" --images 960 --clips 0 --seed 1
# Drawings to bits: 16 tokens of 16 channels x 4 rounds
grn train-tokenizer "$project/recipes/tokenizer-shapes.yaml" --data "$out/shapes/images" --out "$out/tokenizer" --dtype auto
grn tokenize "$out/shapes/images" "$out/bits.zarr" --tokenizer "$out/tokenizer" --size 32 --labels dirs
grn info "$out/bits.zarr" --verify
# Bits back to drawings
grn tokenize "$out/held-out/images" "$out/held-out.zarr" --tokenizer "$out/tokenizer" --size 32 --labels dirs
grn decode "$out/held-out.zarr" "$out/decoded" --tokenizer "$out/tokenizer" --compare "$out/held-out/images" --sheet "$out/decoded.png"
# From noise to bits to pictures
grn train-gen "$project/recipes/c2i-small-ind.yaml" "$out/bits.zarr" --out "$out/generator" --dtype float32 \
    network.depth=4 network.in_context_start=1 data.batch=32 optimization.learning_rate=3e-3 training.steps=2000
grn sample "$out/generator" "$out/samples" --tokenizer "$out/tokenizer" --steps 20 --temperature 0.8 \
    --guidance 3 --guidance-interval 0.2:1
# In how many a classifier that has only seen drawings finds colour and shape
if [ ! -e "$out/classifier.pt" ]; then
    python "$project/recipes/feature_network.py" "$out/shapes/images" "$out/classifier.pt" --test "$out/held-out/images"
fi
measure=(--reference "$out/held-out/images" --features "$out/classifier.pt" --metrics class-accuracy --json)
grn eval gen "$out/held-out/images" "${measure[@]}" >"$out/held-out.json"
grn eval gen "$out/decoded" "${measure[@]}" >"$out/decoded.json"
grn eval gen "$out/samples" "${measure[@]}" >"$out/samples.json"
{ set +x; } 2>/dev/null
python "$project/recipes/demo_report.py" "$out"
