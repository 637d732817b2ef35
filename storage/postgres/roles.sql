-- The roles of workers and of the dashboard: they read and write rows, and change neither tables nor roles. Run by the owner
-- of the tables, with psql, before or after the tables are made, and as often as you like. The passwords are in files:
--
--   psql --set worker_file=FILE --set dashboard_file=FILE --file storage/postgres/roles.sql DATABASE
\set ON_ERROR_STOP on
\set QUIET on
\set worker_password `cat :worker_file`
\set dashboard_password `cat :dashboard_file`

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['mhist_worker', 'mhist_dashboard']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE mhist_worker LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'worker_password';
ALTER ROLE mhist_dashboard LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'dashboard_password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO mhist_worker, mhist_dashboard;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mhist_worker, mhist_dashboard;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO mhist_worker, mhist_dashboard;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO mhist_worker, mhist_dashboard;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mhist_worker, mhist_dashboard;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO mhist_worker, mhist_dashboard;
