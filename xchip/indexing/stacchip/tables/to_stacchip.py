"""Convert rows of an index to stacchip's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xchip.indexing.rows import arrow_column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def stacchip_columns(frame: pd.DataFrame) -> dict[str, pa.Array]:
    """Return stacchip's columns without the geometry. Its cloud share is of all pixels: cloud, shadow and defective ones."""
    import pyarrow as pa

    nodata = frame["nodata_fraction"].to_numpy()
    masked = sum(frame[f"{name}_fraction"].to_numpy() for name in ("cloud", "shadow", "defective"))
    cloudy = np.where(nodata == 1, 0.0, np.nan_to_num(masked) * (1 - nodata))
    return {
        "chipid": arrow_column(frame["chip_id"], pa.string()),
        "platform": arrow_column(frame["sensor"], pa.string()),
        "item": arrow_column(frame["item_id"], pa.string()),
        "date": pa.array(frame["datetime"].dt.date, pa.date32(), from_pandas=True),
        "chip_index_x": arrow_column(frame["chip_index_x"], pa.int64()),
        "chip_index_y": arrow_column(frame["chip_index_y"], pa.int64()),
        "cloud_cover_percentage": pa.array(cloudy),
        "nodata_percentage": pa.array(nodata),
    }
