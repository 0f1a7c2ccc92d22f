"""The answers about an invalidation: its receipt, its state later, and its estimate."""

import msgspec
from msgspec import Struct

from cachesvc.model.fence import TokenPairs
from cachesvc.model.requests import Estimate, Reach, Receipt, ReceiptState
from cachesvc.web.messages import InvalidationReceipt
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.bodies import JSON
from cachesvc.web.requests.tokens import token_line, write_token

_encode = msgspec.json.Encoder().encode


def receipt_reply(receipt: Receipt) -> Reply:
    """Returns the reply with a receipt: 200, or 202.

    202 says that its `wait` was not reached, or that it is not announced.
    """
    token = write_token(receipt.token)
    document = InvalidationReceipt(
        receipt.id,
        token,
        receipt.applied,
        receipt.position,
        receipt.wait,
        receipt.reached,
        receipt.missing,
        receipt.announced,
    )
    if not receipt.announced:
        return _reply("202 Accepted", document, token_line(receipt.token), "unannounced")
    outcome = "unreached" if not receipt.reached else "applied" if receipt.applied else "pending"
    line = "200 OK" if receipt.reached else "202 Accepted"
    return _reply(line, document, token_line(receipt.token), outcome)


def unannounced_reply(id_: str, pairs: TokenPairs, lines: str) -> Reply:
    """Returns the reply to a put whose fence the journal keeps.

    `lines` are the headers of a put.
    """
    document = InvalidationReceipt(
        id_, write_token(pairs), True, "", Reach.NONE, reached=False, missing=(), announced=False
    )
    return _reply("202 Accepted", document, lines, "unannounced")


def state_reply(state: ReceiptState) -> Reply:
    return _reply("200 OK", state, "Cache-Control: no-store\r\n", state.state)


def estimate_reply(estimate: Estimate) -> Reply:
    return _reply("200 OK", estimate, "", "estimated")


def _reply(line: str, document: Struct, lines: str, outcome: str) -> Reply:
    body = _encode(document)
    head = f"HTTP/1.1 {line}\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n{lines}"
    return Reply(int(line[:3]), head.encode(), body, outcome=outcome)
