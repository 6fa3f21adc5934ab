"""JSON Web Tokens beside API keys: who is let in, for what, and every way not to be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError
from statsapi.keys import new_key, redact
from statsapi.tokens import InvalidTokenError, Tokens

SECRET = "0123456789abcdef" * 4
CLAIMS = {"iss": "https://id.example", "aud": "statsapi", "sub": "ada", "scope": "openid read write"}
RSA = rsa.generate_private_key(65537, 2048)
PRIVATE: dict[str, Any] = {
    "RS256": RSA,
    "PS384": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": SECRET.encode(),
    "HS512": SECRET.encode(),
}


def claims(**changed: Any) -> dict[str, Any]:
    made = {**CLAIMS, "exp": int(time.time()) + 300, **changed}
    return {name: value for name, value in made.items() if value is not None}


def token(algorithm: str = "HS256", key: Any = None, kid: str | None = None, **changed: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changed), PRIVATE[algorithm] if key is None else key, algorithm, headers)


def pem(private: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    made: bytes = private.public_key().public_bytes(serialization.Encoding.PEM, form)
    return made.decode()


def settings_of(**given: Any) -> Settings:
    return Settings(journal="memory://", **{"jwt_issuer": CLAIMS["iss"], "jwt_audience": CLAIMS["aud"], **given})


def client_of(**given: Any) -> FlaskClient:
    return create_app(settings_of(**given), background=False).test_client()


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return client_of(jwt_key=SECRET)


def ask(client: FlaskClient, sent: str, path: str = "/statistics") -> Any:
    return client.get(path, headers={"Authorization": f"Bearer {sent}"})


def refused(client: FlaskClient, sent: str) -> str:
    answer = ask(client, sent)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert sent not in answer.text
    said: str = answer.json["detail"]
    return said


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_each_kind_of_key_takes_its_algorithms(algorithm: str) -> None:
    """A secret, RSA, two curves and Ed25519; and no key takes a token of another kind."""
    private = PRIVATE[algorithm]
    client = client_of(jwt_key=SECRET if isinstance(private, bytes) else pem(private))
    assert ask(client, token(algorithm)).status_code == 200
    for other in PRIVATE:
        if type(PRIVATE[other]) is not type(private):
            assert "signed with an algorithm that does not fit" in refused(client, token(other))


def test_scopes_are_those_of_the_token(client: FlaskClient) -> None:
    """write and read open what they open for API keys; words of others open nothing; a list is taken as well."""
    event = {"timestamp": time.time(), "value": 1}
    for scope, may_read, may_write, may_all in (
        ("read", 200, 403, 403),
        ("openid write", 403, 200, 403),
        ("admin", 200, 200, 200),
        (["read", "write", 7], 200, 200, 403),
        ("", 403, 403, 403),
        (None, 403, 403, 403),
        ("READ", 403, 403, 403),
        (7, 403, 403, 403),
        ({"admin": 1}, 403, 403, 403),
        ([["admin"], None], 403, 403, 403),
    ):
        headers = {"Authorization": f"Bearer {token(scope=scope)}"}
        assert client.get("/statistics", headers=headers).status_code == may_read
        assert client.post("/event", json=event, headers=headers).status_code == may_write
        assert client.get("/debug/events", headers=headers).status_code == may_all
    answer = client.post("/event", json=event, headers={"Authorization": f"Bearer {token(scope='read')}"})
    assert answer.json["detail"] == "This needs the scope write, which this token does not have."


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"exp": int(time.time()) - 3600}, "it has expired"),
        ({"nbf": int(time.time()) + 3600}, "it is not valid yet"),
        ({"iat": int(time.time()) + 3600}, "it is not valid yet"),
        ({"aud": "another"}, "it is for another audience (aud)"),
        ({"aud": []}, "it lacks aud"),
        ({"iss": "https://evil.example"}, "it is from another issuer (iss)"),
        ({"exp": None}, "it lacks exp"),
        ({"sub": None}, "it lacks sub"),
        ({"aud": None}, "it lacks aud"),
        ({"iss": None}, "it lacks iss"),
        ({"sub": ""}, "its sub must be 1 to 128 printable characters"),
        ({"sub": "a\nb"}, "its sub must be 1 to 128 printable characters"),
        ({"sub": "a" * 129}, "its sub must be 1 to 128 printable characters"),
        ({"exp": "tomorrow"}, "it is malformed"),
        ({"exp": str(int(time.time()) + 86_400)}, "its exp is not a number"),
        ({"exp": [1]}, "it is malformed"),
    ],
)
def test_what_a_token_says_must_hold(client: FlaskClient, changed: dict[str, Any], said: str) -> None:
    """Each claim that is missing or wrong is named."""
    assert refused(client, token(**changed)) == f"This token is not accepted: {said}."


def test_a_token_that_has_just_expired_is_taken(client: FlaskClient) -> None:
    """Clocks may differ by half a minute; an audience may be one of several."""
    assert ask(client, token(exp=int(time.time()) - 5, aud=["a", "statsapi"])).status_code == 200


def test_a_token_that_was_taken_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered for no longer than it is valid, and no more of them than there is room for."""
    tokens, now_s = Tokens(settings_of(jwt_key=SECRET)), time.time()
    sent = token(exp=int(now_s) + 60)
    assert tokens.find(sent) is tokens.find(sent)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now_s + 60 + 31)
        assert tokens._check(sent)[0] is not tokens.find(sent)  # PyJWT has a clock of its own: it was checked again
    for number in range(1100):
        tokens.find(token(jti=str(number)))
    assert len(tokens._known) <= 1024


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_signature_is_no_way_in(client: FlaskClient) -> None:
    """`none` in any writing, an empty signature, a changed payload, one signed by another."""
    for name in ("none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", None, 7):
        refused(client, f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}.")
        refused(client, f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims())}.{token().rpartition('.')[2]}")
    head, _, signature = token().split(".")
    assert "signature" in refused(client, f"{head}.{part(claims(scope='admin'))}.{signature}")
    assert "signature" in refused(client, token(key=b"f" * 32))


def test_a_public_key_is_no_secret() -> None:
    """Signing by HMAC with the text of the public key, which everybody has, is refused."""
    public = pem(RSA)
    client = client_of(jwt_key=public)
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims(scope='admin'))}"
    for secret in (public, public.strip(), public.replace("\n", "\\n")):
        made = base64.urlsafe_b64encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)).rstrip(b"=")
        assert "signed with an algorithm that does not fit" in refused(client, f"{signed}.{made.decode()}")


@given(text=st.one_of(st.text("eyJ.abc_-=ß \0", max_size=80), st.tuples(st.text(), st.text(), st.text()).map(".".join)))
def test_anything_is_a_401(text: str) -> None:
    """Whatever is sent as a token."""
    with pytest.raises(InvalidTokenError):
        Tokens(settings_of(jwt_key=SECRET)).find(text)


def test_header_tricks_are_not_followed(client: FlaskClient) -> None:
    """A key, a certificate or a URL in the token's own head changes nothing, nor does an odd kid."""
    for trick in ({"jwk": {"kty": "oct", "k": "AA"}}, {"jku": "http://evil/"}, {"x5u": "http://evil"}, {"crit": ["x"]}):
        head = {"alg": "HS256", "typ": "JWT", **trick}
        refused(client, f"{part(head)}.{part(claims())}.AA")
    for kid in (["a"], {"a": 1}, 7, "../../etc/passwd"):
        refused(client, f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims())}.AA")


# A set of keys


def jwks(*keys: tuple[str, str]) -> str:
    return json.dumps({"keys": [jwk(algorithm) | {"kid": kid} for kid, algorithm in keys]})


def jwk(algorithm: str) -> dict[str, Any]:
    private = PRIVATE[algorithm]
    if isinstance(private, bytes):
        return {"kty": "oct", "k": base64.urlsafe_b64encode(private).rstrip(b"=").decode()}
    made: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key()))
    return made


def test_keys_of_a_set_are_found_by_kid(tmp_path: Path) -> None:
    """Each with its own algorithms; without a kid only where there is one key."""
    path = tmp_path / "jwks.json"
    path.write_text(jwks(("a", "RS256"), ("b", "ES256"), ("c", "HS256")))
    client = client_of(jwt_jwks_file=str(path))
    assert ask(client, token("RS256", kid="a")).status_code == 200
    assert ask(client, token("ES256", kid="b")).status_code == 200
    assert ask(client, token("HS256", kid="c")).status_code == 200
    assert "signed with an algorithm that does not fit" in refused(client, token("HS256", kid="a"))
    assert "its key (kid) is not one of this service's keys" in refused(client, token("RS256", kid="d"))
    assert "its key (kid) is not one of this service's keys" in refused(client, token("RS256"))
    one = tmp_path / "one.json"
    one.write_text(jwks(("a", "RS256")))
    assert ask(client_of(jwt_jwks_file=str(one)), token("RS256")).status_code == 200
    one.write_text(json.dumps({"keys": [jwk("RS256") | {"alg": "RS256"}, {"kty": "RSA", "use": "enc"}]}))
    strict = client_of(jwt_jwks_file=str(one))
    assert ask(strict, token("RS256")).status_code == 200
    assert "signed with an algorithm that does not fit" in refused(strict, token("PS384"))


def test_a_changed_set_counts_and_a_broken_one_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Within a second a new key is known and an old one is not; of a faulty file nothing is taken, and it is logged
    once.
    """
    caplog.set_level(logging.INFO, "statsapi")
    path, now_s = tmp_path / "jwks.json", [0.0]
    path.write_text(jwks(("a", "RS256")))
    tokens = Tokens(settings_of(jwt_jwks_file=str(path)), clock_s=lambda: now_s[0])
    old, new = token("RS256", kid="a"), token("ES256", kid="b")
    assert tokens.find(old).id == "jwt:ada"
    path.write_text(jwks(("b", "ES256")))
    assert tokens.find(old).id == "jwt:ada"
    now_s[0] += 1
    assert tokens.find(new).id == "jwt:ada"
    with pytest.raises(InvalidTokenError):
        tokens.find(old)
    for content in ("{", "[]", '{"keys": []}', '{"keys": 7}', '{"keys": [{"kty": "RSA"}]}'):
        path.write_text(content)
        now_s[0] += 1
        assert tokens.find(new).id == "jwt:ada"
        now_s[0] += 1
        assert tokens.find(new).id == "jwt:ada"
    path.unlink()
    now_s[0] += 1
    assert tokens.find(new).id == "jwt:ada"
    said = [record.message for record in caplog.records if "The keys for tokens stay" in record.message]
    assert len(said) == 5  # the second is faulty in the way of the first
    # A worker that starts meanwhile has the keys that the others have.
    assert Tokens(settings_of(jwt_jwks_file=str(path))).find(new).id == "jwt:ada"


def test_what_an_old_key_took_is_not_remembered_under_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the keys change while a token is being checked."""
    path, now_s = tmp_path / "jwks.json", [0.0]
    path.write_text(jwks(("a", "RS256")))
    tokens = Tokens(settings_of(jwt_jwks_file=str(path)), clock_s=lambda: now_s[0])
    check, sent = tokens._check, token("RS256", kid="a")

    def changing(text: str) -> Any:
        found = check(text)
        path.write_text(jwks(("b", "ES256")))
        now_s[0] += 1
        tokens._refresh()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "_check", changing)
        assert tokens.find(sent).id == "jwt:ada"
    with pytest.raises(InvalidTokenError):
        tokens.find(sent)


# Beside API keys, and in logs


def test_keys_and_tokens_work_side_by_side() -> None:
    """A key or a token is enough; a refusal names the one that was sent."""
    key, entry = new_key(["read"], "reader")
    client = client_of(jwt_key=SECRET, api_keys=entry.line())
    assert ask(client, key).status_code == 200
    assert ask(client, token()).status_code == 200
    assert refused(client, "statsapi_unknown") == "This API key is not known; it may have been replaced."
    assert client.get("/statistics").json["detail"] == (
        "Send an API key: Authorization: Bearer KEY, or X-API-Key: KEY, or a token."
    )
    for way in ({"X-API-Key": token()}, {"Authorization": f"Token {token()}"}):
        path = "/write" if "Authorization" in way else "/event"
        body = "cpu value=1" if path == "/write" else json.dumps({"timestamp": time.time(), "value": 1})
        answer = client.post(path, data=body, headers={"Content-Type": "application/json", **way})
        assert answer.status_code in (200, 204)


def test_a_tokens_user_is_limited_and_logged_by_sub(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever token it has; apart from an API key of that id; and no token reaches a log."""
    key, entry = new_key(["read"], "ada")
    caplog.set_level(logging.INFO, "statsapi.access")
    client = client_of(jwt_key=SECRET, api_keys=entry.line(), rate_limit="2/minute", access_log=True)
    statuses = []
    for sent in (*(token(jti=str(number)) for number in range(3)), key, token(sub="eve")):
        with ask(client, sent) as answer:  # the line is written when the answer has gone
            statuses.append(answer.status_code)
    assert statuses == [200, 200, 429, 200, 200]
    lines = [record.message for record in caplog.records]
    assert sum("key_id=jwt:ada" in line for line in lines) == 3
    assert sum("key_id=ada" in line for line in lines) == 1
    assert not any("eyJ" in line for line in lines)
    assert redact(f"GET /{token()} x") == "GET /eyJ… x"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jwt_key": "short"}, r"STATSAPI_JWT_KEY is too short a secret: use 32 bytes or more"),
        ({"jwt_key": SECRET, "jwt_issuer": None}, "set both"),
        ({"jwt_key": SECRET, "jwt_audience": None}, "set both"),
        ({"jwt_key": SECRET, "jwt_jwks_file": "x"}, "are both set: unset one"),
        ({"jwt_jwks_file": "/nowhere"}, "STATSAPI_JWT_JWKS_FILE=/nowhere cannot be read: No such file"),
        ({"jwt_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "is not a public key as PEM"),
        ({"jwt_key": "-----BEGIN PRIVATE KEY-----"}, "holds a private key: give the public one"),
        ({"jwt_key": pem(rsa.generate_private_key(65537, 1024))}, "an RSA key of 1024 bits: use 2048 or more"),
        ({"jwt_key": pem(ec.generate_private_key(ec.SECP256K1()))}, "of a kind that is not supported"),
    ],
)
def test_settings_that_cannot_be_safe_are_refused(given: dict[str, Any], said: str) -> None:
    """At the start, in words that do not tell the key."""
    with pytest.raises(ConfigError, match=said) as caught:
        client_of(**given)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([{"kty": "oct", "k": "AAAA"}], "key 1 is too short a secret"),
        ([jwk("RS256") | {"kid": "a"}, jwk("ES256") | {"kid": "a"}], "key 2 has the kid of another key"),
        ([jwk("RS256") | {"alg": "HS256"}], "key 1 names an algorithm .alg. that does not fit its kind of key"),
        ([{"kty": "what"}], "key 1 is not a key that tokens can be checked with"),
        (["key"], "holds no key to check signatures with"),
    ],
)
def test_a_faulty_set_is_refused_at_the_start(tmp_path: Path, keys: list[Any], said: str) -> None:
    """By the place of the key."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    with pytest.raises(ConfigError, match=said) as caught:
        client_of(jwt_jwks_file=str(path))
    assert str(caught.value).startswith(f"STATSAPI_JWT_JWKS_FILE={path}")
