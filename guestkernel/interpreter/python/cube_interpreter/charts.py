"""`e2b/chart`: what a matplotlib figure shows, as numbers. The shapes are those that the client
library declares (charts.d.ts of @e2b/code-interpreter)."""

import re
import sys

from IPython.core.formatters import BaseFormatter
from traitlets import Unicode

# Points of one series that are sent at most; the picture shows the rest.
_LIMIT_POINTS = 100_000


class ChartFormatter(BaseFormatter):
    format_type = Unicode("e2b/chart")
    print_method = Unicode("_repr_e2b_chart_")
    _return_type = dict

    def __call__(self, obj):
        # Not a printer for the type: `%matplotlib inline` takes all of those away.
        figure = sys.modules.get("matplotlib.figure")
        if figure is None or not isinstance(obj, figure.Figure):
            return super().__call__(obj)
        try:
            return chart(obj)
        except Exception:
            return None  # what nobody thought of when a figure was drawn; its picture remains


def chart(figure):
    """The chart of a figure: that of its only axes, a superchart of several, nothing if it shows
    none."""
    charts = [found for found in map(_axes_chart, figure.axes) if found is not None]
    if not charts:
        return None
    if len(charts) == 1:
        return charts[0]
    title = figure._suptitle.get_text() if figure._suptitle is not None else ""
    return {"type": "superchart", "title": title, "elements": charts}


def _axes_chart(axes):
    for kind, elements_of in (("pie", _pie), ("box_and_whisker", _boxes), ("bar", _bars),
                              ("line", _lines), ("scatter", _scatter)):
        elements = elements_of(axes)
        if not elements:
            continue
        found = {"type": kind, "title": axes.get_title(), "elements": elements}
        if kind != "pie":
            found.update(_labels(axes))
        if kind in ("line", "scatter"):
            found.update(_axis("x", axes.xaxis))
            found.update(_axis("y", axes.yaxis))
        return found
    if axes.images or axes.collections or axes.patches or axes.texts:
        return {"type": "unknown", "title": axes.get_title(), "elements": []}
    return None


def _labels(axes):
    found = {}
    for name, label in (("x", axes.get_xlabel()), ("y", axes.get_ylabel())):
        unit = re.search(r"[(\[]([^()\[\]]+)[)\]]\s*$", label)
        found[name + "_label"] = label or None
        found[name + "_unit"] = unit.group(1) if unit else None
    return found


def _scale(axis):
    from matplotlib.category import StrCategoryConverter

    converter = axis.converter
    if isinstance(converter, StrCategoryConverter):
        return "categorical"
    if converter is not None and "Date" in type(converter).__name__:
        return "datetime"
    return axis.get_scale()


def _values(axis, numbers):
    """An axis's numbers as its user gave them: dates as ISO 8601, names of categories."""
    import numpy

    numbers = numpy.asarray(numbers)[:_LIMIT_POINTS]
    scale = _scale(axis)
    if scale == "datetime":
        from matplotlib.dates import num2date

        return [number.isoformat() if hasattr(number, "isoformat")
                else num2date(number).isoformat() for number in numbers]
    if scale == "categorical":
        names = {place: name for name, place in axis.units._mapping.items()}
        return [names.get(number, number) for number in numbers.tolist()]
    return numbers.tolist()


def _axis(name, axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_ticklocs() if low <= tick <= high]
    return {
        name + "_ticks": _values(axis, ticks),
        name + "_tick_labels": axis.major.formatter.format_ticks(ticks),
        name + "_scale": _scale(axis),
    }


def _own_label(artist):
    """The label that the user gave; matplotlib's own begin with an underscore."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _points(axes, label, x, y):
    return {"label": label,
            "points": [list(point) for point in zip(_values(axes.xaxis, x),
                                                    _values(axes.yaxis, y))]}


def _lines(axes):
    # Lines in other coordinates than the data's (axhline and the like) are decoration.
    return [_points(axes, _own_label(line), line.get_xdata(orig=False), line.get_ydata(orig=False))
            for line in axes.lines if line.get_transform() == axes.transData]


def _scatter(axes):
    from matplotlib.collections import PathCollection

    return [_points(axes, _own_label(points), points.get_offsets()[:, 0],
                    points.get_offsets()[:, 1])
            for points in axes.collections
            if isinstance(points, PathCollection) and len(points.get_offsets())]


def _bars(axes):
    from matplotlib.container import BarContainer

    elements = []
    for container in axes.containers:
        if not isinstance(container, BarContainer):
            continue
        upright = container.orientation != "horizontal"
        axis = axes.xaxis if upright else axes.yaxis
        centers = [bar.get_x() + bar.get_width() / 2 if upright
                   else bar.get_y() + bar.get_height() / 2 for bar in container]
        names = _names_at(axis, centers)
        for bar, name in zip(container, names):
            value = bar.get_height() if upright else bar.get_width()
            elements.append({"label": name, "group": _own_label(container), "value": float(value)})
    return elements


def _names_at(axis, places):
    """The names on an axis for places on it: of its categories or of the tick labels that were set,
    else the number."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    ticks = axis.get_ticklocs()
    if _scale(axis) == "categorical" or isinstance(axis.major.formatter,
                                                   (FixedFormatter, FuncFormatter)):
        labels = axis.major.formatter.format_ticks(ticks)
        if len(ticks):
            nearest = [min(range(len(ticks)), key=lambda i: abs(ticks[i] - place))
                       for place in places]
            return [labels[index] for index in nearest]
    return [str(value) for value in _values(axis, places)]


def _pie(axes):
    from matplotlib.patches import Wedge

    wedges = [patch for patch in axes.patches if isinstance(patch, Wedge)]
    # pie() makes texts in the order of its wedges: for each its label, after that its percentage.
    return [{"label": str(wedge.get_label()) if not str(wedge.get_label()).startswith("_") else "",
             "angle": float(abs(wedge.theta2 - wedge.theta1)), "radius": float(wedge.r)}
            for wedge in wedges]


def _boxes(axes):
    ticks = iter(())
    statistics = getattr(axes, "_cube_boxes", [])
    if statistics:
        ticks = iter(_names_at(axes.xaxis if axes._cube_boxes_upright else axes.yaxis,
                               axes._cube_box_places))
    return [{"label": str(box.get("label") or next(ticks, "")),
             "min": float(box["whislo"]), "first_quartile": float(box["q1"]),
             "median": float(box["med"]), "third_quartile": float(box["q3"]),
             "max": float(box["whishi"]),
             "outliers": [float(value) for value in box.get("fliers", ())]}
            for box in statistics]


def _watch_boxes():
    """A box plot is but lines once it is drawn, so its numbers are kept when it is."""
    from matplotlib.axes import Axes

    draw = Axes.bxp

    def bxp(self, bxpstats, positions=None, *args, vert=True, **kwargs):
        drawn = draw(self, bxpstats, positions, *args, vert=vert, **kwargs)
        self._cube_boxes = getattr(self, "_cube_boxes", []) + list(bxpstats)
        places = list(positions) if positions is not None else list(range(1, len(bxpstats) + 1))
        self._cube_box_places = getattr(self, "_cube_box_places", []) + places
        self._cube_boxes_upright = vert
        return drawn

    bxp.__doc__ = draw.__doc__
    Axes.bxp = bxp


def install(display_formatter):
    """Registers the formatter; with matplotlib loaded also what it needs to know of box plots."""
    formatter = ChartFormatter(parent=display_formatter)
    display_formatter.formatters[formatter.format_type] = formatter
    try:
        _watch_boxes()
    except Exception:
        pass  # no matplotlib, or a broken one
