"""What the embedded head answers to requests that change something, against the AsyncAPI document of 2.3.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from fednode.hydra.deposit import sign_draft
from fednode.hydra.devnet import Faults, create, views
from fednode.hydra.rest import Rest
from fednode.hydra.utxo import Coin

from .heads import funds_key, members, serving, signal
from .schema import Schemas

pytestmark = pytest.mark.process


async def told(socket: Any, tag: str) -> dict[str, Any]:
    while (message := json.loads(await socket.recv())).get("tag") != tag:
        pass
    return dict(message)


async def test_answers_and_what_the_clients_of_the_party_hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemas, faults = Schemas(), Faults()
    settings = create(tmp_path, ["alice"])
    party = settings.parties[0]
    # Without type, description and id: a node takes that.
    first, second = ({"cborHex": signal(settings, "alice", {party.funding: party.fund}, n).cbor} for n in (1, 2))
    async with (
        serving(settings, faults),
        httpx.AsyncClient(base_url=party.url) as http,
        websockets.connect(party.url.replace("http", "ws"), max_size=None) as socket,
    ):
        if (await told(socket, "Greetings"))["chainSyncedStatus"] != "InSync":
            await told(socket, "NodeSynced")
        monkeypatch.setattr(views, "API_TIMEOUT_S", 0.2)
        answer = await http.post("/transaction", json=first)
        assert (answer.status_code, answer.json()["tag"]) == (202, "SubmitTxSubmitted")
        assert "timed out" in answer.json()["timeout"], "the document does not know this field"
        failed = await told(socket, "CommandFailed")
        assert schemas.errors("CommandFailed", failed) == []
        monkeypatch.undo()
        answer = await http.post("/snapshot", json={"tag": "InitialSnapshot", "headId": "00" * 28})
        assert (answer.status_code, answer.json()) == (400, "Side-load snapshot failed")
        assert (await told(socket, "CommandFailed"))["clientInput"]["tag"] == "SideLoadSnapshot"

        faults.lose_sync("alice")
        await told(socket, "NodeUnsynced")
        for method, path, body, tag in (
            ("POST", "/transaction", first, "NewTx"),
            ("POST", "/snapshot", {"tag": "InitialSnapshot", "headId": "00" * 28}, "SideLoadSnapshot"),
            ("DELETE", f"/commits/{'00' * 32}", None, "Recover"),
        ):
            answer = await http.request(method, path, json=body)
            assert answer.status_code == 503
            assert "out of sync with chain, drift: " in answer.text
            if tag == "NewTx":
                assert schemas.errors("SubmitL2TxResponse", answer.json()) == []
            rejected = await told(socket, "RejectedInputBecauseUnsynced")
            assert rejected["clientInput"]["tag"] == tag
            if tag != "SideLoadSnapshot":  # whose snapshot is what the client made of it
                assert schemas.errors("RejectedInputBecauseUnsynced", rejected) == []
        assert (await http.post("/transaction", json={"cborHex": "84"})).status_code == 400
        faults.regain_sync("alice")
        await told(socket, "NodeSynced")

        await socket.send('{"tag":"Init"}')
        await told(socket, "HeadIsOpen")
        rest, (member,) = Rest(party.url), members(settings)
        draft = await rest.draft_commit(party.funding, Coin(member.address, party.fund))
        await rest.submit(sign_draft(draft, party.funding, funds_key(settings, "alice")).cbor)
        await rest.aclose()
        await told(socket, "CommitFinalized")
        answer = await http.post("/transaction", json=first)
        assert (answer.status_code, answer.json()) == (202, {"tag": "SubmitTxSubmitted"})
        assert schemas.errors("SubmitL2TxResponse", answer.json()) == []
        answer = await http.post("/transaction", json=second)
        assert (answer.status_code, answer.json()["tag"]) == (400, "SubmitTxInvalid")
        assert schemas.errors("SubmitL2TxResponse", answer.json()) == []
