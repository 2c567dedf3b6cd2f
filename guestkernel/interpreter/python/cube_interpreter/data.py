"""`e2b/data`: the columns of a pandas DataFrame."""

from IPython.core.formatters import BaseFormatter
from traitlets import Unicode

# Larger frames are not taken apart: their HTML and text are cut short by pandas, this is not.
_LIMIT_CELLS = 1_000_000


class DataFormatter(BaseFormatter):
    format_type = Unicode("e2b/data")
    print_method = Unicode("_repr_e2b_data_")
    _return_type = dict


def columns(frame):
    """{column: [values]}; nothing for a frame of more than a million cells."""
    if frame.size > _LIMIT_CELLS:
        return None
    return {str(name): [_plain(value) for value in frame.iloc[:, index].tolist()]
            for index, name in enumerate(frame.columns)}


def _plain(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if not hasattr(value, "isoformat") else value.isoformat()


def install(display_formatter):
    formatter = DataFormatter(parent=display_formatter)
    formatter.for_type_by_name("pandas.core.frame", "DataFrame", columns)
    display_formatter.formatters[formatter.format_type] = formatter
