#!/usr/bin/env bash
# A session of the `nats` CLI: prints what a user sees, the same on every server. $NATS is the CLI, $1 the server.
# What may differ (times, ids, byte counts that depend on the time of day) is masked.
set -uo pipefail
export NATS_URL=$1 LC_ALL=C NO_COLOR=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; jobs -p | xargs -r kill 2>/dev/null' EXIT

mask() {
  sed -E -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+Z?/DATE/g' -e 's/[0-9]+(\.[0-9]+)?(ns|µs|us|ms|s)\b/DURATION/g' \
    -e 's/[0-9]{2}:[0-9]{2}:[0-9]{2}/TIME/g' -e 's/_INBOX\.[A-Za-z0-9.]+/INBOX/g' -e 's/\bN[A-Z2-7]{55}\b/SERVER/g' -e 's/[ \t]+$//'
}
run() {
  echo "\$ nats ${*//$scratch/TMP}"
  timeout 60 "$NATS" --no-context "$@" 2>&1 </dev/null | mask
}
# Waits until a file holds a text.
await() {
  for _ in $(seq 200); do grep -q -- "$2" "$1" 2>/dev/null && return; sleep 0.05; done
  echo "no $2 in $1"; cat "$1"
}

"$NATS" --no-context sub 'news.>' --count 3 >"$scratch/sub" 2>&1 & sub=$!
await "$scratch/sub" 'Subscribing'; sleep 0.3
run pub news.today 'first {{.Count}}' --count 2
run pub news.tomorrow -H Lang:en 'second'
wait $sub; mask <"$scratch/sub"

"$NATS" --no-context sub jobs --queue team --count 1 >"$scratch/q" 2>&1 & q=$!
await "$scratch/q" 'Subscribing'; sleep 0.3
run pub jobs one
wait $q; mask <"$scratch/q" | grep -v '^$'

"$NATS" --no-context reply help 'you asked: {{.Request}}' --count 1 >"$scratch/reply" 2>&1 & reply=$!
await "$scratch/reply" 'Listening'; sleep 0.3
run request help why | grep -v Received
wait $reply
run request nobody there

run stream add ORDERS --subjects 'orders.>' --defaults
for n in 1 2 3 4 5 6; do run pub "orders.$((n % 2))" "order $n" --jetstream; done
run stream ls --names
run stream info ORDERS | grep -vE 'Created|Time|Bytes'
run stream info ORDERS --json | grep -E '"(messages|bytes|first_seq|last_seq|num_subjects|consumer_count|storage|retention|max_age|duplicate_window|discard)"'
# The tool shows subjects with the same number of messages in an order of chance.
run stream subjects ORDERS | grep -oE 'orders\.[0-9] +│ +[0-9]+' | sort
run stream get ORDERS 3
run stream get ORDERS --last-for orders.1
run stream rmm ORDERS 2 --force
run stream purge ORDERS --subject orders.0 --force | grep -E 'Messages|Sequence'
run stream edit ORDERS --description changed --force | grep -E '^ +Description'
run stream report | grep ORDERS
run consumer add ORDERS pull --pull --defaults
run consumer next ORDERS pull --count 2
run consumer info ORDERS pull | grep -E 'Acks|Pending|Unprocessed|Outstanding|Redelivered|Waiting|Policy|Name'
run consumer ls ORDERS --names
run consumer add ORDERS push --target to.me --defaults --ack explicit
"$NATS" --no-context sub to.me --count 3 >"$scratch/push" 2>&1 & push=$!
wait $push; mask <"$scratch/push" | grep -E 'Received|order' | sed -E 's/reply.*//'
run consumer rm ORDERS push --force
run consumer report ORDERS | grep pull
run stream rm ORDERS --force
run stream info ORDERS

run kv add SETTINGS --history 5
run kv put SETTINGS colour red
run kv put SETTINGS colour green
run kv create SETTINGS size 9
run kv create SETTINGS size 10
run kv update SETTINGS colour blue 2
run kv update SETTINGS colour never 2
run kv get SETTINGS colour --raw
run kv history SETTINGS colour
run kv ls SETTINGS
"$NATS" --no-context kv watch SETTINGS >"$scratch/watch" 2>&1 & watch=$!
await "$scratch/watch" 'size'
run kv del SETTINGS size --force
run kv purge SETTINGS colour --force
await "$scratch/watch" 'PURGE'
kill $watch; wait $watch 2>/dev/null; mask <"$scratch/watch"
run kv get SETTINGS size
run kv info SETTINGS | grep -E 'Bucket|History|Values|Keys'
run kv rm SETTINGS --force

head -c 3000000 /dev/zero | tr '\0' 'x' >"$scratch/file"
run object add FILES
(cd "$scratch" && run object put FILES file --no-progress | grep -vE 'Modification|^$')
run object put FILES "$scratch/file" --name renamed --no-progress | grep -vE 'Modification|^$'
run object ls FILES
run object get FILES renamed --output "$scratch/back" --no-progress --force | grep -v Wrote
cmp "$scratch/file" "$scratch/back" && echo "same bytes"
run object info FILES renamed | grep -vE 'Modification|^$'
run object rm FILES renamed --force
run object ls FILES
run object rm FILES --force

run account info | grep -E 'Streams|Consumers|Memory:|Storage:' | head -6
run rtt --json | grep -cE 'rtt|time' | head -1
