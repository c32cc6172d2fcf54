"""What subscribers may ask for beyond the ordinary: patches, numbers for names, a filter (protocol.md 2.8)."""

from typing import Final

import msgspec

from gateway.domain.channels import Channel, DeltaType
from gateway.domain.tags import FilteredVariant, InvalidFilterError, TagsFilter
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import Publication, SubscribeRequest
from gateway.protocol.variants import ProtocolVariant, Variant

OFFERS_COMPACTION: Final = 1
"""The bit of `SubscribeRequest.flag` that says that pushes may name the channel by a number (protocol.md 2.5)."""


class Wishes(msgspec.Struct, frozen=True):
    """How a subscriber wants what it gets: as far as its channel allows that, and told by `read_wishes`."""

    is_patched: bool = False
    is_numbered: bool = False
    tags_filter: TagsFilter | None = None

    def variant(self, variant: Variant) -> Variant | None:
        """Return what its publications are encoded as, where that is not *variant* itself."""
        if self == NO_WISHES:
            return None
        if isinstance(variant, ProtocolVariant):
            # centrifuge-js 5.8 offers numbers in Protobuf, too, but compares the objects that it reads them as and so
            # takes no push for its own: nobody gets them there (tests/sdks).
            is_numbered = self.is_numbered and variant.needs_json
            variant = variant.agreed(is_patched=self.is_patched, is_numbered=is_numbered)
        return variant if self.tags_filter is None else FilteredVariant(variant, self.tags_filter)

    def select(self, publications: list[Publication]) -> list[Publication]:
        """Return those that it wants."""
        if self.tags_filter is None:
            return publications
        return [each for each in publications if self.tags_filter.wants(each.tags)]


NO_WISHES: Final = Wishes()


def read_wishes(channel: Channel, request: SubscribeRequest, *, filter_limit: int) -> Wishes | ErrorCode | Disconnect:
    """Read what *request* asks for (protocol.md 2.8); to patches and numbers *channel* may say no in silence."""
    options = channel.options
    if request.delta and request.delta not in set(DeltaType):
        return codes.PROTOCOL_VIOLATED
    tags_filter = None
    if request.tf is not None:
        if not options.allow_tags_filter:
            return codes.BAD_REQUEST
        try:
            tags_filter = TagsFilter(request.tf, limit=filter_limit)
        except InvalidFilterError:
            return codes.BAD_REQUEST
    is_numbered = options.allow_channel_compaction and bool(request.flag & OFFERS_COMPACTION)
    is_patched = bool(request.delta) and DeltaType(request.delta) in options.allowed_delta_types
    if not (is_patched or is_numbered or tags_filter):
        return NO_WISHES
    return Wishes(is_patched=is_patched, is_numbered=is_numbered, tags_filter=tags_filter)


def protocol_variant(variant: Variant | None) -> ProtocolVariant | None:
    """Return what *variant* says of the client protocol, whatever is filtered; `None` for another protocol."""
    if isinstance(variant, FilteredVariant):
        variant = variant.variant
    return variant if isinstance(variant, ProtocolVariant) else None
