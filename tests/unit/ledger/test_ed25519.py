"""Ed25519: RFC 8032's vectors, a second implementation, and the signatures that implementations disagree about."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftrail.ledger import ed25519
from prooftrail.ledger.ed25519 import L, P, verify

# RFC 8032 7.1: public key / message / signature.
VECTORS = {
    "TEST 1": """
        d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
        /
        -
        /
        e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24
        655141438e7a100b
    """,
    "TEST 2": """
        3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c
        /
        72
        /
        92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee
        b00d291612bb0c00
    """,
    "TEST 3": """
        fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025
        /
        af82
        /
        6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d
        c027beceea1ec40a
    """,
    "TEST 1024": """
        278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e
        /
        08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1e355f6c50544e23f
        b1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c
        941efb65d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a82
        1a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573cb116dbef
        efd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53
        f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d
        502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759
        d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b07
        07e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26401d2e22
        f04d83d1255dc51addd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8
        fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb
        038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34df
        f7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7984a74d371459867
        80fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276cd419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1
        b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a4
        3dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b5
        0d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fd
        e7cb68606937380db2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8ca
        c60c905c15fc910840b94c00a0b9d0
        /
        0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6
        ac00a9704a188a03
    """,
    "TEST SHA(abc)": """
        ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf
        /
        ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e
        2a9ac94fa54ca49f
        /
        dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17a
        d9bef1177331a704
    """,
}


seeds = st.binary(min_size=32, max_size=32)
few = settings(max_examples=60, deadline=None)


def signed(seed: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The public key, and the signature, by the other implementation."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign(message)


def other_verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc_verify(name: str) -> None:
    public_key, message, signature = (bytes.fromhex(part.strip(" \n-")) for part in VECTORS[name].split("/"))
    assert verify(public_key, message, signature)
    assert not verify(public_key, message + b"x", signature)


@few
@given(seeds, st.binary(max_size=200))
def test_what_a_second_implementation_signs_verifies(seed: bytes, message: bytes) -> None:
    public_key, signature = signed(seed, message)
    assert verify(public_key, message, signature)


@few
@given(seeds, st.binary(min_size=1, max_size=40), st.integers(0, 2**20))
def test_one_changed_bit_is_enough(seed: bytes, message: bytes, place: int) -> None:
    public_key, signature = signed(seed, message)
    parts = [public_key, message, signature]
    for number, part in enumerate(parts):
        changed = bytearray(part)
        changed[place % len(part)] ^= 1 << place % 8
        spoiled = [*parts[:number], bytes(changed), *parts[number + 1 :]]
        assert not verify(*spoiled)
        assert not other_verifies(*spoiled)


@few
@given(seeds | st.binary(max_size=40), st.binary(max_size=5), st.binary(min_size=64, max_size=64) | st.binary(max_size=70))
def test_noise_is_refused_and_nothing_is_raised(public_key: bytes, message: bytes, signature: bytes) -> None:
    assert not verify(public_key, message, signature)


def test_a_scalar_has_one_form_only() -> None:
    public_key, signature = signed(bytes(32), b"message")
    scalar = int.from_bytes(signature[32:], "little")
    again = signature[:32] + (scalar + L).to_bytes(32, "little")
    assert verify(public_key, b"message", signature)
    assert not verify(public_key, b"message", again)
    assert not other_verifies(public_key, b"message", again)


@pytest.mark.parametrize(
    "encoding",
    [
        (P + 3).to_bytes(32, "little"),  # y = 3 again
        (2**255 - 1).to_bytes(32, "little"),
        (1 | 1 << 255).to_bytes(32, "little"),  # x = 0 with a sign
        (2).to_bytes(32, "little"),  # no point has y = 2
    ],
    ids=["y too large", "y largest", "negative zero", "no point"],
)
def test_a_point_has_one_form_only(encoding: bytes) -> None:
    assert ed25519._point(encoding) is None
    assert ed25519._point((3).to_bytes(32, "little")) is not None
    public_key, signature = signed(bytes(32), b"message")
    assert not verify(encoding, b"message", signature)
    assert not verify(public_key, b"message", encoding + signature[32:])


@pytest.mark.parametrize("message", [b"any", b"message", b"at", b"all", b"of", b"eight"])
@pytest.mark.parametrize("y", [0, 1, P - 1], ids=["order 4", "order 1", "order 2"])
def test_a_key_under_which_everybody_can_sign_is_refused(y: int, message: bytes) -> None:
    key, neutral = y.to_bytes(32, "little"), (1).to_bytes(32, "little")
    assert not verify(key, message, neutral + bytes(32))
    assert not verify(key, message, key + bytes(32))
