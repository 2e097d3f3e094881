#!/bin/sh
# Makes dist/holt-VERSION-TARGET.tar.gz with binary, manual, completions and units, and dist/SHA256SUMS. Called by
# `make dist`; one run for each target that is named, or for the host.
set -eu
cargo=${CARGO:-cargo}
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=dist
mkdir -p "$out"
for target in ${TARGETS:-$host}; do
  if [ "$target" = "$host" ]; then
    $cargo build --release --locked
    binary=${CARGO_TARGET_DIR:-target}/release/holt
  else
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
      echo "skipped $target: its standard library is not installed (rustup target add $target)" >&2
      continue
    fi
    $cargo build --release --locked --target "$target"
    binary=${CARGO_TARGET_DIR:-target}/$target/release/holt
  fi
  name=holt-$version-$target
  dir=$out/$name
  rm -rf "$dir"
  mkdir -p "$dir/completions" "$dir/systemd"
  install -m 0755 "$binary" "$dir/holt"
  cp README.md LICENSE "$dir/"
  # Another machine's binary cannot run here; what it would print is the same.
  own=${CARGO_TARGET_DIR:-target}/release/holt
  [ -x "$own" ] || $cargo build --release --locked
  "$own" man > "$dir/holt.1"
  "$own" completions bash > "$dir/completions/holt.bash"
  "$own" completions zsh > "$dir/completions/_holt"
  "$own" completions fish > "$dir/completions/holt.fish"
  "$own" service install --print --root / > "$dir/systemd/holt.service"
  "$own" service install --agent --print --root / > "$dir/systemd/holt-agent.service"
  # The same input gives the same archive.
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -C "$out" -cf - "$name" \
    | gzip -9n > "$out/$name.tar.gz"
  rm -rf "$dir"
  echo "$out/$name.tar.gz"
done
cd "$out"
sha256sum holt-*.tar.gz > SHA256SUMS
