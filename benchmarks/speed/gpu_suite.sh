#!/usr/bin/env bash
# All that a GPU can show, in one command from a checkout: tests, checkers, benchmarks, counters.
# A stage that fails does not stop the others; the exit status is the number of those that failed.
#   OUT     where results go (benchmarks/results)
#   COMMIT  what is checked out, where the files came without their history
set -u
cd "$(dirname "$0")/../.."
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

out=${OUT:-benchmarks/results}
mkdir -p "$out"
card=$(nvidia-smi --query-gpu=name --format=csv,noheader --id=0 | tr 'A-Z ' 'a-z-')
name="$out/$(date +%F)-${card:-no-gpu}"
log="$name.log"
: >"$log"
failed=()

stage() { # title, seconds at most, command
  local title=$1 limit=$2 began=$SECONDS
  shift 2
  printf '\n==== %s\n' "$title" | tee -a "$log"
  timeout -k 5 "$limit" "$@" 2>&1 | tee -a "$log"
  local status=${PIPESTATUS[0]}
  ((status == 0)) || failed+=("$title (status $status)")
  printf '==== %s: status %s after %s s\n' "$title" "$status" "$((SECONDS - began))" | tee -a "$log"
}

# Warnings of other versions of the libraries are shown and are no failures here.
stage "tests" 150 env DALI_MIXUP_TEST_BACKENDS=numpy,torch,cupy \
  python3 -m pytest -q -W default -p no:cacheprovider -m "" -k "not [host" \
  tests/backends/test_blend.py tests/backends/test_soft_labels.py tests/backends/test_mix.py \
  tests/backends/test_cuda.py

# Every tensor an allocation of its own, so that what lies beside it is nobody's.
for tool in memcheck racecheck initcheck; do
  stage "$tool" 40 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 \
    python3 -m benchmarks.speed.launch_each 5 16 7
done

stage "blend" 170 python3 -m benchmarks.speed.gpu --json "$name-blend.json"

if python3 -c "import nvidia.dali" 2>/dev/null; then
  stage "loader" 90 python3 -m benchmarks.speed.gpu_loader --json "$name-loader.json"
else
  printf '\n==== loader\nDALI is not installed: not measured\n'
fi

stage "loss" 20 python3 -m benchmarks.speed.loss --json "$name-loss.json"
stage "step" 40 python3 -m benchmarks.speed.step --json "$name-step.json"
stage "counters" 30 bash benchmarks/speed/profile_gpu.sh

printf '\n==== %s stages failed\n' "${#failed[@]}"
((${#failed[@]})) && printf '  %s\n' "${failed[@]}"
exit "${#failed[@]}"
