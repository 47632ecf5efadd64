"""A balancer before the balancer: says by the PROXY protocol, version 2, whose connection it is, then asks."""

import socket, ssl, struct, sys

plain = socket.create_connection(("203.0.113.10", 443), 10)
addresses = socket.inet_aton("192.0.2.77") + socket.inet_aton("203.0.113.10") + struct.pack("!HH", 51000, 443)
plain.sendall(b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(addresses)) + addresses)
context = ssl.create_default_context(cafile=sys.argv[1])
with context.wrap_socket(plain, server_hostname="www.foobar.com") as tls:
    tls.sendall(b"GET /whoami HTTP/1.1\r\nHost: www.foobar.com\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := tls.recv(65536):
        answer += chunk
assert b"192.0.2.77" in answer, answer
print("ok")
