-- Appends a group of records, all or none, under the write lock: that makes positions rise in the order of commits.
--
-- clock_us: the time, NULL for the server's. settled_us: keys that expired by then are unknown. names and the four
-- arrays beside it are NULL where no record has a key; otherwise they have an element for each record, NULL where it
-- has none. payload: NULL for an answer without a record. known_at, known_id: a record that the caller knows, 0 for none;
-- stands: whether it is there still, or was compacted.
-- Gives for each record its position (NULL: nothing was recorded) and, for a known key, what is kept under it. Known
-- keys only: `meta` is touched, so that COMMIT waits until a standby has what stands under them.
CREATE OR REPLACE FUNCTION {schema}.{append}(
    given_us bigint, settled_us bigint, ids bytea[], contents bigint[], payloads bytea[], names bytea[],
    digests bytea[], answers bytea[], lives_us bigint[], checks bigint[], known_at bigint, known_id bytea,
    OUT at bigint, OUT now_us bigint, OUT history bytea, OUT stands boolean, OUT kept_digest bytea, OUT kept_answer bytea,
    OUT kept_us bigint, OUT kept_check bigint
) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    last_at bigint;
    last_us bigint;
    before bigint;
    clock_us bigint;
    version integer;
    written boolean := false;
    inserted bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1937006964, {meta}::regclass::oid::integer);
    SELECT r.position, r.appended_us INTO last_at, last_us FROM {schema}.records r ORDER BY r.position DESC LIMIT 1;
    IF last_at IS NULL THEN
        SELECT c.position, c.appended_us INTO last_at, last_us FROM {schema}.checkpoint c;
        last_at := coalesce(last_at, 0);
        last_us := coalesce(last_us, 0);
    END IF;
    SELECT m.born, m.schema_version INTO STRICT history, version FROM {schema}.meta m;
    IF version <> {version} THEN -- it was upgraded while this call waited for the lock
        RAISE undefined_function USING MESSAGE = 'another version has upgraded this journal';
    END IF;
    -- Tools that restore a dump fill a table before it gets its key: what was recorded meanwhile would have the
    -- positions of records that are still to come.
    IF to_regclass('{schema}.records_pkey') IS NULL THEN
        RAISE SQLSTATE '{no_key}' USING MESSAGE = 'no primary key';
    END IF;
    stands := known_at = 0 OR EXISTS (SELECT 1 FROM {schema}.records r WHERE r.position = known_at AND r.id = known_id)
        OR EXISTS (SELECT 1 FROM {schema}.checkpoint c WHERE c.position >= known_at);
    clock_us := coalesce(given_us, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    now_us := CASE WHEN last_us > clock_us AND last_us <= clock_us + {clocks_differ_us} THEN last_us ELSE clock_us END;
    before := last_at;
    IF names IS NULL THEN
        at := before + 1;
        IF array_length(ids, 1) = 1 THEN
            INSERT INTO {schema}.records VALUES (at, ids[1], now_us, now_us + at + contents[1], payloads[1]);
        ELSE
            INSERT INTO {schema}.records
            SELECT before + n, t.id, now_us, now_us + before + n + t.content, t.payload
            FROM unnest(ids, contents, payloads) WITH ORDINALITY AS t(id, content, payload, n);
        END IF;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted <> array_length(ids, 1) THEN -- a trigger or a rule of somebody's
            RAISE SQLSTATE '{not_inserted}' USING MESSAGE = 'a row was not inserted';
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    FOR n IN 1 .. array_length(ids, 1) LOOP
        at := NULL;
        kept_digest := NULL;
        kept_answer := NULL;
        kept_us := NULL;
        kept_check := NULL;
        IF names[n] IS NOT NULL THEN
            SELECT k.digest, k.answer, k.expires_us, k."check" INTO kept_digest, kept_answer, kept_us, kept_check
            FROM {schema}.idempotency_keys k WHERE k.name = names[n];
            IF FOUND THEN
                IF kept_us <= settled_us AND kept_check >> 32 = PLACE(names[n]; kept_us) THEN -- else it is damaged
                    kept_us := NULL;
                END IF;
            -- One whose name was changed is not found, and still stands next to the place of the search: this key is
            -- refused where it, and not the name that stands there, fits what stands beside it.
            ELSIF EXISTS (SELECT 1 FROM (
                    (SELECT k.* FROM {schema}.idempotency_keys k WHERE k.name > names[n] ORDER BY k.name LIMIT 1)
                    UNION ALL
                    (SELECT k.* FROM {schema}.idempotency_keys k WHERE k.name < names[n] ORDER BY k.name DESC LIMIT 1)
                ) b WHERE b.name = names[n] OR (b."check" >> 32 <> PLACE(b.name; b.expires_us)
                                                AND b."check" >> 32 = PLACE(names[n]; b.expires_us))) THEN
                kept_digest := '';
                kept_answer := '';
                kept_us := 0;
                kept_check := -1; -- which is no check
            END IF;
        END IF;
        IF kept_us IS NULL THEN
            IF payloads[n] IS NOT NULL THEN
                last_at := last_at + 1;
                at := last_at;
                INSERT INTO {schema}.records VALUES (at, ids[n], now_us, now_us + at + contents[n], payloads[n]);
                IF NOT FOUND THEN
                    RAISE SQLSTATE '{not_inserted}' USING MESSAGE = 'a row was not inserted';
                END IF;
            END IF;
            IF names[n] IS NOT NULL THEN
                INSERT INTO {schema}.idempotency_keys
                VALUES (names[n], digests[n], answers[n], now_us + lives_us[n],
                        (PLACE(names[n]; now_us + lives_us[n]) << 32) | checks[n])
                ON CONFLICT (name) DO UPDATE SET digest = EXCLUDED.digest, answer = EXCLUDED.answer,
                    expires_us = EXCLUDED.expires_us, "check" = EXCLUDED."check";
                written := true;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF last_at = before AND NOT written THEN
        UPDATE {schema}.meta SET touched = touched + 1;
    END IF;
END $$;
