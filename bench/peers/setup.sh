#!/usr/bin/env bash
# Installs the peers into a virtual environment: bench/peers/setup.sh [VENV], by default target/peers-venv.
# Needs Python 3.10 or newer, a C++ compiler and about 10 GB of disk (the default torch brings its GPU libraries).
# What cannot be installed is reported and left out; bench/compare records it as a failure.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=$(realpath -m "${1:-target/peers-venv}")

[ -x "$venv/bin/python" ] || python3 -m venv "$venv" || exit 1
grep -v '^#' bench/peers/requirements.txt | while read -r package; do
    "$venv/bin/pip" install --quiet "$package" || echo "setup: $package: not installed" >&2
done

# The same source twice: with everything the processor has, and without AMX (whose path crashed on one machine).
without_amx="-DGGML_NATIVE=OFF"
if grep -qw avx2 /proc/cpuinfo; then
    without_amx+=" -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
fi
if grep -qw avx512bw /proc/cpuinfo; then
    without_amx+=" -DGGML_AVX512=ON"
fi
if grep -qw avx512_vnni /proc/cpuinfo; then
    without_amx+=" -DGGML_AVX512_VNNI=ON"
fi
if grep -qw avx512_bf16 /proc/cpuinfo; then
    without_amx+=" -DGGML_AVX512_BF16=ON"
fi
build_llama() {
    [ -d "$venv/$1/llama_cpp" ] && return
    PATH="$venv/bin:$PATH" CMAKE_ARGS="$2" "$venv/bin/pip" install --quiet --no-deps --no-cache-dir \
        --no-binary llama-cpp-python --target "$venv/$1" llama-cpp-python ||
        echo "setup: $1: not built" >&2
}
build_llama llama-native "-DGGML_NATIVE=ON"
build_llama llama-noamx "$without_amx"

"$venv/bin/python" bench/peers/models.py "$venv/models"
