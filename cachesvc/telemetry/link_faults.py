"""The sentences about a TLS handshake that failed, and about a login that was refused.

They say what is wrong, and what to do.
"""

import re
import ssl

_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
"""OpenSSL's `X509_V_ERR_…` (x509_vfy.h): no issuer, self-signed, or not verifiable."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_OUR_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA")
_OURS_ENDED = ("CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")
_OLD_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
_LOGIN = re.compile(r"\b(?:WRONGPASS|NOAUTH)\b|invalid username-password pair|Authentication required")
_PERMISSION = re.compile(r"\bNOPERM\b|has no permissions|The user executing the script can't")
_REPAIRABLE = re.compile(r"\b(?:TLS|login): ")
_LONGEST_CHAIN = 16
"""The most errors that are followed from one to its cause."""


def tls_fault(error: BaseException | None) -> str:
    """Returns what is wrong with a server's TLS; empty if the error is not about that."""
    found: ssl.SSLError | None = None
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            break
        if isinstance(error, ssl.SSLError):
            found = error  # the deepest one: aiohttp's own do not have its reason
        error = error.__cause__ or error.__context__
    return "" if found is None else _said(found)


def told(error: BaseException, login: str = "redis") -> str:
    """Returns the text of an error of Redis; a sentence, if a person can repair it.

    `login` is the setting that has the user and password.
    """
    text = str(error)
    if _REPAIRABLE.search(text):  # it was told by whoever connected on behalf of this connection
        return text
    if _LOGIN.search(text):
        return f"login: {text}; look at the user and password of `{login}`, or of its URL"
    if _PERMISSION.search(text):
        return f"login: {text}; give the user the commands and keys that docs/operate.md lists"
    return tls_fault(error) or text


def repairable(why: str) -> str:
    """Returns the part of a reason that says what to do; empty if it has none."""
    found = _REPAIRABLE.search(why)
    return why[found.start() :] if found else ""


def _said(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error)
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return "TLS: it does not speak TLS at this port; name its TLS port, or connect without TLS"
    if reason.endswith(_OUR_CERTIFICATE):
        return (
            f"TLS: it does not take our certificate ({reason}); give one of an authority it knows as tls.cert"
        )
    if reason.endswith(_OURS_ENDED):
        return f"TLS: it says that our certificate has ended ({reason}); renew tls.cert"
    if reason.endswith(_OLD_TLS):
        return "TLS: it does not speak TLS 1.2 or later; update it"
    return f"TLS: {reason or error.strerror or type(error).__name__}"


def _unverified(error: ssl.SSLCertVerificationError) -> str:
    code, why = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return "TLS: its certificate, or that of its authority, has expired; renew it at that server"
    if code == _NOT_YET:
        return "TLS: its certificate is not valid yet; compare the clocks of both machines"
    if code in _OTHER_NAME:
        return f"TLS: its certificate is for another name ({why}); issue one for it, or set tls.server_name"
    if code in _UNKNOWN_AUTHORITY:
        return f"TLS: its certificate is of an authority that tls.ca does not have ({why}); add that to it"
    return f"TLS: its certificate is not valid: {why}"
