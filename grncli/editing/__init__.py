"""``grn store``: rows of finished stores dropped, copied, divided, joined and compared, without encoding anything."""
