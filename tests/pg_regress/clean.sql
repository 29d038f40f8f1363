-- Removes what a script leaves outside of its database. Run in `regression`; ends in `postgres`. Errors are no matter here:
-- that the database is gone is checked.

SET client_min_messages = error;
ROLLBACK;
SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database() \gexec
SELECT format('ALTER SUBSCRIPTION %I DISABLE', subname) FROM pg_subscription \gexec
SELECT format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname) FROM pg_subscription \gexec
SELECT format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription \gexec
\connect postgres
SET client_min_messages = error;
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE 'regress%' \gexec
SELECT format('DROP OWNED BY %I CASCADE', rolname) FROM pg_roles WHERE rolname LIKE 'regress%' \gexec
SELECT format('DROP TABLESPACE %I', spcname) FROM pg_tablespace
    WHERE spcname LIKE 'regress%' AND spcname <> 'regress_tblspace' \gexec
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname LIKE 'regress%' \gexec
SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin;
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name NOT LIKE 'standby%';
ALTER ROLE postgres RESET ALL;
-- One script drops the tablespace that all use.
SET allow_in_place_tablespaces = on;
SELECT 'CREATE TABLESPACE regress_tblspace LOCATION ''''' WHERE NOT EXISTS
    (SELECT FROM pg_tablespace WHERE spcname = 'regress_tblspace') \gexec
