"""JSON Web Tokens (RFC 7519) beside API keys: an identity provider says who a caller is and what it may do.

A token must be signed by the configured key, come from this issuer for this audience, be valid now, and name its user
(`sub`). Its `scope` says what it may do; only the words write, read and admin count. The accepted algorithms depend on
the key alone, never on the token's own header (RFC 8725, section 3.1).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from statsapi.errors import ConfigError
from statsapi.keys import LOOK_EVERY_S, SCOPES, Caller, LastGood, read_file

if TYPE_CHECKING:
    from statsapi.config import Settings

logger = logging.getLogger("statsapi")

LEEWAY_S: Final = 30
"""How far the clocks of provider and service may differ."""

SUBJECT_MAX: Final = 128
_KNOWN_MAX: Final = 1024  # accepted tokens kept, about a megabyte
TOKEN_MAX_BYTES: Final = 8190  # the longest header that Gunicorn accepts

KEY_VARIABLE: Final = "STATSAPI_JWT_KEY"
FILE_VARIABLE: Final = "STATSAPI_JWT_JWKS_FILE"

_HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes: a secret is as long as the hash (RFC 7518, section 3.2)
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_EDWARDS: Final = ("EdDSA",)

_last_good = LastGood()


class InvalidTokenError(Exception):
    """Why a token is not accepted, in words for its sender."""


class _Key(NamedTuple):
    key: Any
    algorithms: tuple[str, ...]


class Tokens:
    """The keys that one process checks tokens with. Any thread may call.

    The constructor raises ConfigError for faulty keys; Settings has checked that the four settings fit together. A JWKS
    file is read again while requests come. A faulty or missing one is logged once for each fault, and the keys stay as
    they were.
    """

    def __init__(self, settings: Settings, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._file = settings.jwt_jwks_file
        self._clock_s = clock_s
        self._looking = threading.Lock()
        self._look_at_s = clock_s()
        self._fault = ""
        self._content = b""
        self._known: dict[str, tuple[Caller, float]] = {}  # tokens accepted by the current keys
        self._keys: dict[str | None, _Key]
        if self._file is None:
            self._keys = {None: read_key(settings.jwt_key or "")}
        else:
            self._content = _last_good.recall(self._file) or load(self._file)
            self._keys = _key_set(self._file, self._content)
            self._refresh()

    def find(self, token: str) -> Caller:
        """The token's sender. InvalidTokenError for a token that is not accepted.

        Costs 1 µs for a token accepted lately; else 78 µs with HS256, 103 with RS256, 144 with ES256, 156 with EdDSA.
        """
        self._refresh()
        known = self._known  # read before the keys: a token that old keys accept must not be kept for new keys
        caller, until_s = known.get(token) or (None, 0.0)
        if caller is not None and time.time() < until_s:
            return caller
        caller, until_s = self._check(token)
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[token] = caller, until_s
        return caller

    def _check(self, token: str) -> tuple[Caller, float]:
        """The token's sender, and until when the token is valid."""
        import jwt  # here, as only services with tokens need it

        if len(token) > TOKEN_MAX_BYTES:
            raise InvalidTokenError("it is too long")
        try:
            key = self._key_for(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidTokenError("it has expired") from None
        except jwt.ImmatureSignatureError:
            raise InvalidTokenError("it is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise InvalidTokenError("it is for another audience (aud)") from None
        except jwt.InvalidIssuerError:
            raise InvalidTokenError("it is from another issuer (iss)") from None
        except jwt.MissingRequiredClaimError as error:
            raise InvalidTokenError(f"it lacks {error.claim}") from None
        except jwt.InvalidAlgorithmError:
            raise InvalidTokenError("it is signed with an algorithm that does not fit this service's key") from None
        except jwt.InvalidSignatureError:
            raise InvalidTokenError("its signature does not match this service's key") from None
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise InvalidTokenError("it is malformed") from None
        subject, expires_s, scope = claims["sub"], claims["exp"], claims.get("scope", "")
        if isinstance(expires_s, bool) or not isinstance(expires_s, int | float):  # PyJWT accepts text too
            raise InvalidTokenError("its exp is not a number")
        if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX or not subject.isprintable():
            raise InvalidTokenError(f"its sub must be 1 to {SUBJECT_MAX} printable characters")
        words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
        scopes = frozenset(word for word in words if word in SCOPES)
        return Caller(f"jwt:{subject}", scopes), expires_s + LEEWAY_S

    def _key_for(self, kid: Any) -> _Key:
        keys = self._keys
        if None in keys:
            return keys[None]
        if kid is None and len(keys) == 1:
            return next(iter(keys.values()))
        key = keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidTokenError("its key (kid) is not one of this service's keys")
        return key

    def _refresh(self) -> None:
        if self._file is None or self._clock_s() < self._look_at_s or not self._looking.acquire(blocking=False):
            return
        try:
            self._look_at_s = self._clock_s() + LOOK_EVERY_S
            if read_file(f"{FILE_VARIABLE}={self._file}", self._file) != self._content:
                content = load(self._file)
                self._keys, self._content, self._known = _key_set(self._file, content), content, {}
                logger.info("The keys for tokens changed: %d keys now", len(self._keys))
            self._fault = ""
        except ConfigError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                logger.error("The keys for tokens stay as they were: %s", error)  # noqa: TRY400 (the text is enough)
        finally:
            self._looking.release()


def load(file: str) -> bytes:
    """The content of a JWKS file. Workers that start from now on inherit it. ConfigError for a faulty file."""
    content = read_file(f"{FILE_VARIABLE}={file}", file)
    _key_set(file, content)
    _last_good.remember(file, content)
    return content


def read_key(text: str) -> _Key:
    """The key in the variable: a secret, or a public key as PEM. ConfigError for a key that cannot be used."""
    if "-----BEGIN" not in text:
        return _secret(text.encode("utf-8", "surrogateescape"), KEY_VARIABLE)
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise ConfigError(f"{KEY_VARIABLE} holds a private key: give the public one (openssl pkey -pubout)")
    try:
        return _public(load_pem_public_key(text.replace("\\n", "\n").encode()), KEY_VARIABLE)
    except ValueError as error:
        raise ConfigError(f"{KEY_VARIABLE} is not a public key as PEM: {str(error).partition('.')[0]}") from None


def _key_set(file: str, content: bytes) -> dict[str | None, _Key]:
    """The keys of a JWKS (RFC 7517) by their kid. ConfigError names the place of a fault, never the content there."""
    import jwt

    place = f"{FILE_VARIABLE}={file}"
    try:
        held = json.loads(content)["keys"]
    except (ValueError, KeyError, TypeError):
        held = None
    if not isinstance(held, list):
        raise ConfigError(f'{place} is not a key set: {{"keys": […]}}')
    keys: dict[str | None, _Key] = {}
    for number, each in enumerate(held, 1):
        where = f"{place}, key {number}"
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        kid = each.get("kid", f"\0{number}")
        try:
            if each.get("kty") == "oct":
                secret = jwt.utils.base64url_decode(each["k"])
                found = _secret(secret, where)
            else:
                found = _public(jwt.PyJWK({name: each[name] for name in each if name != "alg"}).key, where)
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{where} is not a key that tokens can be checked with") from None
        if (named := each.get("alg")) is not None:
            if named not in found.algorithms:
                raise ConfigError(f"{where} names an algorithm (alg) that does not fit its kind of key")
            found = _Key(found.key, (named,))
        if kid in keys:
            raise ConfigError(f"{where} has the kid of another key")
        keys[kid] = found
    if not keys:
        raise ConfigError(f"{place} holds no key to check signatures with")
    return keys


def _secret(secret: bytes, place: str) -> _Key:
    algorithms = tuple(name for name, least_bytes in _HMAC.items() if len(secret) >= least_bytes)
    if not algorithms:
        raise ConfigError(f"{place} is too short a secret: use 32 bytes or more (openssl rand -base64 32)")
    return _Key(secret, algorithms)


def _public(key: Any, place: str) -> _Key:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, RSAPublicKey):
        if key.key_size < 2048:
            raise ConfigError(f"{place} is an RSA key of {key.key_size} bits: use 2048 or more")
        return _Key(key, _RSA)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _Key(key, _CURVES[key.curve.name])
    if isinstance(key, Ed25519PublicKey):
        return _Key(key, _EDWARDS)
    raise ConfigError(f"{place} is of a kind that is not supported: use RSA, P-256, P-384, P-521, Ed25519, or a secret")
