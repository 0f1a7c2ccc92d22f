"""The answer to an invalidation, the same for `DELETE` and `POST /v1/invalidations`."""

import msgspec

from cachesvc.dialogue import Receipt
from cachesvc.web.bodies import JSON
from cachesvc.web.messages import InvalidationReceipt
from cachesvc.web.reply import Reply
from cachesvc.web.tokens import write_token

_encode = msgspec.json.Encoder().encode


def receipt_reply(receipt: Receipt) -> Reply:
    token = write_token(receipt.token)
    body = _encode(InvalidationReceipt(receipt.id, token, receipt.applied))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\nCachesvc-Token: {token}\r\n"
    return Reply(200, head.encode(), body, outcome="applied" if receipt.applied else "pending")
