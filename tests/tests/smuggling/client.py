"""Sends every request of the corpus over TLS to the site; each must be refused with its status, alone."""

import re
import socket
import ssl
import sys

AUTHORITY, CORPUS = sys.argv[1:3]
ADDRESS = ("203.0.113.10", 443)
HOST = b"www.foobar.com"
ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


def unescape(text):
    def one(match):
        code = match[1]
        return bytes([int(code[1:], 16)]) if code[:1] == b"x" else ESCAPES[code]

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", one, text)


def ask(context, request):
    with socket.create_connection(ADDRESS, timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=HOST.decode()) as stream:
            stream.sendall(request)
            answer = b""
            while True:
                try:
                    piece = stream.recv(65536)
                except ConnectionResetError:
                    break
                if not piece:
                    return answer
                answer += piece
    return answer


def main():
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.set_alpn_protocols(["http/1.1"])
    wrong = []
    with open(CORPUS, "rb") as corpus:
        for line in corpus:
            if line.startswith(b"#"):
                continue
            title, escaped = line.rstrip(b"\n").split(b" | ", 1)
            status, name = title.split(b" ")
            # As it would be to a site that is there.
            request = unescape(escaped).replace(b"a.test", HOST)
            answer = ask(context, request)
            if not answer.startswith(b"HTTP/1.1 %s " % status) or answer.count(b"HTTP/1.1 ") != 1:
                wrong.append((name, answer[:200]))
    good = b"GET /good HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % HOST
    if not ask(context, good).startswith(b"HTTP/1.1 404 "):
        wrong.append((b"good", b""))
    print("ok" if not wrong else wrong)


main()
