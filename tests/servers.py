"""Servers that speak real protocols, on this machine alone: S3 by moto, SFTP by OpenSSH, and a proxy that cuts lines.

As a program (`python -m tests.servers`) this is the S3 server, in a process of its own: so that nothing of it, and none
of its warnings, is in the process of the tests.
"""

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PATIENCE = 60
"""Seconds after which a server counts as stuck."""

ADMIN = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "secret-of-admin"}
"""Credentials that open everything, as long as the server does not check them."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running moto server."""

    port: int
    process: "subprocess.Popen[str]"

    @property
    def client(self) -> Any:
        """A client of boto3, with all rights."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=ADMIN["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ADMIN["AWS_SECRET_ACCESS_KEY"],
        )

    def environment(self, port: int | None = None, **more: str | Path) -> dict[str, str | Path]:
        """What a command needs to reach it, directly or by a proxy's port."""
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}"}
        return {**ADMIN, **endpoint, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", **more}

    def ask(self, order: str) -> str:
        """Have the server's process do something, and give what it says."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def fill(self, bucket: str, count: int) -> None:
        """Put many small objects into a bucket."""
        assert self.ask(f"fill {bucket} {count}") == "done"

    def check_credentials(self) -> dict[str, str]:
        """From now on, have the server open to the credentials that are given here alone."""
        key, secret = self.ask("check").split()
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Put a folder's files into a bucket."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run one, which knows nothing yet."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers"],
        cwd=Path(__file__).parents[1],
        env=clean | {"AWS_EC2_METADATA_DISABLED": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield S3Server(int(process.stdout.readline()), process)
        finally:
            process.kill()


def serve_s3() -> None:
    """Be the S3 server: say the port, then do what is asked for, until nobody asks any more."""
    import json

    import boto3
    import requests
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(port, flush=True)  # noqa: T201
    for line in sys.stdin:
        order, *arguments = line.split()
        if order == "fill":
            backend = next(iter(s3_backends["123456789012"].values()))
            for number in range(int(arguments[1])):
                backend.put_object(arguments[0], f"many/{number // 1000}/{number:05d}.png", b"x" * 10)
            print("done", flush=True)  # noqa: T201
        else:
            iam = boto3.client("iam", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **_given(ADMIN))
            iam.create_user(UserName="u")
            key = iam.create_access_key(UserName="u")["AccessKey"]
            allowed = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
            policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
            iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=policy)
            requests.post(f"http://{host}:{port}/moto-api/reset-auth", data="0", timeout=PATIENCE)
            print(key["AccessKeyId"], key["SecretAccessKey"], flush=True)  # noqa: T201


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in environment.items()}


@dataclass(slots=True)
class Proxy:
    """A line to a server that counts requests of HTTP, and cuts answers short."""

    port: int = 0
    requests: list[str] = field(default_factory=list)
    """Method and target of each."""
    cuts: int = 0
    """How many answers, from now on, are cut in the middle."""
    cut: "re.Pattern[bytes]" = field(default_factory=lambda: re.compile(rb"GET \S+\.png"))
    """Which requests' answers are."""
    stalls: int = 0
    """How many of these requests, from now on, are kept from the server: its answer never comes."""
    cut_after_bytes: int | None = None
    """How many bytes pass in either direction, in all, until the line is cut; None cuts none so."""
    cut_all: bool = True
    """Whether every line is cut from then on, or that one alone."""

    @property
    def objects_read(self) -> list[str]:
        """The requests that are about one object."""
        return [request for request in self.requests if "list-type=2" not in request]


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run one, in threads of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(listening.getsockname()[1])
    is_over = threading.Event()

    def accept() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                client, _ = listening.accept()
                threading.Thread(target=_pass_on, args=(client, port, proxy), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        is_over.set()
        listening.close()


def _pass_on(client: socket.socket, port: int, proxy: Proxy) -> None:
    """Pass on what comes, both ways, until one side ends."""
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    to_cut = threading.Event()

    def forward(source: socket.socket, target: socket.socket, *, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_request:
                    found = re.findall(rb"(?:GET|HEAD|PUT|POST|DELETE) \S+(?= HTTP/1\.1\r\n)", data)
                    proxy.requests += [request.decode() for request in found]
                    if proxy.stalls > 0 and any(proxy.cut.match(request) for request in found):
                        proxy.stalls -= 1
                        continue
                    if proxy.cuts > 0 and any(proxy.cut.match(request) for request in found):
                        proxy.cuts -= 1
                        to_cut.set()
                elif to_cut.is_set():
                    target.sendall(data[: len(data) // 2])
                    time.sleep(0.05)
                    break
                if proxy.cut_after_bytes is not None:
                    proxy.cut_after_bytes -= len(data)
                    if proxy.cut_after_bytes < 0:
                        proxy.cut_after_bytes = -1 if proxy.cut_all else None
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=forward, args=(client, server), kwargs={"is_request": True}, daemon=True).start()
    forward(server, client, is_request=False)
    for end in (client, server):
        end.close()


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running OpenSSH server, and a home whose keys it lets in."""

    port: int
    home: Path
    host_key: str

    def url(self, path: Path | str, port: int | None = None) -> str:
        """Name a file or folder there."""
        return f"sftp://{_user()}@127.0.0.1:{port or self.port}{path}"

    def environment(self, **more: str | Path) -> dict[str, str | Path]:
        """What a command needs to get in."""
        return {"HOME": self.home, "SSH_AUTH_SOCK": "", **more}

    def know(self, *ports: int, key: str | None = None) -> None:
        """Enter a host key, that of the server if none is given, for some ports into `known_hosts`, alone."""
        lines = [f"[127.0.0.1]:{port} {key or self.host_key}\n" for port in ports]
        (self.home / ".ssh" / "known_hosts").write_text("".join(lines))


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def make_key(path: Path) -> str:
    """Make a pair of keys; give the public one, as `known_hosts` has it."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Run one under a port and keys of its own."""
    assert SSHD
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # else it does not start
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    host_key = make_key(folder / "host")
    (folder / "authorized").write_text(make_key(home / ".ssh" / "id_ed25519") + "\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n"
        "Subsystem sftp internal-sftp\n"
    )
    with (folder / "log").open("wb") as log, subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log) as process:
        try:
            _wait_for(port)
            server = SshServer(port, home, host_key)
            server.know(port)
            yield server
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    message = f"nobody listens on port {port}"
    raise AssertionError(message)


if __name__ == "__main__":
    serve_s3()
