#!/bin/sh
# Fuzzes the decoders of what others send: tests/fuzz/run.sh [seconds per target, 60 by default [targets, all by default]]
#
# What is found stays in target/fuzz/artifacts; what was learnt, in target/fuzz/corpus, so that the
# next run goes on from there. The compiler is the stable one: coverage needs RUSTC_BOOTSTRAP, and
# there is no sanitizer, since the code under test has no unsafe blocks.
set -eu

seconds=${1:-60}
case $seconds in
    '' | *[!0-9]*)
        echo "usage: $0 [seconds per target [targets]]" >&2
        exit 2
        ;;
esac

fuzz=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$fuzz/../.." && pwd)
work=$root/target/fuzz

"$fuzz/get.sh"

export RUSTC_BOOTSTRAP=1
cd "$root"
for target in ${2:-$(ls "$fuzz/seeds")}; do
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    echo "== $target: $seconds s"
    cargo fuzz run --fuzz-dir "$fuzz" --target-dir "$work" --sanitizer none "$target" \
        "$work/corpus/$target" "$fuzz/seeds/$target" \
        -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
        -dict="$fuzz/smtp.dict" -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1
done
