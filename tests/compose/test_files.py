"""The checked-in compose files, and generated ones, before an independent judge: compose-go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fednode.hydra.compose import devnet, preprod
from fednode.hydra.compose_options import HeadOptions, NodeOfParty

from .conftest import ENVIRONMENT, NAMES, ROOT, Generated, Validator, agreement

DEVNET, PREPROD = ROOT / "docker-compose.hydra.yml", ROOT / "docker-compose.hydra.preprod.yml"
HEAD = HeadOptions(magic=42, contestation_period_s=60, deposit_period_s=100, deposit=30_000_000)


def parties(count: int) -> list[NodeOfParty]:
    return [NodeOfParty(name, f"{name}.example:5001") for name in NAMES[:count]]


def test_checked_in_devnet_is_what_the_generator_makes(generate: Callable[..., Generated]) -> None:
    assert generate(agreement(3)).stdout == DEVNET.read_text()


def test_checked_in_devnet_does_not_depend_on_hosts_of_cards(generate: Callable[..., Generated]) -> None:
    assert generate(agreement(3, host=False)).stdout == DEVNET.read_text()


def test_checked_in_preprod_is_what_the_generator_makes(generate: Callable[..., Generated]) -> None:
    made = generate(agreement(3, "preprod"), "--network", "preprod", "--party", "alice")
    assert made.stdout == PREPROD.read_text()


def test_both_checked_in_files_are_valid(validator: Validator) -> None:
    assert validator.refusals(DEVNET, PREPROD) == {}


def test_generated_files_are_valid_for_two_to_ten_parties(validator: Validator, tmp_path: Path) -> None:
    files: list[Path] = []
    for count in range(2, 11):
        for name, text in (
            ("devnet", devnet(HEAD, parties(count))),
            ("preprod", preprod(HeadOptions(1, 600, 2000, 30_000_000), parties(count), NAMES[count - 1])),
        ):
            files.append(tmp_path / f"{name}-{count}.yml")
            files[-1].write_text(text)
    assert validator.refusals(*files) == {}


@pytest.mark.parametrize("name", ["-", "--a-", "0", "no", "null", "1e3", "0x1f", "a" * 32])
def test_every_name_that_an_agreement_allows_gives_a_valid_file(
    name: str, validator: Validator, tmp_path: Path
) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(devnet(HEAD, [NodeOfParty(name), NodeOfParty("bob")]))
    assert validator.refusals(path) == {}


@pytest.mark.parametrize("missing", sorted(ENVIRONMENT))
def test_a_missing_variable_is_refused_with_what_to_set(missing: str, validator: Validator) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != missing}
    refusals = validator.refusals(DEVNET, PREPROD, environment=environment)
    assert list(refusals) == [DEVNET if missing == "FEDNODE_PARTIES" else PREPROD]
    assert missing in next(iter(refusals.values()))


BROKEN = {
    "unknown key": ("    restart: unless-stopped\n", "    restarts: unless-stopped\n", "restarts"),
    "condition": ("condition: service_healthy", "condition: service_well", "cardano-node.condition value"),
    "missing service": ("      prepare:\n        condition", "      prepared:\n        condition", "prepared"),
    "volume": ("  persist-bob: {}\n", "", "persist-bob"),
    "network": ("    restart: unless-stopped\n", "    restart: unless-stopped\n    networks:\n      - moon\n", "moon"),
    "port": ('"127.0.0.1:4002:4001"', '"127.0.0.1:40020:400100"', "400100"),
    "duration": ('stop_grace_period: "60s"', 'stop_grace_period: "60 x"', "60 x"),
    "required variable": ("${FEDNODE_PARTIES:?set", "${FEDNODE_NOWHERE:?set", "FEDNODE_NOWHERE"),
    "yaml": ("services:\n", "services: [\n", "yaml"),
    "cycle": ("      prepare:\n        condition", "      ready:\n        condition", "cycle"),
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_a_broken_file_is_refused_for_that_reason(fault: str, validator: Validator, tmp_path: Path) -> None:
    before, after, expected = BROKEN[fault]
    text = DEVNET.read_text()
    assert before in text
    path = tmp_path / "compose.yml"
    path.write_text(text.replace(before, after, 1))
    assert expected in validator.refusals(path).get(path, "accepted")


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (agreement(3, "embedded"), (), "'embedded'"),
        (agreement(3), ("--network", "preprod", "--party", "alice"), "'devnet'"),
        (agreement(3, "preprod"), (), "--party"),
        (agreement(3, "preprod"), ("--party", "mallory"), "mallory"),
        (agreement(3, "preprod", host=False), ("--party", "alice"), "host"),
        (agreement(3).replace("[head]\n", '[head]\nhydra_node = "2.2.0"\n'), (), "2.2.0"),
        (agreement(1), (), "parties"),
    ],
)
def test_an_agreement_that_does_not_fit_is_refused(
    content: str, arguments: tuple[str, ...], expected: str, generate: Callable[..., Generated]
) -> None:
    made = generate(content, *arguments)
    assert (made.status, made.stdout) == (3, "")
    assert expected in made.stderr
    assert "Traceback" not in made.stderr


def test_preprod_comes_with_the_public_keys_of_all_parties(generate: Callable[..., Generated], tmp_path: Path) -> None:
    from fednode.hydra.keys import load_verification_key

    content = agreement(2, "preprod")
    assert generate(content, "--party", "bob", "--out", str(tmp_path / "out")).status == 0
    vkeys = tmp_path / "out" / "vkeys"
    assert sorted(path.name for path in vkeys.iterdir()) == [
        "alice.fuel.vk", "alice.hydra.vk", "bob.fuel.vk", "bob.hydra.vk",
    ]  # fmt: skip
    for path in vkeys.iterdir():
        assert f'"{load_verification_key(path)}"' in content
    assert (tmp_path / "out" / "docker-compose.hydra.preprod.yml").exists()
