"""Requests without a pause over HTTPS, on kept and on fresh connections, until standard input closes; then the sums.

A request on a kept connection that ends before a byte of the answer is sent once more on a fresh one, as browsers and
curl do: the server may close an idle connection at any time. On a fresh connection nothing is forgiven.
"""

import collections, http.client, json, socket, ssl, sys, threading, time

ADDRESS, PORT, CA, THREADS = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
STOP = threading.Event()
SUMS = collections.Counter()
ERRORS = []


class Connection(http.client.HTTPSConnection):
    def connect(self):
        plain = socket.create_connection((ADDRESS, PORT), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = CONTEXT.wrap_socket(plain, server_hostname="www.foobar.com")


CONTEXT = ssl.create_default_context(cafile=CA)


def ask(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    closes = answer.getheader("Connection", "").lower() == "close"
    return answer.status, body, closes


def load(number):
    connection, asked = None, 0
    while not STOP.is_set():
        fresh = connection is None
        if fresh:
            connection, asked = Connection("www.foobar.com", timeout=15), 0
        SUMS["made"] += 1
        try:
            status, body, closes = ask(connection, "/whoami")
            if status != 200 or b'"server"' not in body:
                SUMS["failed"] += 1
                ERRORS.append(f"{time.time():.3f} status {status} {body[:80]!r}")
        except Exception as error:
            connection.close()
            connection = None
            if fresh:
                SUMS["failed"] += 1
                ERRORS.append(f"{time.time():.3f} fresh: {error!r}")
            else:
                SUMS["made"] -= 1
                SUMS["again"] += 1
            continue
        asked += 1
        # Odd threads keep connections, even ones shake hands for nearly every request.
        if closes or asked >= (200 if number % 2 else 2):
            connection.close()
            connection = None


threads = [threading.Thread(target=load, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
STOP.set()
for thread in threads:
    thread.join()
print(json.dumps({"made": SUMS["made"], "failed": SUMS["failed"], "again": SUMS["again"], "errors": ERRORS[:20]}))
