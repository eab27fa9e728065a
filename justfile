# Short names for what a contributor runs often. Each is one plain command; `just` is a convenience.

default:
    @just --list

# Formatting and lints
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, library examples included
test:
    cargo test --workspace --release

# What has a reference outside this repository: pixels, metrics, arithmetic
parity:
    cargo test --workspace -- golden reference

# Speed of the CPU kernels
bench:
    cargo run --release -p vlm-kernels --example bench_kernels

# vlm and its peers on the same work, in turn (bench/peers/setup.sh installs the peers)
compare *arguments:
    cargo build --release
    bench/compare {{arguments}}

# The libraries' documentation, without warnings
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Reads and writes out of bounds in the kernels' fast paths (nightly)
asan:
    RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo +nightly test --release -p vlm-kernels \
        --target x86_64-unknown-linux-gnu --lib --test kernels

# Undefined behaviour in the portable paths (nightly with miri; slow: name the tests)
miri *tests:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance" \
        RAYON_NUM_THREADS=2 VLM_CPU=portable cargo +nightly miri test -p vlm-kernels --lib --test kernels -- {{tests}}
