"""What is common to all commands of `statsapi`: help, which service, errors and exit statuses, with real servers."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import pytest

from statsapi.cli.main import COMMANDS, program
from statsapi.keys import new_key
from tests.command_line import COMMAND, forget_surroundings, run, run_process
from tests.servers import ROOT, Server, free_port, statsapi_serve


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_surroundings(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    with statsapi_serve(folder, "--port", "0", "--workers", "1", "--journal", "memory://") as started:
        yield started


def every_command() -> list[list[str]]:
    """The words of each command and each of its own."""
    found = []
    context = click.Context(program)
    for name in COMMANDS:
        found.append([name])
        command = program.get_command(context, name)
        if isinstance(command, click.Group):
            found += [[name, each] for each in command.list_commands(context)]
    return found


# Help


def test_help_lists_every_command_as_it_calls_itself() -> None:
    """The table that --help prints without importing them says what they say."""
    context = click.Context(program)
    for name, (_, line) in COMMANDS.items():
        command = program.get_command(context, name)
        assert command is not None
        assert (command.short_help or command.get_short_help_str(200)) == line, name
    said = run_process("--help")
    assert said.status == 0
    assert all(f"  {name} " in said.out for name in COMMANDS)


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_each_help_has_an_example_of_it(words: list[str]) -> None:
    """`--help` ends with 0 and an example that begins as the command does, with options that it has."""
    said = run(*words, "--help")
    assert said.status == 0
    if len(words) == 1 and "COMMAND" in said.out.partition("\n")[0]:
        return  # a group: its commands have theirs
    _, _, example = " ".join(said.out.split()).partition("Example: ")
    assert example.startswith(f"statsapi {' '.join(words)}"), said.out


def test_starting_imports_only_what_is_needed() -> None:
    """`--help` and what `serve` begins with load neither the client nor numpy, nor another command."""
    code = (
        "import sys; from statsapi.cli.main import main; main(['--help']); "
        "print(sorted({'numpy', 'flask', 'marshmallow', 'urllib3', 'rich', 'statsapi.cli.journal'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    """The script of each shell, and what it asks for at `statsapi j<TAB>` and `statsapi series --j<TAB>`."""
    assert "statsapi" in run_process(env={"_STATSAPI_COMPLETE": f"{shell}_source"}).out
    for words, found in (("statsapi j", "journal"), ("statsapi series --j", "--json"), ("statsapi keys n", "new")):
        last = words.split()[-1]
        env = {
            "_STATSAPI_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": last if shell == "fish" else str(len(words.split()) - 1),
        }
        assert found in run_process(env=env).out


# Which service


def test_the_command_line_the_variable_and_the_file_say_which_service(server: Server, tmp_path: Path) -> None:
    """In that order; a file's key goes to the file's URL only, and a file that others may read is warned of."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    file = tmp_path / ".config" / "statsapi.toml"
    file.parent.mkdir()
    file.write_text(f'url = "{server.target}"\nkey = "statsapi_x"\ntimeout = 20\n')
    file.chmod(0o600)
    assert run("series", "none") == (0, "SERIES  EVENTS  FIRST  LAST\n", "")
    assert run("series", env={"STATSAPI_URL": nowhere}).status == 69
    assert run("series", "--url", server.target, env={"STATSAPI_URL": nowhere}).status == 0
    file.chmod(0o640)
    said = run("series", env={"STATSAPI_CONFIG": str(file)})
    assert (said.status, said.err) == (
        0,
        f"statsapi: warning: other users may read the key in {file}: chmod 600 {file}\n",
    )


def test_the_key_of_the_file_is_not_sent_elsewhere(tmp_path: Path) -> None:
    """`--url` with another place goes without it; one of --key or the variable goes along."""
    seen: list[str | None] = []
    with answering(b'{"series": [], "next": null}', 200, seen) as url:
        file = tmp_path / "file.toml"
        file.write_text('url = "http://127.0.0.1:1"\nkey = "statsapi_secret"\n')
        file.chmod(0o600)
        run("series", "--url", url, env={"STATSAPI_CONFIG": str(file)})
        run("series", "--url", url, env={"STATSAPI_CONFIG": str(file), "STATSAPI_API_KEY": "one"})
        file.write_text(f'url = "{url}/"\nkey = "statsapi_secret"\n')
        run("series", env={"STATSAPI_CONFIG": str(file)})
    assert seen == [None, "Bearer one", "Bearer statsapi_secret"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("url = ", "Invalid value"),
        ('urls = "x"', "urls is no setting; there are url, key, ca_file, timeout"),
        ("url = 5", 'url must be text in quotes: "…"'),
        ("timeout = 0", "timeout must be a number of seconds, 3600 at most"),
        ("timeout = true", "timeout must be a number"),
        (
            'url = "ftp://x"',
            "the URL must begin with http:// or https://, as http://127.0.0.1:8000 does (it came from ",
        ),
        ('key = "schlüssel"', "the API key holds characters that no key has (it came from "),
        (None, "which is not there"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    """One line with the file and what is wrong in it, status 78."""
    file = tmp_path / "file.toml"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    done = run("series", env={"STATSAPI_CONFIG": str(file)})
    assert (done.status, done.out, done.err.count("\n")) == (78, "", 1)
    assert said in done.err
    assert str(file) in done.err


# What goes wrong


@contextmanager
def answering(body: bytes, status: int, keys: list[str | None] | None = None, **headers: str) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if keys is not None:
                keys.append(self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


@contextmanager
def silent(answer: bytes | None) -> Iterator[str]:
    """A place that takes connections and ends them with `answer`; None: it never does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = []

        def take() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                taken.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


PROBLEM = b'{"type": "urn:statsapi:problem:%s", "title": "No", "detail": "%s"}'


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        (lambda: answering(b"<html>Bad\x1b[31m Gateway</html>", 502), 75, "is the service running?"),
        (lambda: answering(b"<title>Error</title><p>\x1b", 501), 69, "answered 501: a page, Error; is that statsapi"),
        (lambda: answering(b"<html>Log in</html>", 200), 69, "so this is not statsapi"),
        (lambda: answering(b"<html>Not found</html>", 404), 69, "is that statsapi, and the path of --url right?"),
        (lambda: answering(b"", 301, Location="https://x/"), 69, "redirects to https://x/; give --url that URL"),
        (lambda: answering(b"400 The plain HTTP request was sent to HTTPS port", 400), 69, "write https://"),
        (lambda: answering(b"<html></html>", 401), 77, "give a key by --key, STATSAPI_API_KEY or"),
        (lambda: answering(PROBLEM % (b"forbidden", b"the key lacks read"), 403), 77, "the key lacks read"),
        (lambda: answering(PROBLEM % (b"rate-limited", b"slower"), 429, Retry_After="7"), 75, "slower; try again in 7"),
        (lambda: answering(PROBLEM % (b"not-ready", b"replaying"), 503), 75, "replaying"),
        (lambda: answering(PROBLEM % (b"internal", b"oh"), 500), 75, "oh"),
        (
            lambda: answering(PROBLEM % (b"not-found", b"no such path"), 404),
            1,
            "the service is older than this command",
        ),
        (lambda: answering(PROBLEM % (b"validation", b"match: is wrong"), 422), 1, "match: is wrong"),
        (lambda: answering(b'{"unexpected": 1}', 200), 69, "so this is not statsapi"),
        (lambda: answering(b"[]", 200), 69, "so this is not statsapi"),
        (lambda: silent(b""), 69, "ended the connection without an answer"),
        (lambda: silent(b"\x00\x01\x02 no HTTP\r\n"), 69, "ended the connection without an answer"),
        (lambda: silent(None), 69, "did not answer in time; --timeout waits longer"),
    ],
)
def test_what_another_answers_is_told_in_one_line(
    place: Callable[[], AbstractContextManager[str]], status: int, said: str
) -> None:
    """HTML of a proxy, redirects, refusals, silence: a status that says what kind, the cure, no codes for terminals."""
    with place() as url:
        done = run("series", "--url", url, "--timeout", "0.5")
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1), done
    assert said in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"events": 1}', b"<html></html>"])
def test_an_export_is_the_services(body: bytes, tmp_path: Path) -> None:
    """Another server's 200 is no export: 69, nothing printed, and no file."""
    target = tmp_path / "events.csv"
    kind = "text/html" if body.startswith(b"<") else "application/json"
    with answering(body, 200, Content_Type=kind) as url:
        for arguments in ([], ["-o", str(target)], ["--form", "ndjson"], ["--form", "influx"]):
            done = run("export", *arguments, "--url", url)
            assert (done.status, done.out, done.err.count("\n")) == (69, "", 1)
            assert "so this is not statsapi" in done.err
        for command in (["check", "max<5"], ["stats"], ["top"], ["tags"], ["series"]):
            assert run(*command, "--url", url)[:2] == (69, "")
    assert not target.exists()


def test_an_answer_that_breaks_off_is_told(tmp_path: Path) -> None:
    """In words, without Python's, and not as a matter of TLS; by `doctor` too."""
    half = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 500\r\n\r\n{"
    for command, said in (
        (["series", "--url"], "statsapi: the answer of {} broke off; try again\n"),
        (["export", "--url"], "statsapi: the export broke off after 0 bytes; try again\n"),
    ):
        with silent(half) as url:
            done = run(*command, url)
            assert (done.status, done.err) == (69, said.format(url))
    with silent(half) as url:
        assert f"the answer of {url} broke off\n" in run("doctor", url).out


def test_a_file_that_cannot_be_written_is_named(server: Server) -> None:
    """As it was typed."""
    done = run("export", "-o", "/nonexistent/x", "--url", server.target)
    assert (done.status, done.err) == (1, "statsapi: /nonexistent/x: No such file or directory\n")


def test_nobody_is_there(server: Server) -> None:
    """Nothing listens, a name that nobody has, TLS where there is none, and addresses that are none."""
    for url, status, said in (
        (f"http://127.0.0.1:{free_port()}", 69, "nothing listens at"),
        ("http://no.such.host.invalid", 69, "the host no.such.host.invalid is not known"),
        (server.target.replace("http:", "https:"), 69, "does not speak TLS there"),
        ("127.0.0.1:8000", 2, "is no URL such as"),
        ("http://", 2, "the URL names no host: it is one such as http://127.0.0.1:8000"),
        ("ftp://user:secret@h", 2, "the URL must begin with http:// or https://"),
        ("http://user:x@h", 2, "no query, fragment or user"),
        ("http://a b", 69, "is no URL: Host 'a b' contains"),
        ("http://a..b", 69, "is no URL: 'a..b', label empty"),
        ("http://[::1", 2, "invalid IPv6"),
        (f"{server.target}/elsewhere", 1, "the path of --url is wrong"),
        (f"{server.target}\r\nX: y", 2, "is no URL"),
        ("http://127.0.0.1:99999", 2, "port is not a number up to 65535"),
        ("http://user:secret/", 2, "port is not a number up to 65535"),
        ("user:secret@h", 2, "is no URL such as"),
    ):
        done = run("series", "--url", url)
        assert "secret" not in done.err
        assert (done.status, done.out, done.err.count("\n")) == (status, "", 1), done
        assert said.lower() in done.err.lower()


def test_keys_are_asked_for_and_refused(tmp_path: Path) -> None:
    """Without a key, with an unknown one, and with one that may not read: 77 each, and what to do."""
    (reader, reads), (writer, writes) = new_key(["read"], "r"), new_key(["write"], "w")
    env = {"STATSAPI_API_KEYS": f"{reads.line()};{writes.line()}"}
    folder = tmp_path / "served"
    folder.mkdir()
    with statsapi_serve(folder, "--port", "0", "--workers", "1", "--journal", "memory://", env=env) as server:
        at = ("series", "--url", server.target)
        assert run(*at, env={"STATSAPI_API_KEY": reader}).status == 0
        for arguments, said in (
            ((), "give a key by --key"),
            (("--key", reader[:-1]), "give a key by"),
            (("--key", writer), "read"),
        ):
            done = run(*at, *arguments)
            assert (done.status, done.err.count("\n")) == (77, 1)
            assert said in done.err


def test_wrong_command_lines_are_one_line() -> None:
    """Status 2, and where the help is; bytes that are no text too."""
    for arguments, said in (
        (["nope"], "no such command 'nope'"),
        (["series", "--nope"], "no such option '--nope' (see"),
        (["--url", "http://127.0.0.1:1", "series"], "'--url'; the options of a command stand behind its name (see"),
        (["series", "a", "b"], "unexpected extra argument"),
        (["series", "--timeout", "0"], "--timeout: "),
        (["series", "--url"], "requires an argument"),
        (["keys", "new"], "missing option '--scope'"),
        (["series", b"\xff", "--url", "http://127.0.0.1:1"], "not text in UTF-8"),
    ):
        done = run_process(*arguments)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done
        assert said in done.err


def test_the_output_ends_before_the_command(server: Server) -> None:
    """A reader that has enough is status 141 in silence; a full disk is a line."""
    command = [*COMMAND, "series", "--url", server.target]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, cwd=ROOT)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, cwd=ROOT)
        assert (done.returncode, done.stderr) == (1, b"statsapi: No space left on device\n")


def test_certificates_that_are_none(tmp_path: Path) -> None:
    """--ca-file without a file, or of something else, is told as that and not as a fault of the server."""
    file = tmp_path / "ca.pem"
    for source, status in (("--ca-file", 2), ("STATSAPI_CA_FILE", 78)):
        arguments, env = (["--ca-file", str(file)], {}) if status == 2 else ([], {"STATSAPI_CA_FILE": str(file)})
        file.unlink(missing_ok=True)
        assert run("series", *arguments, env=env) == (
            *(status, ""),
            f"statsapi: {file}: No such file or directory (it came from {source})\n",
        )
        file.write_text("nothing")
        done = run("series", *arguments, env=env)
        assert (done.status, done.err.count("\n")) == (status, 1)
        assert "holds no certificates in PEM form" in done.err


def test_streams_that_are_closed(server: Server) -> None:
    """`statsapi series >&-`, and the others: no traceback, and the work is done."""
    program_text = f"{sys.executable} -m statsapi"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "STATSAPI_URL": server.target}
    for line, said in (
        ("series >&-", b""),
        ("nope 2>&-", b""),
        ("post - <&-", b"0 recorded\n"),
        ("series <&- >&- 2>&-", b""),
    ):
        done = subprocess.run(["sh", "-c", f"{program_text} {line}"], env=env, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (2 if "nope" in line else 0, said, b""), line


def test_a_terminal_that_cannot_show_a_name(server: Server) -> None:
    """In an encoding without it a name is written as an escape."""
    env = {"STATSAPI_URL": server.target, "PYTHONIOENCODING": "latin-1"}
    assert run_process("post", "1", "--series", "日本", env=env).status == 0
    done = run_process("series", "日", env=env)
    assert (done.status, done.err) == (0, "")
    assert "\\u65e5\\u672c" in done.out
