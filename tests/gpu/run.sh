#!/usr/bin/env bash
# Runs everything in the bundle folder that this script lies in (./dev gpu-bundle makes it) on this machine's GPU, in
# less than nine minutes, and leaves results.json, results.md and one log per step.
#   run.sh [--out FOLDER] [--only STEP,STEP...]
# Steps: the kernel tests; the same on small shapes under compute-sanitizer, where there is one; the benchmark; then
# every other reprise-gpu-* program, and every gpu_*.py as `python3 STEP --bundle FOLDER --out FOLDER`.
# A step that ends with 77 was skipped. The exit status is 1 when a step failed. Without a GPU: SKIPPED, and 0.
set -uo pipefail

bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$bundle/results only=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 ;;
    --only) only=,$2, ;;
    *) echo "run.sh: $1 is not known; usage: run.sh [--out FOLDER] [--only STEP,STEP...]" >&2; exit 2 ;;
  esac
  shift 2
done
readonly BUDGET_S=520

test=$bundle/reprise-gpu-test
[ -x "$test" ] || tar -xzf "$bundle/programs.tar.gz" -C "$bundle"
if [ ! -x "$test" ]; then
  echo "run.sh: there is no reprise-gpu-test in $bundle; './dev gpu-bundle' makes the folder to run this in" >&2
  exit 2
fi
[ "$out" = "$bundle/results" ] && rm -rf "$out"  # what an earlier run left
mkdir -p "$out"
out=$(cd "$out" && pwd)
reason=$("$test" --gtest_list_tests --skip-exit=77 2>&1)
if [ $? -eq 77 ]; then
  grep SKIPPED <<<"$reason"
  exit 0
fi

# The libnccl of the Python environment, where the loader finds none: what uses NCCL reads it from here.
if [ -z "${REPRISE_NCCL_LIBRARY:-}" ]; then
  nccl=$(python3 -c 'import nvidia.nccl, os; print(os.path.join(list(nvidia.nccl.__path__)[0], "lib/libnccl.so.2"))' \
    2>/dev/null)
  [ -e "$nccl" ] && export REPRISE_NCCL_LIBRARY=$nccl
fi

names=() states=() seconds=()

# step NAME LIMIT_S COMMAND...
step() {
  local name=$1 limit=$2 left=$((BUDGET_S - SECONDS)) start=$SECONDS code state
  shift 2
  [ -z "$only" ] || [[ $only == *,$name,* ]] || return 0
  if [ "$left" -lt 5 ]; then
    state="not run: the time is used up"
  else
    [ "$limit" -lt "$left" ] || limit=$left
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    case $code in
      0) state=passed ;;
      77) state=skipped ;;
      124 | 137) state="failed: longer than $limit s" ;;
      *) state="failed: exit $code" ;;
    esac
  fi
  names+=("$name") states+=("$state") seconds+=($((SECONDS - start)))
  printf '%-28s %s (%d s)\n' "$name" "$state" $((SECONDS - start))
  [[ $state == failed* ]] && tail -n 25 "$out/$name.log"
  return 0
}

describe_machine() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  echo "cores: $(nproc)"
  grep -m1 'model name' /proc/cpuinfo
  nvcc --version 2>/dev/null | tail -n 1
  python3 -c 'import torch; print("torch", torch.__version__)' 2>/dev/null
  return 0
}

small='*/nhd:*/odd_row_nhd:*/shifted_by_1:*/gaps:*/mla:*/one_chunk:*/ragged_last_section:*/unaligned'
small+=':*/fp8_e4m3_bf16_nhd:*/int8_f16_narrow:*/int4_bf16_nhd:*/int4_f32_narrow:RuntimeGpuTest.EventsOrder*'

export -f describe_machine
step machine 30 bash -c describe_machine
step gpu-test 220 "$test"
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
  for tool in memcheck racecheck; do
    step "$tool" 80 "$sanitizer" --tool "$tool" --error-exitcode 9 "$test" "--gtest_filter=$small"
  done
else
  echo "SKIPPED memcheck and racecheck: there is no compute-sanitizer"
fi
[ -x "$bundle/reprise-gpu-bench" ] && step gpu-bench 120 "$bundle/reprise-gpu-bench" --json "$out/bench.json"
for program in "$bundle"/reprise-gpu-*; do
  case ${program##*/} in
    reprise-gpu-test | reprise-gpu-bench) ;;
    *) step "${program##*/}" 120 "$program" --skip-exit=77 ;;
  esac
done
for script in "$bundle"/gpu_*.py; do
  [ -e "$script" ] || continue
  name=${script##*/}
  step "${name%.py}" 240 python3 "$script" --bundle "$bundle" --out "$out"
done

# ---- Results

{
  echo '{"steps": ['
  for i in "${!names[@]}"; do
    [ "$i" -gt 0 ] && echo ','
    printf '  {"name": "%s", "state": "%s", "seconds": %d}' "${names[i]}" "${states[i]}" "${seconds[i]}"
  done
  printf '\n]'
  for part in "$out"/*.json; do
    name=${part##*/}
    [ -s "$part" ] && [ "$name" != results.json ] && printf ',\n"%s": %s' "${name%.json}" "$(cat "$part")"
  done
  echo '}'
} >"$out/results.json.new"
mv "$out/results.json.new" "$out/results.json"
{
  echo "# Measured $(date -u +%Y-%m-%d)"
  echo
  sed 's/^/    /' "$out/machine.log"
  echo
  echo '| step | state | seconds |'
  echo '|---|---|---:|'
  for i in "${!names[@]}"; do
    echo "| ${names[i]} | ${states[i]} | ${seconds[i]} |"
  done
  for log in "$out"/*.log; do
    grep -q '^|' "$log" || continue
    echo
    grep -v '^$' "$log" | grep -B1 '^|' | sed '/^--$/d; /^|/!s/$/\n/'
  done
} >"$out/results.md"
cat "$out/results.md"
grep -q '| failed' "$out/results.md" && exit 1
exit 0
