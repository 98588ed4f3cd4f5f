"""Sends BYTES from the first host of a lab to the second (and waits for the answer), and then the other way round;
prints `bytes_per_s up` and `bytes_per_s down` as the first host saw it. Run as the command of deploy/lab/lab.sh -n
2."""
import os
import socket
import sys
import time

rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
total = int(sys.argv[1])
chunk = bytes(1 << 16)


def send(s):
    left = total
    while left > 0:
        left -= s.send(chunk[:left])


def receive(s):
    left = total
    while left > 0:
        got = len(s.recv(min(left, len(chunk))))
        if got == 0:
            sys.exit("the other host ended early")
        left -= got


if rank == 1:
    server = socket.create_server(("10.10.10.2", 4000))
    s, _ = server.accept()
    receive(s)
    s.sendall(b"x")
    send(s)
    s.recv(1)
else:
    while True:
        try:
            s = socket.create_connection(("10.10.10.2", 4000))
            break
        except OSError:
            time.sleep(0.01)
    begin = time.monotonic()
    send(s)
    s.recv(1)
    middle = time.monotonic()
    receive(s)
    s.sendall(b"x")
    end = time.monotonic()
    print(f"up {total / (middle - begin):.0f}")
    print(f"down {total / (end - middle):.0f}")
