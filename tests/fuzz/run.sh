#!/usr/bin/env bash
# Fuzzes the C core for SECONDS (600), by libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer. Needs clang.
# What it has learned stays in build/fuzz/corpus; an input that breaks something is left in build/fuzz.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang > /dev/null || { echo "make fuzz needs clang: apt-get install clang libclang-rt-dev" >&2; exit 2; }
mkdir -p build/fuzz/corpus
.venv/bin/python tests/fuzz/seeds.py build/fuzz/seeds
sources=$(ls ffcv_datasets/_decode/*.c | grep -v -e module.c -e pool.c)
clang -g -O1 -std=gnu11 -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -fprofile-instr-generate -fcoverage-mapping \
    -Iffcv_datasets/_decode tests/fuzz/decode_fuzzer.c $sources -ljpeg -lm -pthread -o build/fuzz/decode_fuzzer
cd build/fuzz
LLVM_PROFILE_FILE=fuzz.profraw ./decode_fuzzer corpus seeds -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -max_total_time="${SECONDS_TO_RUN:-600}" "$@" 2>&1 | tee fuzz.log | grep -v -e REDUCE -e "NEW "
profdata=$(ls /usr/bin/llvm-profdata* 2> /dev/null | head -1 || true)
if [ -n "$profdata" ]; then
    "$profdata" merge -sparse fuzz.profraw -o fuzz.profdata
    "${profdata/profdata/cov}" report ./decode_fuzzer -instr-profile=fuzz.profdata
fi
