"""The rules by which the embedded head accepts a transaction: the Conway mempool rules that matter without scripts.

A refusal carries the constructor name that a hydra-node shows, inside the same skeleton of text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fednode.hydra.devnet.cborview import Item, Map
from fednode.hydra.devnet.txview import Output, TxView

_OUTPUT_OVERHEAD: Final = 160
"""Bytes that the ledger adds to an output's own size for the minimum that it must hold."""
_METADATA_LIMIT: Final = 64
_WORD: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Rules:
    """Parameters of one ledger: of the head (all fees 0) or of layer 1."""

    network: int
    max_tx_size: int = 10_250
    max_value_size: int = 5_000
    utxo_cost_per_byte: int = 4_310
    fee_fixed: int = 0
    fee_per_byte: int = 0
    datums: bool = False
    """Whether outputs may carry an inline datum (layer 1: the deposit output does)."""

    def minimum(self, output: Output) -> int:
        """The least lovelace in `output`, by its own bytes."""
        return (_OUTPUT_OVERHEAD + len(output.raw)) * self.utxo_cost_per_byte


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a transaction is refused. `name` is the ledger's constructor, `reason` the text that clients see."""

    name: str
    reason: str


_Check = Callable[[TxView, Mapping[str, Output], int, Rules], Failure | None]


def check(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    """The first rule that `tx` breaks against `utxo` at `slot`, or None. Pure; the UTxO is not changed."""
    for rule in _RULES:
        failure = rule(tx, utxo, slot, rules)
        if failure is not None:
            return failure
    return None


def apply(tx: TxView, utxo: dict[str, Output]) -> None:
    """Spend the inputs and add the outputs of a transaction that `check` accepted."""
    for spent in tx.inputs:
        del utxo[spent]
    utxo.update(tx.produced())


def _utxo_failure(name: str, detail: str) -> Failure:
    return Failure(name, f"ConwayUtxowFailure (UtxoFailure ({name} {detail}))")


def _utxow_failure(name: str, detail: str) -> Failure:
    return Failure(name, f"ConwayUtxowFailure ({name} {detail})")


def _mismatch(supplied: str, expected: str) -> str:
    return f"(Mismatch {{mismatchSupplied = {supplied}, mismatchExpected = {expected}}})"


def _supported(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    found = list(tx.unsupported)
    if any(output.script for output in tx.outputs):
        found.append("reference script")
    if not rules.datums and any(output.datum is not None for output in tx.outputs):
        found.append("datum")
    if found:
        return Failure("Unsupported", f"Unsupported by the embedded head: {', '.join(found)}")
    return None


def _has_inputs(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot, rules
    return None if tx.inputs else Failure("InputSetEmptyUTxO", "ConwayUtxowFailure (UtxoFailure InputSetEmptyUTxO)")


def _inputs_exist(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del slot, rules
    missing = [each for each in tx.inputs if each not in utxo]
    return _utxo_failure("BadInputsUTxO", f"(fromList [{','.join(map(_show_input, missing))}])") if missing else None


def _show_input(txin: str) -> str:
    txid, index = txin.split("#")
    return f'TxIn (TxId {{unTxId = SafeHash "{txid}"}}) (TxIx {{unTxIx = {index}}})'


def _signatures_valid(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot, rules
    message = bytes.fromhex(tx.id)
    wrong = [vkey.hex() for vkey, signature in tx.witnesses if not _verifies(vkey, signature, message)]
    shown = ",".join(f'VKey (VerKeyEd25519DSIGN "{vkey}")' for vkey in wrong)
    return _utxow_failure("InvalidWitnessesUTXOW", f"[{shown}]") if wrong else None


def _signatures_present(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del slot, rules
    addresses = [utxo[each].address for each in tx.inputs]
    if any((address[0] >> 4) & 1 for address in addresses):
        return Failure("Unsupported", "Unsupported by the embedded head: spending from a script address")
    needed = {address[1:29] for address in addresses} | set(tx.signers)
    missing = sorted(key.hex() for key in needed - {_key_hash(vkey) for vkey, _ in tx.witnesses})
    shown = ",".join(f'KeyHash {{unKeyHash = "{each}"}}' for each in missing)
    return _utxow_failure("MissingVKeyWitnessesUTXOW", f"(fromList [{shown}])") if missing else None


def _value_conserved(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del slot, rules
    consumed, produced = Counter[tuple[bytes, bytes]](), Counter[tuple[bytes, bytes]]()
    for each in tx.inputs:
        consumed.update(utxo[each].assets)
    for output in tx.outputs:
        produced.update(output.assets)
    coin_in = sum(utxo[each].lovelace for each in tx.inputs)
    coin_out = sum(output.lovelace for output in tx.outputs) + tx.fee
    if coin_in == coin_out and consumed == produced:
        return None
    return _utxo_failure("ValueNotConservedUTxO", _mismatch(_show_value(coin_in), _show_value(coin_out)))


def _show_value(coin: int) -> str:
    return f"MaryValue (Coin {coin}) (MultiAsset (fromList []))"


def _fee_enough(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    least = rules.fee_fixed + rules.fee_per_byte * tx.size
    if tx.fee >= least:
        return None
    return _utxo_failure("FeeTooSmallUTxO", _mismatch(f"Coin {tx.fee}", f"Coin {least}"))


def _auxiliary_matches(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot, rules
    claimed = tx.auxiliary_hash
    actual = None if tx.auxiliary is None else blake2b(tx.auxiliary, digest_size=32).digest()
    if claimed == actual:
        return None
    if claimed is None:
        return _utxow_failure("MissingTxBodyMetadataHash", f'(SafeHash "{(actual or b"").hex()}")')
    if actual is None:
        return _utxow_failure("MissingTxMetadata", f'(SafeHash "{claimed.hex()}")')
    return _utxow_failure("ConflictingMetadataHash", _mismatch(claimed.hex(), actual.hex()))


def _metadata_valid(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot, rules
    if tx.metadata is None or (isinstance(tx.metadata, Map) and all(map(_label_valid, tx.metadata.pairs))):
        return None
    return Failure("InvalidMetadata", "ConwayUtxowFailure InvalidMetadata")


def _label_valid(pair: tuple[Item, Item]) -> bool:
    label, datum = pair
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < _WORD and _datum_valid(datum)


def _datum_valid(item: Item) -> bool:
    if isinstance(item, bool):
        return False
    if isinstance(item, int):
        return -_WORD < item < _WORD
    if isinstance(item, bytes):
        return len(item) <= _METADATA_LIMIT
    if isinstance(item, str):
        return len(item.encode()) <= _METADATA_LIMIT
    if isinstance(item, tuple):
        return all(map(_datum_valid, item))
    return isinstance(item, Map) and all(_datum_valid(key) and _datum_valid(value) for key, value in item.pairs)


def _outputs_large_enough(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    small = [output for output in tx.outputs if output.lovelace < rules.minimum(output)]
    shown = ",".join(f"(Addr {each.bech32},Coin {each.lovelace},Coin {rules.minimum(each)})" for each in small)
    return _utxo_failure("BabbageOutputTooSmallUTxO", f"[{shown}]") if small else None


def _values_small_enough(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    large = [output.value_size for output in tx.outputs if output.value_size > rules.max_value_size]
    return _utxo_failure("OutputTooBigUTxO", f"[({large[0]},{rules.max_value_size})]") if large else None


def _network_right(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    name = "Mainnet" if rules.network else "Testnet"
    wrong = [output.bech32 for output in tx.outputs if output.address[0] & 0x0F != rules.network]
    if wrong:
        return _utxo_failure("WrongNetwork", f"{name} (fromList [{','.join(wrong)}])")
    if tx.network not in {None, rules.network}:
        return _utxo_failure("WrongNetworkInTxBody", _mismatch(str(tx.network), name))
    return None


def _inside_validity(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, rules
    if (tx.start is None or tx.start <= slot) and (tx.ttl is None or slot < tx.ttl):
        return None
    bounds = f"(ValidityInterval {{invalidBefore = {tx.start}, invalidHereafter = {tx.ttl}}}) (SlotNo {slot})"
    return _utxo_failure("OutsideValidityIntervalUTxO", bounds)


def _size_allowed(tx: TxView, utxo: Mapping[str, Output], slot: int, rules: Rules) -> Failure | None:
    del utxo, slot
    if tx.size <= rules.max_tx_size:
        return None
    return _utxo_failure("MaxTxSizeUTxO", _mismatch(str(tx.size), str(rules.max_tx_size)))


_RULES: Final[tuple[_Check, ...]] = (
    _supported,
    _has_inputs,
    _inputs_exist,
    _size_allowed,
    _signatures_valid,
    _signatures_present,
    _auxiliary_matches,
    _metadata_valid,
    _inside_validity,
    _fee_enough,
    _value_conserved,
    _network_right,
    _outputs_large_enough,
    _values_small_enough,
)


def _verifies(vkey: bytes, signature: bytes, message: bytes) -> bool:
    try:
        _public_key(vkey).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=1024)
def _public_key(vkey: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(vkey)


@lru_cache(maxsize=1024)
def _key_hash(vkey: bytes) -> bytes:
    return blake2b(vkey, digest_size=28).digest()
