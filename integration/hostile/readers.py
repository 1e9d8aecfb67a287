"""Many abusive readers at a time, all from one address, which differs from the probes' address."""

import http.client
import socket
import threading

# Limits for each client address apply to the attackers only.
SOURCE = "127.0.0.2"


def connect(address, buffer=None):
    """A connection of an attacker, optionally with a small receive buffer."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(60)
    connection.bind((SOURCE, 0))
    connection.connect(address)
    return connection


def request(path, *headers):
    lines = [f"GET {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read(address, path, *headers):
    """Reads and discards a whole answer. Returns its status and length."""
    with connect(address) as connection:
        connection.sendall(request(path, *headers))
        head = connection.recv(65536)
        length, status = len(head), head[9:12].decode(errors="replace")
        while part := connection.recv(1 << 18):
            length += len(part)
    return status, length


def crowd(turn, count, address, paths, *headers):
    """Runs readers that request one path after the other, each without a pause, until the turn is over."""
    lock = threading.Lock()

    def one(number):
        asked = number
        while not turn.is_over():
            try:
                status, length = read(address, paths[asked % len(paths)], *headers)
                asked += 1
            except (OSError, http.client.HTTPException) as error:
                status, length = type(error).__name__, 0
            with lock:
                turn.did[f"answers {status or 'cut off'}"] += 1
                turn.did["MB read"] += length / 1e6
            if status != "200":
                turn.rest(0.05)

    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    turn.ends.wait()
    for thread in threads:
        thread.join(5)
