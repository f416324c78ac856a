"""The peers: the same mathematics through each library's documented way. A module is imported only where its library is installed."""

import importlib.util

# Name on the command line -> the module to import.
PEERS = {"numpyro": "numpyro", "torch": "torch", "pythae": "pythae", "sklearn": "sklearn"}


def installed() -> list[str]:
    return [name for name, module in PEERS.items() if importlib.util.find_spec(module) is not None]


def chosen(wanted: list[str] | None) -> list[str]:
    """Those wanted, or all that are installed; an error names what to install."""
    there = installed()
    if wanted is None:
        return there
    missing = [name for name in wanted if name not in there]
    if missing:
        raise SystemExit(
            f"not installed: {', '.join(missing)}; pip install -e '.[peers]' brings all of {', '.join(PEERS)}"
        )
    return wanted
