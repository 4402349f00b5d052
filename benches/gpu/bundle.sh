#!/usr/bin/env bash
# Gathers into one folder all that run.sh needs on a machine with a GPU and neither Rust nor network.
set -euo pipefail
out=${1:?usage: bundle.sh FOLDER}
root=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$out"
mkdir -p "$out/tests" "$out/benches"

cd "$root"
# Test and bench executables, as cargo names them, but for those that open no device or the virtual one alone: they pass or fail where
# they are built.
cargo test --release --workspace --all-targets --no-run --message-format=json 2>/dev/null |
  python3 -c '
import json, sys
hosts = "architectures assembled checks data driver evidence forms fuzz images patterns profile profile_matrix ptx registers robust speed".split()
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") != "compiler-artifact" or not message.get("executable"):
        continue
    kind = message["target"]["kind"][0]
    path, _, version = message["package_id"].partition("#")
    package = version.split("@")[0] if "@" in version else path.rsplit("/", 1)[-1]
    if message["target"]["name"] in hosts or (package, kind) == ("vcuda", "cdylib"):
        continue
    name = "lib" if kind in ("lib", "rlib", "cdylib") else message["target"]["name"]
    if kind == "bench":
        print("benches", f"{package}-{name}", message["executable"])
    elif kind in ("test", "lib", "rlib", "cdylib") and message["profile"]["test"]:
        print("tests", f"{package}-{name}", message["executable"])
' | while read -r kind name path; do
  strip -o "$out/$kind/$name" "$path"
done
strip -o "$out/memo" target/release/memo
strip -o "$out/libvcuda.so" target/release/libvcuda.so
# The programs have much in common, but far apart.
tar -C "$out" -c tests benches memo libvcuda.so | xz --lzma2=preset=4,dict=128MiB >"$out/programs.tar.xz"
rm -r "$out/tests" "$out/benches" "$out/memo" "$out/libvcuda.so"
cp -r assets "$out/assets"
rm -r "$out/assets/cifar-model" # 7 MB, and no part of what is run
mkdir -p "$out/fixtures" && cp -r tests/fixtures/. "$out/fixtures/"
cp benches/gpu/run.sh benches/gpu/cublas.py "$out"
bytes=$(du -sb "$out" | cut -f1)
echo "$out: $((bytes / 1000000)) MB"
[ "$bytes" -lt 40000000 ] || { echo "error: the bundle is over 40 MB" >&2; exit 1; }
