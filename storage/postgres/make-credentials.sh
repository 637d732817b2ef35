#!/bin/sh
# Make the database's password on the first start and keep it afterwards. It is in no file of the project, no environment
# and no log. FOLDER is a volume that only the services of the stack mount.
# Usage: make-credentials.sh FOLDER     writes FOLDER/pgpass (libpq's PGPASSFILE), FOLDER/password (for the server) and
#                                       FOLDER/dashboard-password (for the web pages)
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
chmod 644 password.new                   # the server runs under another user id
mv password.new password
