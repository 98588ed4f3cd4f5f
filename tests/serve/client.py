"""A client of the server in the standard library alone, and checks, for tests."""
import http.client
import json
import sys
import urllib.parse


class Client:
    def __init__(self, url, timeout=120):
        self.host = urllib.parse.urlsplit(url).netloc
        self.timeout = timeout

    def request(self, method, path, body=None, headers=()):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=self.timeout)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def post(self, path, body, **more):
        status, headers, data = self.request("POST", path, body, **more)
        return status, json.loads(data)

    def get(self, path):
        status, headers, data = self.request("GET", path)
        return status, data.decode()

    def lines(self, path, body):
        """The connection, and an iterator of the lines of a stream's events as they come."""
        connection = http.client.HTTPConnection(self.host, timeout=self.timeout)
        connection.request("POST", path, json.dumps(dict(body, stream=True)).encode())
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{answer.status}: {answer.read().decode()}")
        return connection, (line.decode().strip() for line in answer if line.startswith(b"data: "))

    def stream(self, path, body):
        """The connection, and an iterator of the chunks of an answer as it comes."""
        connection, lines = self.lines(path, body)

        def chunks():
            for line in lines:
                if line == "data: [DONE]":
                    return
                yield json.loads(line[6:])
        return connection, chunks()

    def metric(self, name):
        """The sum of a metric over its labels."""
        _, text = self.get("/metrics")
        values = [float(line.split()[-1]) for line in text.splitlines()
                  if line.split("{")[0].split(" ")[0] == name]
        if not values:
            raise KeyError(name)
        return sum(values)


def user(text, **more):
    return dict({"messages": [{"role": "user", "content": text}], "temperature": 0}, **more)


failures = []


def check(what, right, found=""):
    """A check that failed is told; the test goes on."""
    if not right:
        failures.append(what)
        print(f"FAILED: {what}: {found}")


def run(*tests):
    """All of them, whatever becomes of one; ends the program, with status 1 where a check failed."""
    for test in tests:
        try:
            test()
        except Exception as error:
            check(test.__name__, False, repr(error))
    sys.exit(bool(failures))
