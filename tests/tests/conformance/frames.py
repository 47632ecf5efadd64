"""What RFC 9113 and 7541 demand of a server whose client breaks the rules: one connection a case, and what must come."""

import socket, ssl, struct, sys

from judge import judge

CONTEXT = ssl.create_default_context(cafile=sys.argv[1])
CONTEXT.set_alpn_protocols(["h2"])
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
PROTOCOL, FLOW, STREAM_CLOSED, FRAME_SIZE, COMPRESSION = 1, 3, 5, 6, 9
CALM, INTERNAL = 11, 2
END, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack("!I", length)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def field(name, value):
    name, value = name.encode(), value.encode()
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def block(*extra, path="/healthz", method="GET", scheme="https", authority="www.foobar.com", order=()):
    pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    fields = [pair for pair in pseudo if pair[1] is not None] + list(extra)
    return b"".join(field(*pair) for pair in (list(order) or fields))


def get(stream=1, flags=END | END_HEADERS, **more):
    return frame(HEADERS, flags, stream, block(**more))


def with_fields(*extra, stream=1, flags=END | END_HEADERS, **more):
    return frame(HEADERS, flags, stream, block(*extra, **more))


class Ended(Exception):
    pass


def read(connection, count):
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise Ended
        data += chunk
    return data


STATUSES = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


def status(payload):
    """Of an answer's header block: by the static table, or a literal whose name is there."""
    if payload[0] in STATUSES:
        return STATUSES[payload[0]]
    text = payload[2:2 + (payload[1] & 0x7F)]
    return int(text) if payload[0] & 0x3F == 8 and text.isdigit() else None


def converse(sent, preface=PREFACE + frame(SETTINGS, 0, 0)):
    """What comes, to an end: ('goaway', code), ('rst', code), ('answer', status), ('pong', None), ('closed', None)."""
    plain = socket.create_connection(("203.0.113.10", 443), 5)
    with CONTEXT.wrap_socket(plain, server_hostname="www.foobar.com") as connection:
        connection.settimeout(3)
        heard = []
        try:
            try:
                connection.sendall(preface + sent)
            except (ConnectionError, ssl.SSLError):
                # Not all of a flood is taken; what was said before is still to be read.
                pass
            while True:
                head = read(connection, 9)
                length, kind = int.from_bytes(head[:3], "big"), head[3]
                payload = read(connection, length)
                if kind == GOAWAY:
                    heard.append(("goaway", int.from_bytes(payload[4:8], "big")))
                elif kind == RST:
                    heard.append(("rst", int.from_bytes(payload, "big")))
                elif kind == HEADERS:
                    heard.append(("answer", status(payload)))
                    if head[4] & END:
                        return heard
                elif kind == DATA and head[4] & END:
                    return heard
                elif kind == PING and head[4] & ACK:
                    heard.append(("pong", None))
                if kind in (GOAWAY, RST):
                    return heard
        except (Ended, ConnectionError, ssl.SSLError, socket.timeout, TimeoutError) as end:
            heard.append(("silent" if isinstance(end, (socket.timeout, TimeoutError)) else "closed", None))
            return heard


def connection_error(*codes):
    """5.4.1: GOAWAY with the code that the standard names."""
    return lambda heard: any(("goaway", code) in heard for code in codes)


def stream_error(*codes):
    """5.4.2: RST_STREAM with that code; any stream error may be made one of the connection."""
    return lambda heard: any(end in heard for code in codes for end in (("rst", code), ("goaway", code)))


def bad_preface(heard):
    """3.4: a connection error of type PROTOCOL_ERROR, whose GOAWAY may be omitted."""
    return ("goaway", PROTOCOL) in heard or heard == [("closed", None)]


def refused(heard):
    """8.1.1: a stream error of type PROTOCOL_ERROR, before which the server may answer."""
    return stream_error(PROTOCOL)(heard) or ("answer", 400) in heard


def bounded(heard):
    """10.5: the flood ends the connection; the code is the server's choice, and whether it says one."""
    return any(kind in ("goaway", "closed") for kind, _ in heard)


def answered(heard):
    return ("answer", 200) in heard


CASES = [
    ("3.4 no preface", b"", bad_preface, b"GET / HTTP/1.1\r\nHost: www.foobar.com\r\n\r\n" + b" " * 64),
    ("3.4 first frame is no SETTINGS", b"", bad_preface, PREFACE + frame(PING, 0, 0, b"12345678")),
    ("4.1 unknown frame is ignored", frame(0xBB, 0, 0, b"what") + get(), answered),
    ("4.1 reserved bit is ignored", frame(HEADERS, END | END_HEADERS, 1 | 1 << 31, block()), answered),
    ("4.2 frame larger than SETTINGS_MAX_FRAME_SIZE", get(flags=END_HEADERS, method="POST") + frame(DATA, 0, 1, b"x" * 16385), stream_error(FRAME_SIZE)),
    ("4.2 PING of 7 bytes", frame(PING, 0, 0, b"1234567"), connection_error(FRAME_SIZE)),
    ("4.3 broken header block", frame(HEADERS, END | END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), connection_error(COMPRESSION)),
    ("4.3 DATA between HEADERS and CONTINUATION", get(flags=0, method="POST") + frame(DATA, 0, 1, b"x"), connection_error(PROTOCOL)),
    ("5.1 DATA on an idle stream", frame(DATA, END, 1, b"x"), connection_error(PROTOCOL)),
    ("5.1 RST_STREAM on an idle stream", frame(RST, 0, 1, b"\0\0\0\0"), connection_error(PROTOCOL)),
    ("5.1 WINDOW_UPDATE on an idle stream", frame(WINDOW, 0, 1, b"\0\0\0\1"), connection_error(PROTOCOL)),
    ("5.1 CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, block()), connection_error(PROTOCOL)),
    ("5.1 DATA after END_STREAM", get() + frame(DATA, END, 1, b"x"), stream_error(STREAM_CLOSED)),
    ("5.1 HEADERS after END_STREAM", get(path="/slow?ms=500") + get(), stream_error(STREAM_CLOSED)),
    ("5.1.1 even stream", get(stream=2), connection_error(PROTOCOL)),
    ("5.1.1 smaller stream", get(stream=5, path="/slow?ms=500") + get(stream=3), connection_error(PROTOCOL)),
    ("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), connection_error(PROTOCOL)),
    ("6.1 padding longer than the frame", get(flags=END_HEADERS, method="POST") + frame(DATA, PADDED | END, 1, b"\x09x"), connection_error(PROTOCOL)),
    ("6.2 HEADERS on stream 0", frame(HEADERS, END | END_HEADERS, 0, block()), connection_error(PROTOCOL)),
    ("6.2 padding longer than the frame", frame(HEADERS, PADDED | END | END_HEADERS, 1, b"\xff" + block()), connection_error(PROTOCOL)),
    ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\0\1"), connection_error(PROTOCOL)),
    ("6.3 PRIORITY of 4 bytes", get(flags=END_HEADERS, method="POST") + frame(PRIORITY, 0, 1, b"\0\0\0\0"), stream_error(FRAME_SIZE)),
    ("6.4 RST_STREAM on stream 0", frame(RST, 0, 0, b"\0\0\0\0"), connection_error(PROTOCOL)),
    ("6.4 RST_STREAM of 3 bytes", get(flags=END_HEADERS, method="POST") + frame(RST, 0, 1, b"\0\0\0"), connection_error(FRAME_SIZE)),
    ("6.5 SETTINGS with ACK and a payload", frame(SETTINGS, ACK, 0, b"\0\0\0\0\0\0"), connection_error(FRAME_SIZE)),
    ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), connection_error(PROTOCOL)),
    ("6.5 SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, b"\0\0\0\0\0"), connection_error(FRAME_SIZE)),
    ("6.5.2 ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, b"\0\2\0\0\0\2"), connection_error(PROTOCOL)),
    ("6.5.2 INITIAL_WINDOW_SIZE too large", frame(SETTINGS, 0, 0, b"\0\4\x80\0\0\0"), connection_error(FLOW)),
    ("6.5.2 MAX_FRAME_SIZE too small", frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"), connection_error(PROTOCOL)),
    ("6.5.2 MAX_FRAME_SIZE too large", frame(SETTINGS, 0, 0, b"\0\5\xff\xff\xff\xff"), connection_error(PROTOCOL)),
    ("6.5.2 unknown setting is ignored", frame(SETTINGS, 0, 0, b"\0\xff\0\0\0\1") + get(), answered),
    ("6.6 PUSH_PROMISE from a client", frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + block()), connection_error(PROTOCOL)),
    ("6.7 PING is answered", frame(PING, 0, 0, b"12345678") + get(), lambda heard: ("pong", None) in heard),
    ("6.7 PING on a stream", frame(PING, 0, 1, b"12345678"), connection_error(PROTOCOL)),
    ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), connection_error(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of 0 on the connection", frame(WINDOW, 0, 0, b"\0\0\0\0"), connection_error(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW, 0, 0, b"\0\0\1"), connection_error(FRAME_SIZE)),
    ("6.9.1 connection window overflows", frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2, connection_error(FLOW)),
    ("6.9.1 stream window overflows", get(flags=END_HEADERS, method="POST") + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff") * 2, stream_error(FLOW)),
    ("6.10 CONTINUATION without HEADERS", get(path="/slow?ms=500") + frame(CONTINUATION, END_HEADERS, 1, block()), connection_error(PROTOCOL)),
    ("6.10 CONTINUATION of another stream", get(flags=END) + frame(CONTINUATION, END_HEADERS, 3, block()), connection_error(PROTOCOL)),
    ("8.2 upper-case name", with_fields(("X-Upper", "1")), refused),
    ("8.2.2 connection header", with_fields(("connection", "keep-alive")), refused),
    ("8.2.2 transfer-encoding", with_fields(("transfer-encoding", "chunked")), refused),
    ("8.2.2 TE other than trailers", with_fields(("te", "gzip")), refused),
    ("8.3 unknown pseudo-header", with_fields((":what", "1")), refused),
    ("8.3 pseudo-header after a field", frame(HEADERS, END | END_HEADERS, 1, block(order=[(":method", "GET"), (":scheme", "https"), ("x-a", "1"), (":path", "/"), (":authority", "www.foobar.com")])), refused),
    ("8.3 response pseudo-header", with_fields((":status", "200")), refused),
    ("8.3.1 empty path", get(path=""), refused),
    ("8.3.1 no method", get(method=None), refused),
    ("8.3.1 no scheme", get(scheme=None), refused),
    ("8.3.1 no path", get(path=None), refused),
    ("8.3.1 two methods", with_fields((":method", "GET")), refused),
    ("8.1.1 content-length larger than DATA", with_fields(("content-length", "5"), flags=END_HEADERS, method="POST") + frame(DATA, END, 1, b"x"), refused),
    ("8.1.1 content-length smaller than DATA", with_fields(("content-length", "1"), flags=END_HEADERS, method="POST", path="/echo") + frame(DATA, END, 1, b"xxxx"), refused),
    ("6.9 WINDOW_UPDATE of 0 on a stream", get(flags=END_HEADERS, method="POST") + frame(WINDOW, 0, 1, b"\0\0\0\0"), stream_error(PROTOCOL)),
    ("6.1 DATA of padding alone is a body of nothing", get(flags=END_HEADERS, method="POST", path="/echo") + frame(DATA, PADDED | END, 1, b"\3\0\0\0"), answered),
    ("8.1 trailers without END_STREAM", get(flags=END_HEADERS, method="POST") + frame(HEADERS, END_HEADERS, 1, field("x-a", "1")), refused),
    ("8.1 pseudo-header in trailers", get(flags=END_HEADERS, method="POST") + frame(HEADERS, END | END_HEADERS, 1, field(":path", "/")), refused),
    ("10.5 flood of SETTINGS", frame(SETTINGS, 0, 0) * 20000, bounded),
    ("10.5 flood of PING", frame(PING, 0, 0, b"12345678") * 20000, bounded),
    ("10.5 flood of PING with ACK", frame(PING, ACK, 0, b"12345678") * 20000, bounded),
    ("10.5 flood of PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") * 20000, bounded),
    ("10.5 flood of WINDOW_UPDATE", frame(WINDOW, 0, 0, b"\0\0\0\1") * 20000, bounded),
    ("10.5 flood of empty DATA", get(flags=END_HEADERS, method="POST", path="/echo") + frame(DATA, 0, 1) * 20000, bounded),
    ("10.5 flood of DATA of padding alone", get(flags=END_HEADERS, method="POST", path="/echo") + frame(DATA, PADDED, 1, b"\1\0") * 20000, bounded),
    ("10.5 flood of unknown frames", frame(0xBB, 0, 0, b"x") * 20000, bounded),
    ("10.5 flood of GOAWAY", frame(GOAWAY, 0, 0, b"\0" * 8) * 20000, bounded),
    ("10.5 flood of empty CONTINUATION", get(flags=END) + frame(CONTINUATION, 0, 1) * 20000, bounded),
    ("10.5 flood of CONTINUATION", get(flags=END) + frame(CONTINUATION, 0, 1, field("x-a", "b" * 100) * 100) * 200, bounded),
    ("10.5 rapid reset", b"".join(get(stream=2 * n + 1) + frame(RST, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(3000)), bounded),
    ("10.5 streams that make the server reset them", b"".join(get(stream=2 * n + 1, path="/slow?ms=500") + frame(WINDOW, 0, 2 * n + 1, b"\0\0\0\0") for n in range(3000)), bounded),
]

def general(heard):
    """The connection ends as it must, but by the general code."""
    return ("goaway", PROTOCOL) in heard


def pong(heard):
    return ("pong", None) in heard


# Where the h2 crate, which keeps the frames, does otherwise than the standard says, and what it does.
# docs/decisions/0007-http1-of-our-own.md says why that does no harm. One that is gone fails the suite.
KNOWN = {
    "3.4 first frame is no SETTINGS": pong,
    "4.2 PING of 7 bytes": general,
    "4.3 broken header block": general,
    "5.1 DATA after END_STREAM": general,
    "5.1 HEADERS after END_STREAM": general,
    "6.3 PRIORITY of 4 bytes": general,
    "6.4 RST_STREAM of 3 bytes": general,
    "6.5 SETTINGS with ACK and a payload": general,
    "6.5 SETTINGS of 5 bytes": general,
    "6.5.2 INITIAL_WINDOW_SIZE too large": general,
    "6.9 WINDOW_UPDATE of 3 bytes": general,
    "8.1 pseudo-header in trailers": answered,
}

judge(
    ((name, converse(sent, *preface), good) for name, sent, good, *preface in CASES),
    KNOWN,
    lambda: ("a good request", converse(get()), answered),
)
