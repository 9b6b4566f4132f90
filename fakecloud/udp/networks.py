"""Which clients may come: a list of networks of both families. Pure."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton


class Networks:
    """Answers in a time that depends on the number of different prefix lengths only."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        """Raises: OSError, ValueError when one is not `address/length`."""
        self._by_shift: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for text in networks:
            address, _, length = text.partition("/")
            number = _packed(address)
            shift = len(number) * 8 - int(length)
            kept = self._by_shift[len(number)].setdefault(shift, set())
            kept.add(int.from_bytes(number, "big") >> shift)

    def __contains__(self, ip: str) -> bool:
        number = _packed(ip)
        value = int.from_bytes(number, "big")
        by_shift = self._by_shift[len(number)]
        return any(value >> shift in kept for shift, kept in by_shift.items())


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
