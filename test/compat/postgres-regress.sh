#!/usr/bin/env bash
# PostgreSQL's own regression suite, directly and through pgkv, on a server of its own: both must differ from what the suite
# expects in the same lines (in none, where contrib's .so files stand in the source folder as well). By hand: it needs the source
# of the installed version, and minutes.
#   tar xf postgresql-15_15.18.orig.tar.bz2 && cd postgresql-15.18/src/test/regress
#   gcc -O2 -fPIC -shared -I../../include -I"$(pg_config --includedir-server)" -o regress.so regress.c
#   npm run build && test/compat/postgres-regress.sh FOLDER/postgresql-15.18/src/test/regress
set -uo pipefail
source=$(cd "${1:?the folder src/test/regress of the source of PostgreSQL}" && pwd)
version=${2:-15}
bin=/usr/lib/postgresql/$version/bin
regress=/usr/lib/postgresql/$version/lib/pgxs/src/test/regress/pg_regress
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
port=28432 router_port=28532 router=
# Postgres refuses root.
if [ "$(id -u)" -eq 0 ]; then as=(setpriv --reuid postgres --regid postgres --clear-groups); else as=(); fi

cleanup() {
  [ -n "$router" ] && kill "$router" 2>/dev/null
  [ -d "$work/data" ] && "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null
  rm -rf "$work"
}
trap cleanup EXIT

sql() { "$bin/psql" -qXAt -h 127.0.0.1 -p "$port" -U postgres -d postgres -c "$1"; }

# A server of its own for each: tests leave roles and settings in the cluster.
start_server() {
  if [ -d "$work/data" ]; then "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null; fi
  rm -rf "$work/data" && mkdir "$work/data"
  if [ "$(id -u)" -eq 0 ]; then chown postgres "$work/data"; fi
  "${as[@]}" "$bin/initdb" -D "$work/data" -A trust --no-sync --locale=C -E UTF8 -U postgres >/dev/null
  "${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/data/log" -w start >/dev/null \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=200"
}

# play LABEL PORT
play() {
  sql 'CREATE DATABASE regression TEMPLATE template0'
  for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" "bytea_output TO 'hex'" \
    "timezone_abbreviations TO 'Default'"; do
    sql "ALTER DATABASE regression SET $setting"
  done
  mkdir "$work/$1" && chmod 777 "$work/$1"
  (cd "$source" && "${as[@]}" env PGTZ=PST8PDT PGDATESTYLE='Postgres, MDY' "$regress" --use-existing --host=127.0.0.1 \
    --port="$2" --user=postgres --dbname=regression --inputdir="$source" --outputdir="$work/$1" --dlpath="$source" \
    --bindir="$bin" --max-concurrent-tests=20 --schedule="$source/parallel_schedule") >"$work/$1.out" 2>&1
  echo "$1: $(grep -c ' ok  *[0-9]' "$work/$1.out") as expected, $(grep -c FAILED "$work/$1.out") not"
  grep -vE '^(---|\+\+\+|diff) ' "$work/$1/regression.diffs" >"$work/$1.diffs" 2>/dev/null || : >"$work/$1.diffs"
}

chmod 755 "$work"
start_server
play plain "$port"
start_server
cat >"$work/pgkv.toml" <<TOML
[[shards]]
name = "s1"
[[shards.nodes]]
host = "127.0.0.1"
port = $port
[servers]
tls = "disable"
[auth]
method = "trust"
[auth.service]
user = "postgres"
[http]
port = 0
[listen]
port = $router_port
TOML
node "$root/dist/cli.js" start --config "$work/pgkv.toml" >"$work/ready" 2>"$work/log" &
router=$!
until grep -q '^pgkv ready' "$work/ready"; do kill -0 "$router" || { cat "$work/log"; exit 1; }; sleep 0.1; done
play pgkv "$router_port"
if diff "$work/plain.diffs" "$work/pgkv.diffs"; then echo 'pgkv answers as Postgres does'; else exit 1; fi
