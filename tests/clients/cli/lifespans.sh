#!/usr/bin/env bash
# A session of the `nats` CLI with keys that end by themselves: prints what a user sees, the same on every server. $NATS
# is the CLI, $1 the server. Times are masked.
set -uo pipefail
export NATS_URL=$1 LC_ALL=C NO_COLOR=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; jobs -p | xargs -r kill 2>/dev/null' EXIT

mask() {
  sed -E -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+Z?/DATE/g' -e 's/[0-9]+(\.[0-9]+)?(ns|µs|us|ms)\b/DURATION/g' \
    -e 's/\([0-9.]+s\)/(DURATION)/g' \
    -e 's/[0-9]{2}:[0-9]{2}:[0-9]{2}/TIME/g' -e 's/\bN[A-Z2-7]{55}\b/SERVER/g' -e 's/[ \t]+$//'
}
run() {
  echo "\$ nats ${*//$scratch/TMP}"
  timeout 60 "$NATS" --no-context "$@" 2>&1 </dev/null | mask
}
# Waits until a file holds a line so many times.
await() {
  for _ in $(seq 300); do
    [ "$(grep -c -- "$2" "$1" 2>/dev/null)" -ge "$3" ] && return
    sleep 0.05
  done
  echo "not $3 times $2 in $1"; cat "$1"
}

run kv add KEYS --marker-ttl 2s --history 1
run stream info KV_KEYS --json | grep -E '"(allow_msg_ttl|allow_rollup_hdrs|subject_delete_marker_ttl|deny_purge)"'
"$NATS" --no-context kv watch KEYS >"$scratch/watch" 2>&1 & watch=$!
sleep 0.5
run kv create KEYS session token --ttl 1s
run kv put KEYS stays here
run kv create KEYS session again --ttl 1s
# The value's end is seen as a delete, and the key can be created again.
await "$scratch/watch" 'session' 2
run kv get KEYS session
run kv create KEYS session anew
run kv purge KEYS session --force --ttl 1s
run kv get KEYS session --raw
run kv history KEYS stays
sleep 2.5
run kv ls KEYS
# Those with the same number of messages come in an order of chance.
run stream subjects KV_KEYS | grep -oE '[$]KV\.KEYS\.[a-z]+ +│ +[0-9]+' | sort
kill $watch 2>/dev/null
mask <"$scratch/watch"

run stream add LIVES --subjects 'lives.>' --allow-msg-ttl --subject-del-markers-ttl 1m \
  --max-msgs-per-subject 1 --defaults
run stream info LIVES | grep -iE 'marker|TTL|Rollups'
run pub lives.one hello -H Nats-TTL:1s --jetstream
run pub lives.two hello -H Nats-TTL:never --jetstream
run pub lives.three hello -H Nats-TTL:tomorrow --jetstream
for _ in $(seq 200); do
  "$NATS" --no-context stream get LIVES --last-for lives.one 2>&1 | grep -q Marker && break
  sleep 0.05
done
# The tool shows headers in an order of chance.
run stream get LIVES --last-for lives.one | LC_ALL=C sort
run stream subjects LIVES | grep -oE 'lives\.[a-z]+' | sort
run stream edit LIVES --subject-del-markers-ttl 500ms --force | grep error
# The last command is refused, as it must be: its line says so, and the session has gone well.
exit 0
