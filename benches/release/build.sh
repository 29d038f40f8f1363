#!/bin/bash
# A release build that is guided by a profile: built once to count which of its code statements run, and once more with what was
# counted, so that this code lies together and is laid out for the way that it is gone through. Leaves target/guided/release/pgherd.
# Takes two builds and a minute. Without the compiler's own llvm-profdata (rustup component add llvm-tools) it says so and ends
# with status 2.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools() {
    ls "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata 2>/dev/null
}
if ! tools >/dev/null && command -v rustup >/dev/null; then
    rustup component add llvm-tools
fi
profdata=$(tools) || {
    echo "llvm-profdata of this compiler is missing. With rustup: rustup component add llvm-tools" >&2
    echo "Without it: cargo build --release, which costs some percent more CPU time per statement (benches/README.md)" >&2
    exit 2
}

guided=$PWD/target/guided
rm -rf "$guided/profile"
mkdir -p "$guided/profile"
# With all options of the release build: names in the program, by which what was counted is found again, depend on them. What runs
# while it is built (build scripts, macros) counts as well, for nobody.
LLVM_PROFILE_FILE=/dev/null RUSTFLAGS="-Cprofile-generate" cargo build --release --target-dir "$guided/counting"
benches/release/train.py --pgherd "$guided/counting/release/pgherd" --out "$guided/profile"
"$profdata" merge -o "$guided/profile/merged.profdata" "$guided"/profile/*.profraw
# cargo does not look into the profile: what was built by an older one would stay.
rm -rf "$guided/release"
RUSTFLAGS="-Cprofile-use=$guided/profile/merged.profdata" cargo build --release --target-dir "$guided"
