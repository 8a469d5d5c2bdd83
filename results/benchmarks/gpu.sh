#!/usr/bin/env bash
# Speed on one GPU, in about ten minutes: univg, lmms-eval's qwen2_vl, vLLM and a plain loop on a
# randomly initialised Qwen2-VL of the 2B model's shape, and the memory and time of its training beside
# the dry run's. Writes gpu.json beside itself; then
# `python results/benchmarks/measuring.py` puts its figures into docs/speed.md.
#
#     results/benchmarks/gpu.sh                            # python of the environment that is active
#     PYTHON=.venv/bin/python VLLM_PYTHON=~/vllm/bin/python results/benchmarks/gpu.sh
#     results/benchmarks/gpu.sh --shape tiny --device cpu --samples 4 --tokens 8 --out /tmp/try.json
#
# vLLM brings its own torch and may live in another environment: VLLM_PYTHON. Where it is not
# installed, its line is left out and the file says why.
set -euo pipefail
cd "$(dirname "$0")"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python=${PYTHON:-python}
exec "$python" gpu.py --vllm-python "${VLLM_PYTHON:-$python}" "$@"
