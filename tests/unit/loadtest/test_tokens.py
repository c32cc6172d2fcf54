import jwt

from loadtest.tokens import connection_token


def test_a_token_is_what_pyjwt_reads() -> None:
    secret = "a secret of the tests, 32 bytes or more"
    token = connection_token("load-7", secret=secret, expires_unix_s=4_000_000_000)
    assert jwt.decode(token, secret, algorithms=["HS256"]) == {"sub": "load-7", "exp": 4_000_000_000}
