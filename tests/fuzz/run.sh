#!/bin/bash
# Runs the fuzz targets under libFuzzer with AddressSanitizer, one after the other. SECONDS_EACH: how long each (180).
# Arguments: the targets, else all. Inputs are kept in target/fuzz/corpus; what fails is in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../.."

# libFuzzer needs flags of the compiler that a stable one has only when it is told to act as nightly.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$PWD/target/fuzz"
PATH="$PWD/target/tools/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --root target/tools --target-dir target/tools/build

work=target/fuzz
# What a fuzzer would need long to find: whole statements, a startup packet, lines of files.
seeds() {
    local folder=$work/corpus/$1
    mkdir -p "$folder" "$work/artifacts/$1"
    case $1 in
    lexer | analyze)
        for script in select copy2 plpgsql transactions prepare jsonb; do
            awk -v RS=';' -v out="$folder/$script" 'NR <= 120 { printf "%s", $0 > (out NR); close(out NR) }' \
                "tests/data/pg_regress/$script.sql"
        done ;;
    startup)
        printf '\0\0\0\x21\0\3\0\0user\0postgres\0database\0d\0\0' >"$folder/plain"
        printf '\0\0\0\x08\4\xd2\x16\x2f' >"$folder/ssl" ;;
    hba)
        printf 'local all all trust\nhostssl "a b",+c /^d samenet scram-sha-256 clientcert=verify-full\n' >"$folder/lines"
        printf 'host all all ::1/128 md5\nhost all u 10.0.0.0 255.0.0.0 reject\n@x\ninclude y\n' >"$folder/more" ;;
    pcp)
        printf 'M\0\0\0\4R\0\0\0\51pcpu\0%s\0I\0\0\0\7-1\0' "$(printf 0 | md5sum | cut -c1-31)" >"$folder/login"
        printf 'J\0\0\0\0101 \0s#\0\0\0\30{"command":"overview"}X\0\0\0\4' >"$folder/requests"
        printf 'pcpu:5ebe2294ecd0e0f08eab7690d2a6ee69\n' >"$folder/file" ;;
    watchdog)
        local message='{"incarnation":1,"number":1,"heard":0,"digest":7,"state":"Standby","term":0,"priority":1,"fitness":{"trusted":true,"primary":true,"nodes":1},"sights":[[0,"Alive"]],"promised":0,"shared":[0,0],"part":'
        local parts=('"Beat"' '{"Claim":{"kind":"Elect","term":513,"seq":9,"prepare":5}}' '"Bye"' '{"Yield":[257,2]}'
            '{"Verdict":{"kind":"Probe","term":513,"seq":9,"granted":true,"hold":1250,"wait":0}}'
            '{"Settings":{"watchdog.virtual_ip":"192.0.2.11"}}'
            '{"Shared":{"version":[257,3],"epoch":4,"claimed":5,"body":"{}"}}')
        for part in "${!parts[@]}"; do printf '0\n1%s%s}\n\3752%s%s}\n' "$message" "${parts[part]}" "$message" "${parts[part]}" >"$folder/$part"; done
        printf '!{"Ask":{"number":1,"errand":"Reload","who":"a"}}' >"$folder/ask"
        printf '!{"Cancel":{"session":1,"proof":[%s0]}}' "$(printf '0,%.0s' {1..31})" >"$folder/cancel"
        printf '!{"Report":{"wall":1,"echo":[1,2],"leader":"a","term":1,"epoch":2,"holds_ip":true}}' >"$folder/report"
        printf '!{"Told":{"number":7,"answer":{"Err":"no"}}}' >"$folder/told" ;;
    users)
        printf 'u:md50123456789abcdef0123456789abcdef\np:TEXTsecret\n' >"$folder/lines"
        printf 'SCRAM-SHA-256$4096:c2FsdA==$%044d:%044d' 0 0 >"$folder/verifier" ;;
    esac
}

if [ $# = 0 ]; then
    set -- startup client_auth server_auth hba users lexer analyze pcp watchdog
fi
for target; do
    seeds "$target"
    echo "== $target"
    nice cargo fuzz run --fuzz-dir tests/fuzz "$target" "$PWD/$work/corpus/$target" -- -max_total_time="${SECONDS_EACH:-180}" \
        -timeout=20 -print_final_stats=1 -artifact_prefix="$PWD/$work/artifacts/$target/" 2>&1 |
        grep -E '^stat::|DONE|ERROR|SUMMARY|panicked|Test unit|INITED'
done
