"""The folder of ``python -m ntk_lpft.calibrate``: temperatures, calibration errors, and pictures of them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.runs.folder import RunFolder
from ntk_lpft.storage import read_table, write_json, write_table


class CalibrationRun(RunFolder):
    """Temperature scaling of one classifier or several."""

    TEMPERATURE: ClassVar[str] = "temperature.json"
    MEASURES: ClassVar[str] = "calibration.csv"
    TABLE: ClassVar[str] = "table.csv"
    HEAD_NORMS: ClassVar[str] = "head_norms.csv"
    NORM_PICTURE: ClassVar[str] = "confidence_against_head_norm.png"
    RELIABILITY: ClassVar[str] = "reliability"  # how the names of reliability diagrams begin
    TABLES: ClassVar[tuple[str, ...]] = (RunFolder.CONFIG, TEMPERATURE, MEASURES, TABLE, HEAD_NORMS)
    RESULTS = (*TABLES, NORM_PICTURE)
    MARKER = MEASURES
    COMMAND = "python -m ntk_lpft.calibrate"

    def write_tables(self, measures: pd.DataFrame, table: pd.DataFrame, head_norms: pd.DataFrame) -> None:
        """Write every measure, the paper's table of them, and head norms with temperatures.

        They are the last files, and the measures the last of them, which mark the command as finished.
        """
        for name, content in ((self.TABLE, table), (self.HEAD_NORMS, head_norms), (self.MEASURES, measures)):
            write_table(self.file(name), content)

    def write_temperatures(self, about: list[dict[str, Any]]) -> None:
        """Write the temperature of one classifier, with what is to be said of it, or a list of several."""
        content: Mapping[str, Any] = about[0] if len(about) == 1 else {"runs": about}
        write_json(self.file(self.TEMPERATURE), content)

    def temperature(self) -> float:
        """Read the temperature of a single classifier.

        Returns:
            T.

        Raises:
            InputError: The file is missing, damaged or altered, or is of several classifiers.
        """
        path = self.believed(self.TEMPERATURE)
        value = read_json(path).get("temperature")
        if not isinstance(value, float | int) or not 0 < value < float("inf"):
            raise InputError(f"{path} has no temperature of one classifier; calibrate it alone")
        return float(value)

    def measures(self) -> pd.DataFrame:
        """Read every measure: columns ``split``, ``stage``, ``measure``, ``value`` and more.

        Returns:
            One row for each measure of a split at a stage.

        Raises:
            InputError: The table is missing, damaged or altered.
        """
        return read_table(self.believed(self.MEASURES), ("split", "stage", "measure", "value"), ("value",))
