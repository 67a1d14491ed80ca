#!/usr/bin/env python3
"""Sends one signed request to a running Weft and prints the answer. Needs nothing but Python 3.

    docs/signed.py GET  /channels/notes/history limit=2 direction=oldest_first
    docs/signed.py POST /events '{"name":"note","channel":"notes","data":"hello"}'

The path is what follows /apps/{id}; name=value arguments go into the query, an argument that begins
with { is the body. The defaults are those of the built-in app. Exit code 0: the answer was 200.
"""
import argparse
import hashlib
import hmac
import http.client
import json
import sys
import time
import urllib.parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6001)
    parser.add_argument("--app-id", default="app-id")
    parser.add_argument("--key", default="app-key")
    parser.add_argument("--secret", default="app-secret")
    parser.add_argument("method", choices=["GET", "POST", "DELETE"])
    parser.add_argument("path")
    parser.add_argument("more", nargs="*", metavar="name=value or {body}")
    return parser.parse_args()


def sign(options, method, path, query, body):
    """The query with its signature: every parameter is signed, sorted by name."""
    query = {**query, "auth_key": options.key, "auth_timestamp": str(int(time.time())),
             "auth_version": "1.0"}
    if method == "POST":
        query["body_md5"] = hashlib.md5(body.encode()).hexdigest()
    pairs = "&".join(f"{name.lower()}={value}" for name, value in sorted(query.items()))
    text = f"{method}\n{path}\n{pairs}"
    query["auth_signature"] = hmac.new(options.secret.encode(), text.encode(),
                                       hashlib.sha256).hexdigest()
    return urllib.parse.urlencode(query)


def main():
    options = arguments()
    body = next((m for m in options.more if m.startswith("{")), "")
    query = dict(m.split("=", 1) for m in options.more if not m.startswith("{"))
    path = f"/apps/{options.app_id}{options.path}"
    signed = sign(options, options.method, path, query, body)
    connection = http.client.HTTPConnection(options.host, options.port, timeout=10)
    connection.request(options.method, f"{urllib.parse.quote(path, safe='/:')}?{signed}",
                       body=body or None, headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    try:
        print(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except ValueError:
        print(text)
    if answer.status != 200:
        sys.exit(f"status {answer.status}")


if __name__ == "__main__":
    main()
