"""The errors a user can meet. Each message is one sentence: what was found where, what was expected, what to do."""


class GrnError(Exception):
    """Anything the command line reports in one sentence with exit code 1."""


class UsageError(GrnError):
    """An invalid or contradictory option or argument; exit code 2."""


class MediaError(GrnError):
    """A source (image, clip, archive member) that cannot be read as media."""


class StoreError(GrnError):
    """A bit store that is damaged, locked, incomplete or not a store at all."""


class StoreMismatch(StoreError):
    """A bit store whose fingerprint differs from what was asked for."""


class LockError(GrnError):
    """A store or run that another process is writing, or a file system that cannot keep two writers apart."""


class MissingFolderError(GrnError):
    """A folder that was moved, replaced or removed while a command wrote into it."""


class CheckpointError(GrnError):
    """A checkpoint or run directory that is damaged, hostile or of another kind."""


class RecipeError(UsageError):
    """A recipe, or an override of it, with unknown, mistyped or impossible fields; exit code 2."""


class RemoteError(GrnError):
    """A server or object store that cannot be reached, refuses, or has no package here that can read it."""
