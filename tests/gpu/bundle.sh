#!/usr/bin/env bash
# Makes the folder that run.sh runs on a machine with a GPU and nothing else of ours.
#   bundle.sh EXECUTABLES WHEELS BUNDLE
# EXECUTABLES is a build's bin folder (preset static: only glibc is needed beside them), WHEELS a folder of wheels.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
executables=$1 wheels=$2 bundle=$3

rm -rf "$bundle"
mkdir -p "$bundle"
for program in reprise reprise-shard reprise-router "$executables"/reprise-gpu-*; do
  cp "$executables/${program##*/}" "$bundle/"
done
[ -x "$bundle/reprise-gpu-test" ] || { echo "bundle.sh: $executables has no reprise-gpu-test" >&2; exit 1; }
for wheel in "$wheels"/*.whl; do
  [ -e "$wheel" ] && cp "$wheel" "$bundle/"
done
cp "$here"/gpu_*.py "$here/bundle_python.py" "$here/../../LICENSE" "$bundle/"
mkdir "$bundle/demo"
cp "$here"/../../client/python/demo/*.py "$bundle/demo/"
cp "$here/run.sh" "$bundle/"
chmod +x "$bundle/run.sh"
# Every program has gRPC inside: packed they are a third. run.sh unpacks them where it runs.
programs=("$bundle"/reprise "$bundle"/reprise-shard "$bundle"/reprise-router "$bundle"/reprise-gpu-*)
tar -C "$bundle" -czf "$bundle/programs.tar.gz" "${programs[@]##*/}"
rm "${programs[@]}"
echo "$bundle"
