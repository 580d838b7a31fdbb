#!/usr/bin/env bash
# The long form of the kill and power-cut tests.
#
#   tests/soak/run.sh [--rounds N] [--kind kill-nats,stop-sender,…] [--seed N] [--again]
#
# Each kind is one test with its own installation, disturbed N times under load; at its end all that was
# in doubt is waited for. A kind that has passed with so many rounds is not run again until --again.
# STAFFETTA_BIN names the binary to test, else it is target/release/staffetta.
set -euo pipefail
cd "$(dirname "$0")/../.."

kinds=(kill-ingress kill-signer kill-scheduler kill-sender kill-feedback kill-all-in-one
    kill-all-services-at-once kill-nats kill-one-of-three-nats-servers kill-redis replace-redis-by-its-replica stop-sender-in-the-middle-of-transactions
    stop-scheduler-beyond-its-lease kill-a-scheduler-and-its-partitions-are-taken-over kill-sender-at-every-stage power-cut)
rounds=20 wanted= seed=$((RANDOM * 32768 + RANDOM)) again=
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --kind) wanted=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --again) again=yes; shift ;;
    *) echo "soak: unknown argument $1" >&2; exit 2 ;;
    esac
done

passed=target/soak
mkdir -p "$passed"
# Copies: a soak takes hours, and what is built meanwhile must not change what it tests.
cargo build --quiet -p tests --examples
built=$(cargo test --no-run -p tests --test it 2>&1 | sed -n 's/^ *Executable .* (\(.*\))$/\1/p')
install "$built" "$passed/it"
install "${STAFFETTA_BIN:-target/release/staffetta}" "$passed/staffetta"
export SOAK_ROUNDS=$rounds SOAK_SEED=$seed STAFFETTA_BIN=$PWD/$passed/staffetta

# Runs one kind with its output in the log; its closing line, with the figures, goes to the mark.
run_kind() {
    local kind=$1 log=$2 mark=$3
    case $kind in
    power-cut)
        tests/powercut/get.sh >"$log" 2>&1 &&
            .servers/python/bin/python tests/powercut/run.py --mode all --rounds "$rounds" --seed "$seed" >>"$log" 2>&1 &&
            grep -E '^powercut: ok' "$log" >"$mark"
        ;;
    kill-sender-at-every-stage)
        "$passed/it" --exact stages::kill_sender_at_every_stage --nocapture >"$log" 2>&1 &&
            grep -E '^seed ' "$log" >"$mark"
        ;;
    *)
        "$passed/it" --exact "kill::${kind//-/_}" --nocapture >"$log" 2>&1 &&
            grep -E '^seed ' "$log" >"$mark"
        ;;
    esac
}

failed=()
[ -z "$wanted" ] || IFS=, read -ra kinds <<<"$wanted"
for kind in "${kinds[@]}"; do
    mark=$passed/$kind.$rounds
    if [ -z "$again" ] && [ -e "$mark" ]; then
        echo "soak: $kind has passed before: $(cat "$mark")"
        continue
    fi
    echo "soak: $kind, $rounds rounds, seed $seed"
    if run_kind "$kind" "$passed/$kind.log" "$mark"; then
        cat "$mark"
    else
        rm -f "$mark"
        failed+=("$kind")
        tail -n 15 "$passed/$kind.log"
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "soak: FAILED ${failed[*]}"
    exit 1
fi
echo "soak: ok"
