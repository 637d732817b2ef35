#!/bin/sh
# Make the stack's passwords on the first start and keep them afterwards. They are in no file of the project, no environment
# and no log. FOLDER, which this script alone reads, holds all of them. Each folder below FOR is a volume that one service
# mounts, with what that service needs.
# Usage: make-credentials.sh FOLDER FOR
set -eu
umask 077                                # libpq ignores a pgpass that others may read

cd "$1"
make() {                                 # FILE BYTES
  if [ ! -s "$1" ]; then
    od -An -v "-N$2" -tx1 /dev/urandom | tr -d ' \n' > "$1.new"
    mv "$1.new" "$1"
  fi
}
if [ ! -s pgpass ]; then
  make owner-password 24
  printf 'db:5432:mhist:mhist:%s\n' "$(cat owner-password)" > pgpass.new
  mv pgpass.new pgpass
fi
make worker-password 24
make dashboard-role-password 24
make dashboard-password 16

give() {                                 # FILE, from stdin
  cat > "$1.new"
  mv "$1.new" "$1"
}
cd "$2"
cut -d: -f5 "$1/pgpass" | give db/password
chmod 644 db/password                    # the server runs under another user id
give schema/pgpass < "$1/pgpass"
give roles/pgpass < "$1/pgpass"
give roles/worker-password < "$1/worker-password"
give roles/dashboard-password < "$1/dashboard-role-password"
printf 'db:5432:mhist:mhist_worker:%s\n' "$(cat "$1/worker-password")" | give worker/pgpass
printf 'db:5432:mhist:mhist_dashboard:%s\n' "$(cat "$1/dashboard-role-password")" | give dashboard/pgpass
give dashboard/dashboard-password < "$1/dashboard-password"
