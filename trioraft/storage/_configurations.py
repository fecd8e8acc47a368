"""Equal configurations as one object: the groups of a node mostly have the same members."""

from __future__ import annotations

from weakref import WeakValueDictionary

from ..core import BadConfigurationError, Configuration, decode_configuration
from ._batch import BadBytesError


class Configurations:
    """Remembers each configuration by its bytes, as long as somebody holds it."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, Configuration] = WeakValueDictionary()

    def decode(self, data: bytes) -> Configuration:
        """The configuration of these bytes.

        Raises:
            BadBytesError: they are none.
        """
        configuration = self._known.get(data)
        if configuration is None:
            try:
                configuration = decode_configuration(data)
            except BadConfigurationError as error:
                raise BadBytesError(str(error)) from None
            self._known[data] = configuration
        return configuration
