-- The tables of one journal, schema version 3. {schema} is its schema's quoted name, {meta} its table's name as a string.
--
-- records     what was recorded, by position, without a gap. check: see postgres_rows.py
-- checkpoint  at most one row: the state that replaces the records up to `position`
-- pieces      the checkpoint's pieces
-- idempotency_keys  with their first answer. check: see postgres_rows.py. Named keys up to schema 2: postgres_tables.py
-- meta        exactly one row. born: the history's id; touched: written by whoever wants to know that a write is safe
--
-- Rows go in the order of their positions (records) or of their expiry (keys), so whole pages become free and are used
-- again. Payloads are not compressed: with pglz, an append of 10,000 events took 6 to 9 times as long.
CREATE TABLE {schema}.records (
    position bigint PRIMARY KEY, id bytea NOT NULL, appended_us bigint NOT NULL, "check" bigint NOT NULL,
    payload bytea NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE {schema}.records ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE {schema}.checkpoint (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), id bytea NOT NULL, position bigint NOT NULL,
    record_id bytea NOT NULL, appended_us bigint NOT NULL, state_checksum bigint NOT NULL,
    pieces_checksum bigint NOT NULL, checksum bigint NOT NULL, state bytea NOT NULL
) WITH (autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 200);
ALTER TABLE {schema}.checkpoint ALTER COLUMN state SET STORAGE EXTERNAL;

CREATE TABLE {schema}.pieces (key bigint PRIMARY KEY, checksum bigint NOT NULL, piece bytea NOT NULL)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE {schema}.pieces ALTER COLUMN piece SET STORAGE EXTERNAL;

CREATE TABLE {schema}.idempotency_keys (
    name bytea PRIMARY KEY, digest bytea NOT NULL, answer bytea NOT NULL, expires_us bigint NOT NULL,
    "check" bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX idempotency_keys_by_expiry ON {schema}.idempotency_keys (expires_us);

CREATE TABLE {schema}.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), schema_version integer NOT NULL, born bytea NOT NULL,
    checkpoint_id bytea NOT NULL, touched bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
