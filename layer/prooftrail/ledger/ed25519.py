"""Ed25519 signatures, verified as RFC 8032 says, in plain Python: to check a signature no library need be trusted.

For checking only. It takes no secret, so it need not hide how long it takes; signing is left to KMS or to a library.

A point (x, y) of the curve -x**2 + y**2 = 1 + d*x**2*y**2 modulo P is held as (X, Y, Z, T) with x = X/Z, y = Y/Z and
x*y = T/Z (RFC 8032 5.1.4), so that points are added without division.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

Point: TypeAlias = tuple[int, int, int, int]

P = 2**255 - 19  # the field's prime
L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
D = -121665 * pow(121666, -1, P) % P
_SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
_NEUTRAL: Point = (0, 1, 1, 0)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature (64 bytes) of a message is good under a public key (32 bytes), as RFC 8032 5.1.7 says.

    Strict where implementations differ: ``S < L``, points in their one encoding, and the equation without the cofactor. A
    key of low order (32 zero bytes are one) is refused: without any secret, everybody can sign under it.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment, scalar = _point(public_key), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= L or _equal(_times(8, key), _NEUTRAL):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    return _equal(_times(scalar, BASE), _add(commitment, _times(challenge, key)))


def _point(data: bytes) -> Point | None:
    """Decode 32 bytes to a point, None where they are none or not in their one form (RFC 8032 5.1.3)."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x = _x_of(y) if y < P else None
    if x is None or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _x_of(y: int) -> int | None:
    """A square root of (y**2 - 1) / (d*y**2 + 1) modulo P, where there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * _SQRT_MINUS_1 % P
    return root if root * root % P == square else None


def _add(p: Point, q: Point) -> Point:
    """Add two points, which may be the same (RFC 8032 5.1.4)."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _equal(p: Point, q: Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def _base() -> Point:
    """The point with y = 4/5 and an even x, in which all are counted (RFC 8032 5.1)."""
    point = _point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    assert point is not None
    return point


BASE = _base()
