from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycardano import Address, Network, PaymentSigningKey, PaymentVerificationKey
from pycardano.crypto import bech32 as theirs

from fednode.errors import ConfigError, KeyFileError
from fednode.hydra import bech32
from fednode.hydra.addresses import address_bytes, check_network, enterprise_address, key_hash, payment_credential
from fednode.hydra.keys import SigningKey, load_signing_key, load_verification_key, write_pair


@pytest.mark.parametrize("kind", ["hydra", "fuel", "funds"])
def test_pair_round_trip(tmp_path: Path, kind: str) -> None:
    key = write_pair(tmp_path / "keys", kind, kind)  # type: ignore[arg-type]  # parametrised literal
    secret, public = tmp_path / "keys" / f"{kind}.sk", tmp_path / "keys" / f"{kind}.vk"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert load_signing_key(secret).vkey == key.vkey == load_verification_key(public)
    assert load_signing_key(secret).sign(b"x") == key.sign(b"x")
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_pair(tmp_path / "keys", kind, kind)  # type: ignore[arg-type]  # parametrised literal


def test_a_pair_that_was_cut_off_is_finished_from_its_secret(tmp_path: Path) -> None:
    key = write_pair(tmp_path, "fuel", "fuel")
    secret, public = (tmp_path / "fuel.sk").read_bytes(), (tmp_path / "fuel.vk").read_bytes()
    (tmp_path / "fuel.vk").unlink()
    assert write_pair(tmp_path, "fuel", "fuel").vkey == key.vkey
    assert (tmp_path / "fuel.sk").read_bytes() == secret
    assert (tmp_path / "fuel.vk").read_bytes() == public
    (tmp_path / "fuel.vk").unlink()
    with pytest.raises(KeyFileError, match=r"has type 'PaymentSigningKey.*expected HydraSigningKey"):
        write_pair(tmp_path, "fuel", "hydra")
    (tmp_path / "fuel.sk").chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        write_pair(tmp_path, "fuel", "fuel")
    assert not (tmp_path / "fuel.vk").exists()


def test_a_public_key_alone_is_never_overwritten(tmp_path: Path) -> None:
    write_pair(tmp_path, "fuel", "fuel")
    (tmp_path / "fuel.sk").unlink()
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_pair(tmp_path, "fuel", "fuel")
    assert not (tmp_path / "fuel.sk").exists()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o710, 0o701, 0o777])
def test_a_folder_that_others_may_enter(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "keys"
    write_pair(folder, "fuel", "fuel")
    folder.chmod(mode)
    for attempt in (lambda: load_signing_key(folder / "fuel.sk"), lambda: write_pair(folder, "funds", "funds")):
        with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
            attempt()
        assert caught.value.hint == f"chmod 700 {folder}"
    assert not (folder / "funds.sk").exists()
    assert load_verification_key(folder / "fuel.vk")


def test_pycardano_reads_our_files(tmp_path: Path) -> None:
    key = write_pair(tmp_path, "funds", "funds")
    other = PaymentSigningKey.load(str(tmp_path / "funds.sk"))
    assert other.sign(b"message") == key.sign(b"message")
    public = PaymentVerificationKey.load(str(tmp_path / "funds.vk"))
    assert public.payload.hex() == key.vkey
    for magic, network in ((42, Network.TESTNET), (764824073, Network.MAINNET)):
        assert enterprise_address(key.vkey, magic) == str(Address(public.hash(), network=network))
    assert key_hash(key.vkey) == public.hash().payload


def test_secret_never_shows(tmp_path: Path) -> None:
    key = write_pair(tmp_path, "hydra", "hydra")
    seed = json.loads((tmp_path / "hydra.sk").read_text())["cborHex"][4:]
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert seed not in shown
        assert key.vkey in shown
    with pytest.raises(TypeError):
        copy.copy(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_readable_by_others(tmp_path: Path, mode: int) -> None:
    write_pair(tmp_path, "fuel", "fuel")
    path = tmp_path / "fuel.sk"
    path.chmod(mode)
    with pytest.raises(KeyFileError) as caught:
        load_signing_key(path)
    assert str(path) in caught.value.message
    assert f"{mode:04o}" in caught.value.message
    assert caught.value.hint == f"chmod 600 {path}"


def test_bad_files(tmp_path: Path) -> None:
    write_pair(tmp_path, "fuel", "fuel")
    with pytest.raises(KeyFileError, match="does not exist") as missing:
        load_signing_key(tmp_path / "none.sk")
    assert "fednode init" in missing.value.hint
    with pytest.raises(KeyFileError, match="does not exist"):
        load_verification_key(tmp_path / "none.vk")
    (tmp_path / "fuel.vk").chmod(0o600)
    with pytest.raises(KeyFileError, match=r"PaymentVerificationKeyShelley_ed25519.*expected HydraSigningKey"):
        load_signing_key(tmp_path / "fuel.vk")
    secret = json.loads((tmp_path / "fuel.sk").read_text())["cborHex"]
    for number, content in enumerate(
        (
            b"",
            b"[]",
            b"\xff",
            b"x" * 5000,
            json.dumps({"type": "HydraSigningKey_ed25519", "cborHex": secret[:-2]}).encode(),
            json.dumps({"type": "HydraSigningKey_ed25519", "cborHex": secret[:-2] + "zz"}).encode(),
            json.dumps({"type": "HydraSigningKey_ed25519", "cborHex": secret[:-2] + "  "}).encode(),
            json.dumps({"type": "HydraSigningKey_ed25519", "cborHex": 3}).encode(),
        )
    ):
        path = tmp_path / f"{number}.sk"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError) as caught:
            load_signing_key(path)
        assert secret[4:40] not in caught.value.message
    with pytest.raises(KeyFileError, match="Is a directory"):
        load_signing_key(tmp_path)


@given(payload=st.binary(min_size=1, max_size=60), position=st.integers(0, 200), letter=st.sampled_from("qpzry9x8gf"))
def test_bech32_against_pycardano(payload: bytes, position: int, letter: str) -> None:
    text = bech32.encode("addr_test", payload)
    assert text == theirs.bech32_encode("addr_test", theirs.convertbits(payload, 8, 5), theirs.Encoding.BECH32)
    assert bech32.decode(text) == ("addr_test", payload)
    changed = text[: position % len(text)] + letter + text[position % len(text) + 1 :]
    assert changed == text or bech32.decode(changed) is None


@given(st.text())
def test_bech32_never_raises(text: str) -> None:
    bech32.decode(text)


def test_addresses() -> None:
    key = SigningKey(bytes(range(32)))
    address = enterprise_address(key.vkey, 42)
    assert address.startswith("addr_test1v")
    assert address_bytes(address) == b"\x60" + key_hash(key.vkey)
    assert payment_credential(address) == key_hash(key.vkey)
    check_network(address, 1)
    with pytest.raises(ConfigError, match="mainnet"):
        check_network(address, 764824073)
    script = Address.from_primitive(b"\x70" + bytes(28)).encode()
    with pytest.raises(ConfigError, match="script"):
        payment_credential(script)
    replaced = address[:-1] + ("q" if address[-1] != "q" else "p")
    for bad in (
        "",
        "addr_test1",
        replaced,
        address.upper()[:-3],
        "Ae2tdPwUPEZBJkEbCd6gLr5Z26E98jx8YUpDZ1bsNL6MBmV4azk8r6Mn8Gv",
    ):
        with pytest.raises(ConfigError):
            address_bytes(bad)
    for bad in ("", "00", "zz" * 32, " " + "00" * 32):
        with pytest.raises(ConfigError):
            key_hash(bad)
