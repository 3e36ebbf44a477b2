"""Attacks that reach the network, or services of the host."""

from __future__ import annotations

from tests.contracts.attacks.field import Field, attack


@attack
async def reach_services_of_the_host(field: Field) -> str | None:
    out = await field.python("""
        import socket
        for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("localhost", PORT)), (socket.AF_UNIX, "\\0" + SECRET),
                                (socket.AF_UNIX, FILE.rsplit("/", 1)[0] + "/socket"), (socket.AF_INET6, ("::1", PORT))):
            try:
                with socket.socket(family) as s:
                    s.settimeout(1); s.connect(address); print("connected", address)
            except OSError as error: pass
    """)
    return out.strip() or "; ".join(field.host.heard) if "connected" in out or field.host.heard else None


@attack
async def reach_the_internet(field: Field) -> str | None:
    out = await field.python("""
        import socket
        for address in (("1.1.1.1", 53), ("8.8.8.8", 443), ("169.254.169.254", 80), ("10.0.2.2", 22), ("192.168.0.1", 80)):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    with socket.socket(socket.AF_INET, kind) as s: s.settimeout(0.5); s.connect(address); s.send(b"x"); print("sent to", address)
                except OSError: pass
        try: print("resolved", socket.getaddrinfo("example.com", 80))
        except OSError: pass
    """)
    return out.strip() or None


@attack
async def find_interfaces(field: Field) -> str | None:
    out = await field.shell("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v '^lo$'")
    return f"there are {out.split()}" if out.strip() else None


@attack
async def open_unusual_sockets(field: Field) -> str | None:
    out = await field.python("""
        import socket
        for name, family, kind, protocol in (("raw", socket.AF_INET, socket.SOCK_RAW, 1), ("packet", 17, socket.SOCK_RAW, 3), ("vsock", 40, socket.SOCK_STREAM, 0),
                                             ("crypto", 38, 5, 0), ("bluetooth", 31, 3, 1), ("can", 29, 3, 1), ("xdp", 44, 3, 0)):
            try: socket.socket(family, kind, protocol).close(); print(name)
            except OSError: pass
    """)
    return f"opened {out.split()}" if out.strip() else None
