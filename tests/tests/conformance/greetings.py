"""What RFC 8446 demands of a server whose client breaks the rules of the handshake: one connection a case."""

import os, socket, struct

from judge import judge

ADDRESS = ("203.0.113.10", 443)
CHANGE, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
UNEXPECTED, OVERFLOW, FAILURE, ILLEGAL, DECODE, VERSION = 10, 22, 40, 47, 50, 70
MISSING, UNRECOGNISED, NO_PROTOCOL = 109, 112, 120
SNI, GROUPS, SIGNATURES, ALPN, EMS, PSK, EARLY, VERSIONS, MODES, SHARE = 0, 10, 13, 16, 23, 41, 42, 43, 45, 51
X25519, P256 = 29, 23
END = object()
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def vector(size, data):
    return len(data).to_bytes(size, "big") + data


def record(kind, payload, length=None):
    return struct.pack("!BHH", kind, 0x0301, len(payload) if length is None else length) + payload


def message(kind, body, length=None):
    return bytes([kind]) + (len(body) if length is None else length).to_bytes(3, "big") + body


def name(host):
    return vector(2, b"\0" + vector(2, host))


def protocols(*wanted):
    return vector(2, b"".join(vector(1, one) for one in wanted))


def share(group=X25519, key=None):
    return vector(2, struct.pack("!H", group) + vector(2, os.urandom(32) if key is None else key))


def versions(*known):
    return vector(1, b"".join(struct.pack("!H", one) for one in known))


def psk():
    return vector(2, vector(2, b"no ticket of yours") + b"\0\0\0\0") + vector(2, vector(1, b"\0" * 32))


USUAL = {
    SNI: name(b"www.foobar.com"),
    GROUPS: vector(2, struct.pack("!HH", X25519, P256)),
    SIGNATURES: vector(2, struct.pack("!HHH", 0x0403, 0x0804, 0x0401)),
    ALPN: protocols(b"h2", b"http/1.1"),
    VERSIONS: versions(0x0304, 0x0303),
    SHARE: share(),
}
TLS13, TLS12 = b"\x13\x01\x13\x02\x13\x03", b"\xc0\x2b\xc0\x2f"


def body(changes={}, without=(), more=b"", ciphers=TLS13 + TLS12, legacy=0x0303, session=b"s" * 32, compression=b"\0"):
    extensions = {kind: data for kind, data in {**USUAL, **changes}.items() if kind not in without}
    written = b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in extensions.items()) + more
    return (
        struct.pack("!H", legacy) + os.urandom(32) + vector(1, session) + vector(2, ciphers)
        + vector(1, compression) + vector(2, written)
    )


def hello(**how):
    return record(HANDSHAKE, message(1, body(**how)))


def heard(sent, then=None):
    """What the server says, to its end: alerts by number, 'hello', 'retry', 'encrypted', and at last 'closed' or 'open'.

    Once it has said something it is told `then`; END ends what it is told."""
    said = []
    with socket.create_connection(ADDRESS, 10) as connection:
        connection.settimeout(5)
        data = b""
        try:
            connection.sendall(sent)
            if then is END:
                connection.shutdown(socket.SHUT_WR)
            elif then:
                data += connection.recv(65536)
                connection.sendall(then)
        except ConnectionError:
            # Not all of a flood is taken; what was said before is still to be read.
            pass
        try:
            while chunk := connection.recv(65536):
                data += chunk
            said.append("closed")
        except ConnectionError:
            said.append("closed")
        except TimeoutError:
            said.append("open")
    parts = []
    while len(data) >= 5:
        kind, _, length = struct.unpack("!BHH", data[:5])
        payload, data = data[5:5 + length], data[5 + length:]
        if kind == ALERT and length == 2:
            parts.append(payload[1])
        elif kind == HANDSHAKE and payload[0] == 2:
            parts.append("retry" if payload[6:38] == RETRY else "hello")
        elif kind == DATA:
            parts.append("encrypted")
    return parts + said


def alert(*numbers):
    return lambda said: said[-1] == "closed" and any(number in said for number in numbers) and "hello" not in said


def greeted(said):
    return said[0] == "hello"


def retried(said):
    return said[0] == "retry"


def ended(said):
    return said[-1] == "closed" and "hello" not in said


def silent(said):
    return said == ["closed"]


def broken_off(said):
    """After the keys have changed an alert cannot be read; that it comes, and the end, can."""
    return said[0] == "hello" and said[-1] == "closed"


ONE_BY_ONE = b"".join(record(HANDSHAKE, bytes([byte])) for byte in message(1, body()))
GREASE = {0x0A0A: b"", 0xFAFA: b"\0", **USUAL, GROUPS: vector(2, struct.pack("!HH", 0x1A1A, X25519))}
CASES = [
    ("4.1.2 an ordinary greeting", hello(), greeted),
    ("4.1.2 one of TLS 1.2", hello(without=(VERSIONS, SHARE, EMS)), greeted),
    ("4.1.2 unknown extensions, groups and ciphers", hello(changes=GREASE, ciphers=b"\x0a\x0a" + TLS13), greeted),
    ("5.1 a greeting in records of one byte", ONE_BY_ONE, greeted),
    ("4.2.8 no share of a common group", hello(changes={SHARE: vector(2, b"")}), retried),
    ("4.2.10 early data that nobody can read", hello(changes={EARLY: b"", MODES: b"\1\1", PSK: psk()}), greeted),
    ("HTTP in clear", b"GET / HTTP/1.1\r\nHost: www.foobar.com\r\n\r\n", ended),
    ("5.1 a record that is too long", record(HANDSHAKE, b"\1" * 20000), alert(OVERFLOW)),
    ("5.1 a record of an unknown kind", record(99, b"\1\0"), alert(UNEXPECTED)),
    ("5.1 an empty record of a handshake", record(HANDSHAKE, b"") + hello(), alert(UNEXPECTED)),
    ("5.1 another kind of record within a message", record(HANDSHAKE, message(1, body())[:50]) + record(DATA, b"x"), alert(UNEXPECTED)),
    ("5 data before a greeting", record(DATA, b"x" * 50), alert(UNEXPECTED)),
    ("5 a change of ciphers before a greeting", record(CHANGE, b"\1"), alert(UNEXPECTED)),
    ("4 a Finished before a greeting", record(HANDSHAKE, message(20, b"x" * 32)), alert(UNEXPECTED)),
    ("4 a ServerHello from a client", record(HANDSHAKE, message(2, body())), alert(UNEXPECTED)),
    ("4 an unknown message", record(HANDSHAKE, message(99, b"")), alert(UNEXPECTED)),
    ("4 a message of 16 MB", record(HANDSHAKE, message(1, b"\3\3", 0xFFFFFF)) + record(HANDSHAKE, b"\0" * 16384) * 8, ended),
    ("6 a fatal alert", record(ALERT, b"\2\x28"), ended),
    ("6 alerts without end", record(ALERT, b"\1\x5a") * 2000, ended),
    ("4.1.2 bytes after the extensions", record(HANDSHAKE, message(1, body() + b"\0")), alert(DECODE)),
    ("4.1.2 a greeting that breaks off", hello()[:100], ended, END),
    ("4.1.2 a session of 33 bytes", hello(session=b"s" * 33), alert(DECODE, ILLEGAL)),
    ("4.1.2 no ciphers", hello(ciphers=b""), alert(DECODE, FAILURE, ILLEGAL)),
    ("4.1.2 half a cipher", hello(ciphers=TLS13 + b"\x13"), alert(DECODE)),
    ("4.1.2 compression", hello(compression=b"\1\0"), alert(ILLEGAL)),
    ("4.1.2 no way without compression", hello(compression=b"\1"), alert(ILLEGAL)),
    ("4.2 an extension twice", hello(more=struct.pack("!H", ALPN) + vector(2, protocols(b"h2"))), alert(ILLEGAL, DECODE)),
    ("4.2 an extension that is longer than all", hello(more=struct.pack("!HH", 99, 500)), alert(DECODE)),
    ("4.2.1 TLS 1.1", hello(changes={VERSIONS: versions(0x0302)}), alert(VERSION)),
    ("4.2.1 SSL 3", hello(legacy=0x0300, without=(VERSIONS, SHARE)), alert(VERSION)),
    ("4.2.1 no version", hello(changes={VERSIONS: versions()}), alert(DECODE, VERSION)),
    ("4.2.3 no signature algorithms", hello(changes={VERSIONS: versions(0x0304)}, without=(SIGNATURES,)), alert(MISSING)),
    ("4.2.3 none that the certificate can make", hello(changes={SIGNATURES: vector(2, b"\x08\x04"), VERSIONS: versions(0x0304)}), broken_off),
    ("4.2.7 groups that nobody knows", hello(changes={GROUPS: vector(2, b"\x7f\x01"), SHARE: vector(2, b""), VERSIONS: versions(0x0304)}), alert(FAILURE)),
    ("4.2.7 no groups beside a share", hello(changes={VERSIONS: versions(0x0304)}, without=(GROUPS,)), alert(MISSING)),
    ("4.2.8 no share beside groups", hello(changes={VERSIONS: versions(0x0304)}, without=(SHARE,)), alert(MISSING)),
    ("4.2.8 a share of 31 bytes", hello(changes={SHARE: share(key=b"k" * 31)}), alert(ILLEGAL)),
    ("4.2.8 a share that leads to zero", hello(changes={SHARE: share(key=b"\0" * 32)}), alert(ILLEGAL)),
    ("4.2.8 a share that is off the curve", hello(changes={GROUPS: vector(2, struct.pack("!H", P256)), SHARE: share(P256, b"\4" + b"\1" * 64)}), alert(ILLEGAL)),
    ("4.2.8 two shares of a group", hello(changes={SHARE: vector(2, share()[2:] + share()[2:])}), alert(ILLEGAL)),
    ("4.2.9 a ticket without a mode", hello(changes={PSK: psk()}), alert(MISSING)),
    ("4.2.11 a ticket that is not last", hello(changes={MODES: b"\1\1", PSK: psk(), 99: b""}), alert(ILLEGAL)),
    ("9.1 no common cipher", hello(ciphers=b"\0\x2f"), alert(FAILURE)),
    ("6066 3 a name of nobody here", hello(changes={SNI: name(b"elsewhere.org")}), alert(UNRECOGNISED)),
    ("6066 3 no name in the list", hello(changes={SNI: vector(2, b"")}), alert(DECODE, ILLEGAL)),
    ("7301 3.2 protocols that nobody speaks here", hello(changes={ALPN: protocols(b"spdy/3")}, without=(VERSIONS, SHARE)), alert(NO_PROTOCOL)),
    ("7301 3.2 the same by TLS 1.3, where the alert is encrypted", hello(changes={ALPN: protocols(b"spdy/3")}), broken_off),
    ("7301 3.1 no protocol in the list", hello(changes={ALPN: protocols()}), alert(DECODE)),
    ("7301 3.1 an empty protocol", hello(changes={ALPN: protocols(b"h2", b"")}), alert(DECODE)),
    ("4.1.2 another greeting for a Finished", hello(), broken_off, hello()),
    ("5.2 data that opens under no key", hello(), broken_off, record(DATA, b"x" * 50)),
    ("5 changes of ciphers without end", hello(), broken_off, record(CHANGE, b"\1") * 500),
    ("5 a change of ciphers that is none", hello(), broken_off, record(CHANGE, b"\2")),
]

# What rustls does otherwise, each for a greeting that ends all the same.
KNOWN = {
    "5.1 a record that is too long": alert(DECODE),
    "5.1 a record of an unknown kind": alert(DECODE),
    "5.1 an empty record of a handshake": alert(DECODE),
    "5.1 another kind of record within a message": silent,
    "5 data before a greeting": silent,
    "5 a change of ciphers before a greeting": silent,
    "4 a Finished before a greeting": silent,
    "4 a ServerHello from a client": alert(DECODE),
    "4 an unknown message": silent,
    "4.2.3 no signature algorithms": alert(FAILURE),
    "4.2.7 no groups beside a share": alert(FAILURE),
    "4.2.8 no share beside groups": alert(FAILURE),
    "4.2.11 a ticket that is not last": alert(DECODE),
}

judge(
    ((case, heard(sent, *then), good) for case, sent, good, *then in CASES),
    KNOWN,
    lambda: ("a good greeting", heard(hello()), greeted),
)
