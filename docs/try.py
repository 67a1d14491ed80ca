#!/usr/bin/env python3
"""Sends one event through a running Weft and shows it arriving. Needs nothing but Python 3.

It opens a WebSocket, subscribes to a channel, publishes one event with a signed HTTP request, and
prints every frame. The defaults are those of the built-in app. Exit code 0: the event arrived.
"""
import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6001)
    parser.add_argument("--app-id", default="app-id")
    parser.add_argument("--key", default="app-key")
    parser.add_argument("--secret", default="app-secret")
    parser.add_argument("--channel", default="hello")
    parser.add_argument("--message", default="Hello, world")
    return parser.parse_args()


class WebSocket:
    """As much of RFC 6455 as this page needs: short text frames."""

    def __init__(self, host, port, path):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.stream = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        status = self.stream.readline().decode().strip()
        while self.stream.readline().strip():
            pass
        if " 101 " not in status + " ":
            sys.exit(f"the server refused the WebSocket: {status}")

    def send(self, message):
        text = json.dumps(message).encode()
        if len(text) > 125:
            sys.exit("the channel name is too long for this little client")
        mask = os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(text))
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        print("-->", text.decode())

    def receive(self):
        while True:
            opcode, size = self.stream.read(2)
            if size == 126:
                size = int.from_bytes(self.stream.read(2), "big")
            elif size == 127:
                size = int.from_bytes(self.stream.read(8), "big")
            payload = self.stream.read(size)
            if opcode == 0x88:
                sys.exit(f"closed by the server: {payload[2:].decode()}")
            if opcode == 0x81:
                print("<--", payload.decode())
                return json.loads(payload)

    def receive_until(self, event):
        while True:
            frame = self.receive()
            if frame["event"] == event:
                return frame


def publish(args, event):
    body = json.dumps({"name": event, "channels": [args.channel],
                       "data": json.dumps({"message": args.message})})
    path = f"/apps/{args.app_id}/events"
    query = "&".join([
        f"auth_key={args.key}",
        f"auth_timestamp={int(time.time())}",
        "auth_version=1.0",
        f"body_md5={hashlib.md5(body.encode()).hexdigest()}",
    ])
    signature = hmac.new(args.secret.encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256)
    connection = http.client.HTTPConnection(args.host, args.port, timeout=10)
    connection.request("POST", f"{path}?{query}&auth_signature={signature.hexdigest()}", body,
                       {"Content-Type": "application/json"})
    answer = connection.getresponse()
    print(f"POST {path} {body}\n     {answer.status} {answer.read().decode()}")
    if answer.status != 200:
        sys.exit("the server refused the event")


def main():
    args = arguments()
    try:
        ws = WebSocket(args.host, args.port, f"/app/{args.key}?protocol=7")
        ws.receive_until("pusher:connection_established")
        ws.send({"event": "pusher:subscribe", "data": {"channel": args.channel}})
        ws.receive_until("pusher_internal:subscription_succeeded")
        publish(args, "greeting")
        ws.receive_until("greeting")
    except (OSError, ValueError) as e:
        sys.exit(f"no answer from {args.host}:{args.port}: {e}")
    print("It works.")


if __name__ == "__main__":
    main()
