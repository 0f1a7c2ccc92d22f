"""The register of problem kinds: every failure that a caller can be answered with.

A kind is the stable last segment of a problem's `type` (RFC 9457). Its status, its title and
whether another try may help belong to the kind, so code that fails names a kind and nothing else.
The table in clients/PROTOCOL.md, /openapi.json and docs/reference.md show this register.
"""

from enum import Enum, StrEnum


class Retry(Enum):
    """Whether the same request may succeed later."""

    NO = "no"
    """The same request would fail again."""
    YES = "yes"
    """It may be sent again."""
    AFTER_A_SECOND = "after `Retry-After`"
    """It may be sent again; the answer carries `Retry-After`: the origin's, or 1."""


class ProblemKind(StrEnum):
    """A kind of problem: its name, HTTP status, title, advice to the caller, and retry.

    Names are part of the wire format: one that was released is never changed or used for another
    meaning. A kind has one status and one `retry`; where these differ, there are two kinds.
    """

    status: int
    """The HTTP status of the answer, or of the key's problem in a batch."""
    summary: str
    """The problem in a few words, the same for every occurrence: the `title` of RFC 9457."""
    advice: str
    """One sentence that says what the caller should do."""
    retry: Retry

    def __new__(
        cls, name: str, status: int, summary: str, advice: str, retry: Retry = Retry.NO
    ) -> "ProblemKind":
        member = str.__new__(cls, name)
        member._value_ = name
        member.status = status
        member.summary = summary
        member.advice = advice
        member.retry = retry
        return member

    @property
    def retryable(self) -> bool:
        return self.retry is not Retry.NO

    @property
    def retry_after_seconds(self) -> int | None:
        """The value of `Retry-After` if an origin gave none; None if the answer has none."""
        return 1 if self.retry is Retry.AFTER_A_SECOND else None

    # the caller has asked wrongly -----------------------------------------------------------------

    BAD_BODY = (
        "bad-body",
        400,
        "The body cannot be read",
        "Send a complete document of the content type that is named, as long as announced.",
    )
    BAD_CACHE_CONTROL = (
        "bad-cache-control",
        400,
        "Cache-Control is out of rule",
        "Correct the directive of `Cache-Control` that `detail` names.",
    )
    BAD_CALLER = (
        "bad-caller",
        400,
        "The caller's name is out of rule",
        "Send 1 to 128 printable characters as `Cachesvc-Caller` or as the event's `source`.",
    )
    BAD_ESCAPE = (
        "bad-escape",
        400,
        "A percent-escape is malformed",
        "Write a `%` in the path as `%25`; an escape is a `%` and two hexadecimal digits.",
    )
    BAD_HEADER = (
        "bad-header",
        400,
        "A header is out of rule",
        "Correct the header that `field` names.",
    )
    BAD_KEY = (
        "bad-key",
        400,
        "The key is out of rule",
        "Use a key of 1 to 1024 bytes of UTF-8 without control characters; in a path, one segment.",
    )
    BAD_LEASE = (
        "bad-lease",
        400,
        "The lease token is malformed",
        "Send the lease token exactly as the miss was answered with it.",
    )
    BAD_QUERY = (
        "bad-query",
        400,
        "There is a query where none belongs",
        "Send the query that `detail` names, or none; write a `?` in a key as `%3F`.",
    )
    BAD_RECEIPT = (
        "bad-receipt",
        400,
        "The id of the receipt is malformed",
        "Ask with the `id` of a receipt, such as `eu:1700000000000-0`.",
    )
    BAD_REQUEST = (
        "bad-request",
        400,
        "The request is malformed",
        "Send a well-formed HTTP/1.1 request.",
    )
    BAD_TAG = (
        "bad-tag",
        400,
        "A tag is out of rule",
        "Use tags of 1 to 256 printable ASCII characters, at most the namespace's `tags_max` of them.",
    )
    BAD_TOKEN = (
        "bad-token",
        400,
        "The token is malformed",
        "Send the token exactly as it was answered.",
    )
    CONFIRM_NEEDED = (
        "confirm-needed",
        400,
        "The purge of a whole namespace needs a confirmation",
        "If the whole namespace is to be invalidated, send its name once more as `confirm`.",
    )
    CONTRADICTION = (
        "contradiction",
        400,
        "Two parts of the request contradict each other",
        "Leave out one of the two parts that `detail` and `field` name.",
    )
    FOREIGN_TAG = (
        "foreign-tag",
        400,
        "A tag belongs to another partition",
        "Use a tag without a partition, or with the partition of its key.",
    )
    INVALID_BODY = (
        "invalid-body",
        400,
        "The body does not fit its schema",
        "Correct the part of the body that `field` names.",
    )
    NO_TARGET = (
        "no-target",
        400,
        "Nothing to invalidate",
        "Name keys or tags, or send `all: true`.",
    )
    NO_IDENTITY = (
        "no-identity",
        401,
        "This needs an identity",
        "Send `Authorization: Bearer` and a token.",
    )
    UNKNOWN_IDENTITY = (
        "unknown-identity",
        401,
        "The identity is not known",
        "Send a token that is valid: this one is not known, has been revoked, or has expired.",
    )
    ISSUER_UNAVAILABLE = (
        "issuer-unavailable",
        503,
        "The issuer of the token does not give its keys",
        "Try again later: the token could not be checked.",
        Retry.AFTER_A_SECOND,
    )
    MISSING_SCOPE = (
        "missing-scope",
        403,
        "The identity may not do this",
        "Have the scope that `detail` names added to the identity in the topology's `callers`.",
    )
    NO_DEBUG = (
        "no-debug",
        403,
        "Key text is not shown",
        "Send the instance's `telemetry.debug_token` as `Cachesvc-Debug`, or leave the header out.",
    )
    WRONG_HOST = (
        "wrong-host",
        421,
        "Not a name of this instance",
        "Use `localhost` or a loopback address, or add the name to the instance's `server.hosts`.",
    )
    WRONG_PORT = (
        "wrong-port",
        421,
        "Not served on this port",
        "Ask at the address that `detail` names, or at that in `operations` of the topology.",
    )
    NO_SUCH_NAMESPACE = (
        "no-such-namespace",
        404,
        "No such namespace",
        "Use a namespace that the topology declares.",
    )
    NO_SUCH_PATH = (
        "no-such-path",
        404,
        "No such path",
        "Use a path that `/openapi.json` describes.",
    )
    NO_SUCH_RECEIPT = (
        "no-such-receipt",
        404,
        "No such receipt",
        "Stop asking: no change has this id, or it was accepted more than 15 minutes ago.",
    )
    METHOD = (
        "method",
        405,
        "The method is not allowed here",
        "Use one of the methods that the header `Allow` names.",
    )
    BODY_TIMEOUT = (
        "body-timeout",
        408,
        "The body did not come in time",
        "Send the body at once, or allow more time with `Cachesvc-Timeout`.",
        Retry.YES,
    )
    HEAD_TIMEOUT = (
        "head-timeout",
        408,
        "The head of the request did not come in time",
        "Send the whole head at once.",
        Retry.YES,
    )
    BODY_TOO_LARGE = (
        "body-too-large",
        413,
        "The body is too large",
        "Send a smaller body, or several requests.",
    )
    TOO_MANY_KEYS = (
        "too-many-keys",
        413,
        "Too many keys",
        "Send several requests with fewer keys each.",
    )
    VALUE_TOO_LARGE = (
        "value-too-large",
        413,
        "The value is too large",
        "Store a smaller value, or do without a copy in the cache.",
    )
    CONTENT_ENCODING = (
        "content-encoding",
        415,
        "Encoded bodies are not taken",
        "Send the bytes as they are, without `Content-Encoding`.",
    )
    CONTENT_TYPE = (
        "content-type",
        415,
        "The content type is not taken here",
        "Send one of the content types that `detail` names.",
    )
    EXPECTATION = (
        "expectation",
        417,
        "The expectation cannot be met",
        "Send `Expect: 100-continue`, or leave the header out.",
    )
    RATE_LIMITED = (
        "rate-limited",
        429,
        "Too many requests of this kind",
        "Wait for the seconds of `Retry-After`, and send fewer requests.",
        Retry.AFTER_A_SECOND,
    )
    HEAD_TOO_LARGE = (
        "head-too-large",
        431,
        "The request line or a header is too long",
        "Send a shorter request line and shorter headers.",
    )

    # there is no value, or another one ------------------------------------------------------------

    CACHE_MISS = (
        "cache-miss",
        404,
        "Not cached",
        "Load the value from its source; fill it with the answer's `Cachesvc-Lease`, if any.",
        Retry.YES,
    )
    KNOWN_ABSENT = (
        "known-absent",
        404,
        "Known to be absent",
        "Treat the value as one that does not exist.",
    )
    NOT_CACHED = (
        "not-cached",
        504,
        "Not cached, and only the cache was asked",
        "Ask without `only-if-cached`, or load the value from its source.",
    )
    FENCED = (
        "fenced",
        409,
        "The lease was voided",
        "Read the key again: what was loaded under this lease may be out of date.",
    )
    PRECONDITION_FAILED = (
        "precondition-failed",
        412,
        "The precondition does not hold",
        "Read the key again and decide anew.",
    )

    # the origin -----------------------------------------------------------------------------------

    LOAD_FAILED = (
        "load-failed",
        502,
        "The value could not be loaded",
        "Try again later.",
        Retry.YES,
    )
    ORIGIN_FAILED = (
        "origin-failed",
        502,
        "The origin failed",
        "Try again later; if it lasts, call the namespace's `owner`.",
        Retry.AFTER_A_SECOND,
    )
    ORIGIN_REFUSED = (
        "origin-refused",
        502,
        "The origin's answer cannot be used",
        "Do not try again: the namespace's `owner` has to correct the origin's answer.",
    )
    ORIGIN_BUDGET = (
        "origin-budget",
        503,
        "The namespace's origin budget is used up",
        "Try again later, and do not load it past the cache.",
        Retry.AFTER_A_SECOND,
    )
    ORIGIN_BUSY = (
        "origin-busy",
        503,
        "Too many loads wait for the origin",
        "Try again later; if it lasts, call the namespace's `owner`.",
        Retry.AFTER_A_SECOND,
    )
    ORIGIN_LIMITED = (
        "origin-limited",
        503,
        "The origin asks to try again later",
        "Try again later; if it lasts, call the namespace's `owner`.",
        Retry.AFTER_A_SECOND,
    )
    ORIGIN_TIMEOUT = (
        "origin-timeout",
        504,
        "The origin did not answer in time",
        "Try again later; if it lasts, call the namespace's `owner`.",
        Retry.AFTER_A_SECOND,
    )

    # the service ----------------------------------------------------------------------------------

    INTERNAL = (
        "internal",
        500,
        "The service failed",
        "Try again; if it lasts, give the `request_id` to the operators of the service.",
        Retry.YES,
    )
    ANSWER_FULL = (
        "answer-full",
        507,
        "The answer has no room for this value",
        "Ask again for the keys with this problem: every answer has at least one value.",
        Retry.YES,
    )
    FENCE_NOT_PUBLISHED = (
        "fence-not-published",
        503,
        "The change is accepted and not published yet",
        "Keep the answer's `Cachesvc-Token`: the change was accepted.",
        Retry.AFTER_A_SECOND,
    )
    FENCED_AHEAD = (
        "fenced-ahead",
        503,
        "A fence that lies far ahead refuses the value",
        "Try again later: the key was invalidated, the value was not stored.",
        Retry.AFTER_A_SECOND,
    )
    HOME_UNAVAILABLE = (
        "home-unavailable",
        503,
        "The key's home cell does not answer",
        "Try again later: the value was not stored.",
        Retry.AFTER_A_SECOND,
    )
    OVERLOADED = (
        "overloaded",
        503,
        "Too much to do",
        "Ask another instance, or try again later.",
        Retry.AFTER_A_SECOND,
    )
    OVERTAKEN = (
        "overtaken",
        503,
        "Invalidated while it was being answered",
        "Try again later.",
        Retry.AFTER_A_SECOND,
    )
    QUEUE_UNAVAILABLE = (
        "queue-unavailable",
        503,
        "The region's queue does not answer",
        "Try again later: the change was not accepted.",
        Retry.AFTER_A_SECOND,
    )
    READ_INTERRUPTED = (
        "read-interrupted",
        503,
        "The instance stopped while it was reading",
        "Ask another instance.",
        Retry.AFTER_A_SECOND,
    )
    STOPPING = (
        "stopping",
        503,
        "The instance stops",
        "Ask another instance.",
        Retry.AFTER_A_SECOND,
    )
    TOO_MANY_SUBSCRIBERS = (
        "too-many-subscribers",
        503,
        "Too many subscribers",
        "Ask another instance.",
        Retry.AFTER_A_SECOND,
    )
    DEADLINE = (
        "deadline",
        504,
        "Not done in time",
        "Try again, or allow more time with `Cachesvc-Timeout`: what was begun may still be done.",
        Retry.YES,
    )
