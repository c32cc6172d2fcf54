"""What a batch is to subscribers who do not all get the same of it: by their filters, and as patches of what they have.

Whatever two groups get alike is encoded once: the same publications of the batch, for the same variant, as patches of
the same one.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from gateway.domain.hub import Group, LocalChannel
from gateway.domain.tags import FilteredVariant, TagsFilter
from gateway.protocol.messages import Publication
from gateway.protocol.variants import ProtocolVariant, Variant


class Selected(NamedTuple):
    """What is written to a group: so many publications as *data*."""

    size: int
    data: bytes


class Selection:
    """One batch of *local*, of which each group gets its own."""

    def __init__(self, local: LocalChannel, batch: Sequence[Publication]) -> None:
        self._local = local
        self._batch = batch
        self._wanted: dict[TagsFilter, tuple[int, ...]] = {}
        self._encoded: dict[tuple[Variant, tuple[int, ...], int], bytes] = {}

    def encode(self, variant: Variant, group: Group) -> Selected:
        """Return what *group*, whose variant is not common to all, is written; and note that it has got that."""
        if isinstance(variant, FilteredVariant):
            wanted, plain = self._wanted_by(variant.tags_filter), variant.variant
        else:
            wanted, plain = tuple(range(len(self._batch))), variant
        if not wanted:
            return Selected(0, b"")
        key = plain, wanted, id(group.base)
        data = self._encoded.get(key)
        if data is None:
            data = self._encoded[key] = self._encode(plain, [self._batch[index] for index in wanted], group.base)
        group.base = self._batch[wanted[-1]] if _is_patched(plain) else None
        return Selected(len(wanted), data)

    def _wanted_by(self, tags_filter: TagsFilter) -> tuple[int, ...]:
        wanted = self._wanted.get(tags_filter)
        if wanted is None:
            wants = tags_filter.wants
            wanted = tuple(index for index, each in enumerate(self._batch) if wants(each.tags))
            self._wanted[tags_filter] = wanted
        return wanted

    def _encode(self, variant: Variant, publications: Sequence[Publication], base: Publication | None) -> bytes:
        local = self._local
        if _is_patched(variant):
            publications = variant.patches(publications, base)
            local.ledger.patched += sum(each.delta for each in publications)
        return variant.publications(local.number if variant.is_numbered else local.channel.name, publications)


def _is_patched(variant: Variant) -> TypeGuard[ProtocolVariant]:
    return isinstance(variant, ProtocolVariant) and variant.is_patched
