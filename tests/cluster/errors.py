"""Errors of the embedded cluster; each message is one that a user can act on."""


class ClusterError(Exception):
    """The embedded cluster can't do what was asked; the message says why and what helps."""


class BinariesMissingError(ClusterError):
    """The control-plane executables are not there and were not to be fetched or built."""


class DownloadError(ClusterError):
    """A release file could not be fetched, or its checksum is wrong."""


class BuildError(ClusterError):
    """The executables could not be built from source."""


class StartError(ClusterError):
    """A control-plane process did not get ready; the message ends with its last log lines."""


class PortTakenError(StartError):
    """Another process took a port between its choice and its use: another try will do."""
