"""What SRC names: files, directories, archives and lists of paths, listed without opening any media."""

from grncli.media.listing.source_arguments import ListingOptions, list_sources

__all__ = ["ListingOptions", "list_sources"]
