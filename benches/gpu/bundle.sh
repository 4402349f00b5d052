#!/usr/bin/env bash
# Gathers into one folder all that run.sh needs on a machine with a GPU and neither Rust nor network.
set -euo pipefail
out=${1:?usage: bundle.sh FOLDER}
root=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$out"
mkdir -p "$out/tests" "$out/benches"

cd "$root"
# Every test and bench executable, as cargo names them.
cargo test --release --workspace --all-targets --no-run --message-format=json 2>/dev/null |
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable"):
        target = message["target"]
        kind = "benches" if "bench" in target["kind"] else "tests" if message["profile"]["test"] else None
        package = message["package_id"].split("#")[0].rsplit("/", 1)[-1]
        if kind: print(kind, package + "-" + target["name"], message["executable"])
' | while read -r kind name path; do
  strip -o "$out/$kind/$name" "$path"
done
strip -o "$out/memo" target/release/memo
strip -o "$out/libvcuda.so" target/release/deps/libvcuda.so
cp -r assets "$out/assets"
mkdir -p "$out/fixtures" && cp -r tests/fixtures/. "$out/fixtures/"
cp benches/gpu/run.sh "$out/run.sh"
bytes=$(du -sb "$out" | cut -f1)
echo "$out: $((bytes / 1000000)) MB"
[ "$bytes" -lt 60000000 ] || { echo "error: the bundle is over 60 MB" >&2; exit 1; }
