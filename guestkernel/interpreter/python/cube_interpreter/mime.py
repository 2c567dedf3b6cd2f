"""What a kernel displays, as a `result` event."""

# MIME types with a field of their own; all others go to `extra`.
_FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/latex": "latex",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


def result(bundle, is_main):
    """The event for a MIME bundle. Images and PDF are base64 already. A string's representation
    loses its quotes: the text of 'a' is a."""
    event = {"type": "result", "is_main_result": is_main}
    extra = {}
    for mime, value in bundle.items():
        field = _FIELDS.get(mime)
        if field is None:
            extra[mime] = value
            continue
        if field == "text" and len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        event[field] = value
    if extra:
        event["extra"] = extra
    return event
