"""What the disk says of a group, held against what a caller asks for."""

from __future__ import annotations

from .._errors import ConfigError, GroupExistsError, GroupNotFoundError
from .._types import NOTHING, EntryId, GroupKey, NodeId
from ..storage import EVERY_NUMBER, GroupRecord, RecoveredGroup


def barred(key: GroupKey, found: RecoveredGroup | None) -> EntryId:
    """Up to which number no replica of this group may come again to this node."""
    if found is None or found.tombstone is None or found.tombstone.incarnation < key.incarnation:
        return NOTHING
    if found.tombstone.incarnation > key.incarnation:
        raise GroupExistsError(
            f"group {key.group_id} was removed here in incarnation {found.tombstone.incarnation}: join that, or a later one"
        )
    if found.barred == EVERY_NUMBER:
        raise GroupExistsError(
            f"group {key.group_id} was damaged when it was removed here, and `remove_group` was not told which replica it was: this node "
            f"cannot come back to incarnation {key.incarnation} of it"
        )
    return found.barred


def check_matching(record: GroupRecord | None, key: GroupKey, voters: frozenset[NodeId] | None) -> None:
    """Refuse a group found on disk that is not the one asked for."""
    if record is None:
        raise GroupExistsError(f"group {key.group_id} has stopped and is being removed, for a caller that left: call remove_group again")
    if record.key != key:
        raise GroupExistsError(f"group {key.group_id} exists here in incarnation {record.key.incarnation}, not {key.incarnation}")
    if voters is None:
        return
    if not record.configuration.voters:
        raise GroupExistsError(f"group {record.key.group_id} was joined, and not begun with members: open it with join=True")
    if record.configuration.voters != voters:
        raise GroupExistsError(
            f"group {key.group_id} was created with members {sorted(record.configuration.voters)}, not {sorted(voters)}: "
            f"open it with the members it has"
        )


def removed_key(found: RecoveredGroup, incarnation: int | None) -> GroupKey:
    """Which replica is to be removed."""
    own = None if found.record is None else found.record.key
    if incarnation is None:
        if own is None:
            raise ConfigError(
                f"group {found.group_id} is damaged, and which incarnation it was cannot be read: pass the newest that add_group was ever "
                f"called with, which is incarnation=1 unless you gave another"
            )
        return own
    check_incarnation(incarnation)
    # What damage hides may be a later replica than the one that can be read.
    if own is not None and (incarnation < own.incarnation or (incarnation > own.incarnation and found.failure is None)):
        raise GroupNotFoundError(f"group {found.group_id} is here in incarnation {own.incarnation}, not {incarnation}")
    return GroupKey(found.group_id, incarnation)


def check_replica(found: RecoveredGroup, replica: EntryId | None) -> None:
    """Refuse a number where none is needed: whoever names one has mistaken the node or the group."""
    if replica is None:
        return
    if not isinstance(replica, EntryId):
        raise ConfigError(f"a replica number is an EntryId, as `RaftGroup.status` of another member has it in `replicas`, not {replica!r}")
    if found.failure is None:
        raise ConfigError(f"group {found.group_id} is not damaged, and knows its own replica number: remove it without `replica`")


def check_incarnation(incarnation: int) -> None:
    if type(incarnation) is not int or not 1 <= incarnation < 1 << 32:
        raise ConfigError(f"an incarnation is a whole number from 1 to 2**32 - 1, not {incarnation!r}")
