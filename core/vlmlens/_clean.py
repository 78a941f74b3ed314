"""Text from outside made fit to show: control characters become visible, credentials are hidden."""

from __future__ import annotations

import re

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
SECRET_WORD = re.compile(
    r"secret|passw(?:or)?d|passphrase|\bpwd\b|(?:api|access|account|private|shared|signing|auth)"
    r"[_-]?key|(?:access|auth|bearer|session|refresh|security|(?<![a-z])(?:sas|hf))[_-]?token"
    r"|credential|authorization|connection[_-]?string|\bcookies?\b",
    re.IGNORECASE,
)
"""In the name of a setting of any kind."""

# All repetitions are bounded, so that a long text from data takes time in proportion to its length.
_TOKEN = re.compile(
    r"\b(?:hf|ghp|gho|ghs|github_pat|glpat|xox[abps]|npm|pypi)[_-][A-Za-z0-9_-]{16,200}"
    r"|\bsk-[A-Za-z0-9_-]{16,200}|\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,100}"
    r"|\beyJ[A-Za-z0-9_-]{10,500}\.[A-Za-z0-9_.-]{10,2000}|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
)
"""Texts that are tokens by their form."""

_IN_URI = re.compile(
    r"(?P<scheme>[a-zA-Z][\w+.:-]{0,40}://)(?P<user>[^/@\s:\[]{0,100}):(?!\d+/)"
    r"(?P<password>[^\s]{0,300})@"
)
_IN_QUERY = re.compile(
    r"(?P<name>[?&;][\w.-]{0,40}?(?:sig(?:nature)?|token|key|secret|passw(?:or)?d|credential|auth)"
    r"[\w.-]{0,40}=)(?P<value>[^&\s;'\"#]{1,2000})",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    rf"(?P<name>(?:{SECRET_WORD.pattern})[\w.-]{{0,40}}['\"]?\s{{0,4}}[=:]\s{{0,4}})"
    r"(?P<value>'[^']{0,500}'|\"[^\"]{0,500}\"|[^\s,}\]]{1,500})",
    re.IGNORECASE,
)
_HIDDEN = "***"


def clean(text: object) -> str:
    r"""Text that cannot steer a terminal, break XML or change the reading direction.

    Control characters, direction marks and lone surrogates become visible escapes.

    >>> clean("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return UNSAFE.sub(_escaped, str(text))


def redacted(text: str) -> str:
    """The text without passwords in URIs, signatures in queries, and tokens.

    >>> redacted("cannot open s3://me:abc@host/x?X-Amz-Signature=12 secret=abc")
    'cannot open s3://me:***@host/x?X-Amz-Signature=*** secret=***'
    """
    return _ASSIGNED.sub(rf"\g<name>{_HIDDEN}", without_tokens(text))


def without_tokens(text: str) -> str:
    """Like `redacted`, but words such as "password: x" stay: in data they may be no credential.

    >>> without_tokens("password: apple, hf_abcdefghijklmnopqrst")
    'password: apple, ***'
    """
    text = _IN_URI.sub(rf"\g<scheme>\g<user>:{_HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\g<name>{_HIDDEN}", text)
    return _TOKEN.sub(_HIDDEN, text)


def has_credential(text: str) -> bool:
    """Whether a text holds a password in a URI, a signature in a query, or a token."""
    return any(pattern.search(text) for pattern in (_IN_URI, _IN_QUERY, _TOKEN))


def fit_to_say(text: object) -> str:
    """A message that may hold text from data: `clean` and `redacted`."""
    return clean(redacted(str(text)))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
