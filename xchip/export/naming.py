"""Names of single chips must be names of one chip each."""

from __future__ import annotations

import numpy as np

from xchip.chips.open_chips import ChipTable


def refuse_doubles(table: ChipTable) -> None:
    """Refuse chips that can't be told apart by collection, item and id.

    Raises
    ------
    ValueError
        If two have the same: one of them would replace the other.
    """
    import pandas as pd

    collections = np.array([ref.collection or "" for ref in table.rows.items], object)[table.rows.item]
    ids = pd.DataFrame({"collection": collections, "item_id": table.coords["item_id"], "chip_id": table.coords["chip_id"]})
    doubles = ids[ids.duplicated()]
    if len(doubles):
        raise ValueError(
            f"{len(doubles):,} chips of the index have the id of another one, such as {doubles['chip_id'].iloc[0]!r} of item "
            f"{doubles['item_id'].iloc[0]!r}, and their names would be the same; export each grid by itself, or drop the doubles"
        )
