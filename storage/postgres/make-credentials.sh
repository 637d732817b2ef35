#!/bin/sh
# Makes the database's password on the first start and keeps it from then on, so that it stands in no file of the
# project, no environment and no log. FOLDER is a volume of its own, which only the services of the stack see.
# Usage: make-credentials.sh FOLDER     writes FOLDER/pgpass (libpq's PGPASSFILE), FOLDER/password (for the server) and
#                                       FOLDER/dashboard-password (what the web pages ask for)
set -eu
umask 077                                # libpq ignores a pgpass that others may read
cd "$1"
if [ ! -s pgpass ]; then
  printf 'db:5432:mhist:mhist:%s\n' "$(od -An -v -N24 -tx1 /dev/urandom | tr -d ' \n')" > pgpass.new
  mv pgpass.new pgpass
fi
if [ ! -s dashboard-password ]; then
  od -An -v -N16 -tx1 /dev/urandom | tr -d ' \n' > dashboard-password.new
  mv dashboard-password.new dashboard-password
fi
cut -d: -f5 pgpass > password.new
chmod 644 password.new                   # the server runs under a user id that this image does not know
mv password.new password
