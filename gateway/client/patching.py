"""Publications that come as patches of the ones before (protocol.md 2.8, Fossil delta). Pure."""

import msgspec
from msgspec import Raw

from gateway.protocol.client_codec import ClientCodec, ReceivedPublication
from gateway.protocol.fossil import PatchError, patched


class Patches:
    """Makes whole what one subscription gets, in order; it keeps the last value for that."""

    __slots__ = ("_base", "_codec")

    def __init__(self, codec: ClientCodec) -> None:
        self._codec = codec
        self._base: bytes | None = None

    def forget(self) -> None:
        """Have no last value: the next publication comes in full."""
        self._base = None

    def whole(self, publication: ReceivedPublication) -> ReceivedPublication:
        """Return *publication* as it was published.

        Raises:
            PatchError: if it is a patch of something that this subscription does not have.
        """
        try:
            data = self._codec.read_patched(publication.data)
        except ValueError as error:
            raise PatchError(str(error)) from None
        if publication.delta:
            if self._base is None:
                raise PatchError("a patch of nothing")
            data = patched(self._base, data)
        self._base = data
        return msgspec.structs.replace(publication, data=Raw(data), delta=False)
