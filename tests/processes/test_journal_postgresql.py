"""What is PostgreSQL's own in its journal: the URL, rights and refusals, damage, round trips, the lock, the tables."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import (
    START,
    HistoryChanged,
    IdempotencyKey,
    Journal,
    Mark,
    Proposal,
    engine_of,
    open_journal,
    wall_clock_us,
)
from statsapi.journal.postgres_rows import KEY_PLACE_SQL, key_place
from statsapi.journal.postgres_server import SESSIONS, Server
from statsapi.journal.postgres_session import Failed, Session
from statsapi.journal.postgres_tables import Tables
from statsapi.journal.postgres_url import Address
from statsapi.journal.protocol import HeldUp
from statsapi.model import EventBatch, Events, Part
from statsapi.times import format_timestamp
from tests.calls import make_app
from tests.journal_engines import TICK, checkpoint_at, event, mark_of, shared_postgres, use_key, values
from tests.programs import postgres_binaries, require_binary
from tests.servers import PostgresServer, RefusingPostgres, free_port, postgres_server, serve_environment, wait_until

HOUR_US = 3_600_000_000


@pytest.fixture
def server() -> PostgresServer:
    return shared_postgres(postgres_binaries())


@pytest.fixture
def stream() -> str:
    return f"s{secrets.token_hex(4)}"


@pytest.fixture
def opened(server: PostgresServer, stream: str) -> Iterator[Callable[..., Journal]]:
    journals = []

    def make(**options: Any) -> Journal:
        journals.append(open_journal(server.journal_url(stream), **options))
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


@pytest.fixture
def journal(opened: Callable[..., Journal]) -> Journal:
    return opened()


# The URL


@pytest.mark.parametrize(
    ("url", "shown", "holds"),
    [
        ("postgresql://me:secret@db/x", "postgresql://db/x?stream=statsapi", ("user=me", "password=secret", "host=db")),
        ("postgres://db:5433/x?stream=a.b", "postgresql://db:5433/x?stream=a.b", ("port=5433", "dbname=x")),
        (
            "postgresql://me@a:1,b:2/x?sslmode=require&stream=s",
            "postgresql://a:1,b:2/x?stream=s",
            ("host=a,b", "port=1,2", "sslmode=require", "target_session_attrs=read-write"),
        ),
        ("postgresql://a,b/x?target_session_attrs=any", "postgresql://a,b/x?stream=statsapi", ("attrs=any",)),
        ("postgresql:///x?host=/run/pg", "postgresql:///x?stream=statsapi", ("host=/run/pg", "connect_timeout=2")),
        ("postgresql://[::1]:9/x?connect_timeout=7", "postgresql://[::1]:9/x?stream=statsapi", ("connect_timeout=7",)),
    ],
)
def test_urls_are_read(url: str, shown: str, holds: tuple[str, ...]) -> None:
    """stream= is ours; all else is given to libpq as it is; what is shown has no login and no options."""
    address = Address.parse(url)
    assert str(address) == shown
    for each in holds:
        assert each in address.conninfo


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@h/db?stream=public", "neither public"),
        ("postgresql://u:secret@h/db?stream=pg_x", "neither public"),
        ("postgresql://u:secret@h/db?stream=a b", "63 of the characters"),
        (f"postgresql://u:secret@h/db?stream={'x' * 64}", "63 of the characters"),
        ("postgresql://u:secret@h/db?nosuch=1", "'nosuch' is no option"),
        ("postgresql://u:secret@[::1/db", "%-codes"),
        ("postgresql://u:sec/ret@h/db", "%2F"),
        ("postgresql://u:sec@ret@h/db", "%40"),
        ("postgresql://u:secret/x@h:5/db?stream=s", "%2F"),
        ("postgresql://u:se%c3%28cret@h/db", "%25"),
        ("postgresql://u:secret@h/db?options=%ff", "%25"),
        ("postgresql://u:secret/db", "user:password@host"),
        ("postgresql://u:sec,secret/db", "user:password@host"),
        ("postgresql://u:1234567/db", "user:password@host"),
        ("postgresql://u:sec?secret=x", "user:password@host"),
        ("postgresql://u:1?x/secret=x@h/db", "%-codes"),
        ("postgresql://u:secret@h/db?port=99999", "number from 1 to 65535"),
        ("postgresql://u:secret@h/db?hostaddr=999.1.1.1", "numeric addresses"),
        ("postgresql://u:secret@a,b/db?hostaddr=1.1.1.1", "not as many each"),
        ("postgresql://u:secret@a,b,c/db?port=1,2", "not as many each"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_to_fix(url: str, said: str) -> None:
    """A ConfigError names the fault, and never the URL, which may hold a password."""
    with pytest.raises(ConfigError, match=said) as refused:
        open_journal(url)
    assert "secret" not in str(refused.value)
    assert "ret" not in str(refused.value).replace("@ in user", "").replace("write", "")


def test_requests_are_counted_by_each_worker(
    server: PostgresServer, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Against a rate limit, unless a Redis is named; and that is said."""
    settings = Settings.from_env(
        {
            "STATSAPI_JOURNAL": server.journal_url(stream),
            "STATSAPI_RATE_LIMIT": "2/minute",
            "STATSAPI_FSYNC": "interval",
        }
    )
    clients = [create_app(settings, background=False).test_client() for _ in range(2)]
    for client in clients:
        assert [client.get("/statistics").status_code for _ in range(3)] == [200, 200, 429]
        client.application.extensions["statsapi"].close()
    assert sum("Each worker counts its own requests" in record.getMessage() for record in caplog.records) == 2


def test_what_the_engine_says_before_it_is_open() -> None:
    """Its kind and abilities; against rate limits each worker counts for itself."""
    for url in ("postgresql://u:p@h/d", "postgres://h/d?stream=s"):
        engine = engine_of(url)
        assert (engine.kind, engine.single_process, engine.is_remote, engine.has_replicas) == (
            "postgresql",
            False,
            True,
            False,
        )
        assert (engine.is_kept, engine.is_file) == (True, False)
        place = engine.shares_limits()
        assert place is not None
        assert place.per_worker


def test_a_missing_driver_is_told() -> None:
    """Without psycopg every other journal works, and this one says what to install."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from statsapi.journal import open_journal\n"
        "open_journal('memory://').close()\n"
        "try: open_journal('postgresql://h/d')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ConfigError"), done.stdout
    assert "statsapi[postgresql]" in done.stdout


# Refusals


@pytest.fixture
def role(server: PostgresServer) -> str:
    """A role without any rights, on a database of its own."""
    name = f"r{secrets.token_hex(4)}"
    server.ask(f"CREATE ROLE {name} LOGIN")
    server.ask(f"CREATE DATABASE {name}")
    return name


def url_of(server: PostgresServer, role: str, stream: str = "statsapi") -> str:
    return f"postgresql://{role}@127.0.0.1:{server.port}/{role}?stream={stream}"


def run_sql(server: PostgresServer, database: str, sql: str) -> None:
    server.run(
        "psql", "-h", str(server.directory), "-p", str(server.port), "-U", "postgres", "-d", database, "-qc", sql
    )


def test_a_role_without_rights_is_told_what_to_run(server: PostgresServer, role: str) -> None:
    """The refusal holds the SQL; once that has been run, it works, with no other right."""
    with pytest.raises(JournalRefused, match="may not make a schema") as refused:
        open_journal(url_of(server, role))
    sql = str(refused.value).partition(" run ")[2]
    assert sql == f'CREATE SCHEMA "statsapi" AUTHORIZATION "{role}";'
    run_sql(server, role, sql)
    journal = open_journal(url_of(server, role))
    journal.append(event(7.0))
    assert values(journal) == {"default": [7.0]}
    journal.maintain()
    journal.close()


def test_a_second_role_is_told_what_to_run(server: PostgresServer, role: str) -> None:
    """Of a journal that another role owns, the rights to grant are named, and are enough."""
    open_journal(f"postgresql://postgres@127.0.0.1:{server.port}/{role}").close()
    with pytest.raises(JournalRefused, match="lacks rights") as refused:
        open_journal(url_of(server, role))
    run_sql(server, role, str(refused.value).partition(" run ")[2])
    journal = open_journal(url_of(server, role))
    journal.append(event())
    assert journal.replace_prefix(None, checkpoint_at(journal.read(START).mark), {1: b"x"})
    journal.maintain()
    assert journal.size_bytes() > 0
    journal.close()


def test_a_role_that_loses_a_right_is_told_what_to_run(server: PostgresServer, role: str) -> None:
    """Also while it runs: the refusal of a write holds the SQL, and once that has been run it works again."""
    open_journal(f"postgresql://postgres@127.0.0.1:{server.port}/{role}").close()
    with pytest.raises(JournalRefused) as refused:
        open_journal(url_of(server, role))
    sql = str(refused.value).partition(" run ")[2]
    run_sql(server, role, sql)
    with closing(open_journal(url_of(server, role))) as journal:
        for lost in ("INSERT ON statsapi.records", "EXECUTE ON ALL FUNCTIONS IN SCHEMA statsapi"):
            run_sql(server, role, f"REVOKE {lost} FROM {role}, PUBLIC")
            with pytest.raises(JournalRefused, match="refuses this role") as refused:
                journal.append(event())
            assert str(refused.value).partition(" run ")[2] == sql
            run_sql(server, role, sql)
            assert mark_of(journal.append(event()))


@pytest.mark.parametrize("key", [None, IdempotencyKey(b"k", b"d", HOUR_US)])
def test_nothing_is_recorded_into_a_table_that_is_being_restored(
    server: PostgresServer, stream: str, journal: Journal, key: IdempotencyKey | None
) -> None:
    """A restore fills the records and then gives them their key: what was recorded in between would share positions
    with what comes.
    """
    journal.append(event(1.0))
    server.ask(f"ALTER TABLE {stream}.records DROP CONSTRAINT records_pkey")
    with pytest.raises(JournalUnavailable, match="while a backup is restored"):
        journal.append(event(2.0), key=key)
    server.ask(f"ALTER TABLE {stream}.records ADD PRIMARY KEY (position)")
    journal.append(event(3.0), key=key)
    assert values(journal) == {"default": [1.0, 3.0]}


@pytest.mark.parametrize("key", [None, IdempotencyKey(b"k", b"d", HOUR_US)])
def test_a_trigger_that_keeps_records_out_is_told(
    server: PostgresServer, stream: str, journal: Journal, key: IdempotencyKey | None
) -> None:
    """Nothing is acknowledged that is not there, and no key is kept for it."""
    server.ask(
        f"CREATE FUNCTION {stream}.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        f"CREATE TRIGGER nothing BEFORE INSERT ON {stream}.records FOR EACH ROW EXECUTE FUNCTION {stream}.nothing()"
    )
    with pytest.raises(JournalUnavailable, match="a trigger or a rule"):
        journal.append(event(2.0), key=key)
    server.ask(f"DROP TRIGGER nothing ON {stream}.records")
    assert not journal.append(event(2.0), key=key).replayed
    assert values(journal) == {"default": [2.0]}


@pytest.mark.parametrize("table", ["records", "checkpoint", "pieces", "idempotency_keys", "meta"])
def test_row_level_security_hides_nothing(server: PostgresServer, role: str, table: str) -> None:
    """Somebody else's policy would show this role only a part of the journal. So it is refused with the cure, also
    while the service runs.
    """
    run_sql(server, role, f'CREATE SCHEMA statsapi AUTHORIZATION "{role}"')
    with closing(open_journal(url_of(server, role))) as journal:
        key = IdempotencyKey(b"k", b"d", HOUR_US)
        mark = mark_of(journal.append(event()._replace(answer=b"first"), key=key))
        for _ in range(18):
            journal.append(event())
        journal.replace_prefix(None, checkpoint_at(mark, state=b"state"), {1: b"one", 2: b"two"})
        run_sql(server, role, f"ALTER TABLE statsapi.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        with pytest.raises(JournalRefused, match=f"hide rows of statsapi.{table} .*DISABLE ROW LEVEL SECURITY"):
            open_journal(url_of(server, role))
        with pytest.raises(JournalRefused, match=table):
            read_all(journal, key)
        run_sql(server, role, f"ALTER ROLE {role} BYPASSRLS")
        open_journal(url_of(server, role)).close()


def test_a_schema_in_which_it_may_not_make_tables(server: PostgresServer, role: str) -> None:
    """An empty schema of somebody else's: the grant to run is named."""
    run_sql(server, role, f"CREATE SCHEMA statsapi; GRANT USAGE ON SCHEMA statsapi TO {role}")
    with pytest.raises(JournalRefused, match="may not make tables") as refused:
        open_journal(url_of(server, role))
    run_sql(server, role, str(refused.value).partition(" run ")[2])
    open_journal(url_of(server, role)).close()


@pytest.mark.parametrize("table", ["meta", "orders"])
def test_another_programs_schema_is_not_touched(server: PostgresServer, stream: str, table: str) -> None:
    """Tables that are not ours, also one of the same name, are refused, and left as they are."""
    server.ask(f"CREATE SCHEMA {stream}")
    server.ask(f"CREATE TABLE {stream}.{table} (x int)")
    with pytest.raises(JournalRefused, match="another program"):
        open_journal(server.journal_url(stream))
    assert server.ask(f"SELECT count(*) FROM pg_class WHERE relnamespace = '{stream}'::regnamespace") == [(1,)]


@pytest.mark.parametrize("thing", ["TYPE {}.records AS ENUM ('a')", "DOMAIN {}.meta AS int"])
def test_a_name_that_is_taken_in_an_empty_schema(server: PostgresServer, stream: str, thing: str) -> None:
    """A type is no table, and stands in our way all the same: which one, and what to do."""
    server.ask(f"CREATE SCHEMA {stream}")
    server.ask("CREATE " + thing.format(stream))
    with pytest.raises(JournalRefused, match=r"already exists.*name another schema by \?stream=NAME"):
        open_journal(server.journal_url(stream))


@pytest.mark.parametrize("kind", ["PROCEDURE {}()", "FUNCTION {}() RETURNS int"])
def test_a_function_of_another_program_is_left(server: PostgresServer, stream: str, kind: str) -> None:
    """By the name of ours and with other parameters it stands in nobody's way."""
    server.ask(f"CREATE SCHEMA {stream}")
    server.ask(f"CREATE {kind.format(f'{stream}.append_3')} LANGUAGE sql AS 'SELECT 1'")
    for _ in range(2):
        with closing(open_journal(server.journal_url(stream))) as journal:
            journal.append(event())
    assert server.ask(f"SELECT count(*) FROM pg_proc WHERE pronamespace = '{stream}'::regnamespace") == [(2,)]


def test_a_newer_schema_is_refused(server: PostgresServer, stream: str, journal: Journal) -> None:
    """A journal that a later version has changed is left to that version."""
    server.ask(f"UPDATE {stream}.meta SET schema_version = 4")
    with pytest.raises(JournalRefused, match="has schema 4: use a newer"):
        open_journal(server.journal_url(stream))


def test_a_login_that_is_refused(server: PostgresServer, stream: str) -> None:
    """A role or a database that is not there is a refusal, as waiting does not help; no password is told."""
    for place in ("nobody:secret@127.0.0.1:{}/postgres", "postgres:secret@127.0.0.1:{}/nowhere"):
        with pytest.raises(JournalRefused, match="refuses the login") as refused:
            open_journal("postgresql://" + place.format(server.port))
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("state", "severity", "said", "refused"),
    [
        ("28P01", "ВАЖНО", 'пользователь "u" не прошёл проверку подлинности', True),
        ("28000", "FATAL", "kein pg_hba.conf-Eintrag für Host »127.0.0.1«", True),
        ("3D000", "FATAL", "la base de données « db » n'existe pas", True),
        ("42501", "致命的错误", "访问数据库的权限不够", True),
        ("57P03", "ВАЖНО", "password authentication failed does not exist", False),
        ("53300", "FATAL", "lo siento, ya tenemos demasiados clientes", False),
    ],
)
def test_a_login_is_judged_by_its_sqlstate(state: str, severity: str, said: str, refused: bool) -> None:
    """Never by words, which are those of the server's language: what waiting cannot mend is a refusal, all else not."""
    server = RefusingPostgres(state, said, severity)
    with closing(server):
        url = f"postgresql://u:secret@127.0.0.1:{server.port}/db"
        with pytest.raises((JournalRefused, JournalUnavailable)) as error:
            open_journal(url)
        assert isinstance(error.value, JournalRefused) == refused
        assert said.split()[0] in str(error.value)
        assert ("refuses the login" in str(error.value)) == refused
        assert ("no connection left" in str(error.value)) == (state == "53300")
        assert "secret" not in str(error.value)
        away = f"postgresql://u:secret@127.0.0.1:{server.port},127.0.0.1:{free_port()}/db"
        with pytest.raises(JournalUnavailable):  # the other one may let us in, when it is there
            open_journal(away)


def test_a_login_that_a_server_in_another_language_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, and a database that is not there, in German: one line, and no waiting."""
    monkeypatch.setenv("LANGUAGE", "de")
    with postgres_server(postgres_binaries(), lc_messages="C.utf8") as server:
        server.ask("CREATE ROLE app LOGIN PASSWORD 'right'")
        (server.data / "pg_hba.conf").write_text(
            "local all all trust\nhost all postgres all trust\nhost all app all scram-sha-256\n"
        )
        server.ask("SELECT pg_reload_conf()")
        if "existiert nicht" not in error_of(server, "nowhere"):
            pytest.skip("this machine's PostgreSQL does not speak German")
        wait_until(lambda: "Passwort" in error_of(server, "postgres", "app:wrong"), "the new rules")
        for place in ("app:wrong@127.0.0.1:{}/postgres", "postgres@127.0.0.1:{}/nowhere", "who@127.0.0.1:{}/postgres"):
            with pytest.raises(JournalRefused, match="refuses the login"):
                open_journal("postgresql://" + place.format(server.port))


def error_of(server: PostgresServer, database: str, login: str = "postgres") -> str:
    try:
        psycopg.connect(f"postgresql://{login}@127.0.0.1:{server.port}/{database}").close()
    except psycopg.Error as error:
        return str(error)
    return ""


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_pgbouncer(server: PostgresServer, stream: str) -> None:
    """With sessions of its own all works; where several share one of the server, what they set would be another's."""
    program = require_binary("pgbouncer")
    directory = PostgresServer.folder()
    place = f"host=127.0.0.1 port={server.port} user=postgres"
    port = free_port()
    ini = f"""[databases]
own = {place} dbname=postgres pool_mode=session
shared = {place} dbname=postgres pool_mode=transaction
statements = {place} dbname=postgres pool_mode=statement
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
unix_socket_dir =
"""
    (directory / "pgbouncer.ini").write_text(ini)
    as_user = server.command("")[:-1]
    url = f"postgresql://postgres@127.0.0.1:{port}/{{}}?stream={stream}"
    bouncer = subprocess.Popen([*as_user, program, "-q", str(directory / "pgbouncer.ini")], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), "PgBouncer")
        with closing(open_journal(url.format("own"))) as journal, closing(open_journal(url.format("own"))) as second:
            for each in (journal, second, journal, second):
                use_key(each, IdempotencyKey(secrets.token_bytes(8), b"d", HOUR_US), "decide")
                each.append(event())
            assert len(values(second)["default"]) == 8
        for name in ("shared", "statements"):
            with pytest.raises(JournalRefused, match="pool_mode = session"):
                open_journal(url.format(name))
    finally:
        bouncer.kill()
        bouncer.wait()


def test_a_server_that_is_away_is_not_a_refusal() -> None:
    """Nobody listens: JournalUnavailable, so that the service starts and waits for it."""
    with pytest.raises(JournalUnavailable, match="cannot be reached") as error:
        open_journal(f"postgresql://u:secret@127.0.0.1:{free_port()}/db")
    assert not error.value.outcome_unknown
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("folder", ["password-db", "certificates", "authentication"])
def test_a_name_that_sounds_like_a_refusal(tmp_path: Path, folder: str) -> None:
    """A host that is away is not a refusal, whatever text libpq has for it."""
    (tmp_path / folder).mkdir()
    with pytest.raises(JournalUnavailable, match="cannot be reached"):
        open_journal(f"postgresql://u@/db?host={tmp_path}/{folder}&port=15999")


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=wrong",
        "service=nosuch",
        "sslmode=require",
        "target_session_attrs=wrong",
        "ssl_min_protocol_version=wrong",
        "sslnegotiation=direct",
        "gssencmode=require",
        "require_auth=scram-sha-256",
        "channel_binding=require",
        "keepalives_idle=wrong",
    ],
)
def test_settings_with_which_it_can_never_be_reached(server: PostgresServer, options: str) -> None:
    """They are a refusal, as nobody would look at a service that waits for ever. A server that is only away may come
    back.
    """
    with pytest.raises(JournalRefused, match="as it is named") as refused:
        open_journal(f"postgresql://postgres@127.0.0.1:{server.port}/postgres?{options}")
    assert f"port {server.port}" in str(refused.value) or "port" not in str(refused.value).partition("named: ")[2]
    if "sslmode=require" in options or "require_auth" in options or "binding" in options:
        with pytest.raises(JournalUnavailable):
            open_journal(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres?{options}")


def test_tls() -> None:
    """The server's certificate is proven where that is asked for. If it cannot be proven, or does not fit the server,
    that is a refusal, even if the server closes the line as fast as we do.
    """
    openssl = require_binary("openssl")
    directory = PostgresServer.folder()
    for name in ("right", "wrong"):
        made = ("-days", "2", "-keyout", f"{directory}/{name}.key", "-out", f"{directory}/{name}.pem")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        named = ("-subj", "/CN=statsapi", "-addext", "subjectAltName=DNS:localhost")
        subprocess.run([openssl, "req", "-x509", *curve, *named, *made], check=True, capture_output=True)
    if os.geteuid() == 0:
        shutil.chown(directory / "right.key", "postgres", "postgres")
    files = {"ssl_cert_file": f"{directory}/right.pem", "ssl_key_file": f"{directory}/right.key"}
    with postgres_server(postgres_binaries(), ssl="on", **files) as server:
        server.ask("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'secret'")
        (server.data / "pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
        server.ask("SELECT pg_reload_conf()")
        right, wrong = (f"sslmode=verify-full&sslrootcert={directory}/{name}.pem" for name in ("right", "wrong"))
        whole = "app:secret@localhost"
        url = f"postgresql://{{}}:{server.port}/postgres?{{}}"
        wait_until(lambda: "no encryption" in why_not(url.format(whole, "sslmode=disable")), "the new rules")
        for options in ("sslmode=require&require_auth=scram-sha-256&channel_binding=require", right):
            with closing(open_journal(url.format(whole, options))) as journal:
                journal.append(event())
        direct = "sslmode=require&sslnegotiation=direct"
        is_old = server.ask("SHOW server_version_num") < [("17",)]
        assert ("as it is named" in why_not(url.format(whole, direct))) == is_old
        for login, options, said in (
            (whole, wrong, "certificate verify failed"),
            ("app:secret@127.0.0.1", right, "does not match host name"),
            (whole, f"sslmode=verify-full&sslrootcert={directory}/none.pem", "root certificate file"),
            (whole, "sslmode=require&require_auth=md5", "authentication method"),
            ("app@localhost", "sslmode=require", "no password supplied"),
            ("app:no@localhost", "sslmode=require", "28P01"),
        ):
            with pytest.raises(JournalRefused, match=said):
                open_journal(url.format(login, options))


def why_not(url: str) -> str:
    try:
        open_journal(url).close()
    except (JournalRefused, JournalUnavailable) as error:
        return str(error)
    return ""


@pytest.fixture(params=["PGHOST", "PGHOSTADDR", "service"])
def hosts_elsewhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: PostgresServer
) -> str:
    """The parts that add two hosts, one of them away, to a URL: by the environment or a service file."""
    hosts, ports = "127.0.0.1,127.0.0.1", f"{free_port()},{server.port}"
    if request.param == "service":
        (tmp_path / "services").write_text(f"[here]\nhost={hosts}\nport={ports}\nconnect_timeout=7\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        return "service=here&"
    monkeypatch.setenv(request.param, hosts)
    monkeypatch.setenv("PGPORT", ports)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    return ""


def test_hosts_that_the_url_does_not_name(server: PostgresServer, stream: str, hosts_elsewhere: str) -> None:
    """They count like hosts in the URL: the primary is found among them, all of them have to refuse before the service
    gives up, and time limits given to libpq hold.
    """
    url = f"postgresql://postgres@/postgres?{hosts_elsewhere}stream={stream}"
    address = Address.parse(url)
    assert str(address).count("127.0.0.1:") == len(address.each) == 2
    assert "target_session_attrs=read-write" in address.conninfo
    assert "connect_timeout" not in address.conninfo
    open_journal(url).close()
    with pytest.raises(JournalUnavailable):  # the one that is away may let us in
        open_journal(url.replace("@/postgres", "@/nowhere"))


def test_failed_logins_cost_memory_a_few_times_only(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking into a failed login leaks memory in libpq. So it is done once for each message, and for 64 messages at
    most.
    """
    asked = []

    def states_of(conninfos: tuple[str, ...], wait_s: float) -> list[None]:
        asked.append(conninfos)
        return [None]

    monkeypatch.setattr("statsapi.journal.postgres_server.states_of", states_of)
    away = Server(Address.parse(f"postgresql://127.0.0.1:{free_port()}/x"), wall_clock_us, wall_clock_us)
    for said in [str(number) for number in range(100)] * 2:
        assert isinstance(away._unreachable(psycopg.OperationalError(said)), JournalUnavailable)
    assert len(asked) == 64


def test_a_renamed_schema_is_another_journal(server: PostgresServer, stream: str) -> None:
    """Old and new one record for themselves: the function that appends names its schema, and is made again."""
    with closing(open_journal(server.journal_url(stream))) as journal:
        journal.append(event(1.0))
    server.ask(f"ALTER SCHEMA {stream} RENAME TO {stream}_old")
    with closing(open_journal(server.journal_url(stream))) as new:
        new.append(event(2.0))
        with closing(open_journal(server.journal_url(f"{stream}_old"))) as old:
            old.append(event(3.0))
            assert (values(old), values(new)) == ({"default": [1.0, 3.0]}, {"default": [2.0]})


def test_a_function_that_was_dropped_is_made_again(server: PostgresServer, stream: str, journal: Journal) -> None:
    """Also under a running service; nothing of the journal is lost."""
    journal.append(event(1.0))
    ours = f"SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = '{stream}'::regnamespace"
    server.ask(f"DROP FUNCTION {server.ask(ours)[0][0]}")
    with contextlib.suppress(JournalUnavailable):
        journal.append(event(2.0))
    journal.append(event(3.0))
    assert values(journal)["default"] in ([1.0, 3.0], [1.0, 2.0, 3.0])
    with closing(open_journal(server.journal_url(stream))) as other:
        assert values(other) == values(journal)


def test_a_table_that_was_dropped_is_told(server: PostgresServer, stream: str, journal: Journal) -> None:
    """At the start and by a running service: which one, and what to do."""
    journal.append(event(1.0))
    server.ask(f"DROP TABLE {stream}.records")
    for _ in range(2):
        with pytest.raises((JournalRefused, JournalUnavailable)):
            journal.append(event(2.0))
    with pytest.raises(JournalRefused, match=r"records is gone: restore a backup.*DROP SCHEMA"):
        journal.append(event(2.0))
    with pytest.raises(JournalRefused, match="records is gone"):
        open_journal(server.journal_url(stream))


def test_a_role_that_may_not_call_functions(server: PostgresServer, role: str) -> None:
    """The SQL that the refusal proposes lets the role call functions that nobody may call by default."""
    owner = f"postgresql://postgres@127.0.0.1:{server.port}/{role}"
    open_journal(owner).close()
    run_sql(server, role, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA statsapi FROM PUBLIC")
    run_sql(server, role, f"GRANT USAGE ON SCHEMA statsapi TO {role}")
    run_sql(server, role, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA statsapi TO {role}")
    with pytest.raises(JournalRefused, match="may not call") as refused:
        open_journal(url_of(server, role))
    run_sql(server, role, str(refused.value).partition(" run ")[2])
    with closing(open_journal(url_of(server, role))) as journal:
        journal.append(event())


@pytest.mark.parametrize(
    "setting",
    ["search_path = evil, pg_catalog", "standard_conforming_strings = off"],
)
def test_a_roles_own_settings_do_not_count(server: PostgresServer, role: str, setting: str) -> None:
    """Each session sets what it relies on."""
    run_sql(server, role, f"CREATE SCHEMA statsapi AUTHORIZATION {role}")
    evil = r"CREATE FUNCTION evil.int8send(bigint) RETURNS bytea LANGUAGE sql AS 'SELECT ''\x00''::bytea'"
    run_sql(server, role, f"CREATE SCHEMA evil; {evil}; GRANT USAGE ON SCHEMA evil TO {role}")
    run_sql(server, role, f"ALTER ROLE {role} SET {setting}")
    with closing(open_journal(url_of(server, role))) as journal:
        journal.append(event(4.0))
        assert values(journal) == {"default": [4.0]}


def test_create_off_wants_a_journal_that_is_there(server: PostgresServer, stream: str) -> None:
    """`statsapi journal` never makes tables where there are none."""
    with pytest.raises(JournalRefused, match="no journal at"):
        open_journal(server.journal_url(stream), create=False)
    assert server.ask(f"SELECT to_regnamespace('{stream}')") == [(None,)]
    open_journal(server.journal_url(stream)).close()
    open_journal(server.journal_url(stream), create=False).close()


def test_an_old_server_is_refused(server: PostgresServer, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below version 13 the refusal says so."""
    monkeypatch.setattr("statsapi.journal.postgres_tables.OLDEST_VERSION", 99)
    with pytest.raises(JournalRefused, match=r"is PostgreSQL \d+.*; it takes 99 or newer"):
        open_journal(server.journal_url(stream))


def test_a_refusal_ends_serve_with_78(server: PostgresServer, role: str, tmp_path: Path) -> None:
    """`statsapi serve` says the one line, and its exit status is that of wrong settings."""
    done = subprocess.run(
        [sys.executable, "-m", "statsapi", "serve", "--port", str(free_port()), "--journal", url_of(server, role)],
        cwd=tmp_path,
        env=serve_environment(tmp_path, {"WEB_CONCURRENCY": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78, done.stderr
    assert "CREATE SCHEMA" in done.stdout + done.stderr


def test_many_may_start_at_once(server: PostgresServer, stream: str) -> None:
    """Of processes that start on an empty database one makes the tables, and all use them."""
    journals: list[Journal] = []
    errors: list[Exception] = []
    barrier = threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        try:
            journals.append(open_journal(server.journal_url(stream)))
        except Exception as error:  # noqa: BLE001 - the test looks at what was raised
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for at, each in enumerate(journals):
        each.append(event(float(at)))
    assert {tuple(values(each)["default"]) for each in journals} == {(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)}
    for each in journals:
        each.close()


# What a 2xx is worth


def test_what_a_2xx_is_worth_is_said(server: PostgresServer, opened: Callable[..., Journal]) -> None:
    """The promise names what a COMMIT waits for, and each session is set so."""
    level = "SHOW synchronous_commit"
    for fsync, said, commit in (
        ("interval", "wal_writer_delay (200ms)", b"off"),
        ("always", "on the server's disk (synchronous_commit = on)", b"on"),
    ):
        journal = opened(fsync=fsync)
        assert said in journal.promise
        with journal._server.session() as session:  # type: ignore[attr-defined]
            assert session.simple(level).get_value(0, 0) == commit


def test_settings_that_lose_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """fsync = off is a warning, and a refusal with STATSAPI_FSYNC=always; a quorum that is asked for is waited for."""
    options = {"fsync": "off", "full_page_writes": "off", "synchronous_standby_names": "ANY 1 (a, b)"}
    with postgres_server(postgres_binaries(), **options, synchronous_commit="local") as server:
        with pytest.raises(JournalRefused, match="needs fsync = on"):
            open_journal(server.journal_url("s"), fsync="always")
        with caplog.at_level(logging.WARNING, "statsapi"):
            journal = open_journal(server.journal_url("s"))
        assert "set fsync = on" in caplog.text
        assert "set full_page_writes = on" in caplog.text
        journal.close()


def test_a_role_that_waits_for_less_than_is_asked_for(server: PostgresServer, role: str) -> None:
    """STATSAPI_FSYNC=always waits for the disk at least, whatever the role is set to; more is left as it is."""
    run_sql(server, role, f"CREATE SCHEMA statsapi AUTHORIZATION {role}")
    for level, kept in (("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
        run_sql(server, role, f"ALTER ROLE {role} SET synchronous_commit = {level}")
        with closing(open_journal(url_of(server, role), fsync="always")) as journal:
            assert f"synchronous_commit = {kept}" in journal.promise


def test_standbys_that_are_not_waited_for_are_told() -> None:
    """With synchronous_commit = local a 2xx is on the server's own disk, and nobody looks for standbys."""
    options = {"synchronous_standby_names": "a", "synchronous_commit": "local"}
    with (
        postgres_server(postgres_binaries(), **options) as server,
        closing(open_journal(server.journal_url("s"))) as journal,
    ):
        assert "does not wait for a" in journal.promise
        journal.append(event())
        journal.check_writable()


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("53100", JournalUnavailable, "the disk of"),
        ("53200", JournalUnavailable, "the memory of"),
        ("55P03", HeldUp, "another writer"),
        ("57P01", JournalUnavailable, "shutting down"),
        ("57P03", JournalUnavailable, "starting"),
        ("25006", JournalUnavailable, "takes no writes"),
        ("40P01", JournalUnavailable, "failed"),
        ("58030", JournalUnavailable, "failed"),
        ("42P01", JournalUnavailable, "are gone"),
        ("42501", JournalRefused, "refuses this role"),
        ("ST001", JournalUnavailable, "while a backup is restored"),
        ("ST002", JournalUnavailable, "a trigger or a rule"),
        ("22000", JournalRefused, "refuses: words"),
        ("XX001", JournalDamaged, "damaged"),
        ("XX002", JournalDamaged, "damaged"),
        ("P0002", JournalDamaged, "damaged"),
        ("26000", JournalRefused, "pool_mode = session"),
        ("42P05", JournalRefused, "pool_mode = session"),
    ],
)
def test_what_a_server_means(state: str, kind: type[Exception], said: str) -> None:
    """Each SQLSTATE is one of three: it may pass, somebody has to see to it, data are damaged."""
    server = Server(Address.parse("postgresql://h/d"), wall_clock_us, wall_clock_us)
    error = server.failure(Failed(state, "words"))
    assert type(error) is kind or (state == "25006" and isinstance(error, kind))
    assert said in str(error)


def test_more_threads_than_sessions(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that gets no session in time is told so, and no session stays taken."""
    inner = journal._server  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS):
            stack.enter_context(inner.session())
        for name in ("TIMEOUT_S", "LOCK_WAIT_S"):
            monkeypatch.setattr(f"statsapi.journal.postgres_server.{name}", 0.01)
        with pytest.raises(JournalUnavailable, match="were busy for too long"):
            journal.size_bytes()
    monkeypatch.undo()
    assert journal.size_bytes() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM {}.meta", "its row is missing"),
        ("UPDATE {}.meta SET born = '\\x00'", "not what was written"),
        ("UPDATE {}.meta SET schema_version = 0", "schema version 0"),
        ("UPDATE {}.meta SET schema_version = 2", "schema version 2, and the tables beside it are of another"),
    ],
)
def test_a_damaged_meta_table_is_refused(
    server: PostgresServer, stream: str, opened: Callable[..., Journal], change: str, said: str
) -> None:
    """By a start, with what is wrong; a running service tells of a row that is missing."""
    journal = opened()
    journal.append(event())
    server.ask(change.format(stream))
    with pytest.raises(JournalDamaged, match=said):
        opened()
    if change.startswith("DELETE"):
        for use in (lambda: journal.append(event()), journal.read_checkpoint):
            with pytest.raises(JournalDamaged):
                use()


def test_a_session_that_broke_is_replaced_in_a_read(
    server: PostgresServer, stream: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question is asked once more if the server ends the session just before it."""
    mark = mark_of(journal.append(event()))
    monkeypatch.setattr(Session, "still_there", lambda self: True)
    server.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'statsapi' AND query LIKE %s",
        f"%{stream}%",
    )
    wait_until(
        lambda: (
            not server.ask(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()", f"%{stream}.meta%"
            )
        ),
        "the end of the sessions",
    )
    assert journal.read(mark).records == 0


# Reading and appending


def test_a_read_with_nothing_new_is_one_round_trip(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One statement, however often it is asked; so is an append."""
    mark = mark_of(journal.append(event()))
    journal.read(mark)
    sent: list[int] = []
    run = Session.run

    def counted(self: Session, *rest: Any) -> Any:
        sent.append(1)
        return run(self, *rest)

    monkeypatch.setattr(Session, "run", counted)
    for _ in range(5):
        assert journal.read(mark).records == 0
    assert len(sent) == 5
    journal.append(event())
    assert len(sent) == 6


def test_a_read_takes_no_more_bytes_than_it_may(
    opened: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was read before: small records, or nothing; and everything is read in the end, in order."""
    writer, sent = opened(), []
    sizes = [1] * 300 + [20_000] * 12 + [1] * 50 + [20_000] * 3
    for number, size in enumerate(sizes):
        writer.append(
            Proposal(EventBatch((Part("a", np.full(size, number), np.random.default_rng(number).random(size)),)))
        )
    reader = opened()
    results = Session._results

    def measured(self: Session, patience_s: float) -> Any:
        found = results(self, patience_s)
        sent.append(
            sum(len(each.get_value(row, 1) or b"") for each in found for row in range(each.ntuples) if each.nfields > 1)
        )
        return found

    monkeypatch.setattr(Session, "_results", measured)
    mark, numbers = START, list[int]()
    while True:
        segment = reader.read(mark, limit_bytes=400_000)
        for change in segment.changes:
            assert isinstance(change, Events)
            numbers += dict.fromkeys(change.ts_us.tolist())
        mark = segment.mark
        if not segment.more:
            break
    assert numbers == list(range(len(sizes)))
    assert max(sent) < 400_000 + 320_000  # and the record that goes beyond


def test_two_services_read_their_own_writes(opened: Callable[..., Journal]) -> None:
    """Of 10,000 alternating appends and reads over two openings none misses what was acknowledged before."""
    journals = [opened(), opened()]
    marks = [START, START]
    seen = [0, 0]
    for number in range(1, 5001):
        journals[number % 2].append(event(float(number)))
        for at in (0, 1):
            segment = journals[at].read(marks[at])
            marks[at] = segment.mark
            seen[at] += segment.records
            assert seen[at] == number


def test_large_and_small_records_stand_in_the_same_order(opened: Callable[..., Journal]) -> None:
    """Batches and single events of several threads come back whole and in the order of each thread."""
    journals = [opened(), opened()]

    def write(journal: Journal, series: str) -> None:
        for number in range(40):
            rows = 5000 if number % 4 == 0 else 1
            column = np.full(rows, float(number))
            journal.append(Proposal(EventBatch((Part(series, np.arange(rows, dtype=np.int64), column),))))

    threads = [threading.Thread(target=write, args=(journals[at % 2], f"w{at}")) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = list(itertools.chain.from_iterable([float(n)] * (5000 if n % 4 == 0 else 1) for n in range(40)))
    for journal in journals:
        assert values(journal, limit_bytes=300_000) == {f"w{at}": expected for at in range(4)}


def test_decisions_come_through_against_busy_appenders(opened: Callable[..., Journal]) -> None:
    """A decision takes the lock as everybody does, and is run once."""
    deciding, busy = opened(), [opened(), opened()]
    done = threading.Event()

    def append(journal: Journal) -> None:
        while not done.is_set():
            journal.append(TICK)

    threads = [threading.Thread(target=append, args=(each,)) for each in busy]
    for thread in threads:
        thread.start()
    runs = []

    def decide() -> Proposal:
        runs.append(1)
        return event()

    try:
        for _ in range(30):
            deciding.append(decide)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(runs) == 30


def test_a_lock_whose_holder_was_stopped_is_taken_away(
    server: PostgresServer, opened: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a decision that says nothing for too long; it recorded nothing, and the others go on."""
    monkeypatch.setattr(
        "statsapi.journal.postgres_server._SETUP",
        __import__("statsapi.journal.postgres_server", fromlist=["_SETUP"])._SETUP.replace("= 5000;", "= 300;"),
    )
    stopped, other = opened(), opened()

    def decide() -> Proposal:
        time.sleep(1.0)
        return event(9.0)

    with pytest.raises(JournalUnavailable) as error:
        stopped.append(decide)
    assert not error.value.outcome_unknown
    other.append(event(1.0))
    assert values(other) == {"default": [1.0]}
    stopped.append(event(2.0))
    assert values(stopped) == {"default": [1.0, 2.0]}


# Damage


def test_damage_is_refused_wherever_it_is_read(
    server: PostgresServer, stream: str, opened: Callable[..., Journal]
) -> None:
    """A changed value in any column of any table is told by whoever reads it, and never counted."""
    journal = opened()
    for number in range(20):
        journal.append(event(float(number)))
    key = IdempotencyKey(b"k", b"d", HOUR_US)
    journal.append(event()._replace(answer=b"first"), key=key)
    journal.replace_prefix(
        None, checkpoint_at(Mark(3, id_at(server, stream, 3)), state=b"state"), {1: b"one", 2: b"two"}
    )
    dice = random.Random(5)
    cases = [
        ("records", "payload", "position = 12"),
        ("records", "id", "position = 12"),
        ("records", "appended_us", "position = 12"),
        ("records", '"check"', "position = 12"),
        ("checkpoint", "state", "true"),
        ("checkpoint", "appended_us", "true"),
        ("checkpoint", "pieces_checksum", "true"),
        ("pieces", "piece", "key = 2"),
        ("pieces", "checksum", "key = 2"),
        ("idempotency_keys", "answer", "true"),
        ("idempotency_keys", "digest", "true"),
        ("idempotency_keys", '"check"', "true"),
        ("idempotency_keys", "expires_us", "true"),
        ("idempotency_keys", "name", "true"),
    ]
    for table, column, where in cases:
        ((right,),) = server.ask(f"SELECT {column} FROM {stream}.{table} WHERE {where}")
        if isinstance(right, int):
            wrong: Any = right ^ 1 << dice.randrange(40)
        else:
            broken = bytearray(right)
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            wrong = bytes(broken)
        server.ask(f"UPDATE {stream}.{table} SET {column} = %s WHERE {where}", wrong)
        fresh = opened()
        with pytest.raises(JournalDamaged, match="restore a backup of the database"):
            read_all(fresh, key)
        server.ask(f"UPDATE {stream}.{table} SET {column} = %s WHERE {where}", right)
        read_all(fresh, key)
    for table, where in (("records", "position = 12"), ("pieces", "key = 1"), ("checkpoint", "true"), ("meta", "true")):
        server.ask(f"CREATE TABLE {stream}.kept AS SELECT * FROM {stream}.{table} WHERE {where}")
        fresh = opened()
        server.ask(f"DELETE FROM {stream}.{table} WHERE {where}")
        with pytest.raises((JournalDamaged, HistoryChanged)):
            read_all(fresh, key)
        server.ask(f"INSERT INTO {stream}.{table} SELECT * FROM {stream}.kept")
        server.ask(f"DROP TABLE {stream}.kept")
        read_all(fresh, key)


@pytest.mark.parametrize("column", ["state_checksum", "pieces_checksum", "checksum", "position", "appended_us"])
@pytest.mark.parametrize("wrong", [-1, 1 << 32, (1 << 63) - 1, -(1 << 63)])
def test_a_number_that_no_checksum_has_is_damage(
    server: PostgresServer, stream: str, opened: Callable[..., Journal], column: str, wrong: int
) -> None:
    """In a checkpoint, whatever reads it; what it would replace is kept."""
    journal = opened()
    for number in range(3):
        journal.append(event(float(number)))
    checkpoint = checkpoint_at(Mark(2, id_at(server, stream, 2)), state=b"state")
    journal.replace_prefix(None, checkpoint, {1: b"one"})
    server.ask(f"UPDATE {stream}.checkpoint SET {column} = %s", wrong)
    fresh = opened()
    for use in (
        fresh.read_checkpoint,
        lambda: fresh.read_pieces(checkpoint.id, 0, 9),
        lambda: fresh.replace_prefix(checkpoint.id, checkpoint_at(Mark(3, id_at(server, stream, 3)))),
    ):
        with pytest.raises(JournalDamaged, match="the journal's checkpoint at"):
            use()
    (said,) = engine_of(server.journal_url(stream)).find_damage()
    assert said.startswith("the journal's checkpoint at")


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("column", ["position", "appended_us"])
def test_a_last_record_that_cannot_be_counted_on_from_is_damage(
    server: PostgresServer, stream: str, opened: Callable[..., Journal], column: str, keyed: bool
) -> None:
    """An append refuses, and says which; or it goes on, where only the time is wrong."""
    journal = opened()
    for number in range(3):
        journal.append(event(float(number)))
    wrong = (1 << 63) - 1
    server.ask(f"UPDATE {stream}.records SET {column} = %s WHERE position = 3", wrong)
    key = IdempotencyKey(b"k", b"d", HOUR_US) if keyed else None
    if column == "position":
        with pytest.raises(JournalDamaged, match="the last of the journal's records at") as caught:
            journal.append(event(), key=key)
        assert not caught.value.outcome_unknown
    else:
        journal.append(event(), key=key)
    assert server.ask(f"SELECT count(*) FROM {stream}.records") == [(3 + (column != "position"),)]
    with pytest.raises(JournalDamaged, match="the journal's record 3 at"):
        values(opened())


def test_a_record_id_of_another_length_is_named(
    server: PostgresServer, stream: str, opened: Callable[..., Journal]
) -> None:
    """Also by a process that asks for it only to find out whether its history stands."""
    journal = opened()
    mark = mark_of(journal.append(event()))
    for _ in range(3):
        journal.append(event())
    server.ask(f"UPDATE {stream}.records SET id = '\\x00' WHERE position = 4")
    for reader in (journal, opened()):
        with pytest.raises(JournalDamaged, match="record 4"):
            reader.read(mark)


def test_the_check_finds_a_key_without_a_name(server: PostgresServer, stream: str, journal: Journal) -> None:
    """It stands before all others."""
    for name in (b"a", b"b", b"c"):
        journal.append(event(), key=IdempotencyKey(name, b"d", HOUR_US))
    assert list(engine_of(server.journal_url(stream)).find_damage()) == []
    server.ask(f"UPDATE {stream}.idempotency_keys SET name = '' WHERE name = 'b'")
    (said,) = engine_of(server.journal_url(stream)).find_damage()
    assert "an answer that is kept under an Idempotency-Key" in said


@pytest.mark.parametrize("keyed", ["find", "append", "decide"])
def test_a_key_whose_name_was_changed_is_noticed(
    server: PostgresServer, stream: str, journal: Journal, keyed: str
) -> None:
    """It is no longer found by its name, but still stands at its old place in the order: a retry is refused, and not
    recorded again.
    """
    keys = [IdempotencyKey(bytes([number, 77]), b"d", HOUR_US) for number in range(0, 100, 4)]
    for key in keys:
        journal.append(event()._replace(answer=b"first"), key=key)
    for key, change in ((keys[7], b"\1\0"), (keys[7], b"\0\40"), (keys[24], b"\0\1"), (keys[0], b"\2\0")):
        changed = bytes(a ^ b for a, b in zip(key.name, change, strict=True))
        server.ask(f"UPDATE {stream}.idempotency_keys SET name = %s WHERE name = %s", changed, key.name)
        with pytest.raises(JournalDamaged, match="restore a backup of the database"):
            use_key(journal, key, keyed)
        (said,) = engine_of(server.journal_url(stream)).find_damage()
        assert "an answer that is kept under an Idempotency-Key" in said
        server.ask(f"UPDATE {stream}.idempotency_keys SET name = %s WHERE name = %s", key.name, changed)
        assert journal.find_answer(key) == b"first"
    assert len(values(journal)["default"]) == len(keys)
    assert list(engine_of(server.journal_url(stream)).find_damage()) == []
    assert journal.append(event(), key=IdempotencyKey(b"new", b"d", HOUR_US)).mark is not None


@pytest.mark.parametrize("keyed", ["append", "decide"])
@pytest.mark.parametrize("column", ["name", "digest", "answer", "expires_us", '"check"'])
def test_a_key_beside_a_damaged_one_is_taken(
    server: PostgresServer, stream: str, journal: Journal, column: str, keyed: str
) -> None:
    """Only what was recorded under the damaged key is refused, whatever of it was changed; the check tells it."""
    old = IdempotencyKey(b"mm", b"d", HOUR_US)
    use_key(journal, old, keyed)
    ((right,),) = server.ask(f"SELECT {column} FROM {stream}.idempotency_keys")
    wrong = right ^ 1 << 33 if isinstance(right, int) else right[:-1] + bytes([right[-1] ^ 1]) if right else b"x"
    server.ask(f"UPDATE {stream}.idempotency_keys SET {column} = %s", wrong)
    for name in (b"aa", b"zz"):
        for _ in range(2):
            use_key(journal, IdempotencyKey(name, b"d", HOUR_US), keyed)
    for how in ("find", keyed):
        with pytest.raises(JournalDamaged):
            use_key(journal, old, how)
    assert len(values(journal)["default"]) == 3
    assert len(list(engine_of(server.journal_url(stream)).find_damage())) == 1


@pytest.mark.parametrize("at", [2, 13, 31], ids="from byte {} on".format)
def test_a_key_is_not_forgotten_by_damage_to_its_name_and_more(
    server: PostgresServer, stream: str, journal: Journal, at: int
) -> None:
    """Where name, digest and answer are overwritten from some byte of the name on, what was recorded under it is
    refused: the upper half of its check proves the name without them.
    """
    dice = random.Random(at)
    key = IdempotencyKey(dice.randbytes(32), b"digest" * 5, HOUR_US)
    for each in (key, *(IdempotencyKey(dice.randbytes(32), b"d", HOUR_US) for _ in range(40))):
        use_key(journal, each, "append")
    wrong = key.name[:at] + b"\xff" * (32 - at)
    change = f"UPDATE {stream}.idempotency_keys SET name = %s, digest = %s, answer = %s WHERE name = %s"
    server.ask(change, wrong, b"\xff" * 30, b"\xff", key.name)
    for how in ("find", "append", "decide"):
        with pytest.raises(JournalDamaged):
            use_key(journal, key, how)


def test_a_key_is_not_forgotten_by_a_changed_expiry(server: PostgresServer, stream: str, journal: Journal) -> None:
    """Housekeeping leaves what is damaged, and a retry under it is refused, however little was changed."""
    key = IdempotencyKey(b"k", b"d", HOUR_US)
    journal.append(event()._replace(answer=b"first"), key=key)
    ((right,),) = server.ask(f"SELECT expires_us FROM {stream}.idempotency_keys")
    for bit in (50, 32, 31, 20, 0):
        server.ask(f"UPDATE {stream}.idempotency_keys SET expires_us = %s", right ^ 1 << bit)
        journal.settled_us = lambda: right + HOUR_US
        journal.maintain()
        with pytest.raises(JournalDamaged):
            journal.append(event(), key=key)
        server.ask(f"UPDATE {stream}.idempotency_keys SET expires_us = %s", right)
    assert len(values(journal)["default"]) == 1
    journal.maintain()
    assert server.ask(f"SELECT count(*) FROM {stream}.idempotency_keys") == [(0,)]


def test_the_server_and_we_prove_a_key_alike(server: PostgresServer) -> None:
    """The upper half of a key's check, in SQL and in Python."""
    dice = random.Random(1)
    for _ in range(50):
        name, expires_us = dice.randbytes(dice.randrange(40)), dice.randrange(1 << 52)
        sql = KEY_PLACE_SQL.format(name="%s::bytea", expires_us="%s::bigint").replace("% 2147", "%% 2147")
        assert server.ask(f"SELECT {sql}", expires_us, name) == [(key_place(name, expires_us),)]


# What an append of schema 1 and 2 does with a key, once it has the lock; the first writes this check.
_OLD_APPEND = """
ALTER TABLE {stream}.idempotency_keys RENAME TO keys;
ALTER INDEX {stream}.idempotency_keys_pkey RENAME TO keys_pkey;
ALTER INDEX {stream}.idempotency_keys_by_expiry RENAME TO keys_by_expiry;
DROP FUNCTION {stream}.append_3;
CREATE FUNCTION {stream}.append(name bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1937006964, '{stream}.meta'::regclass::oid::integer);
    INSERT INTO {stream}.records
    SELECT r.position + 1, r.id, r.appended_us, r."check" + 1, r.payload
    FROM {stream}.records r ORDER BY position DESC LIMIT 1;
    INSERT INTO {stream}.keys SELECT append.name, k.digest, k.answer, k.expires_us, k.expires_us + 5
    FROM {stream}.keys k LIMIT 1;
END $$;
UPDATE {stream}.meta SET schema_version = {version};
"""


def make_old(server: PostgresServer, stream: str, version: int) -> None:
    """The tables as schema `version` had them, but for the checks of keys."""
    server.ask(_OLD_APPEND.replace("{stream}", stream).replace("{version}", str(version)))


_CHECK_OF_1 = 'expires_us + ("check" & 4294967295)'


@pytest.mark.parametrize(("version", "of_1"), [(1, "true"), (2, "name = 'k1'")])
def test_keys_of_older_schemas_are_brought_up_to_date(
    server: PostgresServer, stream: str, role: str, caplog: pytest.LogCaptureFixture, version: int, of_1: str
) -> None:
    """At the opening, with the function: what was whole is, also keys of schema 1 that an upgrade to 2 left; what was
    damaged stays so, and an older version refuses. A role that may not make the function is told who can.
    """
    keys = [IdempotencyKey(b"k%d" % number, b"d", HOUR_US) for number in range(3)]
    with closing(open_journal(server.journal_url(stream))) as journal:
        for key in keys:
            journal.append(event()._replace(answer=b"first"), key=key)
    server.ask(f'UPDATE {stream}.idempotency_keys SET "check" = {_CHECK_OF_1} WHERE {of_1}')
    server.ask(f"""UPDATE {stream}.idempotency_keys SET "check" = "check" # 1 WHERE name = 'k2'""")
    make_old(server, stream, version)
    server.ask(f"GRANT USAGE ON SCHEMA {stream} TO {role}")
    server.ask(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {stream} TO {role}")
    with pytest.raises(JournalRefused, match="start statsapi once as the owner"):
        open_journal(server.journal_url(stream, user=role))
    with caplog.at_level(logging.INFO, "statsapi"), closing(open_journal(server.journal_url(stream))) as journal:
        assert f"from schema {version} to 3" in caplog.text
        assert [journal.find_answer(key) for key in keys[:2]] == [b"first"] * 2
        assert journal.append(event(), key=keys[0]).replayed
        with pytest.raises(JournalDamaged):
            journal.find_answer(keys[2])
    assert server.ask(f"SELECT schema_version FROM {stream}.meta") == [(3,)]
    assert server.ask(f"SELECT to_regproc('{stream}.append')") == [(None,)]
    with closing(open_journal(server.journal_url(stream, user=role))) as journal:
        assert journal.append(event(), key=keys[0]).replayed


def test_schemas_that_are_swapped_while_services_run(server: PostgresServer, stream: str, journal: Journal) -> None:
    """It is told as another history, and from then on each journal writes where it reads."""
    with closing(open_journal(server.journal_url(f"{stream}_b"))) as other:
        for each, value in ((journal, 1.0), (other, 2.0)):
            each.append(event(value))
            assert each.read(START).records == 1
        names = ((stream, f"{stream}_c"), (f"{stream}_b", stream), (f"{stream}_c", f"{stream}_b"))
        server.ask("; ".join(f"ALTER SCHEMA {old} RENAME TO {new}" for old, new in names))
        for each in (journal, other):
            with pytest.raises(HistoryChanged):
                each.read(START)
        for each, value in ((journal, 3.0), (other, 4.0)):
            each.append(event(value))
        assert [values(each) for each in (journal, other)] == [{"default": [2.0, 3.0]}, {"default": [1.0, 4.0]}]


def waiters(server: PostgresServer) -> int:
    ((count,),) = server.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    return int(count)


@contextlib.contextmanager
def lock_held(server: PostgresServer, stream: str) -> Iterator[psycopg.Connection]:
    """The write lock, taken by a writer that says nothing."""
    with psycopg.connect(server.journal_url(stream).partition("?")[0]) as connection:
        connection.execute(f"SELECT pg_advisory_xact_lock(1937006964, '{stream}.meta'::regclass::oid::integer)")
        yield connection


@pytest.mark.parametrize("version", [1, 2])
def test_an_append_that_waits_while_the_journal_is_upgraded_leaves_nothing(
    server: PostgresServer, stream: str, version: int
) -> None:
    """A call of the old function that waits for the lock in its body goes on after the upgrade: it fails, with its
    record and its key, and the journal is whole.
    """
    url, key = server.journal_url(stream), IdempotencyKey(b"k", b"d", HOUR_US)
    with closing(open_journal(url)) as journal:
        journal.append(event()._replace(answer=b"first"), key=key)
    if version == 1:
        server.ask(f'UPDATE {stream}.idempotency_keys SET "check" = {_CHECK_OF_1}')
    make_old(server, stream, version)
    failures: list[psycopg.Error] = []

    def append_as_of_old() -> None:
        try:
            server.ask(f"SELECT {stream}.append('old')")
        except psycopg.Error as error:
            failures.append(error)

    before = waiters(server)
    opened: list[Journal] = []
    upgrade, old = (
        threading.Thread(target=lambda: opened.append(open_journal(url))),
        threading.Thread(target=append_as_of_old),
    )
    with lock_held(server, stream):
        upgrade.start()
        wait_until(lambda: waiters(server) == before + 1, "the upgrade to wait")
        old.start()
        wait_until(lambda: waiters(server) == before + 2, "the old append to wait")
    upgrade.join()
    old.join()
    with closing(opened[0]) as journal:
        assert [error.sqlstate for error in failures] == ["42P01"]
        assert server.ask(f"SELECT name FROM {stream}.idempotency_keys") == [(b"k",)]
        assert values(journal) == {"default": [1.0]}
        assert journal.append(event(), key=key).replayed
        assert journal.append(event(), key=IdempotencyKey(b"l", b"d", HOUR_US)).mark is not None
    assert list(engine_of(url).find_damage()) == []


def test_an_upgrade_that_others_keep_waiting(
    server: PostgresServer, stream: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads the table of keys for too long: that is said, nothing is changed, and the next try succeeds."""
    journal.append(event())
    make_old(server, stream, 2)
    monkeypatch.setattr("statsapi.journal.postgres_tables.MAKE_S", 0.1)
    place = f"host={server.directory} port={server.port} user=postgres dbname=postgres"
    with closing(psycopg.connect(place)) as reader:
        reader.execute(f"SELECT count(*) FROM {stream}.keys")
        with pytest.raises(JournalUnavailable, match=r"could not be brought up to date.*tried again"):
            open_journal(server.journal_url(stream))
    with closing(open_journal(server.journal_url(stream))) as upgraded:
        assert values(upgraded) == {"default": [1.0]}


@pytest.mark.parametrize("version", [0, 2])
def test_services_that_start_at_the_same_time(server: PostgresServer, stream: str, version: int) -> None:
    """One of them makes or upgrades the tables, all others wait for it, and each records."""
    if version:
        with closing(open_journal(server.journal_url(stream))) as journal:
            journal.append(event())
        make_old(server, stream, version)
    failed: list[Exception] = []

    def start() -> None:
        try:
            with closing(open_journal(server.journal_url(stream))) as journal:
                journal.append(event())
        except (JournalRefused, JournalUnavailable) as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(open_journal(server.journal_url(stream))) as journal:
        assert len(values(journal)["default"]) == 6 + bool(version)


def test_a_start_that_comes_second_leaves_the_function_as_it_is(
    server: PostgresServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that start at one time both see an old function. The second made it again, while the first one's session was
    at it: that append failed, as its function was gone.
    """
    url, alone = server.journal_url(stream), Tables._alone
    with closing(open_journal(url)) as journal:
        journal.append(event())
    make_old(server, stream, 2)
    made: list[Any] = []

    def function() -> Any:
        ours = "SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = "
        return server.ask(f"{ours}'{stream}' AND p.proname LIKE 'append%'")

    @contextlib.contextmanager
    def after_another(self: Tables, session: Any) -> Iterator[None]:
        if not made:
            made.append(function())
            with closing(open_journal(url)) as other:
                other.append(event())
            made.append(function())
        with alone(self, session):
            yield

    monkeypatch.setattr(Tables, "_alone", after_another)
    with closing(open_journal(url)) as journal:
        assert len(values(journal)["default"]) == 2
    assert function() == made[1] != made[0]


def test_a_worker_whose_journal_was_upgraded_says_so(server: PostgresServer, stream: str, journal: Journal) -> None:
    """Also where its append waited for the lock meanwhile: nothing is recorded, and it is told to restart."""
    journal.append(event(1.0))
    failures: list[BaseException] = []

    def append() -> None:
        try:
            journal.append(event(2.0), key=IdempotencyKey(b"k", b"d", HOUR_US))
        except JournalUnavailable as error:
            failures.append(error)

    waiting, before = threading.Thread(target=append), waiters(server)
    with lock_held(server, stream) as connection:
        waiting.start()
        wait_until(lambda: waiters(server) == before + 1, "the append to wait")
        connection.execute(f"UPDATE {stream}.meta SET schema_version = 4")
    waiting.join()
    assert "another version has upgraded this journal" in str(failures[0])
    with pytest.raises(JournalRefused, match=r"upgraded the journal .* to schema 4.*restart this service"):
        journal.append(event(3.0))
    assert server.ask(f"SELECT count(*) FROM {stream}.records") == [(1,)]


def id_at(server: PostgresServer, stream: str, position: int) -> bytes:
    ((found,),) = server.ask(f"SELECT id FROM {stream}.records WHERE position = {position}")
    return bytes(found)


def read_all(journal: Journal, key: IdempotencyKey) -> None:
    checkpoint = journal.read_checkpoint()
    if checkpoint is None:
        raise HistoryChanged("there was a checkpoint")
    assert journal.read_pieces(checkpoint.id, 0, 9) == [(1, b"one"), (2, b"two")]
    assert len(values(journal, checkpoint.mark)["default"]) == 18
    assert journal.find_answer(key) == b"first"


def test_the_command_tells_damage(server: PostgresServer, stream: str, journal: Journal) -> None:
    """`statsapi journal check` reads all; there is nothing to salvage or to back up from here."""
    for _ in range(3):
        journal.append(event())
    url = server.journal_url(stream)
    assert list(engine_of(url).find_damage()) == []
    environment = {**os.environ, "STATSAPI_JOURNAL": url}
    for command, told in (("info", "records:        3"), ("check", "everything is what was written")):
        line = [sys.executable, "-m", "statsapi", "journal", command]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, told in done.stdout) == (0, True), done.stdout + done.stderr
    server.ask(f"UPDATE {stream}.records SET appended_us = 5 WHERE position = 2")
    (said,) = engine_of(url).find_damage()
    assert "record 2 " in said
    line = [sys.executable, "-m", "statsapi", "journal", "check"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "fail over" in done.stderr, "salvage" in done.stderr) == (1, True, False)
    with pytest.raises(JournalRefused, match="lives in PostgreSQL: fail over to a standby"):
        engine_of(url).salvage("x.db")


# History


def test_an_older_copy_is_noticed_by_all(server: PostgresServer, stream: str, opened: Callable[..., Journal]) -> None:
    """Who read, or appended, a record that is gone is told so once, also where its view stands before it."""
    appender, reader = opened(), opened()
    marks = [mark_of(appender.append(event(float(number)))) for number in range(6)]
    assert reader.read(marks[1]).records == 4
    behind = appender.read(START, limit_records=2).mark  # its view has not read what it appended
    server.ask(f"DELETE FROM {stream}.records WHERE position > 4")
    with pytest.raises(HistoryChanged) as changed:
        reader.read(marks[5])
    assert changed.value.lost is not None
    assert changed.value.lost.records == 2
    with pytest.raises(HistoryChanged) as changed:
        appender.read(behind)
    assert changed.value.lost is not None
    assert (changed.value.lost.records, "older copy" in changed.value.lost.how) == (2, True)
    assert len(values(appender)["default"]) == 4
    for each in (appender, reader):
        each.append(event(9.0))
        assert values(each)["default"][:4] == [0.0, 1.0, 2.0, 3.0]


def test_an_older_copy_that_grew_again_is_noticed(
    server: PostgresServer, stream: str, opened: Callable[..., Journal]
) -> None:
    """Another record at the position that a process appended at is another history."""
    one, other = opened(), opened()
    for number in range(4):
        one.append(event(float(number)))
    mark = one.read(START, limit_records=2).mark
    server.ask(f"DELETE FROM {stream}.records WHERE position > 2")
    for number in range(5):
        other.append(event(10.0 + number))
    with pytest.raises(HistoryChanged):
        one.read(mark)
    assert values(one)["default"] == [0.0, 1.0, 10.0, 11.0, 12.0, 13.0, 14.0]


@pytest.mark.parametrize(("others", "ours"), [(0, 1), (0, 3), (0, 4), (1, 0), (1, 1), (3, 1), (4, 1), (4, 9)])
def test_a_lost_end_is_noticed_however_much_came_after_it(
    server: PostgresServer, stream: str, opened: Callable[..., Journal], others: int, ours: int
) -> None:
    """Also by a process that has appended beyond the lost positions before it reads again."""
    one, other = opened(), opened()
    mark = [one.append(event(1.0)).mark for _ in range(3)][-1]
    one.read(START)
    other.read(START)
    for _ in range(3):
        one.append(event(9.0))
    server.ask(f"DELETE FROM {stream}.records WHERE position > 3")  # as in a standby that had not got them
    for _ in range(others):
        other.append(event(2.0))
    for _ in range(ours):
        one.append(event(2.0))
    with pytest.raises(HistoryChanged) as changed:
        one.read(mark)
    assert changed.value.lost is not None
    assert values(one)["default"] == [1.0] * 3 + [2.0] * (others + ours)


def test_a_journal_that_was_dropped_is_made_again_by_a_start_only(
    server: PostgresServer, stream: str, opened: Callable[..., Journal]
) -> None:
    """Who runs refuses, and says what happened and what to do; after a new start every view is told that its history is
    another one.
    """
    one, other = opened(), opened()
    mark = mark_of(one.append(event(1.0)))
    other.read(START)
    server.ask(f"DROP SCHEMA {stream} CASCADE")
    with pytest.raises(JournalUnavailable, match="are gone"):
        one.append(event(2.0))
    for _ in range(2):
        with pytest.raises(JournalRefused, match="was dropped while this service was running"):
            one.append(event(2.0))
    assert server.ask(f"SELECT to_regnamespace('{stream}')") == [(None,)]
    opened().append(event(3.0))
    for journal in (one, other):
        with pytest.raises((HistoryChanged, JournalUnavailable)):
            journal.read(mark)
        assert values(journal) == {"default": [3.0]}


def test_a_journal_without_its_meta_is_no_other_programs(
    server: PostgresServer, stream: str, opened: Callable[..., Journal]
) -> None:
    """Its records are there: who starts and who runs says what is gone, and advises no other name and no restart."""
    one = opened()
    one.append(event(1.0))
    server.ask(f"DROP TABLE {stream}.meta")
    said = f'of the schema "{stream}" meta is gone: restore a backup'
    for _ in range(2):
        with pytest.raises((JournalRefused, JournalUnavailable)) as refused:
            one.append(event(2.0))
    assert said in str(refused.value)
    with pytest.raises(JournalRefused, match=said):
        open_journal(server.journal_url(stream))
    with pytest.raises(JournalRefused, match=said):
        list(engine_of(server.journal_url(stream)).find_damage())
    assert server.ask(f"SELECT count(*) FROM {stream}.records") == [(1,)]


@pytest.mark.parametrize("table", ["records", "checkpoint", "pieces", "idempotency_keys", "meta", ""])
def test_a_service_whose_table_was_dropped_is_not_ready(
    server: PostgresServer, stream: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One table or the whole schema, dropped under a running service: /readyz, questions and writes are 503 that say
    what is gone, the log has an ERROR line and no traceback, and nothing is made anew.
    """
    app = make_app(server.journal_url(stream))
    client, service = app.test_client(), app.extensions["statsapi"]
    sent = {"timestamp": format_timestamp(time.time_ns() // 1000), "value": 1.0}
    assert client.post("/event", json=sent).status_code == 200
    assert client.get("/statistics").json["count"] == 1
    assert client.get("/readyz").status_code == 200
    server.ask(f"DROP TABLE {stream}.{table}" if table else f"DROP SCHEMA {stream} CASCADE")
    service._checked_us = None
    assert client.get("/readyz").status_code == 503
    service._housekeeping._background = True
    service._housekeeping.begin()
    said = "Housekeeping waits for the journal: "
    wait_until(lambda: any(record.levelname == "ERROR" for record in caplog.records), "the line")
    for _ in range(2):
        service._checked_us = None
        refused = client.get("/readyz")
        assert (refused.status_code, refused.json["type"]) == (503, "urn:statsapi:problem:journal-refused")
        assert (table or "schema") in refused.json["detail"]
        assert "restore a backup" in refused.json["detail"]
        assert client.get("/statistics").status_code == 503
        assert client.post("/event", json=sent, headers={"Idempotency-Key": "k"}).status_code == 503
    errors = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert errors == {said + refused.json["detail"]}
    assert "Traceback" not in caplog.text
    assert server.ask(f"SELECT to_regclass('{stream}.{table or 'meta'}')") == [(None,)]
    service.close()


def test_compaction_is_no_loss(opened: Callable[..., Journal]) -> None:
    """A view whose last record was compacted starts afresh, and nothing is told as lost."""
    one, other = opened(), opened()
    marks = [mark_of(one.append(event(float(number)))) for number in range(6)]
    other.read(START)
    assert one.replace_prefix(None, checkpoint_at(marks[4]))
    one.maintain()
    with pytest.raises(HistoryChanged) as changed:
        one.read(marks[2])
    assert changed.value.lost is None
    assert other.read(marks[5]).records == 0


# The tables


def test_dead_records_and_keys_leave_the_disk(server: PostgresServer, stream: str, journal: Journal) -> None:
    """Housekeeping deletes in order of position, goes on where it stopped, and vacuum can use the space again."""
    previous = None
    for number in range(3):
        key = IdempotencyKey(b"k%d" % number, b"d", 1)
        last = [journal.append(event(float(each)), key=key if each == 0 else None) for each in range(200)][-1]
        offer = checkpoint_at(mark_of(last), last.appended_us)
        assert journal.replace_prefix(previous, offer)
        previous = offer.id
        journal.maintain()
        assert server.ask(f"SELECT count(*) FROM {stream}.records") == [(0,)]
    journal.read(mark_of(last))
    journal.maintain()
    assert server.ask(f"SELECT count(*) FROM {stream}.idempotency_keys") == [(0,)]
    assert mark_of(journal.append(event())).position == 601
    options = server.ask(f"SELECT reloptions FROM pg_class WHERE oid = '{stream}.records'::regclass")
    assert any("autovacuum_vacuum_scale_factor=0" in each for each in options[0][0])


def test_a_firewall_that_swallows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that never answers costs the time to connect, not a hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(JournalUnavailable, match="cannot be reached"):
            open_journal(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/db")
        assert time.monotonic() - began < 10
